//! A queue that fails as it is told, and remembers what was asked of it.

use outgrow::env::{Env, Tick};
use outgrow::queue::{
    Capability, DeliveryToken, DurableQueue, Effect, Error, Message, Queue, QueueStats, RawDelivery, Receipt, Result,
    Settle, Subscription,
};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Clone)]
pub(crate) struct Flaky {
    pub(crate) inner: DurableQueue,
    env: Env,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
pub(crate) struct Script {
    /// What every extension is answered.
    pub(crate) extend: Option<Error>,
    /// How long an extension is on its way.
    pub(crate) extend_takes: Duration,
    /// What the next receives are answered.
    pub(crate) receives: VecDeque<Error>,
    /// What the next settlements are answered.
    pub(crate) settles: VecDeque<Error>,
    /// When messages were asked for.
    pub(crate) asked: Vec<Tick>,
    /// Extensions and settlements that got through, by the message's number.
    pub(crate) through: Vec<(u64, Settle)>,
    /// Extensions that were asked for.
    pub(crate) extensions: usize,
}

impl Flaky {
    pub(crate) fn new(inner: DurableQueue, env: Env) -> Flaky {
        Flaky {
            inner,
            env,
            script: Arc::default(),
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

/// An error that passes.
pub(crate) fn passing() -> Error {
    Error::Io {
        kind: io::ErrorKind::TimedOut,
        message: "no answer".into(),
        effect: Effect::None,
    }
}

impl Queue for Flaky {
    async fn send(&self, topic: &str, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        self.inner.send(topic, messages).await
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<()> {
        self.inner.subscribe(subscription).await
    }

    async fn receive(&self, subscription: &Subscription, max: usize, wait: Duration) -> Result<Vec<RawDelivery>> {
        self.script().asked.push(self.env.now());
        let failure = self.script().receives.pop_front();
        match failure {
            Some(error) => Err(error),
            None => self.inner.receive(subscription, max, wait).await,
        }
    }

    async fn settle(&self, token: &DeliveryToken, settle: Settle) -> Result<()> {
        if let Settle::Extend { .. } = settle {
            let takes = {
                let mut script = self.script();
                script.extensions += 1;
                script.extend_takes
            };
            if !takes.is_zero() {
                self.env.sleep(takes).await;
            }
            let failure = self.script().extend.clone();
            if let Some(error) = failure {
                return Err(error);
            }
        } else {
            let failure = self.script().settles.pop_front();
            if let Some(error) = failure {
                return Err(error);
            }
        }
        self.script().through.push((token.seq, settle.clone()));
        self.inner.settle(token, settle).await
    }

    fn release(&self, token: &DeliveryToken) {
        self.inner.release(token);
    }

    async fn stats(&self) -> Result<QueueStats> {
        Queue::stats(&self.inner).await
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

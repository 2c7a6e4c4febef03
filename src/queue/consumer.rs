use super::keep_alive::Keeper;
use super::message::LEASE;
use super::{Backoff, Queue};
use crate::env::{Env, Rng, Tick};
use crate::sync::{Mutex, OnceLock};
use std::sync::Arc;
use std::time::Duration;

/// What the deliveries of one subscriber have in common.
pub(super) struct Consumer<Q> {
    pub(super) queue: Q,
    pub(super) lease: Duration,
    pub(super) backoff: Backoff,
    pub(super) keeper: Keeper,
    /// Made when first asked for: most deliveries need neither time nor chance.
    env: OnceLock<Env>,
    rng: OnceLock<Mutex<Rng>>,
}

impl<Q: Queue> Consumer<Q> {
    pub(super) fn new(queue: Q, lease: Duration, backoff: Backoff, env: Option<Env>) -> Consumer<Q> {
        Consumer {
            queue,
            lease,
            backoff,
            keeper: Keeper::default(),
            env: env.map_or_else(OnceLock::new, OnceLock::from),
            rng: OnceLock::new(),
        }
    }

    /// One that knows nothing but the queue.
    fn of(queue: Q) -> Consumer<Q> {
        Consumer::new(queue, LEASE, Backoff::default(), None)
    }

    pub(super) fn env(&self) -> &Env {
        self.env.get_or_init(Env::default)
    }

    /// What time it is, if anyone has asked for that before.
    pub(super) fn now(&self) -> Option<Tick> {
        self.env.get().map(Env::now)
    }

    /// How long attempt number `attempt` waits for the next one.
    pub(super) fn wait(&self, attempt: u32) -> Duration {
        let rng = self.rng.get_or_init(|| Mutex::new(self.env().rng("backoff")));
        self.backoff.wait(attempt, &mut rng.lock())
    }
}

/// Whose a delivery is.
pub(super) enum Whose<Q> {
    /// Nobody's but the queue's: a consumer is made only for what needs one, since most are acknowledged and gone.
    Queues(Q),
    Of(Arc<Consumer<Q>>),
}

impl<Q: Queue> Whose<Q> {
    pub(super) fn queue(&self) -> &Q {
        match self {
            Whose::Queues(queue) => queue,
            Whose::Of(consumer) => &consumer.queue,
        }
    }

    /// The consumer, if it was ever needed.
    pub(super) fn known(&self) -> Option<&Arc<Consumer<Q>>> {
        match self {
            Whose::Queues(_) => None,
            Whose::Of(consumer) => Some(consumer),
        }
    }

    pub(super) fn lease(&self) -> Duration {
        self.known().map_or(LEASE, |consumer| consumer.lease)
    }

    /// How long attempt number `attempt` waits for the next one.
    pub(super) fn wait(&self, attempt: u32) -> Duration {
        match self {
            Whose::Queues(_) => Backoff::default().wait(attempt, &mut Env::default().rng("backoff")),
            Whose::Of(consumer) => consumer.wait(attempt),
        }
    }
}

impl<Q: Queue + Clone> Whose<Q> {
    pub(super) fn consumer(&mut self) -> &Arc<Consumer<Q>> {
        if let Whose::Queues(queue) = self {
            *self = Whose::Of(Arc::new(Consumer::of(queue.clone())));
        }
        self.known().expect("there is one now")
    }
}

//! Leases that go on while somebody works.
//!
//! One task for all deliveries of a subscriber lengthens their leases. An extension on its way belongs to the delivery's
//! entry in a map, and is polled under the map's lock: so whoever takes the entry out can be sure that nothing of it
//! happens any more.

use super::consumer::Consumer;
use super::{DeliveryToken, Queue, Result, Retry, Settle};
use crate::env::{Env, Sleep, Tick};
use crate::sync::Mutex;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A lease is lengthened when this part of it has passed, and looked at twice as often.
const PART: u32 = 3;

/// The deliveries of one subscriber whose leases are kept.
#[derive(Default)]
pub(super) struct Keeper {
    core: Mutex<Core>,
}

#[derive(Default)]
struct Core {
    kept: BTreeMap<KeepId, Kept>,
    last: KeepId,
    /// Whether the task runs.
    running: bool,
    /// The task, while it waits.
    task: Option<Waker>,
}

/// Tells a kept delivery from every other of its subscriber.
pub(super) type KeepId = u64;

struct Kept {
    token: DeliveryToken,
    /// When to lengthen the lease.
    due: Tick,
    /// When the lease ends.
    end: Tick,
    extending: Option<Extending>,
    lost: bool,
    /// Who waits to hear that it is lost.
    waiting: Option<Waker>,
}

struct Extending {
    since: Tick,
    done: BoxFuture<'static, Result<()>>,
}

impl Keeper {
    /// Keeps a lease that began at `since`, if that is known, until [`let_go`](Keeper::let_go).
    pub(super) fn keep<Q: Queue + Clone + 'static>(
        consumer: &Arc<Consumer<Q>>,
        token: &DeliveryToken,
        since: Option<Tick>,
    ) -> KeepId {
        let (env, lease) = (consumer.env(), consumer.lease);
        let now = env.now();
        let mut core = consumer.keeper.core.lock();
        core.last += 1;
        let id = core.last;
        let kept = Kept {
            token: token.clone(),
            due: since.map_or(now, |since| since + lease / PART),
            end: since.unwrap_or(now) + lease,
            extending: None,
            lost: false,
            waiting: None,
        };
        let overdue = kept.due <= now;
        core.kept.insert(id, kept);
        if !core.running {
            core.running = true;
            env.spawn(run(Arc::downgrade(consumer), env.clone(), lease)).detach();
        } else if overdue {
            let task = core.task.take();
            drop(core);
            task.into_iter().for_each(Waker::wake);
        }
        id
    }

    /// Ends it: no extension that has been begun goes on.
    pub(super) fn let_go(&self, id: KeepId) {
        let kept = self.core.lock().kept.remove(&id);
        drop(kept);
    }

    /// Ready when the lease has turned out to be lost.
    pub(super) fn poll_lost(&self, id: KeepId, cx: &Context<'_>) -> Poll<()> {
        match self.core.lock().kept.get_mut(&id) {
            Some(kept) if kept.lost => Poll::Ready(()),
            Some(kept) => {
                kept.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// Works until nothing is kept or the consumer is gone.
async fn run<Q: Queue + Clone + 'static>(consumer: Weak<Consumer<Q>>, env: Env, lease: Duration) {
    let every = (lease / (2 * PART)).max(Duration::from_micros(1));
    let mut tick = env.sleep(Duration::ZERO);
    poll_fn(|cx| {
        let Some(consumer) = consumer.upgrade() else {
            return Poll::Ready(());
        };
        let mut core = consumer.keeper.core.lock();
        core.task = Some(cx.waker().clone());
        if ticks(&mut tick, &env, every, cx) && core.kept.is_empty() {
            core.running = false;
            return Poll::Ready(());
        }
        let waiting = core.turn(&consumer, env.now(), cx);
        drop(core);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Pending
    })
    .await;
}

/// Whether the time has come; then waits for the next.
fn ticks(tick: &mut Sleep, env: &Env, every: Duration, cx: &mut Context<'_>) -> bool {
    let mut ticked = false;
    while tick.poll_unpin(cx).is_ready() {
        ticked = true;
        *tick = env.sleep(every);
    }
    ticked
}

impl Core {
    /// Begins the extensions that are due, and sees to those on their way. Returns who has to hear that a lease is lost.
    fn turn<Q: Queue + Clone + 'static>(
        &mut self,
        consumer: &Consumer<Q>,
        now: Tick,
        cx: &mut Context<'_>,
    ) -> Vec<Waker> {
        let mut waiting = Vec::new();
        for kept in self.kept.values_mut().filter(|kept| !kept.lost) {
            if kept.extending.is_none() && kept.due <= now {
                kept.extending = Some(extend(consumer, &kept.token, now));
            }
            if let Some(extending) = &mut kept.extending
                && let Poll::Ready(extended) = extending.done.poll_unpin(cx)
            {
                let since = extending.since;
                kept.extending = None;
                kept.extended(&extended, since, consumer.lease);
            }
            if kept.end <= now {
                kept.lost = true;
            }
            if kept.lost {
                kept.extending = None;
                waiting.extend(kept.waiting.take());
            }
        }
        waiting
    }
}

impl Kept {
    fn extended(&mut self, result: &Result<()>, since: Tick, lease: Duration) {
        match result {
            Ok(()) => {
                self.due = since + lease / PART;
                self.end = since + lease;
            }
            // It is tried again at the next tick, as long as the lease lasts.
            Err(error) => self.lost = error.retry() == Retry::Never,
        }
    }
}

fn extend<Q: Queue + Clone + 'static>(consumer: &Consumer<Q>, token: &DeliveryToken, since: Tick) -> Extending {
    let (queue, token, by) = (consumer.queue.clone(), token.clone(), consumer.lease);
    let done = async move { queue.settle(&token, Settle::Extend { by }).await };
    Extending {
        since,
        done: done.boxed(),
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kept", self.core.lock().kept.len())
    }
}

//! The background task of a queue: it ends leases, renews those that were extended, and tidies topics.

use super::Inner;
use super::leases::Due;
use super::settle::PROGRESS;
use futures::future::{Either, pending, select};
use std::pin::pin;
use std::sync::Arc;

enum Chore {
    Stop,
    /// Something will be due earlier than expected.
    Rearm,
}

/// Works until the queue is closed.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let until = inner.arm();
        let due = async {
            match until {
                Some(until) => inner.link.env.sleep_until(until).await,
                None => pending().await,
            }
        };
        match select(pin!(inner.keeper.wait(|| inner.chore())), pin!(due)).await {
            Either::Left((Chore::Stop, _)) => return,
            Either::Left((Chore::Rearm, _)) => {}
            Either::Right(_) => inner.due(),
        }
    }
}

impl Inner {
    /// When there is something to do, which the keeper waits for from now on.
    fn arm(&self) -> Option<crate::env::Tick> {
        let mut core = self.core.lock();
        core.keeper_until = core.next_due();
        core.keeper_until
    }

    fn chore(&self) -> Option<Chore> {
        let core = self.core.lock();
        match core.closed {
            true => Some(Chore::Stop),
            false => (core.next_due() != core.keeper_until).then_some(Chore::Rearm),
        }
    }

    /// Wakes the keeper if it would be late.
    pub(super) fn rearm(&self) {
        let core = self.core.lock();
        let late = match (core.next_due(), core.keeper_until) {
            (Some(next), Some(until)) => next < until,
            (next, None) => next.is_some(),
            (None, _) => false,
        };
        drop(core);
        if late {
            self.keeper.wake(1);
        }
    }

    fn due(self: &Arc<Self>) {
        let now = self.now();
        let (due, untidy) = {
            let mut core = self.core.lock();
            let tidy = core.tidy_at.is_some_and(|at| at <= now);
            core.tidy_at = core.tidy_at.filter(|_| !tidy);
            let untidy = if tidy {
                std::mem::take(&mut core.untidy)
            } else {
                Default::default()
            };
            (core.leases.due(now), untidy)
        };
        for due in due {
            match due {
                Due::Renew(reply) => self.link.tell(&reply, PROGRESS),
                Due::Ended(held) => self.give_back(*held),
            }
        }
        if !untidy.is_empty() {
            let inner = Arc::clone(self);
            let tidy = async move {
                for topic in untidy {
                    // What stays is deleted after the next settlement.
                    let _later = inner.tidy(&topic).await;
                }
            };
            self.link.env.spawn(tidy).detach();
        }
    }
}

impl super::Core {
    fn next_due(&self) -> Option<crate::env::Tick> {
        [self.leases.next(), self.tidy_at].into_iter().flatten().min()
    }
}

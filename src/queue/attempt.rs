//! One delivery in the hands of a worker: its handler, what can cut that short, and how it is settled.

use super::{Backoff, Delivery, Outcome, Queue, Result, Retry, Settle, trace};
use crate::env::{Env, Rng};
use futures::FutureExt;
use futures::future::{Either, select};
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

/// How a delivery is worked on.
pub(super) struct Work {
    pub(super) max_attempts: u32,
    pub(super) time_limit: Duration,
    pub(super) env: Env,
}

impl Work {
    /// Handles a delivery and settles it; `attempt` is the handler's future, or what is known without asking it.
    pub(super) async fn on<Q, F>(
        &self,
        mut delivery: Delivery<Q>,
        attempt: Result<AssertUnwindSafe<F>, Outcome>,
    ) -> Tally
    where
        Q: Queue,
        F: Future<Output = Outcome>,
    {
        let (token, number) = (delivery.token().clone(), delivery.attempt());
        let handled = match attempt {
            Err(known) => Handled::Done(known),
            Ok(attempt) => trace::handle(&token, number, self.attend(&delivery, attempt)).await,
        };
        let panicked = matches!(handled, Handled::Panicked(_));
        let fate = match handled {
            Handled::Lost => Fate::Lost,
            Handled::Done(outcome) => self.settle(&mut delivery, outcome).await,
            Handled::Panicked(said) => self.settle(&mut delivery, Outcome::retry(said)).await,
        };
        Tally { fate, panicked }
    }

    /// Runs the handler to its end, or until it must not go on.
    async fn attend<Q, F>(&self, delivery: &Delivery<Q>, attempt: AssertUnwindSafe<F>) -> Handled
    where
        Q: Queue,
        F: Future<Output = Outcome>,
    {
        let handler = pin!(attempt.catch_unwind());
        let lost = pin!(delivery.lease_lost());
        let cut = select(lost, self.env.sleep(self.time_limit));
        match select(handler, cut).await {
            Either::Left((Ok(outcome), _)) => Handled::Done(outcome),
            Either::Left((Err(panic), _)) => Handled::Panicked(format!("the handler panicked: {}", said(&*panic))),
            Either::Right((Either::Left(_), _)) => Handled::Lost,
            Either::Right((Either::Right(_), _)) => Handled::Done(Outcome::retry(format_args!(
                "it took longer than {:?}",
                self.time_limit
            ))),
        }
    }

    /// Settles the delivery, again if that fails for a moment.
    async fn settle<Q: Queue>(&self, delivery: &mut Delivery<Q>, outcome: Outcome) -> Fate {
        let (settle, fate) = self.fate(delivery, outcome);
        // At least half of the lease is left when it is kept no more: the waits together are less.
        let lease = delivery.lease();
        let mut pauses = Pauses::new(&self.env, lease / 16, lease / 4);
        for _ in 1..SETTLE_TRIES {
            match delivery.try_settle(settle.clone()).await {
                Ok(()) => return fate,
                Err(error) if error.retry() == Retry::Never => return Fate::Lost,
                Err(_) => self.env.sleep(pauses.next()).await,
            }
        }
        match delivery.try_settle(settle).await {
            Ok(()) => fate,
            Err(_) => Fate::Lost,
        }
    }

    fn fate<Q: Queue>(&self, delivery: &Delivery<Q>, outcome: Outcome) -> (Settle, Fate) {
        let (after, reason) = match outcome {
            Outcome::Done => return (Settle::Ack, Fate::Done),
            Outcome::DeadLetter { reason } => (None, reason),
            // A letter that its last attempt makes says more than one that the queue makes of it.
            Outcome::Retry { reason } | Outcome::RetryIn { reason, .. } if delivery.attempt() >= self.max_attempts => {
                (None, reason)
            }
            Outcome::Retry { reason } => (Some(delivery.backoff()), reason),
            Outcome::RetryIn { after, reason } => (Some(after), reason),
        };
        trace::failed(delivery.token(), delivery.attempt(), &reason);
        match after {
            Some(after) => (Settle::Retry { after }, Fate::Retried),
            None => (Settle::DeadLetter { reason }, Fate::Dead),
        }
    }
}

enum Handled {
    Done(Outcome),
    Panicked(String),
    /// Its lease was.
    Lost,
}

/// How one delivery ended.
#[derive(Clone, Copy)]
pub(super) struct Tally {
    pub(super) fate: Fate,
    pub(super) panicked: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Fate {
    Done,
    Retried,
    Dead,
    Lost,
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}

/// Waits between errors that come one after the other.
pub(super) struct Pauses {
    backoff: Backoff,
    errors: u32,
    rng: Rng,
}

impl Pauses {
    pub(super) fn new(env: &Env, first: Duration, most: Duration) -> Pauses {
        Pauses {
            backoff: Backoff::exponential(first, most).jitter(0.5),
            errors: 0,
            rng: env.rng("worker"),
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        self.errors = self.errors.saturating_add(1);
        self.backoff.wait(self.errors, &mut self.rng)
    }

    pub(super) fn over(&mut self) {
        self.errors = 0;
    }
}

/// How often a settlement is tried.
const SETTLE_TRIES: u32 = 4;

use super::keep_alive::Keeper;
use super::message::LEASE;
use super::{Backoff, Queue};
use crate::env::{Env, Rng, Tick};
use crate::sync::{Mutex, OnceLock};
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
    pub(super) fn of(queue: Q) -> Consumer<Q> {
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

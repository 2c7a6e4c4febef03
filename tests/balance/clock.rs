use outgrow::env::{Clock, Env, Tick, TimerId, WallTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

/// Time that stands still until it is moved, and counts who looks at it. It has no timers: a pool uses none.
#[derive(Clone, Default)]
pub(crate) struct ManualClock {
    nanos: Arc<AtomicU64>,
    readings: Arc<AtomicU64>,
}

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.nanos.fetch_add(by.as_nanos() as u64, Relaxed);
    }

    pub(crate) fn readings(&self) -> u64 {
        self.readings.load(Relaxed)
    }

    /// An environment with this time and the randomness that `seed` names.
    pub(crate) fn env(&self, seed: u64) -> Env {
        Env::builder().clock(self.clone()).seed(seed).build()
    }

    /// The time, without being counted.
    pub(crate) fn peek(&self) -> Tick {
        Tick::from_nanos(self.nanos.load(Relaxed))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        self.readings.fetch_add(1, Relaxed);
        self.peek()
    }

    fn coarse(&self) -> Tick {
        self.now()
    }

    /// An hour ahead of the other times, so that comparing it with one of them shows.
    fn stopwatch(&self) -> Tick {
        self.now() + Duration::from_secs(3_600)
    }

    fn wall(&self) -> WallTime {
        WallTime::default()
    }

    fn arm(&self, _: Tick, _: &Waker) -> TimerId {
        panic!("a pool arms no timer")
    }

    fn disarm(&self, _: TimerId) {}
}

//! Time that the simulation moves.

use outgrow::env::{Clock, Env, Tick, TimerId, WallTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;

/// Stands still until it is set. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub(crate) struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    pub(crate) fn set(&self, nanos: u64) {
        self.nanos.store(nanos, Relaxed);
    }

    /// An environment with this time and the randomness that `seed` names.
    pub(crate) fn env(&self, seed: u64) -> Env {
        Env::builder().clock(self.clone()).seed(seed).build()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.nanos.load(Relaxed))
    }

    /// As coarse as a system's: 4 ms.
    fn coarse(&self) -> Tick {
        let nanos = self.nanos.load(Relaxed);
        Tick::from_nanos(nanos - nanos % COARSE)
    }

    fn wall(&self) -> WallTime {
        WallTime::default()
    }

    fn arm(&self, _: Tick, _: &Waker) -> TimerId {
        panic!("a pool arms no timer")
    }

    fn disarm(&self, _: TimerId) {}
}

const COARSE: u64 = 4_000_000;

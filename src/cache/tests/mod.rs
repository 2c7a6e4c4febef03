mod bounds;
mod hostile;
mod loading;
mod model;

use crate::env::{Clock, Env, Tick, TimerId, WallTime};
use crate::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// A clock that stands until it is moved, with a coarse reading that is behind by up to `lag`.
#[derive(Clone, Debug)]
struct HandClock {
    nanos: Arc<AtomicU64>,
    lag: Duration,
}

impl HandClock {
    fn new(lag: Duration) -> HandClock {
        HandClock {
            nanos: Arc::new(AtomicU64::new(1_000_000_000)),
            lag,
        }
    }

    fn env(&self) -> Env {
        Env::builder().seed(1).clock(self.clone()).build()
    }

    fn advance(&self, by: Duration) {
        self.nanos
            .fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn coarse(&self) -> Tick {
        let (now, lag) = (self.now().as_nanos(), self.lag.as_nanos() as u64 + 1);
        Tick::from_nanos(now - now % lag)
    }

    fn wall(&self) -> WallTime {
        WallTime::from_millis(self.now().as_nanos() / 1_000_000)
    }

    fn arm(&self, at: Tick, _: &Waker) -> TimerId {
        TimerId { at, seq: 0 }
    }

    fn disarm(&self, _: TimerId) {}
}

#[test]
fn handles_are_send_sync_and_show_no_contents() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}
    let cache: super::Cache<String, String> = super::Cache::builder().build().unwrap();
    cache.insert("key".into(), "secret".into());
    check(&cache);
    let shown = format!("{cache:?}");
    assert!(shown.contains("len: 1") && !shown.contains("secret"), "{shown}");
}

mod blocking;
mod bounds;
mod entry;
mod hostile;
#[cfg(outgrow_shuttle)]
mod interleaved;
mod iter;
mod loading;
mod many;
mod model;
mod resize;
mod save;
mod stale;
#[cfg(feature = "sim")]
mod ticker;

use super::Cache;
use crate::env::{Clock, Env, Tick, TimerId, WallTime};
use crate::sync::{AtomicU64, Mutex, Ordering};
use futures::future::BoxFuture;
use futures::task::noop_waker;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A clock that stands until it is moved, with a coarse reading that is behind by up to `lag`.
#[derive(Clone, Debug)]
struct HandClock {
    nanos: Arc<AtomicU64>,
    lag: Duration,
    armed: Arc<Mutex<BTreeMap<TimerId, Waker>>>,
}

impl HandClock {
    fn new(lag: Duration) -> HandClock {
        HandClock {
            nanos: Arc::new(AtomicU64::new(1_000_000_000)),
            lag,
            armed: Arc::default(),
        }
    }

    fn env(&self) -> Env {
        Env::builder().seed(1).clock(self.clone()).build()
    }

    fn advance(&self, by: Duration) {
        self.nanos
            .fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
        let end = TimerId {
            at: self.now(),
            seq: u64::MAX,
        };
        let mut armed = self.armed.lock();
        let later = armed.split_off(&end);
        let due = std::mem::replace(&mut *armed, later);
        drop(armed);
        due.into_values().for_each(Waker::wake);
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

    fn arm(&self, at: Tick, waker: &Waker) -> TimerId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let seq = NEXT.fetch_add(1, Ordering::Relaxed);
        let timer = TimerId { at, seq };
        self.armed.lock().insert(timer, waker.clone());
        timer
    }

    fn disarm(&self, timer: TimerId) {
        self.armed.lock().remove(&timer);
    }
}

/// No trace is left of any load.
fn assert_settled<K: Hash + Eq, V>(cache: &Cache<K, V>) {
    assert_eq!(cache.inner.flights.counts(), (0, 0));
    let loading = cache.inner.shards.iter().map(|shard| shard.lock().state().loading);
    assert_eq!(loading.sum::<usize>(), 0);
}

/// Is pending `steps` times, each time waking itself.
async fn pause(steps: usize) {
    for _ in 0..steps {
        let mut first = true;
        let pause = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::take(&mut first) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        });
        pause.await;
    }
}

/// A loader that is pending `steps` times, each time waking itself, and yields `value`.
async fn slow(steps: usize, value: u64) -> Result<u64, &'static str> {
    pause(steps).await;
    Ok(value)
}

fn poll<T>(future: &mut BoxFuture<'_, T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(&noop_waker()))
}

/// Has one meaning for what stays on its thread, and two for what is `Send`, which then does not compile.
trait Stays<Which> {
    fn on_its_thread() -> bool {
        true
    }
}

impl<T: ?Sized> Stays<()> for T {}
impl<T: ?Sized + Send> Stays<u8> for T {}

#[test]
fn a_pinned_guard_stays_on_its_thread() {
    assert!(<super::Pinned<'_, u32, u32, super::DefaultHash> as Stays<_>>::on_its_thread());
}

#[test]
fn handles_are_send_sync_and_show_no_contents() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}
    let cache: Cache<String, String> = Cache::builder().build().unwrap();
    cache.insert("key".into(), "secret".into());
    check(&cache);
    let shown = format!("{cache:?}");
    assert!(shown.contains("len: 1") && !shown.contains("secret"), "{shown}");
}

//! Ten thousand calls, of threads that block and of tasks that do not, miss the same key at once. In a process of its own:
//! so many threads that are put aside while they read hold back memory that other tests watch.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{join_all, poll_fn};
use futures::task::noop_waker;
use outgrow::cache::Cache;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

const THREADS: usize = 64;
const ASKS: usize = 10_000;
/// Threads that poll tasks, beside those that block.
const POLLING: usize = 5;

/// Who is first to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// A task that goes on to the end.
    Loads,
    /// A task that is dropped while all wait.
    IsDropped,
    /// A task that panics in its loader when all wait.
    Panics,
    /// A thread that goes on to the end.
    Blocks,
    /// A thread that panics in its loader when all wait.
    BlocksAndPanics,
}

/// What all loaders of a storm wait at.
#[derive(Clone, Default)]
struct Gate {
    open: Arc<AtomicBool>,
    loads: Arc<AtomicUsize>,
}

impl Gate {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// A loader that is polled.
    async fn load(self, panics: bool) -> Result<u64, Infallible> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let wait = poll_fn(|cx| {
            if self.is_open() {
                return Poll::Ready(());
            }
            thread::yield_now();
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        wait.await;
        assert!(!panics, "planned");
        Ok(7)
    }

    /// A loader that blocks.
    fn block(&self, panics: bool) -> Result<u64, Infallible> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        while !self.is_open() {
            thread::yield_now();
        }
        assert!(!panics, "planned");
        Ok(7)
    }
}

/// Ten thousand calls miss the same key: 64 threads that block, the others tasks on a few threads.
fn storm(first: First) {
    let cache: Cache<u8, u64> = Cache::builder().capacity(100).build().unwrap();
    let gate = Gate::default();
    let started = |loads| {
        while gate.loads.load(Ordering::Relaxed) < loads {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        let mut task = cache
            .get_or_load(&1, |_| gate.clone().load(first == First::Panics))
            .boxed();
        let mut blocked = None;
        match first {
            First::Loads | First::IsDropped | First::Panics => {
                assert!(task.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_pending());
            }
            First::Blocks | First::BlocksAndPanics => {
                let (cache, gate, panics) = (&cache, &gate, first == First::BlocksAndPanics);
                let ask = move || cache.get_or_load_blocking(&1, |_| gate.block(panics));
                let ask = move || catch_unwind(AssertUnwindSafe(ask));
                blocked = Some(scope.spawn(ask));
            }
        }
        started(1);
        for _ in 0..THREADS {
            scope.spawn(|| assert_eq!(cache.get_or_load_blocking(&1, |_| gate.block(false)).unwrap(), 7));
        }
        for _ in 0..POLLING {
            scope.spawn(|| {
                let ask = |_| cache.get_or_load(&1, |_| gate.clone().load(false));
                let all = block_on(join_all((0..(ASKS - THREADS - 1) / POLLING).map(ask)));
                assert!(all.into_iter().all(|value| value.unwrap() == 7));
            });
        }
        while cache.stats().misses < ASKS as u64 {
            thread::yield_now();
        }
        // The last has missed, and takes its place now.
        thread::sleep(Duration::from_millis(50));
        if first == First::IsDropped {
            drop(task);
            gate.open.store(true, Ordering::Release);
            return;
        }
        gate.open.store(true, Ordering::Release);
        let panicked = match blocked {
            Some(blocked) => {
                drop(task);
                blocked.join().unwrap().is_err()
            }
            None => catch_unwind(AssertUnwindSafe(|| block_on(task))).is_err(),
        };
        assert_eq!(panicked, matches!(first, First::Panics | First::BlocksAndPanics));
    });
    // A loader that was dropped goes on in other hands; one that panicked is started again.
    let expected = 1 + usize::from(matches!(first, First::Panics | First::BlocksAndPanics));
    assert_eq!(gate.loads.load(Ordering::Relaxed), expected, "{first:?}");
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_errors), (expected as u64, expected as u64 - 1));
    assert_eq!(cache.get(&1), Some(7));
}

#[test]
fn ten_thousand_misses_make_one_load() {
    storm(First::Loads);
    storm(First::Blocks);
}

#[test]
fn ten_thousand_misses_make_two_loads_at_most_when_the_first_goes_down() {
    storm(First::IsDropped);
    storm(First::Panics);
    storm(First::BlocksAndPanics);
}

#[test]
fn what_was_loaded_waits_for_readers_that_hold_memory_back() {
    let cache: Cache<u64, u64> = Cache::builder().capacity(64).build().unwrap();
    let (held, end) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let pinned = cache.pin();
            held.store(true, Ordering::Release);
            while !end.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(1));
            }
            drop(pinned);
        });
        while !held.load(Ordering::Acquire) {
            thread::yield_now();
        }
        // Until nothing goes in any more.
        let refused = (0..).find(|key| !cache.insert(*key, 0).is_kept()).unwrap();
        scope.spawn(|| {
            while cache.stats().loads == 0 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(50));
            end.store(true, Ordering::Release);
        });
        let loaded = block_on(cache.get_or_load(&refused, |_| async { Ok::<_, Infallible>(7) }));
        assert_eq!((loaded.unwrap(), cache.get(&refused)), (7, Some(7)));
    });
}

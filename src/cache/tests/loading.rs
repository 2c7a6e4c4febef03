//! One load however many wait, whatever becomes of those who wait.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use crate::cache::{Cache, LoadError};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all, poll_fn};
use futures::task::{ArcWake, noop_waker, waker};
use proptest::prelude::*;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

fn cache() -> Cache<u8, u64> {
    Cache::builder().capacity(100).build().unwrap()
}

/// No trace is left of any load.
pub(super) fn assert_settled<K, V>(cache: &Cache<K, V>)
where
    K: std::hash::Hash + Eq,
    V: Clone,
{
    assert_eq!(cache.inner.flights.counts(), (0, 0));
    let loading = cache.inner.shards.iter().map(|shard| shard.lock().state().loading);
    assert_eq!(loading.sum::<usize>(), 0);
}

#[test]
fn ten_thousand_misses_make_one_load() {
    const THREADS: usize = 4;
    const EACH: usize = 2_500;
    let (cache, open, loads) = (cache(), AtomicBool::new(false), AtomicUsize::new(0));
    let (open, loads) = (Arc::new(open), Arc::new(loads));
    let ask = || {
        let (open, loads) = (Arc::clone(&open), Arc::clone(&loads));
        let load = move |_| async move {
            loads.fetch_add(1, Ordering::Relaxed);
            let wait = poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if open.load(Ordering::Relaxed) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            wait.await;
            Ok::<_, Infallible>(7)
        };
        cache.get_or_load(&1, load)
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let all = block_on(join_all((0..EACH).map(|_| ask())));
                assert!(all.into_iter().all(|value| value.unwrap() == 7));
            });
        }
        while cache.inner.flights.counts().1 < THREADS * EACH {
            thread::yield_now();
        }
        open.store(true, Ordering::Relaxed);
    });
    assert_eq!((loads.load(Ordering::Relaxed), cache.stats().loads), (1, 1));
    assert_eq!(cache.get(&1), Some(7));
    assert_settled(&cache);
}

#[test]
fn threads_that_race_without_a_gate_load_each_key_once() {
    let cache: Cache<u64, u64> = Cache::builder().capacity(10_000).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for key in 0..2_000 {
                    let load = |key| async move { Ok::<_, Infallible>(key * 2) };
                    assert_eq!(block_on(cache.get_or_load(&key, load)).unwrap(), key * 2);
                }
            });
        }
    });
    assert_eq!(cache.stats().loads, 2_000);
    assert_settled(&cache);
}

/// A loader that is pending `steps` times, each time waking itself, and yields `value`.
async fn slow(steps: usize, value: u64) -> Result<u64, &'static str> {
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
    Ok(value)
}

fn poll<T>(future: &mut BoxFuture<'_, T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(&noop_waker()))
}

#[test]
fn dropped_at_every_poll_it_leaves_nothing_behind() {
    const STEPS: usize = 5;
    for alone in [true, false] {
        for polls in 0..=STEPS + 1 {
            let cache = cache();
            let mut first = cache.get_or_load(&1, |_| slow(STEPS, 7)).boxed();
            let mut second = cache.get_or_load(&1, |_| slow(STEPS, 8)).boxed();
            let mut done = None;
            for _ in 0..polls {
                if let Poll::Ready(value) = poll(&mut first) {
                    done = Some(value.unwrap());
                }
                if !alone && done.is_none() {
                    assert!(poll(&mut second).is_pending());
                }
            }
            assert_eq!(done.is_some(), polls == STEPS + 1);
            drop(first);
            if alone || polls == 0 {
                drop(second);
                assert_settled(&cache);
                assert_eq!(cache.len(), usize::from(done.is_some()));
                continue;
            }
            // The loader passed on with what it had done: the value is the first call's, and it was one load.
            assert_eq!(block_on(second).unwrap(), 7);
            assert_eq!((cache.stats().loads, cache.get(&1)), (1, Some(7)));
            assert_settled(&cache);
        }
    }
}

#[test]
fn a_panicking_loader_is_its_callers_and_the_next_loads() {
    for late in [false, true] {
        let cache = cache();
        let fail = move |_| async move {
            if late {
                slow(1, 0).await.unwrap();
            }
            panic!("planned")
        };
        let mut first = cache.get_or_load::<_, _, _, &str>(&1, fail).boxed();
        let mut second = cache.get_or_load(&1, |_| slow(2, 8)).boxed();
        if late {
            assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        }
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut first))).is_err());
        drop(first);
        assert_eq!(block_on(second).unwrap(), 8);
        assert_eq!(cache.stats().loads, 2);
        assert_settled(&cache);
    }
}

#[test]
fn a_write_makes_the_load_stale() {
    type Write = fn(&Cache<u8, u64>);
    let writes: [(Write, Option<u64>); 3] = [
        (|cache| assert_eq!(cache.remove(&1), None), None),
        (Cache::clear, None),
        (|cache| assert!(cache.insert(1, 50).is_kept()), Some(50)),
    ];
    for (write, left) in writes {
        let cache = cache();
        let mut before = cache.get_or_load(&1, |_| slow(3, 7)).boxed();
        let mut beside = cache.get_or_load(&1, |_| slow(3, 9)).boxed();
        assert!(poll(&mut before).is_pending() && poll(&mut beside).is_pending());
        write(&cache);
        // Who waited gets what was loaded, and it is not stored.
        assert_eq!(block_on(before).unwrap(), 7);
        assert_eq!(block_on(beside).unwrap(), 7);
        assert_eq!(cache.get(&1), left);
        // Who comes later sees the write, or loads anew.
        assert_eq!(
            block_on(cache.get_or_load(&1, |_| slow(0, 8))).unwrap(),
            left.unwrap_or(8)
        );
        assert_settled(&cache);
    }
}

#[test]
fn who_comes_after_a_write_does_not_board_the_stale_load() {
    let cache = cache();
    let mut before = cache.get_or_load(&1, |_| slow(3, 7)).boxed();
    assert!(poll(&mut before).is_pending());
    cache.remove(&1);
    let mut after = cache.get_or_load(&1, |_| slow(3, 8)).boxed();
    assert!(poll(&mut after).is_pending());
    assert_eq!(block_on(before).unwrap(), 7);
    assert_eq!(block_on(after).unwrap(), 8);
    assert_eq!(cache.get(&1), Some(8));
    assert_settled(&cache);
}

#[test]
fn an_error_is_shared_and_not_stored() {
    let cache = cache();
    let ask = || {
        let load = |_| async {
            slow(1, 0).await?;
            Err::<u64, _>("no")
        };
        cache.get_or_load(&1, load).boxed()
    };
    let (mut first, mut second) = (ask(), ask());
    let mut other = cache.get_or_load(&1, |_| async { Err::<u64, _>(5_u8) }).boxed();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending() && poll(&mut other).is_pending());
    let (first, second) = (block_on(first).unwrap_err(), block_on(second).unwrap_err());
    let (LoadError::Failed(a), LoadError::Failed(b)) = (&first, &second) else {
        panic!("{first:?} {second:?}")
    };
    assert!(Arc::ptr_eq(a, b));
    // Whoever cannot be given that type of error tries its own loader.
    assert!(matches!(block_on(other), Err(LoadError::Failed(e)) if *e == 5));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_errors, stats.entries), (2, 2, 0));
    assert_settled(&cache);
}

#[test]
fn too_many_who_wait_are_refused() {
    let cache: Cache<u8, u64> = Cache::builder().max_waiting(2).build().unwrap();
    let mut waiting = [&1, &2].map(|key| cache.get_or_load(key, |_| slow(1, 0)).boxed());
    assert!(waiting.iter_mut().all(|call| poll(call).is_pending()));
    let refused = block_on(cache.get_or_load(&3, |_| slow(1, 0)));
    assert!(matches!(refused, Err(LoadError::Crowded { limit: 2 })));
    drop(waiting);
    assert_eq!(block_on(cache.get_or_load(&3, |_| slow(1, 9))).unwrap(), 9);
}

/// Remembers that it was woken.
struct Flag(AtomicBool);

impl ArcWake for Flag {
    fn wake_by_ref(flag: &Arc<Flag>) {
        flag.0.store(true, Ordering::Relaxed);
    }
}

/// What loaders wait at until it opens.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    fn open(&self) {
        let mut gate = self.0.lock();
        gate.0 = true;
        gate.1.drain(..).for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut gate = self.0.lock();
        gate.1.push(cx.waker().clone());
        if gate.0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

type Call<'a> = (Arc<Flag>, BoxFuture<'a, Result<u64, LoadError<&'static str>>>);

/// Polls a call if it was woken; true when it is over, by a panic too.
fn turn(call: &mut Call<'_>) -> bool {
    if !call.0.0.swap(false, Ordering::Relaxed) {
        return false;
    }
    let waker = waker(Arc::clone(&call.0));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        call.1.as_mut().poll(&mut Context::from_waker(&waker))
    }));
    polled.map_or(true, |poll| poll.is_ready())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Calls begin, are polled when woken, dropped, and their key written, in any order; once the loaders may end,
    /// every call that is left ends without being polled unless it was woken, and nothing is left behind.
    #[test]
    fn nobody_hangs(ops in prop::collection::vec((0_u8..6, 0_u8..3, any::<prop::sample::Index>()), 1..80)) {
        let (cache, gate) = (cache(), Gate::default());
        let mut calls: Vec<Call<'_>> = Vec::new();
        for (what, key, which) in ops {
            match what {
                0 | 1 => {
                    let gate = gate.clone();
                    let end = which.index(4);
                    let load = move |key: u8| async move {
                        poll_fn(|cx| gate.poll(cx)).await;
                        match end {
                            0 => panic!("planned"),
                            1 => Err("planned"),
                            _ => Ok(u64::from(key)),
                        }
                    };
                    let keys: &'static [u8] = &[0, 1, 2];
                    let call = cache.get_or_load(&keys[key as usize], load).boxed();
                    calls.push((Arc::new(Flag(AtomicBool::new(true))), call));
                }
                2 | 3 if !calls.is_empty() => {
                    let i = which.index(calls.len());
                    if turn(&mut calls[i]) {
                        drop(calls.swap_remove(i));
                    }
                }
                4 if !calls.is_empty() => drop(calls.swap_remove(which.index(calls.len()))),
                5 => drop(cache.remove(&key)),
                _ => {}
            }
        }
        gate.open();
        while let Some(i) = calls.iter().position(|call| call.0.0.load(Ordering::Relaxed)) {
            if turn(&mut calls[i]) {
                drop(calls.swap_remove(i));
            }
        }
        prop_assert!(calls.is_empty(), "{} calls hang", calls.len());
        assert_settled(&cache);
    }
}

#[test]
fn the_future_may_move_between_threads() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let cache: Cache<String, u64> = Cache::builder().build().unwrap();
    let loaded = block_on(is_send(
        cache.get_or_load("seven", |key| async move { Ok::<_, ()>(key.len() as u64) }),
    ));
    assert_eq!(loaded.unwrap(), 5);
}

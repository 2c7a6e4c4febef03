//! One load however many wait, whatever becomes of those who wait.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use super::{HandClock, assert_settled, poll, slow};
use crate::cache::{Cache, InsertOptions, LoadError};
use crate::sync::{AtomicBool, Mutex, Ordering};
use futures::executor::block_on;
use futures::future::{BoxFuture, poll_fn};
use futures::task::{ArcWake, waker};
use futures::{FutureExt, TryFutureExt};
use proptest::prelude::*;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn cache() -> Cache<u8, u64> {
    Cache::builder().capacity(100).build().unwrap()
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

/// A way to ask for key 1 whose loader is pending so often and then yields so much.
type Way = fn(&Cache<u8, u64>, usize, u64) -> BoxFuture<'_, Result<u64, LoadError<&'static str>>>;

const WAYS: [Way; 6] = [
    |cache, steps, value| cache.get_or_load(&1, move |_| slow(steps, value)).boxed(),
    |cache, steps, value| {
        let load = move |_| slow(steps, value).map_ok(|value| (value, InsertOptions::new().tag("all")));
        cache.get_or_load_with(&1, load).boxed()
    },
    |cache, steps, value| {
        let load = move |_| slow(steps, value).map_ok(Some);
        let asked = cache.get_or_load_optional(&1, load);
        asked.map_ok(|found| found.unwrap()).boxed()
    },
    |cache, steps, value| {
        let asked = cache.get_or_load_if(&1, |_| true, move |_| slow(steps, value));
        asked.boxed()
    },
    |cache, steps, value| cache.refresh(&1, move |_| slow(steps, value)).boxed(),
    |cache, steps, value| {
        let load = move |keys: Vec<u8>| {
            let pairs = move |value| keys.iter().map(|key| (*key, value)).collect();
            slow(steps, value).map_ok(pairs)
        };
        let asked = cache.get_or_load_many(&[1, 2, 3], load);
        asked.map_ok(|found| found[0].unwrap()).boxed()
    },
];

#[test]
fn dropped_at_every_poll_it_leaves_nothing_behind() {
    const STEPS: usize = 4;
    for (alone, way, other) in [true, false].into_iter().flat_map(pairs_of_ways) {
        for polls in 0..=STEPS + 1 {
            let cache = cache();
            let mut first = way(&cache, STEPS, 7);
            let mut second = other(&cache, STEPS, 8);
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
                assert_eq!(cache.get(&1), done);
                continue;
            }
            // The loader passed on with what it had done: the value is the first call's, and it was one load, beside that
            // of a call for many for its other keys.
            assert_eq!(block_on(second).unwrap(), 7);
            let others = cache.stats().loads - 1;
            assert!(others == 0 || others == 1 && cache.get(&2) == Some(8), "{others}");
            assert_eq!(cache.get(&1), Some(7));
            assert_settled(&cache);
        }
    }
}

fn pairs_of_ways(alone: bool) -> impl Iterator<Item = (bool, Way, Way)> {
    let pairs = WAYS.iter().flat_map(|way| WAYS.iter().map(move |other| (*way, *other)));
    pairs.map(move |(way, other)| (alone, way, other))
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

type Call<'a> = (Arc<Flag>, BoxFuture<'a, ()>);

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

/// A call of one of the kinds, for `key` or, if it is one for many, for several, whose loader waits at the gate and ends
/// in one of the ways.
fn call<'a>(cache: &'a Cache<u8, u64>, gate: &Gate, kind: u8, key: u8, end: usize) -> BoxFuture<'a, ()> {
    const KEYS: &[u8] = &[0, 1, 2, 0];
    let (gate, key) = (gate.clone(), usize::from(key));
    let ends = async move {
        poll_fn(|cx| gate.poll(cx)).await;
        match end {
            0 => panic!("planned"),
            1 => Err("planned"),
            _ => Ok(7),
        }
    };
    match kind {
        0 => cache.get_or_load(&KEYS[key], move |_| ends).map(drop).boxed(),
        1 => {
            let load = move |_| ends.map_ok(move |value| (end == 2).then_some(value));
            cache.get_or_load_optional(&KEYS[key], load).map(drop).boxed()
        }
        2 => cache.refresh(&KEYS[key], move |_| ends).map(drop).boxed(),
        3 => {
            let other_type = move |_| ends.map_err(str::len);
            let asked = cache.get_or_load_if(&KEYS[key], |_| true, other_type);
            asked.map(drop).boxed()
        }
        _ => {
            let mut first = Some(ends);
            let load = move |keys: Vec<u8>| {
                let ends = first.take().map_or_else(|| async { Ok(8) }.boxed(), FutureExt::boxed);
                ends.map_ok(|value| keys.into_iter().skip(1).map(|key| (key, value)).collect())
            };
            cache.get_or_load_many(&KEYS[key..], load).map(drop).boxed()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// Calls of every kind begin, are polled when woken, dropped, and their keys written, in any order, while time passes;
    /// once the loaders may end, or their time is over, every call that is left ends without being polled unless it was
    /// woken, and nothing is left behind.
    #[test]
    fn nobody_hangs(
        ops in prop::collection::vec((0_u8..7, 0_u8..3, any::<prop::sample::Index>()), 1..80),
        limit in prop::option::of(1_u64..50),
        opens: bool,
    ) {
        let (clock, gate) = (HandClock::new(Duration::ZERO), Gate::default());
        let mut builder = Cache::builder().negative_ttl(MS * 20).ttl(MS * 30).stale_if_error(MS * 10).env(clock.env());
        if let Some(limit) = limit {
            builder = builder.load_timeout(MS * limit as u32);
        }
        let cache = builder.build().unwrap();
        let mut calls: Vec<Call<'_>> = Vec::new();
        for (what, key, which) in ops {
            match what {
                0 | 1 => {
                    let call = call(&cache, &gate, which.index(5) as u8, key, which.index(4));
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
                6 => clock.advance(MS * which.index(20) as u32),
                _ => {}
            }
        }
        if opens || limit.is_none() {
            gate.open();
        }
        // Who fails with the time of one load may have to begin another.
        for _ in 0..=calls.len() {
            while let Some(i) = calls.iter().position(|call| call.0.0.load(Ordering::Relaxed)) {
                if turn(&mut calls[i]) {
                    drop(calls.swap_remove(i));
                }
            }
            clock.advance(MS * 50);
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

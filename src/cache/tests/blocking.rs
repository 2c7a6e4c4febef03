//! Threads that block and tasks that do not, waiting for the same loads.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use super::{assert_settled, poll, slow};
use crate::cache::{Cache, LoadError};
use crate::env::Env;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use futures::FutureExt;
use futures::executor::block_on;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What loaders wait at.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    loads: AtomicUsize,
}

impl Gate {
    /// A loader that blocks until the gate is open.
    fn block(&self) -> Result<u64, Infallible> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        while !self.open.load(Ordering::Acquire) {
            thread::yield_now();
        }
        Ok(7)
    }
}

#[test]
fn a_blocking_call_may_be_made_wherever_a_thread_may_block() {
    let cache: Cache<u8, u64> = Cache::builder().build().unwrap();
    // Inside an executor, and inside another blocking call's loader.
    let value = block_on(async {
        cache.get_or_load_blocking(&1, |_| {
            let two = cache.get_or_load_blocking(&2, |_| Ok::<_, Infallible>(2)).unwrap();
            Ok::<_, Infallible>(two + 1)
        })
    });
    assert_eq!((value.unwrap(), cache.get(&2)), (3, Some(2)));
    // Nothing is asked for what is there, and an error is the loader's.
    let none = cache.get_or_load_blocking(&1, |_| -> Result<u64, Infallible> { panic!("it is there") });
    assert_eq!(none.unwrap(), 3);
    let failed = cache.get_or_load_blocking(&3, |_| Err::<u64, _>("no"));
    assert!(matches!(failed, Err(LoadError::Failed(error)) if *error == "no"));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_errors, stats.hits), (3, 1, 2));
    assert_settled(&cache);
}

#[test]
fn a_thread_goes_on_with_a_loader_that_a_task_began() {
    let cache: Cache<u8, u64> = Cache::builder().build().unwrap();
    let mut began = cache.get_or_load(&1, |_| slow(20, 7)).boxed();
    assert!(poll(&mut began).is_pending());
    thread::scope(|scope| {
        let blocked = scope.spawn(|| cache.get_or_load_blocking(&1, |_| Ok::<_, &str>(8)));
        let hash = cache.inner.hash(&1_u8);
        let flight = Arc::clone(cache.inner.flights.hold(hash).get(hash, &1_u8).unwrap());
        while !format!("{flight:?}").contains("aboard: 2") {
            thread::yield_now();
        }
        drop(began);
        assert_eq!(blocked.join().unwrap().unwrap(), 7);
    });
    assert_eq!(cache.stats().loads, 1);
    assert_settled(&cache);
}

#[test]
fn a_blocked_loader_past_its_time_holds_up_nobody_else() {
    let limit = Duration::from_millis(20);
    let cache: Cache<u8, u64> = Cache::builder().load_timeout(limit).env(Env::system()).build().unwrap();
    let gate = Gate::default();
    thread::scope(|scope| {
        let late = scope.spawn(|| cache.get_or_load_blocking(&1, |_| gate.block()));
        while gate.loads.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let waits = scope.spawn(|| cache.get_or_load_blocking(&1, |_| Ok::<_, Infallible>(8)));
        let other = block_on(cache.get_or_load(&1, |_| slow(0, 8)));
        // Whoever comes when the time is over begins anew.
        let (waits, timed_out) = (waits.join().unwrap(), |error| {
            matches!(error, LoadError::TimedOut { .. })
        });
        assert!(waits.map_or_else(timed_out, |value| value == 8));
        assert!(other.map_or_else(|error| matches!(error, LoadError::TimedOut { .. }), |value| value == 8));
        assert_eq!(block_on(cache.get_or_load(&1, |_| slow(0, 8))).unwrap(), 8);
        gate.open.store(true, Ordering::Release);
        // Who ran it has what it yields, and the newer value stays.
        assert_eq!(late.join().unwrap().unwrap(), 7);
    });
    assert_eq!(cache.get(&1), Some(8));
    assert_settled(&cache);
}

#[test]
fn a_thread_loads_what_is_due_and_others_have_what_is_there() {
    let clock = super::HandClock::new(Duration::ZERO);
    let second = Duration::from_secs(1);
    let cache: Cache<u8, u64> = Cache::builder()
        .ttl(10 * second)
        .stale_while_revalidate(10 * second)
        .env(Env::builder().clock(clock.clone()).spawner(drop).build())
        .build()
        .unwrap();
    cache.insert(1, 1);
    clock.advance(11 * second);
    let gate = Gate::default();
    thread::scope(|scope| {
        let loads = scope.spawn(|| cache.get_or_load_blocking(&1, |_| gate.block()));
        while gate.loads.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        assert_eq!(cache.get_or_load_blocking(&1, |_| Ok::<_, Infallible>(9)).unwrap(), 1);
        assert_eq!(block_on(cache.get_or_load(&1, |_| slow(0, 9))).unwrap(), 1);
        gate.open.store(true, Ordering::Release);
        assert_eq!(loads.join().unwrap().unwrap(), 7);
    });
    assert_eq!(
        (cache.get(&1), cache.stats().stale_served, cache.stats().loads),
        (Some(7), 2, 1)
    );
    // One that fails has what was there.
    clock.advance(11 * second);
    assert_eq!(cache.get_or_load_blocking(&1, |_| Err::<u64, _>("no")).unwrap(), 7);
    assert_eq!(cache.stats().stale_served, 3);
    assert_settled(&cache);
}

//! Loads and writes of one key on several threads, in thousands of interleavings: a scheduler chooses at each lock which
//! thread goes on. It also finds out when all wait for each other, and when nobody wakes one that waits.
//!
//! `RUSTFLAGS="--cfg outgrow_lean --cfg outgrow_shuttle" cargo test --features sim,suite --lib interleaved`
#![allow(clippy::disallowed_methods, reason = "the threads are the scheduler's")]

use super::{HandClock, assert_settled, pause};
use crate::cache::write::Gone;
use crate::cache::{Cache, InsertOptions, LoadError, Op};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, pin};
use futures::FutureExt;
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How many interleavings of each kind are tried.
const RUNS: usize = 3_000;

fn explore(run: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(run, RUNS);
}

fn cache() -> Cache<u8, u64> {
    let clock = HandClock::new(Duration::ZERO);
    Cache::builder().capacity(4).env(clock.env()).build().unwrap()
}

/// What loads write down.
#[derive(Clone, Default)]
struct Notes {
    loads: Arc<AtomicUsize>,
    begun: Arc<AtomicBool>,
}

impl Notes {
    /// A loader that waits once.
    async fn load(self, value: u64) -> Result<u64, Infallible> {
        self.begun.store(true, Ordering::SeqCst);
        self.loads.fetch_add(1, Ordering::SeqCst);
        pause(1).await;
        Ok(value)
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

/// A call that is cancelled after so many polls, unless it is done by then.
async fn cancelled<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = Box::pin(call);
    for _ in 0..polls {
        if let Poll::Ready(value) = futures::poll!(&mut call) {
            return Some(value);
        }
        pause(1).await;
    }
    None
}

/// Asks on a thread of its own.
fn ask(cache: &Cache<u8, u64>, notes: &Notes, blocks: bool) -> JoinHandle<u64> {
    let (cache, notes) = (cache.clone(), notes.clone());
    thread::spawn(move || {
        let value = if blocks {
            cache.get_or_load_blocking(&1, |_| block_on(notes.load(7)))
        } else {
            block_on(cache.get_or_load(&1, |_| notes.load(7)))
        };
        value.unwrap()
    })
}

#[test]
fn all_who_ask_make_one_load() {
    explore(|| {
        let (cache, notes) = (cache(), Notes::default());
        let asks = [false, true, false].map(|blocks| ask(&cache, &notes, blocks));
        asks.into_iter().for_each(|ask| assert_eq!(ask.join().unwrap(), 7));
        assert_eq!((notes.loads(), cache.get(&1)), (1, Some(7)));
        assert_settled(&cache);
    });
}

#[test]
fn who_goes_away_leaves_two_loads_at_most() {
    for polls in 0..4 {
        explore(move || {
            let (cache, notes) = (cache(), Notes::default());
            let leaver = {
                let (cache, notes) = (cache.clone(), notes.clone());
                thread::spawn(move || block_on(cancelled(polls, cache.get_or_load(&1, |_| notes.load(7)))))
            };
            let asks = [false, true].map(|blocks| ask(&cache, &notes, blocks));
            asks.into_iter().for_each(|ask| assert_eq!(ask.join().unwrap(), 7));
            assert!(leaver.join().unwrap().is_none_or(|value| value.unwrap() == 7));
            assert!((1..=2).contains(&notes.loads()));
            assert_eq!(cache.get(&1), Some(7));
            assert_settled(&cache);
        });
    }
}

#[test]
fn who_panics_leaves_two_loads_at_most() {
    explore(|| {
        let (cache, notes) = (cache(), Notes::default());
        let panics = {
            let (cache, notes) = (cache.clone(), notes.clone());
            let load = |_| {
                notes.load(0).map(|_| -> Result<u64, Infallible> {
                    // Not a word of it: it is no failure of the test.
                    resume_unwind(Box::new("planted"))
                })
            };
            thread::spawn(move || {
                let ran = catch_unwind(AssertUnwindSafe(|| block_on(cache.get_or_load(&1, load))));
                assert!(ran.is_err() || ran.is_ok_and(|value| value.unwrap() == 7));
            })
        };
        let asks = [false, true].map(|blocks| ask(&cache, &notes, blocks));
        asks.into_iter().for_each(|ask| assert_eq!(ask.join().unwrap(), 7));
        panics.join().unwrap();
        assert!((1..=2).contains(&notes.loads()));
        assert_eq!(cache.get(&1), Some(7));
        assert_settled(&cache);
    });
}

/// Writes the key while it is loaded, then says what is there at the end and whether the load had begun before the write.
fn written_while_loaded(write: fn(&Cache<u8, u64>), check: fn(Option<u64>, bool)) {
    explore(move || {
        let (cache, notes) = (cache(), Notes::default());
        let asks = [false, false].map(|blocks| ask(&cache, &notes, blocks));
        let begun = notes.begun.load(Ordering::SeqCst);
        write(&cache);
        for ask in asks {
            assert!([7, 8].contains(&ask.join().unwrap()));
        }
        assert_settled(&cache);
        check(cache.get(&1), begun && notes.loads() == 1);
    });
}

#[test]
fn what_is_put_in_stays() {
    written_while_loaded(
        |cache| assert!(cache.insert(1, 8).is_kept()),
        |found, _| assert_eq!(found, Some(8), "a load overwrote a newer value"),
    );
    let as_read = |cache: &Cache<u8, u64>| {
        let next = cache.compute(1, |old| Op::Put(old.map_or(8, |_| 8)));
        assert_eq!(next, Some(8));
    };
    written_while_loaded(as_read, |found, _| assert_eq!(found, Some(8)));
}

#[test]
fn what_is_taken_out_does_not_come_back() {
    let check = |found: Option<u64>, begun: bool| {
        assert!(
            found.is_none() || (found == Some(7) && !begun),
            "a load undid a removal"
        );
    };
    written_while_loaded(|cache| assert!(cache.remove(&1).is_none_or(|was| was == 7)), check);
    written_while_loaded(Cache::clear, check);
}

#[test]
fn loads_of_several_keys_in_any_order_wait_for_nobody_in_a_circle() {
    explore(|| {
        let (cache, loads) = (cache(), Arc::new(Mutex::new(Vec::new())));
        let threads = [[1, 2], [2, 1], [2, 3]].map(|keys| {
            let (cache, loads) = (cache.clone(), Arc::clone(&loads));
            let load = move |missing: Vec<u8>| {
                loads.lock().extend(missing.clone());
                async move {
                    pause(1).await;
                    let pairs = missing.into_iter().map(|key| (key, u64::from(key)));
                    Ok::<_, Infallible>(pairs.collect())
                }
            };
            let expected = keys.map(|key| Some(u64::from(key)));
            thread::spawn(move || {
                let found = block_on(cache.get_or_load_many(&keys, load)).unwrap();
                assert_eq!(found, expected);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut loads = std::mem::take(&mut *loads.lock());
        loads.sort_unstable();
        assert_eq!(loads, [1, 2, 3]);
        assert_settled(&cache);
    });
}

#[test]
fn heavy_entries_of_many_shards_find_room() {
    explore(|| {
        let clock = HandClock::new(Duration::ZERO);
        let cache: Cache<u8, u64> = Cache::builder().weight_capacity(3).env(clock.env()).build().unwrap();
        let threads = [0, 2, 4].map(|first| {
            let cache = cache.clone();
            thread::spawn(move || {
                for key in first..first + 2 {
                    let inserted = cache.insert_with(key, 0, InsertOptions::new().weight(2));
                    assert!(inserted.is_kept() && cache.weight() <= 3);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((cache.len(), cache.weight()), (1, 2));
    });
}

#[test]
fn a_load_that_takes_too_long_ends_for_all() {
    explore(|| {
        let clock = HandClock::new(Duration::ZERO);
        let builder = Cache::builder().capacity(4).env(clock.env());
        let cache: Cache<u8, u64> = builder.load_timeout(Duration::from_millis(5)).build().unwrap();
        let (notes, done) = (Notes::default(), Arc::new(AtomicUsize::new(0)));
        let asks = [false, true, false].map(|goes_away| {
            let (cache, notes, done) = (cache.clone(), notes.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let call = cache.get_or_load(&1, |_| notes.load(7).then(|_| std::future::pending()));
                let loaded: Option<Result<u64, LoadError<Infallible>>> = if goes_away {
                    block_on(cancelled(2, call))
                } else {
                    Some(block_on(call))
                };
                assert!(loaded.is_none_or(|loaded| matches!(loaded, Err(LoadError::TimedOut { .. }))));
                done.fetch_add(1, Ordering::SeqCst);
            })
        });
        // No loader ever ends by itself.
        while done.load(Ordering::SeqCst) < 3 {
            clock.advance(Duration::from_millis(5));
            thread::yield_now();
        }
        asks.into_iter().for_each(|ask| ask.join().unwrap());
        // None where the first came to its turn too late.
        assert!(notes.loads() <= 3);
        assert_settled(&cache);
    });
}

/// A write that does not look for loads.
#[test]
#[should_panic(expected = "a load overwrote a newer value")]
fn a_write_past_the_flights_is_caught() {
    let write = |cache: &Cache<u8, u64>| {
        let inner = &*cache.inner;
        let (pin, mut gone) = (pin(), Gone::new());
        let mut incoming = Some(inner.incoming(1, Some(8), &InsertOptions::new()));
        assert!(inner.put(&mut incoming, |_, _| true, &pin, &mut gone).is_ok());
    };
    written_while_loaded(write, |found, _| {
        assert_eq!(found, Some(8), "a load overwrote a newer value");
    });
}

/// The two locks of a key, taken the wrong way round.
#[test]
#[should_panic(expected = "deadlock")]
fn locks_in_the_wrong_order_are_caught() {
    let write = |cache: &Cache<u8, u64>| {
        let hash = cache.hash(&1_u8);
        let _locked = cache.inner.shard(hash).lock();
        drop(cache.inner.flights.hold(hash));
    };
    written_while_loaded(write, |_, _| ());
}

/// A driver that neither goes on nor goes away.
#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_is_caught() {
    explore(|| {
        let (cache, notes) = (cache(), Notes::default());
        let other = ask(&cache, &notes, false);
        let handle = Box::leak(Box::new(cache));
        let mut call = Box::pin(handle.get_or_load(&1, |_| notes.load(7)));
        block_on(async {
            let _polled = futures::poll!(&mut call);
        });
        std::mem::forget(call);
        other.join().unwrap();
    });
}

//! Values past their time, keys without one, and loads that take too long.

use super::{HandClock, assert_settled, poll, slow};
use crate::cache::{Cache, CacheBuilder, CacheStats, Error, LoadError, Removal};
use crate::env::Env;
use crate::sim::World;
use crate::store::Retry;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// What loaders ask: each load takes 100 ms and yields its number, or fails when told to.
#[derive(Clone)]
struct Backend {
    env: Env,
    loads: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl Backend {
    fn new(world: &World) -> Backend {
        Backend {
            env: world.env(),
            loads: Arc::default(),
            fails: Arc::default(),
            panics: Arc::default(),
        }
    }

    fn load(&self) -> impl FnOnce(u8) -> BoxFuture<'static, Result<u64, &'static str>> + Send + use<> {
        let backend = self.clone();
        |_| {
            let load = async move {
                let number = backend.loads.fetch_add(1, Ordering::Relaxed) + 1;
                backend.env.sleep(100 * MS).await;
                assert!(!backend.panics.load(Ordering::Relaxed), "planned");
                if backend.fails.load(Ordering::Relaxed) {
                    Err("down")
                } else {
                    Ok(number)
                }
            };
            load.boxed()
        }
    }

    fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}

/// A world with a cache whose values live for ten seconds.
fn set(
    seed: u64,
    build: impl FnOnce(CacheBuilder<u8, u64>) -> CacheBuilder<u8, u64>,
) -> (World, Backend, Cache<u8, u64>) {
    let world = World::new(seed);
    let builder = Cache::builder().ttl(10 * SECOND).jitter(0.0).env(world.env());
    let cache = build(builder).build().unwrap();
    (world.clone(), Backend::new(&world), cache)
}

#[test]
fn a_stale_value_is_served_while_one_load_replaces_it() {
    let (world, backend, cache) = set(1, |cache| cache.stale_while_revalidate(5 * SECOND));
    let ask = || cache.get_or_load(&1, backend.load());
    world.run(async {
        assert_eq!(ask().await.unwrap(), 1);
        backend.env.sleep(10 * SECOND).await;
        // It is past its time: `get` does not return it, and nobody waits for the load that replaces it.
        assert_eq!(cache.get(&1), None);
        let before = backend.env.now();
        for _ in 0..2 {
            let all = join_all((0..50).map(|_| ask())).await;
            assert!(all.into_iter().all(|value| value.unwrap() == 1));
        }
        assert_eq!(backend.env.now(), before);
        backend.env.sleep(101 * MS).await;
        assert_eq!((ask().await.unwrap(), backend.loads()), (2, 2));
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.stale_served, stats.load_errors), (2, 100, 0));
        assert_eq!((stats.hits, stats.misses, stats.load_time), (101, 2, 200 * MS));
        assert_settled(&cache);

        // Past the grace it is gone, and who asks waits.
        backend.env.sleep(15 * SECOND).await;
        assert_eq!((ask().await.unwrap(), cache.stats().stale_served), (3, 100));
    });
    assert_settled(&cache);
}

#[test]
fn a_write_is_newer_than_the_load_in_the_background() {
    type Write = fn(&Cache<u8, u64>);
    let writes: [(Write, Option<u64>); 3] = [
        (|cache| assert!(cache.insert(1, 50).is_kept()), Some(50)),
        (|cache| assert_eq!(cache.remove(&1), Some(1)), None),
        (Cache::clear, None),
    ];
    for (write, left) in writes {
        let (world, backend, cache) = set(2, |cache| cache.stale_while_revalidate(5 * SECOND));
        world.run(async {
            cache.get_or_load(&1, backend.load()).await.unwrap();
            backend.env.sleep(11 * SECOND).await;
            assert_eq!(cache.get_or_load(&1, backend.load()).await.unwrap(), 1);
            backend.env.sleep(50 * MS).await;
            write(&cache);
            backend.env.sleep(SECOND).await;
        });
        assert_eq!((backend.loads(), cache.get(&1)), (2, left));
        assert_settled(&cache);
    }
}

#[test]
fn a_key_whose_refresh_fails_is_left_alone_for_a_while() {
    for panics in [false, true] {
        let (world, backend, cache) = set(3, |cache| cache.stale_while_revalidate(60 * SECOND));
        let ask = || cache.get_or_load(&1, backend.load());
        world.run(async {
            ask().await.unwrap();
            backend.env.sleep(10 * SECOND).await;
            let fault = if panics { &backend.panics } else { &backend.fails };
            fault.store(true, Ordering::Relaxed);
            // Twenty seconds of calls, ten a second: each failed load takes 100 ms, and the pause a second.
            for _ in 0..200 {
                assert_eq!(ask().await.unwrap(), 1);
                backend.env.sleep(100 * MS).await;
            }
            let tries = backend.loads() - 1;
            assert!((17..=19).contains(&tries), "{tries}");
            assert_eq!(cache.stats().load_errors, tries);
            fault.store(false, Ordering::Relaxed);
            backend.env.sleep(SECOND).await;
            ask().await.unwrap();
            backend.env.sleep(101 * MS).await;
            assert_eq!(ask().await.unwrap(), backend.loads());
        });
        assert_settled(&cache);
    }
}

#[test]
fn a_pause_of_zero_tries_with_each_call() {
    let (world, backend, cache) = set(4, |cache| {
        cache.stale_while_revalidate(60 * SECOND).refresh_pause(Duration::ZERO)
    });
    world.run(async {
        cache.get_or_load(&1, backend.load()).await.unwrap();
        backend.env.sleep(10 * SECOND).await;
        backend.fails.store(true, Ordering::Relaxed);
        for _ in 0..10 {
            cache.get_or_load(&1, backend.load()).await.unwrap();
            backend.env.sleep(101 * MS).await;
        }
    });
    assert_eq!(backend.loads(), 11);
}

#[test]
fn a_runtime_that_drops_the_refresh_leaves_nothing_behind() {
    let clock = HandClock::new(Duration::ZERO);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let tasks = Arc::clone(&kept);
    let env = Env::builder()
        .clock(clock.clone())
        .spawner(move |task| tasks.lock().push(task));
    let cache: Cache<u8, u64> = Cache::builder()
        .ttl(10 * SECOND)
        .jitter(0.0)
        .stale_while_revalidate(60 * SECOND)
        .env(env.build())
        .build()
        .unwrap();
    cache.insert(1, 1);
    clock.advance(11 * SECOND);
    let ask = || block_on(cache.get_or_load(&1, |_| slow(3, 2))).unwrap();
    assert_eq!(ask(), 1);
    assert_eq!(cache.inner.flights.counts(), (1, 1));
    // Dropped before it was polled.
    kept.lock().clear();
    assert_settled(&cache);
    // It counts as a failure: the next try comes after the pause. Dropped halfway, it is no different.
    assert_eq!((ask(), kept.lock().len()), (1, 0));
    clock.advance(SECOND);
    assert_eq!((ask(), kept.lock().len()), (1, 1));
    assert!(poll(&mut kept.lock()[0]).is_pending());
    // Who waits for it meanwhile takes it over.
    let mut waits = cache.refresh(&1, |_| slow(0, 9)).boxed();
    assert!(poll(&mut waits).is_pending());
    kept.lock().clear();
    assert_eq!(block_on(waits).unwrap(), 2);
    assert_eq!((cache.get(&1), cache.stats().loads), (Some(2), 2));
    assert_settled(&cache);
}

#[test]
fn a_stale_value_stands_in_for_an_error() {
    let (world, backend, cache) = set(5, |cache| cache.stale_if_error(60 * SECOND));
    let ask = || cache.get_or_load(&1, backend.load());
    world.run(async {
        assert_eq!(ask().await.unwrap(), 1);
        // It was good, so it is loaded anew, and waited for.
        backend.env.sleep(10 * SECOND).await;
        assert_eq!(ask().await.unwrap(), 2);
        backend.env.sleep(10 * SECOND).await;
        backend.fails.store(true, Ordering::Relaxed);
        let before = backend.env.now();
        let all = join_all((0..10).map(|_| ask())).await;
        assert!(all.into_iter().all(|value| value.unwrap() == 2));
        assert_eq!(backend.env.now() - before, 100 * MS);
        assert_eq!((backend.loads(), cache.stats().stale_served), (3, 10));
        // Right after that it is served without another try.
        assert_eq!((ask().await.unwrap(), backend.loads()), (2, 3));
        backend.env.sleep(SECOND).await;
        assert_eq!((ask().await.unwrap(), backend.loads()), (2, 4));
        assert_eq!(cache.stats().stale_served, 12);
        // A caller that asked for a new one gets the error, and so does everybody when the grace is over.
        assert!(cache.refresh(&1, backend.load()).await.is_err());
        assert!(cache.get_or_load_if(&1, |_| true, backend.load()).await.is_err());
        backend.env.sleep(60 * SECOND).await;
        assert!(matches!(ask().await, Err(LoadError::Failed(error)) if *error == "down"));
    });
    assert_settled(&cache);
}

#[test]
fn a_stale_value_stands_in_where_too_many_wait_or_it_takes_too_long() {
    let (world, backend, cache) = set(6, |cache| {
        cache.stale_if_error(60 * SECOND).load_timeout(50 * MS).max_waiting(1)
    });
    world.run(async {
        cache.insert(1, 7);
        backend.env.sleep(10 * SECOND).await;
        let asked = futures::future::join(
            cache.get_or_load(&2, backend.load()),
            cache.get_or_load(&1, backend.load()),
        );
        let (late, spare) = asked.await;
        assert!(matches!(late, Err(LoadError::TimedOut { after }) if after == 50 * MS));
        assert_eq!((spare.unwrap(), backend.loads()), (7, 1));
        let before = backend.env.now();
        assert_eq!(cache.get_or_load(&1, backend.load()).await.unwrap(), 7);
        assert_eq!((backend.env.now() - before, cache.stats().stale_served), (50 * MS, 2));
        assert_eq!(cache.stats().load_errors, 2);
    });
    assert_settled(&cache);
}

#[test]
fn that_there_is_no_value_is_remembered_for_its_own_time() {
    let (world, backend, cache) = set(7, |cache| cache.negative_ttl(2 * SECOND));
    let loads = AtomicU64::new(0);
    let nobody = || {
        loads.fetch_add(1, Ordering::Relaxed);
        cache.get_or_load_optional(&1, |_| async { Ok::<_, ()>(None) })
    };
    let ran = || cache.stats().loads;
    world.run(async {
        assert_eq!(nobody().await.unwrap(), None);
        for _ in 0..5 {
            assert_eq!(nobody().await.unwrap(), None);
        }
        let stats = cache.stats();
        assert_eq!((ran(), stats.negative_hits, stats.misses, stats.hits), (1, 5, 1, 0));
        assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 1));
        backend.env.sleep(2 * SECOND).await;
        assert_eq!((nobody().await.unwrap(), ran()), (None, 2));

        // Whoever cannot be told so loads, and what it finds is what all have from then on.
        assert_eq!(cache.get_or_load(&1, backend.load()).await.unwrap(), 1);
        assert_eq!((nobody().await.unwrap(), ran()), (Some(1), 3));
        // What is put in ends it too.
        cache.remove(&1);
        assert_eq!(nobody().await.unwrap(), None);
        cache.insert(1, 9);
        assert_eq!(nobody().await.unwrap(), Some(9));
    });
    assert_settled(&cache);
}

#[test]
fn who_needs_a_value_loads_after_one_who_found_none() {
    let (world, backend, cache) = set(8, |cache| cache.negative_ttl(2 * SECOND));
    world.run(async {
        let env = &backend.env;
        let none = || {
            let env = env.clone();
            cache.get_or_load_optional(&1, |_| async move {
                env.sleep(50 * MS).await;
                Ok::<_, &'static str>(None)
            })
        };
        let all = futures::future::join3(none(), cache.get_or_load(&1, backend.load()), none()).await;
        assert_eq!((all.0.unwrap(), all.1.unwrap(), all.2.unwrap()), (None, 1, None));
        assert_eq!((cache.stats().loads, cache.get(&1)), (2, Some(1)));
    });
    assert_settled(&cache);
}

#[test]
fn without_a_negative_ttl_a_value_that_is_no_more_leaves() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&left);
    let (world, backend, cache) = set(9, |cache| {
        let cache = cache.stale_if_error(60 * SECOND);
        cache.on_removal(move |key, value, why| heard.lock().push((*key, *value, why)))
    });
    world.run(async {
        cache.insert(1, 7);
        backend.env.sleep(11 * SECOND).await;
        let none = cache.get_or_load_optional(&1, |_| async { Ok::<_, ()>(None) });
        assert_eq!((none.await.unwrap(), cache.len()), (None, 0));
    });
    assert_eq!(*left.lock(), [(1, 7, Removal::Invalidated)]);
    assert_settled(&cache);
}

#[test]
fn a_load_that_takes_too_long_ends_for_all_who_wait() {
    let (world, backend, cache) = set(10, |cache| cache.load_timeout(50 * MS));
    world.run(async {
        let before = backend.env.now();
        let all = join_all((0..100).map(|_| cache.get_or_load(&1, backend.load()))).await;
        for late in all {
            let late = late.unwrap_err();
            assert!(matches!(late, LoadError::TimedOut { after } if after == 50 * MS) && late.retry() == Retry::May);
            assert_eq!(late.to_string(), "the load took longer than 50ms");
        }
        assert_eq!(backend.env.now() - before, 50 * MS);
        assert_settled(&cache);
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.load_errors, stats.load_time), (1, 1, 50 * MS));
        // The next begins anew, with the whole of its time.
        backend.env.sleep(SECOND).await;
        let in_time = cache.get_or_load(&1, |_| async { Ok::<_, ()>(7) });
        assert_eq!((in_time.await.unwrap(), cache.stats().load_errors), (7, 1));
    });
}

#[test]
fn a_load_whose_driver_sleeps_is_over_in_time() {
    let clock = HandClock::new(Duration::ZERO);
    let cache = Cache::<u8, u64>::builder().load_timeout(50 * MS).env(clock.env());
    let cache = cache.build().unwrap();
    let mut stuck = cache.get_or_load(&1, |_| slow(usize::MAX, 0)).boxed();
    let mut waits = cache.get_or_load(&1, |_| slow(0, 1)).boxed();
    assert!(poll(&mut stuck).is_pending() && poll(&mut waits).is_pending());
    clock.advance(50 * MS);
    // Nobody polls the first any more, and nobody has dropped it.
    assert!(matches!(block_on(waits), Err(LoadError::TimedOut { .. })));
    assert_eq!(cache.stats().load_errors, 1);
    assert!(matches!(block_on(stuck), Err(LoadError::TimedOut { .. })));
    assert_settled(&cache);

    // One that wakes so late that another has loaded the key has that value.
    let mut stuck = cache.get_or_load(&1, |_| slow(usize::MAX, 0)).boxed();
    assert!(poll(&mut stuck).is_pending());
    let mut waits = cache.get_or_load(&1, |_| slow(0, 1)).boxed();
    assert!(poll(&mut waits).is_pending());
    clock.advance(50 * MS);
    assert!(block_on(waits).is_err());
    assert_eq!(block_on(cache.get_or_load(&1, |_| slow(0, 2))).unwrap(), 2);
    assert_eq!(block_on(stuck).unwrap(), 2);
    assert_settled(&cache);
}

#[test]
fn who_starts_after_a_panic_has_the_whole_time() {
    let clock = HandClock::new(Duration::ZERO);
    let cache = Cache::<u8, u64>::builder().load_timeout(50 * MS).env(clock.env());
    let cache = cache.build().unwrap();
    let panics = |_| slow(1, 0).map(|_| panic!("planned"));
    let mut first = cache.get_or_load::<_, _, _, &str>(&1, panics).boxed();
    let mut second = cache.get_or_load(&1, |_| slow(5, 7)).boxed();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    clock.advance(40 * MS);
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut first))).is_err());
    drop(first);
    assert!(poll(&mut second).is_pending());
    clock.advance(49 * MS);
    assert!(poll(&mut second).is_pending());
    clock.advance(MS);
    assert!(matches!(
        poll(&mut second),
        Poll::Ready(Err(LoadError::TimedOut { .. }))
    ));
    assert_eq!((cache.stats().loads, cache.stats().load_errors), (2, 2));
    drop(second);
    assert_settled(&cache);
}

/// A cache whose loads have been seen to take ten seconds, and its clock.
fn early(build: impl FnOnce(CacheBuilder<u8, u64>) -> CacheBuilder<u8, u64>) -> (Cache<u8, u64>, HandClock) {
    let clock = HandClock::new(Duration::ZERO);
    let builder = Cache::builder().early_refresh(1.0).ttl(100 * SECOND).jitter(0.0);
    let cache = build(builder).env(clock.env()).build().unwrap();
    let moves = clock.clone();
    let load = |_| async move {
        moves.advance(10 * SECOND);
        Ok::<_, ()>(0)
    };
    block_on(cache.get_or_load(&0, load)).unwrap();
    (cache, clock)
}

#[test]
fn early_refresh_grows_likelier_towards_the_end() {
    const TRIES: u64 = 2_000;
    let (cache, clock) = early(|cache| cache.refresh_pause(Duration::ZERO));
    let mut shares = Vec::new();
    for left in [99, 60, 40, 20, 10, 5, 1] {
        let before = cache.stats().loads;
        for _ in 0..TRIES {
            cache.insert(1, 7);
            clock.advance((100 - left) * SECOND);
            // A load that fails leaves what is there, which is still good, and the usual time of a load.
            assert_eq!(
                block_on(cache.get_or_load(&1, |_| async { Err::<u64, _>("no") })).unwrap(),
                7
            );
        }
        // A draw is exponential with a mean of ten seconds, that of the one load that succeeded.
        let share = (cache.stats().loads - before) as f64 / TRIES as f64;
        let expected = (-f64::from(left) / 10.0).exp();
        let deviation = (expected * (1.0 - expected) / TRIES as f64).sqrt();
        assert!(
            (share - expected).abs() <= 5.0 * deviation,
            "{left}: {share}, not {expected}"
        );
        shares.push(share);
    }
    assert!(shares.is_sorted() && shares[0] < 0.01 && shares[6] > 0.8, "{shares:?}");
    assert_eq!(cache.stats().stale_served, 0);
    assert_settled(&cache);
}

#[test]
fn early_refresh_lets_one_load_and_others_have_what_is_there() {
    let (cache, clock) = early(|cache| cache);
    cache.insert(1, 7);
    clock.advance(Duration::from_millis(99_999));
    // So near the end that nearly each draw says to load.
    let mut loads = cache.get_or_load(&1, |_| slow(3, 8)).boxed();
    assert!(poll(&mut loads).is_pending());
    for _ in 0..20 {
        assert_eq!(block_on(cache.get_or_load(&1, |_| slow(0, 9))).unwrap(), 7);
    }
    assert_eq!(block_on(loads).unwrap(), 8);
    assert_eq!((cache.stats().loads, cache.get(&1)), (2, Some(8)));
    // What does not expire is never early.
    let cache = Cache::<u8, u64>::builder()
        .early_refresh(1e9)
        .env(clock.env())
        .build()
        .unwrap();
    for _ in 0..20 {
        block_on(cache.get_or_load(&1, |_| slow(0, 9))).unwrap();
    }
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn early_refresh_goes_on_in_the_background_where_it_can() {
    let (world, backend, cache) = set(11, |cache| cache.early_refresh(1.0));
    world.run(async {
        let ask = || cache.get_or_load(&1, backend.load());
        assert_eq!(ask().await.unwrap(), 1);
        // Loads take a tenth of a second: asked for each hundredth, it is loaded anew before it expires, and nobody waits.
        let mut last = 1;
        for _ in 0..5_000 {
            let before = backend.env.now();
            let value = ask().await.unwrap();
            assert!(backend.env.now() == before && value >= last);
            last = value;
            backend.env.sleep(10 * MS).await;
        }
        assert!((5..=6).contains(&backend.loads()), "{}", backend.loads());
        assert_eq!((cache.stats().stale_served, cache.stats().misses), (0, 1));
    });
}

#[test]
fn the_same_seed_draws_the_same() {
    let run = |seed| {
        let (world, backend, cache) = set(seed, |cache| cache.early_refresh(2.0).stale_while_revalidate(SECOND));
        world.run(async {
            for _ in 0..300 {
                cache.get_or_load(&1, backend.load()).await.unwrap();
                backend.env.sleep(77 * MS).await;
            }
        });
        let stats = CacheStats {
            // Readers of other tests hold memory back too.
            held_back: 0,
            ..cache.stats()
        };
        (world.trace().digest, stats)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn what_loads_in_the_background_needs_somewhere_to_run() {
    let build = |env| {
        Cache::<u8, u8>::builder()
            .stale_while_revalidate(SECOND)
            .env(env)
            .build()
    };
    let refused = build(Env::system()).unwrap_err();
    let option = "stale_while_revalidate";
    assert_eq!(refused, Error::NeedsSpawner { option });
    assert!(build(World::new(1).env()).is_ok());
    assert!(build(Env::builder().spawner(drop).build()).is_ok());
}

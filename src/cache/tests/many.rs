//! Many keys by one loader, and keys loaded anew.

use super::{HandClock, assert_settled, pause, poll, slow};
use crate::cache::{Cache, LoadError};
use crate::env::Env;
use crate::sim::World;
use crate::sync::{AtomicU64, Mutex, Ordering};
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, TryFutureExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn cache() -> Cache<u8, u64> {
    Cache::builder().capacity(100).build().unwrap()
}

/// Notes what loaders are asked for, and yields ten times each key, but for odd ones from seven on.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Vec<u8>>>>);

type Pairs = Result<Vec<(u8, u64)>, &'static str>;

impl Asked {
    fn load(&self, steps: usize) -> impl FnMut(Vec<u8>) -> BoxFuture<'static, Pairs> + Send + use<> {
        let asked = Arc::clone(&self.0);
        move |keys| {
            asked.lock().push(keys.clone());
            let pairs = keys.into_iter().rev().filter(|key| *key < 7 || key % 2 == 0);
            let pairs = pairs.map(|key| (key, u64::from(key) * 10)).collect();
            pause(steps).map(|()| Ok(pairs)).boxed()
        }
    }

    fn all(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock())
    }
}

#[test]
fn what_is_missing_is_loaded_together_and_returned_in_order() {
    let (cache, asked) = (cache(), Asked::default());
    cache.insert(2, 99);
    let many = |keys: &[u8]| block_on(cache.get_or_load_many(keys, asked.load(2))).unwrap();
    assert_eq!(
        many(&[3, 2, 9, 1, 3, 8]),
        [Some(30), Some(99), None, Some(10), Some(30), Some(80)]
    );
    assert_eq!(asked.all(), [[3, 9, 1, 8]]);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.hits, stats.misses), (1, 1, 5));
    assert_eq!((cache.get(&8), cache.get(&9), cache.len()), (Some(80), None, 4));
    // All is there but what has no value, and that is asked for again.
    assert_eq!(many(&[1, 9, 3]), [Some(10), None, Some(30)]);
    assert_eq!((many(&[]), many(&[1])), (vec![], vec![Some(10)]));
    assert_eq!(asked.all(), [[9]]);
    // A pair that nobody asked for is not kept.
    let more = |_| async { Ok::<_, ()>(vec![(4, 40), (5, 50), (4, 41)]) };
    assert_eq!(block_on(cache.get_or_load_many(&[4], more)).unwrap(), [Some(41)]);
    assert_eq!(cache.get(&5), None);
    assert_settled(&cache);
}

#[test]
fn keys_without_a_value_are_remembered() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u8, u64> = Cache::builder()
        .negative_ttl(5 * SECOND)
        .env(clock.env())
        .build()
        .unwrap();
    let asked = Asked::default();
    let many = || block_on(cache.get_or_load_many(&[1, 7, 9], asked.load(0))).unwrap();
    for _ in 0..3 {
        assert_eq!(many(), [Some(10), None, None]);
    }
    assert_eq!((asked.all(), cache.stats().negative_hits), (vec![vec![1, 7, 9]], 4));
    clock.advance(5 * SECOND);
    assert_eq!(many(), [Some(10), None, None]);
    assert_eq!(asked.all(), [[7, 9]]);
}

#[test]
fn what_others_load_is_waited_for() {
    let (cache, asked) = (cache(), Asked::default());
    let mut one = cache.get_or_load(&1, |_| slow(4, 7)).boxed();
    assert!(poll(&mut one).is_pending());
    let mut left = cache.get_or_load_many(&[1, 2, 3], asked.load(4)).boxed();
    assert!(poll(&mut left).is_pending());
    let mut right = cache.get_or_load_many(&[4, 3, 2], asked.load(4)).boxed();
    assert!(poll(&mut right).is_pending());
    let single = cache.get_or_load(&4, |_| slow(0, 8));
    assert_eq!(asked.all(), [vec![2, 3], vec![4]]);
    let all = block_on(async { futures::join!(one, left, right, single) });
    assert_eq!((all.0.unwrap(), all.3.unwrap()), (7, 40));
    assert_eq!(all.1.unwrap(), [Some(7), Some(20), Some(30)]);
    assert_eq!(all.2.unwrap(), [Some(40), Some(30), Some(20)]);
    assert_eq!(cache.stats().loads, 3);
    assert_settled(&cache);
}

#[test]
fn a_loader_of_many_goes_on_in_the_hands_of_whoever_waits() {
    let (cache, asked) = (cache(), Asked::default());
    for polls in 1..=4 {
        cache.clear();
        let mut many = cache.get_or_load_many(&[1, 2, 3], asked.load(4)).boxed();
        assert!(poll(&mut many).is_pending());
        let mut others = [3, 2].map(|key| {
            let keys: &'static [u8] = &[0, 1, 2, 3];
            cache.get_or_load(&keys[key], |_| slow(0, 8)).boxed()
        });
        assert!(others.iter_mut().all(|other| poll(other).is_pending()));
        (1..polls).for_each(|_| assert!(poll(&mut many).is_pending()));
        drop(many);
        let [three, two] = others;
        // The first of them drives; when it goes too, the second does.
        let values = if polls % 2 == 0 {
            drop(three);
            vec![block_on(two).unwrap()]
        } else {
            let (three, two) = block_on(futures::future::join(three, two));
            vec![two.unwrap(), three.unwrap()]
        };
        assert!(values == [20] || values == [20, 30], "{values:?}");
        assert_eq!((asked.all(), cache.get(&1)), (vec![vec![1, 2, 3]], None));
        assert_settled(&cache);
    }
}

#[test]
fn when_a_loader_of_many_panics_each_who_waits_loads_for_itself() {
    let cache = cache();
    let fail = |_| async move {
        pause(2).await;
        if true {
            panic!("planned");
        }
        Ok::<_, &str>(Vec::new())
    };
    let mut many = cache.get_or_load_many(&[1, 2, 3], fail).boxed();
    assert!(poll(&mut many).is_pending());
    let mut one = cache.get_or_load(&1, |_| slow(1, 7)).boxed();
    let mut two = cache.get_or_load(&2, |_| slow(1, 8)).boxed();
    let asked = Asked::default();
    let mut rest = cache.get_or_load_many(&[3, 4], asked.load(1)).boxed();
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending() && poll(&mut rest).is_pending());
    assert!(poll(&mut many).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut many))).is_err());
    drop(many);
    let (one, two, rest) = block_on(futures::future::join3(one, two, rest));
    assert_eq!((one.unwrap(), two.unwrap()), (7, 8));
    assert_eq!(rest.unwrap(), [Some(30), Some(40)]);
    assert_eq!(asked.all(), [[4], [3]]);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_errors), (5, 1));
    assert_settled(&cache);
}

#[test]
fn when_who_took_a_loader_of_many_over_panics_the_others_load_for_themselves() {
    let cache = cache();
    let fail = |_| async move {
        pause(2).await;
        if true {
            panic!("planned");
        }
        Ok::<_, &str>(Vec::new())
    };
    let mut many = cache.get_or_load_many(&[1, 2], fail).boxed();
    assert!(poll(&mut many).is_pending());
    let mut one = cache.get_or_load(&1, |_| slow(1, 7)).boxed();
    let mut two = cache.get_or_load(&2, |_| slow(1, 8)).boxed();
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    drop(many);
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut one))).is_err());
    drop(one);
    assert_eq!((block_on(two).unwrap(), cache.stats().loads), (8, 2));
    assert_settled(&cache);
}

#[test]
fn an_error_is_everyones_and_one_of_another_type_nobodys() {
    let cache = cache();
    cache.insert(5, 55);
    let fail = |_| async {
        pause(1).await;
        Err::<Vec<(u8, u64)>, _>("no")
    };
    let mut many = cache.get_or_load_many(&[1, 2, 5], fail).boxed();
    let mut same = cache.get_or_load(&2, |_| slow(0, 7)).boxed();
    let mut other = cache.get_or_load(&1, |_| async { Ok::<u64, u8>(9) }).boxed();
    assert!(poll(&mut many).is_pending() && poll(&mut same).is_pending() && poll(&mut other).is_pending());
    let (many, same) = (block_on(many).unwrap_err(), block_on(same).unwrap_err());
    let (LoadError::Failed(a), LoadError::Failed(b)) = (&many, &same) else {
        panic!("{many:?} {same:?}")
    };
    assert!(Arc::ptr_eq(a, b));
    assert_eq!(block_on(other).unwrap(), 9);
    assert_eq!((cache.stats().loads, cache.stats().load_errors), (2, 1));
    // A call for many that waited for a load of another type loads that key again.
    let mut alien = cache
        .get_or_load(&3, |_| slow(1, 0).and_then(|_| async { Err("no") }).map_err(str::len))
        .boxed();
    assert!(poll(&mut alien).is_pending());
    let asked = Asked::default();
    let mut many = cache.get_or_load_many(&[3, 4], asked.load(0)).boxed();
    assert!(poll(&mut many).is_pending());
    assert!(block_on(alien).is_err());
    assert_eq!(block_on(many).unwrap(), [Some(30), Some(40)]);
    assert_eq!(asked.all(), [[4], [3]]);
    assert_settled(&cache);
}

#[test]
fn each_key_that_is_waited_for_counts() {
    let cache: Cache<u8, u64> = Cache::builder().max_waiting(2).build().unwrap();
    let asked = Asked::default();
    let refused = block_on(cache.get_or_load_many(&[1, 2, 3], asked.load(0)));
    assert!(matches!(refused, Err(LoadError::Crowded { limit: 2 })));
    assert_settled(&cache);
    cache.insert(3, 33);
    let many = block_on(cache.get_or_load_many(&[1, 2, 3], asked.load(0)));
    assert_eq!(many.unwrap(), [Some(10), Some(20), Some(33)]);
    assert_eq!(asked.all(), [[1, 2]]);
}

#[test]
fn many_that_are_stale_are_loaded_anew_by_one_loader_in_the_background() {
    let world = World::new(1);
    let env = world.env();
    let cache: Cache<u8, u64> = Cache::builder()
        .ttl(10 * SECOND)
        .jitter(0.0)
        .stale_while_revalidate(5 * SECOND)
        .env(env.clone())
        .build()
        .unwrap();
    let asked = Asked::default();
    world.run(async {
        (1..4).for_each(|key| assert!(cache.insert(key, 1).is_kept()));
        env.sleep(11 * SECOND).await;
        cache.insert(4, 4);
        let many = cache.get_or_load_many(&[1, 2, 4, 5, 3], asked.load(3)).await;
        assert_eq!(many.unwrap(), [Some(1), Some(1), Some(4), Some(50), Some(1)]);
        assert_eq!(asked.all(), [vec![1, 2, 3], vec![5]]);
        env.sleep(SECOND).await;
        assert_eq!([1, 2, 3].map(|key| cache.get(&key)), [Some(10), Some(20), Some(30)]);
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.stale_served), (2, 3));
    });
    assert_settled(&cache);
}

#[test]
fn many_that_are_stale_stand_in_for_an_error() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u8, u64> = Cache::builder()
        .ttl(10 * SECOND)
        .stale_if_error(60 * SECOND)
        .env(clock.env())
        .build()
        .unwrap();
    cache.insert(1, 1);
    cache.insert(2, 2);
    clock.advance(11 * SECOND);
    let fail = |_| async { Err::<Vec<(u8, u64)>, _>("no") };
    assert_eq!(
        block_on(cache.get_or_load_many(&[1, 2], fail)).unwrap(),
        [Some(1), Some(2)]
    );
    assert!(block_on(cache.get_or_load_many(&[1, 3], fail)).is_err());
    assert_eq!((cache.stats().loads, cache.stats().load_errors), (2, 2));
    assert_settled(&cache);
}

#[test]
fn many_that_take_too_long_are_one_failure() {
    let world = World::new(2);
    let env = world.env();
    let cache: Cache<u8, u64> = Cache::builder().load_timeout(50 * MS).env(env.clone()).build().unwrap();
    world.run(async {
        let load = |_| {
            let env = env.clone();
            async move {
                env.sleep(SECOND).await;
                Ok::<_, &str>(Vec::new())
            }
        };
        let late = futures::future::join(
            cache.get_or_load_many(&[1, 2, 3], load),
            cache.get_or_load(&2, |_| slow(0, 1)),
        );
        let (many, one) = late.await;
        assert!(matches!(many, Err(LoadError::TimedOut { .. })) && matches!(one, Err(LoadError::TimedOut { .. })));
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.load_errors, stats.load_time), (1, 1, 50 * MS));
    });
    assert_settled(&cache);
}

#[test]
fn a_refresh_loads_whatever_is_there_once() {
    let cache = cache();
    cache.insert(1, 1);
    let refresh = |value| cache.refresh(&1, move |_| slow(2, value)).boxed();
    let mut all = [refresh(7), refresh(8)];
    assert!(all.iter_mut().all(|call| poll(call).is_pending()));
    // What is there is served until then.
    assert_eq!(block_on(cache.get_or_load(&1, |_| slow(0, 9))).unwrap(), 1);
    let all = block_on(join_all(all));
    assert!(all.into_iter().all(|value| value.unwrap() == 7));
    let stats = cache.stats();
    assert_eq!(
        (stats.loads, stats.hits, stats.misses, cache.get(&1)),
        (1, 1, 0, Some(7))
    );
    // On failure it stays, also where it could have been served in the place of the error.
    assert!(block_on(cache.refresh(&1, |_| async { Err::<u64, _>("no") })).is_err());
    assert_eq!(cache.get(&1), Some(7));
    // What was written meanwhile is newer.
    let mut older = refresh(10);
    assert!(poll(&mut older).is_pending());
    cache.insert(1, 11);
    assert_eq!((block_on(older).unwrap(), cache.get(&1)), (10, Some(11)));
    assert_settled(&cache);
}

#[test]
fn a_value_that_will_not_do_is_loaded_anew_once_for_all() {
    let cache = cache();
    cache.insert(1, 1);
    let ran = AtomicU64::new(0);
    let ask = |least| {
        let load = |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            slow(2, 5)
        };
        cache.get_or_load_if(&1, move |value| *value < least, load)
    };
    assert_eq!((block_on(ask(1)).unwrap(), ran.load(Ordering::Relaxed)), (1, 0));
    let all = block_on(join_all([ask(5), ask(1), ask(3), ask(9)]));
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    // The second found what will do; the last got what was loaded, though it would not do: it is the newest there is.
    assert_eq!((all, ran.load(Ordering::Relaxed)), (vec![5, 1, 5, 5], 1));
    assert_eq!(cache.get(&1), Some(5));
    let failed = cache.get_or_load_if(&1, |_| true, |_| async { Err::<u64, _>("no") });
    assert!(block_on(failed).is_err());
    assert_eq!(cache.get(&1), Some(5));
    assert_settled(&cache);
}

#[test]
fn a_loader_says_how_its_value_is_kept() {
    use crate::cache::InsertOptions;
    let clock = HandClock::new(Duration::ZERO);
    let env: Env = clock.env();
    let cache: Cache<u8, u64> = Cache::builder().ttl(100 * SECOND).jitter(0.0).env(env).build().unwrap();
    let load = |_| async {
        let options = InsertOptions::new().ttl(SECOND).tag("odd");
        Ok::<_, ()>((7, options))
    };
    let ask = || block_on(cache.get_or_load_with(&1, load)).unwrap();
    assert_eq!((ask(), cache.get(&1)), (7, Some(7)));
    clock.advance(SECOND);
    assert_eq!((cache.get(&1), ask(), cache.get(&1)), (None, 7, Some(7)));
    cache.invalidate_tag("odd");
    assert_eq!((cache.get(&1), cache.stats().loads), (None, 2));
    // So it is when another call takes the loader over.
    let slowly = |_| slow(2, 8).map_ok(|value| (value, InsertOptions::new().tag("even")));
    let mut first = cache.get_or_load_with(&2, slowly).boxed();
    let mut second = cache.get_or_load(&2, |_| slow(0, 9)).boxed();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    drop(first);
    assert_eq!((block_on(second).unwrap(), cache.get(&2)), (8, Some(8)));
    cache.invalidate_tag("even");
    assert_eq!(cache.get(&2), None);
}

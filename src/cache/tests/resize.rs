//! Caches that change their size: who stays, the bounds under threads, and the memory that is given back.

use super::HandClock;
use crate::cache::policy::{EvictionPolicy, Lru, S3Fifo};
use crate::cache::{Cache, Error, InsertOptions, Removal};
use crate::env::Rng;
use crate::sync::{AtomicUsize, Ordering, pin};
use proptest::prelude::*;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How many slots a cache has memory for.
fn slots<K, V, S>(cache: &Cache<K, V, S>) -> usize {
    cache.inner.shards.iter().map(super::super::shard::Shard::slots).sum()
}

/// Waits until other tests' readers, who hold pins for moments, let a cache move.
#[track_caller]
fn settle(cache: &Cache<u64, String>, at_most: usize) {
    for _ in 0..10_000 {
        if slots(cache) <= at_most {
            return;
        }
        cache.tidy();
        thread::yield_now();
    }
    panic!("{} slots where {at_most} are enough", slots(cache));
}

/// Inserts, also while other tests' readers hold memory back.
fn put(cache: &Cache<u64, String>, key: u64, value: &str) {
    while !cache.insert(key, value.to_owned()).is_kept() {
        thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A cache under LRU of any size keeps exactly the entries used last, whatever happens to its size.
    #[test]
    fn lru_keeps_the_last_used_through_every_size(
        ops in prop::collection::vec((0_u64..1_500, 0_u8..40, 1_usize..1_200), 1..1_500),
    ) {
        let cache: Cache<u64, String> = Cache::builder().capacity(1_200).policy(Lru::default()).build().unwrap();
        let (mut model, mut capacity): (Vec<(u64, String)>, _) = (Vec::new(), 1_200);
        (0..1_200).for_each(|key| {
            put(&cache, key, &key.to_string());
            model.push((key, key.to_string()));
        });
        for (i, (key, what, size)) in ops.into_iter().enumerate() {
            let place = model.iter().position(|(other, _)| *other == key);
            match what {
                0 => {
                    capacity = size;
                    cache.resize(capacity).unwrap();
                    model.drain(..model.len().saturating_sub(capacity));
                }
                1 => {
                    prop_assert_eq!(cache.evict_one(), !model.is_empty());
                    model.drain(..model.len().min(1));
                }
                2..6 => {
                    let old = place.map(|place| model.remove(place).1);
                    prop_assert_eq!(cache.remove(&key), old);
                }
                6..20 => {
                    let old = place.map(|place| model.remove(place));
                    prop_assert_eq!(cache.get(&key), old.as_ref().map(|(_, value)| value.clone()));
                    model.extend(old);
                }
                _ => {
                    place.map(|place| model.remove(place));
                    model.drain(..(model.len() + 1).saturating_sub(capacity));
                    model.push((key, i.to_string()));
                    put(&cache, key, &i.to_string());
                }
            }
            prop_assert_eq!((cache.len(), cache.capacity()), (model.len(), capacity));
        }
        for key in 0..1_500 {
            let expected = model.iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone());
            prop_assert_eq!(cache.get(&key), expected);
        }
    }
}

#[test]
fn moved_entries_keep_what_is_theirs() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u64, String> = Cache::builder()
        .capacity(20_000)
        .weight_capacity(1 << 40)
        .policy(Lru::default())
        .jitter(0.0)
        .env(clock.env())
        .build()
        .unwrap();
    let before = slots(&cache);
    for key in 0..20_000 {
        let mut options = InsertOptions::new().weight(key);
        if key % 2 == 0 {
            options = options.ttl(Duration::from_millis(1 + key));
        }
        if key % 3 == 0 {
            options = options.tag(format!("of {}", key % 9));
        }
        if key % 5 == 0 {
            options = options.idle(Duration::from_secs(60));
        }
        cache.insert_with(key, key.to_string(), options);
    }
    // Eight shards do not fill evenly, so a few more than a tenth of the youngest may go.
    cache.resize(2_000).unwrap();
    settle(&cache, before / 4);
    let there: Vec<u64> = (0..20_000).filter(|key| cache.contains(key)).collect();
    assert_eq!((there.len(), cache.len()), (2_000, 2_000));
    assert!(
        there
            .iter()
            .all(|key| *key > 10_000 && cache.get(key) == Some(key.to_string()))
    );
    assert_eq!(cache.weight(), there.iter().sum::<u64>());
    cache.invalidate_tag("of 3");
    let left = |key: &&u64| **key % 9 != 3;
    assert!(there.iter().all(|key| cache.contains(key) == left(&key)));
    clock.advance(Duration::from_millis(15_000));
    let left = |key: &&u64| **key % 9 != 3 && (**key % 2 == 1 || **key + 1 > 15_000);
    assert!(there.iter().all(|key| cache.contains(key) == left(&key)));
    clock.advance(Duration::from_millis(16));
    cache.tidy();
    let left = |key: &&u64| left(key) && (**key % 2 == 1 || **key + 1 > 15_016);
    assert_eq!(cache.len(), there.iter().filter(left).count());
    clock.advance(Duration::from_secs(60));
    cache.tidy();
    let left = |key: &&u64| left(key) && *key % 2 == 1 && *key % 5 != 0;
    let left: Vec<u64> = there.iter().filter(left).copied().collect();
    assert_eq!((cache.len(), cache.weight()), (left.len(), left.iter().sum()));
    assert!(left.iter().all(|key| cache.remove(key) == Some(key.to_string())));
    assert!(cache.is_empty());
}

#[test]
fn readers_hold_memory_back_and_nothing_is_lost() {
    let cache: Cache<u64, String> = Cache::builder().capacity(1_900).policy(Lru::default()).build().unwrap();
    (0..1_900).for_each(|key| {
        cache.insert(key, key.to_string());
    });
    let before = slots(&cache);
    {
        let pinned = pin();
        let found = cache.inner.peek(cache.hash(&1_899), &1_899, &pinned);
        cache.resize(100).unwrap();
        assert_eq!((slots(&cache), cache.len()), (before, 100));
        thread::scope(|scope| {
            scope.spawn(|| cache.tidy());
        });
        assert_eq!(slots(&cache), before);
        assert!((1_800..1_900).all(|key| cache.get(&key) == Some(key.to_string())));
        assert_eq!(found.unwrap().entry.value().map(String::as_str), Some("1899"));
    }
    settle(&cache, before / 4);
    assert!((1_800..1_900).all(|key| cache.get(&key) == Some(key.to_string())));
    // All is used again as before.
    cache.resize(1_900).unwrap();
    (0..4_000).for_each(|key| {
        cache.insert(key, key.to_string());
    });
    assert!((2_100..4_000).all(|key| cache.get(&key) == Some(key.to_string())));
    assert_eq!(cache.len(), 1_900);
}

#[test]
fn the_bounds_hold_while_they_move() {
    the_bounds_hold(S3Fifo::default());
    the_bounds_hold(Lru::default());
}

/// Eight threads write and read while the limits go up and down; values count how many of them are alive.
#[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
fn the_bounds_hold(policy: impl EvictionPolicy) {
    let alive = Arc::new(AtomicUsize::new(0));
    let value = |key: u64| {
        alive.fetch_add(1, Ordering::Relaxed);
        Counted(key, Arc::clone(&alive))
    };
    let cache: Cache<u64, Counted> = Cache::builder()
        .capacity(8_000)
        .weight_capacity(30_000)
        .policy(policy)
        .build()
        .unwrap();
    // A limit counts from the return of the call that lowered it, and until the call that raises it.
    let (most, stamp) = (AtomicUsize::new(8_000), AtomicUsize::new(0));
    let (most_weight, done) = (AtomicUsize::new(30_000), AtomicUsize::new(0));
    let limits = || (most.load(Ordering::SeqCst), most_weight.load(Ordering::SeqCst));
    let check = || {
        let before = (stamp.load(Ordering::SeqCst), limits());
        let (len, weight) = (cache.len(), cache.weight() as usize);
        if (stamp.load(Ordering::SeqCst), limits()) == before {
            assert!(
                len <= before.1.0 && weight <= before.1.1,
                "{len} and {weight} of {before:?}"
            );
        }
    };
    thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, check, value, done) = (&cache, &check, &value, &done);
            scope.spawn(move || {
                let mut rng = Rng::seeded(thread);
                for _ in 0..6_000 {
                    let key = rng.below(12_000);
                    match rng.below(10) {
                        0 => drop(cache.remove(&key)),
                        1..4 => assert!(cache.get(&key).is_none_or(|found| found.0 == key)),
                        _ => {
                            let weight = InsertOptions::new().weight(rng.below(10));
                            cache.insert_with(key, value(key), weight);
                        }
                    }
                    check();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut rng = Rng::seeded(99);
        while done.load(Ordering::SeqCst) < 8 {
            let (size, weight) = (1 + rng.below(8_000) as usize, 1 + rng.below(30_000) as usize);
            stamp.fetch_add(1, Ordering::SeqCst);
            most.fetch_max(size, Ordering::SeqCst);
            most_weight.fetch_max(weight, Ordering::SeqCst);
            cache.resize(size).unwrap();
            assert!(cache.len() <= size);
            cache.resize_weight(weight as u64).unwrap();
            assert!(cache.weight() <= weight as u64);
            most.store(size, Ordering::SeqCst);
            most_weight.store(weight, Ordering::SeqCst);
            (0..20).for_each(|_| thread::yield_now());
        }
    });
    assert!((0..12_000).all(|key| cache.get(&key).is_none_or(|found| found.0 == key)));
    cache.clear();
    assert_eq!((cache.len(), cache.weight()), (0, 0));
    drop(cache);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "each value is dropped once");
}

struct Counted(u64, Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Counted {
        self.1.fetch_add(1, Ordering::Relaxed);
        Counted(self.0, Arc::clone(&self.1))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(self.1.fetch_sub(1, Ordering::Relaxed) > 0, "dropped twice");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
fn retain_looks_at_what_moves_too() {
    let cache: Cache<u64, String> = Cache::builder()
        .capacity(30_000)
        .policy(Lru::default())
        .build()
        .unwrap();
    for round in 0..6 {
        cache.resize(30_000).unwrap();
        (0..30_000).for_each(|key| {
            cache.insert(key, key.to_string());
        });
        thread::scope(|scope| {
            let shrinking = scope.spawn(|| cache.resize(3_000));
            cache.retain(|key, _| key % 2 == round % 2);
            shrinking.join().unwrap().unwrap();
        });
        let kept = (0..30_000).filter(|key| cache.contains(key));
        assert!(kept.into_iter().all(|key| key % 2 == round % 2));
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let cache: Cache<u64, String> = Cache::builder().capacity(10).build().unwrap();
    for capacity in [0, (1 << 19) + 1, usize::MAX] {
        assert!(matches!(
            cache.resize(capacity),
            Err(Error::Option { option: "capacity", .. })
        ));
    }
    assert_eq!(cache.resize_weight(1), Err(Error::Unweighted));
    assert_eq!(cache.capacity(), 10);
    let cache: Cache<u64, String> = Cache::builder().weight_capacity(10).build().unwrap();
    assert!(matches!(cache.resize_weight(0), Err(Error::Option { .. })));
    (0..100).for_each(|key| {
        cache.insert(key, String::new());
    });
    assert_eq!((cache.len(), cache.capacity()), (10, usize::MAX));
    cache.resize(5).unwrap();
    assert_eq!((cache.len(), cache.capacity()), (5, 5));
}

#[test]
fn a_listener_hears_of_each_that_has_to_go() {
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(5_000)
        .on_removal(move |_, _, why| {
            count.fetch_add(usize::from(why == Removal::Evicted), Ordering::Relaxed);
        })
        .build()
        .unwrap();
    (0..5_000).for_each(|key| {
        cache.insert(key, key);
    });
    cache.resize(50).unwrap();
    assert_eq!((heard.load(Ordering::Relaxed), cache.stats().evictions), (4_950, 4_950));
    assert!(cache.evict_one());
    assert_eq!((heard.load(Ordering::Relaxed), cache.len()), (4_951, 49));
}

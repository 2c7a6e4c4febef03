//! Caches that change their size: who stays, the bounds under threads, and the memory that is given back.

use super::HandClock;
use crate::cache::policy::Lru;
use crate::cache::{Cache, Error, InsertOptions, Removal};
use crate::sync::{AtomicUsize, Ordering};
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
    let left = |key: &&u64| left(key) && **key % 2 == 1 && !key.is_multiple_of(5);
    let left: Vec<u64> = there.iter().filter(left).copied().collect();
    assert_eq!((cache.len(), cache.weight()), (left.len(), left.iter().sum()));
    assert!(left.iter().all(|key| cache.remove(key) == Some(key.to_string())));
    assert!(cache.is_empty());
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

#[test]
fn a_cache_that_is_limited_by_weight_alone_gives_memory_back_too() {
    let cache: Cache<u64, String> = Cache::builder().weight_capacity(100_000).build().unwrap();
    for key in 0..60_000 {
        put(&cache, key, &key.to_string());
    }
    let before = slots(&cache);
    assert!(before >= 60_000);
    cache.resize_weight(3_000).unwrap();
    assert_eq!((cache.len(), cache.weight()), (3_000, 3_000));
    settle(&cache, before / 4);
    cache.for_each(|key, value| assert_eq!(key.to_string(), *value));
    cache.resize_weight(100_000).unwrap();
    for key in 0..60_000 {
        put(&cache, key, &key.to_string());
    }
    assert!((0..60_000).all(|key| cache.get(&key) == Some(key.to_string())));
}

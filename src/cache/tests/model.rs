//! The cache against maps that do the dumbest correct thing.

use super::HandClock;
use crate::cache::policy::Lru;
use crate::cache::{Cache, InsertOptions, Inserted, Rejected};
use crate::env::{Clock, Tick};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    Contains(u8),
    Insert(u8),
    InsertFor(u8, u64),
    Remove(u8),
    Clear,
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any::<u8>().prop_map(Op::Get),
        1 => any::<u8>().prop_map(Op::Contains),
        4 => any::<u8>().prop_map(Op::Insert),
        4 => (any::<u8>(), 0_u64..400).prop_map(|(key, millis)| Op::InsertFor(key, millis)),
        2 => any::<u8>().prop_map(Op::Remove),
        1 => Just(Op::Clear),
        4 => (0_u64..150).prop_map(Op::Advance),
    ]
}

/// What an insert says that found this.
fn became(old: Option<usize>) -> Inserted {
    match old {
        Some(_) => Inserted::Replaced,
        None => Inserted::Added,
    }
}

proptest! {
    /// A cache that never fills is a map with deadlines, to the millisecond, however far the coarse clock lags.
    #[test]
    fn is_a_map_with_deadlines(
        ops in prop::collection::vec(op(), 1..300),
        ttl in prop::option::of(1_u64..300),
        lag in 0_u64..20,
        lru in any::<bool>(),
    ) {
        let clock = HandClock::new(Duration::from_millis(lag));
        let mut builder = Cache::builder().capacity(300).jitter(0.0).env(clock.env());
        if lru {
            builder = builder.policy(Lru::default());
        }
        if let Some(ttl) = ttl {
            builder = builder.ttl(Duration::from_millis(ttl));
        }
        let cache: Cache<u8, usize> = builder.build().unwrap();
        let mut model: BTreeMap<u8, (usize, Tick)> = BTreeMap::new();
        let after = |millis: Option<u64>| millis.map_or(Tick::MAX, |ttl| clock.now() + Duration::from_millis(ttl));
        let (mut hits, mut misses) = (0, 0);
        for (i, op) in ops.into_iter().enumerate() {
            let now = clock.now();
            let live = |entry: Option<(usize, Tick)>| entry.filter(|(_, deadline)| now < *deadline).map(|(v, _)| v);
            match op {
                Op::Get(key) => {
                    let found = cache.get(&key);
                    prop_assert_eq!(found, live(model.get(&key).copied()));
                    if found.is_some() { hits += 1 } else { misses += 1 }
                }
                Op::Contains(key) => prop_assert_eq!(cache.contains(&key), live(model.get(&key).copied()).is_some()),
                Op::Insert(key) => {
                    let old = model.insert(key, (i, after(ttl)));
                    prop_assert_eq!(cache.insert(key, i), became(live(old)));
                }
                Op::InsertFor(key, millis) => {
                    let old = model.insert(key, (i, after(Some(millis))));
                    let options = InsertOptions::new().ttl(Duration::from_millis(millis));
                    let expected = match millis {
                        0 => Inserted::Rejected(Rejected::Expired),
                        _ => became(live(old)),
                    };
                    prop_assert_eq!(cache.insert_with(key, i, options), expected);
                }
                Op::Remove(key) => prop_assert_eq!(cache.remove(&key), live(model.remove(&key))),
                Op::Clear => {
                    cache.clear();
                    model.clear();
                }
                Op::Advance(millis) => clock.advance(Duration::from_millis(millis)),
            }
            let now = clock.now();
            let alive = model.values().filter(|(_, deadline)| now < *deadline).count();
            prop_assert!(alive <= cache.len() && cache.len() <= model.len());
        }
        let stats = cache.stats();
        prop_assert_eq!((stats.hits, stats.misses, stats.evictions), (hits, misses, 0));
    }

    /// A small cache under LRU keeps exactly the entries used last.
    #[test]
    fn lru_keeps_the_last_used(capacity in 1_usize..12, ops in prop::collection::vec((0_u8..20, 0_u8..8), 1..300)) {
        let cache: Cache<u8, usize> = Cache::builder().capacity(capacity).policy(Lru::default()).build().unwrap();
        let mut model: Vec<(u8, usize)> = Vec::new();
        for (i, (key, what)) in ops.into_iter().enumerate() {
            let place = model.iter().position(|(k, _)| *k == key);
            let old = place.map(|place| model.remove(place));
            match what {
                0 => prop_assert_eq!(cache.remove(&key), old.map(|(_, value)| value)),
                1..4 => {
                    prop_assert_eq!(cache.get(&key), old.map(|(_, value)| value));
                    model.extend(old);
                }
                _ => {
                    if model.len() == capacity {
                        model.remove(0);
                    }
                    model.push((key, i));
                    prop_assert_eq!(cache.insert(key, i), became(old.map(|(_, value)| value)));
                }
            }
            prop_assert_eq!(cache.len(), model.len());
            for key in 0..20 {
                prop_assert_eq!(cache.contains(&key), model.iter().any(|(k, _)| *k == key));
            }
        }
    }

    /// Jitter only shortens: never served after the time to live, always before the shortest that jitter allows.
    #[test]
    fn jitter_only_shortens(share in 0.0..1.0_f64, waits in prop::collection::vec(1_u64..200, 1..40)) {
        let clock = HandClock::new(Duration::from_millis(4));
        let ttl = Duration::from_secs(1);
        let cache: Cache<u64, Tick> =
            Cache::builder().capacity(10_000).ttl(ttl).jitter(share).env(clock.env()).build().unwrap();
        for (i, wait) in waits.into_iter().enumerate() {
            cache.insert(i as u64, clock.now());
            clock.advance(Duration::from_millis(wait));
            for key in 0..=i as u64 {
                let age = |at: Tick| clock.now() - at;
                let written = cache.get(&key);
                prop_assert!(written.is_none_or(|at| age(at) < ttl));
            }
        }
        let fresh = clock.now();
        cache.insert(u64::MAX, fresh);
        clock.advance(ttl.mul_f64((1.0 - share) * 0.999));
        prop_assert_eq!(cache.get(&u64::MAX), Some(fresh));
    }
}

#[test]
fn jitter_spreads_what_was_loaded_together() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u32, ()> = Cache::builder()
        .capacity(400)
        .ttl(Duration::from_secs(10))
        .jitter(0.5)
        .env(clock.env())
        .build()
        .unwrap();
    (0..400).for_each(|key| {
        cache.insert(key, ());
    });
    clock.advance(Duration::from_millis(7_500));
    let left = (0..400).filter(|key| cache.contains(key)).count();
    // Half of them on average, with a deviation of 10: ten deviations.
    assert!((100..300).contains(&left), "{left}");
}

#[test]
fn later_writes_free_what_expired_eight_at_a_time() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u32, u32> = Cache::builder()
        .capacity(511)
        .jitter(0.0)
        .env(clock.env())
        .build()
        .unwrap();
    for key in 0..400 {
        cache.insert_with(key, key, InsertOptions::new().ttl(Duration::from_secs(1)));
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!((cache.get(&7), cache.len()), (None, 400));
    // Freed within sixteen milliseconds of its time.
    clock.advance(Duration::from_millis(16));
    (1_000..1_010).for_each(|key| {
        cache.insert(key, key);
    });
    assert_eq!((cache.len(), cache.stats().expirations), (330, 80));
    (1_010..1_200).for_each(|key| {
        cache.insert(key, key);
    });
    assert_eq!(cache.len(), 200);
    let stats = cache.stats();
    assert_eq!((stats.expirations, stats.evictions, stats.inserts), (400, 0, 600));
}

#[test]
fn what_expired_leaves_before_what_lives() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u32, u32> = Cache::builder()
        .capacity(10)
        .jitter(0.0)
        .env(clock.env())
        .build()
        .unwrap();
    (0..9).for_each(|key| {
        cache.insert(key, key);
    });
    cache.insert_with(9, 9, InsertOptions::new().ttl(Duration::from_secs(1)));
    clock.advance(Duration::from_millis(1_016));
    cache.insert(10, 10);
    assert!((0..9).all(|key| cache.contains(&key)) && cache.contains(&10));
    assert_eq!(cache.stats().evictions, 0);
}

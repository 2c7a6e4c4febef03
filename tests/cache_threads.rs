//! Caches that many threads change at once, in size and in what they hold. A program of its own: where a thread is
//! interrupted while it reads, other caches of its process may have to reject what is put in.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "real threads are the subject"
)]

use outgrow::cache::policy::{EvictionPolicy, Lru, S3Fifo};
use outgrow::cache::{Cache, InsertOptions, Op};
use outgrow::env::Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

#[test]
fn the_bounds_hold_while_they_move() {
    the_bounds_hold(S3Fifo::default());
    the_bounds_hold(Lru::default());
}

/// Eight threads write and read while the limits go up and down; values count how many of them are alive.
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

/// Each write is a value of its own, so two that were shown the same one would mean that the first was lost.
#[test]
fn no_change_is_lost_between_threads() {
    let cache: Cache<u64, u64> = Cache::builder().capacity(3_000).build().unwrap();
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, all) = (&cache, &all);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for i in 0..4_000_u64 {
                    let (key, new) = (i % 7, thread << 32 | i);
                    let mut shown = None;
                    let now = match (i + thread) % 4 {
                        0 => cache.compute(key, |old| {
                            shown = old.copied();
                            Op::Put(new)
                        }),
                        1 => {
                            let change = |old: &u64| {
                                shown = Some(*old);
                                new
                            };
                            Some(cache.entry(key).and_modify(change).or_insert(new))
                        }
                        2 => {
                            let change = |old: &u64| {
                                shown = Some(*old);
                                new
                            };
                            cache.entry(key).and_modify(change).or_none()
                        }
                        _ => {
                            shown = cache.replace(key, new);
                            Some(new)
                        }
                    };
                    mine.extend(shown.filter(|_| now == Some(new)).map(|shown| (key, shown)));
                }
                all.lock().unwrap().extend(mine);
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_unstable();
    assert!(all.len() > 16_000, "{} changes of something", all.len());
    let lost = all.windows(2).filter(|two| two[0] == two[1]).count();
    assert!(
        lost as u64 <= cache.stats().rejections,
        "{lost} values were shown to two writes"
    );
}

#[test]
fn all_get_what_the_first_made() {
    let cache: Cache<u64, u64> = Cache::builder().build().unwrap();
    let winners = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, winners) = (&cache, &winners);
            scope.spawn(move || {
                for key in 0..4_000 {
                    let made = match (key + thread) % 2 {
                        0 => cache.get_or_insert_with(&key, || thread),
                        _ => cache.entry(key).or_insert(thread),
                    };
                    assert_eq!(*winners.lock().unwrap().entry(key).or_insert(made), made);
                }
            });
        }
    });
    assert_eq!(cache.stats().inserts, 4_000);
}

#[test]
fn taking_out_is_part_of_the_order() {
    // A token passes from key to key; whoever takes it out puts it in elsewhere. So there is one at most, and one in the end.
    let cache: Cache<u64, u64> = Cache::builder().build().unwrap();
    cache.insert(0, 1);
    thread::scope(|scope| {
        for thread in 0..6 {
            let cache = &cache;
            scope.spawn(move || {
                for i in 0..3_000 {
                    let mut taken = None;
                    cache.compute((i + thread) % 5, |old| {
                        taken = old.copied();
                        old.map_or(Op::Keep, |_| Op::Remove)
                    });
                    if let Some(token) = taken {
                        assert_eq!(cache.replace((i * 3 + thread) % 5, token + 1), None);
                    }
                }
            });
        }
    });
    let left = (0..5).filter_map(|key| cache.get(&key)).count();
    assert!(left == 1 || (left == 0 && cache.stats().rejections > 0), "{left}");
}

#[test]
fn what_nobody_writes_comes_once_while_others_do() {
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(20_000)
        .policy(Lru::default())
        .build()
        .unwrap();
    for key in 0..2_000 {
        cache.insert(key, key);
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = Rng::seeded(1);
            while !done.load(Ordering::Relaxed) {
                let key = 10_000 + rng.below(3_000);
                cache.insert(key, key);
                cache.remove(&(10_000 + rng.below(3_000)));
            }
        });
        for _ in 0..50 {
            let mut kept: Vec<u64> = Vec::new();
            for (key, value) in cache.iter() {
                assert_eq!(key, value);
                kept.extend((key < 2_000).then_some(key));
            }
            kept.sort_unstable();
            assert!(kept.into_iter().eq(0..2_000));
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}

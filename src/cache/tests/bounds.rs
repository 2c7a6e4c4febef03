//! What holds under threads: the bound, and that each value is dropped once.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use crate::cache::policy::{Adaptive, EvictionPolicy, Lru, S3Fifo};
use crate::cache::stats::Count;
use crate::cache::{Cache, CacheBuilder, InsertOptions, Inserted, Rejected};
use crate::env::Rng;
use crate::sync::{AtomicUsize, Ordering, Stripes, pins};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Counts how many of its kind are alive.
pub(super) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Alive {
        count.fetch_add(1, Ordering::Relaxed);
        Alive(Arc::clone(count))
    }
}

impl Clone for Alive {
    fn clone(&self) -> Alive {
        Alive::new(&self.0)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        assert!(self.0.fetch_sub(1, Ordering::Relaxed) > 0, "dropped twice");
    }
}

#[test]
fn the_bound_holds_at_every_return_and_values_drop_once() {
    the_bound_holds(S3Fifo::default(), 1_000);
    the_bound_holds(Lru::default(), 1_000);
    the_bound_holds(S3Fifo::default(), 5_000);
    the_bound_holds(S3Fifo::default(), 1);
    the_bound_holds(Lru::default(), 3);
}

fn the_bound_holds(policy: impl EvictionPolicy, capacity: usize) {
    let alive = Arc::new(AtomicUsize::new(0));
    let cache: Cache<u64, Alive> = Cache::builder().capacity(capacity).policy(policy).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, alive) = (&cache, &alive);
            scope.spawn(move || {
                let mut rng = Rng::seeded(thread);
                for _ in 0..4_000 {
                    let key = rng.below(4 * capacity.max(1_000) as u64);
                    match rng.below(20) {
                        0 => drop(cache.remove(&key)),
                        1 => {
                            let ttl = InsertOptions::new().ttl(Duration::from_micros(rng.below(5_000)));
                            cache.insert_with(key, Alive::new(alive), ttl);
                        }
                        2..10 => drop(cache.get(&key)),
                        _ => {
                            cache.insert(key, Alive::new(alive));
                        }
                    }
                    assert!(cache.len() <= capacity);
                }
            });
        }
    });
    settle(&cache, &alive);
    cache.clear();
    assert_eq!(cache.len(), 0);
    settle(&cache, &alive);
    cache.insert(1, Alive::new(&alive));
    drop(cache);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Waits until other tests' readers, who hold pins for moments, let what has left be dropped.
#[track_caller]
pub(super) fn settle<K, V>(cache: &Cache<K, V>, alive: &AtomicUsize)
where
    K: std::hash::Hash + Eq,
{
    for _ in 0..10_000 {
        cache.tidy();
        if alive.load(Ordering::Relaxed) == cache.len() {
            return;
        }
        // By time: a reader may have lost its processor.
        thread::sleep(Duration::from_micros(200));
    }
    panic!("{} alive of {}", alive.load(Ordering::Relaxed), cache.len());
}

#[test]
fn a_destructor_may_use_the_cache() {
    #[derive(Clone)]
    struct Nosy(Option<Cache<u8, Nosy>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            if let Some(cache) = self.0.take() {
                assert!(cache.len() <= 1);
                cache.remove(&200);
            }
        }
    }
    let cache: Cache<u8, Nosy> = Cache::builder().capacity(1).build().unwrap();
    for key in 0..9 {
        cache.insert(key, Nosy(Some(cache.clone())));
    }
    cache.insert(8, Nosy(None));
    cache.clear();
    assert!(cache.is_empty());
}

/// Limits by count and by weight at once, and entries of any weight up to the whole: none is too heavy for its shard.
#[test]
fn count_and_weight_hold_together() {
    let builder = || Cache::builder().policy(Adaptive::default());
    weights_hold(builder().capacity(300), 300, 3_000);
    weights_hold(builder().capacity(20_000), 20_000, 3_000);
    weights_hold(builder().capacity(20_000).policy(Lru::default()), 20_000, 300_000);
    // By weight alone, over 64 shards of which most are empty.
    weights_hold(builder(), usize::MAX, 40);
}

fn weights_hold(builder: CacheBuilder<u64, Alive>, capacity: usize, most: u64) {
    let alive = Arc::new(AtomicUsize::new(0));
    let cache = builder.weight_capacity(most).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, alive) = (&cache, &alive);
            scope.spawn(move || {
                let mut rng = Rng::seeded(thread);
                for step in 0..2_000 {
                    // Most are light; now and then one needs all that there is.
                    let weight = match step % 100 {
                        7 => most,
                        _ => rng.below(1 + most.min(40) / 2),
                    };
                    let options = InsertOptions::new().weight(weight);
                    let inserted = cache.insert_with(rng.below(2_000), Alive::new(alive), options);
                    assert!(inserted.is_kept() || inserted == Inserted::Rejected(Rejected::HeldBack));
                    assert!(cache.len() <= capacity && cache.weight() <= most);
                    if rng.below(10) == 0 {
                        cache.invalidate(&rng.below(2_000));
                    }
                }
            });
        }
    });
    let too_heavy = InsertOptions::new().weight(most + 1);
    let refused = cache.insert_with(1, Alive::new(&alive), too_heavy);
    assert_eq!(refused, Inserted::Rejected(Rejected::TooHeavy));
    settle(&cache, &alive);
    cache.clear();
    assert_eq!((cache.len(), cache.weight()), (0, 0));
    settle(&cache, &alive);
}

/// What readers may hold back of a cache of this size, which is one shard: 512 entries and an eighth, the one whose leaving
/// goes past that, and one that makes room for the first to be refused.
const fn most_held(capacity: usize) -> usize {
    512 + capacity / 8 + 2
}

#[test]
fn what_a_reader_holds_back_is_bounded_and_comes_back() {
    const CAPACITY: usize = 1_000;
    let alive = Arc::new(AtomicUsize::new(0));
    let cache: Cache<u64, Alive> = Cache::builder().capacity(CAPACITY).build().unwrap();
    assert_eq!(cache.inner.shards.len(), 1);
    for key in 0..CAPACITY as u64 {
        cache.insert(key, Alive::new(&alive));
    }
    let pinned = cache.pin();
    let (mut held_back, first) = (0, pinned.get(&0));
    thread::scope(|scope| {
        scope.spawn(|| {
            // A thread that is pinned itself does not wait.
            let _pinned = cache.pin();
            for key in 0..10 * CAPACITY as u64 {
                let inserted = cache.insert(CAPACITY as u64 + key, Alive::new(&alive));
                held_back += usize::from(inserted == Inserted::Rejected(Rejected::HeldBack));
                let held = cache.stats().held_back as usize;
                assert!(held <= most_held(CAPACITY), "{held}");
                assert!(alive.load(Ordering::Relaxed) <= cache.len() + held && cache.len() <= CAPACITY);
            }
        });
    });
    assert!(held_back > 8 * CAPACITY, "{held_back}");
    assert_eq!(first.map(|value| Arc::ptr_eq(&value.0, &alive)), Some(true));
    thread::scope(|scope| {
        // One that is not waits until the reader goes away.
        let waits = scope.spawn(|| cache.insert(7, Alive::new(&alive)));
        while cache.stats().rejections == 0 && !waits.is_finished() {
            thread::yield_now();
        }
        drop(pinned);
        assert!(waits.join().unwrap().is_kept());
    });
    settle(&cache, &alive);
    assert_eq!(cache.stats().held_back, 0);
    for key in 0..10 * CAPACITY as u64 {
        assert!(cache.insert(key, Alive::new(&alive)).is_kept());
    }
    settle(&cache, &alive);
    drop(cache);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// A shard whose lock somebody holds is read all the same, by a thread of whose own lines only the counters change.
#[test]
fn a_hot_hit_takes_no_lock_and_leaves_the_entry_alone() {
    let cache: Cache<u64, u64> = Cache::builder().capacity(100).build().unwrap();
    cache.insert(7, 70);
    // The policy has seen enough of it after a few.
    (0..10).for_each(|_| assert_eq!(cache.get(&7), Some(70)));
    let shard = &cache.inner.shards[0];
    let locked = shard.lock();
    let pin = pins::pin();
    let (_, entry) = shard.find(cache.hash(&7_u64), &7_u64, &pin).unwrap();
    let before = (
        entry.word.read(),
        cache.inner.counters.stripes().lines(Count::Hits as usize),
    );
    let reader = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            assert_eq!(cache.get(&7), Some(70));
            assert_eq!(cache.with(&7, |value| value + 1), Some(71));
            let pinned = cache.pin();
            assert_eq!((pinned.get(&7), pinned.get(&8)), (Some(&70), None));
            assert!(cache.contains(&7) && cache.len() == 1);
            Stripes::<13>::line(&pins::pin())
        });
        reader.join().unwrap()
    });
    assert_eq!(entry.word.read(), before.0, "its word is as it was");
    drop(locked);
    let after = cache.inner.counters.stripes().lines(Count::Hits as usize);
    let changed = before.1.iter().zip(&after).enumerate();
    let changed: Vec<_> = changed.filter(|(_, (before, after))| before != after).collect();
    // Threads of other tests have lines of their own, and count for other caches.
    assert_eq!(changed.len(), 1, "{changed:?}");
    let (line, (hits, more)) = changed[0];
    assert_eq!((*hits + 3, line), (*more, reader));
}

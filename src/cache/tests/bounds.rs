//! What holds under threads: the bound, and that each value is dropped once.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use crate::cache::policy::{EvictionPolicy, Lru, S3Fifo};
use crate::cache::{Cache, InsertOptions};
use crate::env::Rng;
use crate::sync::{AtomicUsize, Ordering};
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

//! What holds under threads: the bound, and that each value is dropped once.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use crate::cache::{Cache, InsertOptions, Policy};
use crate::env::Rng;
use crate::sync::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Counts how many of its kind are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Alive {
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
    for (policy, capacity) in [
        (Policy::S3Fifo, 1_000),
        (Policy::Lru, 1_000),
        (Policy::S3Fifo, 1),
        (Policy::Lru, 3),
    ] {
        let alive = Arc::new(AtomicUsize::new(0));
        let cache: Cache<u64, Alive> = Cache::builder().capacity(capacity).policy(policy).build().unwrap();
        thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, alive) = (&cache, &alive);
                scope.spawn(move || {
                    let mut rng = Rng::seeded(thread);
                    for _ in 0..4_000 {
                        let key = rng.below(4_000);
                        match rng.below(20) {
                            0 => drop(cache.remove(&key)),
                            1 => {
                                let ttl = InsertOptions::new().ttl(Duration::from_micros(rng.below(500)));
                                cache.insert_with(key, Alive::new(alive), ttl);
                            }
                            2..10 => drop(cache.get(&key)),
                            _ => drop(cache.insert(key, Alive::new(alive))),
                        }
                        assert!(cache.len() <= capacity);
                    }
                });
            }
        });
        assert_eq!(alive.load(Ordering::Relaxed), cache.len());
        cache.clear();
        assert_eq!((cache.len(), alive.load(Ordering::Relaxed)), (0, 0));
        cache.insert(1, Alive::new(&alive));
        drop(cache);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
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

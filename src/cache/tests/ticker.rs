//! What expires while nobody looks, in virtual time.

use crate::cache::{Cache, InsertOptions, Removal};
use crate::env::{Env, Tick};
use crate::sim::World;
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

type Heard = Arc<Mutex<Vec<(u64, Removal, Tick)>>>;

/// A cache whose listener notes when it hears what.
fn noted(env: &Env) -> (Cache<u64, u64>, Heard) {
    let heard = Heard::default();
    let (notes, clock) = (Arc::clone(&heard), env.clone());
    let listen = move |key: &u64, _: &u64, why| notes.lock().push((*key, why, clock.now()));
    let builder = Cache::builder().capacity(5_000).jitter(0.0).env(env.clone());
    (builder.on_removal(listen).build().unwrap(), heard)
}

#[test]
fn the_listener_hears_of_each_on_time() {
    for (seed, interval) in [(1, 1), (2, 50), (3, 1_000)] {
        let world = World::new(seed);
        let env = world.env();
        world.run(async {
            let (cache, heard) = noted(&env);
            let interval = Duration::from_millis(interval);
            let ticker = cache.ticker(interval);
            let mut rng = world.rng("deadlines");
            let mut deadlines = Vec::new();
            for key in 0..4_000 {
                let ttl = Duration::from_millis(1 + rng.below(30_000));
                cache.insert_with(key, key, InsertOptions::new().ttl(ttl));
                deadlines.push(env.now() + ttl);
                if key % 50 == 0 {
                    env.sleep(Duration::from_millis(rng.below(200))).await;
                }
            }
            env.sleep(Duration::from_secs(40)).await;
            assert!(cache.is_empty());
            ticker.close().await;
            let heard = heard.lock();
            assert_eq!(heard.len(), 4_000);
            let most = interval.max(16 * MS) + 16 * MS;
            for (key, why, at) in heard.iter() {
                let deadline = deadlines[*key as usize];
                assert_eq!(*why, Removal::Expired);
                // Deadlines are rounded down to the millisecond.
                assert!(
                    *at + MS > deadline && *at <= deadline + most,
                    "{key}: {at:?} for {deadline:?}"
                );
            }
        });
    }
}

#[test]
fn what_a_tag_ends_goes_too_and_others_get_their_turn() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let (cache, heard) = noted(&env);
        for key in 0..5_000 {
            cache.insert_with(
                key,
                key,
                InsertOptions::new().tag(if key < 4_000 { "most" } else { "few" }),
            );
        }
        let _ticker = cache.ticker(100 * MS);
        cache.invalidate_tag("most");
        env.sleep(250 * MS).await;
        assert_eq!((cache.len(), heard.lock().len()), (1_000, 4_000));
        assert!(heard.lock().iter().all(|(_, why, _)| *why == Removal::Invalidated));
    });
}

#[test]
fn it_ends_with_its_cache_and_when_it_is_told() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let (cache, _) = noted(&env);
        let inner = Arc::downgrade(&cache.inner);
        let ticker = cache.ticker(50 * MS);
        env.sleep(75 * MS).await;
        drop(cache);
        assert!(inner.upgrade().is_none(), "it keeps nothing alive");
        env.sleep(50 * MS).await;
        ticker.task.await.unwrap();
        let (cache, heard) = noted(&env);
        cache.insert_with(7, 7, InsertOptions::new().ttl(200 * MS));
        drop(cache.ticker(50 * MS));
        cache.ticker(50 * MS).close().await;
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!((cache.len(), heard.lock().len()), (1, 0), "nobody tidies any more");
    });
}

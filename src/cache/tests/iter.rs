//! Walks through all entries.

use super::HandClock;
use crate::cache::policy::Lru;
use crate::cache::{Cache, InsertOptions};
use crate::env::Rng;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn the_hottest_come_first_shard_by_shard() {
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(100_000)
        .policy(Lru::default())
        .build()
        .unwrap();
    let shards = cache.inner.shards.len() as u64;
    let mut rng = Rng::seeded(1);
    let mut used: Vec<u64> = (0..20_000).collect();
    for key in &used {
        cache.insert(*key, 2 * key);
    }
    for _ in 0..5_000 {
        let key = rng.below(20_000);
        cache.get(&key);
        used.push(key);
    }
    let walked: Vec<u64> = cache
        .iter()
        .map(|(key, value)| {
            assert_eq!(value, 2 * key);
            key
        })
        .collect();
    assert_eq!(walked, cache.keys().collect::<Vec<_>>());
    let mut seen = BTreeSet::new();
    let by_use: Vec<u64> = used.iter().rev().copied().filter(|key| seen.insert(*key)).collect();
    assert_eq!(walked.iter().copied().collect::<BTreeSet<_>>(), seen);
    for shard in 0..shards {
        let here = |key: &&u64| cache.hash(*key) % shards == shard;
        assert!(
            walked.iter().filter(here).eq(by_use.iter().filter(here)),
            "shard {shard}"
        );
    }
    // The first of each shard are at the front.
    let front: BTreeSet<u64> = walked[..shards as usize]
        .iter()
        .map(|key| cache.hash(key) % shards)
        .collect();
    assert_eq!(front.len() as u64, shards);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (5_000, 0), "looking is not counted");
}

#[test]
fn what_has_ended_is_skipped() {
    let clock = HandClock::new(Duration::ZERO);
    let cache: Cache<u64, u64> = Cache::builder().jitter(0.0).env(clock.env()).build().unwrap();
    for key in 0..100 {
        let options = InsertOptions::new().ttl(Duration::from_millis(10 * (key + 1)));
        cache.insert_with(key, key, options.tag(if key % 2 == 0 { "even" } else { "odd" }));
    }
    let mut walk = cache.iter();
    let mut found = vec![walk.next().unwrap().0];
    clock.advance(Duration::from_millis(500));
    cache.invalidate_tag("even");
    cache.remove(&99);
    found.extend(walk.by_ref().map(|(key, _)| key));
    assert_eq!(walk.next(), None, "the end is the end");
    let rest: BTreeSet<u64> = found[1..].iter().copied().collect();
    let expected = (50..99).filter(|key| key % 2 == 1 && *key != found[0]);
    assert!(rest.into_iter().eq(expected), "{found:?}");
    let mut sum = 0;
    cache.for_each(|key, value| sum += key + value);
    assert_eq!(sum, (50..99).filter(|key| key % 2 == 1).map(|key| 2 * key).sum::<u64>());
}

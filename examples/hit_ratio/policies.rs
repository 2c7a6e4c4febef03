//! The crate's policies by name, and a trace replayed under one.

use outgrow::cache::policy::{Adaptive, EvictionPolicy, Lru, S3Fifo, Sieve, WTinyLfu};
use outgrow::cache::{Cache, Error};
use outgrow::env::Env;

/// A policy's name and a cache of a size under it.
pub(crate) type Policy = (&'static str, fn(usize) -> Result<Cache<u64, ()>, Error>);

/// The default first.
pub(crate) const POLICIES: [Policy; 5] = [
    ("adaptive", cache::<Adaptive>),
    ("s3-fifo", cache::<S3Fifo>),
    ("w-tinylfu", cache::<WTinyLfu>),
    ("sieve", cache::<Sieve>),
    ("lru", cache::<Lru>),
];

/// The share of hits, in percent, of a cache that is filled by its misses.
pub(crate) fn ratio(keys: &[u32], cache: &Cache<u64, ()>) -> f64 {
    let mut hits = 0;
    for key in keys {
        let key = u64::from(*key);
        if cache.get(&key).is_some() {
            hits += 1;
        } else {
            let _ = cache.insert(key, ());
        }
    }
    percent(hits, keys)
}

/// So many `hits` among the requests, in percent.
pub(crate) fn percent(hits: u64, keys: &[u32]) -> f64 {
    hits as f64 * 100.0 / keys.len() as f64
}

/// The seed only decides which keys share a shard.
fn cache<P: EvictionPolicy + Default>(capacity: usize) -> Result<Cache<u64, ()>, Error> {
    let env = Env::builder().seed(1).build();
    Cache::builder()
        .capacity(capacity)
        .policy(P::default())
        .env(env)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_hits_what_fits_and_no_more_than_there_is() {
        let keys: Vec<u32> = (0..100).cycle().take(1_000).collect();
        for (name, cache) in POLICIES {
            assert_eq!(ratio(&keys, &cache(100).unwrap()), 90.0, "{name}");
            assert!(ratio(&keys, &cache(50).unwrap()) <= 45.0, "{name}");
        }
    }
}

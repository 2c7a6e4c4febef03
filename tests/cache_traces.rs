//! How often the policies hit on real traces: each as often as when this was written.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test acts as the outside world")]

mod support;

use outgrow::cache::Cache;
use outgrow::cache::policy::{EvictionPolicy, Lru, S3Fifo};
use outgrow::env::Env;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// The keys of a trace in `*.u32.zst`.
fn keys(traces: &Path, name: &str) -> Vec<u32> {
    let file = std::fs::File::open(traces.join(format!("{name}.u32.zst"))).unwrap();
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(file)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
        .chunks_exact(4)
        .map(|key| u32::from_le_bytes(key.try_into().unwrap()))
        .collect()
}

/// The share of hits, in percent, of a cache that is filled by its misses.
fn replay(keys: &[u32], policy: impl EvictionPolicy, capacity: usize) -> f64 {
    let env = Env::builder().seed(1).build();
    let cache = Cache::builder()
        .capacity(capacity)
        .policy(policy)
        .env(env)
        .build()
        .unwrap();
    for key in keys {
        if cache.get(key).is_none() {
            cache.insert(*key, ());
        }
    }
    let stats = cache.stats();
    assert_eq!(stats.hits + stats.misses, keys.len() as u64);
    assert!(stats.entries <= capacity as u64);
    stats.hit_ratio() * 100.0
}

/// By trace and capacity in percent of its distinct keys, the hit ratio in percent under S3-FIFO and under LRU.
const REACHED: [(&str, usize, f64, f64); 14] = [
    ("arc_oltp", 1, 46.38, 41.61),
    ("arc_oltp", 5, 61.97, 60.08),
    ("arc_oltp", 20, 72.54, 71.96),
    ("cache2k_web07", 1, 43.76, 39.15),
    ("cache2k_web07", 5, 54.20, 50.57),
    ("cache2k_web07", 20, 62.55, 61.02),
    ("lirs_multi3", 10, 45.23, 35.52),
    ("lirs_multi3", 25, 55.11, 44.53),
    ("lirs_ps", 10, 50.62, 16.33),
    ("lirs_ps", 25, 52.59, 48.55),
    ("lirs_sprite", 10, 85.91, 86.37),
    ("lirs_sprite", 50, 93.85, 94.26),
    // A loop over more keys than fit is the worst case of both: known, and exact.
    ("lirs_loop", 50, 0.0, 0.0),
    ("lirs_zigzag", 25, 4.17, 23.99),
];
/// How far a ratio may move by the choice of shards alone.
const SLACK: f64 = 0.3;

#[test]
fn policies_hit_as_often_as_they_did() {
    let Some(traces) = support::need("traces") else {
        return;
    };
    for (name, percent, s3fifo, lru) in REACHED {
        let keys = keys(&traces, name);
        let distinct = keys.iter().collect::<BTreeSet<_>>().len();
        let capacity = distinct * percent / 100;
        let found = [
            ("S3-FIFO", s3fifo, replay(&keys, S3Fifo::default(), capacity)),
            ("LRU", lru, replay(&keys, Lru::default(), capacity)),
        ];
        for (policy, reached, ratio) in found {
            assert!(
                (ratio - reached).abs() < SLACK,
                "{name} at {percent} % under {policy}: {ratio:.2} % instead of {reached} %"
            );
        }
    }
}

//! What does a hit cost, and a read-mostly mix at a tenth of the keys, on one thread and on two? Peers: moka, quick_cache.
//!
//! Keys and values are u64, asked for by Zipf's law with exponent 0.99 over a million keys. `hits` finds every key
//! resident; `mixed` reads 95 times and inserts 5 times, with room for a tenth of the keys. A time is the wall time by
//! the operations of all threads: with two threads, half of it would be perfect.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_methods, reason = "real threads and real time are the subject")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outgrow::cache::{Cache, Policy};
use outgrow::env::Rng;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u64 = 1_000_000;
const EXPONENT: f64 = 0.99;
/// Draws prepared for each thread; a power of two.
const DRAWS: usize = 1 << 20;
/// Every key fits, with a third to spare: a shard may get more than its share.
const ROOMY: usize = 1_300_000;
const TENTH: usize = 100_000;
/// One operation in so many is an insert.
const INSERT_EVERY: usize = 20;

/// A cache as the workloads use it.
trait Remember: Sync {
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64, value: u64);
}

impl Remember for Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        Cache::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        Cache::insert(self, key, value);
    }
}

/// Draws keys by Zipf's law: the method of Gray and others (SIGMOD 1994), then scattered over the numbers.
fn draws(seed: u64) -> Vec<u64> {
    let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-EXPONENT)).sum::<f64>();
    let (n, all) = (KEYS as f64, zeta(KEYS));
    let alpha = 1.0 / (1.0 - EXPONENT);
    let eta = (1.0 - (2.0 / n).powf(1.0 - EXPONENT)) / (1.0 - zeta(2) / all);
    let mut rng = Rng::seeded(seed);
    let draw = || {
        let u = rng.unit();
        let rank = match u * all {
            below if below < 1.0 => 0,
            below if below < 1.0 + 0.5_f64.powf(EXPONENT) => 1,
            _ => (n * (eta * u - eta + 1.0).powf(alpha)) as u64,
        };
        scatter(rank.min(KEYS - 1))
    };
    std::iter::repeat_with(draw).take(DRAWS).collect()
}

/// A number of its own for each rank, so that popular keys are not neighbours.
fn scatter(rank: u64) -> u64 {
    rank.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The wall time of `operations` in all, split among threads that start together.
fn time(cache: &impl Remember, draws: &[Vec<u64>], operations: u64, insert: bool) -> Duration {
    let each = operations.div_ceil(draws.len() as u64) as usize;
    let start = Barrier::new(draws.len() + 1);
    thread::scope(|scope| {
        let run = |keys: &Vec<u64>| {
            start.wait();
            for i in 0..each {
                let key = keys[i & (DRAWS - 1)];
                if insert && i % INSERT_EVERY == 0 {
                    cache.insert(key, key);
                } else {
                    black_box(cache.get(key));
                }
            }
        };
        let threads: Vec<_> = draws.iter().map(|keys| scope.spawn(move || run(keys))).collect();
        start.wait();
        let began = Instant::now();
        for thread in threads {
            thread.join().expect("no operation panics");
        }
        began.elapsed()
    })
}

/// One workload for one cache, on one thread and on two.
fn workload<C: Remember>(criterion: &mut Criterion, name: &str, who: &str, new: fn(usize) -> C) {
    let hits = name.starts_with("hits");
    let all: [Vec<u64>; 2] = [draws(1), draws(2)];
    let cache = new(if hits { ROOMY } else { TENTH });
    let resident = if hits { KEYS } else { 0 };
    (0..resident).map(scatter).for_each(|key| cache.insert(key, key));
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("cache/{name}_{threads}t"));
        group.throughput(Throughput::Elements(1));
        let draws = &all[..threads];
        time(&cache, draws, 4 * DRAWS as u64, !hits);
        group.bench_function(who, |b| {
            b.iter_custom(|operations| time(&cache, draws, operations, !hits));
        });
    }
}

fn ours(policy: Policy, capacity: usize) -> Cache<u64, u64> {
    let cache = Cache::builder().capacity(capacity).policy(policy).build();
    cache.expect("the options are in bounds")
}

fn caches(criterion: &mut Criterion) {
    for name in ["hits", "mixed"] {
        workload(criterion, name, "ours", |capacity| ours(Policy::S3Fifo, capacity));
        workload(criterion, name, "ours_lru", |capacity| ours(Policy::Lru, capacity));
        #[cfg(peers)]
        {
            workload(criterion, name, "moka", |capacity| {
                moka::sync::Cache::<u64, u64>::new(capacity as u64)
            });
            workload(
                criterion,
                name,
                "quick_cache",
                quick_cache::sync::Cache::<u64, u64>::new,
            );
        }
    }
}

criterion_group!(benches, caches);
criterion_main!(benches);

#[cfg(peers)]
mod peers {
    use super::Remember;

    impl Remember for moka::sync::Cache<u64, u64> {
        fn get(&self, key: u64) -> Option<u64> {
            moka::sync::Cache::get(self, &key)
        }

        fn insert(&self, key: u64, value: u64) {
            moka::sync::Cache::insert(self, key, value);
        }
    }

    impl Remember for quick_cache::sync::Cache<u64, u64> {
        fn get(&self, key: u64) -> Option<u64> {
            quick_cache::sync::Cache::get(self, &key)
        }

        fn insert(&self, key: u64, value: u64) {
            quick_cache::sync::Cache::insert(self, key, value);
        }
    }
}

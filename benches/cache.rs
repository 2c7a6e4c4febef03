//! What do a hit, mixes of gets and inserts, and a read-through cost, on one thread and on two? Peers: see benches/caches.
//!
//! Keys and values are u64, asked for by Zipf's law with exponent 0.99 over a million keys.
//! - `hits` finds every key resident, with room to spare; `ours_ttl` does so where entries have a time to live, and
//!   `ours_pinned` borrows a hundred values under each pin instead of cloning one at a time;
//! - `mixed95` gets 95 times and inserts 5 times, and `mixed75` 75 and 25 times, with room for a tenth of the keys;
//! - `read_through` inserts what a get did not find, with room for a tenth of the keys;
//! - `invalidate_tag` makes a million entries that carry a tag disappear.
//!
//! A time is the wall time by the operations of all threads: with two threads, half of it would be perfect. Who is
//! better at keeping what is asked for again has less to insert in `read_through`: the shares found are printed below.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_methods, reason = "real threads and real time are the subject")]
#![allow(clippy::print_stdout, reason = "what was found stands below the table")]

mod caches;

use caches::{Remember, Visit, ours, visit_peers};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use outgrow::cache::{Cache, InsertOptions};
use outgrow::env::Rng;
use std::cell::{Cell, LazyCell};
use std::hint::black_box;
use std::sync::{Barrier, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u64 = 1_000_000;
const EXPONENT: f64 = 0.99;
/// Draws prepared for each thread, and how many a thread takes at a time: a whole number of every mix's rounds.
const DRAWS: usize = 1_000_000;
const BATCH: usize = 100;
/// Every key fits, with a third to spare: a shard may get more than its share.
const ROOMY: usize = 1_300_000;
const TENTH: usize = 100_000;
/// Longer than any run of the bench.
const TTL: Duration = Duration::from_secs(3_600);

/// What the threads do with a cache.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    /// Only gets.
    Hits,
    /// One operation in so many is an insert, the others are gets.
    Inserts { every: usize },
    /// A get, and an insert where it found nothing.
    ReadThrough,
}

impl Mix {
    fn run(self, cache: &impl Remember, keys: &[u64]) {
        match self {
            Mix::Hits => cache.get_each(keys),
            Mix::Inserts { every } => {
                for keys in keys.chunks(every) {
                    cache.insert(keys[0], keys[0]);
                    cache.get_each(&keys[1..]);
                }
            }
            Mix::ReadThrough => {
                for &key in keys {
                    if black_box(cache.get(key)).is_none() {
                        cache.insert(key, key);
                    }
                }
            }
        }
    }
}

/// The draws of the two threads.
static DRAWN: LazyLock<[Vec<u64>; 2]> = LazyLock::new(|| [draws(1), draws(2)]);

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

/// The wall time of `operations` in all, split among threads that start together. Each goes on at `from` in its draws,
/// so that many short samples see as much of the law's tail as a few long ones.
fn time(cache: &impl Remember, threads: usize, from: usize, operations: u64, mix: Mix) -> Duration {
    let each = operations.div_ceil(threads as u64) as usize;
    let start = Barrier::new(threads);
    let run = |draws: &[u64]| {
        start.wait();
        let began = Instant::now();
        for done in (0..each).step_by(BATCH) {
            let at = (from + done) % DRAWS;
            mix.run(cache, &draws[at..at + BATCH.min(each - done)]);
        }
        (began, Instant::now())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = DRAWN[..threads]
            .iter()
            .map(|draws| scope.spawn(|| run(draws)))
            .collect();
        let ran = threads
            .into_iter()
            .map(|thread| thread.join().expect("no operation panics"));
        // Told by the threads themselves: this one may get no core before one of them has done its share.
        let (began, ended): (Vec<_>, Vec<_>) = ran.unzip();
        let began = began.into_iter().min().expect("there is a thread");
        ended.into_iter().max().expect("there is a thread") - began
    })
}

/// One workload, and what it found in the caches that it met.
struct Workload<'a> {
    criterion: &'a mut Criterion,
    name: &'static str,
    mix: Mix,
    found: Vec<String>,
}

impl Workload<'_> {
    /// A cache in the state that the workload finds it in, and how many of a million gets find their key.
    fn prepare<C: Remember>(mix: Mix, new: impl Fn(usize) -> C) -> (C, usize) {
        if mix == Mix::Hits {
            let cache = new(ROOMY);
            (0..KEYS).map(scatter).for_each(|key| cache.insert(key, key));
            let found = (0..KEYS).map(scatter).filter(|&key| cache.get(key).is_some());
            let found = found.count();
            mix.run(&cache, &DRAWN[0]);
            return (cache, found);
        }
        let cache = new(TENTH);
        Mix::ReadThrough.run(&cache, &DRAWN[1]);
        mix.run(&cache, &DRAWN[0]);
        let found = DRAWN[1].iter().filter(|&&key| cache.get(key).is_some());
        let found = found.count();
        (cache, found)
    }
}

impl Visit for Workload<'_> {
    fn visit<C: Remember>(&mut self, who: &str, new: impl Fn(usize) -> C) {
        let mix = self.mix;
        let found = Cell::new(None);
        // Built when first measured, so never where a filter leaves it out.
        let cache = LazyCell::new(|| {
            let (cache, count) = Self::prepare(mix, &new);
            found.set(Some(count));
            cache
        });
        for threads in [1, 2] {
            let name = format!("cache/{}_{threads}t", self.name);
            let mut group = self.criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(1));
            group.sampling_mode(SamplingMode::Flat);
            let from = Cell::new(0);
            group.bench_function(who, |b| {
                // Before the clock that sizes the samples starts.
                let cache = &*cache;
                b.iter_custom(|operations| {
                    let took = time(cache, threads, from.get(), operations, mix);
                    let batches = (operations as usize / threads).div_ceil(BATCH);
                    from.set((from.get() + batches * BATCH) % DRAWS);
                    took
                });
            });
        }
        if let Some(count) = found.get() {
            let all = KEYS as usize;
            assert!(
                mix != Mix::Hits || !who.starts_with("ours") || count == all,
                "{who} holds {count} keys"
            );
            self.found
                .push(format!("{who} {:.2} %", count as f64 / all as f64 * 100.0));
        }
    }
}

fn ours_ttl(capacity: usize) -> Cache<u64, u64> {
    let cache = Cache::builder().capacity(capacity).ttl(TTL).build();
    cache.expect("the options are in bounds")
}

/// Ours where a batch of gets shares a pin.
struct Pinned(Cache<u64, u64>);

impl Remember for Pinned {
    fn get(&self, key: u64) -> Option<u64> {
        self.0.pin().get(&key).copied()
    }

    fn insert(&self, key: u64, value: u64) {
        self.0.insert(key, value);
    }

    fn held(&self) -> usize {
        self.0.len()
    }

    fn get_each(&self, keys: &[u64]) {
        let pin = self.0.pin();
        for key in keys {
            black_box(pin.get(key).copied());
        }
    }
}

fn workloads(criterion: &mut Criterion) {
    let mixes = [
        ("hits", Mix::Hits),
        ("mixed95", Mix::Inserts { every: 20 }),
        ("mixed75", Mix::Inserts { every: 4 }),
        ("read_through", Mix::ReadThrough),
    ];
    for (name, mix) in mixes {
        let mut workload = Workload {
            criterion: &mut *criterion,
            name,
            mix,
            found: Vec::new(),
        };
        workload.visit("ours", ours);
        if mix == Mix::Hits {
            workload.visit("ours_ttl", ours_ttl);
            workload.visit("ours_pinned", |capacity| Pinned(ours(capacity)));
        }
        visit_peers(&mut workload);
        if !workload.found.is_empty() {
            let of = if mix == Mix::Hits {
                "keys resident"
            } else {
                "gets that find their key"
            };
            println!("* {name}, {of}: {}", workload.found.join(", "));
        }
    }
}

/// The first call meets a million entries that carry the tag. Each later one meets one that was written since, so that
/// it has something to do, and a million that earlier ones made disappear.
fn invalidate_tag(criterion: &mut Criterion) {
    let tagged = || InsertOptions::new().tag("all");
    let cache = LazyCell::new(|| {
        let cache = ours(ROOMY);
        for key in (0..KEYS).map(scatter) {
            cache.insert_with(key, key, tagged());
        }
        assert_eq!(cache.get(&scatter(7)), Some(scatter(7)));
        cache.invalidate_tag("all");
        assert_eq!((0..KEYS).find(|&key| cache.get(&scatter(key)).is_some()), None);
        cache
    });
    let mut group = criterion.benchmark_group("cache/invalidate_tag");
    group.bench_function("ours", |b| {
        let cache = &*cache;
        b.iter_custom(|calls| {
            let mut took = Duration::ZERO;
            for call in 0..calls {
                let key = scatter(call % KEYS);
                cache.insert_with(key, key, tagged());
                let began = Instant::now();
                cache.invalidate_tag("all");
                took += began.elapsed();
            }
            took
        });
    });
}

/// Many short samples lose less to a slow spell of the machine than one long one, and rounds come on top.
fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .nresamples(2_000)
}

criterion_group! {
    name = benches;
    config = settings();
    targets = workloads, invalidate_tag
}
criterion_main!(benches);

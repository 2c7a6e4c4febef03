//! Everything that can be done to a cache, by several threads at once, with values that notice when they are torn, read
//! after they were dropped, or dropped twice. It runs for a moment here, and for minutes where proofs may take long;
//! `./test.sh` also runs it under AddressSanitizer, which sees what a value cannot:
//!
//! `RUSTFLAGS=-Zsanitizer=address cargo +nightly test --release --test cache_stress --target x86_64-unknown-linux-gnu`
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "real threads are the subject"
)]

mod support;

use futures::executor::block_on;
use outgrow::cache::policy::{Adaptive, EvictionPolicy, Lru, S3Fifo, Sieve, WTinyLfu};
use outgrow::cache::{Cache, InsertOptions, Op, Removal};
use outgrow::env::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: u64 = 4;
/// Operations of a thread in one round.
const STEPS: usize = 4_000;
const TAGS: [&str; 3] = ["red", "green", "blue"];

/// How many values were made, and how many dropped.
#[derive(Debug, Default)]
struct Ledger {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

/// A value that can tell whether it is whole, and whose it is.
struct Value {
    key: u64,
    words: Box<[u64]>,
    sum: u64,
    ledger: Arc<Ledger>,
}

impl Value {
    fn new(key: u64, nonce: u64, ledger: &Arc<Ledger>) -> Value {
        ledger.made.fetch_add(1, Ordering::Relaxed);
        let words: Box<[u64]> = (0..1 + nonce % 9).map(|n| nonce.wrapping_mul(n | 1)).collect();
        Value {
            key,
            sum: sum(key, &words),
            words,
            ledger: Arc::clone(ledger),
        }
    }

    #[track_caller]
    fn check(&self, key: &str) {
        assert_eq!(self.sum, sum(self.key, &self.words), "torn, or dropped: {key}");
        assert_eq!(name(self.key), key, "another key's value");
    }
}

fn sum(key: u64, words: &[u64]) -> u64 {
    words.iter().fold(key ^ 0x5eed, |sum, word| sum.rotate_left(7) ^ word)
}

/// Keys own memory too.
fn name(key: u64) -> String {
    format!("the key of the number {key}")
}

impl Clone for Value {
    fn clone(&self) -> Value {
        assert_eq!(self.sum, sum(self.key, &self.words), "torn, or dropped");
        self.ledger.made.fetch_add(1, Ordering::Relaxed);
        Value {
            key: self.key,
            words: self.words.clone(),
            sum: self.sum,
            ledger: Arc::clone(&self.ledger),
        }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(self.sum, sum(self.key, &self.words), "dropped twice, or torn");
        // Whoever still reads it sees that it is gone.
        self.words.fill(0xdead);
        self.sum = !sum(self.key, &self.words);
        self.ledger.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A cache of one of many kinds.
struct Stage {
    cache: Cache<String, Value>,
    keys: u64,
    capacity: usize,
    weight: Option<u64>,
    ledger: Arc<Ledger>,
}

impl Stage {
    fn new(rng: &mut Rng) -> Stage {
        match rng.below(5) {
            0 => Stage::with(Adaptive::default(), rng),
            1 => Stage::with(S3Fifo::default(), rng),
            2 => Stage::with(Sieve::default(), rng),
            3 => Stage::with(WTinyLfu::default(), rng),
            _ => Stage::with(Lru::default(), rng),
        }
    }

    fn with(policy: impl EvictionPolicy, rng: &mut Rng) -> Stage {
        // One shard or several, and one that is nearly always full.
        let capacity = [3, 100, 1_000, 20_000][rng.below(4) as usize];
        let weight = (rng.below(2) == 0).then_some(3 * capacity as u64);
        let mut builder = Cache::builder().capacity(capacity).policy(policy);
        if let Some(weight) = weight {
            let words = |_: &String, value: &Value| value.words.len() as u64;
            builder = builder.weight_capacity(weight).weigher(words);
        }
        if rng.below(3) == 0 {
            builder = builder
                .ttl(Duration::from_millis(2))
                .stale_if_error(Duration::from_millis(2));
        }
        if rng.below(3) == 0 {
            builder = builder.idle(Duration::from_millis(3));
        }
        if rng.below(2) == 0 {
            let hear = |key: &String, value: &Value, _: Removal| value.check(key);
            builder = builder.on_removal(hear);
        }
        Stage {
            cache: builder.build().unwrap(),
            keys: 4 * capacity.min(2_000) as u64,
            capacity,
            weight,
            ledger: Arc::default(),
        }
    }

    fn step(&self, rng: &mut Rng) {
        let Stage { cache, ledger, .. } = self;
        let key = rng.below(self.keys).min(rng.below(self.keys));
        let name = name(key);
        let name = name.as_str();
        let new = |rng: &mut Rng| Value::new(key, rng.next_u64(), ledger);
        let check = |value: &Value| value.check(name);
        match rng.below(100) {
            0..25 => drop(cache.get(name).inspect(check)),
            25..40 => drop(cache.with(name, check)),
            40..60 => drop(cache.insert(name.into(), new(rng))),
            60..66 => drop(cache.insert_with(name.into(), new(rng), options(rng))),
            66..72 => drop(cache.remove(name).inspect(check)),
            72..75 => drop(cache.invalidate(name)),
            75..80 => self.read_under_a_pin(rng),
            80..85 => {
                let made = new(rng);
                let loaded = block_on(cache.get_or_load(name, |_| async { Ok::<_, ()>(made) }));
                // It may have waited for a refresh, which fails.
                drop(loaded.inspect(check));
            }
            85..88 => {
                let made = new(rng);
                let now = cache.compute(name.into(), |old| {
                    old.inspect(|old| check(old));
                    if old.is_some_and(|old| old.words.len() == 1) {
                        Op::Remove
                    } else {
                        Op::Put(made.clone())
                    }
                });
                drop(now.inspect(check));
            }
            88..91 => check(&cache.get_or_insert_with(name, || new(rng))),
            91 => drop(cache.evict_one()),
            92 => cache.invalidate_tag(TAGS[rng.below(3) as usize]),
            93 => cache.tidy(),
            94..97 => self.seldom(rng),
            _ => drop(block_on(cache.refresh(name, |_| async { Err::<Value, _>(()) }))),
        }
        assert!(cache.len() <= self.capacity);
        assert!(self.weight.is_none_or(|most| cache.weight() <= most));
    }

    fn read_under_a_pin(&self, rng: &mut Rng) {
        let keys: Vec<u64> = (0..8).map(|_| rng.below(self.keys)).collect();
        let names: Vec<String> = keys.iter().copied().map(name).collect();
        let pinned = self.cache.pin();
        let read: Vec<_> = names.iter().map(|name| (name, pinned.get(name))).collect();
        // What was read stays, whatever becomes of the entries.
        self.cache.remove(&names[0]);
        let new = Value::new(keys[1], rng.next_u64(), &self.ledger);
        self.cache.insert(names[1].clone(), new);
        for (name, value) in read {
            value.into_iter().for_each(|value| value.check(name));
        }
    }

    /// What looks at all entries.
    fn seldom(&self, rng: &mut Rng) {
        let cache = &self.cache;
        match rng.below(64) {
            0..3 => cache.clear(),
            3..6 => cache.retain(|key, value| {
                value.check(key);
                value.words.len() > 2
            }),
            6..9 => cache.iter().for_each(|(key, value)| value.check(&key)),
            9..12 => cache.for_each(|key, value| value.check(key)),
            12..15 => {
                cache.resize((self.capacity / 3).max(1)).unwrap();
                cache.resize(self.capacity).unwrap();
            }
            15 if self.weight.is_some() => {
                cache.resize_weight(self.capacity as u64).unwrap();
                cache.resize_weight(3 * self.capacity as u64).unwrap();
            }
            _ => drop(cache.stats()),
        }
    }
}

fn options(rng: &mut Rng) -> InsertOptions {
    let mut options = InsertOptions::new();
    if rng.below(2) == 0 {
        options = options.ttl(Duration::from_micros(rng.below(5_000)));
    }
    if rng.below(3) == 0 {
        options = options.idle(Duration::from_micros(500 + rng.below(5_000)));
    }
    for tag in TAGS {
        if rng.below(3) == 0 {
            options = options.tag(tag);
        }
    }
    options
}

#[test]
fn values_stay_whole_and_drop_once() {
    let time = if support::long() { 120 } else { 2 };
    let (start, seeds) = (Instant::now(), support::seeds(u64::MAX));
    let mut rounds = 0;
    for seed in seeds {
        round(seed);
        rounds += 1;
        if start.elapsed() > Duration::from_secs(time) {
            break;
        }
    }
    support::report("cache stress", "rounds", rounds);
}

fn round(seed: u64) {
    let mut rng = Rng::seeded(seed);
    let stage = Stage::new(&mut rng);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (stage, mut rng) = (&stage, Rng::seeded(rng.next_u64()));
                scope.spawn(move || (0..STEPS).for_each(|_| stage.step(&mut rng)))
            })
            .collect();
        for thread in threads {
            assert!(thread.join().is_ok(), "seed {seed} failed");
        }
    });
    let Stage { cache, ledger, .. } = stage;
    let mut there = 0;
    cache.for_each(|key, value| {
        value.check(key);
        there += 1;
    });
    assert!(there <= cache.len());
    cache.tidy();
    drop(cache);
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert!(count(&ledger.made) > STEPS);
    assert_eq!(count(&ledger.dropped), count(&ledger.made), "seed {seed}");
}

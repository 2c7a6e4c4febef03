//! What a cache asks the allocator for: nothing at steady state, and few bytes for each entry. A program of its own,
//! since it counts the bytes of the whole process.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

mod support;

use outgrow::cache::{Cache, InsertOptions};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use support::counting::{Counting, asked, live};
use support::report;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Held by the test that runs: the others' bytes would be counted as its own, and what one thread retires another may
/// free.
static ALONE: Mutex<()> = Mutex::new(());

const CAPACITY: u64 = 20_000;
const CHURN: u64 = 4;

/// How entries come by their time to live.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ttl {
    Never,
    Cache,
    Each,
}

fn cache(capacity: u64, ttl: Ttl) -> Cache<u64, u64> {
    let builder = Cache::builder().capacity(capacity as usize);
    let builder = match ttl {
        Ttl::Cache => builder.ttl(Duration::from_secs(3_600)),
        Ttl::Never | Ttl::Each => builder,
    };
    builder.build().unwrap()
}

/// A number of its own for each, so that keys are no neighbours.
fn key(i: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn insert(cache: &Cache<u64, u64>, i: u64, ttl: Ttl) {
    match ttl {
        Ttl::Each => {
            let ttl = Duration::from_secs(60 + i * 7 % 3_540);
            cache.insert_with(key(i), i, InsertOptions::new().ttl(ttl));
        }
        Ttl::Never | Ttl::Cache => {
            cache.insert(key(i), i);
        }
    }
}

/// What a service does with a cache all day, `rounds` times; `next` numbers the keys that are new.
fn use_it(cache: &Cache<u64, u64>, ttl: Ttl, next: &mut u64, rounds: u64) -> [u64; 4] {
    let mut counts = [0; 4];
    for _ in 0..rounds {
        let new = *next;
        *next += 1;
        // Each takes another's place, once the cache is full.
        counts[0] += asked(|| insert(cache, new, ttl));
        counts[1] += asked(|| assert_eq!(black_box(cache.get(&key(new))), Some(new)));
        counts[2] += asked(|| assert_eq!(black_box(cache.get(&key(u64::MAX / 2 + new))), None));
        counts[3] += asked(|| insert(cache, new, ttl));
    }
    counts
}

/// Removals, each with an insert of another key, which is in another shard as a rule.
fn exchange(cache: &Cache<u64, u64>, ttl: Ttl, next: &mut u64, rounds: u64) -> u64 {
    let exchange_one = |new| {
        insert(cache, new, ttl);
        asked(|| {
            assert_eq!(cache.remove(&key(new)), Some(new));
            insert(cache, new + 1, ttl);
        })
    };
    let first = *next;
    *next += 2 * rounds;
    (first..*next).step_by(2).map(exchange_one).sum()
}

fn nothing_is_allocated(ttl: Ttl) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = cache(CAPACITY, ttl);
    let mut next = 0;
    use_it(&cache, ttl, &mut next, CHURN * CAPACITY);
    let full = cache.len() as u64;
    assert!(full > CAPACITY / 100 * 95, "{full} entries are not a full cache");

    let [new, hit, miss, update] = use_it(&cache, ttl, &mut next, 4 * CAPACITY);
    assert_eq!((hit, miss), (0, 0), "at hits and misses");
    assert_eq!(
        (new, update),
        (0, 0),
        "at inserts of new keys, and of keys that are there"
    );

    // Now the shards' shares change: one that comes to hold more entries than ever takes another chunk of slots.
    let few = CAPACITY / 1_000;
    let again = exchange(&cache, ttl, &mut next, CAPACITY);
    assert!(again <= few, "{again} at removals, each with an insert");
}

#[test]
fn the_counter_counts() {
    assert_eq!(asked(|| drop(black_box(Box::new(1)))), 1);
    assert_eq!(asked(|| drop(black_box(Vec::<u8>::with_capacity(1)))), 1);
}

#[test]
fn nothing_is_allocated_at_steady_state() {
    nothing_is_allocated(Ttl::Never);
}

#[test]
fn nothing_is_allocated_with_a_time_to_live() {
    nothing_is_allocated(Ttl::Cache);
}

#[test]
fn nothing_is_allocated_with_a_time_to_live_for_each_entry() {
    nothing_is_allocated(Ttl::Each);
}

/// The bytes for each of a million entries, after four times as many others have come and gone.
fn bytes_each(ttl: Ttl) -> f64 {
    const ENTRIES: u64 = 1_000_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = live();
    let cache = cache(ENTRIES, ttl);
    (0..(1 + CHURN) * ENTRIES).for_each(|i| insert(&cache, i, ttl));
    let held = cache.len();
    let bytes = live() - before;
    report(
        "cache_bytes",
        &format!("bytes for {ENTRIES} entries, TTL {ttl:?}"),
        bytes as u64,
    );
    bytes as f64 / held as f64
}

#[test]
fn an_entry_takes_at_most_forty_bytes() {
    let each = bytes_each(Ttl::Never);
    assert!((16.0..=40.0).contains(&each), "{each:.2} bytes an entry");
}

#[test]
fn an_entry_with_a_time_to_live_of_its_own_takes_at_most_forty_six_bytes() {
    let each = bytes_each(Ttl::Each);
    assert!((16.0..=46.0).contains(&each), "{each:.2} bytes an entry");
}

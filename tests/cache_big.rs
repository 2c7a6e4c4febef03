//! A cache of ten million entries is built, serves, shrinks and gives its memory back. A program of its own, since it
//! counts the bytes of the whole process.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

mod support;

use outgrow::cache::Cache;
use support::counting::{Counting, forget_peak, live, peak};
use support::report;

#[global_allocator]
static COUNTING: Counting = Counting;

const ENTRIES: u64 = 10_000_000;
/// What a thread and the process keep for good after their first use of a cache, and the test harness in between.
const KEPT: usize = 64 << 10;

/// Keys that are no neighbours, each with a value of its own.
fn entry(i: u64) -> (u64, u64) {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15), !i)
}

fn insert(cache: &Cache<u64, u64>, numbers: std::ops::Range<u64>) {
    for (key, value) in numbers.map(entry) {
        cache.insert(key, value);
    }
}

/// How many of the entries are there, each with its own value.
fn found(cache: &Cache<u64, u64>, numbers: std::ops::Range<u64>) -> u64 {
    let mut count = 0;
    for (key, value) in numbers.map(entry) {
        if let Some(found) = cache.get(&key) {
            assert_eq!(found, value);
            count += 1;
        }
    }
    count
}

#[test]
fn ten_million_entries_come_and_go() {
    let start = live();
    forget_peak();
    let cache = Cache::builder().capacity(ENTRIES as usize).build().unwrap();

    insert(&cache, 0..ENTRIES);
    // Shards fill unevenly, so a few entries may have had to make room already.
    let held = cache.len() as u64;
    assert!((ENTRIES / 100 * 99..=ENTRIES).contains(&held), "{held} entries");
    assert_eq!(found(&cache, 0..ENTRIES), held);
    let full = live() - start;

    // As many again: each takes the place of another.
    insert(&cache, ENTRIES..2 * ENTRIES);
    let held = cache.len() as u64;
    assert!((ENTRIES / 100 * 99..=ENTRIES).contains(&held), "{held} entries");
    assert_eq!(found(&cache, 0..2 * ENTRIES), held);

    // It shrinks to a tenth, in memory too, and serves on.
    cache.resize(ENTRIES as usize / 10);
    let held = cache.len() as u64;
    assert!(held <= ENTRIES / 10, "{held} entries");
    assert!(held > ENTRIES / 100 * 9, "{held} entries");
    assert_eq!(found(&cache, 0..2 * ENTRIES), held);
    insert(&cache, 0..ENTRIES / 100);
    assert!(cache.len() as u64 <= ENTRIES / 10);
    assert!(found(&cache, 0..ENTRIES / 100) > 0);
    let shrunk = live() - start;
    assert!(shrunk < full / 2, "{shrunk} bytes after it shrank, of {full}");

    cache.clear();
    assert!(cache.is_empty());
    assert_eq!(found(&cache, 0..ENTRIES / 10), 0);
    insert(&cache, 0..ENTRIES / 100);
    assert_eq!(found(&cache, 0..ENTRIES / 100), ENTRIES / 100);
    let most = peak() - start;

    drop(cache);
    let left = live().saturating_sub(start);
    report("cache_big", "entries", ENTRIES);
    report("cache_big", "bytes when full", full as u64);
    report("cache_big", "bytes at most", most as u64);
    report("cache_big", "bytes when shrunk to a tenth", shrunk as u64);
    assert!(left <= KEPT, "{left} bytes are still out");
}

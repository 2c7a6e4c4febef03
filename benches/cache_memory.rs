//! How many bytes does an entry take, full and after churn? Peers: see benches/caches.
//!
//! Keys and values are u64. `full` follows the insertion of as many keys as the cache has room for; `churned` that of
//! four times as many others. The bytes are those that the program asked the allocator for, divided by the entries held;
//! what the allocator adds to each piece comes on top, so many small pieces cost more than they show here.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

mod caches;
#[path = "../tests/support/counting.rs"]
mod counting;

use caches::{Remember, Visit, ours, visit_peers};
use outgrow::cache::{Cache, InsertOptions};
use std::time::Duration;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

const CAPACITIES: [usize; 2] = [100_000, 1_000_000];
const CHURN: usize = 4;

fn main() {
    println!("| who | capacity | entries, full | bytes each | entries, churned | bytes each |");
    println!("|---|---|---|---|---|---|");
    for capacity in CAPACITIES {
        let mut table = Table { capacity };
        table.visit("ours", ours);
        table.visit("ours_ttl_each", |capacity| EachExpires(ours(capacity)));
        visit_peers(&mut table);
    }
}

/// Prints a row for each cache that it meets.
struct Table {
    capacity: usize,
}

impl Visit for Table {
    fn visit<C: Remember>(&mut self, who: &str, new: impl Fn(usize) -> C) {
        let before = counting::live();
        let cache = new(self.capacity);
        let mut keys = (0..).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut insert = |count: usize| {
            keys.by_ref().take(count).for_each(|key| cache.insert(key, key));
            let held = cache.held();
            (held, (counting::live() - before) as f64 / held as f64)
        };
        let (full, full_bytes) = insert(self.capacity);
        // A map keeps all: churn would only show it larger.
        let churned = match who.starts_with("dashmap") {
            true => "| | |".to_owned(),
            false => {
                let (held, bytes) = insert(CHURN * self.capacity);
                format!("| {held} | {bytes:.1} |")
            }
        };
        println!("| {who} | {} | {full} | {full_bytes:.1} {churned}", self.capacity);
    }
}

/// Ours where each entry has a time to live of its own, from a minute to an hour.
struct EachExpires(Cache<u64, u64>);

impl Remember for EachExpires {
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }

    fn insert(&self, key: u64, value: u64) {
        let ttl = Duration::from_secs(60 + (key >> 32) % 3_540);
        self.0.insert_with(key, value, InsertOptions::new().ttl(ttl));
    }

    fn held(&self) -> usize {
        self.0.len()
    }
}

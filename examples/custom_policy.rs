//! An eviction policy of one's own: 2Q (Johnson and Shasha, VLDB 1994), in its simple form.
//!
//! Newcomers queue up in a quarter of the cache. Who is asked for after it has left that queue is worth keeping, and gets
//! a place among the others, which are in order of use. So a scan goes by in the queue.
//!
//! `cargo run --release --example custom_policy`
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use outgrow::cache::Cache;
use outgrow::cache::policy::{Entries, EvictionOrder, EvictionPolicy, HitCost, Lru};
use std::collections::{BTreeSet, VecDeque};

/// What the cache is given.
#[derive(Debug, Default)]
struct TwoQueues;

impl EvictionPolicy for TwoQueues {
    fn hit_cost(&self) -> HitCost {
        HitCost::Lock // The order of use changes at a hit.
    }

    fn orders(&self, shards: usize, _capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        (0..shards).map(|_| Box::<Order>::default() as _).collect()
    }
}

/// What it keeps for each shard: slots, the oldest first. Plain lists will do for a demonstration.
#[derive(Debug, Default)]
struct Order {
    newcomers: VecDeque<u32>,
    used: VecDeque<u32>,
    /// Hashes of the newcomers that left last, as many as there are entries.
    left: VecDeque<u64>,
    known: BTreeSet<u64>,
}

impl EvictionOrder for Order {
    fn admit(&mut self, slot: u32, hash: u64) {
        match self.known.remove(&hash) {
            true => self.used.push_back(slot),
            false => self.newcomers.push_back(slot),
        }
    }

    fn touch(&mut self, slot: u32, _hash: u64) {
        if let Some(at) = self.used.iter().position(|other| *other == slot) {
            self.used.remove(at);
            self.used.push_back(slot);
        }
    }

    fn victim(&mut self, entries: &dyn Entries) -> u32 {
        let all = self.newcomers.len() + self.used.len();
        let queue = match self.newcomers.len() > all / 4 || self.used.is_empty() {
            true => &mut self.newcomers,
            false => &mut self.used,
        };
        let slot = queue.pop_front().expect("there is at least one entry");
        self.left.push_back(entries.hash(slot));
        self.known.insert(entries.hash(slot));
        while self.left.len() > all {
            self.left.pop_front().map(|hash| self.known.remove(&hash));
        }
        slot
    }

    fn forget(&mut self, slot: u32) {
        self.newcomers.retain(|other| *other != slot);
        self.used.retain(|other| *other != slot);
    }

    fn resize(&mut self, _capacity: usize) {}

    fn hottest(&self) -> Vec<u32> {
        let newcomers = self.newcomers.iter().rev();
        self.used.iter().rev().chain(newcomers).copied().collect()
    }
}

/// How many of a hundred favourites are still there after a scan over ten thousand keys.
fn favourites_left(policy: impl EvictionPolicy) -> Result<usize, outgrow::cache::Error> {
    let cache: Cache<u64, ()> = Cache::builder().capacity(200).policy(policy).build()?;
    for key in (0..100).chain(1_000..1_200).chain(0..100).chain(10_000..20_000) {
        if cache.get(&key).is_none() {
            let _ = cache.insert(key, ());
        }
    }
    Ok((0..100).filter(|key| cache.get(key).is_some()).count())
}

fn main() -> Result<(), outgrow::cache::Error> {
    let (ours, lru) = (favourites_left(TwoQueues)?, favourites_left(Lru::default())?);
    println!("of 100 favourites, a scan leaves {ours} under 2Q and {lru} under LRU");
    assert_eq!((ours, lru), (100, 0));
    Ok(())
}

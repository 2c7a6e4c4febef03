use super::shard::Gone;
use crate::sync::Counter;

/// What happened to a [`Cache`](super::Cache) since it was built. Each count is exact once the calls that make it have
/// returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CacheStats {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none, or an expired one.
    pub misses: u64,
    /// Loaders started.
    pub loads: u64,
    /// Loaders that failed.
    pub load_errors: u64,
    /// Values put in, loaded ones included.
    pub inserts: u64,
    /// Entries that had to make room.
    pub evictions: u64,
    /// Entries dropped because they had expired.
    pub expirations: u64,
    /// Entries held now.
    pub entries: usize,
    /// The most entries it holds.
    pub capacity: usize,
}

impl CacheStats {
    /// The share of reads that found a value; 0 before the first read.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            reads => self.hits as f64 / reads as f64,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) loads: Counter,
    pub(super) load_errors: Counter,
    pub(super) inserts: Counter,
    evictions: Counter,
    expirations: Counter,
}

impl Counters {
    /// Counts what a write took out.
    pub(super) fn count<K, V>(&self, gone: &Gone<K, V>) {
        if gone.evicted > 0 {
            self.evictions.add(gone.evicted as u64);
        }
        if gone.expired > 0 {
            self.expirations.add(gone.expired as u64);
        }
    }

    pub(super) fn stats(&self, entries: usize, capacity: usize) -> CacheStats {
        CacheStats {
            hits: self.hits.sum(),
            misses: self.misses.sum(),
            loads: self.loads.sum(),
            load_errors: self.load_errors.sum(),
            inserts: self.inserts.sum(),
            evictions: self.evictions.sum(),
            expirations: self.expirations.sum(),
            entries,
            capacity,
        }
    }
}

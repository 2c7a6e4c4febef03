use super::removal::Removal;
use crate::sync::Stripes;
use crate::sync::pins::Pin;
use std::time::Duration;

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
    /// Reads that found that there is no value: a negative entry.
    pub negative_hits: u64,
    /// Loaders started. One of several keys is one.
    pub loads: u64,
    /// Loaders that failed, panicked, or were stopped because their time was over. One that nobody waited for any more did
    /// not fail, nor did one that blocked past its time.
    pub load_errors: u64,
    /// Time from the start of loaders to their end, over all that are no more.
    pub load_time: Duration,
    /// Stale values served, while they were refreshed or because loading failed.
    pub stale_served: u64,
    /// Entries put in, loaded ones included.
    pub inserts: u64,
    /// Entries that had to make room.
    pub evictions: u64,
    /// Entries dropped because they had expired.
    pub expirations: u64,
    /// Entries whose place another value under their key took.
    pub replacements: u64,
    /// Entries removed by key, by tag, by predicate, or with all others.
    pub invalidations: u64,
    /// Entries that were not taken in.
    pub rejections: u64,
    /// Entries held now, expired ones that nothing has freed yet included.
    pub entries: u64,
    /// What they weigh together; zero where weight has no limit.
    pub weight: u64,
    /// Entries that have left and whose memory readers or the next writes still hold back.
    pub held_back: u64,
    /// The most entries it holds; `u64::MAX` where only weight is limited.
    pub capacity: u64,
    /// The most that its entries may weigh; `u64::MAX` where only their count is limited.
    pub weight_capacity: u64,
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

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Hits,
    Misses,
    NegativeHits,
    Loads,
    LoadErrors,
    LoadNanos,
    StaleServed,
    Inserts,
    Evictions,
    Expirations,
    Replacements,
    Invalidations,
    Rejections,
}

#[derive(Debug)]
pub(super) struct Counters(Stripes<13>);

impl Counters {
    pub(super) fn new() -> Counters {
        Counters(Stripes::new())
    }

    #[inline]
    pub(super) fn add(&self, pin: &Pin, count: Count, n: u64) {
        self.0.add(pin, count as usize, n);
    }

    pub(super) fn removed(&self, pin: &Pin, why: Removal) {
        let count = match why {
            Removal::Expired => Count::Expirations,
            Removal::Evicted => Count::Evictions,
            Removal::Replaced => Count::Replacements,
            Removal::Invalidated => Count::Invalidations,
            Removal::Rejected => Count::Rejections,
            Removal::Dropped => return,
        };
        self.add(pin, count, 1);
    }

    #[cfg(test)]
    pub(super) fn stripes(&self) -> &Stripes<13> {
        &self.0
    }

    pub(super) fn sum(&self, count: Count) -> u64 {
        self.0.sum(count as usize)
    }

    /// All that is counted here; what is held now is left out.
    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.sum(Count::Hits),
            misses: self.sum(Count::Misses),
            negative_hits: self.sum(Count::NegativeHits),
            loads: self.sum(Count::Loads),
            load_errors: self.sum(Count::LoadErrors),
            load_time: Duration::from_nanos(self.sum(Count::LoadNanos)),
            stale_served: self.sum(Count::StaleServed),
            inserts: self.sum(Count::Inserts),
            evictions: self.sum(Count::Evictions),
            expirations: self.sum(Count::Expirations),
            replacements: self.sum(Count::Replacements),
            invalidations: self.sum(Count::Invalidations),
            rejections: self.sum(Count::Rejections),
            ..CacheStats::default()
        }
    }
}

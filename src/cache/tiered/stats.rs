use crate::cache::CacheStats;

/// What a [`Tiered`](super::Tiered) did, and whether it hears what others write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TieredStats {
    /// The cache in the process. Its hits and misses are those of keys that were looked for in it.
    pub cache: CacheStats,
    /// Whether the bus was heard within the time. While it was not, every read goes to the store below.
    pub hearing: bool,
    /// How many other caches were heard lately.
    pub peers: usize,
    /// How often the bus was not heard within the time, or its subscription ended, each of which emptied the cache.
    pub missed_heartbeats: u64,
    /// How often the cache was emptied: those times, when others told to, and when a message of theirs was lost.
    pub emptied: u64,
    /// Keys that others told of, cached or not.
    pub invalidations_heard: u64,
    /// Keys that others were told of.
    pub invalidations_sent: u64,
    /// Messages that could not be published, or not in time. Others empty their caches when they notice.
    pub unsent: u64,
    /// What came over the bus and was no message.
    pub garbage: u64,
    /// Reads that went to the store below without a look, because the bus was not heard.
    pub bypassed: u64,
    /// Reads of the store below that were not kept, because a write overtook them.
    pub refused_fills: u64,
}

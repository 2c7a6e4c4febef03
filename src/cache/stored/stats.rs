use crate::cache::CacheStats;
use crate::store::Position;

/// What a [`CachedStore`](super::CachedStore) did, and how far behind the feed it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CachedStoreStats {
    /// The map below. Its hits and misses are those of keys that were looked for in it.
    pub cache: CacheStats,
    /// Whether the feed is followed. While it is not, every read goes to the store below.
    pub following: bool,
    /// The last record of the feed that was heard of.
    pub followed: Position,
    /// The newest record of the feed.
    pub newest: Position,
    /// Reads that went to the store below without a look: nothing followed, or a session was ahead.
    pub bypassed: u64,
    /// Keys that a write dropped, cached or not. A write that is heard of twice counts twice.
    pub invalidations: u64,
    /// Reads of the store below that were not kept, because a write overtook them.
    pub refused_fills: u64,
    /// How often the feed broke, each of which emptied the cache.
    pub breaks: u64,
}

impl CachedStoreStats {
    /// How many records of the feed have not been heard of yet: by how much a read may miss writes made elsewhere.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.newest.seq.saturating_sub(self.followed.seq)
    }
}

use std::fmt;
use std::sync::Arc;

/// Why an entry left a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Removal {
    /// Its time to live or its idle time had passed.
    Expired,
    /// It had to make room.
    Evicted,
    /// Another value was put under its key.
    Replaced,
    /// It was removed, by key, by tag, by predicate, or with all others.
    Invalidated,
    /// It was not taken in; see [`Rejected`].
    Rejected,
    /// The cache itself was dropped.
    Dropped,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inserted {
    /// The entry is in, under a key that had none.
    Added,
    /// The entry is in, in the place of another.
    Replaced,
    /// The entry is not in, and nothing else is under its key.
    Rejected(Rejected),
}

impl Inserted {
    /// Whether the entry is in.
    #[must_use]
    pub fn is_kept(self) -> bool {
        !matches!(self, Inserted::Rejected(_))
    }
}

/// Why an entry was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// It weighs more than the whole cache may.
    TooHeavy,
    /// It had expired already: its time to live was less than a millisecond.
    Expired,
    /// Readers hold pins for so long that what has left cannot be freed, and its memory has reached its bound. Drop the
    /// guards of [`Cache::pin`](super::Cache::pin) sooner.
    HeldBack,
}

/// Hears of entries that left; see [`CacheBuilder::on_removal`](super::CacheBuilder::on_removal).
pub(super) type Listener<K, V> = Arc<dyn Fn(&K, &V, Removal) + Send + Sync>;

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Removal::Expired => "expired",
            Removal::Evicted => "evicted",
            Removal::Replaced => "replaced",
            Removal::Invalidated => "invalidated",
            Removal::Rejected => "rejected",
            Removal::Dropped => "dropped",
        })
    }
}

use super::{Entry, Position, Record, Result, Scan, Version};
use crate::env::WallTime;
use bytes::Bytes;
use std::fmt;

/// One node's local state: what results from applying records in order.
///
/// An engine returns what it holds, expired or not; the store above it hides what has expired at its own wall clock.
pub trait Engine: Send + Sync {
    /// Reads one key.
    ///
    /// # Errors
    /// What the medium answers; an engine in memory has none.
    fn get(&self, key: &[u8]) -> Result<Option<Entry>>;

    /// The first `scan.page` entries (at most `scan.limit`) of a range, as of one moment.
    ///
    /// # Errors
    /// What the medium answers.
    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Entry)>>;

    /// Everything, as of one moment, unmoved by later writes.
    ///
    /// # Errors
    /// What the medium answers.
    fn snapshot(&self) -> Result<Snapshot>;

    /// Applies a record as one, and moves to `at`. A position at or before the present one in the same epoch has been
    /// applied already: nothing happens.
    ///
    /// # Errors
    /// [`Error::Fenced`](super::Error::Fenced) when `at` is of an older epoch than what was applied last, and
    /// [`Error::Invalid`](super::Error::Invalid) when a record between them is missing; nothing has changed then.
    fn apply(&self, at: Position, record: &Record) -> Result<()>;

    /// Replaces everything by a snapshot.
    ///
    /// # Errors
    /// What the medium answers.
    fn install(&self, snapshot: Snapshot) -> Result<()>;

    /// The position of the last record applied.
    fn applied(&self) -> Position;

    /// The newest version ever applied.
    fn version(&self) -> Version;

    /// Frees up to `max` entries that had expired by `now`, and says how many it freed.
    ///
    /// # Errors
    /// What the medium answers.
    fn purge(&self, now: WallTime, max: usize) -> Result<usize>;
}

/// An engine's whole state as of one moment.
pub struct Snapshot {
    /// The position it was taken at.
    pub at: Position,
    /// The newest version up to there.
    pub version: Version,
    /// Every entry, in key order.
    pub entries: Box<dyn Iterator<Item = (Bytes, Entry)> + Send>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("at", &self.at)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

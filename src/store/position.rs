use std::fmt;

/// The age of a stored value: issued by the store that accepted the write, strictly increasing there, never reused,
/// and kept when the value is followed or migrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in one log: the epoch of the primary that wrote there, then the sequence number.
///
/// Sequence numbers go on across epochs, so within what survived, one order fits all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Position {
    /// Which primary's reign.
    pub epoch: u64,
    /// The record's number in the log, from 1.
    pub seq: u64,
}

impl Position {
    /// Before the first record.
    pub const START: Position = Position { epoch: 0, seq: 0 };

    /// The position `seq` in `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Position {
        Position { epoch, seq }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// The name of one log, chosen at random when a store is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u64);

impl LogId {
    /// A random name of 42 bits, so that it takes six bytes of a token: among a hundred logs, two share a name with
    /// a chance of one in a thousand million.
    #[must_use]
    pub fn random(rng: &mut crate::env::Rng) -> LogId {
        LogId(rng.next_u64() >> 22)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

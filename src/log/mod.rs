//! One durable, ordered list of entries on disk: what the queue and each node of a replicated store keep.
//!
//! Entries are numbered from 1 and appended in groups; a group is one frame, recovered as a whole or not at all. One task
//! writes: it takes everything that waits, writes it at once, syncs once, and wakes each waiter once (group commit). An
//! [`Append`] is ready when its entries are on disk.
//!
//! The parts, pure first: [`frame`] and [`segment`] are the bytes, [`recovery`] judges what a set of segments holds,
//! [`index`] knows where each entry lies; [`mod@open`] reads what is there, [`committer`] is the task that writes,
//! [`reader`] reads.
//!
//! The log is never asked to guess. A failed write or sync poisons it until it is opened again, since nothing is known
//! about the pages after that (Rebello and others, "Can Applications Recover from fsync Failures?", ATC 2020). Opening
//! syncs and drops the cached pages of every segment before it reads. Nothing is deleted at open. Damage costs the
//! damaged entry or frame, is reported as a [`Gap`], and leaves the rest readable.
//!
//! What it does not promise: damage to what was written last, before anything written later vouches for it, looks like a
//! torn write and is cut off. The task therefore writes a mark when it has been idle for ten milliseconds, and at close.

mod committer;
mod error;
mod frame;
mod handle;
#[cfg(feature = "sim")]
pub(crate) mod hooks;
mod index;
mod open;
mod reader;
mod recovery;
#[cfg(test)]
mod recovery_tests;
mod segment;
mod shared;
#[cfg(all(test, feature = "sim"))]
mod sim_tests;
#[cfg(test)]
mod tests;

pub(crate) use error::LogError;
pub(crate) use handle::{Append, Log, LogStats};
pub(crate) use reader::Reader;
pub(crate) use recovery::Damage;

use bytes::Bytes;
use std::fmt;
use std::ops::Range;

/// How a log is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    /// Where a segment ends and the next begins. Default: 64 MiB; 8 KiB to 1 GiB. Space is freed by whole segments, and
    /// opening reads them one at a time into memory.
    pub(crate) segment_bytes: u64,
    /// How many bytes may wait for the disk before an append is refused as [`LogError::Busy`]. Default: 16 MiB. One
    /// append is always taken when nothing waits.
    pub(crate) buffer_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            buffer_bytes: 16 << 20,
        }
    }
}

/// What holds of a write when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It is on the disk: it survives the loss of power.
    #[default]
    Disk,
    /// The operating system has it: it survives the end of the process, but perhaps not the loss of power.
    Os,
}

/// What reading yields for each number, or range of numbers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// An entry.
    Record {
        /// Its number.
        seq: u64,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Entries that are lost.
    Gap(Gap),
}

/// Numbers whose entries are lost to damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Which.
    pub(crate) range: Range<u64>,
    /// How they were lost.
    pub(crate) why: Why,
}

impl Gap {
    fn new(range: Range<u64>, why: Why) -> Gap {
        Gap { range, why }
    }
}

/// How entries were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The frame that held them is damaged or missing.
    Frame,
    /// The entry itself fails its checksum; its neighbours are sound.
    Entry,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Frame => "its frame is damaged or missing",
            Why::Entry => "it fails its checksum",
        })
    }
}

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenReport {
    /// The numbers kept: the oldest to before the next.
    pub(crate) range: Range<u64>,
    /// Segments on disk.
    pub(crate) segments: usize,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Bytes of a torn tail, which a crash left and nobody was told to be there. They are cut off.
    pub(crate) torn: u64,
    /// Entries lost to damage. Damage that hit no live entry is only in `damage`.
    pub(crate) gaps: Vec<Gap>,
    /// Bytes that are not as they were written.
    pub(crate) damage: Vec<Damage>,
}

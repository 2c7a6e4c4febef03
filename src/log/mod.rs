//! One durable, ordered list of entries on disk: what the queue and each node of a replicated store keep.
//!
//! Entries are numbered from 1 and appended in groups; a group lies in one frame, alone or with others when they are
//! small, and is recovered as a whole or not at all. One at a time writes: it takes everything that waits, writes it at
//! once, syncs once, and wakes each waiter once (group commit). That is whoever waits on a thread of its own and finds
//! nobody writing, or else the log's task. An [`Append`] is ready when its entries are on disk.
//!
//! The parts, pure first: [`frame`] and [`segment`] are the bytes, which `FORMAT.md` describes, [`batch`] is what waits,
//! [`recovery`] judges what a set of segments holds, [`index`] knows where each entry lies; [`append`] gives numbers and
//! places, [`turn`] says who writes, [`wait`] waits for it, [`writer`] does, into the [`active`] segment, [`group`] tells
//! those who wait, and [`flush`] syncs beside them what nobody waits for; [`mod@open`] opens, [`scan`] looks at what is
//! there, by the [`summary`] of a segment where there is one; [`committer`] is the task, [`spare`] makes files ahead,
//! [`reader`] reads, and [`view`] looks at a log that somebody else has open.
//!
//! The log is never asked to guess. A failed write or sync poisons it until it is opened again, since nothing is known
//! about the pages after that (Rebello and others, "Can Applications Recover from fsync Failures?", ATC 2020). Opening
//! syncs and drops the cached pages of a segment before it reads it, unless it is known that all that counts of it has been
//! synced. Nothing is deleted at open. Damage costs the
//! damaged entry or frame, is reported as a [`Gap`], and leaves the rest readable.
//!
//! What it does not promise: damage to what was written last, before anything written later vouches for it, looks like a
//! torn write and is cut off. The task therefore writes a mark when it has been idle for ten milliseconds, and at close.

mod active;
mod append;
mod batch;
mod committer;
mod entry;
mod error;
mod flush;
#[cfg(feature = "sim")]
mod forge;
mod frame;
mod group;
mod handle;
#[cfg(feature = "sim")]
pub(crate) mod hooks;
mod index;
mod large;
#[cfg(test)]
mod large_tests;
mod latency;
mod open;
mod pick;
#[cfg(test)]
mod pick_tests;
mod quarantine;
mod reader;
mod recovery;
#[cfg(test)]
mod recovery_tests;
mod scan;
mod segment;
mod shared;
#[cfg(all(test, feature = "sim"))]
mod sim_tests;
mod spare;
mod summary;
mod summary_file;
#[cfg(test)]
mod summary_tests;
#[cfg(test)]
mod tests;
mod turn;
mod verify;
mod view;
mod wait;
mod writer;

pub(crate) use append::Append;
pub(crate) use entry::{Entries, Entry, Given};
pub(crate) use error::LogError;
pub(crate) use handle::{Log, LogStats, Recalled};
pub use latency::Latencies;
pub(crate) use reader::Reader;
pub(crate) use recovery::Damage;
pub(crate) use summary::{Noter, Notes};
pub(crate) use verify::{Progress, Source, Verified};
pub(crate) use view::{SegmentAt, View};

use bytes::Bytes;
use std::fmt;
use std::ops::Range;

/// When a write counts as done.
///
/// Both levels share one log and its order: what is on disk at [`Disk`](Durability::Disk) has everything before it on
/// disk too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// When the device has it: it survives a crash of the machine and the loss of power. Writes that wait at the same time
    /// share one sync.
    #[default]
    Disk,
    /// When the kernel has it: it survives the end of the process, a SIGKILL too, but not the loss of power until it is
    /// synced. That is when something is written at `Disk` behind it, or after 10 milliseconds in which nothing is
    /// written, or 100 milliseconds in which much is, or 4 MiB, and the time of a sync. Together with one of `Disk` in the same
    /// write it waits for that one's sync, so that the order holds.
    Os,
}

/// What to do when damage is found at opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// Report what shows, and serve everything else.
    #[default]
    Serve,
    /// Read everything for it, report it, and serve everything else.
    Find,
    /// Read everything for it, and refuse to open with [`LogError::Damaged`]. Nothing is changed.
    Refuse,
}

/// How a log is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    /// How long a segment gets. Default: 64 MiB; 8 KiB to 1 GiB. The first has 256 KiB, and each is twice as long as the one
    /// before until they are that long. Space is freed by whole segments, and opening reads the newest, and those
    /// without a summary, one at a time into memory.
    pub(crate) segment_bytes: u64,
    /// How many bytes may wait for the disk before an append is refused as [`LogError::Busy`]. Default: 16 MiB. One
    /// append is always taken when nothing waits.
    pub(crate) buffer_bytes: usize,
    /// What to do when damage is found at opening. Default: serve everything else.
    pub(crate) on_damage: OnDamage,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            buffer_bytes: 16 << 20,
            on_damage: OnDamage::Serve,
        }
    }
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
    /// How many damaged ranges were copied into `quarantine/`, or why they could not be.
    pub(crate) quarantine: Result<usize, String>,
}

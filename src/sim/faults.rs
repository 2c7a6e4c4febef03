use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// What goes wrong by chance on the disk of one machine. The default is nothing.
///
/// Each probability is per operation that the fault can befall, from 0 (never) to 1 (always). The struct is complete
/// on purpose, so that a test writes `Faults { sync_error: 0.01, ..Faults::default() }`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A read, a listing or the opening of a file fails (EIO).
    pub read_error: f64,
    /// A write, or a change of length or name, fails (EIO). Of a failed write any prefix may have been written.
    pub write_error: f64,
    /// A write, or a change of length or name that takes space, fails (ENOSPC). Nothing was changed.
    pub no_space: f64,
    /// A read gives only a part of what is there, at least one byte.
    pub short_read: f64,
    /// A write takes only a part of what it was given, at least one byte, and says so.
    pub short_write: f64,
    /// A sync fails (EIO). What it should have made durable stays readable and is lost at a crash, whatever later
    /// syncs say.
    pub sync_error: f64,
    /// After a successful sync one durable bit of the file is wrong.
    pub bit_flip: f64,
    /// The operation takes longer by [`stall_for`](Faults::stall_for).
    pub stall: f64,
    /// How much longer a stalled operation takes.
    pub stall_for: Duration,
}

/// A fault put at one exact operation by [`Machine::inject`](super::Machine::inject).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inject {
    /// The operation fails: a read with EIO, a sync as after [`Faults::sync_error`], anything else as after
    /// [`Faults::write_error`].
    Fail,
    /// The operation fails with ENOSPC.
    NoSpace,
    /// A read or write is short; any other operation fails.
    Short,
    /// The operation takes longer by this much.
    Stall(Duration),
    /// The machine loses power while the operation is under way.
    Crash,
    /// The process is killed while the operation is under way.
    Kill,
}

/// A kind of disk operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DiskOp {
    /// [`Disk::open`](crate::env::Disk::open) of a file that exists.
    Open,
    /// [`Disk::open`](crate::env::Disk::open) of a new file.
    Create,
    /// [`Disk::create_dir`](crate::env::Disk::create_dir).
    CreateDir,
    /// [`Disk::list`](crate::env::Disk::list).
    List,
    /// [`Disk::rename`](crate::env::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::env::Disk::remove).
    Remove,
    /// [`Disk::sync_dir`](crate::env::Disk::sync_dir).
    SyncDir,
    /// [`Disk::lock`](crate::env::Disk::lock).
    Lock,
    /// [`File::len`](crate::env::File::len).
    Len,
    /// [`File::read_at`](crate::env::File::read_at).
    Read,
    /// [`File::write_at`](crate::env::File::write_at).
    Write,
    /// [`File::set_len`](crate::env::File::set_len) and [`File::reserve`](crate::env::File::reserve).
    SetLen,
    /// [`File::sync_data`](crate::env::File::sync_data).
    Sync,
    /// [`File::drop_cache`](crate::env::File::drop_cache).
    DropCache,
}

impl DiskOp {
    /// Every kind, in order.
    pub const ALL: [DiskOp; 14] = [
        DiskOp::Open,
        DiskOp::Create,
        DiskOp::CreateDir,
        DiskOp::List,
        DiskOp::Rename,
        DiskOp::Remove,
        DiskOp::SyncDir,
        DiskOp::Lock,
        DiskOp::Len,
        DiskOp::Read,
        DiskOp::Write,
        DiskOp::SetLen,
        DiskOp::Sync,
        DiskOp::DropCache,
    ];

    pub(super) fn reads(self) -> bool {
        matches!(self, DiskOp::Open | DiskOp::List | DiskOp::Read)
    }

    pub(super) fn syncs(self) -> bool {
        matches!(self, DiskOp::Sync | DiskOp::SyncDir)
    }

    pub(super) fn changes(self) -> bool {
        use DiskOp::{Create, CreateDir, Remove, Rename, SetLen, Write};
        matches!(self, Create | CreateDir | Rename | Remove | Write | SetLen)
    }

    pub(super) fn takes_space(self) -> bool {
        self.changes() && self != DiskOp::Remove
    }
}

/// A kind of fault, as [`FaultCounts`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A read, listing or opening failed.
    ReadError,
    /// A write, or a change of length or name, failed.
    WriteError,
    /// There was no space, by chance, by order, or because the disk is full.
    NoSpace,
    /// A read was short, though not at the end of the file.
    ShortRead,
    /// A write was short, by chance, by order, or because no more fits on the disk.
    ShortWrite,
    /// A sync failed.
    SyncError,
    /// A durable bit was flipped.
    BitFlip,
    /// An operation stalled.
    Stall,
    /// An operation that changes something was dropped before it was done, and may or may not have happened.
    CutOff,
    /// A machine lost power.
    Crash,
    /// A process was killed.
    Kill,
    /// An un-synced sector survived a crash.
    SectorKept,
    /// An un-synced sector was lost in a crash.
    SectorLost,
    /// An un-synced change of a name survived a crash.
    NameKept,
    /// An un-synced change of a name was lost in a crash.
    NameLost,
    /// A wall clock jumped.
    ClockSkew,
}

impl FaultKind {
    /// Every kind, in order.
    pub const ALL: [FaultKind; 16] = [
        FaultKind::ReadError,
        FaultKind::WriteError,
        FaultKind::NoSpace,
        FaultKind::ShortRead,
        FaultKind::ShortWrite,
        FaultKind::SyncError,
        FaultKind::BitFlip,
        FaultKind::Stall,
        FaultKind::CutOff,
        FaultKind::Crash,
        FaultKind::Kill,
        FaultKind::SectorKept,
        FaultKind::SectorLost,
        FaultKind::NameKept,
        FaultKind::NameLost,
        FaultKind::ClockSkew,
    ];

    /// The name in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::ReadError => "read error",
            FaultKind::WriteError => "write error",
            FaultKind::NoSpace => "no space",
            FaultKind::ShortRead => "short read",
            FaultKind::ShortWrite => "short write",
            FaultKind::SyncError => "sync error",
            FaultKind::BitFlip => "bit flip",
            FaultKind::Stall => "stall",
            FaultKind::CutOff => "operation cut off",
            FaultKind::Crash => "crash",
            FaultKind::Kill => "kill",
            FaultKind::SectorKept => "un-synced sector kept",
            FaultKind::SectorLost => "un-synced sector lost",
            FaultKind::NameKept => "un-synced name kept",
            FaultKind::NameLost => "un-synced name lost",
            FaultKind::ClockSkew => "clock skew",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many faults of each kind were injected: exact, and summable over worlds.
///
/// ```
/// use outgrow::sim::{FaultCounts, FaultKind, World};
///
/// let mut total = FaultCounts::default();
/// for seed in 0..3 {
///     let world = World::new(seed);
///     world.machine("n1").crash();
///     total += world.faults();
/// }
/// assert_eq!(total.get(FaultKind::Crash), 3);
/// assert_eq!(total.to_string(), "crash 3");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    counts: [u64; FaultKind::ALL.len()],
}

impl FaultCounts {
    /// How many faults of `kind` there were.
    #[must_use]
    pub fn get(&self, kind: FaultKind) -> u64 {
        self.counts[kind as usize]
    }

    /// Every kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        FaultKind::ALL.into_iter().map(|kind| (kind, self.get(kind)))
    }

    /// The sum over all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn add(&mut self, kind: FaultKind, n: u64) {
        self.counts[kind as usize] += n;
    }
}

impl AddAssign for FaultCounts {
    fn add_assign(&mut self, other: FaultCounts) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }
}

/// The kinds that occurred, as `crash 3, stall 10`.
impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (kind, n) in self.iter().filter(|(_, n)| *n > 0) {
            write!(f, "{}{kind} {n}", if first { "" } else { ", " })?;
            first = false;
        }
        if first { f.write_str("no faults") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_their_listed_order() {
        assert!(FaultKind::ALL.iter().enumerate().all(|(i, kind)| *kind as usize == i));
        assert!(DiskOp::ALL.iter().enumerate().all(|(i, op)| *op as usize == i));
    }
}

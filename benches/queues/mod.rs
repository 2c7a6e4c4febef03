//! The stores that the benches of the durable queue compare, behind one trait; each as its own documentation builds it.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod measure;
pub(crate) mod ours;
#[cfg(peers)]
mod peers;
pub(crate) mod place;
pub(crate) mod raw;
pub(crate) mod results;
mod servers;
pub(crate) mod words;

use std::path::Path;

/// A store that takes messages from many threads at a time.
pub(crate) trait Keep: Sync {
    /// A producer for one thread.
    fn producer(&self) -> Box<dyn Produce + '_>;
}

/// Sends, and returns when what it sent is as durable as its store was built to make it.
pub(crate) trait Produce {
    /// One message.
    fn one(&mut self, payload: &'static [u8]);

    /// `count` messages of this payload in one call, as the store's own way of batching has it.
    fn batch(&mut self, payload: &'static [u8], count: usize);
}

/// A name, and what opens a store of that kind in an empty directory; or the reason why this machine cannot.
pub(crate) type Contender = (&'static str, fn(&Path) -> Result<Box<dyn Keep>, String>);

/// `pwrite` and `fdatasync` over a zero-filled file: what the disk takes when nobody does anything but write.
pub(crate) const RAW: Contender = ("raw", raw::open);

/// The durable queue as it is by default: on disk before a send returns.
pub(crate) const OURS: Contender = ("ours", |dir| ours::keep(dir, ours::Level::Disk));

/// The durable queue at the level that survives the end of the process, and not that of the machine.
pub(crate) const OURS_OS: Contender = ("ours", |dir| ours::keep(dir, ours::Level::Os));

/// Crates that sync before they return; none without `--cfg peers`.
pub(crate) fn embedded() -> Vec<Contender> {
    #[cfg(peers)]
    return peers::synced();
    #[cfg(not(peers))]
    Vec::new()
}

/// Servers on the loopback that sync before they answer.
pub(crate) fn servers() -> Vec<Contender> {
    vec![("redis", servers::redis), ("jetstream", servers::jetstream)]
}

/// Crates that leave it to the kernel when a message gets to the disk.
pub(crate) fn unsynced() -> Vec<Contender> {
    #[cfg(peers)]
    return peers::unsynced();
    #[cfg(not(peers))]
    Vec::new()
}

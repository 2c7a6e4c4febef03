//! Many stores as one: keys are spread over shards, so that data and writes grow with the number of machines.
//!
//! A [`Partitioner`] says which shard a key belongs to: a [`SlotTable`] (the default: constant time, exact balance,
//! the least possible movement) or a [`HashRing`]. A [`ShardRouter`] routes keys to anything (connections, pools,
//! queues); a [`ShardedStore`] is a [`Store`](crate::store::Store) over stores, whose map survives restarts.
//!
//! Keys that share a `{tag}` share a shard: of `cart/{user-7}` and `order/{user-7}/1`, only `user-7` is hashed.
//!
//! ```
//! use outgrow::shard::{ShardRouter, SlotTable};
//!
//! let router = ShardRouter::builder(SlotTable::new(16_384)).shard("a", "10.0.0.1").shard("b", "10.0.0.2").build()?;
//! let home = *router.route(b"cart/{user-7}");
//! assert_eq!(*router.route(b"order/{user-7}/1"), home);
//!
//! router.add("c", 1, "10.0.0.3")?;
//! let now = *router.route(b"cart/{user-7}");
//! assert!(now == home || now == "10.0.0.3"); // a key moves to the new shard or not at all
//! # Ok::<(), outgrow::shard::Error>(())
//! ```
//!
//! When not to use it: as long as one primary bears the writes. What it costs: a batch commits within one shard only,
//! and a scan asks every shard. Adding a shard to a [`ShardedStore`] holds up writes to the keys that move until they
//! have been copied; reads never wait.

mod gate;
mod map;
mod moving;
mod ring;
mod router;
mod scan;
mod slots;
mod store;

pub use moving::MoveReport;
pub use ring::HashRing;
pub use router::{Error, ShardRouter, ShardRouterBuilder};
pub use slots::SlotTable;
pub use store::{ShardStatus, ShardedStore, ShardedStoreBuilder, ShardedStoreStatus};

use crate::codec::Reader;
use crate::store::Result;

/// Says which shard a key belongs to. Shards are numbered in the order in which they were added; a change moves as
/// few keys as it can.
///
/// It is a plain value: changing one changes no other clone.
pub trait Partitioner: Clone + Send + Sync + 'static {
    /// The shard of `key`, below [`shards`](Partitioner::shards). Called only when there is one.
    fn route(&self, key: &[u8]) -> usize;

    /// How many shards there are.
    fn shards(&self) -> usize;

    /// The share of the keys that belong to `shard`.
    fn share(&self, shard: usize) -> f64;

    /// Adds a shard, which takes a share of the keys in proportion to its weight. A weight of 0 counts as 1.
    fn add(&mut self, name: &str, weight: u32);

    /// Removes a shard; those after it move up by one. Its keys, and only they, go to the others.
    fn remove(&mut self, shard: usize);

    /// Its state as bytes.
    fn save(&self) -> Vec<u8>;

    /// The state that `bytes` hold.
    ///
    /// # Errors
    /// [`store::Error::Corrupt`](crate::store::Error::Corrupt) when they are of no such partitioner.
    fn restore(bytes: &[u8]) -> Result<Self>;
}

/// The part of a key that is hashed: what is between the first `{` and the next `}`, or all of it when that is empty
/// or absent (the rule of Redis Cluster).
pub(crate) fn tagged(key: &[u8]) -> &[u8] {
    let tag = || {
        let start = key.iter().position(|byte| *byte == b'{')? + 1;
        let len = key[start..].iter().position(|byte| *byte == b'}')?;
        (len > 0).then(|| &key[start..start + len])
    };
    tag().unwrap_or(key)
}

/// A count that must be small enough to be real.
fn count(reader: &mut Reader<'_>, max: usize) -> Result<usize> {
    let count = reader.varint()?;
    match usize::try_from(count) {
        Ok(count) if count <= max => Ok(count),
        _ => Err(crate::store::Error::corrupt(format!(
            "a shard map with a count of {count}"
        ))),
    }
}

#[cfg(test)]
mod tests;

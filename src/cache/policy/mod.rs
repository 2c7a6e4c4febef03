//! Which entries a full cache gives up.

mod lru;
mod s3fifo;
pub use self::lru::Lru;
pub use s3fifo::S3Fifo;
use std::fmt;

/// What a hit costs under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HitCost {
    /// Nothing.
    None,
    /// One relaxed write to a mark beside the entry, until it is `max`.
    Mark {
        /// Where it stops counting.
        max: u8,
    },
    /// The shard's lock.
    Lock,
}

/// Choice.
pub trait EvictionPolicy: fmt::Debug + Send + Sync + 'static {
    /// Cost.
    fn hit_cost(&self) -> HitCost;
    /// Orders.
    fn orders(&self, shards: usize, capacity: usize) -> Vec<Box<dyn EvictionOrder>>;
}

/// State of one shard.
pub trait EvictionOrder: Send {
    /// New.
    fn admit(&mut self, slot: u32, hash: u64);
    /// Update.
    fn replace(&mut self, old: u32, new: u32);
    /// Hit under Lock.
    fn touch(&mut self, slot: u32, hash: u64);
    /// Victim.
    fn victim(&mut self, entries: &dyn Entries) -> u32;
    /// Left.
    fn forget(&mut self, slot: u32);
    /// Share.
    fn resize(&mut self, capacity: usize);
    /// Hottest.
    fn hottest(&self) -> Vec<u32>;
}

/// The entries.
pub trait Entries {
    /// Mark.
    fn mark(&self, slot: u32) -> u8;
    /// Set.
    fn set_mark(&self, slot: u32, mark: u8);
    /// Hash.
    fn hash(&self, slot: u32) -> u64;
}

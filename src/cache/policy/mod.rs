//! Who leaves a full cache: the policies, and the trait to write another.
//!
//! [`Adaptive`] is the default and meant for every use: a hit costs one relaxed write at most, and it finds out by itself
//! whether recency, frequency or standing still suits the keys. [`S3Fifo`] and [`Sieve`] are as cheap and fixed, so they
//! are easier to reason about. [`WTinyLfu`] and [`Lru`] move entries about at every hit, so a hit takes the shard's lock:
//! choose them to compare, or where `Lru`'s exact order is what is wanted.
//!
//! A policy of one's own is an [`EvictionPolicy`], which gives each shard of the cache an [`EvictionOrder`]. Orders never
//! see keys or values. They name an entry by its slot, may ask for its hash, and for its *mark*: a byte beside the
//! entry that hits count up. `examples/custom_policy.rs` is a policy in less than a hundred lines.

mod adaptive;
mod ages;
mod clock;
mod fifo;
mod ghosts;
mod list;
mod lru;
mod queues;
mod s3fifo;
mod sieve;
mod sketch;
#[cfg(test)]
mod tests;
mod tuner;
mod wtinylfu;

pub use adaptive::Adaptive;
pub use lru::Lru;
pub use s3fifo::S3Fifo;
pub use sieve::Sieve;
pub use wtinylfu::WTinyLfu;

use std::fmt;

/// What a hit costs under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HitCost {
    /// Nothing: the policy does not care about hits, as in a queue.
    None,
    /// At most one relaxed write: the entry's mark goes up by one until it is `max`, and from there on a hit only reads.
    Mark {
        /// Where the mark stops counting, 15 at most.
        max: u8,
    },
    /// The shard's lock: [`EvictionOrder::touch`] is called at every hit.
    Lock,
}

/// Which entries a full cache gives up: the choice, given to the cache's builder.
///
/// It holds what the orders of one cache share, and is asked for them once, when the cache is built.
pub trait EvictionPolicy: fmt::Debug + Send + Sync + 'static {
    /// What the cache does at a hit; asked once, when the cache is built.
    fn hit_cost(&self) -> HitCost;

    /// One order for each of `shards` shards of a cache of about `capacity` entries, which is a guess when only weight
    /// bounds it. A shard's share is its part of the whole, but shards drift a few percent from it.
    fn orders(&self, shards: usize, capacity: usize) -> Vec<Box<dyn EvictionOrder>>;
}

/// The state of a policy over the entries of one shard, each named by a number, its slot with the policy.
///
/// Every call is made under the shard's lock, so it should be short: `forget` in constant time, amortized. A slot is below
/// 2^16, stays the same when the entry is written anew (which counts as a hit), and when it is free again may be named by the
/// very next [`admit`](EvictionOrder::admit). The lowest bits of a hash chose the shard, up to seventeen in the largest
/// cache: within one they say nothing.
pub trait EvictionOrder: Send {
    /// Takes in a new entry, whose mark is 0.
    fn admit(&mut self, slot: u32, hash: u64);

    /// The entry was asked for; only called under [`HitCost::Lock`].
    fn touch(&mut self, slot: u32, hash: u64);

    /// Chooses who leaves, and forgets it. Called when there is at least one entry.
    fn victim(&mut self, entries: &dyn Entries) -> u32;

    /// Forgets an entry that left for another reason: removed, expired, refused.
    fn forget(&mut self, slot: u32);

    /// The shard's share of the capacity is now this.
    fn resize(&mut self, capacity: usize);

    /// All slots, those most worth keeping first.
    fn hottest(&self) -> Vec<u32>;
}

/// The entries of a shard as its order may see them, while it chooses a victim.
pub trait Entries {
    /// How often the entry was asked for since its mark was set, up to the policy's maximum.
    fn mark(&self, slot: u32) -> u8;

    /// Sets the entry's mark. A hit at the same moment may be lost.
    fn set_mark(&self, slot: u32, mark: u8);

    /// The hash of the entry's key.
    fn hash(&self, slot: u32) -> u64;

    /// Says that this entry is likely to be looked at for the next victim, so that it can be at hand by then. It need not
    /// be there any more when it is.
    fn is_next(&self, slot: u32) {
        let _ = slot;
    }
}

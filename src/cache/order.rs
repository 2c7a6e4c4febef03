use super::s3fifo::{Mark, S3Fifo};
use lru::LruCache;

/// Which entries a full cache gives up, chosen with [`CacheBuilder::policy`](super::CacheBuilder::policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// S3-FIFO (Yang and others, SOSP 2023): resists scans, and most keys that are asked for once never displace one
    /// that is in use. A hit takes a read lock and writes one mark until the entry has three.
    #[default]
    S3Fifo,
    /// The least recently used goes. A hit takes the shard's write lock, since it moves the entry to the front.
    Lru,
}

impl Policy {
    /// Whether a hit changes the order, and so needs the shard for itself.
    pub(super) fn locks_on_hit(self) -> bool {
        match self {
            Policy::S3Fifo => false,
            Policy::Lru => true,
        }
    }
}

/// The state of a policy over the slots of one shard.
#[derive(Debug)]
pub(super) enum Order {
    S3Fifo(S3Fifo),
    Lru(LruCache<u32, ()>),
}

impl Order {
    pub(super) fn new(policy: Policy, capacity: usize) -> Order {
        match policy {
            Policy::S3Fifo => Order::S3Fifo(S3Fifo::new(capacity)),
            // The shard keeps the bound; a bounded one would take all its memory at once.
            Policy::Lru => Order::Lru(LruCache::unbounded()),
        }
    }

    /// Takes in the entry at `slot`, whose mark is clear.
    pub(super) fn admit(&mut self, slot: u32, hash: u64) {
        match self {
            Order::S3Fifo(order) => order.admit(slot, hash),
            Order::Lru(order) => drop(order.put(slot, ())),
        }
    }

    /// Notes a hit, where that changes the order.
    pub(super) fn touch(&mut self, slot: u32) {
        match self {
            Order::S3Fifo(_) => {}
            Order::Lru(order) => drop(order.promote(&slot)),
        }
    }

    /// Chooses who leaves, and forgets it. There is at least one entry; `entry` gives its mark and hash.
    pub(super) fn victim<'a>(&mut self, entry: impl Fn(u32) -> (&'a Mark, u64)) -> u32 {
        match self {
            Order::S3Fifo(order) => order.victim(entry),
            Order::Lru(order) => {
                let (slot, ()) = order.pop_lru().expect("a full shard has a least recently used entry");
                slot
            }
        }
    }

    /// Forgets the entry at `slot`, which left for another reason.
    pub(super) fn forget(&mut self, slot: u32) {
        match self {
            Order::S3Fifo(order) => order.forget(slot),
            Order::Lru(order) => drop(order.pop(&slot)),
        }
    }
}

//! What ours is compared with.
//!
//! - `dashmap` and `dashmap_foldhash` are maps: they keep everything and choose nothing, so what they take is the floor
//!   for a cache. The first hashes with SipHash, as the standard library does; the second with foldhash.
//! - `scc` is `scc::HashCache`: buckets of 32 entries, each with an order of its own. It is as large as the next power
//!   of two, gives entries up early where a bucket is full, and its `put` leaves a value that is there as it is; so an
//!   insert of a key that is there costs it less than it costs the others.
//! - `mutex_lru` is what a service writes by hand: crate `lru` behind one mutex.

use super::{Remember, Visit};
use dashmap::DashMap;
use lru::LruCache;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;

pub(super) fn visit(visit: &mut impl Visit) {
    visit.visit("quick_cache", quick_cache::sync::Cache::<u64, u64>::new);
    visit.visit("foyer_s3fifo", |capacity| {
        let builder = foyer::CacheBuilder::new(capacity).with_eviction_config(foyer::S3FifoConfig::default());
        builder.build::<foyer::CacheProperties>()
    });
    visit.visit("dashmap", |_| DashMap::<u64, u64>::new());
    visit.visit("dashmap_foldhash", |_| {
        DashMap::<u64, u64, _>::with_hasher(foldhash::fast::RandomState::default())
    });
    visit.visit("scc", |capacity| scc::HashCache::<u64, u64>::with_capacity(0, capacity));
    visit.visit("mutex_lru", |capacity| {
        Mutex::new(LruCache::<u64, u64>::new(
            NonZeroUsize::new(capacity).expect("no bench asks for a cache of nothing"),
        ))
    });
    // Last: what it leaves to its epochs is freed late, and nobody's memory is counted after it.
    visit.visit("moka", |capacity| moka::sync::Cache::<u64, u64>::new(capacity as u64));
}

impl Remember for quick_cache::sync::Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        quick_cache::sync::Cache::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        quick_cache::sync::Cache::insert(self, key, value);
    }

    fn held(&self) -> usize {
        self.len()
    }
}

impl Remember for foyer::Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        foyer::Cache::get(self, &key).map(|entry| *entry.value())
    }

    fn insert(&self, key: u64, value: u64) {
        foyer::Cache::insert(self, key, value);
    }

    fn held(&self) -> usize {
        self.entries()
    }
}

impl<S: BuildHasher + Clone + Sync + Send> Remember for DashMap<u64, u64, S> {
    fn get(&self, key: u64) -> Option<u64> {
        DashMap::get(self, &key).map(|value| *value)
    }

    fn insert(&self, key: u64, value: u64) {
        DashMap::insert(self, key, value);
    }

    fn held(&self) -> usize {
        self.len()
    }
}

impl Remember for scc::HashCache<u64, u64> {
    /// Counts as a use, which its `read` would not.
    fn get(&self, key: u64) -> Option<u64> {
        self.get_sync(&key).map(|entry| *entry.get())
    }

    fn insert(&self, key: u64, value: u64) {
        let _ = self.put_sync(key, value);
    }

    fn held(&self) -> usize {
        self.len()
    }
}

impl Remember for Mutex<LruCache<u64, u64>> {
    fn get(&self, key: u64) -> Option<u64> {
        self.lock().get(&key).copied()
    }

    fn insert(&self, key: u64, value: u64) {
        self.lock().put(key, value);
    }

    fn held(&self) -> usize {
        self.lock().len()
    }
}

impl Remember for moka::sync::Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        moka::sync::Cache::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        moka::sync::Cache::insert(self, key, value);
    }

    fn held(&self) -> usize {
        self.run_pending_tasks();
        self.entry_count() as usize
    }
}

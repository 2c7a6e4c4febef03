use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use ::lru::LruCache;

/// Who was not asked for the longest leaves: exact, and easy to predict.
///
/// Every hit takes the shard's lock to move the entry to the front. One scan over more keys than fit empties it of
/// everything else. Choose it where the order itself is wanted, or where a key is asked for again soon or never.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Lru {}

impl EvictionPolicy for Lru {
    fn hit_cost(&self) -> HitCost {
        HitCost::Lock
    }

    fn orders(&self, shards: usize, _capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        let order = || Box::new(LruOrder(LruCache::unbounded())) as Box<dyn EvictionOrder>;
        std::iter::repeat_with(order).take(shards).collect()
    }
}

#[derive(Debug)]
struct LruOrder(LruCache<u32, ()>);

impl EvictionOrder for LruOrder {
    fn admit(&mut self, slot: u32, _hash: u64) {
        self.0.put(slot, ());
    }

    fn touch(&mut self, slot: u32, _hash: u64) {
        self.0.promote(&slot);
    }

    fn victim(&mut self, _entries: &dyn Entries) -> u32 {
        self.0.pop_lru().expect("there is at least one entry").0
    }

    fn forget(&mut self, slot: u32) {
        self.0.pop(&slot);
    }

    fn resize(&mut self, _capacity: usize) {}

    fn hottest(&self) -> Vec<u32> {
        self.0.iter().map(|(slot, ())| *slot).collect()
    }
}

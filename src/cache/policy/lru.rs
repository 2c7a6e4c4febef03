use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use lru::LruCache;

/// The least recently used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lru;

impl EvictionPolicy for Lru {
    fn hit_cost(&self) -> HitCost {
        HitCost::Lock
    }
    fn orders(&self, shards: usize, _: usize) -> Vec<Box<dyn EvictionOrder>> {
        (0..shards)
            .map(|_| Box::new(Order(LruCache::unbounded())) as _)
            .collect()
    }
}

struct Order(LruCache<u32, ()>);

impl EvictionOrder for Order {
    fn admit(&mut self, slot: u32, _: u64) {
        self.0.put(slot, ());
    }
    fn replace(&mut self, old: u32, new: u32) {
        self.0.pop(&old);
        self.0.put(new, ());
    }
    fn touch(&mut self, slot: u32, _: u64) {
        self.0.promote(&slot);
    }
    fn victim(&mut self, _: &dyn Entries) -> u32 {
        self.0.pop_lru().expect("there is an entry").0
    }
    fn forget(&mut self, slot: u32) {
        self.0.pop(&slot);
    }
    fn resize(&mut self, _: usize) {}
    fn hottest(&self) -> Vec<u32> {
        self.0.iter().map(|(slot, ())| *slot).collect()
    }
}

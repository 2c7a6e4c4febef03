use super::sketch::Sketch;
use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use ::lru::LruCache;

/// W-TinyLFU: a newcomer takes a member's place only if it was asked for more often (Einziger, Friedman and Manes, TOS 2017).
///
/// Newcomers pass through a window, a tenth of the places, in order of use. Whoever falls out of it contends with the
/// member that was not used the longest: a sketch says which of the two was asked for more often lately. Members that
/// were asked for again are protected, up to four fifths of the members' places. It suits keys whose popularity is
/// skewed and lasts. Every hit takes the shard's lock.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WTinyLfu {}

impl EvictionPolicy for WTinyLfu {
    fn hit_cost(&self) -> HitCost {
        HitCost::Lock
    }

    fn orders(&self, shards: usize, _capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        let order = || Box::new(WTinyLfuOrder::new()) as Box<dyn EvictionOrder>;
        std::iter::repeat_with(order).take(shards).collect()
    }
}

/// A part of the cache in order of use; by slot, the hash of its key.
type Part = LruCache<u32, u64>;

#[derive(Debug)]
struct WTinyLfuOrder {
    window: Part,
    probation: Part,
    protected: Part,
    sketch: Sketch,
}

impl WTinyLfuOrder {
    fn new() -> WTinyLfuOrder {
        WTinyLfuOrder {
            window: LruCache::unbounded(),
            probation: LruCache::unbounded(),
            protected: LruCache::unbounded(),
            sketch: Sketch::default(),
        }
    }

    fn members(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    fn entries(&self) -> usize {
        self.window.len() + self.members()
    }

    fn window_places(&self) -> usize {
        (self.entries() * WINDOW_PERCENT / 100).max(1)
    }

    fn used(&mut self, slot: u32) {
        if self.window.promote(&slot) || self.protected.promote(&slot) {
            return;
        }
        let hash = self.probation.pop(&slot).expect("an entry is in one of the parts");
        self.protected.put(slot, hash);
        if self.protected.len() > self.members() * PROTECTED_PERCENT / 100 {
            let (slot, hash) = self.protected.pop_lru().expect("it just got an entry");
            self.probation.put(slot, hash);
        }
    }

    /// The member that was not used the longest, one on probation before a protected one.
    fn weakest(&mut self) -> Option<(u32, u64)> {
        self.probation.pop_lru().or_else(|| self.protected.pop_lru())
    }
}

impl EvictionOrder for WTinyLfuOrder {
    fn admit(&mut self, slot: u32, hash: u64) {
        self.sketch.count(hash, self.entries() + 1);
        self.window.put(slot, hash);
        // Until the cache is full, nobody has to contend for a place.
        let member_places = self.entries() - self.window_places();
        while self.members() < member_places {
            let (slot, hash) = self.window.pop_lru().expect("the window holds more than its share");
            self.probation.put(slot, hash);
        }
    }

    fn touch(&mut self, slot: u32, hash: u64) {
        self.sketch.count(hash, 0);
        self.used(slot);
    }

    fn victim(&mut self, _entries: &dyn Entries) -> u32 {
        if self.window.len() < self.window_places()
            && let Some((slot, _)) = self.weakest()
        {
            return slot;
        }
        let Some((candidate, hash)) = self.window.pop_lru() else {
            return self.weakest().expect("there is at least one entry").0;
        };
        let Some((member, member_hash)) = self.weakest() else {
            return candidate;
        };
        if self.sketch.estimate(hash) > self.sketch.estimate(member_hash) {
            self.probation.put(candidate, hash);
            member
        } else {
            // Back to where it was: the end of its part.
            self.probation.put(member, member_hash);
            self.probation.demote(&member);
            candidate
        }
    }

    fn forget(&mut self, slot: u32) {
        for part in [&mut self.window, &mut self.probation, &mut self.protected] {
            part.pop(&slot);
        }
    }

    fn resize(&mut self, _capacity: usize) {}

    fn hottest(&self) -> Vec<u32> {
        let parts = [&self.protected, &self.window, &self.probation];
        parts.into_iter().flat_map(Part::iter).map(|(slot, _)| *slot).collect()
    }
}

/// Share of the places that newcomers get, in percent.
const WINDOW_PERCENT: usize = 10;
/// Share of the members' places for those that were asked for again, in percent.
const PROTECTED_PERCENT: usize = 80;

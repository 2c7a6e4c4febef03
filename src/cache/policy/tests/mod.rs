//! Each policy beside the dumbest thing that does the same, and the default one on requests that show each of its rules.

mod adaptive;
mod books;
mod twins;

use super::*;
use std::cell::Cell;
use std::collections::BTreeMap;

/// A cache of one shard whose values are nothing: as much as a policy needs around it.
struct Toy {
    order: Box<dyn EvictionOrder>,
    cost: HitCost,
    capacity: usize,
    slots: Slots,
    at: BTreeMap<u64, u32>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slots {
    marks: Vec<Cell<u8>>,
    keys: Vec<u64>,
}

impl Entries for Slots {
    fn mark(&self, slot: u32) -> u8 {
        self.marks[slot as usize].get()
    }

    fn set_mark(&self, slot: u32, mark: u8) {
        self.marks[slot as usize].set(mark);
    }

    fn hash(&self, slot: u32) -> u64 {
        hash(self.keys[slot as usize])
    }
}

impl Toy {
    fn new(policy: &dyn EvictionPolicy, capacity: usize) -> Toy {
        let order = policy.orders(1, capacity).pop().unwrap();
        Toy::around(order, policy.hit_cost(), capacity)
    }

    fn around(order: Box<dyn EvictionOrder>, cost: HitCost, capacity: usize) -> Toy {
        Toy {
            order,
            cost,
            capacity,
            slots: Slots::default(),
            at: BTreeMap::new(),
            free: Vec::new(),
        }
    }

    /// Asks for `key`, and takes it in where it is missing. Says whether it was there.
    fn ask(&mut self, key: u64) -> bool {
        let Some(slot) = self.at.get(&key).copied() else {
            self.insert(key);
            return false;
        };
        self.hit(slot);
        if self.cost == HitCost::Lock {
            self.order.touch(slot, hash(key));
        }
        true
    }

    /// Takes in `key`, which is missing. Returns who left for it.
    fn insert(&mut self, key: u64) -> Option<u64> {
        let gone = (self.at.len() >= self.capacity).then(|| self.evict());
        let slot = self.slot(key, 0);
        self.order.admit(slot, hash(key));
        gone
    }

    fn evict(&mut self) -> u64 {
        let slot = self.order.victim(&self.slots);
        let key = self.slots.keys[slot as usize];
        assert_eq!(self.at.remove(&key), Some(slot), "who leaves was there");
        self.free.push(slot);
        key
    }

    fn remove(&mut self, key: u64) {
        if let Some(slot) = self.at.remove(&key) {
            self.order.forget(slot);
            self.free.push(slot);
        }
    }

    /// Writes `key` anew if it is there.
    fn update(&mut self, key: u64) {
        if let Some(slot) = self.at.get(&key).copied() {
            self.hit(slot);
            if self.cost == HitCost::Lock {
                self.order.touch(slot, hash(key));
            }
        }
    }

    /// The share of `keys` that were there when asked for.
    fn ratio(&mut self, keys: impl IntoIterator<Item = u64>) -> f64 {
        let (mut asked, mut hits) = (0, 0);
        for key in keys {
            asked += 1;
            hits += u32::from(self.ask(key));
        }
        f64::from(hits) / f64::from(asked)
    }

    fn hit(&self, slot: u32) {
        if let HitCost::Mark { max } = self.cost {
            self.slots.set_mark(slot, (self.slots.mark(slot) + 1).min(max));
        }
    }

    /// A place for `key`: the one that was freed last, which is the unkindest to a policy.
    fn slot(&mut self, key: u64, mark: u8) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.marks.push(Cell::new(0));
            self.slots.keys.push(0);
            self.slots.keys.len() as u32 - 1
        });
        self.slots.keys[slot as usize] = key;
        self.slots.set_mark(slot, mark);
        self.at.insert(key, slot);
        slot
    }
}

/// As of a good hasher; its bits 16 to 30 tell the keys below 32,767 apart for certain, and are not all zero.
fn hash(key: u64) -> u64 {
    let high = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !0xffff_ffff;
    high | (key % 0x7fff + 1) << 16
}

/// Every policy with its name.
fn all() -> Vec<(&'static str, Box<dyn EvictionPolicy>)> {
    vec![
        ("adaptive", Box::new(Adaptive::default())),
        ("s3-fifo", Box::new(S3Fifo::default())),
        ("w-tinylfu", Box::new(WTinyLfu::default())),
        ("sieve", Box::new(Sieve::default())),
        ("lru", Box::new(Lru::default())),
    ]
}

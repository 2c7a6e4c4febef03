#![allow(unsafe_code, reason = "a pair that leaves a slot which others read has no safe form")]

//! Moving a shard's entries into other memory, so that a cache that was made smaller gives back what it took.
//!
//! A slot never moves while anyone may read it. So the entries are taken out of the index first, as if they had left; once
//! the epoch says that nobody holds one any more, their pairs go to new slots, which are then named in a new index. All
//! of it happens under the shard's lock: writers wait, readers miss. If readers hold on for long, the entries are named
//! again where they are.

use super::super::arena::{self, Part};
use super::super::extra::Extra;
use super::super::index::{self, Bucket, Index, MAX_SLOTS};
use super::super::word::{Reading, Word};
use super::{CHUNK, CROWDED, Dead, FEW, Locked, Map, Pair, Slab, Slot, planned_slots};
use crate::sync::pins;
use crate::sync::{AtomicU32, Ordering};
use std::mem::MaybeUninit;

/// How often others are let run so that readers end.
const PATIENCE: usize = 100;

/// What became of a relocation.
pub(in crate::cache) enum Relocated<K, V> {
    /// The entries have new slots, below the number `slots`.
    Moved {
        moves: Vec<Moved>,
        slots: u32,
        /// What had left before, to be dropped when the lock is let go.
        dead: Vec<Dead<K, V>>,
    },
    /// Readers held on to what they read; everything is as it was.
    HeldBack,
}

/// An entry that has another slot now.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct Moved {
    pub(in crate::cache) old: u32,
    pub(in crate::cache) new: u32,
    pub(in crate::cache) deadline: u64,
    /// By which the policy knows it.
    pub(in crate::cache) number: u16,
}

impl<K, V, X> Slab<K, V, X> {
    /// How many slots there is memory for.
    pub(in crate::cache) fn slots(&self) -> usize {
        self.map.load(&pins::pin()).slots()
    }

    /// How many slots a shard gets that is planned for so many entries.
    pub(in crate::cache) fn slots_for(&self, entries: usize) -> usize {
        planned_slots(Some(entries), self.writer.lock().patience as usize)
    }

    /// Drops maps that were replaced and nobody reads any more.
    pub(in crate::cache) fn free_maps(&self) {
        self.map.free();
    }
}

impl<K, V> Map<K, V> {
    fn slots(&self) -> usize {
        self.planned.len() + self.further.len() * CHUNK
    }
}

impl<K, V, X> Locked<'_, K, V, X> {
    /// A number that changes whenever slots get or may get other numbers.
    pub(in crate::cache) fn layout(&self) -> u32 {
        self.writer.layout
    }

    /// Moves all entries to slots of memory planned for `entries`, or for as many as there are if these are more.
    ///
    /// `order` names every live slot once. The moves are such that no slot is given to one entry while another, which
    /// comes later in that order, still has its number. Not to be called under a pin of this thread.
    pub(in crate::cache) fn relocate(
        &mut self,
        entries: usize,
        order: &[u32],
        hash_of: &impl Fn(&K) -> u64,
    ) -> Relocated<K, V> {
        debug_assert_eq!(order.len(), self.writer.len, "the order names every entry");
        if order.len() + 1 >= MAX_SLOTS as usize {
            return Relocated::HeldBack;
        }
        let (hashes, buckets) = self.hide(order, hash_of);
        let stamp = pins::stamp();
        let mut tries = 0;
        while !pins::is_free(stamp, pins::advance()) {
            tries += 1;
            if tries > PATIENCE {
                self.show_again(order, buckets);
                return Relocated::HeldBack;
            }
            std::thread::yield_now();
        }
        let mut numbers = Numbers::new(order.len() as u32 + 1, order);
        let moves: Vec<Moved> = order.iter().map(|slot| numbers.next(*slot)).collect();
        let entries = entries.max(order.len() + 1);
        let Some(named) = named(entries, &moves.iter().map(|moved| moved.new).zip(hashes)) else {
            self.show_again(order, buckets);
            return Relocated::HeldBack;
        };
        self.move_all(entries, moves, numbers, named)
    }

    /// Takes every entry out of the readers' sight, and gives its hash, and the buckets that name them. User code runs
    /// before anything is changed.
    fn hide(&mut self, order: &[u32], hash_of: &impl Fn(&K) -> u64) -> (Vec<u64>, Part<Bucket>) {
        let pin = pins::pin();
        let map = self.slab.map.load(&pin);
        let hashes = order.iter().map(|slot| hash_of(self.at(*slot, &pin).key())).collect();
        self.writer.layout = self.writer.layout.wrapping_add(1);
        for slot in order {
            self.at(*slot, &pin).word.hide();
        }
        let none = arena::buckets(1, 1).next();
        let buckets = map.buckets.clone();
        self.slab.map.store(map.with(none, None));
        (hashes, buckets)
    }

    /// Undoes [`hide`](Self::hide).
    fn show_again(&mut self, order: &[u32], buckets: Part<Bucket>) {
        let pin = pins::pin();
        let map = self.slab.map.load(&pin);
        for slot in order {
            // SAFETY: it was live when it was hidden, and has not been moved.
            unsafe { map.used(*slot) }.word.revive();
        }
        self.slab.map.store(map.with(Some(buckets), None));
    }

    /// Moves what was hidden, and nobody reads any more, to new memory.
    fn move_all(
        &mut self,
        entries: usize,
        moves: Vec<Moved>,
        numbers: Numbers,
        named: Part<Bucket>,
    ) -> Relocated<K, V> {
        let pin = pins::pin();
        let old = self.slab.map.load(&pin);
        let planned = arena::uninit(1, planned_slots(Some(entries), self.writer.patience as usize)).next();
        let planned = planned.expect("one part was asked for");
        let used = moves.len() as u32 + 1;
        let new = Map::new(named, planned);
        for slot in 0..used {
            let place = new.place(slot).expect("more was planned for").as_ptr().cast_mut();
            // SAFETY: the memory is this call's alone, and a slot is made of cells, so it may be written through a shared
            // reference.
            unsafe { (&raw mut (*place).word).write(Word::default()) };
        }
        let moves = moves
            .into_iter()
            .map(|moved| {
                // SAFETY: the slot was retired and unnamed before the stamp was taken, and every pin from before is gone:
                // nobody holds its entry, and the lock is held. It is not read again, since no later map has it, and the
                // memory that it is in drops nothing.
                let (read, pair, extra) = unsafe { old.take_pair(moved.old) };
                // SAFETY: its word has just been written; nobody else has the map.
                let place = unsafe { new.used(moved.new) };
                // SAFETY: as above; what was there is not initialised, or nothing.
                unsafe { place.pair.get().write(pair) };
                if extra.is_some() {
                    // SAFETY: as above.
                    unsafe { *new.extra(moved.new).get() = extra };
                }
                let number = read.number() as u16;
                place.word.publish(read.deadline(), read.mark(), read.kind(), number);
                Moved {
                    deadline: read.deadline(),
                    number,
                    ..moved
                }
            })
            .collect();
        new.used.store(used, Ordering::Release);
        let mut dead = Vec::new();
        for slot in std::mem::take(&mut self.writer.retired).slots() {
            // SAFETY: what had been retired was so before the stamp; each is named once, and its memory is left behind.
            dead.extend(unsafe { old.take(slot) });
        }
        self.writer.free = numbers.free().into_iter().map(|slot| slot as u16).collect();
        self.slab.map.store(new);
        Relocated::Moved {
            moves,
            slots: used,
            dead,
        }
    }
}

impl<K, V> Map<K, V> {
    /// Takes the pair out of a slot that is hidden.
    ///
    /// # Safety
    /// Nobody can reach the slot, and it is not used again.
    unsafe fn take_pair(&self, slot: u32) -> (Reading, MaybeUninit<Pair<K, V>>, Option<Box<Extra>>) {
        // SAFETY: it was live, so it has been used.
        let entry: &Slot<K, V> = unsafe { self.used(slot) };
        let read = entry.word.read();
        // SAFETY: the caller has the slot to itself, and this moves the pair out of it.
        let pair = unsafe { entry.pair.get().read() };
        // SAFETY: as for the pair.
        let extra = read.kind().extra.then(|| unsafe { (*self.extra(slot).get()).take() });
        (read, pair, extra.flatten())
    }
}

/// Buckets for so many entries or more, with these slots under these hashes. None where too many hashes are alike.
fn named(entries: usize, names: &(impl Iterator<Item = (u32, u64)> + Clone)) -> Option<Part<Bucket>> {
    let least = entries.max(FEW);
    let mut entries = entries;
    while entries < CROWDED * least {
        let buckets = arena::buckets(1, index::buckets_for(entries)).next()?;
        let moves = AtomicU32::new(0);
        let index = Index::new(buckets.all(), &moves);
        let name = |(slot, hash)| {
            index.insert(index.vacancy(hash)?, slot);
            Some(())
        };
        if names.clone().try_for_each(name).is_some() {
            return Some(buckets);
        }
        entries += (entries / 4).max(16);
    }
    None
}

/// Deals out the numbers below `end`, of which there is one more than entries, so that one is always free.
struct Numbers {
    taken: Vec<bool>,
    next: u32,
    /// Numbers that entries had, and have left.
    left: Vec<u32>,
}

impl Numbers {
    fn new(end: u32, order: &[u32]) -> Numbers {
        let mut taken = vec![false; end as usize];
        for slot in order {
            if let Some(taken) = taken.get_mut(*slot as usize) {
                *taken = true;
            }
        }
        Numbers {
            taken,
            next: 0,
            left: Vec::new(),
        }
    }

    /// A new number for the entry at `old`.
    fn next(&mut self, old: u32) -> Moved {
        while self.taken.get(self.next as usize).is_some_and(|taken| *taken) {
            self.next += 1;
        }
        let new = if (self.next as usize) < self.taken.len() {
            self.taken[self.next as usize] = true;
            self.next
        } else {
            self.left.pop().expect("there is one number more than entries")
        };
        if (old as usize) < self.taken.len() {
            self.left.push(old);
        }
        Moved {
            old,
            new,
            deadline: 0,
            number: 0,
        }
    }

    /// What nobody got.
    fn free(self) -> Vec<u32> {
        let taken = self.taken.iter().zip(0..);
        let never = taken.filter(|(taken, _)| !**taken).map(|(_, number)| number);
        never.chain(self.left).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn no_number_is_given_while_another_has_it(slots in prop::collection::btree_set(0_u32..60, 0..40)) {
            let order: Vec<u32> = slots.iter().rev().copied().collect();
            let end = order.len() as u32 + 1;
            let mut numbers = Numbers::new(end, &order);
            let mut held: BTreeSet<u32> = slots;
            for old in &order {
                let moved = numbers.next(*old);
                prop_assert!(moved.new < end && !held.contains(&moved.new), "{moved:?} of {held:?}");
                prop_assert!(held.remove(&moved.old) && held.insert(moved.new));
            }
            let free: Vec<u32> = numbers.free();
            prop_assert_eq!(free.len(), 1);
            prop_assert!(free[0] < end && !held.contains(&free[0]));
        }
    }
}

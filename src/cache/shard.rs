use super::order::{Order, Policy};
use super::s3fifo::Mark;
use crate::env::Tick;
use hashbrown::HashTable;
use std::borrow::Borrow;
use std::collections::BTreeSet;

/// The most expired entries that one write frees, beside what it puts in: so many writes free twice as many places.
const RECLAIM_PER_WRITE: usize = 2;
/// Those, the entry that was replaced after its time, and the one written when its own time had come.
const GONE_MAX: usize = RECLAIM_PER_WRITE + 2;

/// One part of a cache: entries in slots, found by hash, ordered by the policy, and dated where they expire.
///
/// Plain data: whoever holds it gives the time. It holds at most `capacity` entries at any moment.
#[derive(Debug)]
pub(super) struct Shard<K, V> {
    capacity: usize,
    policy: Policy,
    /// Slots by the hash of their key.
    table: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    order: Order,
    /// The slots whose entry expires, soonest first.
    dated: BTreeSet<(Tick, u32)>,
    /// How many loads are under way for keys that live here; while there are none, a write need not look for them.
    pub(super) loading: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    hash: u64,
    /// [`Tick::MAX`] for an entry that never expires.
    deadline: Tick,
    mark: Mark,
    /// `None` in a free slot.
    entry: Option<(K, V)>,
}

/// What a write took out, for the caller to drop when it no longer holds the shard: a destructor may be slow, or
/// use the cache.
#[derive(Debug)]
pub(super) struct Gone<K, V> {
    /// The entry that was replaced or removed, if it had not expired.
    pub(super) old: Option<(K, V)>,
    /// How many were dropped because they had expired.
    pub(super) expired: usize,
    /// How many had to make room.
    pub(super) evicted: usize,
    others: [Option<(K, V)>; GONE_MAX],
}

impl<K, V> Shard<K, V> {
    pub(super) fn new(capacity: usize, policy: Policy) -> Shard<K, V> {
        Shard {
            capacity,
            policy,
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: Order::new(policy, capacity),
            dated: BTreeSet::new(),
            loading: 0,
        }
    }

    /// How many entries it holds, expired ones that nothing has freed yet included.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether any entry expires, so that a write needs the time.
    pub(super) fn has_dated(&self) -> bool {
        !self.dated.is_empty()
    }

    /// Takes everything out. Loads under way are still counted.
    pub(super) fn take_all(&mut self) -> Shard<K, V> {
        let mut empty = Shard::new(self.capacity, self.policy);
        empty.loading = self.loading;
        std::mem::replace(self, empty)
    }

    /// Takes the entry out of `slot`, which is in the table no more.
    fn vacate(&mut self, slot: u32) -> Option<(K, V)> {
        let place = &mut self.slots[slot as usize];
        if place.deadline != Tick::MAX {
            self.dated.remove(&(place.deadline, slot));
        }
        self.free.push(slot);
        place.entry.take()
    }

    /// Takes a slot out of the table.
    fn unlist(&mut self, slot: u32) {
        let hash = self.slots[slot as usize].hash;
        let listed = self.table.find_entry(hash, |other| *other == slot);
        listed.expect("a slot in use is in the table").remove();
    }

    /// Frees a few of the entries that had expired by `now`.
    fn reclaim(&mut self, now: Tick, gone: &mut Gone<K, V>) {
        for _ in 0..RECLAIM_PER_WRITE {
            match self.dated.first() {
                Some(&(deadline, slot)) if deadline <= now => {
                    self.unlist(slot);
                    self.order.forget(slot);
                    gone.put(self.vacate(slot));
                    gone.expired += 1;
                }
                _ => return,
            }
        }
    }

    fn evict(&mut self, gone: &mut Gone<K, V>) {
        let slots = &self.slots;
        let slot = self.order.victim(|slot| {
            let place = &slots[slot as usize];
            (&place.mark, place.hash)
        });
        self.unlist(slot);
        gone.put(self.vacate(slot));
        gone.evicted += 1;
    }
}

impl<K: Eq, V> Shard<K, V> {
    fn find<Q: Eq + ?Sized>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        let is_it = |slot: &u32| matches!(&self.slots[*slot as usize].entry, Some((k, _)) if k.borrow() == key);
        self.table.find(hash, is_it).copied()
    }

    /// The value under `key` unless it has expired, as `is_past` says of its deadline, which it is asked only where
    /// there is one. Leaves no mark.
    #[inline]
    pub(super) fn peek<Q: Eq + ?Sized>(&self, hash: u64, key: &Q, is_past: impl FnOnce(Tick) -> bool) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.live(self.find(hash, key)?, is_past)
    }

    /// As [`peek`](Shard::peek), counted as a hit where the policy needs no lock for that.
    #[inline]
    pub(super) fn get<Q: Eq + ?Sized>(&self, hash: u64, key: &Q, is_past: impl FnOnce(Tick) -> bool) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let slot = self.find(hash, key)?;
        let value = self.live(slot, is_past)?;
        self.slots[slot as usize].mark.count();
        Some(value)
    }

    /// As [`peek`](Shard::peek), counted as a hit where the policy moves the entry.
    #[inline]
    pub(super) fn get_mut<Q: Eq + ?Sized>(
        &mut self,
        hash: u64,
        key: &Q,
        is_past: impl FnOnce(Tick) -> bool,
    ) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let slot = self.find(hash, key)?;
        self.live(slot, is_past)?;
        self.order.touch(slot);
        self.slots[slot as usize].entry.as_ref().map(|(_, value)| value)
    }

    #[inline]
    fn live(&self, slot: u32, is_past: impl FnOnce(Tick) -> bool) -> Option<&V> {
        let place = &self.slots[slot as usize];
        if place.deadline != Tick::MAX && is_past(place.deadline) {
            return None;
        }
        place.entry.as_ref().map(|(_, value)| value)
    }

    /// Puts an entry in, replacing the one under its key or making room. One whose deadline has come is not kept.
    pub(super) fn insert(&mut self, hash: u64, key: K, value: V, deadline: Tick, now: Tick) -> Gone<K, V> {
        if deadline <= now {
            let mut gone = self.remove(hash, &key, now);
            gone.put(Some((key, value)));
            return gone;
        }
        let mut gone = Gone::nothing();
        if let Some(slot) = self.find(hash, &key) {
            self.replace(slot, (key, value), deadline, now, &mut gone);
            self.reclaim(now, &mut gone);
            return gone;
        }
        self.reclaim(now, &mut gone);
        if self.len() == self.capacity {
            self.evict(&mut gone);
        }
        let slot = self.occupy(Slot {
            hash,
            deadline,
            mark: Mark::default(),
            entry: Some((key, value)),
        });
        self.table
            .insert_unique(hash, slot, |slot| self.slots[*slot as usize].hash);
        self.order.admit(slot, hash);
        gone
    }

    /// Takes out the entry under `key`.
    pub(super) fn remove<Q: Eq + ?Sized>(&mut self, hash: u64, key: &Q, now: Tick) -> Gone<K, V>
    where
        K: Borrow<Q>,
    {
        let mut gone = Gone::nothing();
        if let Some(slot) = self.find(hash, key) {
            let deadline = self.slots[slot as usize].deadline;
            self.unlist(slot);
            self.order.forget(slot);
            let entry = self.vacate(slot);
            gone.replaced(entry, deadline, now);
        }
        self.reclaim(now, &mut gone);
        gone
    }

    fn replace(&mut self, slot: u32, entry: (K, V), deadline: Tick, now: Tick, gone: &mut Gone<K, V>) {
        let place = &mut self.slots[slot as usize];
        let before = std::mem::replace(&mut place.deadline, deadline);
        let old = place.entry.replace(entry);
        place.mark.count();
        self.order.touch(slot);
        if before != deadline {
            self.dated.remove(&(before, slot));
            self.date(slot, deadline);
        }
        gone.replaced(old, before, now);
    }

    fn occupy(&mut self, place: Slot<K, V>) -> u32 {
        let deadline = place.deadline;
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = place;
            slot
        } else {
            self.slots.push(place);
            self.slots.len() as u32 - 1
        };
        self.date(slot, deadline);
        slot
    }

    fn date(&mut self, slot: u32, deadline: Tick) {
        if deadline != Tick::MAX {
            self.dated.insert((deadline, slot));
        }
    }
}

impl<K, V> Gone<K, V> {
    fn nothing() -> Gone<K, V> {
        Gone {
            old: None,
            expired: 0,
            evicted: 0,
            others: [const { None }; GONE_MAX],
        }
    }

    /// Keeps what a later drop of `self` drops.
    fn put(&mut self, entry: Option<(K, V)>) {
        let place = self.others.iter_mut().find(|place| place.is_none());
        *place.expect("a write takes out no more than it has places for") = entry;
    }

    /// Keeps the entry of the key that was written, which counts as expired when its time had come.
    fn replaced(&mut self, entry: Option<(K, V)>, deadline: Tick, now: Tick) {
        if deadline <= now {
            self.expired += 1;
            self.put(entry);
        } else {
            self.old = entry;
        }
    }
}

use super::InsertOptions;
use super::budget::{Room, Size};
use super::extra::Extra;
use super::inner::{Inner, Standing};
use super::patience::Patience;
use super::removal::{Inserted, Listener, Rejected, Removal};
use super::room::{Search, missing};
use super::shard::LockedShard;
use super::slab::{Dead, Located, New, NoSlot, Slot};
use super::stats::Count;
use super::time::millis;
use super::word::NEVER;
use crate::env::Tick;
use crate::sync::pins::{self, Pin};
use std::hash::{BuildHasher, Hash};

/// The most entries that one write takes out because their time has come, and the most that it looks at because a tag
/// has ended.
const TIDY_PER_WRITE: usize = 8;
/// Retired entries that a write drops beside the one whose slot it takes.
const RECLAIM_PER_WRITE: usize = 2;

/// An entry on its way in.
pub(super) struct Incoming<K, V> {
    pub(super) hash: u64,
    pub(super) key: K,
    /// `None` for a key that is known to have no value.
    pub(super) value: Option<V>,
    pub(super) weight: u64,
    pub(super) deadline: u64,
    pub(super) idle: bool,
    pub(super) extra: Option<Box<Extra>>,
    /// What is under its key stays while there is no slot for it.
    pub(super) spares: bool,
}

impl<K, V> Incoming<K, V> {
    fn pair(self) -> Option<(K, V)> {
        Some((self.key, self.value?))
    }
}

/// What a write took out, to be told of and dropped when no lock is held any more.
pub(super) struct Gone<'p, K, V> {
    left: Vec<(&'p Slot<K, V>, Removal)>,
    rejected: Option<(K, V)>,
    dead: [Option<Dead<K, V>>; 1 + RECLAIM_PER_WRITE],
}

/// Why an entry is not put in. It stays with the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The condition did not hold.
    Condition,
    /// There is no slot for it now.
    NoSlot,
}

impl<'p, K, V> Gone<'p, K, V> {
    pub(super) fn new() -> Gone<'p, K, V> {
        Gone {
            left: Vec::new(),
            rejected: None,
            dead: [const { None }; 1 + RECLAIM_PER_WRITE],
        }
    }

    fn dead(&mut self, dead: Option<Dead<K, V>>) {
        if dead.is_some() {
            let place = self.dead.iter_mut().find(|place| place.is_none());
            *place.expect("a write drops no more than it has places for") = dead;
        }
    }

    /// Tells of what left.
    #[inline]
    pub(super) fn tell(&self, listener: Option<&Listener<K, V>>) {
        let Some(listener) = listener else { return };
        for (entry, why) in &self.left {
            if let Some(value) = entry.value() {
                listener(entry.key(), value, *why);
            }
        }
        if let Some((key, value)) = &self.rejected {
            listener(key, value, Removal::Rejected);
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Puts a value in, waiting a little for readers that hold memory back.
    #[inline]
    pub(super) fn insert(&self, key: K, value: V) -> Inserted {
        if !self.is_plain {
            return self.insert_further(key, value, &InsertOptions::new());
        }
        match self.put_plain(key, value) {
            Ok(inserted) => inserted,
            Err((key, value)) => self.insert_further(key, value, &InsertOptions::new()),
        }
    }

    /// As [`insert`](Self::insert), with options.
    pub(super) fn insert_with(&self, key: K, value: V, options: &InsertOptions) -> Inserted {
        if options.is_plain() {
            self.insert(key, value)
        } else {
            self.insert_further(key, value, options)
        }
    }

    #[inline(never)]
    fn insert_further(&self, key: K, value: V, options: &InsertOptions) -> Inserted {
        let mut incoming = Some(self.incoming(key, Some(value), options));
        let mut patience = Patience::new();
        loop {
            let pin = pins::pin();
            let mut gone = Gone::new();
            let put = self.put_over_loads(&mut incoming, &pin, &mut gone);
            gone.tell(self.listener.as_ref());
            if let Ok(inserted) = put {
                return inserted;
            }
            drop(gone);
            drop(pin);
            if !patience.wait() {
                return self.reject(incoming, Rejected::HeldBack);
            }
        }
    }

    /// Puts an entry in, which it takes, unless there is no slot for it; what is being loaded for its key will not be
    /// stored.
    pub(super) fn put_over_loads<'p>(
        &'p self,
        incoming: &mut Option<Incoming<K, V>>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Result<Inserted, Refused> {
        let nothing_loads = |locked: &mut LockedShard<'p, K, V>, _| locked.state().loading == 0;
        match self.put(incoming, nothing_loads, pin, gone) {
            Err(Refused::Condition) => self.put_held(incoming, |_, _| true, pin, gone),
            put => put,
        }
    }

    /// As [`put`](Self::put); what is being loaded for the key will not be stored.
    #[cold]
    pub(super) fn put_held<'p>(
        &'p self,
        incoming: &mut Option<Incoming<K, V>>,
        allows: impl Fn(&mut LockedShard<'p, K, V>, Option<Located>) -> bool,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Result<Inserted, Refused> {
        let new = incoming.as_ref().expect("what was refused stays");
        let mut held = self.flights.hold(new.hash);
        let detached = held.remove(new.hash, &new.key, |_| true);
        self.shard(new.hash).lock().state().loading -= usize::from(detached.is_some());
        let put = self.put(incoming, allows, pin, gone);
        drop(held);
        drop(detached);
        put
    }

    /// An entry, with all that can be said of it before a lock is taken.
    pub(super) fn incoming(&self, key: K, value: Option<V>, options: &InsertOptions) -> Incoming<K, V> {
        let weight = match (&value, &self.weigher) {
            _ if !self.budget.is_weighted() => 0,
            (Some(value), Some(weigher)) => options.weight.unwrap_or_else(|| weigher(&key, value)),
            _ => options.weight.unwrap_or(1),
        };
        let of_value = match (&value, &self.expiry) {
            (Some(value), Some(expiry)) => expiry(&key, value),
            _ => None,
        };
        let ttl = match &value {
            Some(_) => options.ttl.or(of_value).or(self.settings.ttl),
            None => options.ttl.or(self.settings.negative_ttl),
        };
        let idle = options.idle.or(self.settings.idle).filter(|_| value.is_some());
        let start = if ttl.is_some() || idle.is_some() {
            self.time.read()
        } else {
            Tick::ZERO
        };
        let grace = if value.is_some() { self.grace } else { 0 };
        let latest = ttl.map_or(NEVER, |ttl| {
            let until = self.time.after(start, self.jittered(ttl));
            // What has expired by now gets no grace.
            if until <= self.time.at(start) {
                0
            } else {
                until.saturating_add(grace).min(NEVER - 1)
            }
        });
        Incoming {
            hash: self.hash(&key),
            deadline: idle.map_or(latest, |idle| self.time.after(start, idle).min(latest)),
            idle: idle.is_some(),
            extra: self.extra(options, idle.and(ttl).map(|_| latest)),
            spares: false,
            key,
            value,
            weight,
        }
    }

    /// What does not fit into an entry's word.
    #[inline]
    fn extra(&self, options: &InsertOptions, latest: Option<u64>) -> Option<Box<Extra>> {
        let extra = Extra {
            latest,
            idle: options.idle.map(millis),
            tags: match &options.tags[..] {
                [] => Box::default(),
                tags => tags.iter().map(|tag| self.tags.stamp(tag)).collect(),
            },
        };
        (!extra.is_empty()).then(|| Box::new(extra))
    }

    /// Puts an entry in, which it takes, if `allows` says so of what is under its key, which may have expired.
    pub(super) fn put<'p>(
        &'p self,
        incoming: &mut Option<Incoming<K, V>>,
        allows: impl Fn(&mut LockedShard<'p, K, V>, Option<Located>) -> bool,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Result<Inserted, Refused> {
        let new = incoming.as_ref().expect("there is an entry to put in");
        let hash = new.hash;
        let shard = self.shard(hash);
        let mut locked = shard.lock();
        let now = self.now_for(&mut locked, new.deadline);
        let mut room = self.budget.room();
        let size = Size {
            count: 1,
            weight: new.weight,
        };
        let old = loop {
            let old = locked.find(hash, &new.key, pin);
            if !allows(&mut locked, old) {
                return Err(Refused::Condition);
            }
            if let Some(why) = self.judge_incoming(new, now) {
                self.take_out_with(&mut locked, old, Removal::Replaced, pin, gone);
                drop(locked);
                self.counters.removed(pin, Removal::Rejected);
                gone.rejected = incoming.take().and_then(Incoming::pair);
                return Ok(Inserted::Rejected(why));
            }
            self.tidy(&mut locked, now, &mut room, pin, gone);
            let old = old.filter(|old| shard.at(old.slot, pin).is_some());
            match self.find_room(&mut locked, old, size, &mut room, pin, gone) {
                Search::Room(old) => break old,
                Search::NotHere => {
                    drop(locked);
                    self.find_room_elsewhere(hash, size, &mut room, pin, gone);
                    locked = shard.lock();
                }
            }
        };
        let place_of = old.ok_or_else(|| self.vacancy(&mut locked, hash, &mut room, pin, gone));
        let mut dead = None;
        let slot = match locked.take_slot(&mut dead, pin) {
            Ok(slot) => slot,
            Err(why) => {
                // Whatever is under the key is not what the caller wants there.
                let old = old.filter(|_| !incoming.as_ref().is_some_and(|new| new.spares));
                self.take_out_with(&mut locked, old, Removal::Replaced, pin, gone);
                if why == NoSlot::Full {
                    self.evict_here(&mut locked, &mut room, pin, gone);
                }
                return Err(Refused::NoSlot);
            }
        };
        gone.dead(dead);
        let was = old.map(|old| Was::new(self, &mut locked, old.slot, pin));
        let number = match &was {
            Some(was) => was.entry.word.read().number() as u16,
            None => locked.state().numbers.take(),
        };
        let Incoming {
            key,
            value,
            weight,
            deadline,
            idle,
            extra,
            ..
        } = incoming.take().expect("it was there above");
        let new = New {
            key,
            value,
            deadline,
            // Writing an entry anew is asking for it.
            mark: was.as_ref().map_or(0, |was| {
                was.entry.word.read().mark().saturating_add(1).min(self.mark_max)
            }),
            idle,
            extra,
            number,
        };
        locked.fill(slot, new, place_of, pin);
        // All that is counted comes before the policy is told, which is anybody's code and may panic.
        let state = locked.state();
        state.numbers.set(number, slot);
        if let Some(was) = &was {
            state.note_gone(was.slot);
        }
        state.note(slot, deadline, weight, now);
        let old_weight = was.as_ref().map_or(0, |was| was.weight);
        room.spend(missing(size, was.is_some(), old_weight));
        self.budget.give(Size {
            count: 0,
            weight: old_weight.saturating_sub(weight),
        });
        let inserted = match &was {
            None => {
                state.order.admit(u32::from(number), hash);
                Inserted::Added
            }
            Some(was) => {
                if self.hit_locks {
                    state.order.touch(u32::from(number), hash);
                }
                self.note_left(was.entry, was.left_by(), pin, gone);
                if was.expired {
                    Inserted::Added
                } else {
                    Inserted::Replaced
                }
            }
        };
        // What has to be dropped is dropped soon; other slots wait until they are needed.
        let drops = if std::mem::needs_drop::<(K, V)>() {
            RECLAIM_PER_WRITE
        } else {
            0
        };
        for _ in 0..drops {
            gone.dead(locked.reclaim(false, pin).flatten());
        }
        drop(locked);
        self.counters.add(pin, Count::Inserts, 1);
        Ok(inserted)
    }

    fn judge_incoming(&self, incoming: &Incoming<K, V>, now: u64) -> Option<Rejected> {
        if incoming.deadline <= now {
            Some(Rejected::Expired)
        } else if incoming.weight > self.budget.limit().weight || self.budget.limit().count == 0 {
            Some(Rejected::TooHeavy)
        } else {
            None
        }
    }

    /// Gives up on an entry that found no slot.
    #[cold]
    pub(super) fn reject(&self, incoming: Option<Incoming<K, V>>, why: Rejected) -> Inserted {
        let pin = pins::pin();
        self.counters.removed(&pin, Removal::Rejected);
        let mut gone = Gone::new();
        gone.rejected = incoming.and_then(Incoming::pair);
        gone.tell(self.listener.as_ref());
        Inserted::Rejected(why)
    }

    /// Takes out a few entries whose time has come, or whose tags have ended, and adds what they took to `room`. Says how
    /// many.
    pub(super) fn tidy<'p>(
        &'p self,
        locked: &mut LockedShard<'p, K, V>,
        now: u64,
        room: &mut Room<'_>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> usize {
        let mut count = 0;
        let mut take_out = |locked: &mut LockedShard<'p, K, V>, slot, why| {
            room.add(self.take_out(locked, slot, why, pin, gone));
            count += 1;
        };
        let mut budget = TIDY_PER_WRITE;
        while let Some(slot) = locked.next_expired(now, &mut budget, pin) {
            take_out(locked, slot, Removal::Expired);
        }
        for slot in locked.sweep(self.tag_ends(), TIDY_PER_WRITE as u32, pin) {
            let shard = locked.slab();
            let Some(entry) = shard.at(slot, pin) else { continue };
            if shard.extra(slot, entry.word.read(), pin).is_some_and(Extra::is_invalid) {
                take_out(locked, slot, Removal::Invalidated);
            }
        }
        count
    }

    /// Takes out the entry at `slot`; the caller gives back what it took of the budget.
    pub(super) fn take_out<'p>(
        &'p self,
        locked: &mut LockedShard<'p, K, V>,
        slot: u32,
        why: Removal,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Size {
        let entry = locked.at(slot, pin);
        let size = locked.remove(slot, &self.hasher, pin);
        self.note_left(entry, why, pin, gone);
        size
    }

    /// Takes out the entry at `old`, if there is one, and gives back what it took.
    fn take_out_with<'p>(
        &'p self,
        locked: &mut LockedShard<'p, K, V>,
        old: Option<Located>,
        why: Removal,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) {
        if let Some(old) = old {
            let size = self.take_out(locked, old.slot, why, pin, gone);
            self.budget.give(size);
        }
    }

    pub(super) fn note_left<'p>(&'p self, entry: &'p Slot<K, V>, why: Removal, pin: &Pin, gone: &mut Gone<'p, K, V>) {
        self.counters.removed(pin, why);
        if self.listener.is_some() {
            gone.left.push((entry, why));
        }
    }

    /// The time, for a write that needs it: of an entry that expires, or to a shard that has such.
    pub(super) fn now_for(&self, locked: &mut LockedShard<'_, K, V>, deadline: u64) -> u64 {
        if deadline != NEVER || locked.state().has_deadlines() {
            self.time.now()
        } else {
            0
        }
    }
}

/// What a write replaces.
struct Was<'p, K, V> {
    slot: u32,
    entry: &'p Slot<K, V>,
    weight: u64,
    expired: bool,
}

impl<'p, K, V> Was<'p, K, V> {
    fn new<S>(inner: &Inner<K, V, S>, locked: &mut LockedShard<'p, K, V>, slot: u32, pin: &'p Pin) -> Was<'p, K, V> {
        let entry = locked.at(slot, pin);
        Was {
            slot,
            entry,
            weight: locked.state().weight(slot),
            expired: inner.judge(locked.slab(), slot, entry.word.read(), pin) == Standing::Gone,
        }
    }

    fn left_by(&self) -> Removal {
        if self.expired {
            Removal::Expired
        } else {
            Removal::Replaced
        }
    }
}

//! The short way in, for an entry that neither expires nor weighs anything nor has tags, in a shard where nothing does
//! and nothing is being loaded. It does what [`put`](Inner::put) would, in a third of the time.

use super::inner::Inner;
use super::removal::{Inserted, Removal};
use super::shard::LockedShard;
use super::slab::{New, Slot};
use super::stats::Count;
use super::word::NEVER;
use crate::sync::pins::{self, Pin};
use std::hash::{BuildHasher, Hash};
use std::mem::needs_drop;

/// What becomes of the number and the mark of an entry that takes another's place, or comes new.
struct Berth {
    number: u16,
    mark: u8,
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Puts an entry in, or gives it back where the short way is not open.
    #[inline]
    pub(super) fn put_plain(&self, key: K, value: V) -> Result<Inserted, (K, V)> {
        let hash = self.hash(&key);
        let pin = pins::pin();
        // What keys and values do when dropped is theirs, so not under the lock.
        let (mut _was, mut _freed) = (None, None);
        let mut locked = self.shard(hash).lock();
        if !locked.state().is_quiet(self.tag_ends()) {
            return Err((key, value));
        }
        locked.prefetch(&pin);
        let (place_of, kept) = match locked.find_entry(hash, &key, &pin) {
            Some((old, entry)) => (Ok(old), Some(self.berth_of(entry))),
            None => match locked.vacancy(hash, &pin, &|key| self.hash(key)) {
                Ok(vacancy) => (Err(vacancy), None),
                Err(_in_the_way) => return Err((key, value)),
            },
        };
        let is_new = kept.is_none();
        let Ok(slot) = locked.take_slot(&mut _was, &pin) else {
            return Err((key, value));
        };
        let Some(berth) = kept.or_else(|| self.berth(&mut locked, &pin)) else {
            locked.put_back(slot);
            return Err((key, value));
        };
        let new = New {
            key,
            value: Some(value),
            deadline: NEVER,
            mark: berth.mark,
            idle: false,
            extra: None,
            number: berth.number,
        };
        locked.fill(slot, new, place_of, &pin);
        let state = locked.state();
        state.numbers.set(berth.number, slot);
        if is_new {
            state.order.admit(u32::from(berth.number), hash);
        } else if self.hit_locks {
            state.order.touch(u32::from(berth.number), hash);
        }
        // What has to be dropped is dropped soon; other slots wait until they are needed.
        if needs_drop::<(K, V)>() {
            _freed = locked.reclaim(false, &pin).flatten();
        }
        drop(locked);
        self.counters.add(&pin, Count::Inserts, 1);
        Ok(if is_new {
            Inserted::Added
        } else {
            self.counters.removed(&pin, Removal::Replaced);
            Inserted::Replaced
        })
    }

    /// What an entry leaves to the one that is written in its place.
    #[inline]
    fn berth_of(&self, old: &Slot<K, V>) -> Berth {
        let read = old.word.read();
        Berth {
            number: read.number() as u16,
            // Writing an entry anew is asking for it.
            mark: read.mark().saturating_add(1).min(self.mark_max),
        }
    }

    /// Finds room for a new entry: what the budget has left, or a victim's.
    #[inline]
    fn berth<'p>(&'p self, locked: &mut LockedShard<'p, K, V>, pin: &'p Pin) -> Option<Berth> {
        if !self.budget.take_one() {
            if !self.has_its_share(locked.len()) {
                return None;
            }
            let victim = locked.choose(&self.hasher, pin);
            locked.drop_out(victim, &self.hasher, pin);
            self.counters.removed(pin, Removal::Evicted);
        }
        let number = locked.state().numbers.take();
        Some(Berth { number, mark: 0 })
    }
}

//! Taking entries out, and dropping what has left.

use super::inner::{Inner, Standing};
use super::removal::Removal;
use super::shard::{LockedShard, Shard};
use super::slab::Slot;
use super::word::NEVER;
use super::write::Gone;
use crate::sync::pins::{self, Pin};
use hashbrown::Equivalent;
use std::hash::{BuildHasher, Hash};

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Takes out what is under `key` if `is_it` says so of it, and hands it to `keep` unless it had expired. What is being
    /// loaded for `key` will not be stored.
    pub(super) fn remove_where<Q, R>(
        &self,
        hash: u64,
        key: &Q,
        is_it: impl Fn(&Slot<K, V>) -> bool,
        keep: impl FnOnce(&V) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let shard = self.shard(hash);
        let kept = {
            let pin = pins::pin();
            let mut gone = Gone::new();
            let mut locked = shard.lock();
            let left = if locked.state().loading == 0 {
                self.remove_in(locked, hash, key, is_it, &pin, &mut gone)
            } else {
                drop(locked);
                let mut held = self.flights.hold(hash);
                let detached = held.remove(hash, key, |_| true);
                locked = shard.lock();
                locked.state().loading -= usize::from(detached.is_some());
                let left = self.remove_in(locked, hash, key, is_it, &pin, &mut gone);
                drop(held);
                drop(detached);
                left
            };
            let live = left.filter(|(_, standing)| matches!(standing, Standing::Fresh | Standing::Stale(_)));
            let kept = live.and_then(|(entry, _)| entry.value()).map(keep);
            gone.tell(self.listener.as_ref());
            kept
        };
        self.free_now(shard);
        kept
    }

    /// As [`remove_where`](Self::remove_where), in a shard that is locked, without a look at what is being loaded.
    pub(super) fn remove_in<'p, Q>(
        &'p self,
        mut locked: LockedShard<'p, K, V>,
        hash: u64,
        key: &Q,
        is_it: impl Fn(&Slot<K, V>) -> bool,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Option<(&'p Slot<K, V>, Standing)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let now = self.now_for(&mut locked, NEVER);
        let found = locked.find(hash, key, pin);
        let left = found.filter(|found| is_it(locked.at(found.slot, pin))).map(|found| {
            let slot = found.slot;
            let entry = locked.at(slot, pin);
            let standing = self.judge(locked.slab(), slot, entry.word.read(), pin);
            let why = match standing {
                Standing::Gone => Removal::Expired,
                _ => Removal::Invalidated,
            };
            self.budget.give(self.take_out(&mut locked, slot, why, pin, gone));
            (entry, standing)
        });
        self.tidy(&mut locked, now, &mut self.budget.room(), pin, gone);
        left
    }

    /// Drops what has left a shard, as far as no reader has it. Not under a pin of this call, which would be such a one.
    pub(super) fn free_now(&self, shard: &Shard<K, V>) {
        if std::mem::needs_drop::<(K, V)>() {
            self.free_all(shard);
        }
    }

    /// Frees the slots of all that has left a shard, as far as no reader has it.
    pub(super) fn free_all(&self, shard: &Shard<K, V>) {
        // What left under the last lock gets its stamp with the next one, and only then counts a move of the epoch.
        drop(shard.lock());
        pins::advance();
        pins::advance();
        self.free_some(shard, usize::MAX);
    }

    /// Drops up to so many of the entries that have left a shard; says how many it did.
    pub(super) fn free_some(&self, shard: &Shard<K, V>, at_most: usize) -> usize {
        let pin = pins::pin();
        for freed in 0..at_most {
            let dead = shard.lock().reclaim(true, &pin);
            if dead.is_none() {
                return freed;
            }
        }
        at_most
    }
}

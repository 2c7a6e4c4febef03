//! Finding room for an entry: from the budget, or by taking others out.

use super::budget::{Room, Size};
use super::index::Vacancy;
use super::inner::Inner;
use super::removal::Removal;
use super::shard::LockedShard;
use super::slab::Located;
use super::write::Gone;
use crate::sync::pins::Pin;
use std::hash::{BuildHasher, Hash};

/// The most victims that a heavy entry takes from its own shard before the others are asked for some.
const VICTIMS_AT_HOME: usize = 4;
/// Where a write stands that looks for room.
pub(super) enum Search {
    /// It has it, and this is what it replaces.
    Room(Option<Located>),
    /// The shard has nothing more to give.
    NotHere,
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Takes room for `size` in the place of `old`, from the budget or from victims of this shard.
    pub(super) fn find_room<'p>(
        &'p self,
        locked: &mut LockedShard<'p, K, V>,
        mut old: Option<Located>,
        size: Size,
        room: &mut Room<'_>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Search {
        for _ in 0..=VICTIMS_AT_HOME {
            let weight = old.map_or(0, |old| locked.state().weight(old.slot));
            if room.take(missing(size, old.is_some(), weight)) {
                return Search::Room(old);
            }
            if !self.has_its_share(locked.len()) {
                return Search::NotHere;
            }
            let victim = self.evict_here(locked, room, pin, gone);
            old = old.filter(|old| old.slot != victim);
        }
        Search::NotHere
    }

    /// Whether victims may be taken from a shard of so many entries: one that holds much less than the others does not
    /// get smaller.
    pub(super) fn has_its_share(&self, len: usize) -> bool {
        len > 0 && len * self.shards.len() * 4 >= self.budget.used().count as usize
    }

    pub(super) fn evict_here<'p>(
        &'p self,
        locked: &mut LockedShard<'p, K, V>,
        room: &mut Room<'_>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> u32 {
        let victim = locked.choose(&self.hasher, pin);
        let entry = locked.at(victim.slot, pin);
        room.add(locked.drop_out(victim, &self.hasher, pin));
        self.note_left(entry, Removal::Evicted, pin, gone);
        victim.slot
    }

    /// A place in the index of a shard for a new key. Where too many have hashes that are alike, one of them gives up its
    /// own.
    pub(super) fn vacancy<'p>(
        &'p self,
        locked: &mut LockedShard<'p, K, V>,
        hash: u64,
        room: &mut Room<'_>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Vacancy {
        loop {
            match locked.vacancy(hash, pin, &|key| self.hash(key)) {
                Ok(vacancy) => return vacancy,
                Err(slot) => room.add(self.take_out(locked, slot, Removal::Evicted, pin, gone)),
            }
        }
    }

    /// Takes a victim from each shard in turn, from the one after the hash's own on, until there is room.
    pub(super) fn find_room_elsewhere<'p>(
        &'p self,
        hash: u64,
        size: Size,
        room: &mut Room<'_>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) {
        let first = self.shard_number(hash) + 1;
        let mut left = 0;
        for number in first..first + self.shards.len() {
            if room.take(size) {
                return;
            }
            let mut locked = self.shards[number & (self.shards.len() - 1)].lock();
            if locked.len() > 0 {
                self.evict_here(&mut locked, room, pin, gone);
                left += 1;
            }
        }
        if left == 0 {
            // All the rest is room that others have taken and not filled yet; what this one has may be what they miss.
            room.give_back();
            std::thread::yield_now();
        }
    }
}

/// What an entry of this size needs in the place of another.
pub(super) fn missing(size: Size, replaces: bool, old_weight: u64) -> Size {
    Size {
        count: size.count - u64::from(replaces),
        weight: size.weight.saturating_sub(old_weight),
    }
}

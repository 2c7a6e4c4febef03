//! The slots of a subscription's messages, and what keeps track of them.

use super::{LEVELS, Lane, Lost, Next, Phase, Slot, Standing};
use crate::mutant::{Mutant, planted};
use crate::queue::durable::heart::kept::Kept;
use std::ops::Range;

impl Standing {
    /// The level and the attempts of a message that is leased under `generation`.
    pub(super) fn held(&self, seq: u64, generation: u64) -> Result<(usize, u32), Lost> {
        let (level, slot) = self.held_slot(seq, generation)?;
        Ok((level, slot.attempts))
    }

    /// The level and the slot of a message that is leased under `generation`.
    pub(super) fn held_slot(&self, seq: u64, generation: u64) -> Result<(usize, Slot), Lost> {
        let found = self.find(seq);
        let is_held = |slot: Slot| slot.phase == Phase::Leased && self.is_of(slot, generation);
        found.filter(|(_, slot)| is_held(*slot)).ok_or(Lost)
    }

    fn is_of(&self, slot: Slot, generation: u64) -> bool {
        self.generation(slot.attempts) == generation || planted(Mutant::SettleAnyAttempt)
    }

    pub(super) fn find(&self, seq: u64) -> Option<(usize, Slot)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(level, lane)| Some((level, *lane.get(seq)?))).next()
    }

    /// The open messages of which something is true, in order.
    pub(super) fn open_where(&self, is: impl Fn(&Slot) -> bool) -> Vec<u64> {
        let slots = self.lanes.iter().flat_map(Lane::slots);
        let mut seqs: Vec<u64> = slots.filter(|slot| is(slot)).map(|slot| slot.seq).collect();
        seqs.sort_unstable();
        seqs
    }

    /// The open messages of numbers in this range, in order.
    pub(super) fn open_in(&self, seqs: &Range<u64>) -> Vec<u64> {
        let of_lane = |lane: &'_ Lane| -> Vec<u64> {
            let slots = lane.slots_from(seqs.start).map(|slot| slot.seq);
            slots.take_while(|seq| *seq < seqs.end).collect()
        };
        let mut open: Vec<u64> = self.lanes.iter().flat_map(of_lane).collect();
        open.sort_unstable();
        open
    }

    /// Has a message delivered when its turn comes, or buried if its attempts are used up.
    pub(super) fn make_ready(&mut self, seq: u64) {
        let Some((level, slot)) = self.find(seq) else { return };
        if slot.attempts >= self.max_attempts {
            self.shift(level, seq, Phase::Burying, 0);
            self.dying.push(seq);
        } else {
            self.shift(level, seq, Phase::Ready, 0);
        }
    }

    /// Opens the message at a cursor, and has it hold its key.
    pub(super) fn open_holding(&mut self, level: usize, next: Next, slot: Slot, messages: &Kept) {
        self.open(level, next, slot, messages);
        if self.ordered
            && let Next::New(_, index) = next
            && let Some(key) = messages.level(level).get(index).map(|stored| stored.key)
            && key != 0
        {
            self.keys.hold(key);
        }
    }

    /// Opens the message at a cursor.
    pub(super) fn open(&mut self, level: usize, next: Next, slot: Slot, messages: &Kept) {
        let Next::New(seq, index) = next else { return };
        self.lanes[level].pass(seq, index, messages.level(level));
        self.lanes[level].open(slot);
        self.enter(level, slot);
    }

    pub(super) fn shift(&mut self, level: usize, seq: u64, phase: Phase, at: u64) {
        self.change(level, seq, |slot| (slot.phase, slot.at) = (phase, at));
    }

    /// Changes a slot and whatever keeps track of it.
    pub(super) fn change<T>(&mut self, level: usize, seq: u64, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let slot = self.lanes[level].get_mut(seq)?;
        let before = *slot;
        let result = change(slot);
        let after = *slot;
        self.enter(level, after);
        self.leave(level, before);
        Some(result)
    }

    /// Settles a message, which has left its line before if it was in one.
    pub(super) fn close(&mut self, seq: u64) {
        if let Some((level, slot)) = self.find(seq) {
            self.close_slot(level, slot);
        }
    }

    /// The same of a message that is in this slot.
    pub(super) fn close_slot(&mut self, level: usize, slot: Slot) {
        self.lanes[level].close(slot.seq);
        self.leave(level, slot);
        if self.ordered && slot.phase != Phase::Blocked {
            self.released.push(slot.seq);
        }
    }

    pub(super) fn enter(&mut self, level: usize, slot: Slot) {
        self.counts[slot.phase as usize] += 1;
        self.in_flight += usize::from(slot.attempts > 0);
        match slot.phase {
            Phase::Ready => self.lanes[level].add_ready(slot),
            Phase::Leased | Phase::Waiting => self.ends.add((slot.at, slot.seq)),
            Phase::Delayed => self.dues.add((slot.at, slot.seq)),
            Phase::Burying | Phase::Blocked | Phase::Settled => {}
        }
    }

    /// A slot is no longer as it was before.
    fn leave(&mut self, level: usize, before: Slot) {
        self.counts[before.phase as usize] -= 1;
        self.in_flight -= usize::from(before.attempts > 0);
        let lanes = &mut self.lanes;
        let get = |lanes: &[Lane; LEVELS], seq| lanes.iter().find_map(|lane| lane.get(seq).copied());
        match before.phase {
            Phase::Ready => lanes[level].cancel_ready(before),
            Phase::Leased | Phase::Waiting => self.ends.cancel(|(at, seq)| {
                let is_timed = |slot: Slot| matches!(slot.phase, Phase::Leased | Phase::Waiting);
                get(lanes, seq).is_some_and(|slot| is_timed(slot) && slot.at == at)
            }),
            Phase::Delayed => self
                .dues
                .cancel(|(at, seq)| get(lanes, seq).is_some_and(|slot| slot.phase == Phase::Delayed && slot.at == at)),
            Phase::Burying | Phase::Blocked | Phase::Settled => {}
        }
    }
}

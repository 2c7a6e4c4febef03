//! Where a subscription stands in the messages of one priority.

use super::agenda::Agenda;
use super::kept::{LEVELS, Level, SMALL, search, shrink};
use std::collections::VecDeque;

/// Every message before the cursor is either settled or in a slot; the cursor moves over messages in their order.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) cursor: u64,
    /// Where the cursor's message probably is.
    place: u64,
    slots: VecDeque<Slot>,
    /// Slots of messages that are not settled.
    live: usize,
    /// Messages that may be delivered again.
    again: Agenda<u64>,
    /// Messages before the cursor that may be delivered for the first time.
    fresh: Agenda<u64>,
}

/// A message before the cursor that is not settled for good. 24 bytes of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) seq: u64,
    /// Of what is leased or waits, until when, in ticks; of what is delayed, when it is due by the wall clock; of what is
    /// blocked, the next one of its key, or 0.
    pub(crate) at: u64,
    pub(crate) attempts: u32,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It can be delivered.
    Ready,
    /// Somebody has it.
    Leased,
    /// For a retry.
    Waiting,
    /// On its way to the dead letters.
    Burying,
    /// Not due yet.
    Delayed,
    /// Behind another one of its key.
    Blocked,
    /// Settled; its slot goes when it comes first, or when such slots are more than half.
    Settled,
}

/// What a lane has to deliver next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    Again(u64),
    Fresh(u64),
    /// The message at the cursor, with its index.
    New(u64, usize),
}

impl Next {
    pub(crate) fn seq(self) -> u64 {
        match self {
            Next::Again(seq) | Next::Fresh(seq) | Next::New(seq, _) => seq,
        }
    }
}

impl Slot {
    /// The slot of a message that was never delivered.
    pub(crate) fn new(seq: u64, phase: Phase, at: u64) -> Slot {
        let attempts = 0;
        Slot {
            seq,
            at,
            attempts,
            phase,
        }
    }
}

impl Lane {
    pub(crate) fn new(from: u64) -> Lane {
        Lane {
            cursor: from,
            place: 0,
            slots: VecDeque::new(),
            live: 0,
            again: Agenda::new(),
            fresh: Agenda::new(),
        }
    }

    /// The first message in order that can be delivered: again, and with `room` for more in flight also for the first
    /// time. Whether the time has come for it is not looked at.
    pub(crate) fn next(&self, room: bool, messages: &Level) -> Option<Next> {
        let again = self.again.first();
        let fresh = self.fresh.first().filter(|_| room);
        match (again, fresh) {
            (Some(again), fresh) if fresh.is_none_or(|fresh| again < fresh) => Some(Next::Again(again)),
            (_, Some(fresh)) => Some(Next::Fresh(fresh)),
            _ if room => self.at_cursor(messages),
            _ => None,
        }
    }

    /// The message at the cursor.
    pub(crate) fn at_cursor(&self, messages: &Level) -> Option<Next> {
        let index = self.index(messages);
        Some(Next::New(messages.seq(index)?, index))
    }

    /// Where the cursor's message is.
    fn index(&self, messages: &Level) -> usize {
        messages.first_from_near(self.cursor, self.place)
    }

    /// Messages at the cursor and behind it.
    pub(crate) fn ahead(&self, messages: &Level) -> usize {
        messages.len() - self.index(messages)
    }

    /// Their numbers, from `from` on.
    pub(crate) fn numbers_ahead<'a>(&self, from: u64, messages: &'a Level) -> impl Iterator<Item = u64> + use<'a> {
        let first = self.index(messages);
        let first = if from > self.cursor {
            messages.first_from(from)
        } else {
            first
        };
        (first..messages.len()).filter_map(|index| messages.seq(index))
    }

    /// Moves the cursor over a message.
    pub(crate) fn pass(&mut self, seq: u64, index: usize, messages: &Level) {
        self.cursor = seq + 1;
        self.place = messages.place(index + 1);
    }

    /// Makes a slot for a message that the cursor has just passed.
    pub(crate) fn open(&mut self, slot: Slot) {
        debug_assert!(self.slots.back().is_none_or(|last| last.seq < slot.seq));
        self.live += 1;
        self.slots.push_back(slot);
    }

    /// Makes slots for messages before the cursor, of which later ones may have slots. They are in order, and none of them
    /// has one.
    pub(crate) fn insert(&mut self, slots: Vec<Slot>) {
        let Some(last) = slots.last() else { return };
        self.live += slots.len();
        let end = self.slots.partition_point(|slot| slot.seq < last.seq);
        let mut all: Vec<Slot> = self
            .slots
            .drain(..end)
            .filter(|slot| slot.phase != Phase::Settled)
            .collect();
        all.extend(slots);
        all.sort_unstable_by_key(|slot| slot.seq);
        all.into_iter().rev().for_each(|slot| self.slots.push_front(slot));
    }

    /// Takes a message's slot away.
    pub(crate) fn close(&mut self, seq: u64) -> Option<Slot> {
        let slot = self.get_mut(seq)?;
        let before = *slot;
        slot.phase = Phase::Settled;
        self.live -= 1;
        while self.slots.front().is_some_and(|slot| slot.phase == Phase::Settled) {
            self.slots.pop_front();
        }
        if self.slots.len() > SMALL.max(2 * self.live) {
            self.slots.retain(|slot| slot.phase != Phase::Settled);
        }
        shrink(&mut self.slots);
        Some(before)
    }

    /// A slot has become ready.
    pub(crate) fn add_ready(&mut self, slot: Slot) {
        match slot.attempts {
            0 => self.fresh.add(slot.seq),
            _ => self.again.add(slot.seq),
        }
    }

    /// A slot that was ready as `before` is no longer so.
    pub(crate) fn cancel_ready(&mut self, before: Slot) {
        let slots = &self.slots;
        let is_ready = |seq| {
            find(slots, seq)
                .map(|index| slots[index])
                .filter(|slot| slot.phase == Phase::Ready)
        };
        match before.attempts {
            0 => self
                .fresh
                .cancel(|seq| is_ready(seq).is_some_and(|slot| slot.attempts == 0)),
            _ => self
                .again
                .cancel(|seq| is_ready(seq).is_some_and(|slot| slot.attempts > 0)),
        }
    }

    #[inline]
    pub(crate) fn get(&self, seq: u64) -> Option<&Slot> {
        // Most lanes are empty.
        if self.slots.is_empty() {
            return None;
        }
        find(&self.slots, seq).map(|index| &self.slots[index])
    }

    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        find(&self.slots, seq).map(|index| &mut self.slots[index])
    }

    /// What is open, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.phase != Phase::Settled)
    }

    /// What is open from number `from` on, in order.
    pub(crate) fn slots_from(&self, from: u64) -> impl Iterator<Item = &Slot> {
        let first = self.slots.partition_point(|slot| slot.seq < from);
        self.slots.range(first..).filter(|slot| slot.phase != Phase::Settled)
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.again.memory() + self.fresh.memory()
    }

    /// Every message before this is settled.
    pub(crate) fn floor(&self) -> u64 {
        self.slots.front().map_or(self.cursor, |slot| slot.seq)
    }
}

/// Where the slot of a message is that is not settled.
fn find(slots: &VecDeque<Slot>, seq: u64) -> Option<usize> {
    let index = search(slots, seq, |slot| slot.seq).ok()?;
    (slots[index].phase != Phase::Settled).then_some(index)
}

/// Whose turn it is among the priorities, with shares of 8, 4, 3 and 1.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    at: usize,
}

/// The order of sixteen turns, spread evenly. Levels are as numbered by [`Priority`](crate::queue::Priority).
const ORDER: [u8; 16] = [3, 2, 3, 1, 3, 2, 3, 1, 3, 2, 3, 1, 3, 2, 3, 0];

impl Turns {
    /// The level whose turn it is among those that have something; the others' turns are skipped.
    pub(crate) fn next(&mut self, has: [bool; LEVELS]) -> Option<usize> {
        for step in 0..ORDER.len() {
            let turn = (self.at + step) % ORDER.len();
            let level = usize::from(ORDER[turn]);
            if has[level] {
                self.at = turn + 1;
                return Some(level);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_24_bytes() {
        assert_eq!(size_of::<Slot>(), 24);
    }

    #[test]
    fn any_sixteen_turns_are_shared_8_4_3_1() {
        let mut turns = Turns::default();
        let taken: Vec<_> = (0..64).filter_map(|_| turns.next([true; LEVELS])).collect();
        for sixteen in taken.windows(16) {
            let count = |level| sixteen.iter().filter(|taken| **taken == level).count();
            assert_eq!([3, 2, 1, 0].map(count), [8, 4, 3, 1]);
        }
    }

    #[test]
    fn those_that_have_something_share_what_the_others_leave() {
        let mut turns = Turns::default();
        let taken: Vec<_> = (0..40).filter_map(|_| turns.next([true, true, false, false])).collect();
        assert_eq!(taken.iter().filter(|level| **level == 0).count(), 10);
        assert_eq!(turns.next([false; LEVELS]), None);
    }
}

use crate::env::{Tick, TimerId};

/// Bits of an instant that one level tells apart.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 64_usize.div_ceil(BITS as usize);
/// Emptied slots give their memory back beyond this many entries.
const KEPT: usize = 4096;
/// A slot of up to this many timers is about to be taken.
const FEW: usize = 128;

/// Timers in the order of `(at, seq)`, provided that they are pushed in the order of `seq` and time never goes back.
///
/// A hierarchical wheel (Varghese and Lauck, SOSP 1987) with one slot per value of each six-bit digit: a timer lies on
/// the level of the highest digit in which it differs from `base`. Each push or take is O(1), and a timer moves at most
/// once per level, always along with its neighbours in time; a heap of 100,000 timers would miss the cache at every
/// level of its tree instead.
pub(super) struct Wheel {
    /// Nothing in the wheel is earlier.
    base: u64,
    levels: Box<[Level; LEVELS]>,
    /// Entries of the slot of `base` on the lowest level that are taken already.
    taken: usize,
    len: usize,
}

struct Level {
    /// A bit for each slot that is not empty.
    occupied: u64,
    slots: [Vec<TimerId>; SLOTS],
}

impl Wheel {
    pub(super) fn new() -> Wheel {
        let level = || Level {
            occupied: 0,
            slots: std::array::from_fn(|_| Vec::new()),
        };
        Wheel {
            base: 0,
            levels: Box::new(std::array::from_fn(|_| level())),
            taken: 0,
            len: 0,
        }
    }

    /// Entries, those that have been let go since included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, timer: TimerId) {
        let at = timer.at.as_nanos().max(self.base);
        let level = (at ^ self.base | 1).ilog2() / BITS;
        let slot = (at >> (level * BITS)) as usize % SLOTS;
        let level = &mut self.levels[level as usize];
        level.occupied |= 1 << slot;
        level.slots[slot].push(timer);
        self.len += 1;
    }

    /// The earliest instant that holds a timer for which `live` is true. Time is there from now on: nothing earlier may
    /// be pushed. With nothing left, time stays at `now`.
    ///
    /// `soon` is shown the few timers that are taken next, more than once.
    pub(super) fn advance(
        &mut self,
        now: Tick,
        live: impl Fn(TimerId) -> bool,
        soon: impl Fn(&[TimerId]),
    ) -> Option<Tick> {
        loop {
            let Some(level) = self.levels.iter().position(|level| level.occupied != 0) else {
                self.base = now.as_nanos();
                return None;
            };
            // The digits of `base` are past on every level, so the first bit set is the earliest slot.
            let slot = self.levels[level].occupied.trailing_zeros() as usize;
            let shift = level as u32 * BITS;
            let above = u64::MAX.checked_shl(shift + BITS).unwrap_or(0);
            self.base = self.base & above | (slot as u64) << shift;
            if level > 0 {
                self.spread(level, slot, &live, &soon);
            } else if self.skip(slot, &live) {
                return Some(Tick::from_nanos(self.base));
            }
        }
    }

    /// Takes the next timer of the instant that [`advance`](Wheel::advance) found.
    pub(super) fn take(&mut self) -> Option<TimerId> {
        let slot = self.base as usize % SLOTS;
        let level = &mut self.levels[0];
        if let Some(timer) = level.slots[slot].get(self.taken) {
            self.taken += 1;
            self.len -= 1;
            return Some(*timer);
        }
        level.slots[slot].clear();
        level.slots[slot].shrink_to(KEPT);
        level.occupied &= !(1 << slot);
        self.taken = 0;
        None
    }

    /// Keeps only the timers for which `live` is true.
    pub(super) fn retain(&mut self, live: impl Fn(TimerId) -> bool) {
        self.levels[0].slots[self.base as usize % SLOTS].drain(..self.taken);
        self.taken = 0;
        self.len = 0;
        for level in self.levels.iter_mut() {
            let mut left = level.occupied;
            while left != 0 {
                let slot = left.trailing_zeros() as usize;
                left &= left - 1;
                level.slots[slot].retain(|timer| live(*timer));
                self.len += level.slots[slot].len();
                if level.slots[slot].is_empty() {
                    level.occupied &= !(1 << slot);
                }
            }
        }
    }

    /// Moves a slot's timers to lower levels.
    fn spread(&mut self, level: usize, slot: usize, live: &impl Fn(TimerId) -> bool, soon: &impl Fn(&[TimerId])) {
        let mut timers = std::mem::take(&mut self.levels[level].slots[slot]);
        self.levels[level].occupied &= !(1 << slot);
        self.len -= timers.len();
        // A large slot is a long time, and what is asked about now would be out of the cache again by then.
        let few = timers.len() <= FEW;
        if few {
            soon(&timers);
        }
        for timer in timers.drain(..).filter(|timer| !few || live(*timer)) {
            self.push(timer);
        }
        timers.shrink_to(KEPT);
        self.levels[level].slots[slot] = timers;
    }

    /// Whether anything is left to take in the slot of `base`.
    fn skip(&mut self, slot: usize, live: &impl Fn(TimerId) -> bool) -> bool {
        while let Some(timer) = self.levels[0].slots[slot].get(self.taken) {
            if live(*timer) {
                return true;
            }
            self.taken += 1;
            self.len -= 1;
        }
        self.take().is_some()
    }
}

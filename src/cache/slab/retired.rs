use crate::sync::pins;
use std::collections::VecDeque;

/// Slots on their way from retired to free, oldest first.
#[derive(Default)]
pub(super) struct Retired {
    pub(super) slots: VecDeque<u32>,
    /// How many of them, from the oldest on, carry which stamp.
    stamps: VecDeque<(u64, u32)>,
    /// How many, of the youngest, carry none yet.
    unstamped: u32,
}

impl Retired {
    pub(super) fn for_some(slots: usize) -> Retired {
        Retired {
            slots: VecDeque::with_capacity(4 * slots),
            stamps: VecDeque::with_capacity(16),
            unstamped: 0,
        }
    }

    /// Gives a stamp to what was retired under an earlier holder of the lock. To be called with the lock just taken.
    #[inline]
    pub(super) fn stamp_after_lock(&mut self) {
        if self.unstamped == 0 {
            return;
        }
        let stamp = pins::stamp_after_lock();
        match self.stamps.back_mut() {
            Some((last, count)) if *last == stamp => *count += self.unstamped,
            _ => self.stamps.push_back((stamp, self.unstamped)),
        }
        self.unstamped = 0;
    }

    pub(super) fn push(&mut self, slot: u32) {
        self.slots.push_back(slot);
        self.unstamped += 1;
    }

    /// The oldest slot, if nobody can read it any more. With `push` it tries to move the epoch on first.
    pub(super) fn next_free(&mut self, push: bool) -> Option<u32> {
        let (stamp, count) = self.stamps.front_mut()?;
        let is_free = pins::is_free(*stamp, pins::epoch()) || (push && pins::is_free(*stamp, pins::advance()));
        if !is_free {
            return None;
        }
        *count -= 1;
        if *count == 0 {
            self.stamps.pop_front();
        }
        self.slots.pop_front()
    }
}

//! What the log says of a subscription, on opening.

use super::{LEVELS, Next, Phase, Slot, Standing};
use crate::queue::kept::Kept;
use std::collections::BTreeMap;

impl Standing {
    /// A message was delivered, says the log.
    pub(in crate::queue) fn replay_delivered(&mut self, seq: u64, attempt: u32, messages: &Kept) {
        self.pass_one(seq, messages);
        if let Some((level, _)) = self.find(seq) {
            self.change(level, seq, |slot| {
                slot.attempts = slot.attempts.max(attempt);
                (slot.phase, slot.at) = (Phase::Ready, 0);
            });
        }
    }

    /// A message was acknowledged, says the log.
    pub(in crate::queue) fn replay_acked(&mut self, seq: u64, messages: &Kept) {
        self.pass_one(seq, messages);
        self.settle(seq, messages);
    }

    /// A message and everything before it was acknowledged, says the log.
    pub(in crate::queue) fn replay_acked_through(&mut self, seq: u64, messages: &Kept) {
        self.settle_before(seq + 1, messages);
    }

    /// The subscription stood so, says the log: what is settled here or there is settled.
    pub(in crate::queue) fn replay_standing(&mut self, cursor: u64, open: &[(u64, u32)], messages: &Kept) {
        self.pass_all(cursor, messages);
        let theirs: BTreeMap<u64, u32> = open.iter().copied().collect();
        for seq in self.open_where(|slot| slot.seq < cursor) {
            match theirs.get(&seq) {
                None => self.settle(seq, messages),
                Some(0) => {}
                Some(attempts) => self.replay_delivered(seq, *attempts, messages),
            }
        }
    }

    /// Moves the cursor of a message's lane past it.
    fn pass_one(&mut self, seq: u64, messages: &Kept) {
        if let Some(stored) = messages.find(seq) {
            self.pass(stored.priority as usize, seq + 1, messages);
        }
    }

    pub(super) fn pass_all(&mut self, end: u64, messages: &Kept) {
        (0..LEVELS).for_each(|level| self.pass(level, end, messages));
    }

    /// Moves a lane's cursor; whatever it passes is open. What was to be delivered at a time counts as delayed, until
    /// somebody looks at the clock.
    fn pass(&mut self, level: usize, end: u64, messages: &Kept) {
        let of_level = messages.level(level);
        while let Some(next @ Next::New(seq, index)) = self.lanes[level].at_cursor(of_level)
            && seq < end
        {
            let slot = match of_level.get(index).map_or(0, |stored| stored.due) {
                0 => Slot::new(seq, Phase::Ready, 0),
                due => Slot::new(seq, Phase::Delayed, due),
            };
            self.open(level, next, slot, messages);
        }
        let lane = &mut self.lanes[level];
        lane.cursor = lane.cursor.max(end);
    }
}

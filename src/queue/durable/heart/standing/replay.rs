//! What the log says of a subscription, on opening.

use super::{LEVELS, Next, Phase, Slot, Standing, Stored};
use crate::queue::durable::heart::kept::Kept;
use crate::queue::durable::runs::Run;
use std::ops::Range;

impl Standing {
    /// A message was delivered, says the log.
    pub(crate) fn replay_delivered(&mut self, seq: u64, attempt: u32, messages: &Kept) {
        self.pass_one(seq, messages);
        if let Some((level, _)) = self.find(seq) {
            self.change(level, seq, |slot| {
                slot.attempts = slot.attempts.max(attempt);
                (slot.phase, slot.at) = (Phase::Ready, 0);
            });
        }
    }

    /// A message was acknowledged, says the log.
    pub(crate) fn replay_acked(&mut self, seq: u64, messages: &Kept) {
        self.pass_one(seq, messages);
        self.settle(seq, messages);
    }

    /// A message and everything before it was acknowledged, says the log.
    pub(crate) fn replay_acked_through(&mut self, seq: u64, messages: &Kept) {
        self.settle_before(seq + 1, messages);
    }

    /// Of the messages of a part only these were open, says the log: what is settled here or there is settled.
    pub(crate) fn replay_standing(&mut self, part: &Range<u64>, open: &[Run], messages: &Kept) {
        self.pass_all(part.end, messages);
        let mut runs = open.iter().peekable();
        for seq in self.open_in(part) {
            while runs.next_if(|run| run.end() <= seq).is_some() {}
            match runs.peek().filter(|run| run.first <= seq) {
                None => self.settle(seq, messages),
                Some(Run { attempts: 0, .. }) => {}
                Some(run) => self.replay_delivered(seq, run.attempts, messages),
            }
        }
    }

    /// Messages have come whose numbers are below others', says the log: they are open.
    pub(crate) fn replay_returned(&mut self, returned: &[Stored]) {
        for level in 0..LEVELS {
            let cursor = self.lanes[level].cursor;
            let mine = returned.iter();
            let mine = mine.filter(|stored| stored.priority as usize == level && stored.seq < cursor);
            let slots: Vec<Slot> = mine.map(|stored| undelivered(stored.seq, stored.due)).collect();
            self.lanes[level].insert(slots.clone());
            slots.into_iter().for_each(|slot| self.enter(level, slot));
        }
    }

    /// Of a message that was copied, says the log: whether it was open, and how often it had been delivered then.
    pub(crate) fn replay_copied(&mut self, seq: u64, open: Option<u32>, messages: &Kept) {
        match open {
            None => self.replay_acked(seq, messages),
            Some(0) => {}
            Some(attempts) => self.replay_delivered(seq, attempts, messages),
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
            let due = of_level.get(index).map_or(0, |stored| stored.due);
            self.open(level, next, undelivered(seq, due), messages);
        }
        let lane = &mut self.lanes[level];
        lane.cursor = lane.cursor.max(end);
    }
}

fn undelivered(seq: u64, due: u64) -> Slot {
    match due {
        0 => Slot::new(seq, Phase::Ready, 0),
        due => Slot::new(seq, Phase::Delayed, due),
    }
}

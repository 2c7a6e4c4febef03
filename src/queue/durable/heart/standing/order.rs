//! Order by key: the messages of a key one after the other.

use super::{Phase, Slot, Standing};
use crate::queue::durable::heart::kept::Kept;

impl Standing {
    /// Puts an open message in the line of its key, at the end.
    pub(super) fn line_up(&mut self, key: u64, seq: u64) {
        let before = self.keys.line_up(key, seq);
        if let Some((level, before)) = before.and_then(|before| self.find(before)) {
            self.change(level, before.seq, |slot| slot.at = seq);
        }
    }

    /// Nobody holds the key: the first in its line does now, and is ready.
    pub(super) fn call_next(&mut self, key: u64) {
        let Some((first, last)) = self.keys.line(key) else {
            return;
        };
        let second = self.find(first).map_or(0, |(_, slot)| slot.at);
        self.keys.set_line(key, second, if second == 0 { 0 } else { last });
        self.keys.hold(key);
        self.make_ready(first);
    }

    /// Takes a message out of the line of its key.
    pub(super) fn leave_line(&mut self, gone: Slot, messages: &Kept) {
        let key = messages.find(gone.seq).map_or(0, |stored| stored.key);
        let Some((first, last)) = self.keys.line(key) else {
            return;
        };
        let (mut before, mut at) = (0, first);
        while at != gone.seq {
            let Some((_, slot)) = self.find(at) else { return };
            (before, at) = (at, slot.at);
        }
        match self.find(before) {
            Some((level, _)) => {
                self.change(level, before, |slot| slot.at = gone.at);
                self.keys
                    .set_line(key, first, if last == gone.seq { before } else { last });
            }
            None => self
                .keys
                .set_line(key, gone.at, if last == gone.seq { 0 } else { last }),
        }
    }

    /// From now on messages of one key go one after the other. What has been delivered already cannot be called back.
    pub(super) fn begin_order(&mut self, messages: &Kept) {
        // All lanes at one place: what is passed over in one may be of the same key as what is open in another.
        self.pass_all(self.cursor(), messages);
        for seq in self.open_where(|_| true) {
            let Some((level, slot)) = self.find(seq) else { continue };
            match messages.find(seq).map_or(0, |stored| stored.key) {
                0 => {}
                key if !self.keys.is_held(key) || matches!(slot.phase, Phase::Leased | Phase::Burying) => {
                    self.keys.hold(key);
                }
                key => {
                    self.shift(level, seq, Phase::Blocked, 0);
                    self.line_up(key, seq);
                }
            }
        }
    }

    pub(super) fn end_order(&mut self) {
        self.keys.clear();
        for seq in self.open_where(|slot| slot.phase == Phase::Blocked) {
            self.make_ready(seq);
        }
    }
}

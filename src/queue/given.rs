//! Deliveries of which the log does not know yet.
//!
//! A crash may forget that there were attempts which the log has not heard of. So it hears at once of those that may be
//! about to crash the process again: of messages that were there when the queue was opened, and of every attempt but the
//! first. Of the others it hears soon, and never of those that are settled by then, which most are.

use super::record::{Record, SubId};
use super::shell::{Core, Room, Shell};
use crate::env::Tick;
use crate::log::{Durability, LogError};

/// The most deliveries of one record, and how many of a subscription the log hears of without delay.
const MOST: usize = 10_000;

impl Core {
    /// Messages have been delivered. Returns what the log has to hear at once.
    pub(super) fn given(&mut self, id: SubId, attempts: Vec<(u64, u32)>, now: Tick) -> Vec<(u64, u32)> {
        let may_wait = |(seq, attempt): &(u64, u32)| *attempt == 1 && *seq >= self.opened_at;
        let (later, at_once): (Vec<_>, Vec<_>) = attempts.into_iter().partition(may_wait);
        if !later.is_empty() {
            let given = self.given.entry(id).or_default();
            given.extend(later.into_iter().map(|(seq, _)| seq));
            if given.len() >= MOST {
                self.acks_at = Some(now);
            }
            self.acks_are_due(now);
        }
        at_once
    }
}

impl Shell {
    /// Tells the log of the deliveries that are not settled. Nobody waits for that.
    pub(super) async fn write_given(&self) {
        loop {
            match self.try_write_given() {
                Ok(true) => {}
                Ok(false) => return,
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                // It is forgotten, as in a crash.
                Err(_) => {}
            }
        }
    }

    /// Tells it of some; says whether there were any.
    fn try_write_given(&self) -> Result<bool, LogError> {
        let mut core = self.core.lock();
        let Some((id, mut seqs)) = core.given.pop_first() else {
            return Ok(false);
        };
        if seqs.len() > MOST {
            core.given.insert(id, seqs.split_off(MOST));
        }
        let attempts = seqs.iter().filter_map(|seq| Some((*seq, core.state.tries(id, *seq)?)));
        let attempts: Vec<_> = attempts.filter(|(_, tries)| *tries > 0).collect();
        if attempts.is_empty() {
            return Ok(true);
        }
        // Under the same lock: what is settled later is to be later in the log.
        let entry = [Record::Delivered { id, attempts }.encode().into()];
        let append = self.append_locked(&mut core, &entry, Durability::Os, Room::Common);
        if let Err(LogError::Busy { .. }) = append {
            core.given.entry(id).or_default().extend(seqs);
        }
        drop(core);
        append.map(|_on_its_way| true)
    }
}

//! What the log says of messages and subscriptions, on opening.

use super::super::record::{Record, SubId};
use super::copies::Copies;
use super::kept::Kept;
use super::promised::Promised;
use super::standing::{Standing, Stored};
use super::state::State;
use std::sync::Arc;

impl State {
    /// What follows is from a log that begins at this number, and may be damaged.
    pub(crate) fn begins_at(&mut self, home: u64, damaged: bool) {
        self.copies = Copies::of_log_from(home);
        self.promised = Promised::of_log_from(if damaged { home } else { 0 });
    }

    /// Takes the copy of a message, which is at number `at` of the log.
    pub(crate) fn replay_copy(&mut self, topic: &str, stored: Stored, at: u64) {
        self.copies.put(stored.seq, at, stored.len);
        match self.returned.get_mut(topic) {
            Some(returned) => returned.push(stored),
            None => drop(self.returned.insert(topic.into(), vec![stored])),
        }
    }

    /// Takes an entry of the log, other than a message.
    pub(crate) fn replay(&mut self, seq: u64, record: &Record) {
        self.settle_returned();
        match record {
            Record::Message { .. } | Record::Ids { .. } | Record::Copy { .. } => {}
            Record::Copied { topic, messages } => {
                for (seq, open) in messages {
                    self.promised.copied(*seq, open);
                    for id in self.ids(topic) {
                        let open = open.iter().find(|(known, _)| *known == id);
                        let open = open.map(|(_, attempts)| *attempts);
                        self.replay_on(id, |standing, messages| standing.replay_copied(*seq, open, messages));
                    }
                }
            }
            Record::Dropped { topic, before } => {
                self.promised.dropped(&self.ids(topic), *before);
                self.drop_before(topic, *before);
            }
            Record::Moved { topic, seqs } => {
                for seq in seqs {
                    self.promised.gone(*seq);
                    self.remove(topic, *seq);
                }
            }
            Record::AckedThrough { id, seq } => {
                self.promised.settled(*id, 0..seq + 1);
                self.replay_on(*id, |standing, messages| standing.replay_acked_through(*seq, messages));
            }
            Record::Subscribed { id, topic, name, from } => self.subscribed(*id, topic, name, from.unwrap_or(seq)),
            Record::Delivered { id, attempts } => {
                self.replay_on(*id, |standing, messages| {
                    let each = attempts.iter();
                    each.for_each(|(seq, attempt)| standing.replay_delivered(*seq, *attempt, messages));
                });
            }
            Record::Acked { id, seqs } => {
                seqs.iter()
                    .for_each(|seq| self.promised.settled(*id, *seq..seq.saturating_add(1)));
                self.replay_on(*id, |standing, messages| {
                    seqs.iter().for_each(|seq| standing.replay_acked(*seq, messages));
                });
            }
            Record::Standing {
                id,
                topic,
                name,
                part,
                open,
            } => {
                self.promised.stood(*id, part, open);
                self.subscribed(*id, topic, name, 0);
                self.replay_on(*id, |standing, messages| {
                    standing.replay_standing(part, open, messages);
                });
            }
        }
    }

    /// Puts messages whose copies were found among the others. They are open everywhere, until a record says more.
    fn settle_returned(&mut self) {
        for (name, mut returned) in std::mem::take(&mut self.returned) {
            returned.sort_unstable_by_key(|stored| stored.seq);
            returned.dedup_by_key(|stored| stored.seq);
            let topic = self.topics.entry(Arc::clone(&name)).or_default();
            let fresh = topic.messages.insert(&returned);
            for id in self.ids(&name) {
                self.with(id, |standing, _| standing.replay_returned(&fresh));
            }
        }
    }

    /// Everything has been read. Returns the messages that are missing because of damage to their copies.
    pub(crate) fn replayed(&mut self) -> Vec<u64> {
        self.settle_returned();
        let promised = std::mem::take(&mut self.promised);
        promised.missing(|seq| self.is_kept(seq))
    }

    /// Whether some topic keeps this message.
    pub(crate) fn is_kept(&self, seq: u64) -> bool {
        self.topics.values().any(|topic| topic.messages.find(seq).is_some())
    }

    fn replay_on(&mut self, id: SubId, replay: impl FnOnce(&mut Standing, &Kept)) {
        // A subscription whose making is lost to damage is made anew by its next subscriber, under another number.
        self.see_id(id);
        self.with(id, replay);
    }
}

//! What is written again, and what a restart makes of all that was written.

use super::super::super::record::{Record, SubId};
use super::super::super::rewrite::UnderWay;
use super::super::super::shell::Copied;
use super::super::kept::Stored;
use super::super::naive::Naive;
use super::super::state::State;
use super::{TOPICS, Test, Written, topic_of};
use std::collections::{BTreeMap, BTreeSet};

impl Test {
    pub(super) fn sweep(&mut self, n: usize) {
        let end = n as u64;
        for (topic, name) in TOPICS.iter().enumerate() {
            let mut next = Some((0, 0));
            while let Some(at) = next {
                next = self.state.sweep(name, at, end, 3);
            }
            let naives = self.naive.iter().filter(|(id, _)| topic_of(**id) == topic);
            let naives: Vec<&Naive> = naives.map(|(_, naive)| naive).collect();
            let wanted = |seq: u64| naives.is_empty() || naives.iter().any(|naive| naive.wants(seq));
            self.kept[topic].retain(|seq, _| *seq >= end || wanted(*seq));
        }
    }

    /// Where a message is.
    pub(super) fn place(&self, seq: u64) -> u64 {
        self.places.get(&seq).copied().unwrap_or(seq)
    }

    pub(super) fn copy(&mut self, n: usize, whole: bool) {
        let end = 1 + n as u64 % (self.log.len() as u64 + 1);
        for (topic, name) in TOPICS.into_iter().enumerate() {
            let before = self.kept[topic].values().filter(|stored| self.place(stored.seq) < end);
            let before: Vec<Stored> = before.copied().collect();
            let some = if whole { before.len() } else { before.len() / 2 };
            for stored in &before[..some] {
                let at = self.write(Written::Copy(name, *stored));
                let copied = Copied {
                    topic: name.into(),
                    seq: stored.seq,
                    len: stored.len,
                };
                self.state.copied(&copied, at);
                self.places.insert(stored.seq, at);
            }
            let open = |stored: &Stored| {
                let open = self.state.open_of(name, stored.seq, &UnderWay::default());
                (stored.seq, open.unwrap())
            };
            let messages = before[..some].iter().map(open).collect();
            let topic = name.to_owned();
            self.write(Written::Record(Record::Copied { topic, messages }));
        }
        if whole && end > self.home {
            self.state.copies.raise_home(end);
            self.snapshot(&BTreeSet::new());
            self.home = end;
        }
    }

    /// Starts anew from the messages and what was said of subscriptions since the last snapshot.
    pub(super) fn restart(&mut self) {
        let mut state = State::new(1_000_000 * self.log.len() as u64);
        state.begins_at(self.home, true);
        let before = std::mem::take(&mut self.naive);
        self.kept = Default::default();
        self.places.clear();
        for (at, written) in self.log.iter().enumerate() {
            let is_told = at >= self.snapshot;
            let seq = at as u64 + 1;
            if seq < self.home {
                continue;
            }
            match written {
                Written::Message(topic, stored) => {
                    drop(state.message(topic, *stored));
                    let topic = TOPICS.iter().position(|name| name == topic).unwrap();
                    self.kept[topic].insert(seq, *stored);
                    let naives = self.naive.iter_mut().filter(|(id, _)| topic_of(**id) == topic);
                    naives.for_each(|(_, naive)| _ = naive.arrive(*stored));
                }
                Written::Copy(topic, stored) => {
                    state.replay_copy(topic, *stored, seq);
                    self.places.insert(stored.seq, seq);
                    let topic = TOPICS.iter().position(|name| name == topic).unwrap();
                    self.kept[topic].insert(stored.seq, *stored);
                    let naives = self.naive.iter_mut().filter(|(id, _)| topic_of(**id) == topic);
                    naives.for_each(|(_, naive)| naive.returned(*stored));
                }
                Written::Record(record @ Record::Moved { topic, seqs }) => {
                    state.replay(seq, record);
                    let topic = TOPICS.iter().position(|known| known == topic).unwrap();
                    for seq in seqs {
                        self.kept[topic].remove(seq);
                        let naives = self.naive.iter_mut().filter(|(id, _)| topic_of(**id) == topic);
                        naives.for_each(|(_, naive)| naive.done(*seq));
                    }
                }
                Written::Record(record) if is_told => {
                    state.replay(seq, record);
                    replay(&mut self.naive, &self.kept, seq, record);
                }
                Written::Record(_) => {}
            }
        }
        assert_eq!(state.replayed(), [0_u64; 0], "nothing is missing");
        self.state = state;
        self.dying.clear();
        self.standing = None;
        self.known_wall = 0;
        for (id, naive) in &before {
            naive.assert_survives_as(&self.naive[id]);
            self.configure(*id as usize - 1, self.ordered[id]);
        }
    }
}

/// What a record says to the naive.
fn replay(naive: &mut BTreeMap<SubId, Naive>, kept: &[BTreeMap<u64, Stored>; 2], own: u64, record: &Record) {
    match record {
        Record::Subscribed { id, from, .. } => {
            let from = from.unwrap_or(own);
            naive.insert(*id, Naive::new(from, kept[topic_of(*id)].values()));
        }
        Record::Standing { id, part, open, .. } => {
            let fresh = || Naive::new(0, kept[topic_of(*id)].values());
            let open = open
                .iter()
                .flat_map(|run| (run.first..run.end()).map(|seq| (seq, run.attempts)));
            let open: Vec<_> = open.collect();
            naive.entry(*id).or_insert_with(fresh).stood(part, &open);
        }
        // What is said of a subscription before a snapshot comes to it, the snapshot says again.
        Record::Delivered { id, attempts } => {
            let Some(naive) = naive.get_mut(id) else { return };
            attempts
                .iter()
                .for_each(|(seq, attempt)| naive.was_delivered(*seq, *attempt));
        }
        Record::Acked { id, seqs } => {
            let Some(naive) = naive.get_mut(id) else { return };
            seqs.iter().for_each(|seq| naive.was_acked(*seq));
        }
        Record::AckedThrough { id, seq } => {
            let Some(naive) = naive.get_mut(id) else { return };
            naive.done_through(*seq);
        }
        Record::Copied { topic, messages } => {
            let naives = naive.iter_mut().filter(|(id, _)| TOPICS[topic_of(**id)] == topic);
            for (id, naive) in naives {
                for (seq, open) in messages {
                    let open = open.iter().find(|(known, _)| known == id);
                    naive.was_copied(*seq, open.map(|(_, attempts)| *attempts));
                }
            }
        }
        _ => {}
    }
}

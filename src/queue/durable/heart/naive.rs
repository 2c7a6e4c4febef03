//! A subscription as the dumbest correct thing: a map that says how each message stands.

use super::kept::{LEVELS, Stored};
use crate::queue::SubscriptionStats;
use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) const LEASE: u64 = 10;
pub(crate) const MAX_ATTEMPTS: u32 = 3;
pub(crate) const MAX_IN_FLIGHT: usize = 4;

/// Whose turn it is: levels of priority, the highest is 3.
const TURNS: [usize; 16] = [3, 2, 3, 1, 3, 2, 3, 1, 3, 2, 3, 1, 3, 2, 3, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    Ready,
    Leased { generation: u64, until: u64 },
    Waiting { until: u64 },
    Dying,
    Delayed,
    Blocked,
    Expired,
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stored: Stored,
    phase: Phase,
    attempts: u32,
}

impl Entry {
    fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Expired)
    }

    /// It is open, and so keeps later ones of its key back.
    fn holds(&self, key: u64) -> bool {
        self.stored.key == key && !self.is_settled() && !matches!(self.phase, Phase::New | Phase::Blocked)
    }

    fn level(&self) -> usize {
        self.stored.priority as usize
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Naive {
    entries: BTreeMap<u64, Entry>,
    /// By level, where the messages begin that have not been looked at.
    cursors: [u64; LEVELS],
    ordered: bool,
    turn: usize,
    expired: u64,
}

impl Naive {
    pub(crate) fn new<'a>(from: u64, messages: impl Iterator<Item = &'a Stored>) -> Naive {
        let entry = |stored: &Stored| Entry {
            stored: *stored,
            phase: Phase::New,
            attempts: 0,
        };
        Naive {
            entries: messages
                .filter(|stored| stored.seq >= from)
                .map(|stored| (stored.seq, entry(stored)))
                .collect(),
            cursors: [from; LEVELS],
            ordered: false,
            turn: 0,
            expired: 0,
        }
    }

    /// A message has come. Says whether it was put where it waits for its time.
    pub(crate) fn arrive(&mut self, stored: Stored) -> bool {
        let is_next = self.entries.values().all(|entry| entry.phase != Phase::New);
        let entry = Entry {
            stored,
            phase: Phase::New,
            attempts: 0,
        };
        self.entries.insert(stored.seq, entry);
        let waits = is_next && stored.due > 0;
        if waits {
            let phase = if self.is_held_back(stored.seq) {
                Phase::Blocked
            } else {
                Phase::Delayed
            };
            self.pass(stored.seq, phase);
        }
        waits
    }

    pub(crate) fn configure(&mut self, ordered: bool) {
        for seq in self.seqs(|entry| entry.phase == Phase::Ready) {
            self.ready(seq);
        }
        if ordered == self.ordered {
            return;
        }
        self.ordered = ordered;
        if !ordered {
            self.seqs(|entry| entry.phase == Phase::Blocked)
                .into_iter()
                .for_each(|seq| self.ready(seq));
            return;
        }
        let end = self.cursors.into_iter().max().unwrap();
        self.pass_all(end);
        for seq in self.seqs(|entry| !entry.is_settled() && entry.phase != Phase::New) {
            let is_busy = matches!(self.phase(seq), Phase::Leased { .. } | Phase::Dying);
            if !is_busy && self.is_held_back(seq) {
                self.set(seq, Phase::Blocked);
            }
        }
    }

    pub(crate) fn take(&mut self, now: u64, wall: u64, max: usize) -> Vec<(u64, u32)> {
        self.expire(now);
        self.mature(wall);
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(seq) = self.choose(wall)
        {
            let entry = self.entries.get_mut(&seq).unwrap();
            entry.attempts += 1;
            taken.push((seq, entry.attempts));
            self.pass(
                seq,
                Phase::Leased {
                    generation: 0,
                    until: now + LEASE,
                },
            );
        }
        taken
    }

    fn choose(&mut self, wall: u64) -> Option<u64> {
        if self.ordered {
            loop {
                let seq = (0..LEVELS).filter_map(|level| self.next(level)).min()?;
                if self.is_time_for(seq, wall) {
                    return Some(seq);
                }
            }
        }
        let mut nexts = [None; LEVELS];
        for (level, found) in nexts.iter_mut().enumerate() {
            while let Some(seq) = self.next(level)
                && found.is_none()
            {
                *found = self.is_time_for(seq, wall).then_some(seq);
            }
        }
        let turns = (0..TURNS.len()).map(|step| (self.turn + step) % TURNS.len());
        let turn = turns.into_iter().find(|turn| nexts[TURNS[*turn]].is_some())?;
        self.turn = turn + 1;
        nexts[TURNS[turn]]
    }

    fn next(&self, level: usize) -> Option<u64> {
        let in_flight = |entry: &&Entry| entry.attempts > 0 && !entry.is_settled();
        let room = self.entries.values().filter(in_flight).count() < MAX_IN_FLIGHT;
        let can = |entry: &&Entry| match entry.phase {
            Phase::Ready => entry.attempts > 0 || room,
            Phase::New => room,
            _ => false,
        };
        let of_level = self.entries.values().filter(|entry| entry.level() == level);
        of_level.filter(can).map(|entry| entry.stored.seq).next()
    }

    fn is_time_for(&mut self, seq: u64, wall: u64) -> bool {
        let entry = self.entries[&seq];
        if entry.stored.expires != 0 && entry.stored.expires <= wall {
            self.expired += 1;
            self.pass(seq, Phase::Expired);
            self.call_next(entry.stored.key);
            return false;
        }
        if entry.phase == Phase::New && self.is_held_back(seq) {
            self.pass(seq, Phase::Blocked);
            return false;
        }
        if entry.attempts == 0 && entry.stored.due > wall {
            self.pass(seq, Phase::Delayed);
            return false;
        }
        true
    }

    /// Whether an earlier message of its key is not settled.
    fn is_held_back(&self, seq: u64) -> bool {
        let key = self.entries[&seq].stored.key;
        let is_open = |entry: &Entry| entry.stored.key == key && !entry.is_settled();
        self.ordered && key != 0 && self.entries.range(..seq).any(|(_, entry)| is_open(entry))
    }

    /// If nothing of the key is open, the next one that was held back is ready.
    fn call_next(&mut self, key: u64) {
        if key == 0 || self.entries.values().any(|entry| entry.holds(key)) {
            return;
        }
        let blocked = self.seqs(|entry| entry.stored.key == key && entry.phase == Phase::Blocked);
        if let Some(first) = blocked.first() {
            self.ready(*first);
        }
    }

    fn call_all(&mut self) {
        let keys: Vec<u64> = self.entries.values().map(|entry| entry.stored.key).collect();
        keys.into_iter().for_each(|key| self.call_next(key));
    }

    fn pass(&mut self, seq: u64, phase: Phase) {
        self.set(seq, phase);
        let level = self.entries[&seq].level();
        self.cursors[level] = self.cursors[level].max(seq + 1);
    }

    fn pass_level(&mut self, level: usize, end: u64) {
        for seq in self.seqs(|entry| entry.level() == level && entry.stored.seq < end && entry.phase == Phase::New) {
            let due = self.entries[&seq].stored.due;
            self.set(seq, if due > 0 { Phase::Delayed } else { Phase::Ready });
        }
        self.cursors[level] = self.cursors[level].max(end);
    }

    fn pass_all(&mut self, end: u64) {
        (0..LEVELS).for_each(|level| self.pass_level(level, end));
    }

    pub(crate) fn lease(&mut self, seq: u64, generation: u64, now: u64) {
        let until = now + LEASE;
        self.set(seq, Phase::Leased { generation, until });
    }

    pub(crate) fn take_back(&mut self, seq: u64) {
        let entry = self.entries.get_mut(&seq).unwrap();
        (entry.phase, entry.attempts) = (Phase::Ready, entry.attempts - 1);
    }

    pub(crate) fn holds(&self, seq: u64, held: u64) -> bool {
        let phase = self.entries.get(&seq).map(|entry| entry.phase);
        matches!(phase, Some(Phase::Leased { generation, .. }) if generation == held)
    }

    pub(crate) fn retry(&mut self, seq: u64, until: u64) {
        match self.attempts(seq) < MAX_ATTEMPTS {
            true => self.set(seq, Phase::Waiting { until }),
            false => self.ready(seq),
        }
    }

    pub(crate) fn ready(&mut self, seq: u64) {
        let used_up = self.attempts(seq) >= MAX_ATTEMPTS;
        self.set(seq, if used_up { Phase::Dying } else { Phase::Ready });
    }

    pub(crate) fn done(&mut self, seq: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.phase = Phase::Done;
            let key = entry.stored.key;
            self.call_next(key);
        }
    }

    pub(crate) fn done_through(&mut self, seq: u64) {
        for (_, entry) in self.entries.range_mut(..=seq) {
            entry.phase = Phase::Done;
        }
        for cursor in &mut self.cursors {
            *cursor = (*cursor).max(seq + 1);
        }
        self.call_all();
    }

    pub(crate) fn expire(&mut self, now: u64) {
        let is_over = |entry: &Entry| match entry.phase {
            Phase::Leased { until, .. } | Phase::Waiting { until } => until <= now,
            _ => false,
        };
        self.seqs(is_over).into_iter().for_each(|seq| self.ready(seq));
    }

    pub(crate) fn mature(&mut self, wall: u64) {
        let is_due = |entry: &Entry| entry.phase == Phase::Delayed && entry.stored.due <= wall;
        self.seqs(is_due).into_iter().for_each(|seq| self.ready(seq));
    }

    /// Whether the cursor has passed the message, and it is settled.
    pub(crate) fn is_past(&self, stored: &Stored) -> bool {
        let entry = self.entries.get(&stored.seq);
        self.cursors[stored.priority as usize] > stored.seq && entry.is_none_or(Entry::is_settled)
    }

    /// Whether somebody has the message, or may have it soon.
    pub(crate) fn is_in_use(&self, seq: u64) -> bool {
        let phase = self.entries.get(&seq).map(|entry| entry.phase);
        matches!(phase, Some(Phase::Leased { .. } | Phase::Waiting { .. } | Phase::Dying))
    }

    /// The time of a message is over, and it is gone.
    pub(crate) fn give_up(&mut self, seq: u64) {
        if let Some(entry) = self.entries.get_mut(&seq).filter(|entry| !entry.is_settled()) {
            entry.phase = Phase::Expired;
            self.expired += 1;
            let key = entry.stored.key;
            self.call_next(key);
        }
    }

    pub(crate) fn was_delivered(&mut self, seq: u64, attempt: u32) {
        let Some(entry) = self.entries.get(&seq).copied() else {
            return;
        };
        self.pass_level(entry.level(), seq + 1);
        if !entry.is_settled() {
            let entry = self.entries.get_mut(&seq).unwrap();
            (entry.phase, entry.attempts) = (Phase::Ready, entry.attempts.max(attempt));
        }
    }

    pub(crate) fn was_acked(&mut self, seq: u64) {
        if let Some(entry) = self.entries.get(&seq).copied() {
            self.pass_level(entry.level(), seq + 1);
            self.done(seq);
        }
    }

    /// A copy of a message has come. If it is new, it is open, whatever came before it.
    pub(crate) fn returned(&mut self, stored: Stored) {
        let (seq, level) = (stored.seq, stored.priority as usize);
        if self.entries.contains_key(&seq) {
            return;
        }
        let entry = Entry {
            stored,
            phase: Phase::New,
            attempts: 0,
        };
        self.entries.insert(seq, entry);
        self.pass_level(level, self.cursors[level]);
    }

    pub(crate) fn was_copied(&mut self, seq: u64, open: Option<u32>) {
        match open {
            None => self.was_acked(seq),
            Some(0) => {}
            Some(attempts) => self.was_delivered(seq, attempts),
        }
    }

    pub(crate) fn wants(&self, seq: u64) -> bool {
        self.entries.get(&seq).is_some_and(|entry| !entry.is_settled())
    }

    pub(crate) fn stood(&mut self, part: &Range<u64>, open: &[(u64, u32)]) {
        self.pass_all(part.end);
        for seq in self.seqs(|entry| part.contains(&entry.stored.seq)) {
            match open.iter().find(|(known, _)| *known == seq) {
                None => self.done(seq),
                Some((_, 0)) => {}
                Some((_, attempts)) => self.was_delivered(seq, *attempts),
            }
        }
    }

    /// What is settled here is so after a restart, and nothing else; only what has expired may come again.
    pub(crate) fn assert_survives_as(&self, after: &Naive) {
        for (seq, entry) in &self.entries {
            let Some(then) = after.entries.get(seq) else {
                assert!(entry.is_settled(), "{entry:?} is gone");
                continue;
            };
            match entry.phase {
                Phase::Done => assert_eq!(then.phase, Phase::Done, "{entry:?}"),
                Phase::Expired => {}
                _ => {
                    assert!(!then.is_settled(), "{entry:?} is settled");
                    assert_eq!(then.attempts, entry.attempts, "{entry:?}");
                }
            }
        }
    }

    pub(crate) fn compare(&self, stats: &SubscriptionStats) {
        let count = |is: fn(&Entry) -> bool| self.entries.values().filter(|entry| is(entry)).count();
        assert_eq!(stats.backlog, count(|entry| !entry.is_settled()));
        let ready = count(|entry| matches!(entry.phase, Phase::New | Phase::Ready));
        assert_eq!(stats.ready, ready);
        let leased = count(|entry| matches!(entry.phase, Phase::Leased { .. }));
        assert_eq!(stats.in_flight, leased);
        let waiting = count(|entry| matches!(entry.phase, Phase::Waiting { .. } | Phase::Dying));
        assert_eq!(stats.waiting, waiting);
        assert_eq!(stats.delayed, count(|entry| entry.phase == Phase::Delayed));
        assert_eq!(stats.blocked, count(|entry| entry.phase == Phase::Blocked));
        assert_eq!(stats.expired, self.expired);
    }

    pub(crate) fn oldest(&self) -> Option<u64> {
        let mut open = self.entries.iter().filter(|(_, entry)| !entry.is_settled());
        open.next().map(|(seq, _)| *seq)
    }

    pub(crate) fn is_undealt(&self, seq: u64) -> bool {
        let entry = self.entries.get(&seq);
        entry.is_some_and(|entry| !entry.is_settled() && !matches!(entry.phase, Phase::Leased { .. } | Phase::Dying))
    }

    pub(crate) fn next_end(&self) -> Option<u64> {
        let ends = self.entries.values().filter_map(|entry| match entry.phase {
            Phase::Leased { until, .. } | Phase::Waiting { until } => Some(until),
            _ => None,
        });
        ends.min()
    }

    pub(crate) fn next_due(&self) -> Option<u64> {
        let delayed = self.entries.values().filter(|entry| entry.phase == Phase::Delayed);
        delayed.map(|entry| entry.stored.due).min()
    }

    pub(crate) fn phase(&self, seq: u64) -> Phase {
        self.entries[&seq].phase
    }

    pub(crate) fn attempts(&self, seq: u64) -> u32 {
        self.entries[&seq].attempts
    }

    pub(crate) fn set(&mut self, seq: u64, phase: Phase) {
        self.entries.get_mut(&seq).unwrap().phase = phase;
    }

    fn seqs(&self, is: impl Fn(&Entry) -> bool) -> Vec<u64> {
        let entries = self.entries.iter().filter(|(_, entry)| is(entry));
        entries.map(|(seq, _)| *seq).collect()
    }
}

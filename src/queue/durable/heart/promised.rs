//! Which messages a damaged log should hold.

use super::super::record::SubId;
use super::super::runs::Run;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Of the messages whose first places are gone from the log, those that it says to be open somewhere. Their copies must be
/// in it, or damage took them. Only a damaged log is watched so.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    /// Numbers from here on are in the log themselves, or are in one of its gaps. 0 watches nothing.
    home: u64,
    /// Where each is open.
    open: BTreeMap<u64, BTreeSet<SubId>>,
}

/// Stands for the topic itself, which keeps messages that nobody subscribes to. Subscriptions have higher numbers.
const TOPIC: SubId = 0;

impl Promised {
    /// Watches a damaged log, which begins at number `home`.
    pub(crate) fn of_log_from(home: u64) -> Promised {
        Promised {
            home,
            open: BTreeMap::new(),
        }
    }

    /// The subscription stands so.
    pub(crate) fn stood(&mut self, id: SubId, part: &Range<u64>, open: &[Run]) {
        self.settled(id, part.clone());
        for run in open {
            for seq in run.first..run.end().min(self.home) {
                self.open.entry(seq).or_default().insert(id);
            }
        }
    }

    /// There is a copy of a message, which is open so.
    pub(crate) fn copied(&mut self, seq: u64, open: &[(SubId, u32)]) {
        if seq < self.home {
            let open = open.iter().map(|(id, _)| *id).chain(open.is_empty().then_some(TOPIC));
            self.open.insert(seq, open.collect());
        }
    }

    /// A subscription has settled messages.
    pub(crate) fn settled(&mut self, id: SubId, seqs: Range<u64>) {
        if self.open.is_empty() || seqs.is_empty() {
            return;
        }
        self.open
            .range_mut(seqs.clone())
            .for_each(|(_, open)| _ = open.remove(&id));
        self.tidy(seqs);
    }

    /// The messages of the topic of these subscriptions were dropped up to a number.
    pub(crate) fn dropped(&mut self, ids: &[SubId], before: u64) {
        for (_, open) in self.open.range_mut(..before) {
            open.retain(|id| *id != TOPIC && !ids.contains(id));
        }
        self.tidy(0..before);
    }

    /// A message has left its topic.
    pub(crate) fn gone(&mut self, seq: u64) {
        self.open.remove(&seq);
    }

    /// Those that are not there.
    pub(crate) fn missing(self, is_there: impl Fn(u64) -> bool) -> Vec<u64> {
        self.open.into_keys().filter(|seq| !is_there(*seq)).collect()
    }

    fn tidy(&mut self, seqs: Range<u64>) {
        let settled = self.open.range(seqs).filter(|(_, open)| open.is_empty());
        for seq in settled.map(|(seq, _)| *seq).collect::<Vec<_>>() {
            self.open.remove(&seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_somewhere_and_not_there_is_missing() {
        let mut promised = Promised::of_log_from(100);
        promised.stood(
            1,
            &(0..200),
            &Run::of([(5, 0), (6, 0), (7, 2), (99, 0), (100, 0), (150, 1)]),
        );
        promised.stood(2, &(0..50), &Run::of([(6, 0)]));
        promised.copied(8, &[]);
        promised.copied(9, &[(1, 3)]);
        promised.copied(100, &[(1, 3)]);
        promised.settled(1, 6..7);
        promised.settled(1, 99..100);
        promised.settled(1, 9..10);
        promised.gone(7);
        assert_eq!(promised.missing(|seq| seq == 5), [6, 8]);
    }

    #[test]
    fn a_later_standing_and_limits_take_promises_back() {
        let mut promised = Promised::of_log_from(100);
        promised.stood(1, &(0..200), &Run::of([(5, 0), (6, 0), (60, 0)]));
        promised.stood(1, &(0..50), &Run::of([(6, 0)]));
        promised.stood(2, &(0..50), &Run::of([(4, 0)]));
        promised.dropped(&[2], 50);
        assert_eq!(promised.missing(|_| false), [6, 60]);
    }

    #[test]
    fn a_sound_log_is_not_watched() {
        let mut promised = Promised::default();
        promised.stood(1, &(0..200), &Run::of([(5, 0)]));
        promised.copied(8, &[]);
        assert!(promised.missing(|_| false).is_empty());
    }
}

//! When the messages of a topic were sent, about: a mark for each second in which something was.

use crate::env::WallTime;
use std::collections::VecDeque;
use std::time::Duration;

/// How far apart marks are at least.
pub(crate) const STEP: Duration = Duration::from_secs(1);

/// Marks over the messages of one topic, in their order. Where the clock was set back, a message counts as sent when the
/// one before it was. 16 bytes of memory for each second of the messages kept in which one was sent.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// Numbers and times, both growing. No message before the next mark was sent `STEP` after its own or later.
    marks: VecDeque<(u64, WallTime)>,
}

impl Ages {
    /// Message `seq` was sent at this time.
    pub(crate) fn sent(&mut self, seq: u64, at: WallTime) {
        if self.marks.back().is_none_or(|(_, last)| at >= *last + STEP) {
            self.marks.push_back((seq, at));
        }
    }

    /// Message `seq`, which comes before others that are known, was sent at this time.
    pub(crate) fn sent_before(&mut self, seq: u64, at: WallTime) {
        let after = self.marks.partition_point(|(marked, _)| *marked <= seq);
        let next = self.marks.get(after).map(|(_, next)| *next);
        // Times only grow.
        let at = next.map_or(at, |next| next.min(at));
        let is_known = after.checked_sub(1).and_then(|before| self.marks.get(before));
        if is_known.is_none_or(|(_, before)| at >= *before + STEP) {
            self.marks.insert(after, (seq, at));
        }
    }

    /// When message `seq` was sent, or up to a step before that.
    pub(crate) fn of(&self, seq: u64) -> Option<WallTime> {
        let after = self.marks.partition_point(|(marked, _)| *marked <= seq);
        let mark = self.marks.get(after.saturating_sub(1))?;
        Some(mark.1)
    }

    /// The end of the messages that were surely sent before `cutoff`.
    pub(crate) fn before(&self, cutoff: WallTime) -> u64 {
        match self.marks.partition_point(|(_, at)| *at + STEP <= cutoff) {
            0 => 0,
            old => self.marks.get(old).map_or(u64::MAX, |(seq, _)| *seq),
        }
    }

    /// Where the first message sent at `at` or later is: at the second number, or between the two. Without a second
    /// number it may be anywhere from the first on, or nowhere.
    pub(crate) fn since(&self, at: WallTime) -> (u64, Option<u64>) {
        let first = self.marks.partition_point(|(_, marked)| *marked < at);
        let before = first.checked_sub(1).and_then(|last| self.marks.get(last));
        let from = before.map_or(0, |(seq, _)| *seq);
        (from, self.marks.get(first).map(|(seq, _)| *seq))
    }

    /// When the oldest messages will surely be older than `age`.
    pub(crate) fn next(&self, age: Duration) -> Option<WallTime> {
        self.marks.front().map(|(_, at)| *at + STEP + age)
    }

    /// Forgets what is before `seq`, the oldest message kept.
    pub(crate) fn trim(&mut self, seq: u64) {
        while self.marks.get(1).is_some_and(|(next, _)| *next <= seq) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_bound_what_a_list_knows(
            steps in prop::collection::vec((1..4_u64, -2_000..3_000_i64), 1..80),
            trim in 0..80_u64,
            ask in 0..90_000_u64,
        ) {
            // The list: each number with the latest time up to it.
            let (mut seq, mut clock, mut list, mut ages) = (0, 10_000_i64, Vec::new(), Ages::default());
            for (by, passed) in steps {
                seq += by;
                clock = (clock + passed).max(0);
                let at = list.last().map_or(0, |(_, last)| *last).max(clock as u64);
                list.push((seq, at));
                ages.sent(seq, WallTime::from_millis(clock as u64));
            }
            list.retain(|(seq, _)| *seq >= trim);
            ages.trim(trim);
            for (seq, at) in &list {
                let about = ages.of(*seq).unwrap().as_millis();
                prop_assert!(about <= *at && at - about < 1_000, "{about} for {at}");
            }
            let ask = WallTime::from_millis(ask);
            let end = ages.before(ask);
            prop_assert!(list.iter().filter(|(seq, _)| *seq < end).all(|(_, at)| *at < ask.as_millis()));
            let kept = list.iter().find(|(seq, _)| *seq >= end);
            prop_assert!(kept.is_none_or(|(_, at)| at + 2_000 > ask.as_millis()), "two steps late at most");
            let first = list.iter().find(|(_, at)| *at >= ask.as_millis()).map(|(seq, _)| *seq);
            let (from, to) = ages.since(ask);
            let Some((oldest, _)) = list.first().copied() else { return Ok(()) };
            match (first, to) {
                (Some(first), to) => prop_assert!((from..=to.unwrap_or(u64::MAX).max(oldest)).contains(&first)),
                (None, to) => prop_assert!(to.is_none()),
            }
        }
    }
}

use super::entry::Entry;
use std::collections::VecDeque;

/// The newest records of a node's log in memory: what is not applied or not on disk yet, and then as many as fit, for
/// nodes that are a little behind.
#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
}

impl Window {
    pub(super) fn new(limit: usize) -> Window {
        Window {
            entries: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// Adds the record after the newest.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
    }

    /// Forgets every record after `seq`.
    pub(super) fn cut(&mut self, seq: u64) {
        while let Some(last) = self.entries.back()
            && last.at.seq > seq
        {
            self.bytes -= cost(last);
            self.entries.pop_back();
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets the oldest records while there are too many bytes, but none after `needed`.
    pub(super) fn trim(&mut self, needed: u64) {
        while self.bytes > self.limit
            && let Some(first) = self.entries.front()
            && first.at.seq <= needed
        {
            self.bytes -= cost(first);
            self.entries.pop_front();
        }
    }

    /// The records from `from` to `to`, about `max_bytes` of them and at least one; nothing when it does not go back that
    /// far.
    pub(super) fn get(&self, from: u64, to: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.at.seq;
        let start = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let take = |entry: &&Entry| {
            let fits = entry.at.seq <= to && (bytes == 0 || bytes + cost(entry) <= max_bytes);
            bytes += cost(entry);
            fits
        };
        let entries: Vec<_> = self
            .entries
            .range(start.min(self.entries.len())..)
            .take_while(take)
            .cloned()
            .collect();
        (!entries.is_empty()).then_some(entries)
    }
}

/// Its bytes, roughly twice: encoded and decoded.
fn cost(entry: &Entry) -> usize {
    2 * entry.bytes.len() + 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Position, Record};

    fn window(limit: usize, seqs: std::ops::RangeInclusive<u64>) -> Window {
        let mut window = Window::new(limit);
        for seq in seqs {
            window.push(Entry::new(Position::new(1, seq), Record::default()));
        }
        window
    }

    fn seqs(window: &Window, from: u64, to: u64, max: usize) -> Option<Vec<u64>> {
        Some(window.get(from, to, max)?.iter().map(|entry| entry.at.seq).collect())
    }

    #[test]
    fn it_gives_what_it_has_and_drops_what_is_not_needed() {
        let mut window = window(300, 5..=9);
        assert_eq!(seqs(&window, 6, 8, 10_000), Some(vec![6, 7, 8]));
        assert_eq!(seqs(&window, 6, 9, 1), Some(vec![6]));
        assert_eq!(seqs(&window, 4, 9, 10_000), None);
        assert_eq!(seqs(&window, 10, 12, 10_000), None);
        window.trim(6);
        assert_eq!(seqs(&window, 7, 9, 10_000), Some(vec![7, 8, 9]));
        assert_eq!(seqs(&window, 6, 9, 10_000), None);
        window.trim(9);
        assert_eq!(window.entries.len(), 2);
        window.cut(8);
        assert_eq!(seqs(&window, 8, 20, 10_000), Some(vec![8]));
        window.clear();
        assert_eq!(seqs(&window, 8, 20, 10_000), None);
    }
}

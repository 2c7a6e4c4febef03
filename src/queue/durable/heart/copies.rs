//! Where messages lie in the log that have been written again.

use super::kept::SMALL;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::collections::VecDeque;

/// The place of a message is its own number until a copy of it is in the log; then it is the number of its latest copy,
/// and the segment that held it before may go. About 48 bytes of memory for each message with a copy.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Every message kept whose number is below this has a copy.
    home: u64,
    /// Numbers and places.
    places: HashTable<(u64, u64)>,
    /// In the order of their places. Those that no longer hold go when they come first, or when they are more than half.
    order: VecDeque<Copy>,
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    at: u64,
    seq: u64,
    len: u32,
}

impl Copies {
    /// Of a log that begins at number `home`.
    pub(crate) fn of_log_from(home: u64) -> Copies {
        Copies {
            home,
            ..Copies::default()
        }
    }

    pub(crate) fn home(&self) -> u64 {
        self.home
    }

    /// Every message kept whose number is below `home` has a copy from now on.
    pub(crate) fn raise_home(&mut self, home: u64) {
        self.home = self.home.max(home);
    }

    /// Where a message is.
    pub(crate) fn place(&self, seq: u64) -> u64 {
        self.find(seq).unwrap_or(seq)
    }

    pub(crate) fn find(&self, seq: u64) -> Option<u64> {
        let found = self.places.find(hash(seq), |(known, _)| *known == seq);
        found.map(|(_, at)| *at)
    }

    /// A copy of a message is in the log, behind all others.
    pub(crate) fn put(&mut self, seq: u64, at: u64, len: u32) {
        debug_assert!(self.order.back().is_none_or(|last| last.at < at));
        match self
            .places
            .entry(hash(seq), |(known, _)| *known == seq, |(known, _)| hash(*known))
        {
            Entry::Occupied(mut known) => known.get_mut().1 = at,
            Entry::Vacant(free) => drop(free.insert((seq, at))),
        }
        self.order.push_back(Copy { at, seq, len });
        self.tidy();
    }

    /// A message is no longer kept.
    pub(crate) fn remove(&mut self, seq: u64) {
        if self.places.is_empty() {
            return;
        }
        if let Ok(found) = self.places.find_entry(hash(seq), |(known, _)| *known == seq) {
            found.remove();
            self.tidy();
        }
    }

    /// The place of the oldest copy.
    pub(crate) fn first(&self) -> Option<u64> {
        self.order.front().map(|first| first.at)
    }

    /// Bytes of the messages whose copies are before each of some growing places: about, since those that no longer hold
    /// are taken to be spread evenly.
    pub(crate) fn before(&self, places: impl Iterator<Item = u64>) -> Vec<u64> {
        let (mut order, mut bytes) = (self.order.iter().peekable(), 0);
        let before = places.map(|place| {
            while let Some(copy) = order.next_if(|copy| copy.at < place) {
                bytes += u64::from(copy.len);
            }
            (bytes * self.places.len() as u64).div_ceil(self.order.len().max(1) as u64)
        });
        before.collect()
    }

    /// Up to `max` messages whose copies are the oldest, and before a place.
    pub(crate) fn oldest(&self, place: u64, max: usize) -> Vec<u64> {
        let before = self.order.iter().take_while(|copy| copy.at < place);
        let holds = before.filter(|copy| self.holds(copy));
        holds.map(|copy| copy.seq).take(max).collect()
    }

    fn holds(&self, copy: &Copy) -> bool {
        self.find(copy.seq) == Some(copy.at)
    }

    fn tidy(&mut self) {
        while self.order.front().is_some_and(|first| !self.holds(first)) {
            self.order.pop_front();
        }
        if self.order.len() > SMALL.max(2 * self.places.len()) {
            let order = std::mem::take(&mut self.order);
            self.order = order.into_iter().filter(|copy| self.holds(copy)).collect();
            self.places.shrink_to(self.order.len() * 2, |(known, _)| hash(*known));
        }
    }
}

/// Numbers follow one another, and nobody chooses them: they only need to be spread (Knuth, The Art of Computer
/// Programming 3, 6.4).
fn hash(seq: u64) -> u64 {
    seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map from each message to its place.
        #[test]
        fn places_are_as_they_were_last_told(steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..1_500)) {
            let (mut copies, mut map) = (Copies::of_log_from(400), BTreeMap::new());
            for (at, (seq, put)) in (1_000..).zip(steps) {
                match put {
                    true => {
                        copies.put(seq, at, 10);
                        map.insert(seq, at);
                    }
                    false => {
                        copies.remove(seq);
                        map.remove(&seq);
                    }
                }
                prop_assert_eq!(copies.place(seq), map.get(&seq).copied().unwrap_or(seq));
                prop_assert_eq!(copies.first(), map.values().min().copied());
                let mut oldest: Vec<_> = map.iter().filter(|(_, place)| **place < at - 50).collect();
                oldest.sort_by_key(|(_, place)| **place);
                let oldest: Vec<_> = oldest.into_iter().map(|(seq, _)| *seq).take(20).collect();
                prop_assert_eq!(copies.oldest(at - 50, 20), oldest);
                prop_assert_eq!(copies.before([0, u64::MAX].into_iter()), [0, map.len() as u64 * 10]);
                let stale = copies.order.len() - map.len();
                prop_assert!(stale <= SMALL.max(map.len()), "{} stale of {}", stale, copies.order.len());
            }
        }
    }
}

//! What comes next, of things that may be cancelled.

use super::kept::{SMALL, shrink};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Entries with the least first, whose owner knows which of them still hold, and says so by `holds`: cancelled ones are
/// not looked for. The first is never a cancelled one, and cancelled ones are, beyond a few, at most half.
///
/// Those that come in order, as the ends of equal leases do, wait in a row, where the first is at hand. Of the others only
/// the nearest are in a heap, small enough to stay in the processor's cache: in a heap of a million each step down
/// misses it. The others lie unsorted in spans; when the nearest are used up, the next span is halved until few are left,
/// which become the nearest (a quicksort that does as much as is asked of it: Paredes and Navarro, ALENEX 2006).
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    /// In order.
    row: VecDeque<T>,
    near: BinaryHeap<Reverse<T>>,
    /// The furthest first, none empty.
    far: Vec<Span<T>>,
    /// All of them.
    len: usize,
    /// Those that hold.
    live: usize,
}

/// Entries that are not less than `least`, and less than that of the span before.
#[derive(Debug)]
struct Span<T> {
    least: T,
    entries: Vec<T>,
}

/// The most of the nearest, when they come from a span; twice as many are divided.
const NEAR: usize = if cfg!(test) { 32 } else { 4_096 };

impl<T: Ord + Copy> Agenda<T> {
    pub(crate) fn new() -> Agenda<T> {
        Agenda {
            row: VecDeque::new(),
            near: BinaryHeap::new(),
            far: Vec::new(),
            len: 0,
            live: 0,
        }
    }

    pub(crate) fn add(&mut self, entry: T) {
        self.len += 1;
        self.live += 1;
        if self.row.back().is_none_or(|last| *last <= entry) {
            return self.row.push_back(entry);
        }
        let span = self.far.partition_point(|span| span.least > entry);
        if let Some(span) = self.far.get_mut(span) {
            span.entries.push(entry);
        } else {
            self.near.push(Reverse(entry));
            if self.near.len() > 2 * NEAR {
                let near = std::mem::take(&mut self.near).into_vec();
                self.approach(near.into_iter().map(|Reverse(entry)| entry).collect());
            }
        }
    }

    pub(crate) fn first(&self) -> Option<T> {
        let near = self.near.peek().map(|Reverse(first)| *first);
        match (self.row.front(), near) {
            (Some(row), Some(near)) => Some(near.min(*row)),
            (row, near) => row.copied().or(near),
        }
    }

    /// Takes out the first.
    fn pop(&mut self, first: T) {
        if self.row.front() == Some(&first) {
            self.row.pop_front();
        } else {
            self.near.pop();
            self.refill();
        }
        self.len -= 1;
    }

    /// One no longer holds, whether it came up or not.
    pub(crate) fn cancel(&mut self, holds: impl Fn(T) -> bool) {
        self.live -= 1;
        while let Some(first) = self.first().filter(|first| !holds(*first)) {
            self.pop(first);
        }
        if self.len > SMALL.max(2 * self.live) {
            self.row.retain(|entry| holds(*entry));
            self.near.retain(|Reverse(entry)| holds(*entry));
            for span in &mut self.far {
                span.entries.retain(|entry| holds(*entry));
                span.entries.shrink_to_fit();
            }
            self.far.retain(|span| !span.entries.is_empty());
            self.refill();
            let far = self.far.iter().map(|span| span.entries.len()).sum::<usize>();
            self.len = self.row.len() + self.near.len() + far;
            // One may be there twice, when it was cancelled and added again.
            self.live = self.len;
        }
        shrink(&mut self.row);
        if self.near.capacity() > SMALL && self.near.len() < self.near.capacity() / 4 {
            self.near.shrink_to(self.near.len() * 2);
        }
    }

    /// Makes the nearest of the next span, if there are none.
    fn refill(&mut self) {
        if self.near.is_empty()
            && let Some(next) = self.far.pop()
        {
            self.approach(next.entries);
        }
    }

    /// Makes the least of some entries the nearest, and spans of the others. They come before every span.
    fn approach(&mut self, mut entries: Vec<T>) {
        while entries.len() > NEAR {
            let middle = entries.len() / 2;
            let least = *entries.select_nth_unstable(middle).1;
            let entries = {
                let upper = entries.split_off(middle);
                entries.shrink_to_fit();
                upper
            };
            self.far.push(Span { least, entries });
        }
        self.near = entries.into_iter().map(Reverse).collect();
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let far = self.far.iter().map(|span| span.entries.capacity()).sum::<usize>();
        (self.row.capacity() + self.near.capacity() + far) * size_of::<T>() + self.far.capacity() * size_of::<Span<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_first_is_the_least_that_holds(
            steps in prop::collection::vec((0..2_000_u64, any::<bool>()), 1..3_000),
            // Many are added first.
            first in prop::option::of(prop::collection::vec(0..2_000_u64, 0..2_000)),
            in_order in any::<bool>(),
        ) {
            let (mut agenda, mut set) = (Agenda::new(), BTreeSet::new());
            let mut first = first.unwrap_or_default();
            if in_order {
                first.sort_unstable();
            }
            let first = first.into_iter().map(|entry| (entry, true));
            for (entry, add) in first.chain(steps) {
                if add && set.insert(entry) {
                    agenda.add(entry);
                }
                // Every other time the first goes.
                let from = if entry.is_multiple_of(2) { 0 } else { entry };
                if !add && let Some(gone) = set.range(from..).next().copied() {
                    set.remove(&gone);
                    agenda.cancel(|entry| set.contains(&entry));
                }
                prop_assert_eq!(agenda.first(), set.first().copied());
                let cancelled = agenda.len - set.len();
                prop_assert!(cancelled <= SMALL.max(set.len()), "{cancelled} of {}", agenda.len);
                let spans = agenda.far.windows(2).all(|pair| pair[0].least > pair[1].least);
                prop_assert!(spans && agenda.far.iter().all(|span| !span.entries.is_empty()));
            }
        }
    }

    #[test]
    fn many_of_one_time_come_in_the_order_of_their_numbers() {
        let mut agenda = Agenda::new();
        for number in (0..1_000_u64).map(|n| n * 7 % 1_000) {
            agenda.add((5, number));
        }
        for number in 0..1_000 {
            assert_eq!(agenda.first(), Some((5, number)));
            agenda.cancel(|(_, other)| other > number);
        }
        assert_eq!(agenda.first(), None);
        assert_eq!(agenda.len, 0);
    }
}

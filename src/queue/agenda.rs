//! What comes next, of things that may be cancelled.

use super::kept::SMALL;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap with the least first, whose owner knows which entries still hold, and says so by `holds`: cancelled ones are
/// not looked for. The first is never a cancelled one, and cancelled ones are, beyond a few, at most half.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Reverse<T>>,
    /// Those that hold.
    live: usize,
}

impl<T: Ord + Copy> Agenda<T> {
    pub(super) fn new() -> Agenda<T> {
        let heap = BinaryHeap::new();
        Agenda { heap, live: 0 }
    }

    pub(super) fn add(&mut self, entry: T) {
        self.heap.push(Reverse(entry));
        self.live += 1;
    }

    pub(super) fn first(&self) -> Option<T> {
        self.heap.peek().map(|Reverse(first)| *first)
    }

    /// One no longer holds, whether it came up or not.
    pub(super) fn cancel(&mut self, holds: impl Fn(T) -> bool) {
        self.live -= 1;
        while self.first().is_some_and(|first| !holds(first)) {
            self.heap.pop();
        }
        if self.heap.len() > SMALL.max(2 * self.live) {
            self.heap.retain(|Reverse(entry)| holds(*entry));
            // One may be there twice, when it was cancelled and added again.
            self.live = self.heap.len();
        }
        if self.heap.capacity() > SMALL && self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.len() * 2);
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.heap.capacity() * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_first_is_the_least_that_holds(steps in prop::collection::vec((0..2_000_u64, any::<bool>()), 1..3_000)) {
            let (mut agenda, mut set) = (Agenda::new(), BTreeSet::new());
            for (entry, add) in steps {
                if add && set.insert(entry) {
                    agenda.add(entry);
                } else if !add && let Some(gone) = set.range(entry..).next().copied() {
                    set.remove(&gone);
                    agenda.cancel(|entry| set.contains(&entry));
                }
                prop_assert_eq!(agenda.first(), set.first().copied());
                let cancelled = agenda.heap.len() - set.len();
                prop_assert!(cancelled <= SMALL.max(set.len()), "{cancelled} of {}", agenda.heap.len());
            }
        }
    }
}

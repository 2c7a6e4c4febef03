use std::collections::VecDeque;

/// When the members of a queue came in, roughly: a queue is in order of arrival, so a few marks are enough.
///
/// Exact while the queue spans at most [`MARKS`] ticks; beyond, neighbours are joined and pass for as young as the
/// youngest of them. Places in the queue are counted from its first member ever, and wrap.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// From which place on, and the tick of the last arrival before the next mark.
    marks: VecDeque<(u32, u32)>,
    /// The first mark's tick and where the next begins, and where the last begins and its tick: most calls need no more.
    first: Option<(u32, u32)>,
    last: Option<(u32, u32)>,
}

impl Ages {
    /// Notes that the member at `place` came in at `tick`.
    #[inline]
    pub(super) fn push(&mut self, place: u32, tick: u32) {
        if !self
            .last
            .is_some_and(|(from, last)| last == tick && before(from, place))
        {
            self.mark(place, tick);
        }
    }

    fn mark(&mut self, place: u32, tick: u32) {
        // Members that were taken back leave their places to others.
        while self.marks.back().is_some_and(|(from, _)| !before(*from, place)) {
            self.marks.pop_back();
        }
        if self.marks.back().is_none_or(|(_, last)| *last != tick) {
            if self.marks.len() == MARKS {
                self.join();
            }
            self.marks.reserve_exact(MARKS - self.marks.len());
            self.marks.push_back((place, tick));
        }
        self.look();
    }

    /// The tick when the member at `place` came in, which is now the oldest.
    #[inline]
    pub(super) fn oldest(&mut self, place: u32) -> u32 {
        match self.first {
            Some((tick, next)) if before(place, next) => tick,
            _ => self.find_oldest(place),
        }
    }

    fn find_oldest(&mut self, place: u32) -> u32 {
        while self.marks.len() > 1 && !before(place, self.marks[1].0) {
            self.marks.pop_front();
        }
        self.look();
        self.marks.front().map_or(0, |(_, tick)| *tick)
    }

    /// The place of each mark, in order, to be changed when the queue closes its gaps; [`look`](Ages::look) comes next.
    pub(super) fn marks_mut(&mut self) -> impl Iterator<Item = &mut u32> {
        self.marks.iter_mut().map(|(place, _)| place)
    }

    /// Notes what most calls need of the marks.
    pub(super) fn look(&mut self) {
        let next = self.marks.get(1).map(|(from, _)| *from);
        self.first = self.marks.front().and_then(|(_, tick)| Some((*tick, next?)));
        self.last = self.marks.back().copied();
    }

    /// Joins the two neighbours that span the least time together. The oldest mark stays exact: it is asked for next.
    fn join(&mut self) {
        let span = |i: &usize| self.marks[*i + 1].1.wrapping_sub(self.marks[*i - 1].1);
        let first = (1..self.marks.len() - 1)
            .min_by_key(span)
            .expect("there are more than two marks");
        self.marks[first].1 = self.marks[first + 1].1;
        self.marks.remove(first + 1);
    }
}

/// Whether place `a` comes before `b`; they are less than half the numbers apart.
fn before(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}

/// Marks a queue has at most: 8 bytes each.
const MARKS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_while_the_ticks_are_few() {
        let mut ages = Ages::default();
        for place in 0..1_000 {
            ages.push(place, place / 70);
        }
        for place in 0..1_000 {
            assert_eq!(ages.oldest(place), place / 70);
        }
    }

    #[test]
    fn younger_by_little_when_they_are_many() {
        let mut ages = Ages::default();
        for place in 0..1_000 {
            ages.push(place, place);
        }
        for place in 0..1_000 {
            let tick = ages.oldest(place);
            assert!(
                (place..place + 1_000 / 8 + 2).contains(&tick),
                "{place} passes for {tick}"
            );
        }
    }

    #[test]
    fn places_wrap() {
        let mut ages = Ages::default();
        let place = |i: u32| (u32::MAX - 10).wrapping_add(i);
        for i in 0..15 {
            ages.push(place(i), i);
        }
        for i in 0..15 {
            assert_eq!(ages.oldest(place(i)), i);
        }
    }

    #[test]
    fn a_place_taken_again_has_the_later_tick() {
        let mut ages = Ages::default();
        ages.push(0, 1);
        ages.push(1, 5);
        ages.push(1, 9); // The member at 1 was taken back.
        assert_eq!((ages.oldest(0), ages.oldest(1)), (1, 9));
    }
}

use super::ages::Ages;
use super::fifo::{Fifo, Pool, Reference};

/// The two queues of S3-FIFO and its kin, oldest first, over entries that are named by slot.
///
/// A queue holds references, and a slot has a generation: whoever leaves from the middle counts its slot's
/// generation up, and its reference is dead and skipped when its turn comes. Dead references are cleared out when they
/// exceed an eighth of their queue, so that memory stays bounded and an operation takes constant time, amortized.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By slot: the generation, and in the highest bit the queue.
    slots: Vec<u8>,
    pool: Pool,
    small: Queue,
    main: Queue,
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Small,
    Main,
}

/// What came out of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Popped {
    pub(super) slot: u32,
    /// As it was when pushed.
    pub(super) flag: bool,
    /// The tick when it was pushed, or a little later.
    pub(super) since: u32,
}

impl Queues {
    /// How many entries `line` holds.
    pub(super) fn len(&self, line: Line) -> usize {
        self.queue(line).live
    }

    /// Adds `slot`, which is in no queue, at the young end of `line` at time `tick`.
    pub(super) fn push(&mut self, line: Line, slot: u32, flag: bool, tick: u32) {
        let at = slot as usize;
        if at >= self.slots.len() {
            let missing = at + 1 - self.slots.len();
            if at >= self.slots.capacity() {
                self.slots.reserve_exact(missing + self.slots.len() / 16);
            }
            self.slots.resize(at + 1, 0);
        }
        let state = self.slots[at] & GENERATIONS | line.bit();
        self.slots[at] = state;
        let (queue, pool) = self.parts(line);
        queue.push(pool, reference(slot, state, flag), tick);
    }

    /// Takes the entry at the old end of `line`.
    pub(super) fn pop(&mut self, line: Line) -> Option<Popped> {
        self.skip_dead(line);
        let (queue, pool) = self.parts(line);
        let since = queue.oldest()?;
        let popped = queue.fifo.pop(pool).expect("an oldest entry is in the queue");
        queue.first = queue.first.wrapping_add(1);
        queue.live -= 1;
        self.clear_out(line);
        Some(Popped {
            slot: u32::from(popped.slot),
            flag: popped.state & FLAG != 0,
            since,
        })
    }

    /// Who is likely to be at the old end of `line`.
    pub(super) fn next(&self, line: Line) -> Option<u32> {
        let oldest = self.queue(line).fifo.front(&self.pool)?;
        Some(u32::from(oldest.slot))
    }

    /// The tick when the entry at the old end of `line` came in, or a little later.
    pub(super) fn oldest(&mut self, line: Line) -> Option<u32> {
        self.skip_dead(line);
        self.parts(line).0.oldest()
    }

    /// Forgets the entry at `slot`.
    pub(super) fn forget(&mut self, slot: u32) {
        self.retire(slot);
    }

    /// All slots: those of the main queue first, and in each queue the youngest first.
    pub(super) fn hottest(&self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.main.live + self.small.live);
        for line in [Line::Small, Line::Main] {
            let references = self.queue(line).fifo.iter(&self.pool);
            let live = references.filter(|reference| is_live(&self.slots, line, *reference));
            slots.extend(live.map(|reference| u32::from(reference.slot)));
        }
        slots.reverse();
        slots
    }

    /// Takes `slot` out of its queue.
    fn retire(&mut self, slot: u32) {
        let state = self.slots[slot as usize];
        let line = Line::of(state);
        let generation = ((state & GENERATIONS) + 1) & GENERATIONS;
        self.slots[slot as usize] = state & !GENERATIONS | generation;
        let (queue, pool) = self.parts(line);
        queue.live -= 1;
        // An entry that is written over and over leaves no references behind.
        let it = reference(slot, state, false);
        let is_it = |youngest: Reference| youngest.slot == it.slot && youngest.state & GENERATIONS == it.state;
        queue.fifo.take_back(pool, is_it);
        if generation == 0 {
            // No older reference to this slot may come alive again, and one may be as old as this generation.
            self.compact(Line::Small, Some(slot));
            self.compact(Line::Main, Some(slot));
        } else {
            self.clear_out(line);
        }
    }

    /// Clears out what is dead in `line` where it is much, and gives memory back that is not needed.
    fn clear_out(&mut self, line: Line) {
        if self.queue(line).is_littered() {
            self.compact(line, None);
        }
        if self.pool.is_wasteful() {
            self.pool.fit([&mut self.small.fifo, &mut self.main.fifo]);
        }
    }

    fn skip_dead(&mut self, line: Line) {
        let (queue, pool) = match line {
            Line::Small => (&mut self.small, &mut self.pool),
            Line::Main => (&mut self.main, &mut self.pool),
        };
        while queue.dead() > 0
            && queue
                .fifo
                .front(pool)
                .is_some_and(|oldest| !is_live(&self.slots, line, oldest))
        {
            queue.fifo.pop(pool);
            queue.first = queue.first.wrapping_add(1);
        }
    }

    /// Clears out what is dead in `line`, and whatever names the slot that is `gone`.
    fn compact(&mut self, line: Line, gone: Option<u32>) {
        let slots = &self.slots;
        let (queue, pool) = match line {
            Line::Small => (&mut self.small, &mut self.pool),
            Line::Main => (&mut self.main, &mut self.pool),
        };
        queue.compact(pool, |reference| {
            is_live(slots, line, reference) && gone != Some(u32::from(reference.slot))
        });
    }

    fn queue(&self, line: Line) -> &Queue {
        match line {
            Line::Small => &self.small,
            Line::Main => &self.main,
        }
    }

    fn parts(&mut self, line: Line) -> (&mut Queue, &mut Pool) {
        match line {
            Line::Small => (&mut self.small, &mut self.pool),
            Line::Main => (&mut self.main, &mut self.pool),
        }
    }
}

impl Line {
    fn bit(self) -> u8 {
        match self {
            Line::Small => 0,
            Line::Main => !GENERATIONS,
        }
    }

    fn of(state: u8) -> Line {
        if state & !GENERATIONS == 0 {
            Line::Small
        } else {
            Line::Main
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    fifo: Fifo,
    ages: Ages,
    /// The place of the oldest reference among all that were ever pushed.
    first: u32,
    /// References whose entry is still here.
    live: usize,
}

impl Queue {
    fn push(&mut self, pool: &mut Pool, reference: Reference, tick: u32) {
        let place = self.first.wrapping_add(self.fifo.len() as u32);
        self.ages.push(place, tick);
        self.fifo.push(pool, reference);
        self.live += 1;
    }

    fn oldest(&mut self) -> Option<u32> {
        (self.live > 0).then(|| self.ages.oldest(self.first))
    }

    fn dead(&self) -> usize {
        self.fifo.len() - self.live
    }

    fn is_littered(&self) -> bool {
        self.dead() > self.live / 8 + LEAST_DEAD
    }

    fn compact(&mut self, pool: &mut Pool, is_live: impl Fn(Reference) -> bool) {
        let first = self.first;
        let mut marks = self.ages.marks_mut().peekable();
        let (mut index, mut kept) = (0, 0);
        self.fifo.retain(pool, |reference| {
            let place = first.wrapping_add(index);
            while let Some(mark) = marks.next_if(|mark| place.wrapping_sub(**mark) as i32 >= 0) {
                *mark = first.wrapping_add(kept);
            }
            let keeps = is_live(reference);
            index += 1;
            kept += u32::from(keeps);
            keeps
        });
        for mark in marks {
            *mark = first.wrapping_add(kept);
        }
        self.ages.look();
        debug_assert_eq!(self.fifo.len(), self.live, "every entry has one live reference");
    }
}

fn reference(slot: u32, state: u8, flag: bool) -> Reference {
    Reference {
        slot: u16::try_from(slot).expect("a policy's numbers have two bytes"),
        state: state & GENERATIONS | if flag { FLAG } else { 0 },
    }
}

fn is_live(slots: &[u8], line: Line, reference: Reference) -> bool {
    slots[usize::from(reference.slot)] == reference.state & GENERATIONS | line.bit()
}

const GENERATIONS: u8 = 0x7f;
/// In a reference; in a slot's state the same bit says which queue.
const FLAG: u8 = !GENERATIONS;
/// So many dead references are not worth clearing out.
const LEAST_DEAD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Op {
        Push(bool, bool),
        Pop(bool),
        Forget(usize),
        Replace(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (any::<bool>(), any::<bool>()).prop_map(|(main, flag)| Op::Push(main, flag)),
            3 => any::<bool>().prop_map(Op::Pop),
            2 => any::<usize>().prop_map(Op::Forget),
            4 => any::<usize>().prop_map(Op::Replace),
        ]
    }

    fn line(main: bool) -> Line {
        if main { Line::Main } else { Line::Small }
    }

    /// Two plain queues, and a free list that hands out the slot that was freed last, as unkind as can be.
    #[derive(Default)]
    struct Model {
        queues: [VecDeque<Popped>; 2],
        free: Vec<u32>,
        slots: u32,
    }

    impl Model {
        fn slot(&mut self) -> u32 {
            self.free.pop().unwrap_or_else(|| {
                self.slots += 1;
                self.slots - 1
            })
        }

        fn take(&mut self, pick: usize) -> Option<(usize, Popped)> {
            let [small, main] = &mut self.queues;
            let at = pick.checked_rem(small.len() + main.len())?;
            Some(match at.checked_sub(small.len()) {
                None => (0, small.remove(at).unwrap()),
                Some(at) => (1, main.remove(at).unwrap()),
            })
        }
    }

    proptest! {
        #[test]
        fn they_are_two_queues(ops in prop::collection::vec(op(), 0..3_000)) {
            let (mut queues, mut model) = (Queues::default(), Model::default());
            for (tick, op) in (0..).zip(ops) {
                match op {
                    Op::Push(main, flag) => {
                        let slot = model.slot();
                        queues.push(line(main), slot, flag, tick);
                        model.queues[usize::from(main)].push_back(Popped { slot, flag, since: tick });
                    }
                    Op::Pop(main) => {
                        let (ours, theirs) = (queues.pop(line(main)), model.queues[usize::from(main)].pop_front());
                        prop_assert_eq!(ours.map(|p| (p.slot, p.flag)), theirs.map(|p| (p.slot, p.flag)));
                        if let (Some(ours), Some(theirs)) = (ours, theirs) {
                            prop_assert!(ours.since >= theirs.since && ours.since <= tick);
                            model.free.push(ours.slot);
                        }
                    }
                    Op::Forget(pick) => {
                        if let Some((_, gone)) = model.take(pick) {
                            queues.forget(gone.slot);
                            model.free.push(gone.slot);
                        }
                    }
                    Op::Replace(pick) => {
                        if let Some((main, gone)) = model.take(pick) {
                            let slot = model.slot();
                            queues.forget(gone.slot);
                            queues.push(line(main == 1), slot, false, tick);
                            model.free.push(gone.slot);
                            model.queues[main].push_back(Popped { slot, flag: false, since: tick });
                        }
                    }
                }
                for main in [false, true] {
                    let (line, queue) = (line(main), &model.queues[usize::from(main)]);
                    prop_assert_eq!(queues.len(line), queue.len());
                    let slack = queues.queue(line).dead();
                    prop_assert!(slack <= queue.len() / 8 + LEAST_DEAD, "{} dead of {}", slack, queue.len());
                    if let Some(oldest) = queue.front() {
                        prop_assert!(queues.oldest(line).unwrap() >= oldest.since);
                    }
                }
                let [small, main] = &model.queues;
                let hottest: Vec<u32> = main.iter().rev().chain(small.iter().rev()).map(|p| p.slot).collect();
                prop_assert_eq!(queues.hottest(), hottest);
            }
        }
    }

    #[test]
    fn a_slot_that_comes_and_goes_for_ever_is_one_entry() {
        let mut queues = Queues::default();
        for slot in 0..100 {
            queues.push(Line::Main, slot, false, 0);
        }
        let mut spare = 100;
        for round in 0..10_000_u32 {
            // Two entries in turn, so that neither is the youngest when its turn comes.
            let slots = queues.hottest();
            let old = slots[1];
            queues.forget(old);
            queues.push(Line::Main, spare, false, round);
            spare = old;
            assert_eq!(queues.len(Line::Main), 100);
        }
        let mut left: Vec<u32> = std::iter::from_fn(|| queues.pop(Line::Main)).map(|p| p.slot).collect();
        left.push(spare);
        left.sort_unstable();
        assert_eq!(left, (0..=100).collect::<Vec<_>>());
    }

    #[test]
    fn a_reference_does_not_come_alive_when_its_generation_comes_round() {
        let mut queues = Queues::default();
        queues.push(Line::Small, 0, false, 0);
        queues.push(Line::Small, 1, false, 0);
        queues.forget(0);
        for round in 1..1_000 {
            queues.push(Line::Small, 0, false, round);
            queues.forget(0);
            assert_eq!(
                (queues.len(Line::Small), queues.hottest()),
                (1, vec![1]),
                "round {round}"
            );
        }
    }

    #[test]
    fn memory_is_for_all_entries_once() {
        let mut queues = Queues::default();
        for slot in 0..10_000 {
            queues.push(Line::Main, slot, false, 0);
        }
        // Half of them move over, and most of those back.
        for _ in 0..5_000 {
            let moved = queues.pop(Line::Main).unwrap();
            queues.push(Line::Small, moved.slot, false, 0);
        }
        for _ in 0..4_000 {
            let moved = queues.pop(Line::Small).unwrap();
            queues.push(Line::Main, moved.slot, false, 0);
        }
        let bytes = queues.pool.bytes();
        assert!(bytes <= 33_000, "{bytes} bytes for two queues of 10,000");
    }
}

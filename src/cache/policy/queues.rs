use super::ages::Ages;
use super::ring::Ring;

/// The two queues of S3-FIFO and its kin, oldest first, over entries that are named by slot.
///
/// A queue is a ring of references and a slot has a generation: whoever leaves from the middle counts its slot's
/// generation up, and its reference is dead and skipped when its turn comes. Dead references are cleared out when they
/// exceed an eighth of their queue, so that memory stays bounded and an operation takes constant time, amortized.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By slot: the generation, and in the highest bit the queue.
    slots: Vec<u8>,
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
        if self.queue(line).ring.is_full() {
            self.make_room(line);
        }
        let state = self.slots[at] & GENERATIONS | line.bit();
        self.slots[at] = state;
        self.queue_mut(line).push(reference(slot, state, flag), tick);
    }

    /// Takes the entry at the old end of `line`.
    pub(super) fn pop(&mut self, line: Line) -> Option<Popped> {
        self.skip_dead(line);
        let queue = self.queue_mut(line);
        let since = queue.oldest()?;
        let word = queue.ring.pop().expect("an oldest entry is in the ring");
        queue.first = queue.first.wrapping_add(1);
        queue.live -= 1;
        if queue.is_littered() {
            self.compact(line, None);
        }
        Some(Popped {
            slot: word & SLOTS,
            flag: word & FLAG != 0,
            since,
        })
    }

    /// The tick when the entry at the old end of `line` came in, or a little later.
    pub(super) fn oldest(&mut self, line: Line) -> Option<u32> {
        self.skip_dead(line);
        self.queue_mut(line).oldest()
    }

    /// Forgets the entry at `slot`.
    pub(super) fn forget(&mut self, slot: u32) {
        self.retire(slot);
    }

    /// All slots: those of the main queue first, and in each queue the youngest first.
    pub(super) fn hottest(&self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.main.live + self.small.live);
        for line in [Line::Main, Line::Small] {
            let ring = &self.queue(line).ring;
            let words = (0..ring.len()).rev().map(|index| ring.get(index));
            slots.extend(words.filter(|word| self.is_live(line, *word)).map(|word| word & SLOTS));
        }
        slots
    }

    /// Takes `slot` out of its queue, and says which that was.
    fn retire(&mut self, slot: u32) -> Line {
        let state = self.slots[slot as usize];
        let line = Line::of(state);
        let generation = ((state & GENERATIONS) + 1) & GENERATIONS;
        self.slots[slot as usize] = state & !GENERATIONS | generation;
        let queue = self.queue_mut(line);
        queue.live -= 1;
        queue.take_back(slot, state);
        if generation == 0 {
            // No older reference to this slot may come alive again, and one may be as old as this generation.
            self.compact(Line::Small, Some(slot));
            self.compact(Line::Main, Some(slot));
        } else if queue.is_littered() {
            self.compact(line, None);
        }
        line
    }

    fn make_room(&mut self, line: Line) {
        let other = match line {
            Line::Small => Line::Main,
            Line::Main => Line::Small,
        };
        // What one queue gains the other has lost: together they need room for all entries once.
        self.queue_mut(other).ring.fit();
        if self.queue(line).dead() > self.queue(line).live / 16 {
            self.compact(line, None);
        }
    }

    fn skip_dead(&mut self, line: Line) {
        let queue = match line {
            Line::Small => &mut self.small,
            Line::Main => &mut self.main,
        };
        while queue.dead() > 0 && !is_live(&self.slots, line, queue.ring.get(0)) {
            queue.ring.pop();
            queue.first = queue.first.wrapping_add(1);
        }
    }

    /// Clears out what is dead in `line`, and whatever names the slot that is `gone`.
    fn compact(&mut self, line: Line, gone: Option<u32>) {
        let slots = &self.slots;
        let queue = match line {
            Line::Small => &mut self.small,
            Line::Main => &mut self.main,
        };
        queue.compact(|word| is_live(slots, line, word) && gone != Some(word & SLOTS));
    }

    fn is_live(&self, line: Line, word: u32) -> bool {
        is_live(&self.slots, line, word)
    }

    fn queue(&self, line: Line) -> &Queue {
        match line {
            Line::Small => &self.small,
            Line::Main => &self.main,
        }
    }

    fn queue_mut(&mut self, line: Line) -> &mut Queue {
        match line {
            Line::Small => &mut self.small,
            Line::Main => &mut self.main,
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
    ring: Ring,
    ages: Ages,
    /// The place of the ring's oldest reference among all that were ever pushed.
    first: u32,
    /// References whose entry is still here.
    live: usize,
}

impl Queue {
    fn push(&mut self, word: u32, tick: u32) {
        let place = self.first.wrapping_add(self.ring.len() as u32);
        self.ages.push(place, tick);
        self.ring.push(word);
        self.live += 1;
    }

    fn oldest(&mut self) -> Option<u32> {
        (self.live > 0).then(|| self.ages.oldest(self.first))
    }

    fn dead(&self) -> usize {
        self.ring.len() - self.live
    }

    fn is_littered(&self) -> bool {
        self.dead() > self.live / 8 + LEAST_DEAD
    }

    /// Drops the reference to `slot` if it is the youngest, so that an entry written over and over leaves none behind.
    fn take_back(&mut self, slot: u32, state: u8) {
        let youngest = self.ring.len() - 1;
        if self.ring.get(youngest) & !FLAG == reference(slot, state, false) {
            self.ring.truncate(youngest);
        }
    }

    fn compact(&mut self, is_live: impl Fn(u32) -> bool) {
        let mut marks = self.ages.marks_mut().peekable();
        let mut kept = 0;
        for index in 0..self.ring.len() {
            let place = self.first.wrapping_add(index as u32);
            while let Some(mark) = marks.next_if(|mark| place.wrapping_sub(**mark) as i32 >= 0) {
                *mark = self.first.wrapping_add(kept as u32);
            }
            let word = self.ring.get(index);
            if is_live(word) {
                self.ring.set(kept, word);
                kept += 1;
            }
        }
        for mark in marks {
            *mark = self.first.wrapping_add(kept as u32);
        }
        debug_assert_eq!(kept, self.live, "every entry has one live reference");
        self.ring.truncate(kept);
    }
}

fn reference(slot: u32, state: u8, flag: bool) -> u32 {
    debug_assert!(slot <= SLOTS, "a slot has {SLOT_BITS} bits");
    slot | u32::from(state & GENERATIONS) << SLOT_BITS | if flag { FLAG } else { 0 }
}

fn is_live(slots: &[u8], line: Line, word: u32) -> bool {
    let generation = (word >> SLOT_BITS) as u8 & GENERATIONS;
    slots[(word & SLOTS) as usize] == generation | line.bit()
}

const SLOT_BITS: u32 = 20;
const SLOTS: u32 = (1 << SLOT_BITS) - 1;
const GENERATIONS: u8 = 0x7f;
const FLAG: u32 = 1 << 27;
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
        let room = [Line::Small, Line::Main].map(|line| {
            let queue = queues.queue_mut(line);
            (0..)
                .find(|_| {
                    queue.ring.is_full() || {
                        queue.ring.push(0);
                        false
                    }
                })
                .unwrap()
                + queue.live
        });
        assert!(room[0] + room[1] <= 13_000, "room for {room:?} in two queues of 10,000");
    }
}

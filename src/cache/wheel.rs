//! When entries end, without a look at those that do not.

use super::index::MAX_SLOTS;
use std::fmt;

/// The deadlines of a shard's slots: a hierarchical timing wheel (Varghese and Lauck, SOSP 1987).
///
/// A bucket of level 0 is one step of [`STEP_MS`] wide, one of each further level as wide as all 64 of the level below.
/// A slot is filed by the highest base-64 digit in which its step differs from the wheel's, and comes down when the
/// wheel's time reaches its bucket: at most seven times, as a rule once or twice. All of a level's buckets end before
/// the next one's first begins, so the first bucket in use is found by one bitmap a level, however long the way there.
///
/// A deadline is asked for again before anything happens to its slot. So it may move later without a word to the wheel,
/// as idle time does at each hit; one that moves earlier is cancelled and scheduled anew.
///
/// Time is in milliseconds since the cache's start. Nothing is yielded before its deadline, and given the budget, all
/// is within [`STEP_MS`] of it. Memory: 4 bytes a slot, an eighth more while it grows, and 2 KiB once anything is
/// scheduled.
pub(super) struct Wheel {
    /// By slot: its neighbours in the bucket it is filed in.
    links: Vec<Link>,
    /// The buckets' two ends, level by level, then the line of those at hand; empty until something is scheduled.
    heads: Vec<Link>,
    /// By level: which buckets hold anything.
    used: [u64; LEVELS],
    /// The step that the wheel has reached. It lags behind the clock while slots are at hand.
    step: u64,
    len: usize,
}

/// The width of the finest bucket.
pub(super) const STEP_MS: u64 = 16;

impl Wheel {
    /// An empty wheel at `now_ms`.
    pub(super) fn new(now_ms: u64) -> Wheel {
        Wheel {
            links: Vec::new(),
            heads: Vec::new(),
            used: [0; LEVELS],
            step: now_ms.min(MAX_MS - 1) / STEP_MS,
            len: 0,
        }
    }

    /// How many slots are scheduled.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files `slot`, which is not scheduled. Constant time. A deadline past 2^48 is filed as if it were there.
    pub(super) fn schedule(&mut self, slot: u32, deadline_ms: u64) {
        debug_assert!(slot < MAX_SLOTS, "a slot's number leaves some to buckets");
        self.make_room(slot);
        debug_assert!(self.links[slot as usize].next == NONE, "the slot is not scheduled");
        self.file(slot, deadline_ms);
        self.len += 1;
    }

    /// Forgets `slot`; nothing happens if it is not scheduled. Constant time.
    pub(super) fn cancel(&mut self, slot: u32) {
        if self.links.get(slot as usize).is_some_and(|link| link.next != NONE) {
            self.unlink(slot);
            self.len -= 1;
        }
    }

    /// Forgets all slots, and frees the memory.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        *self = Wheel::new(self.step * STEP_MS);
    }

    /// Frees the memory of the slots from `slots` on, none of which is scheduled.
    pub(super) fn shrink(&mut self, slots: u32) {
        debug_assert!(self.links.iter().skip(slots as usize).all(|link| link.next == NONE));
        self.links.truncate(slots as usize);
        self.links.shrink_to_fit();
    }

    /// Takes out a slot whose deadline, which `deadline` tells, is not after `now_ms`.
    ///
    /// Each slot that it looks at takes one from `budget`, and is yielded or filed anew. `None` means that the budget is
    /// used up, or, with some of it left, that nothing more is due; what the budget did not reach waits for the next
    /// call. A clock that went back is taken to stand still.
    pub(super) fn next_expired(
        &mut self,
        now_ms: u64,
        budget: &mut usize,
        mut deadline: impl FnMut(u32) -> u64,
    ) -> Option<u32> {
        let now = now_ms.min(MAX_MS - 1).max(self.step * STEP_MS);
        loop {
            while let Some(slot) = self.at_hand() {
                *budget = budget.checked_sub(1)?;
                self.unlink(slot);
                let deadline_ms = deadline(slot);
                if deadline_ms <= now {
                    self.len -= 1;
                    return Some(slot);
                }
                self.file(slot, deadline_ms);
            }
            if !self.turn(now / STEP_MS) {
                return None;
            }
        }
    }

    /// The first moment at which [`next_expired`](Wheel::next_expired) has anything to do; no slot is yielded before.
    /// It may find then that the deadlines are later still.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        if self.at_hand().is_some() {
            return Some(self.step * STEP_MS);
        }
        self.first_bucket().map(|(.., start)| start * STEP_MS)
    }

    /// Goes on to the first bucket in use, if the time is there, and takes its slots at hand; or else to `target`.
    /// Nothing is at hand.
    fn turn(&mut self, target: u64) -> bool {
        match self.first_bucket() {
            Some((level, bucket, start)) if start <= target => {
                self.step = start;
                self.used[level] &= !(1 << bucket);
                self.take_at_hand(level * BUCKETS + bucket);
                true
            }
            // No bucket begins before `target`, so every digit that decided where a slot is filed decides alike.
            _ => {
                self.step = target;
                false
            }
        }
    }

    /// The first bucket that holds anything, with the step at which it begins.
    fn first_bucket(&self) -> Option<(usize, usize, u64)> {
        let level = self.used.iter().position(|used| *used != 0)?;
        let bucket = self.used[level].trailing_zeros() as usize;
        let shift = level as u32 * DIGIT_BITS;
        let above = self.step >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
        Some((level, bucket, above | (bucket as u64) << shift))
    }

    fn at_hand(&self) -> Option<u32> {
        let first = self.heads.get(AT_HAND)?.next;
        (first < HEAD).then_some(u32::from(first))
    }

    /// Moves a bucket's slots, of which there are some, to the line of those at hand, which is empty.
    fn take_at_hand(&mut self, bucket: usize) {
        let link = std::mem::replace(&mut self.heads[bucket], Link::ring(bucket));
        self.heads[AT_HAND] = link;
        self.links[usize::from(link.next)].prev = head(AT_HAND);
        self.links[usize::from(link.prev)].next = head(AT_HAND);
    }

    /// Links an unlinked slot in where its deadline belongs. Steps are rounded up, so that none ends before it.
    fn file(&mut self, slot: u32, deadline_ms: u64) {
        let step = deadline_ms.min(MAX_MS).div_ceil(STEP_MS);
        if step <= self.step {
            return self.push(AT_HAND, slot);
        }
        let level = (step ^ self.step).ilog2() / DIGIT_BITS;
        let bucket = (step >> (level * DIGIT_BITS)) as usize % BUCKETS;
        self.used[level as usize] |= 1 << bucket;
        self.push(level as usize * BUCKETS + bucket, slot);
    }

    /// Links `slot` in at the end of a bucket.
    fn push(&mut self, bucket: usize, slot: u32) {
        let last = std::mem::replace(&mut self.heads[bucket].prev, slot as u16);
        self.links[slot as usize] = Link {
            prev: last,
            next: head(bucket),
        };
        self.link(last).next = slot as u16;
    }

    fn unlink(&mut self, slot: u32) {
        let Link { prev, next } = std::mem::replace(&mut self.links[slot as usize], Link::LOOSE);
        self.link(prev).next = next;
        self.link(next).prev = prev;
        if prev == next && (HEAD..head(AT_HAND)).contains(&prev) {
            let bucket = usize::from(prev - HEAD);
            self.used[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
    }

    fn link(&mut self, id: u16) -> &mut Link {
        if id < HEAD {
            &mut self.links[usize::from(id)]
        } else {
            &mut self.heads[usize::from(id - HEAD)]
        }
    }

    /// Makes sure that `slot` has a link, and the buckets theirs.
    fn make_room(&mut self, slot: u32) {
        if self.heads.is_empty() {
            self.heads = (0..=AT_HAND).map(Link::ring).collect();
        }
        let wanted = slot as usize + 1;
        if wanted > self.links.len() {
            if wanted > self.links.capacity() {
                // Doubling would waste half of the memory that the entries need least.
                let capacity = wanted + (wanted / 8).max(8);
                self.links.reserve_exact(capacity - self.links.len());
            }
            self.links.resize(wanted, Link::LOOSE);
        }
    }
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len)
            .field("step", &self.step)
            .field("next_due_ms", &self.next_due_ms())
            .finish_non_exhaustive()
    }
}

/// The neighbours of a slot, or the last and the first of a bucket. Numbers below [`HEAD`] name slots.
#[derive(Clone, Copy)]
struct Link {
    prev: u16,
    next: u16,
}

impl Link {
    /// What is in no bucket.
    const LOOSE: Link = Link { prev: NONE, next: NONE };

    /// The ends of an empty bucket.
    fn ring(bucket: usize) -> Link {
        let head = head(bucket);
        Link { prev: head, next: head }
    }
}

/// The number of a bucket among those of slots.
fn head(bucket: usize) -> u16 {
    HEAD + bucket as u16
}

const DIGIT_BITS: u32 = 6;
const BUCKETS: usize = 1 << DIGIT_BITS;
/// Enough for 2^48 steps; deadlines use 2^44.
const LEVELS: usize = 8;
/// Where the line of those at hand has its ends: behind all buckets.
const AT_HAND: usize = LEVELS * BUCKETS;
/// 8,900 years. The clock is kept below it, so that a deadline filed there, because it is later, is never reached.
const MAX_MS: u64 = 1 << 48;
/// From this number on numbers name buckets, the ones below slots.
const HEAD: u16 = MAX_SLOTS as u16;
/// No slot and no bucket.
const NONE: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A wheel with the deadlines that a shard would keep, beside the dumbest correct thing.
    struct Pair {
        wheel: Wheel,
        deadlines: BTreeMap<u32, u64>,
        model: BTreeSet<(u64, u32)>,
        now: u64,
    }

    impl Pair {
        fn new(now: u64) -> Pair {
            Pair {
                wheel: Wheel::new(now),
                deadlines: BTreeMap::new(),
                model: BTreeSet::new(),
                now,
            }
        }

        fn schedule(&mut self, slot: u32, deadline: u64) {
            self.cancel(slot);
            self.wheel.schedule(slot, deadline);
            self.deadlines.insert(slot, deadline);
            self.model.insert((deadline, slot));
        }

        fn cancel(&mut self, slot: u32) {
            self.wheel.cancel(slot);
            if let Some(deadline) = self.deadlines.remove(&slot) {
                self.model.remove(&(deadline, slot));
            }
        }

        /// Moves a deadline later without telling the wheel.
        fn postpone(&mut self, slot: u32, by: u64) {
            if let Some(deadline) = self.deadlines.get_mut(&slot) {
                self.model.remove(&(*deadline, slot));
                *deadline += by;
                self.model.insert((*deadline, slot));
            }
        }

        /// Moves the clock and expires within `budget`; what it did not use comes back.
        fn advance(&mut self, by: u64, mut budget: usize) -> usize {
            self.now += by;
            let (given, due) = (budget, self.wheel.next_due_ms());
            let mut looks = 0;
            loop {
                let deadlines = &self.deadlines;
                let found = self.wheel.next_expired(self.now, &mut budget, |slot| {
                    looks += 1;
                    deadlines[&slot]
                });
                let Some(slot) = found else { break };
                let deadline = self.deadlines.remove(&slot).expect("yielded once");
                assert!(deadline <= self.now, "{slot} is yielded early");
                self.model.remove(&(deadline, slot));
            }
            assert_eq!(given - budget, looks, "each look is paid for");
            let expected = given > 0 && due.is_some_and(|due| due <= self.now);
            assert_eq!(looks > 0, expected, "there is work from the promised moment on");
            if budget > 0 {
                let first = self.model.first();
                assert!(first.is_none_or(|(deadline, _)| deadline.div_ceil(STEP_MS) > self.now / STEP_MS));
            }
            assert_eq!(self.wheel.len(), self.model.len());
            assert_eq!(self.wheel.next_due_ms().is_none(), self.wheel.is_empty());
            budget
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Schedule(u32, i64),
        Cancel(u32),
        Postpone(u32, u64),
        Advance(u64, usize),
    }

    /// Any number of up to `bits` bits, each length as likely as the other.
    fn span(bits: u32) -> impl Strategy<Value = u64> {
        (0..=bits, any::<u64>()).prop_map(|(bits, n)| n.checked_shr(64 - bits).unwrap_or(0))
    }

    fn op() -> impl Strategy<Value = Op> {
        let slot = || 0_u32..50;
        prop_oneof![
            4 => (slot(), span(45), 0..4).prop_map(|(slot, ms, past)| {
                Op::Schedule(slot, if past == 0 { -(ms as i64) } else { ms as i64 })
            }),
            1 => slot().prop_map(Op::Cancel),
            1 => (slot(), span(40)).prop_map(|(slot, by)| Op::Postpone(slot, by)),
            3 => (span(42), 0_usize..12).prop_map(|(by, budget)| Op::Advance(by, budget)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn yields_what_a_sorted_set_does(start in span(40), ops in prop::collection::vec(op(), 1..120)) {
            let mut pair = Pair::new(start);
            for op in ops {
                match op {
                    Op::Schedule(slot, from_now) => pair.schedule(slot, pair.now.saturating_add_signed(from_now)),
                    Op::Cancel(slot) => pair.cancel(slot),
                    Op::Postpone(slot, by) => pair.postpone(slot, by),
                    Op::Advance(by, budget) => {
                        pair.advance(by, budget);
                    }
                }
            }
            // Whatever lag is left, a look for each level and one to yield is enough for every slot.
            let enough = (LEVELS + 1) * pair.model.len() + 1;
            prop_assert!(pair.advance(0, enough) > 0);
            prop_assert!(pair.advance(1 << 47, enough) > 0);
            prop_assert!(pair.wheel.is_empty(), "{:?} is left", pair.model);
        }
    }

    #[test]
    fn each_is_yielded_within_a_step_whatever_digits_turn_over() {
        for level in 0..LEVELS as u32 {
            let turn = STEP_MS << (level * DIGIT_BITS);
            for start in [turn - 1, turn, turn * 63 + turn / 2, turn * 64 - 1, turn * 64] {
                let start = start % (MAX_MS / 2);
                for wait in [
                    0,
                    1,
                    STEP_MS - 1,
                    STEP_MS,
                    turn - 1,
                    turn,
                    turn + 1,
                    turn * 63,
                    turn * 64,
                    turn * 65,
                ] {
                    let deadline = start + wait % (MAX_MS / 2);
                    let mut pair = Pair::new(start);
                    pair.schedule(3, deadline);
                    if deadline > start {
                        pair.advance(deadline - 1 - start, 100);
                        assert_eq!(pair.model.len(), 1);
                    }
                    pair.advance(deadline + STEP_MS - 1 - pair.now, 100);
                    assert!(pair.model.is_empty(), "from {start} to {deadline}");
                }
            }
        }
    }

    #[test]
    fn many_in_one_second_cost_each_call_its_budget_only() {
        const MANY: u32 = MAX_SLOTS;
        let mut wheel = Wheel::new(5);
        let deadline = |slot: u32| 300_000 + u64::from(slot % 1_000);
        (0..MANY).for_each(|slot| wheel.schedule(slot, deadline(slot)));
        let (mut calls, mut yielded) = (0_u64, vec![false; MANY as usize]);
        while !wheel.is_empty() {
            let mut budget = 8;
            let mut looks = 0;
            let look = |slot| {
                looks += 1;
                deadline(slot)
            };
            if let Some(slot) = wheel.next_expired(400_000, &mut budget, look) {
                assert!(!std::mem::replace(&mut yielded[slot as usize], true));
            }
            assert!(looks <= 8);
            calls += 1;
        }
        // The wheel was late, so that all were due when first looked at.
        assert_eq!(calls, u64::from(MANY));
        assert!(yielded.iter().all(|yielded| *yielded));
    }

    #[test]
    fn a_wheel_that_lags_takes_newcomers_in() {
        let mut pair = Pair::new(0);
        (0..30).for_each(|slot| pair.schedule(slot, 100_000));
        pair.advance(200_000, 3);
        assert_eq!(pair.model.len(), 27, "27 lag");
        pair.schedule(30, 200_005);
        pair.schedule(31, 100_001);
        pair.advance(5 + STEP_MS, 29);
        assert!(pair.model.is_empty());
    }

    #[test]
    fn a_far_jump_over_nothing_costs_nothing() {
        let mut pair = Pair::new(0);
        pair.schedule(0, 1 << 46);
        assert_eq!(pair.advance((1 << 46) - (1 << 43), 7), 7);
        assert_eq!(pair.model.len(), 1);
    }

    #[test]
    fn a_deadline_past_the_end_of_time_never_comes() {
        let mut wheel = Wheel::new(u64::MAX);
        wheel.schedule(0, u64::MAX);
        let mut budget = 10;
        assert_eq!(wheel.next_expired(u64::MAX, &mut budget, |_| u64::MAX), None);
        assert_eq!(budget, 10);
    }

    #[test]
    fn an_empty_wheel_keeps_up_with_the_clock() {
        let now = 0xaa_aaaa_aaa0;
        let mut pair = Pair::new(0);
        pair.advance(now, 1);
        pair.schedule(0, now + STEP_MS);
        assert_eq!(
            pair.advance(STEP_MS - 1, 7),
            7,
            "it is filed from here, not from the start"
        );
        assert_eq!(pair.advance(1, 7), 6);
        assert!(pair.model.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let mut wheel = Wheel::new(64 * STEP_MS);
        let deadline = 70 * STEP_MS;
        wheel.schedule(0, deadline);
        let mut budget = 10;
        assert_eq!(wheel.next_expired(1_000, &mut budget, |_| deadline), None);
        assert_eq!(wheel.next_due_ms(), Some(deadline));
        assert_eq!(wheel.next_expired(deadline - 1, &mut budget, |_| deadline), None);
        assert_eq!((budget, wheel.len()), (10, 1));
        assert_eq!(wheel.next_expired(deadline, &mut budget, |_| deadline), Some(0));
    }

    #[test]
    fn memory_is_eight_bytes_a_slot_and_comes_back() {
        assert_eq!(size_of::<Link>(), 8);
        let mut wheel = Wheel::new(0);
        for slot in 0..100_000 {
            wheel.schedule(slot, 1);
            let slots = slot as usize + 1;
            assert!(wheel.links.capacity() <= slots + slots / 8 + 8, "at {slots}");
        }
        (10..100_000).for_each(|slot| wheel.cancel(slot));
        wheel.shrink(10);
        assert_eq!((wheel.links.capacity(), wheel.len()), (10, 10));
        wheel.clear();
        assert_eq!((wheel.links.capacity(), wheel.heads.capacity(), wheel.len()), (0, 0, 0));
        wheel.schedule(0, 1);
        assert_eq!(wheel.len(), 1);
    }
}

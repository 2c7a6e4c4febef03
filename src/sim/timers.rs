use crate::env::{Tick, TimerId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

use super::executor::TaskId;

/// Bits of [`TimerId::seq`] that hold the slot; the rest count the timers ever armed, so that `seq` still orders them.
const SLOT_BITS: u32 = 26;
/// Stale heap entries that are never worth a sweep.
const STALE_ALLOWED: usize = 64;

/// Armed timers in the order of `(at, seq)`.
///
/// Disarming frees the slot and leaves the heap's entry behind as stale; entries are swept when more than half are,
/// so the heap holds at most twice the armed timers, and an arm or disarm costs O(log n) amortised.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<TimerId>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    counter: u64,
}

/// What to wake: a task of the executor, or through a waker of someone else's making.
pub(super) enum Wake {
    Task(TaskId),
    Waker(Waker),
}

struct Slot {
    /// The whole `seq` of the timer that holds this slot; 0 when none does.
    seq: u64,
    wake: Option<Wake>,
}

impl Timers {
    pub(super) fn arm(&mut self, at: Tick, wake: Wake) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { seq: 0, wake: None });
            self.slots.len() as u32 - 1
        });
        assert!(
            slot < 1 << SLOT_BITS,
            "more than {} timers are armed at once",
            1 << SLOT_BITS
        );
        self.counter += 1;
        let seq = self.counter << SLOT_BITS | u64::from(slot);
        self.slots[slot as usize] = Slot { seq, wake: Some(wake) };
        let timer = TimerId { at, seq };
        self.heap.push(Reverse(timer));
        timer
    }

    /// Forgets a timer and gives back what it would have woken, to be dropped where no lock is held.
    pub(super) fn disarm(&mut self, timer: TimerId) -> Option<Wake> {
        let wake = self.release(timer.seq)?;
        if self.heap.len() > 2 * self.len() + STALE_ALLOWED {
            let slots = &self.slots;
            self.heap.retain(|Reverse(timer)| is_armed(slots, timer.seq));
        }
        Some(wake)
    }

    /// When the next timer fires.
    pub(super) fn first(&mut self) -> Option<Tick> {
        loop {
            let Reverse(timer) = self.heap.peek()?;
            if is_armed(&self.slots, timer.seq) {
                return Some(timer.at);
            }
            self.heap.pop();
        }
    }

    /// Takes the next timer if it fires at `now` or before.
    pub(super) fn pop(&mut self, now: Tick) -> Option<(TimerId, Wake)> {
        loop {
            let top = self.heap.peek_mut()?;
            if top.0.at > now {
                return None;
            }
            let Reverse(timer) = std::collections::binary_heap::PeekMut::pop(top);
            if let Some(wake) = self.release(timer.seq) {
                return Some((timer, wake));
            }
        }
    }

    /// Timers armed.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn release(&mut self, seq: u64) -> Option<Wake> {
        if !is_armed(&self.slots, seq) {
            return None;
        }
        let slot = slot_of(seq);
        self.free.push(slot as u32);
        self.slots[slot].seq = 0;
        self.slots[slot].wake.take()
    }
}

fn slot_of(seq: u64) -> usize {
    (seq & ((1 << SLOT_BITS) - 1)) as usize
}

fn is_armed(slots: &[Slot], seq: u64) -> bool {
    slots.get(slot_of(seq)).is_some_and(|slot| slot.seq == seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn task(n: u32) -> Wake {
        Wake::Task(TaskId { slot: n, generation: 0 })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u64),
        Disarm(usize),
        Advance(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u64..50).prop_map(Step::Arm),
            2 => any::<usize>().prop_map(Step::Disarm),
            1 => (0_u64..10).prop_map(Step::Advance),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// Against a sorted map: what fires, and in which order.
        #[test]
        fn fires_like_a_sorted_map(steps in steps()) {
            let mut timers = Timers::default();
            let mut model = BTreeMap::new();
            let mut ever = Vec::new();
            let mut now = Tick::ZERO;
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Arm(after) => {
                        let at = now + std::time::Duration::from_nanos(after);
                        let timer = timers.arm(at, task(n as u32));
                        model.insert(timer, n as u32);
                        ever.push(timer);
                    }
                    Step::Disarm(pick) if !ever.is_empty() => {
                        let timer = ever[pick % ever.len()];
                        prop_assert_eq!(timers.disarm(timer).is_some(), model.remove(&timer).is_some());
                    }
                    Step::Disarm(_) => {}
                    Step::Advance(by) => {
                        now = now + std::time::Duration::from_nanos(by);
                        while let Some((timer, Wake::Task(id))) = timers.pop(now) {
                            prop_assert_eq!(model.pop_first(), Some((timer, id.slot)));
                        }
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.first(), model.first_key_value().map(|(timer, _)| timer.at));
                prop_assert!(timers.heap.len() <= 2 * model.len() + STALE_ALLOWED + 1);
            }
        }
    }
}

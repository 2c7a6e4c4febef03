use super::tasks::TaskId;
use super::wheel::Wheel;
use crate::env::{Tick, TimerId};
use std::task::Waker;

/// Bits of [`TimerId::seq`] that hold the slot; the rest count the timers ever armed, so that `seq` still orders them.
const SLOT_BITS: u32 = 26;
/// Stale entries that are never worth a sweep.
const STALE_ALLOWED: usize = 1024;

/// Armed timers in the order of `(at, seq)`.
///
/// Disarming frees the slot and leaves the wheel's entry behind as stale; entries are swept when more than half are,
/// so the wheel holds at most twice the armed timers and a thousand.
pub(super) struct Timers {
    wheel: Wheel,
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
    pub(super) fn new() -> Timers {
        Timers {
            wheel: Wheel::new(),
            slots: Vec::new(),
            free: Vec::new(),
            counter: 0,
        }
    }

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
        self.wheel.push(timer);
        timer
    }

    /// Forgets a timer and gives back what it would have woken, to be dropped where no lock is held.
    pub(super) fn disarm(&mut self, timer: TimerId) -> Option<Wake> {
        let wake = self.release(timer.seq)?;
        if self.wheel.len() > 2 * self.len() + STALE_ALLOWED {
            let slots = &self.slots;
            self.wheel.retain(|timer| is_armed(slots, timer.seq));
        }
        Some(wake)
    }

    /// When the next timer fires. The caller's time is there from now on: it arms nothing earlier. Without a timer it
    /// stays at `now`.
    ///
    /// Before the timers of a short while are sorted out, each of their tasks is shown to `warm`, which gives back
    /// something that it read there. These reads do not wait for each other, so that a world of very many tasks waits
    /// once for several cache misses.
    pub(super) fn advance(&mut self, now: Tick, warm: impl Fn(TaskId) -> u32) -> Option<Tick> {
        let slots = &self.slots;
        let live = |timer: TimerId| is_armed(slots, timer.seq);
        let soon = |timers: &[TimerId]| {
            let read = timers.iter().map(|timer| match slots[slot_of(timer.seq)].wake {
                Some(Wake::Task(id)) => warm(id),
                _ => 0,
            });
            std::hint::black_box(read.fold(0, |all, one| all ^ one));
        };
        self.wheel.advance(now, live, soon)
    }

    /// Takes the next timer of the instant that [`advance`](Timers::advance) found.
    pub(super) fn take(&mut self) -> Option<(TimerId, Wake)> {
        loop {
            let timer = self.wheel.take()?;
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
        Fire,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u32..64, any::<u64>()).prop_map(|(bits, after)| Step::Arm(after >> bits)),
            1 => (0_u64..4).prop_map(Step::Arm),
            2 => any::<usize>().prop_map(Step::Disarm),
            1 => Just(Step::Fire),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// Against a sorted map: what fires, and in which order.
        #[test]
        fn fires_like_a_sorted_map(steps in steps()) {
            let mut timers = Timers::new();
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
                    Step::Fire => {
                        let at = model.first_key_value().map(|(timer, _)| timer.at);
                        prop_assert_eq!(timers.advance(now, |_| 0), at);
                        now = at.unwrap_or(now);
                        while let Some((timer, Wake::Task(id))) = at.and_then(|_| timers.take()) {
                            prop_assert_eq!(model.pop_first(), Some((timer, id.slot)));
                        }
                        prop_assert!(model.first_key_value().is_none_or(|(timer, _)| timer.at > now));
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert!(timers.wheel.len() <= 2 * model.len() + STALE_ALLOWED);
            }
        }
    }
}

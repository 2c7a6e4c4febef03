use super::clock::Clock;
use super::ghosts::Ghosts;
use super::queues::{Line, Queues};
use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};

/// S3-FIFO: three queues, and nothing moves at a hit (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023).
///
/// Newcomers wait in a small queue, a tenth of the places. Those asked for twice meanwhile move on to the main queue, the
/// others leave and are remembered as ghosts for a turnover of the cache; a ghost that comes back goes to the main queue
/// at once. The main queue is a clock: who was asked for goes round again with one mark less.
///
/// [`Adaptive`](super::Adaptive) has the same queues, costs the same, and hits more often on nearly every trace. This one
/// is for those who want the behaviour that the paper describes and nothing that changes with time.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct S3Fifo {}

impl EvictionPolicy for S3Fifo {
    fn hit_cost(&self) -> HitCost {
        HitCost::Mark { max: 3 }
    }

    fn orders(&self, shards: usize, _capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        let order = || Box::<S3FifoOrder>::default() as Box<dyn EvictionOrder>;
        std::iter::repeat_with(order).take(shards).collect()
    }
}

#[derive(Debug, Default)]
struct S3FifoOrder {
    queues: Queues,
    ghosts: Ghosts,
    clock: Clock,
}

impl S3FifoOrder {
    fn entries(&self) -> usize {
        self.queues.len(Line::Small) + self.queues.len(Line::Main)
    }
}

impl EvictionOrder for S3FifoOrder {
    fn admit(&mut self, slot: u32, hash: u64) {
        self.clock.advance(self.entries());
        let now = self.clock.now();
        let line = match self.ghosts.take(hash, now) {
            Some(_) => Line::Main,
            None => Line::Small,
        };
        self.queues.push(line, slot, false, now);
    }

    fn touch(&mut self, _slot: u32, _hash: u64) {}

    fn victim(&mut self, entries: &dyn Entries) -> u32 {
        let now = self.clock.now();
        let before = self.entries();
        let small_places = (before * SMALL_PERCENT / 100).max(1);
        for last in (0..MOST_LOOKS).rev() {
            let full = self.queues.len(Line::Small) >= small_places || self.queues.len(Line::Main) == 0;
            let line = if full { Line::Small } else { Line::Main };
            let slot = self.queues.pop(line).expect("the queue chosen has an entry").slot;
            let mark = entries.mark(slot);
            match line {
                Line::Small if mark > PROMOTE_ABOVE && last > 0 => entries.set_mark(slot, 0),
                Line::Main if mark > 0 && last > 0 => entries.set_mark(slot, mark - 1),
                Line::Small => {
                    self.ghosts.add(entries.hash(slot), false, 0, now, before);
                    return slot;
                }
                Line::Main => return slot,
            }
            self.queues.push(Line::Main, slot, false, now);
        }
        unreachable!("the last look takes who it sees")
    }

    fn forget(&mut self, slot: u32) {
        self.queues.forget(slot);
    }

    fn resize(&mut self, _capacity: usize) {}

    fn hottest(&self) -> Vec<u32> {
        self.queues.hottest()
    }
}

/// Share of the places that newcomers get, in percent.
const SMALL_PERCENT: usize = 10;
/// A newcomer stays on if it was asked for more than this often.
const PROMOTE_ABOVE: u8 = 1;
/// Entries that one choice of a victim looks at, at most.
const MOST_LOOKS: u32 = 128;

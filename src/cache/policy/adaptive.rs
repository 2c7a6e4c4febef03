use super::clock::Clock;
use super::ghosts::{Ghost, Ghosts};
use super::queues::{Line, Popped, Queues};
use super::tuner::{Advice, SOON, Tally, Tuner};
use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use std::sync::Arc;

/// The default policy.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Adaptive {}

impl EvictionPolicy for Adaptive {
    fn hit_cost(&self) -> HitCost {
        HitCost::Mark { max: 3 }
    }

    fn orders(&self, shards: usize, _capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        let tuner = Arc::new(Tuner::default());
        let order = || Box::new(AdaptiveOrder::new(Arc::clone(&tuner))) as Box<dyn EvictionOrder>;
        std::iter::repeat_with(order).take(shards).collect()
    }
}

#[derive(Debug)]
struct AdaptiveOrder {
    queues: Queues,
    ghosts: Ghosts,
    clock: Clock,
    tuner: Arc<Tuner>,
    advice: Advice,
    tally: Tally,
    /// Entries when the tally was last handed in.
    reported: usize,
    /// The cache has been full, so newcomers have to prove themselves.
    filled: bool,
}

impl AdaptiveOrder {
    fn new(tuner: Arc<Tuner>) -> AdaptiveOrder {
        AdaptiveOrder {
            queues: Queues::default(),
            ghosts: Ghosts::default(),
            clock: Clock::default(),
            advice: tuner.report(&Tally::default()),
            tuner,
            tally: Tally::default(),
            reported: 0,
            filled: false,
        }
    }

    fn entries(&self) -> usize {
        self.queues.len(Line::Small) + self.queues.len(Line::Main)
    }

    fn small_places(&self) -> usize {
        ((self.entries() as f32 * self.advice.small) as usize).max(1)
    }

    /// The queue for a newcomer and its flag.
    fn place(&mut self, ghost: Option<Ghost>) -> (Line, bool) {
        let entries = self.entries() + 1;
        let main_places = ((1.0 - self.advice.small) * entries as f32) as usize;
        if !self.filled || self.queues.len(Line::Main) < main_places {
            return (Line::Main, SETTLED);
        }
        match ghost {
            Some(ghost) if self.fits_main(ghost) => (Line::Main, ON_TRIAL),
            Some(_) => (Line::Small, SECOND_ROUND),
            None => (Line::Small, FIRST_ROUND),
        }
    }

    fn fits_main(&mut self, ghost: Ghost) -> bool {
        let now = self.clock.now();
        let unseen = self
            .queues
            .oldest(Line::Main)
            .map_or(u32::MAX, |since| now.wrapping_sub(since));
        !ghost.main && self.advice.open && ghost.gone + ghost.stay < unseen
    }

    fn evict(&mut self, line: Line, popped: Popped, entries: &dyn Entries) -> u32 {
        let now = self.clock.now();
        let stay = now.wrapping_sub(popped.since);
        let main = line == Line::Main;
        let regret = if main {
            &mut self.tally.main
        } else {
            &mut self.tally.small
        };
        regret.evicted += 1;
        let left = self.entries();
        self.ghosts.add(entries.hash(popped.slot), main, stay, now, left + 1);
        popped.slot
    }

    fn report(&mut self) {
        let entries = self.entries();
        let evicted = self.tally.small.evicted + self.tally.main.evicted;
        if (evicted as usize) * 32 >= entries {
            self.tally.entries = entries as isize - self.reported as isize;
            self.reported = entries;
            self.advice = self.tuner.report(&self.tally);
            self.tally = Tally::default();
        }
    }
}

impl EvictionOrder for AdaptiveOrder {
    fn admit(&mut self, slot: u32, hash: u64) {
        self.clock.advance(self.entries());
        let now = self.clock.now();
        self.tally.admitted += 1;
        let ghost = self.ghosts.take(hash, now);
        if let Some(ghost) = ghost {
            self.tally.main_returned += u32::from(ghost.main);
            let regret = if ghost.main {
                &mut self.tally.main
            } else {
                &mut self.tally.small
            };
            regret.soon += u32::from(ghost.gone < SOON);
        }
        let (line, flag) = self.place(ghost);
        self.queues.push(line, slot, flag, now);
    }

    fn replace(&mut self, old: u32, new: u32) {
        self.queues.replace(old, new, self.clock.now());
    }

    fn touch(&mut self, _slot: u32, _hash: u64) {}

    fn victim(&mut self, entries: &dyn Entries) -> u32 {
        self.filled = true;
        self.report();
        let now = self.clock.now();
        let small_places = self.small_places();
        loop {
            if self.queues.len(Line::Small) >= small_places || self.queues.len(Line::Main) == 0 {
                let popped = self.queues.pop(Line::Small).expect("one of the queues has an entry");
                if entries.mark(popped.slot) == 0 {
                    return self.evict(Line::Small, popped, entries);
                }
                entries.set_mark(popped.slot, 0);
                let line = if popped.flag == SECOND_ROUND {
                    Line::Main
                } else {
                    Line::Small
                };
                self.queues.push(
                    line,
                    popped.slot,
                    if line == Line::Main { SETTLED } else { SECOND_ROUND },
                    now,
                );
            } else {
                let popped = self.queues.pop(Line::Main).expect("one of the queues has an entry");
                let mark = entries.mark(popped.slot);
                if popped.flag == ON_TRIAL {
                    self.tally.tried += 1;
                    self.tally.passed += u32::from(mark > 0);
                }
                if mark == 0 {
                    return self.evict(Line::Main, popped, entries);
                }
                entries.set_mark(popped.slot, mark - 1);
                self.queues.push(Line::Main, popped.slot, SETTLED, now);
            }
        }
    }

    fn forget(&mut self, slot: u32) {
        self.queues.forget(slot);
    }

    fn resize(&mut self, _capacity: usize) {}

    fn hottest(&self) -> Vec<u32> {
        self.queues.hottest()
    }
}

/// In the small queue: not asked for in a round yet, or once.
const FIRST_ROUND: bool = false;
const SECOND_ROUND: bool = true;
/// In the main queue: its place is earned, or it came back as a ghost and has to show that it was right to let it in.
const SETTLED: bool = false;
const ON_TRIAL: bool = true;

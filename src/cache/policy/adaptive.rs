use super::clock::Clock;
use super::ghosts::{Ghost, Ghosts};
use super::queues::{Line, Popped, Queues};
use super::tuner::{Advice, Regret, SOON, Tally, Tuner};
use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use std::sync::Arc;

/// The default policy: queues as in S3-FIFO, and four rules by which they fit themselves to the keys.
///
/// A hit at most counts the entry's mark up, to 3; everything is learned when an entry comes or goes. The queues are
/// those of S3-FIFO (Yang and others, SOSP 2023): newcomers wait in a small one for a sign of interest, the rest is a clock
/// in which a round costs a mark, and keys evicted in the last turnover are remembered as ghosts. Beyond that:
///
/// 1. *There is room, so nobody waits.* While the main queue has places to spare, which is until the cache first is full and
///    whenever the small queue's share shrinks, newcomers go there at once.
/// 2. *Interest has to last.* A newcomer that was asked for takes a second round in the small queue, and moves on if it was
///    asked for in that one too: a burst around the first request says little.
/// 3. *Places go where they are missed.* The small queue's share moves, between 1 % and 20 %, until of those evicted from
///    either queue equally many come back soon (ARC of Megiddo and Modha, FAST 2003, compares what comes back alike).
/// 4. *A ghost has to be better than the one it displaces.* It goes to the main queue at once only if it was away for less
///    time than the oldest entry there has gone unseen, as in LIRS (Jiang and Zhang, SIGMETRICS 2002); else it waits among the
///    newcomers. On a loop over more keys than fit both times are equal, so a part of the loop stays and hits. And
///    the way is closed while too few of the ghosts let in are asked for there, or while nearly everything that
///    the main queue evicts comes back, which means that it only turns over what it should keep.
///
/// The shards of a cache pool what they count for the rules 3 and 4. Takes constant time, amortized, and about 8 bytes for
/// each entry: 3 for its place in a queue, 1 for its state, 3.5 for ghosts, and room to grow. What it does depends on the
/// requests, and on the hashes only through the choice of shards and mistaken ghosts: one miss in about 2,000.
///
/// Where the favourites of the day are the favourites of the year, [`WTinyLfu`](super::WTinyLfu) may hit more often still;
/// where every key is asked for twice in short order and never again, [`Lru`](super::Lru) may.
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
pub(super) struct AdaptiveOrder {
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
    pub(super) fn new(tuner: Arc<Tuner>) -> AdaptiveOrder {
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

    /// How many entries the small queue may hold.
    fn small_places(&self) -> usize {
        self.advice.small_places(self.entries())
    }

    /// The queue for a newcomer, and its flag there.
    fn place(&mut self, ghost: Option<Ghost>) -> (Line, bool) {
        let entries = self.entries() + 1;
        if !self.filled || self.queues.len(Line::Main) < self.advice.main_places(entries) {
            return (Line::Main, SETTLED);
        }
        match ghost {
            Some(ghost) if self.fits_main(ghost) => (Line::Main, ON_TRIAL),
            Some(_) => (Line::Small, SECOND_ROUND),
            None => (Line::Small, FIRST_ROUND),
        }
    }

    /// Rule 4.
    fn fits_main(&mut self, ghost: Ghost) -> bool {
        let now = self.clock.now();
        let unseen = self
            .queues
            .oldest(Line::Main)
            .map_or(u32::MAX, |since| now.wrapping_sub(since));
        !ghost.main && self.advice.open && ghost.gone + ghost.stay <= unseen
    }

    /// Lets an entry that was asked for go on (rule 2).
    fn keep(&mut self, line: Line, popped: Popped, mark: u8, entries: &dyn Entries) {
        let (line, flag, mark) = match (line, popped.flag) {
            (Line::Small, FIRST_ROUND) => (Line::Small, SECOND_ROUND, 0),
            (Line::Small, _) => (Line::Main, SETTLED, 0),
            (Line::Main, _) => (Line::Main, SETTLED, mark - 1),
        };
        entries.set_mark(popped.slot, mark);
        self.queues.push(line, popped.slot, flag, self.clock.now());
    }

    /// Makes a ghost of an entry that leaves.
    fn remember(&mut self, line: Line, popped: Popped, entries: &dyn Entries) {
        let now = self.clock.now();
        let main = line == Line::Main;
        self.regret(main).evicted += 1;
        let before = self.entries() + 1;
        let stay = now.wrapping_sub(popped.since);
        self.ghosts.add(entries.hash(popped.slot), main, stay, now, before);
    }

    fn regret(&mut self, main: bool) -> &mut Regret {
        match main {
            true => &mut self.tally.main,
            false => &mut self.tally.small,
        }
    }

    /// Hands in what was counted, every time that a sixty-fourth of the entries was evicted.
    fn report(&mut self) {
        let entries = self.entries();
        let evicted = self.tally.small.evicted + self.tally.main.evicted;
        if (evicted as usize) * 64 >= entries {
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
            self.regret(ghost.main).soon += u32::from(ghost.gone < SOON);
        }
        let (line, flag) = self.place(ghost);
        self.queues.push(line, slot, flag, now);
    }

    fn touch(&mut self, _slot: u32, _hash: u64) {}

    fn victim(&mut self, entries: &dyn Entries) -> u32 {
        self.filled = true;
        self.report();
        let small_places = self.small_places();
        for last in (0..MOST_LOOKS).rev() {
            let full = self.queues.len(Line::Small) >= small_places || self.queues.len(Line::Main) == 0;
            let line = if full { Line::Small } else { Line::Main };
            let popped = self.queues.pop(line).expect("the queue chosen has an entry");
            let mark = entries.mark(popped.slot);
            if line == Line::Main && popped.flag == ON_TRIAL {
                self.tally.tried += 1;
                self.tally.passed += u32::from(mark > 0);
            }
            if mark == 0 || last == 0 {
                self.remember(line, popped, entries);
                if let Some(next) = self.queues.next(line) {
                    entries.is_next(next);
                }
                return popped.slot;
            }
            self.keep(line, popped, mark, entries);
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

/// In the small queue: not asked for in a round yet, or once.
const FIRST_ROUND: bool = false;
const SECOND_ROUND: bool = true;
/// In the main queue: its place is earned, or it came back as a ghost and has to show that it was right to let it in.
const SETTLED: bool = false;
const ON_TRIAL: bool = true;
/// Entries that one choice of a victim looks at, at most; the last of them leaves whatever its mark.
pub(super) const MOST_LOOKS: u32 = 128;

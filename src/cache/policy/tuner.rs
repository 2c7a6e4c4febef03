use super::clock::TURNOVER;
use crate::sync::Mutex;

/// What the shards of one cache learn together, so that small shards learn as fast as a large one.
///
/// A shard counts by itself and hands its [`Tally`] in every so often, for the [`Advice`] that follows from all of them.
#[derive(Debug, Default)]
pub(super) struct Tuner(Mutex<Evidence>);

/// What a shard saw since it last reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Entries that came or went since, more or less.
    pub(super) entries: isize,
    pub(super) admitted: u32,
    /// Evicted from the small queue, and how many of those came back soon.
    pub(super) small: Regret,
    /// The same for the main queue.
    pub(super) main: Regret,
    /// Evicted from the main queue that came back at all.
    pub(super) main_returned: u32,
    /// Ghosts let into the main queue whose first round there is over, and how many of them were asked for.
    pub(super) tried: u32,
    pub(super) passed: u32,
}

/// How many were evicted, and how many of those came back soon after.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Regret {
    pub(super) evicted: u32,
    pub(super) soon: u32,
}

/// What the shards should do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Advice {
    /// The small queue's share of all places, in parts of [`WHOLE`].
    small: u32,
    /// Whether a ghost that comes back may go to the main queue at once.
    pub(super) open: bool,
}

/// In whole numbers a share of the places takes two instructions.
const WHOLE: u32 = 1 << 16;

impl Advice {
    fn new(small: f32, open: bool) -> Advice {
        Advice {
            small: (small * WHOLE as f32) as u32,
            open,
        }
    }

    /// How many of so many entries may be in the small queue.
    #[inline]
    pub(super) fn small_places(&self, entries: usize) -> usize {
        share(entries, self.small).max(1)
    }

    /// How many of so many entries the main queue has room for.
    #[inline]
    pub(super) fn main_places(&self, entries: usize) -> usize {
        share(entries, WHOLE - self.small)
    }
}

#[inline]
fn share(entries: usize, parts: u32) -> usize {
    (entries as u64 * u64::from(parts) / u64::from(WHOLE)) as usize
}

impl Tuner {
    /// Adds what a shard saw, and says what it should do.
    pub(super) fn report(&self, tally: &Tally) -> Advice {
        let mut evidence = self.0.lock();
        evidence.add(tally);
        evidence.advice()
    }
}

#[derive(Debug)]
struct Evidence {
    entries: isize,
    small_share: f32,
    small: Rate,
    main: Rate,
    /// How many evicted from the main queue came back while they were known.
    thrash: Rate,
    /// How many ghosts let into the main queue were asked for there.
    trust: Rate,
    evicted: f32,
    admitted: f32,
}

impl Default for Evidence {
    fn default() -> Evidence {
        Evidence {
            entries: 0,
            small_share: FIRST_SHARE,
            small: Rate::default(),
            main: Rate::default(),
            thrash: Rate::default(),
            trust: Rate::default(),
            evicted: 0.0,
            admitted: 0.0,
        }
    }
}

impl Evidence {
    fn add(&mut self, tally: &Tally) {
        self.entries += tally.entries;
        let entries = self.entries.max(1) as f32;
        self.small.add(tally.small.evicted, tally.small.soon, entries);
        self.main.add(tally.main.evicted, tally.main.soon, entries);
        self.thrash
            .add(tally.main.evicted, tally.main_returned, entries.max(LEAST_MEMORY));
        self.trust
            .add(tally.tried, tally.passed, (entries / 16.0).max(LEAST_MEMORY));
        self.admitted += tally.admitted as f32;
        while self.admitted >= entries / 8.0 {
            self.admitted -= entries / 8.0;
            self.trust.scale(TRUST_KEPT);
        }
        self.evicted += (tally.small.evicted + tally.main.evicted) as f32;
        let step = (entries / 16.0).max(8.0);
        while self.evicted >= step {
            self.evicted -= step;
            self.balance(entries);
        }
    }

    /// Moves places to the queue whose evictions are regretted more: where both are regretted alike, no exchange of
    /// places gains anything. A main queue that thrashes gets them anyway, since what it holds still is what hits.
    fn balance(&mut self, entries: f32) {
        let weight = 4.0 + entries / 50.0;
        let small = self.small.or(PRIOR_REGRET, weight);
        let main = self.main.or(PRIOR_REGRET, weight);
        let ratio = match self.thrashes() {
            true => 0.0,
            false => small / main,
        };
        let step = ratio.clamp(0.25, 4.0).powf(PACE);
        self.small_share = (self.small_share * step).clamp(LEAST_SHARE, MOST_SHARE);
    }

    fn thrashes(&self) -> bool {
        self.thrash.or(0.0, 4.0) > MOST_THRASH
    }

    fn advice(&self) -> Advice {
        let open = !self.thrashes() && self.trust.or(0.5, 4.0) >= LEAST_TRUST;
        Advice::new(self.small_share, open)
    }
}

/// A share of many, the latest of which count more.
#[derive(Debug, Default)]
struct Rate {
    of: f32,
    hits: f32,
}

impl Rate {
    /// Adds `of` more, `hits` of which did; what came before counts half when there were more than `memory`.
    fn add(&mut self, of: u32, hits: u32, memory: f32) {
        self.of += of as f32;
        self.hits += hits as f32;
        if self.of > memory {
            self.scale(0.5);
        }
    }

    fn scale(&mut self, by: f32) {
        self.of *= by;
        self.hits *= by;
    }

    /// The share, as if there had been `weight` more at the rate `prior`.
    fn or(&self, prior: f32, weight: f32) -> f32 {
        (self.hits + prior * weight) / (self.of + weight)
    }
}

/// Ticks within which a return counts as soon: a quarter of a turnover.
pub(super) const SOON: u32 = TURNOVER / 4;
/// The small queue's share to begin with, at least and at most.
const FIRST_SHARE: f32 = 0.06;
const LEAST_SHARE: f32 = 0.01;
const MOST_SHARE: f32 = 0.2;
/// How fast the share follows: it changes by this power of the ratio, sixteen times in a turnover.
const PACE: f32 = 0.03;
/// The regret that is taken for granted before there was any eviction.
const PRIOR_REGRET: f32 = 0.02;
/// Evictions or trials that are remembered at least, in a tiny cache.
const LEAST_MEMORY: f32 = 32.0;
/// With more of those it evicts coming back, the main queue is too small for what goes round, and should stand still.
const MOST_THRASH: f32 = 0.8;
/// With fewer of the ghosts let in asked for again, letting in more would only push out better ones.
const LEAST_TRUST: f32 = 0.15;
/// What remains of old evidence against ghosts after an eighth of a turnover: they get another chance.
const TRUST_KEPT: f32 = 0.97;

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: f32 = 1_000.0;

    fn tuner() -> Tuner {
        let tuner = Tuner::default();
        let entries = Tally {
            entries: ENTRIES as isize,
            ..Tally::default()
        };
        tuner.report(&entries);
        tuner
    }

    /// Evictions from both queues, and how many in a hundred come back soon.
    fn evictions(small: u32, main: u32) -> Tally {
        Tally {
            small: Regret {
                evicted: 100,
                soon: small,
            },
            main: Regret {
                evicted: 100,
                soon: main,
            },
            admitted: 200,
            ..Tally::default()
        }
    }

    fn after(times: usize, tally: &Tally) -> Advice {
        let tuner = tuner();
        (0..times).map(|_| tuner.report(tally)).last().expect("at least once")
    }

    fn small(advice: &Advice) -> f32 {
        advice.small as f32 / WHOLE as f32
    }

    #[test]
    fn places_go_where_they_are_missed() {
        let first = small(&tuner().report(&Tally::default()));
        assert!(small(&after(20, &evictions(20, 5))) > 1.2 * first);
        assert!(small(&after(20, &evictions(5, 20))) < first / 1.2);
        assert_eq!(
            after(1_000, &evictions(50, 5)).small,
            Advice::new(MOST_SHARE, true).small
        );
        assert_eq!(
            after(1_000, &evictions(0, 50)).small,
            Advice::new(LEAST_SHARE, true).small
        );
    }

    #[test]
    fn alike_is_left_alone() {
        let first = small(&tuner().report(&Tally::default()));
        let balanced = small(&after(20, &evictions(10, 10)));
        assert!((balanced / first - 1.0).abs() < 0.1, "{first} became {balanced}");
    }

    #[test]
    fn the_way_closes_when_ghosts_disappoint_and_opens_again() {
        let tuner = tuner();
        assert!(tuner.report(&Tally::default()).open, "they are trusted at first");
        let failed = Tally {
            tried: 60,
            ..Tally::default()
        };
        assert!(!tuner.report(&failed).open);
        let idle = Tally {
            admitted: 100,
            ..Tally::default()
        };
        let turnovers = (1..).find(|_| tuner.report(&idle).open).expect("it opens some time") as f32 * 100.0 / ENTRIES;
        assert!((1.0..20.0).contains(&turnovers), "after {turnovers} turnovers");
        let passed = Tally {
            tried: 60,
            passed: 20,
            ..Tally::default()
        };
        assert!(tuner.report(&passed).open);
    }

    #[test]
    fn the_way_closes_when_all_that_main_evicts_comes_back() {
        let returning = |returned| Tally {
            main_returned: returned,
            ..evictions(10, 10)
        };
        assert!(after(20, &returning(70)).open);
        assert!(!after(20, &returning(95)).open);
    }
}

use super::places::Places;
use crate::env::{Rng, Tick};
use std::time::Duration;

/// What endpoints said lately of their own load, and the choice among it: the probe pool of Prequal (Wydrowski and others,
/// NSDI 2024). Pure.
///
/// A report is of the latest state of one endpoint; a newer one of the same takes its place. The paper's numbers hold where
/// three reports come for each pick: there one report is thrown away per pick. Where fewer come, as with answers, fewer are
/// thrown away and each serves more picks.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The oldest first.
    recent: Vec<Report>,
    seen: Distribution,
    /// Reports that came since the last pick.
    arrived: u32,
    /// How many come per pick, on average.
    per_pick: f32,
    /// How many are to be thrown away.
    owed: f32,
    /// Whether the next one to be thrown away is the worst, not the oldest.
    worst: bool,
}

/// The most reports at a time.
pub(super) const MOST: usize = 16;
/// Below that many of use, a choice among them is none.
const FEWEST: usize = 2;
/// More than 1, for a pool that is not used up (δ of the paper, and 1).
const SLACK: f32 = 2.0;
/// Reports for each that is thrown away.
const PER_REMOVAL: f32 = 3.0;
/// Picks over which the rate of reports is averaged.
const PICKS: f32 = 64.0;

#[derive(Clone, Copy, Debug)]
struct Report {
    name: u64,
    in_flight: f32,
    /// In seconds; infinite if it was not said.
    latency: f32,
    at: Tick,
    uses: f32,
    /// Whether the distribution has it.
    seen: bool,
    /// The position of the endpoint among those of one table.
    place: (u64, Option<u32>),
}

/// What a choice is made among.
#[derive(Clone, Copy)]
pub(super) struct Range<'a> {
    /// Tells this table from all others.
    pub(super) table: u64,
    pub(super) places: &'a Places,
    /// Nothing when all are alike.
    pub(super) weights: Option<&'a [u32]>,
    pub(super) endpoints: usize,
}

/// What the user may set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The quantile of what is in flight above which an endpoint is hot.
    pub(super) hot: f32,
    pub(super) age: Duration,
}

/// How good an endpoint looks, the best first: the cold before the hot, those by latency, these by what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Rank {
    hot: bool,
    first: f32,
    then: f32,
}

impl Reports {
    pub(super) fn add(&mut self, name: u64, in_flight: f32, latency: Option<Duration>, at: Tick) {
        self.recent.retain(|report| report.name != name);
        if self.recent.len() == MOST {
            self.recent.remove(0);
        }
        self.arrived = self.arrived.saturating_add(1);
        self.recent.push(Report {
            name,
            in_flight,
            latency: latency.map_or(f32::INFINITY, |latency| latency.as_secs_f32()),
            at,
            uses: 0.0,
            seen: false,
            place: (0, None),
        });
    }

    /// The position of the best of those of `range` that may be taken, and counts a request there. None where fewer than two
    /// are of use. An endpoint that `fails` is no choice, and its report is dropped.
    pub(super) fn choose(
        &mut self,
        range: Range<'_>,
        limits: Limits,
        now: Tick,
        rng: &mut Rng,
        may_take: impl Fn(usize) -> bool,
        fails: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.recent.retain(|report| now - report.at <= limits.age);
        self.count_pick();
        self.locate(range);
        let threshold = self.seen.quantile(limits.hot);
        loop {
            let (mut best, mut usable) = (None, 0);
            for (at, report) in self.recent.iter().enumerate() {
                let Some(i) = report.place.1.map(|i| i as usize).filter(|&i| may_take(i)) else {
                    continue;
                };
                usable += 1;
                let rank = report.rank(range.weight(i), threshold);
                if best.is_none_or(|(_, _, least)| rank < least) {
                    best = Some((at, i, rank));
                }
            }
            let (at, i, _) = best.filter(|_| usable >= FEWEST)?;
            if fails(i) {
                self.recent.remove(at);
                continue;
            }
            self.spend(at, range, threshold, rng);
            return Some(i);
        }
    }

    fn count_pick(&mut self) {
        let arrived = std::mem::take(&mut self.arrived) as f32;
        self.per_pick += (arrived - self.per_pick) / PICKS;
        // At most as many as there are: with no pick for long, all that came since would be owed at once.
        self.owed = (self.owed + arrived / PER_REMOVAL).min(MOST as f32);
    }

    /// Finds out where the endpoints are, and adds what they have to the distribution.
    fn locate(&mut self, range: Range<'_>) {
        for report in &mut self.recent {
            if report.place.0 != range.table {
                let place = range.places.of(report.name).map(|i| i as u32);
                report.place = (range.table, place);
            }
            if let Some(i) = report.place.1.filter(|_| !report.seen) {
                report.seen = true;
                self.seen.add(report.in_flight / range.weight(i as usize));
            }
        }
    }

    /// Counts a request to the endpoint of a report, which is dropped once it has served often enough, and drops others.
    fn spend(&mut self, at: usize, range: Range<'_>, threshold: f32, rng: &mut Rng) {
        let report = &mut self.recent[at];
        report.in_flight += 1.0;
        report.uses += 1.0;
        // Reports beyond the endpoints that are not here already, and those thrown away: what is left for picks.
        let news = (1.0 - MOST as f32 / range.endpoints as f32) * self.per_pick - self.per_pick / PER_REMOVAL;
        if news <= 0.0 {
            // So few endpoints that most of them are here at any time.
            self.owed = 0.0;
            return;
        }
        let uses = (SLACK / news).max(1.0);
        // Its whole part, or one more as often as the rest says.
        if report.uses >= uses.floor() + f32::from(u8::from(rng.unit() < f64::from(uses.fract()))) {
            self.recent.remove(at);
        }
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.throw_away(range, threshold);
        }
    }

    /// The worst and the oldest by turns, so that what is left is neither what nobody wants nor out of date.
    fn throw_away(&mut self, range: Range<'_>, threshold: f32) {
        self.worst = !self.worst;
        if self.recent.is_empty() {
            return;
        }
        let rank = |report: &Report| {
            let weight = report.place.1.map_or(1.0, |i| range.weight(i as usize));
            report.rank(weight, threshold)
        };
        let mut worst = 0;
        if self.worst {
            for at in 1..self.recent.len() {
                if rank(&self.recent[at]) > rank(&self.recent[worst]) {
                    worst = at;
                }
            }
        }
        self.recent.remove(worst);
    }
}

impl Report {
    fn rank(&self, weight: f32, threshold: f32) -> Rank {
        let in_flight = self.in_flight / weight;
        let hot = in_flight > threshold;
        let (first, then) = if hot {
            (in_flight, self.latency)
        } else {
            (self.latency, in_flight)
        };
        Rank { hot, first, then }
    }
}

impl Range<'_> {
    fn weight(&self, i: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[i] as f32)
    }
}

/// What the last reports said is in flight, in proportion to the weights.
#[derive(Debug, Default)]
struct Distribution {
    /// In the order in which they came, the place of the next going round.
    ring: Vec<f32>,
    next: usize,
    sorted: Vec<f32>,
}

/// How many reports the distribution has.
const SEEN: usize = 64;

impl Distribution {
    fn add(&mut self, in_flight: f32) {
        if self.ring.len() < SEEN {
            self.ring.push(in_flight);
        } else {
            let old = std::mem::replace(&mut self.ring[self.next], in_flight);
            let at = self.sorted.partition_point(|seen| *seen < old);
            self.sorted.remove(at);
        }
        self.next = (self.next + 1) % SEEN;
        let at = self.sorted.partition_point(|seen| *seen < in_flight);
        self.sorted.insert(at, in_flight);
    }

    /// The least that is not below the share `quantile` of them.
    fn quantile(&self, quantile: f32) -> f32 {
        let at = (self.sorted.len() as f32 * quantile) as usize;
        self.sorted.get(at).copied().unwrap_or(f32::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::name;
    use super::super::testing::members;
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        hot: 0.84,
        age: Duration::from_secs(1),
    };

    struct Bench {
        reports: Reports,
        places: Places,
        names: Vec<u64>,
        weights: Vec<u32>,
        rng: crate::env::Rng,
    }

    impl Bench {
        fn new(weights: &[u32]) -> Bench {
            let members = members(weights);
            Bench {
                reports: Reports::default(),
                places: Places::new(&members),
                names: members.iter().map(|member| name(member.id())).collect(),
                weights: weights.to_vec(),
                rng: crate::env::Rng::seeded(1),
            }
        }

        fn say(&mut self, endpoint: usize, in_flight: f32, millis: u64, at: u64) {
            let latency = Duration::from_millis(millis);
            self.reports
                .add(self.names[endpoint], in_flight, Some(latency), self::at(at));
        }

        /// What the distribution takes for usual.
        fn usual(&mut self, in_flight: impl IntoIterator<Item = u8>) {
            in_flight.into_iter().for_each(|n| self.reports.seen.add(n.into()));
        }

        fn choose(&mut self, millis: u64) -> Option<usize> {
            self.choose_unless(millis, |_| false, |_| false)
        }

        fn choose_unless(&mut self, millis: u64, avoid: fn(usize) -> bool, fails: fn(usize) -> bool) -> Option<usize> {
            let range = Range {
                table: 1,
                places: &self.places,
                weights: Some(&self.weights),
                endpoints: self.weights.len(),
            };
            self.reports
                .choose(range, LIMITS, at(millis), &mut self.rng, |i| !avoid(i), fails)
        }
    }

    fn at(millis: u64) -> Tick {
        Tick::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_cold_go_by_latency_and_the_hot_by_what_is_in_flight() {
        let mut bench = Bench::new(&[1; 4]);
        bench.usual(0..10);
        bench.say(0, 1.0, 30, 0);
        bench.say(1, 5.0, 10, 0);
        bench.say(2, 30.0, 1, 0);
        assert_eq!(bench.choose(0), Some(1), "the fastest of those that are not hot");
        let mut bench = Bench::new(&[1; 4]);
        bench.usual(0..10);
        bench.say(0, 40.0, 1, 0);
        bench.say(1, 30.0, 10, 0);
        assert_eq!(bench.choose(0), Some(1), "all are hot");
    }

    #[test]
    fn a_request_counts_at_once() {
        let mut bench = Bench::new(&[1; 2]);
        bench.usual([0; 20]);
        bench.usual([3; 5]);
        bench.say(0, 2.0, 10, 0);
        bench.say(1, 1.0, 20, 0);
        // The faster one is hot with its fourth, and then they take turns.
        let picks: Vec<_> = (0..8).filter_map(|_| bench.choose(0)).collect();
        assert_eq!(picks, [0, 0, 1, 1, 1, 0, 1, 0]);
    }

    #[test]
    fn weight_divides_what_is_in_flight() {
        let mut bench = Bench::new(&[4, 1]);
        bench.usual([0; 20]);
        bench.say(0, 20.0, 1, 0);
        bench.say(1, 6.0, 1, 0);
        assert_eq!(bench.choose(0), Some(0));
    }

    #[test]
    fn what_tells_no_latency_comes_after_what_does() {
        let mut bench = Bench::new(&[1; 3]);
        bench.usual([9; 20]);
        bench.reports.add(bench.names[0], 1.0, None, at(0));
        bench.reports.add(bench.names[1], 0.0, None, at(0));
        assert_eq!(bench.choose(0), Some(1));
        bench.say(2, 3.0, 500, 0);
        assert_eq!(bench.choose(0), Some(2));
    }

    #[test]
    fn old_reports_and_those_of_others_are_of_no_use() {
        let mut bench = Bench::new(&[1; 3]);
        bench.reports.add(77, 0.0, None, at(500));
        bench.say(0, 0.0, 1, 0);
        bench.say(1, 0.0, 2, 500);
        assert_eq!(bench.choose(1_000), Some(0));
        assert_eq!(bench.choose(1_001), None, "one is left");
        bench.say(2, 0.0, 3, 1_001);
        assert_eq!(bench.choose_unless(1_001, |i| i == 1, |_| false), None);
        assert_eq!(bench.choose(1_001), Some(1));
    }

    #[test]
    fn one_that_fails_is_no_choice() {
        let mut bench = Bench::new(&[1; 3]);
        for (endpoint, millis) in [(0, 1), (1, 5), (2, 9)] {
            bench.say(endpoint, 0.0, millis, 0);
        }
        assert_eq!(bench.choose_unless(0, |_| false, |i| i == 0), Some(1));
        assert_eq!(bench.reports.recent.len(), 2);
    }

    #[test]
    fn with_three_reports_a_pick_the_papers_numbers_hold() {
        let mut bench = Bench::new(&[1; 100]);
        let mut picks = 0;
        for round in 0..3_000 {
            for _ in 0..3 {
                let endpoint = bench.rng.index(100);
                let millis = 1 + bench.rng.below(50);
                bench.say(endpoint, 1.0, millis, round);
            }
            picks += usize::from(bench.choose(round).is_some());
        }
        assert!((bench.reports.per_pick - 3.0).abs() < 0.01);
        // The pool is neither used up nor full of what nobody wants.
        assert!(picks > 2_990, "{picks}");
        assert!(
            (4..=MOST).contains(&bench.reports.recent.len()),
            "{:?}",
            bench.reports.recent.len()
        );
    }

    #[test]
    fn reports_with_every_answer_are_enough() {
        let mut bench = Bench::new(&[1; 100]);
        let mut picks = 0;
        for round in 0..3_000 {
            let endpoint = bench.rng.index(100);
            bench.say(endpoint, 1.0, 5, round);
            picks += usize::from(bench.choose(round).is_some());
        }
        assert!(picks > 2_900, "{picks}");
    }

    proptest! {
        #[test]
        fn the_distribution_is_of_the_last_ones(values in prop::collection::vec(0_u8..20, 1..200), quantile in 0.0_f32..1.0) {
            let mut distribution = Distribution::default();
            values.iter().for_each(|&value| distribution.add(value.into()));
            let mut last: Vec<u8> = values[values.len().saturating_sub(SEEN)..].to_vec();
            last.sort_unstable();
            let want = last[(last.len() as f32 * quantile) as usize];
            prop_assert_eq!(distribution.quantile(quantile), f32::from(want));
        }

        /// However reports and picks come: as many at most, one for each endpoint, none too old, the choice among them.
        #[test]
        fn reports_are_kept_as_promised(steps in prop::collection::vec((0_usize..30, 0_u8..9, 0_u64..400, any::<bool>()), 1..150)) {
            let mut bench = Bench::new(&[1; 30]);
            let mut now = 0;
            for (endpoint, in_flight, gap, picks) in steps {
                now += gap;
                if picks {
                    let known: Vec<u64> = bench.reports.recent.iter().map(|report| report.name).collect();
                    if let Some(picked) = bench.choose(now) {
                        prop_assert!(known.contains(&bench.names[picked]));
                    }
                    prop_assert!(bench.reports.recent.iter().all(|report| at(now) - report.at <= LIMITS.age));
                } else {
                    bench.say(endpoint, in_flight.into(), gap, now);
                }
                let mut names: Vec<u64> = bench.reports.recent.iter().map(|report| report.name).collect();
                prop_assert!(names.len() <= MOST);
                names.sort_unstable();
                names.dedup();
                prop_assert_eq!(names.len(), bench.reports.recent.len());
            }
        }
    }
}

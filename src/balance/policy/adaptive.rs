use super::dense::{Dense, DenseCosts, MOST};
use crate::balance::{Balancer, Completion, Load, Member, Outcome, Request, ServerLoad, Timing};
use crate::env::{Rng, Tick};
use crate::sync::{AtomicU32, OnceLock, Ordering::Relaxed};
use std::sync::Arc;

/// The policy to take in doubt: the least expected cost of one more request, by load, latency, failures and what servers
/// report.
///
/// The cost of an endpoint is `(in flight + 1 + others / 2) × price / weight`. Its price is its mean latency over the last
/// 128 that were timed, times `2^(row² / 2)` for a row of failures up to 8, so that one that fails at once looks dear and
/// not idle, and one that fails now and then is not left empty.
/// `others` is a running mean of what it [reports](crate::balance::Lease::report_load) to have in flight from elsewhere.
/// What is known of an endpoint that gets no requests is forgotten within seconds, its failures first and then its latency
/// towards the mean of all, so that it gets another chance.
///
/// Up to 128 endpoints are all looked at, from a random one on; the look ends early at one that costs no more than the
/// cheapest idle one did of late. Of more, 16 are drawn at random. With one client of 100 equal servers at 80 % load the
/// slowest of a hundred requests takes no longer than behind one common queue; with 20 clients that know nothing of each
/// other 1.5 times as long, and 1.4 times if servers report their load (`cargo run --release --example tail_latency`).
///
/// ```
/// use outgrow::balance::{Adaptive, Endpoint, Failure, Pool, Request};
/// let pool = Pool::builder(Adaptive::default()).endpoints(["a", "b"].map(Endpoint::new)).build();
/// let lease = pool.pick(&Request::new())?;
/// let failed = lease.id().clone();
/// lease.fail(Failure::Response);
/// assert_ne!(*pool.pick(&Request::new())?.id(), failed);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
#[derive(Debug, Default)]
pub struct Adaptive {
    /// The mean latency of all endpoints, an `f32` of nanoseconds.
    mean: AtomicU32,
    /// The costs again, side by side.
    costs: DenseCosts,
}

/// What a pick knows beside the loads.
#[derive(Debug)]
pub struct Outlook {
    /// What each weight leaves of a cost, where they differ.
    relief: Option<Box<[f32]>>,
    /// Where the costs of these endpoints are side by side, if they are.
    dense: OnceLock<Option<Box<Dense>>>,
    /// The step of time in which prices were last worked out.
    step: AtomicU32,
    /// The cost from which on it is not worth to look further: little more than that of the cheapest idle endpoint then.
    enough: AtomicU32,
}

/// The most endpoints of which all are looked at.
const SCANNED: usize = MOST;
/// How many are looked at of more.
const CHOICES: usize = 16;
/// Latencies that a mean is over.
const SAMPLES: u32 = 128;
/// So many samples an endpoint is taken to have of the mean of all at first, lest one slow answer makes it dear.
const PRIOR: f32 = 16.0;
/// Latencies that the mean of all is over.
const SAMPLES_OF_ALL: f32 = 256.0;
/// The part that a report has in `others`.
const OF_REPORTS: f32 = 0.25;
/// Seconds without a request after which a latency begins to be forgotten, and in which it is, by a factor of e.
const GRACE: f32 = 1.0;
const FORGETS_LATENCY: f32 = 2.0;
/// Seconds in which failures are forgotten, by a factor of e.
const FORGETS_FAILURES: f32 = 2.0;
/// The longest row of failures that counts.
const LONGEST_ROW: f32 = 8.0;
/// How much more than the cheapest is not worth to look further, as a factor.
const NEARLY: f32 = 1.15;

impl Balancer for Adaptive {
    type Table = Outlook;

    fn table(&self, members: &[Member]) -> Outlook {
        let relief = super::weights(members);
        Outlook {
            relief: relief.map(|weights| weights.iter().map(|&weight| 1.0 / weight as f32).collect()),
            dense: OnceLock::new(),
            step: AtomicU32::new(NEVER),
            enough: AtomicU32::new(0),
        }
    }

    #[inline]
    fn pick(
        &self,
        table: &Outlook,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let step = step(now);
        if table.step.load(Relaxed) != step {
            self.age(table, loads, step);
        }
        if !request.avoid.is_empty() || table.relief.is_some() || loads.len() > SCANNED {
            return self.pick_with_care(table, loads, request, rng);
        }
        match table.dense.get_or_init(|| Dense::of(loads)) {
            Some(dense) => Some(dense.cheapest(&self.costs, rng, table.enough())),
            None => self.pick_with_care(table, loads, request, rng),
        }
    }

    #[inline]
    fn begin(&self, load: &Load) {
        self.costs.put(load, Rank::renew(load));
    }

    #[inline]
    fn finish(&self, load: &Load, done: &Completion) {
        match done.at {
            Some(at) => self.learn(load, done, step(at)),
            None => self.costs.put(load, Rank::renew(load)),
        }
    }

    fn report(&self, load: &Load, said: &ServerLoad, _: Tick) {
        // Those of this pool that are on their way are taken for others' now and then, which does no harm.
        let own = load.in_flight().saturating_sub(1) as f32;
        let mut rank = Rank::of(load);
        rank.others += ((said.in_flight() - own).max(0.0) - rank.others) * OF_REPORTS;
        self.put(rank, load);
    }

    fn timing(&self) -> Timing {
        Timing::Sampled
    }
}

impl Adaptive {
    fn mean(&self) -> f32 {
        f32::from_bits(self.mean.load(Relaxed))
    }

    #[inline]
    fn put(&self, rank: Rank, load: &Load) {
        self.costs.put(load, rank.store(load));
    }

    #[inline(never)]
    fn pick_with_care(
        &self,
        table: &Outlook,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        rng: &mut Rng,
    ) -> Option<usize> {
        let cost = |i: usize| {
            let cost = Rank::cost_of(&loads[i]) * table.relief.as_ref().map_or(1.0, |relief| relief[i]);
            // Above any other, and still in order.
            if request.avoids(&loads[i]) {
                f32::MAX / 2.0 + cost
            } else {
                cost
            }
        };
        let (n, start) = (loads.len(), rng.index(loads.len()));
        if n <= SCANNED {
            return cheapest([start..n, 0..start], table.enough(), cost);
        }
        let mut best = start;
        for _ in 1..CHOICES {
            let i = rng.index(n);
            if cost(i) < cost(best) {
                best = i;
            }
        }
        if request.avoids(&loads[best]) {
            return super::next_untried(loads, request, best).or(Some(best));
        }
        Some(best)
    }

    /// Takes note of a request that was timed or failed.
    #[inline(never)]
    fn learn(&self, load: &Load, done: &Completion, at: u32) {
        let failed = match done.outcome {
            Outcome::Success => false,
            Outcome::Failure(_) => true,
            Outcome::Backoff(_) | Outcome::Cancelled => return self.costs.put(load, Rank::renew(load)),
        };
        let mean = self.mean();
        let mut record = Record::of(load);
        let age = age(record.at, at);
        if let Some(latency) = done.latency {
            let latency = latency.as_nanos() as f32;
            if !failed {
                let part = if mean == 0.0 { 1.0 } else { 1.0 / SAMPLES_OF_ALL };
                self.mean.store((mean + (latency - mean) * part).to_bits(), Relaxed);
            }
            record.observe(if failed { latency.max(mean) } else { latency }, mean, age);
        }
        record.row = match failed {
            true => (record.row_after(age) + 1.0).min(LONGEST_ROW),
            false => 0.0,
        };
        record.at = at;
        record.store(load);
        let price = record.price(mean, 0);
        let rank = Rank {
            price,
            ..Rank::of(load)
        };
        self.put(rank, load);
    }

    /// Works the prices out anew, once in each step of time.
    #[cold]
    fn age(&self, table: &Outlook, loads: &[Arc<Load>], now: u32) {
        let last = table.step.load(Relaxed);
        if table.step.compare_exchange(last, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let mean = self.mean();
        let mut enough = f32::INFINITY;
        for (i, load) in loads.iter().enumerate() {
            let record = Record::of(load);
            let rank = Rank {
                price: record.price(mean, age(record.at, now)),
                ..Rank::of(load)
            };
            self.put(rank, load);
            let relief = table.relief.as_ref().map_or(1.0, |relief| relief[i]);
            enough = enough.min(rank.cost(0) * relief);
        }
        table.enough.store((enough * NEARLY).to_bits(), Relaxed);
    }
}

impl Outlook {
    #[inline]
    fn enough(&self) -> f32 {
        f32::from_bits(self.enough.load(Relaxed))
    }
}

/// The first of the cheapest, or the first that is cheap enough.
#[inline]
fn cheapest(parts: [std::ops::Range<usize>; 2], enough: f32, cost: impl Fn(usize) -> f32) -> Option<usize> {
    let (mut best, mut least) = (None, f32::INFINITY);
    for part in parts {
        for i in part {
            let cost = cost(i);
            if cost < least {
                (best, least) = (Some(i), cost);
                if cost <= enough {
                    return best;
                }
            }
        }
    }
    best
}

/// What a pick reads of an endpoint, in its load's [rank](Load::rank): the cost in the high half, and what it follows from
/// in the low one, so that the end of a request that was not timed needs nothing else. Two requests that end at once may
/// leave the cost of one of them; the next request puts that right, or the next step of time.
#[derive(Clone, Copy, Debug)]
struct Rank {
    /// In nanoseconds, with the 8 bits of precision for which there is room.
    price: f32,
    /// Requests of other clients at the endpoint, in 64ths up to 1,023.
    others: f32,
}

impl Rank {
    #[inline]
    fn of(load: &Load) -> Rank {
        Rank::from_parts(load.rank().load(Relaxed) as u32)
    }

    #[inline]
    fn from_parts(parts: u32) -> Rank {
        Rank {
            price: f32::from_bits(parts & 0xffff_0000),
            others: (parts & 0xffff) as f32 / 64.0,
        }
    }

    #[inline]
    fn cost_of(load: &Load) -> f32 {
        f32::from_bits((load.rank().load(Relaxed) >> 32) as u32)
    }

    #[inline]
    fn cost(self, in_flight: u32) -> f32 {
        (in_flight as f32 + 1.0 + self.others / 2.0) * self.price.max(1.0)
    }

    /// Writes it down; says what the cost is.
    #[inline]
    fn store(self, load: &Load) -> f32 {
        let others = ((self.others * 64.0) as u32).min(0xffff);
        Rank::store_parts(self.price.to_bits() & 0xffff_0000 | others, load)
    }

    /// Works the cost out anew, for what is in flight has changed.
    #[inline]
    fn renew(load: &Load) -> f32 {
        Rank::store_parts(load.rank().load(Relaxed) as u32, load)
    }

    #[inline]
    fn store_parts(parts: u32, load: &Load) -> f32 {
        let cost = Rank::from_parts(parts).cost(load.in_flight());
        let word = u64::from(cost.to_bits()) << 32 | u64::from(parts);
        load.rank().store(word, Relaxed);
        cost
    }
}

/// What is known of an endpoint, in its load's [cell](Load::cell).
#[derive(Clone, Copy, Debug)]
struct Record {
    /// The mean latency, in nanoseconds.
    latency: f32,
    /// How many it is the mean of, below [`SAMPLES`].
    samples: u32,
    /// Failures in a row, in eighths.
    row: f32,
    /// The step of the last completion that was noted.
    at: u32,
}

impl Record {
    fn of(load: &Load) -> Record {
        let word = load.cell().load(Relaxed);
        Record {
            latency: f32::from_bits((word >> 32) as u32),
            samples: (word >> 25) as u32 & 0x7f,
            row: ((word >> 18) & 0x7f) as f32 / 8.0,
            at: word as u32 % STEPS,
        }
    }

    fn store(self, load: &Load) {
        let row = (self.row * 8.0).round() as u64;
        let word = u64::from(self.latency.to_bits()) << 32 | u64::from(self.samples) << 25 | row << 18;
        load.cell().store(word | u64::from(self.at % STEPS), Relaxed);
    }

    /// Takes a latency into the mean.
    fn observe(&mut self, latency: f32, mean: f32, age: u32) {
        if self.samples == 0 {
            self.latency = if mean == 0.0 { latency } else { mean };
        }
        self.latency = self.latency_after(mean, age);
        if seconds(age) > GRACE {
            self.samples = 0;
        }
        let part = (1.0 / (self.samples as f32 + PRIOR)).max(1.0 / SAMPLES as f32);
        self.latency += (latency - self.latency) * part;
        self.samples = (self.samples + 1).min(SAMPLES - 1);
    }

    /// What is left of the latency after `age` without a request: its ratio to the mean of all is drawn to one.
    fn latency_after(&self, mean: f32, age: u32) -> f32 {
        let idle = seconds(age) - GRACE;
        if idle <= 0.0 || mean == 0.0 || self.latency <= 0.0 {
            return self.latency;
        }
        mean * (self.latency / mean).powf((-idle / FORGETS_LATENCY).exp())
    }

    fn row_after(&self, age: u32) -> f32 {
        self.row * (-seconds(age) / FORGETS_FAILURES).exp()
    }

    fn price(&self, mean: f32, age: u32) -> f32 {
        let latency = match self.samples {
            0 => mean,
            _ => self.latency_after(mean, age),
        };
        // One failure weighs less than half a request more, lest a few here and there empty a server; four weigh as 255.
        let row = self.row_after(age);
        latency.max(1.0) * (row * row / 2.0).exp2()
    }
}

/// Time in steps of 2^27 ns, 134 ms, of which 2^18 make ten hours.
#[inline]
fn step(at: Tick) -> u32 {
    (at.as_nanos() >> 27) as u32 % STEPS
}

const STEPS: u32 = 1 << 18;
/// No step.
const NEVER: u32 = u32::MAX;

/// Steps from `then` to `now`; none when `then`, by the precise clock, is ahead of the coarse one.
fn age(then: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(then) % STEPS;
    if age > STEPS / 2 { 0 } else { age }
}

fn seconds(steps: u32) -> f32 {
    steps as f32 * 0.134_217_73
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Endpoint, Failure};
    use std::time::Duration;

    /// Endpoints with a clock, of which each request ends at once.
    struct Bench {
        policy: Adaptive,
        table: Outlook,
        loads: Vec<Arc<Load>>,
        rng: Rng,
        now: Tick,
    }

    impl Bench {
        fn new(weights: &[u32]) -> Bench {
            let member = |(i, &weight): (usize, &u32)| Member::from(&Endpoint::new(i.to_string()).weight(weight));
            let members: Vec<Member> = weights.iter().enumerate().map(member).collect();
            let policy = Adaptive::default();
            Bench {
                table: policy.table(&members),
                policy,
                loads: members
                    .iter()
                    .map(|member| Arc::new(Load::new(member.id().clone())))
                    .collect(),
                rng: Rng::seeded(1),
                now: Tick::ZERO,
            }
        }

        fn pick(&mut self, request: &Request<'_>) -> usize {
            let picked = self
                .policy
                .pick(&self.table, &self.loads, request, self.now, &mut self.rng);
            picked.expect("it refuses nobody")
        }

        fn end(&self, i: usize, outcome: Outcome, millis: u64) {
            let done = Completion::new(outcome, Some(Duration::from_millis(millis)), Some(self.now));
            self.policy.finish(&self.loads[i], &done);
        }

        /// How many of 1,000 requests each endpoint gets, a millisecond apart, that take as long as `millis` says.
        fn shares(&mut self, millis: impl Fn(usize) -> (Outcome, u64)) -> Vec<u32> {
            let mut shares = vec![0; self.loads.len()];
            for _ in 0..1_000 {
                let i = self.pick(&Request::new());
                shares[i] += 1;
                let (outcome, millis) = millis(i);
                self.end(i, outcome, millis);
                self.now = self.now + Duration::from_millis(1);
            }
            shares
        }
    }

    const FAILURE: Outcome = Outcome::Failure(Failure::Response);

    #[test]
    fn one_that_fails_at_once_looks_dear_and_gets_another_chance() {
        let mut bench = Bench::new(&[1; 10]);
        bench.shares(|_| (Outcome::Success, 10));
        let shares = bench.shares(|i| if i == 3 { (FAILURE, 0) } else { (Outcome::Success, 10) });
        assert!((1..20).contains(&shares[3]), "{shares:?}");
        bench.now = bench.now + Duration::from_secs(10);
        let healed = bench.shares(|_| (Outcome::Success, 10));
        assert!(healed[3] > 50, "{healed:?}");
    }

    #[test]
    fn one_that_fails_before_anything_succeeded_looks_dear_too() {
        let mut bench = Bench::new(&[1; 4]);
        bench.end(2, FAILURE, 0);
        assert!((0..100).all(|_| bench.pick(&Request::new()) != 2));
    }

    #[test]
    fn a_slow_one_gets_less_and_a_heavy_one_more() {
        let mut bench = Bench::new(&[1, 1, 3, 1]);
        bench.shares(|i| (Outcome::Success, if i == 0 { 100 } else { 10 }));
        let hold = |bench: &mut Bench, n: u32| {
            let mut held = vec![0_u32; 4];
            for _ in 0..n {
                let i = bench.pick(&Request::new());
                let _era = bench.loads[i].begin();
                bench.policy.begin(&bench.loads[i]);
                held[i] += 1;
            }
            held
        };
        let held = hold(&mut bench, 510);
        // In proportion to weight and speed: 1 / 10, 1, 3 and 1 of 5.1, as far as it has learnt.
        assert!(held[0] < 60 && held[2] > 250, "{held:?}");
    }

    #[test]
    fn what_servers_report_counts_by_half() {
        let mut bench = Bench::new(&[1; 2]);
        for _ in 0..40 {
            let load = Arc::clone(&bench.loads[0]);
            bench.policy.report(&load, &ServerLoad::new(8.0), bench.now);
        }
        let rank = Rank::of(&bench.loads[0]);
        assert!((7.8..=8.0).contains(&rank.others), "{rank:?}");
        assert!((0..100).all(|_| bench.pick(&Request::new()) == 1));
    }

    #[test]
    fn equals_share_evenly_and_who_was_tried_comes_last() {
        let mut bench = Bench::new(&[1; 8]);
        let mut counts = [0_u32; 8];
        for _ in 0..8_000 {
            counts[bench.pick(&Request::new())] += 1;
        }
        assert!(counts.iter().all(|n| (850..1_150).contains(n)), "{counts:?}");
        let tried: Vec<_> = (0..7).map(|i| bench.loads[i].id().clone()).collect();
        assert!((0..100).all(|_| bench.pick(&Request::new().avoid(&tried)) == 7));
    }

    #[test]
    fn of_many_a_few_are_compared() {
        let mut bench = Bench::new(&[1; 1_000]);
        for i in 0..1_000 {
            if i % 4 != 0 {
                let _era = bench.loads[i].begin();
                bench.policy.begin(&bench.loads[i]);
            }
        }
        let idle = (0..1_000)
            .filter(|_| bench.pick(&Request::new()).is_multiple_of(4))
            .count();
        // All of 16 draws miss the idle quarter in one of a hundred.
        assert!(idle > 970, "{idle}");
        let tried: Vec<_> = (0..999).map(|i| bench.loads[i].id().clone()).collect();
        assert_eq!(bench.pick(&Request::new().avoid(&tried)), 999);
    }

    #[test]
    fn a_record_survives_its_word() {
        let load = Load::new("a".into());
        let record = Record {
            latency: 1.5e6,
            samples: 127,
            row: 3.125,
            at: STEPS - 1,
        };
        record.store(&load);
        let read = Record::of(&load);
        assert_eq!(
            (read.latency, read.samples, read.row, read.at),
            (1.5e6, 127, 3.125, STEPS - 1)
        );
        assert_eq!([age(5, 9), age(9, 5), age(STEPS - 1, 1)], [4, 0, 2]);
    }
}

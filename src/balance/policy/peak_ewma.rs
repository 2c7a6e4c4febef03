use super::average::{Fade, Faded};
use super::pairs::Pairs;
use crate::balance::{Balancer, Completion, Load, Member, Outcome, Request, Timing};
use crate::env::{Rng, Tick};
use crate::sync::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Peak EWMA: of two endpoints drawn at random, the one where a request may be expected to be done sooner, which is
/// `(in flight + 1) × latency / weight` (Finagle's, by Marius Eriksen).
///
/// The latency is a moving average that takes every rise at once and every fall slowly. It fades while nobody asks, so
/// that a slow endpoint is tried again in time. **A failure counts as a very slow answer**, and so does being asked to
/// [back off](crate::balance::Lease::backoff): what fails fast would otherwise look fast and draw all requests. It is
/// tried again once the penalty has faded to what others take, after `decay × ln(penalty / their latency)`: a minute, by
/// default, where they take 10 ms. A request that was dropped counts for the time that it had, if that is above the average.
///
/// An endpoint of which nothing is known gets a request as soon as it is drawn, and further ones as if it took
/// [`default_latency`](PeakEwma::default_latency) until one has ended.
///
/// A pick reads the [stopwatch](crate::env::Env::stopwatch), and so does the end of the lease;
/// [`sampled`](PeakEwma::sampled) does with less. The average is kept to the millisecond: of the requests that end within
/// one, only those that took longer than the average count. It is written without a lock: of two that end at the same
/// instant, one may not count, unless it failed.
///
/// ```
/// use outgrow::balance::{Endpoint, Failure, PeakEwma, Pool, Request};
/// let pool = Pool::builder(PeakEwma::default())
///     .endpoints(["a", "b", "c"].map(Endpoint::new))
///     .outliers(None)
///     .build();
/// let mut failed = 0;
/// for _ in 0..100 {
///     let lease = pool.pick(&Request::new())?;
///     if &**lease.id() == "b" {
///         lease.fail(Failure::Response); // at once, every time
///         failed += 1;
///     } else {
///         lease.succeed();
///     }
/// }
/// assert_eq!(failed, 1);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    decay: Fade,
    /// In seconds, and so is the next.
    default: f32,
    penalty: f32,
    timing: Timing,
}

/// The shortest latency that is told from a shorter one, in seconds.
const LEAST: f32 = 1e-6;
/// The longest.
const MOST: f32 = 1e6;

#[inline]
fn seconds(duration: Duration) -> f32 {
    // Half the price of `as_secs_f32`, which divides. What does not fit is beyond the longest.
    let nanos = duration.as_nanos().min(i64::MAX as u128) as i64;
    (nanos as f32 * 1e-9).clamp(LEAST, MOST)
}

impl PeakEwma {
    /// The time in which what is known of an endpoint fades to 1/e = 37 %. 10 s by default, from 1 ms to a day. A
    /// shorter one forgives sooner and follows noise.
    #[must_use]
    pub fn decay(mut self, decay: Duration) -> PeakEwma {
        self.decay = Fade::new(decay);
        self
    }

    /// What a request is taken to need at an endpoint of which nothing is known but that it works on some. 30 ms by default.
    #[must_use]
    pub fn default_latency(mut self, latency: Duration) -> PeakEwma {
        self.default = seconds(latency);
        self
    }

    /// The latency, at least, that a failure counts as. 5 s by default. It should be well above any usual latency; with one
    /// below, an endpoint that fails fast attracts requests.
    #[must_use]
    pub fn penalty(mut self, penalty: Duration) -> PeakEwma {
        self.penalty = seconds(penalty);
        self
    }

    /// Reads the coarse clock at a pick, and takes the latency of at most one request an endpoint in a millisecond: much cheaper
    /// where an endpoint gets thousands a second, and the same where it gets few. A slow answer among fast ones, and being
    /// asked to back off, may then be missed; a failure is not.
    #[must_use]
    pub fn sampled(mut self) -> PeakEwma {
        self.timing = Timing::Sampled;
        self
    }

    /// How long requests at the endpoint take, with one more, in seconds.
    #[inline]
    fn cost(&self, load: &Load, now: Tick) -> f32 {
        let faded = Faded(load.cell().load(Ordering::Relaxed));
        let before = load.in_flight() as f32;
        if faded.is_unset() {
            return if before == 0.0 {
                0.0
            } else {
                (before + 1.0) * self.default
            };
        }
        (before + 1.0) * (faded.value() * faded.left(now, self.decay)).max(LEAST)
    }

    /// The average after a request that took so long.
    #[inline]
    fn after(&self, before: Faded, latency: f32, at: Tick) -> Faded {
        if before.is_unset() {
            return Faded::new(latency, at);
        }
        if before.is_of(at) && latency <= before.value() {
            return before;
        }
        let left = before.left(at, self.decay);
        let blended = before.value() * left + latency * (1.0 - left);
        Faded::new(blended.max(latency), at)
    }

    /// The average after a request that takes longer than this.
    fn after_more_than(&self, before: Faded, latency: f32, at: Tick) -> Faded {
        if before.is_unset() && latency <= self.default {
            return before;
        }
        let known = before.value() * before.left(at, self.decay);
        Faded::new(latency.max(known), at)
    }
}

impl Default for PeakEwma {
    fn default() -> PeakEwma {
        PeakEwma {
            decay: Fade::new(Duration::from_secs(10)),
            default: 0.03,
            penalty: 5.0,
            timing: Timing::Always,
        }
    }
}

impl Balancer for PeakEwma {
    type Table = Pairs;

    fn table(&self, members: &[Member]) -> Pairs {
        Pairs::new(members)
    }

    #[inline]
    fn pick(
        &self,
        pairs: &Pairs,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let cost = |i: usize| self.cost(&loads[i], now);
        pairs.pick(loads, request, rng, |b, a, weights| match weights {
            None => cost(b) < cost(a),
            Some(weights) => cost(b) * (weights[a] as f32) < cost(a) * (weights[b] as f32),
        })
    }

    #[inline]
    fn finish(&self, load: &Load, done: &Completion) {
        let Some(at) = done.at else {
            return;
        };
        let latency = done.latency.map(seconds);
        let cell = load.cell();
        let before = Faded(cell.load(Ordering::Relaxed));
        let after = match (done.outcome, latency) {
            (Outcome::Success, Some(latency)) => self.after(before, latency, at),
            (Outcome::Cancelled, Some(latency)) => self.after_more_than(before, latency, at),
            (Outcome::Success | Outcome::Cancelled, None) => return,
            (Outcome::Failure(_) | Outcome::Backoff(_), _) => {
                let latency = latency.unwrap_or(0.0).max(self.penalty);
                cell.update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                    self.after(Faded(before), latency, at).0
                });
                return;
            }
        };
        if after != before {
            // In vain when somebody else was faster, whose request is as good a sample.
            _ = cell.compare_exchange(before.0, after.0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loaded, loads, members};
    use super::*;
    use crate::balance::Failure;
    use crate::env::Rng;
    use proptest::prelude::*;

    const FAILURE: Outcome = Outcome::Failure(Failure::Other);

    fn at(millis: u64) -> Tick {
        Tick::ZERO + Duration::from_millis(millis)
    }

    fn ends(load: &Load, outcome: Outcome, latency: Duration, at: Tick) {
        PeakEwma::default().finish(load, &Completion::new(outcome, Some(latency), Some(at)));
    }

    fn cost(load: &Load, millis: u64) -> f32 {
        PeakEwma::default().cost(load, at(millis))
    }

    fn assert_near(is: f32, want: f64) {
        assert!((f64::from(is) / want - 1.0).abs() < 0.02, "{is} is not {want}");
    }

    fn load() -> Arc<Load> {
        loads(&members(&[1])).remove(0)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_unknown_is_asked_once_and_then_taken_as_the_default() {
        let load = loaded(&[0, 1, 4]);
        assert_eq!(cost(&load[0], 9), 0.0);
        assert_near(cost(&load[1], 9), 0.06);
        assert_near(cost(&load[2], 9), 0.15);
    }

    #[test]
    fn a_rise_counts_at_once_and_a_fall_in_time() {
        let load = load();
        ends(&load, Outcome::Success, millis(10), at(1_000));
        ends(&load, Outcome::Success, millis(100), at(1_001));
        assert_near(cost(&load, 1_001), 0.1);
        for i in 0..10_000 {
            ends(&load, Outcome::Success, millis(10), at(1_001 + i));
        }
        // 90 ms above the usual have faded to a third in ten seconds.
        assert_near(cost(&load, 11_001), 0.01 + 0.09 * (-1.0_f64).exp());
    }

    #[test]
    fn what_is_known_fades_without_being_written() {
        let load = load();
        ends(&load, Outcome::Success, millis(100), at(0));
        let word = load.cell().load(Ordering::Relaxed);
        assert_near(cost(&load, 20_000), 0.1 * (-2.0_f64).exp());
        assert_eq!(cost(&load, 10_000_000), LEAST, "so that the load still tells");
        assert_eq!(load.cell().load(Ordering::Relaxed), word);
    }

    #[test]
    fn a_failure_is_slow_however_fast_it_came() {
        for outcome in [FAILURE, Outcome::Backoff(millis(1))] {
            let load = load();
            ends(&load, Outcome::Success, millis(10), at(0));
            ends(&load, outcome, Duration::from_micros(100), at(1));
            assert_near(cost(&load, 1), 5.0);
            // One success does not make up for it, the time does.
            ends(&load, Outcome::Success, millis(10), at(2));
            assert_near(cost(&load, 2), 5.0);
            assert_near(cost(&load, 62_000), 5.0 * (-6.2_f64).exp());
        }
        let load = load();
        ends(&load, FAILURE, millis(60_000), at(0));
        assert_near(cost(&load, 0), 60.0);
        // Which a policy that takes samples hears without a latency.
        let load = self::load();
        let policy = PeakEwma::default().sampled();
        policy.finish(&load, &Completion::new(FAILURE, None, Some(at(0))));
        policy.finish(&load, &Completion::new(Outcome::Success, None, None));
        assert_near(cost(&load, 0), 5.0);
    }

    #[test]
    fn a_dropped_request_tells_only_that_it_would_have_taken_longer() {
        let load = load();
        ends(&load, Outcome::Cancelled, millis(1), at(0));
        assert_eq!(cost(&load, 0), 0.0, "nothing is known yet");
        ends(&load, Outcome::Success, millis(10), at(0));
        ends(&load, Outcome::Cancelled, millis(1), at(5_000));
        assert_near(cost(&load, 5_000), 0.01 * (-0.5_f64).exp());
        ends(&load, Outcome::Cancelled, millis(700), at(5_000));
        assert_near(cost(&load, 5_000), 0.7);
    }

    #[test]
    fn load_counts_times_latency_in_proportion_to_weight() {
        let shares = |weights: &[u32], in_flight: &[u32], latencies: &[u64]| {
            let policy = PeakEwma::default();
            let (table, loads) = (policy.table(&members(weights)), loaded(in_flight));
            for (load, &latency) in loads.iter().zip(latencies) {
                ends(load, Outcome::Success, millis(latency), at(0));
            }
            let mut rng = Rng::seeded(1);
            let mut counts = vec![0; weights.len()];
            for _ in 0..1_000 {
                counts[policy.pick(&table, &loads, &Request::new(), at(0), &mut rng).unwrap()] += 1;
            }
            counts
        };
        assert_eq!(shares(&[1, 1], &[0, 0], &[10, 11]), [1_000, 0]);
        assert_eq!(shares(&[1, 1], &[1, 0], &[10, 19]), [0, 1_000]);
        assert_eq!(shares(&[1, 1], &[1, 0], &[10, 21]), [1_000, 0]);
        // The light one is left with the pairs that it makes up alone, one in sixteen.
        let light = shares(&[3, 1], &[2, 0], &[10, 11])[1];
        assert!((30..100).contains(&light), "{light}");
        let light = shares(&[3, 1], &[3, 0], &[10, 11])[1];
        assert!((380..500).contains(&light), "{light}: all pairs that it is in");
    }

    proptest! {
        /// Against the formula in double precision with the exact exponential.
        #[test]
        fn follows_the_definition(ends in prop::collection::vec((0_u64..30_000, 1_u64..2_000, 0..4_u8), 1..60)) {
            let load = load();
            let (mut now, mut stamped, mut value) = (0, 0, None::<f64>);
            for (gap, latency, outcome) in ends {
                now += gap;
                let left = (-((now - stamped) as f64) / 10_000.0).exp();
                let seconds = latency as f64 / 1000.0;
                let (outcome, seen) = match outcome {
                    0 => (FAILURE, seconds.max(5.0)),
                    1 => (Outcome::Cancelled, seconds),
                    _ => (Outcome::Success, seconds),
                };
                self::ends(&load, outcome, millis(latency), at(now));
                let next = match (value, outcome) {
                    (None, Outcome::Cancelled) => (seen > 0.03).then_some(seen),
                    (Some(value), Outcome::Cancelled) => Some(seen.max(value * left)),
                    (None, _) => Some(seen),
                    (Some(value), _) => Some(seen.max(value * left + seen * (1.0 - left))),
                };
                if next.is_some() {
                    (value, stamped) = (next, now);
                }
                let left = (-((now - stamped) as f64) / 10_000.0).exp();
                let want = value.map_or(0.0, |value| (value * left).max(1e-6));
                let is = f64::from(cost(&load, now));
                // Each step is up to 1.1 % off, of which the later ones leave little.
                prop_assert!((is - want).abs() <= 0.04 * want, "{is} is not {want}");
            }
        }
    }
}

use crate::balance::background::share;
use crate::env::{Rng, Tick};
use std::time::Duration;

/// When a source is asked again: after an answer when its time to live is over, after a failure with growing pauses.
///
/// The times are spread by chance, so that many processes that started together, or lost the same server at the same
/// moment, do not ask it together.
///
/// ```
/// use outgrow::balance::discover::Refresh;
/// use std::time::Duration;
/// let refresh = Refresh::default().floor(Duration::from_secs(1)).ceiling(Duration::from_secs(60));
/// assert_eq!(refresh.max_backoff, Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Refresh {
    /// The least time between an answer and the next question, however short the answer lives. 5 s by default; at zero an
    /// answer that lives for no time is asked for again after a millisecond.
    pub floor: Duration,
    /// The most time between an answer and the next question, however long the answer lives; what a source that knows no
    /// time to live waits. 300 s by default. The floor wins where it is longer.
    pub ceiling: Duration,
    /// The share of a wait after an answer by which chance makes it longer, never shorter: asked before its time, a
    /// resolver would give what it has. 0.1 by default, kept within 0 and 1.
    pub jitter: f64,
    /// The longest first pause after a failure. 1 s by default; each further failure in a row doubles it, and chance takes
    /// up to half of each pause away.
    pub backoff: Duration,
    /// What the pauses grow to. 30 s by default; the first pause wins where it is longer.
    pub max_backoff: Duration,
}

impl Default for Refresh {
    fn default() -> Refresh {
        Refresh {
            floor: Duration::from_secs(5),
            ceiling: Duration::from_secs(300),
            jitter: 0.1,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
        }
    }
}

impl Refresh {
    /// Asks again `interval` after each answer, whatever it says of its time to live.
    #[must_use]
    pub fn every(interval: Duration) -> Refresh {
        Refresh::default().floor(interval).ceiling(interval)
    }

    /// Sets the [`floor`](Self::floor).
    #[must_use]
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// Sets the [`ceiling`](Self::ceiling).
    #[must_use]
    pub fn ceiling(mut self, ceiling: Duration) -> Self {
        self.ceiling = ceiling;
        self
    }

    /// Sets the [`jitter`](Self::jitter).
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets the [`backoff`](Self::backoff).
    #[must_use]
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// Sets the [`max_backoff`](Self::max_backoff).
    #[must_use]
    pub fn max_backoff(mut self, longest: Duration) -> Self {
        self.max_backoff = longest;
        self
    }
}

/// The rules and how many failures there were in a row. Pure: time and chance are arguments.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    rules: Refresh,
    failures: u32,
}

impl Schedule {
    pub(super) fn new(rules: Refresh) -> Schedule {
        Schedule { rules, failures: 0 }
    }

    /// When to ask again after an answer that lives for `ttl`, if it says.
    pub(super) fn answered(&mut self, ttl: Option<Duration>, now: Tick, rng: &mut Rng) -> Tick {
        self.failures = 0;
        let rules = &self.rules;
        let floor = rules.floor.max(LEAST);
        let wait = ttl.unwrap_or(Duration::MAX).min(rules.ceiling).max(floor);
        now + wait + scale(wait, share(rules.jitter) * rng.unit())
    }

    /// When to ask again after a failure.
    pub(super) fn failed(&mut self, now: Tick, rng: &mut Rng) -> Tick {
        let first = self.rules.backoff.max(LEAST);
        let longest = self.rules.max_backoff.max(first);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = first.saturating_mul(factor).min(longest);
        now + scale(pause, 1.0 - rng.unit() / 2.0)
    }
}

/// `share` of a time, which saturates: a jitter of what is nearly for ever is for ever.
fn scale(time: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * share).unwrap_or(Duration::MAX)
}

/// Nothing is asked in a tight loop.
const LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;
    use proptest::prelude::*;

    const NOW: Tick = Tick::from_nanos(5_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_to_live_decides_between_floor_and_ceiling() {
        let rng = &mut Rng::seeded(1);
        let mut wait = |ttl: Option<u64>| {
            let mut schedule = Schedule::new(Refresh::default().jitter(0.0));
            schedule.answered(ttl.map(Duration::from_secs), NOW, rng) - NOW
        };
        assert_eq!(wait(Some(60)), Duration::from_secs(60));
        assert_eq!(wait(Some(0)), Duration::from_secs(5));
        assert_eq!(wait(Some(86_400)), Duration::from_secs(300));
        assert_eq!(wait(None), Duration::from_secs(300));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_an_answer() {
        let rng = &mut Rng::seeded(2);
        let mut schedule = Schedule::new(Refresh::default());
        let mut row = |schedule: &mut Schedule| {
            let pauses = (0..7).map(|_| (schedule.failed(NOW, rng) - NOW).as_secs_f64());
            pauses.collect::<Vec<_>>()
        };
        for _ in 0..2 {
            let full = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0];
            for (pause, full) in row(&mut schedule).into_iter().zip(full) {
                assert!((full / 2.0..=full).contains(&pause), "{pause} of {full}");
            }
            schedule.answered(None, NOW, &mut Rng::seeded(3));
        }
    }

    #[test]
    fn chance_spreads_those_who_ask_together() {
        let rng = &mut Rng::seeded(4);
        let rules = Refresh::default();
        let mut spread = |answer: bool| {
            let waits = (0..1_000).map(|_| {
                let mut schedule = Schedule::new(rules.clone());
                let at = match answer {
                    true => schedule.answered(Some(SECOND * 100), NOW, rng),
                    false => schedule.failed(NOW, rng),
                };
                (at - NOW).as_secs_f64()
            });
            let waits: Vec<_> = waits.collect();
            (
                waits.iter().copied().fold(f64::MAX, f64::min),
                waits.iter().copied().fold(0.0, f64::max),
            )
        };
        let (least, most) = spread(true);
        assert!(least < 100.5 && most > 109.5, "{least} to {most}");
        let (least, most) = spread(false);
        assert!(least < 0.52 && most > 0.98, "{least} to {most}");
    }

    fn times() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0_u64..10_000_000).prop_map(Duration::from_millis),
        ]
    }

    proptest! {
        #[test]
        fn every_wait_is_within_its_bounds(
            (floor, ceiling, backoff, max_backoff) in (times(), times(), times(), times()),
            jitter in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1.0..2.0],
            steps in prop::collection::vec(prop::option::of(prop::option::of(times())), 1..80),
            seed: u64,
        ) {
            let rules = Refresh { floor, ceiling, jitter, backoff, max_backoff };
            let mut schedule = Schedule::new(rules.clone());
            let rng = &mut Rng::seeded(seed);
            let capped = |time: Duration| (Tick::ZERO + time) - Tick::ZERO; // a tick ends after 584 years
            for step in steps {
                match step {
                    Some(ttl) => {
                        let wait = schedule.answered(ttl, Tick::ZERO, rng) - Tick::ZERO;
                        let base = ttl.unwrap_or(Duration::MAX).min(ceiling).max(floor).max(LEAST);
                        prop_assert!(wait >= capped(base));
                        prop_assert!(wait <= capped(base.saturating_mul(2)));
                    }
                    None => {
                        let wait = schedule.failed(Tick::ZERO, rng) - Tick::ZERO;
                        let first = backoff.max(LEAST);
                        prop_assert!(wait >= capped(first) / 2);
                        prop_assert!(wait <= capped(max_backoff.max(first)));
                    }
                }
            }
        }
    }
}

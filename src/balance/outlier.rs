use super::sweep::{FailurePercentage, SlowOutlier, SuccessRate};
use crate::env::{Rng, Tick};
use std::time::Duration;

/// When an endpoint that does worse than the others is put out of the pick range, and for how long.
///
/// Four rules eject, each by itself: [`consecutive_failures`](Self::consecutive_failures) at the last of them, and, once
/// an [`interval`](Self::interval), a [`success_rate`](Self::success_rate) far below the others', a
/// [`failure_percentage`](Self::failure_percentage), and a [`latency`](Self::latency) far above the others'. Each is out
/// for `base_ejection_time × times` and some jitter, where `times` counts its ejections, less one for each full `interval`
/// that it has spent in the range since its last one. Names are those of gRFC A50 where it has them; that proposal and
/// Envoy default to a `max_ejection_percent` of 10, which in a pool of ten or fewer lets go of only one endpoint.
///
/// The interval's rules are looked at when a request fails, or is timed where there is a rule for latencies: without
/// either nobody can be an outlier. What was counted over more than two intervals says nothing about now and ejects nobody.
///
/// ```
/// use outgrow::balance::OutlierEjection;
/// use std::time::Duration;
/// let rules = OutlierEjection::default().consecutive_failures(3).base_ejection_time(Duration::from_secs(10));
/// assert_eq!(rules.max_ejection_percent, 50);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlierEjection {
    /// Failures in a row that eject. 5 by default; 0 is taken as 1. A cancelled request neither adds to a row nor ends
    /// it. When the maximum of ejected endpoints keeps one in the range, its count starts again.
    pub consecutive_failures: u32,
    /// Ejects whose share of successes is far below the others'. None by default: where all others succeed always, a single
    /// failure is far below them.
    pub success_rate: Option<SuccessRate>,
    /// Ejects whose share of failures is above a threshold. None by default.
    pub failure_percentage: Option<FailurePercentage>,
    /// Ejects whose latency is far above the others'. None by default, since it times requests: at most one an endpoint
    /// in a millisecond, and a reading of the coarse clock for each pick.
    pub latency: Option<SlowOutlier>,
    /// How long requests are counted before the three rules above look at them, and time in the range that makes up for one ejection. 10 s by default; at zero no ejection is longer than the first.
    pub interval: Duration,
    /// How long the first ejection lasts. 30 s by default; at zero an ejected endpoint is back at the next pick.
    pub base_ejection_time: Duration,
    /// The longest an ejection lasts, if that is not shorter than the base time. 300 s by default.
    pub max_ejection_time: Duration,
    /// Up to so much is added to each ejection, at random, so that not all who ejected an endpoint come back to it at once.
    /// 3 s by default.
    pub max_ejection_jitter: Duration,
    /// The most endpoints that may be out at once, in percent of those that are not drained, rounded up. 50 by default;
    /// 0 ejects none. Below 100 the last one always stays; from 100 on all may go, and picks then fail with
    /// [`AllEjected`](crate::balance::PickError::AllEjected).
    ///
    /// When so many leave the pool that those ejected exceed it, the ones that were nearest to their return come back.
    pub max_ejection_percent: u32,
}

impl Default for OutlierEjection {
    fn default() -> OutlierEjection {
        OutlierEjection {
            consecutive_failures: 5,
            success_rate: None,
            failure_percentage: None,
            latency: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_jitter: Duration::from_secs(3),
            max_ejection_percent: 50,
        }
    }
}

impl OutlierEjection {
    /// Sets [`consecutive_failures`](Self::consecutive_failures).
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets the [`success_rate`](Self::success_rate).
    #[must_use]
    pub fn success_rate(mut self, rule: impl Into<Option<SuccessRate>>) -> Self {
        self.success_rate = rule.into();
        self
    }

    /// Sets the [`failure_percentage`](Self::failure_percentage).
    #[must_use]
    pub fn failure_percentage(mut self, rule: impl Into<Option<FailurePercentage>>) -> Self {
        self.failure_percentage = rule.into();
        self
    }

    /// Sets the [`latency`](Self::latency).
    #[must_use]
    pub fn latency(mut self, rule: impl Into<Option<SlowOutlier>>) -> Self {
        self.latency = rule.into();
        self
    }

    /// Sets the [`interval`](Self::interval).
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the [`base_ejection_time`](Self::base_ejection_time).
    #[must_use]
    pub fn base_ejection_time(mut self, time: Duration) -> Self {
        self.base_ejection_time = time;
        self
    }

    /// Sets the [`max_ejection_time`](Self::max_ejection_time).
    #[must_use]
    pub fn max_ejection_time(mut self, time: Duration) -> Self {
        self.max_ejection_time = time;
        self
    }

    /// Sets the [`max_ejection_jitter`](Self::max_ejection_jitter).
    #[must_use]
    pub fn max_ejection_jitter(mut self, jitter: Duration) -> Self {
        self.max_ejection_jitter = jitter;
        self
    }

    /// Sets the [`max_ejection_percent`](Self::max_ejection_percent).
    #[must_use]
    pub fn max_ejection_percent(mut self, percent: u32) -> Self {
        self.max_ejection_percent = percent;
        self
    }

    /// How many of `endpoints` may be out at once.
    pub(super) fn most(&self, endpoints: usize) -> usize {
        match self.max_ejection_percent {
            0 => 0,
            percent @ 1..100 => (endpoints * percent as usize)
                .div_ceil(100)
                .min(endpoints.saturating_sub(1)),
            _ => endpoints,
        }
    }

    /// The longest that an ejection lasts, but for its jitter.
    fn longest(&self) -> Duration {
        self.max_ejection_time.max(self.base_ejection_time)
    }

    /// How long the `times`th ejection lasts.
    fn duration(&self, times: u32, rng: &mut Rng) -> Duration {
        let duration = self.base_ejection_time.saturating_mul(times).min(self.longest());
        let jitter = u64::try_from(self.max_ejection_jitter.as_nanos()).unwrap_or(u64::MAX);
        duration.saturating_add(Duration::from_nanos(rng.below(jitter)))
    }
}

/// What an endpoint has been through. Pure: time is an argument.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// The end of the ejection that it is under.
    pub(super) until: Option<Tick>,
    /// Ejections that its time in the range has not made up for yet, as of the last return.
    times: u32,
    /// When the last ejection ended.
    returned: Tick,
    /// Ejections ever.
    pub(super) ejections: u64,
}

impl Record {
    pub(super) fn eject(&mut self, rules: &OutlierEjection, now: Tick, rng: &mut Rng) {
        let good = (now - self.returned).as_nanos().checked_div(rules.interval.as_nanos());
        let forgiven = good.map_or(u32::MAX, |intervals| u32::try_from(intervals).unwrap_or(u32::MAX));
        self.times = self.times.saturating_sub(forgiven) + 1;
        self.until = Some(now + rules.duration(self.times, rng));
        self.ejections += 1;
    }

    /// Puts the endpoint out for `pause`, because it asked for that. Does not count as an ejection.
    pub(super) fn pause(&mut self, rules: &OutlierEjection, pause: Duration, now: Tick) {
        self.until = self.until.max(Some(now + pause.min(rules.longest())));
    }

    /// Ends an ejection, if there is one.
    pub(super) fn restore(&mut self, now: Tick) {
        if self.until.take().is_some() {
            self.returned = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Tick {
        Tick::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn some_stay_unless_all_may_go() {
        let most = |percent, endpoints| OutlierEjection::default().max_ejection_percent(percent).most(endpoints);
        assert_eq!([1, 2, 3, 4, 10].map(|n| most(50, n)), [0, 1, 2, 2, 5]);
        assert_eq!([1, 2, 10, 11, 15].map(|n| most(10, n)), [0, 1, 1, 2, 2]);
        assert_eq!([1, 2, 10].map(|n| most(99, n)), [0, 1, 9]);
        assert_eq!([0, 1, 2, 10].map(|n| most(100, n)), [0, 1, 2, 10]);
        assert_eq!([0, 1, 2, 10].map(|n| most(0, n)), [0; 4]);
        assert_eq!(most(u32::MAX, 3), 3);
        assert_eq!(most(50, 0), 0);
    }

    #[test]
    fn ejections_that_follow_each_other_get_longer_up_to_a_limit() {
        let rules = OutlierEjection::default().max_ejection_jitter(Duration::ZERO);
        let mut record = Record::default();
        let mut now = at(1000);
        let lasts: Vec<_> = (0..12)
            .map(|_| {
                record.eject(&rules, now, &mut Rng::seeded(1));
                let until = record.until.unwrap();
                let lasts = (until - now).as_secs();
                record.restore(until);
                now = until + Duration::from_secs(9);
                lasts
            })
            .collect();
        assert_eq!(lasts, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    }

    #[test]
    fn time_in_the_range_makes_up_for_ejections() {
        let rules = OutlierEjection::default().max_ejection_jitter(Duration::ZERO);
        let mut record = Record::default();
        for _ in 0..3 {
            record.eject(&rules, at(0), &mut Rng::seeded(1));
            record.restore(at(0));
        }
        record.eject(&rules, at(20), &mut Rng::seeded(1));
        assert_eq!(record.until, Some(at(80)), "one of three is left, and this one");
        record.restore(at(80));
        record.eject(&rules, at(10_000), &mut Rng::seeded(1));
        assert_eq!(record.until, Some(at(10_030)));
        assert_eq!(record.ejections, 5);
    }

    #[test]
    fn extremes_are_named_answers() {
        let rules = OutlierEjection::default()
            .interval(Duration::ZERO)
            .max_ejection_jitter(Duration::ZERO)
            .base_ejection_time(Duration::MAX)
            .max_ejection_time(Duration::ZERO);
        let mut record = Record::default();
        record.eject(&rules, at(1), &mut Rng::seeded(1));
        assert_eq!(
            record.until,
            Some(Tick::MAX),
            "the base time wins over a shorter maximum"
        );
        record.restore(at(2));
        record.eject(
            &rules.base_ejection_time(Duration::from_secs(1)),
            at(2),
            &mut Rng::seeded(1),
        );
        assert_eq!(
            record.until,
            Some(at(3)),
            "without an interval nothing is held against it"
        );
    }

    #[test]
    fn jitter_spreads_the_returns() {
        let rules = OutlierEjection::default();
        let mut rng = Rng::seeded(1);
        let mut lasts: Vec<Duration> = (0..100)
            .map(|_| {
                let mut record = Record::default();
                record.eject(&rules, at(0), &mut rng);
                record.until.unwrap() - at(0)
            })
            .collect();
        lasts.sort_unstable();
        assert!(lasts[0] >= Duration::from_secs(30) && lasts[99] < Duration::from_secs(33));
        assert!(lasts[99] - lasts[0] > Duration::from_secs(2));
    }

    #[test]
    fn a_pause_is_no_ejection_and_shortens_none() {
        let rules = OutlierEjection::default().max_ejection_jitter(Duration::ZERO);
        let mut record = Record::default();
        record.pause(&rules, Duration::from_secs(5), at(0));
        assert_eq!((record.until, record.ejections), (Some(at(5)), 0));
        record.pause(&rules, Duration::from_secs(1), at(1));
        assert_eq!(record.until, Some(at(5)));
        record.pause(&rules, Duration::MAX, at(1));
        assert_eq!(record.until, Some(at(301)));
    }
}

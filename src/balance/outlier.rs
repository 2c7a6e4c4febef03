use crate::env::Tick;
use std::time::Duration;

/// When an endpoint that keeps failing is put out of the pick range, and for how long.
///
/// After [`consecutive_failures`](Self::consecutive_failures) without a success between them an endpoint is ejected
/// for `base_ejection_time × times`, where `times` counts its ejections, less one for each full `interval` that it has
/// spent in the range since its last one. Names are those of gRFC A50 where it has them; that proposal and Envoy default
/// to a `max_ejection_percent` of 10, which in a pool of ten or fewer lets go of only one endpoint.
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
    /// Time in the range that makes up for one ejection. 10 s by default; at zero no ejection is longer than the first.
    pub interval: Duration,
    /// How long the first ejection lasts. 30 s by default; at zero an ejected endpoint is back at the next pick.
    pub base_ejection_time: Duration,
    /// The longest an ejection lasts, if that is not shorter than the base time. 300 s by default.
    pub max_ejection_time: Duration,
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
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
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

    /// How long the `times`th ejection lasts.
    fn duration(&self, times: u32) -> Duration {
        let longest = self.max_ejection_time.max(self.base_ejection_time);
        self.base_ejection_time.saturating_mul(times).min(longest)
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
    pub(super) fn eject(&mut self, rules: &OutlierEjection, now: Tick) {
        let good = (now - self.returned).as_nanos().checked_div(rules.interval.as_nanos());
        let forgiven = good.map_or(u32::MAX, |intervals| u32::try_from(intervals).unwrap_or(u32::MAX));
        self.times = self.times.saturating_sub(forgiven) + 1;
        self.until = Some(now + rules.duration(self.times));
        self.ejections += 1;
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
        let rules = OutlierEjection::default();
        let mut record = Record::default();
        let mut now = at(1000);
        let lasts: Vec<_> = (0..12)
            .map(|_| {
                record.eject(&rules, now);
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
        let rules = OutlierEjection::default();
        let mut record = Record::default();
        for _ in 0..3 {
            record.eject(&rules, at(0));
            record.restore(at(0));
        }
        record.eject(&rules, at(20));
        assert_eq!(record.until, Some(at(80)), "one of three is left, and this one");
        record.restore(at(80));
        record.eject(&rules, at(10_000));
        assert_eq!(record.until, Some(at(10_030)));
        assert_eq!(record.ejections, 5);
    }

    #[test]
    fn extremes_are_named_answers() {
        let rules = OutlierEjection::default()
            .interval(Duration::ZERO)
            .base_ejection_time(Duration::MAX)
            .max_ejection_time(Duration::ZERO);
        let mut record = Record::default();
        record.eject(&rules, at(1));
        assert_eq!(
            record.until,
            Some(Tick::MAX),
            "the base time wins over a shorter maximum"
        );
        record.restore(at(2));
        record.eject(&rules.base_ejection_time(Duration::from_secs(1)), at(2));
        assert_eq!(
            record.until,
            Some(at(3)),
            "without an interval nothing is held against it"
        );
    }
}

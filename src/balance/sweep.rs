//! The rules that compare endpoints with each other, once an interval: which of them are outliers. Pure.

use std::time::Duration;

/// Ejects endpoints whose share of successes lies far below the others': below the mean less `stdev_factor / 1,000`
/// standard deviations (gRFC A50, success rate ejection).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// In thousandths. 1,900 by default.
    pub stdev_factor: u32,
    /// How many endpoints with enough requests there must be for any to be judged. 5 by default.
    pub minimum_hosts: usize,
    /// How many requests an endpoint needs in an interval to be judged, and to judge others by. 100 by default.
    pub request_volume: u64,
    /// In how many percent of the cases an outlier is really ejected. 100 by default.
    pub enforcement_percent: u32,
}

impl Default for SuccessRate {
    fn default() -> SuccessRate {
        SuccessRate {
            stdev_factor: 1_900,
            minimum_hosts: 5,
            request_volume: 100,
            enforcement_percent: 100,
        }
    }
}

/// Ejects endpoints of whose requests more than `threshold` percent fail (gRFC A50, failure percentage ejection).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePercentage {
    /// In percent; more than it ejects. 85 by default.
    pub threshold: u32,
    /// How many endpoints with enough requests there must be for any to be judged. 5 by default.
    pub minimum_hosts: usize,
    /// How many requests an endpoint needs in an interval to be judged. 50 by default.
    pub request_volume: u64,
    /// In how many percent of the cases an outlier is really ejected. 100 by default.
    pub enforcement_percent: u32,
}

impl Default for FailurePercentage {
    fn default() -> FailurePercentage {
        FailurePercentage {
            threshold: 85,
            minimum_hosts: 5,
            request_volume: 50,
            enforcement_percent: 100,
        }
    }
}

/// Ejects endpoints whose mean latency in an interval is more than `factor` times the median of all endpoints' means.
/// Asked of Envoy since 2016 (its issue 288). The median, since a single endpoint that is very slow moves a mean, and with
/// it the bar that it is measured by.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SlowOutlier {
    /// 3 by default.
    pub factor: f64,
    /// And by at least so much, so that nobody is ejected for microseconds. 5 ms by default.
    pub minimum_excess: Duration,
    /// How many endpoints with enough timed requests there must be for any to be judged. 3 by default.
    pub minimum_hosts: usize,
    /// How many timed requests an endpoint needs in an interval to be judged, and to judge others by. 20 by default.
    pub request_volume: u64,
    /// In how many percent of the cases an outlier is really ejected. 100 by default.
    pub enforcement_percent: u32,
}

impl Eq for SlowOutlier {}

impl Default for SlowOutlier {
    fn default() -> SlowOutlier {
        SlowOutlier {
            factor: 3.0,
            minimum_excess: Duration::from_millis(5),
            minimum_hosts: 3,
            request_volume: 20,
            enforcement_percent: 100,
        }
    }
}

/// What was counted of one endpoint in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// The sum of the latencies that were measured, in nanoseconds.
    pub(super) latency: u64,
    /// How many were measured.
    pub(super) timed: u64,
}

impl Sample {
    fn requests(&self) -> u64 {
        self.succeeded + self.failed
    }

    fn mean_latency(&self) -> f64 {
        self.latency as f64 / self.timed as f64
    }
}

impl SuccessRate {
    /// The outliers among `samples`, in order.
    pub(super) fn outliers(&self, samples: &[Sample]) -> Vec<usize> {
        let eligible = judged(samples, |sample| sample.requests() >= self.request_volume.max(1));
        if eligible.len() < self.minimum_hosts.max(1) {
            return Vec::new();
        }
        let rate = |i: usize| samples[i].succeeded as f64 / samples[i].requests() as f64;
        let count = eligible.len() as f64;
        let mean = eligible.iter().map(|&i| rate(i)).sum::<f64>() / count;
        let variance = eligible.iter().map(|&i| (rate(i) - mean).powi(2)).sum::<f64>() / count;
        let bar = mean - variance.sqrt() * f64::from(self.stdev_factor) / 1_000.0;
        eligible.into_iter().filter(|&i| rate(i) < bar).collect()
    }
}

impl FailurePercentage {
    /// The outliers among `samples`, in order.
    pub(super) fn outliers(&self, samples: &[Sample]) -> Vec<usize> {
        let eligible = judged(samples, |sample| sample.requests() >= self.request_volume.max(1));
        if eligible.len() < self.minimum_hosts {
            return Vec::new();
        }
        let fails = |&i: &usize| {
            let sample = &samples[i];
            u128::from(sample.failed) * 100 > u128::from(sample.requests()) * u128::from(self.threshold)
        };
        eligible.into_iter().filter(fails).collect()
    }
}

impl SlowOutlier {
    /// The outliers among `samples`, in order.
    pub(super) fn outliers(&self, samples: &[Sample]) -> Vec<usize> {
        let eligible = judged(samples, |sample| sample.timed >= self.request_volume.max(1));
        if eligible.len() < self.minimum_hosts.max(1) {
            return Vec::new();
        }
        let mut means: Vec<f64> = eligible.iter().map(|&i| samples[i].mean_latency()).collect();
        means.sort_unstable_by(f64::total_cmp);
        // Of an even number the lower of the two in the middle: with two of four slow, those two are the outliers.
        let median = means[(means.len() - 1) / 2];
        let bar = (median * self.factor).max(median + self.minimum_excess.as_nanos() as f64);
        eligible
            .into_iter()
            .filter(|&i| samples[i].mean_latency() > bar)
            .collect()
    }
}

fn judged(samples: &[Sample], enough: impl Fn(&Sample) -> bool) -> Vec<usize> {
    (0..samples.len()).filter(|&i| enough(&samples[i])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [usize; 0] = [];

    fn rates(rates: &[(u64, u64)]) -> Vec<Sample> {
        let sample = |&(succeeded, failed)| Sample {
            succeeded,
            failed,
            ..Sample::default()
        };
        rates.iter().map(sample).collect()
    }

    fn latencies(millis: &[u64]) -> Vec<Sample> {
        let sample = |millis| Sample {
            latency: millis * 100 * 1_000_000,
            timed: 100,
            ..Sample::default()
        };
        millis.iter().map(|&millis| sample(millis)).collect()
    }

    #[test]
    fn a_rate_far_below_the_mean_is_an_outlier() {
        let rule = SuccessRate::default();
        let good = (100, 0);
        assert_eq!(rule.outliers(&rates(&[good, good, (50, 50), good, good])), [2]);
        assert_eq!(
            rule.outliers(&rates(&[good, good, (50, 50), good])),
            NOBODY,
            "four hosts"
        );
        assert_eq!(
            rule.outliers(&rates(&[good, good, (50, 49), good, good])),
            NOBODY,
            "99 requests"
        );
        assert_eq!(rule.outliers(&rates(&[(50, 50); 6])), NOBODY, "all alike");
        // Mean 0.9 and deviation 0.1: the bar of two deviations is 0.7, and the rate is not below it.
        let even = [(100, 0), (100, 0), (100, 0), (80, 20), (80, 20), (80, 20)];
        assert_eq!(rule.outliers(&rates(&even)), NOBODY);
        let strict = SuccessRate {
            stdev_factor: 900,
            ..rule
        };
        assert_eq!(strict.outliers(&rates(&even)), [3, 4, 5]);
    }

    #[test]
    fn more_failures_than_the_threshold_are_too_many() {
        let rule = FailurePercentage {
            minimum_hosts: 2,
            ..FailurePercentage::default()
        };
        assert_eq!(rule.outliers(&rates(&[(15, 85), (14, 86), (0, 49), (0, 50)])), [1, 3]);
        assert_eq!(
            rule.outliers(&rates(&[(0, 100), (0, 49)])),
            NOBODY,
            "one host with enough requests"
        );
    }

    #[test]
    fn a_latency_far_above_the_median_is_an_outlier() {
        let rule = SlowOutlier::default();
        assert_eq!(rule.outliers(&latencies(&[10, 11, 31, 9, 30])), NOBODY);
        assert_eq!(rule.outliers(&latencies(&[10, 11, 34, 9, 10])), [2]);
        assert_eq!(rule.outliers(&latencies(&[10, 100, 100, 10])), [1, 2]);
        assert_eq!(
            rule.outliers(&latencies(&[1, 1, 6, 1])),
            NOBODY,
            "5 ms more, and no more than that"
        );
        assert_eq!(rule.outliers(&latencies(&[1, 1, 7, 1])), [2]);
        assert_eq!(rule.outliers(&latencies(&[1, 100])), NOBODY, "two hosts");
    }
}

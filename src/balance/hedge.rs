use super::latencies::Latencies;
use crate::env::Tick;
use std::time::Duration;

/// When a second request goes to another endpoint because the first has not answered, so that one slow endpoint does not
/// make a slow answer (Dean and Barroso, "The tail at scale", 2013).
///
/// The answer that comes first is taken; the other request is dropped, which counts as cancelled and not as a failure.
/// Each hedge is paid from the [`RetryBudget`](super::RetryBudget), so hedges and retries together stay within it: when
/// all endpoints are slow, hedging stops instead of making them slower. Only requests that may be carried out twice are
/// hedged: see [`Retry::Always`](super::Retry::Always).
///
/// ```
/// use outgrow::balance::Hedge;
/// use std::time::Duration;
/// let hedge = Hedge::after_percentile(95.0).max(2).window(Duration::from_secs(60));
/// assert_ne!(hedge, Hedge::after(Duration::from_millis(20)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Hedge {
    after: After,
    max: u32,
    window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Percentile(f64),
    Time(Duration),
}

impl Hedge {
    /// Hedges a request that takes longer than `percent` percent of the requests of the last [`window`](Hedge::window) did,
    /// from 1 to 99.9; what is outside, or no number, is taken as the nearer end. So about `100 - percent` percent of the
    /// requests are sent twice. There are no hedges before a hundred requests of the window have been answered.
    ///
    /// The first request counts, whichever wins: with at least the time that it had taken when it lost. If the winner
    /// counted, each hedge would make the percentile shorter, and so the next hedge likelier.
    pub fn after_percentile(percent: f64) -> Hedge {
        let percent = if percent.is_nan() {
            99.9
        } else {
            percent.clamp(1.0, 99.9)
        };
        Hedge::new(After::Percentile(percent))
    }

    /// Hedges a request that has not been answered after `time`.
    pub fn after(time: Duration) -> Hedge {
        Hedge::new(After::Time(time))
    }

    fn new(after: After) -> Hedge {
        Hedge {
            after,
            max: 1,
            window: Duration::from_secs(30),
        }
    }

    /// The most hedges of one attempt, each of which waits as long again. Default: 1. With 0 there are none.
    pub fn max(mut self, max: u32) -> Hedge {
        self.max = max;
        self
    }

    /// How far back the percentile looks: between a half of it and all of it. Default: 30 s; less than a second is taken as
    /// one.
    pub fn window(mut self, window: Duration) -> Hedge {
        self.window = window.max(Duration::from_secs(1));
        self
    }
}

/// A rule, and what was seen of the requests that it is for.
#[derive(Debug)]
pub(super) struct Hedging {
    rule: Hedge,
    seen: Latencies,
}

impl Hedging {
    pub(super) fn new(rule: Hedge) -> Hedging {
        Hedging {
            seen: Latencies::new(rule.window),
            rule,
        }
    }

    /// How long a request that begins at `now` may take before it is hedged; none if it is not to be.
    pub(super) fn delay(&self, now: Tick) -> Option<Duration> {
        match self.rule.after {
            _ if self.rule.max == 0 => None,
            After::Time(time) => Some(time),
            After::Percentile(percent) => self.seen.percentile(now, percent),
        }
    }

    /// The most hedges of one attempt.
    pub(super) fn max(&self) -> u32 {
        self.rule.max
    }

    /// Notes how long a request took that was answered well, or had taken when its hedge was.
    pub(super) fn note(&self, now: Tick, latency: Duration) {
        if let After::Percentile(_) = self.rule.after {
            self.seen.note(now, latency);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_out_of_range_are_taken_as_the_nearer_end() {
        let percent = |of| match Hedge::after_percentile(of).after {
            After::Percentile(percent) => percent,
            After::Time(_) => unreachable!("it is a percentile"),
        };
        assert_eq!(
            [-1.0, 95.0, 100.0, f64::INFINITY, f64::NAN].map(percent),
            [1.0, 95.0, 99.9, 99.9, 99.9]
        );
    }

    #[test]
    fn a_time_needs_no_requests_and_a_percentile_does() {
        let delay = |hedge, noted| {
            let hedging = Hedging::new(hedge);
            (0..noted).for_each(|_| hedging.note(Tick::ZERO, Duration::from_millis(8)));
            hedging.delay(Tick::ZERO)
        };
        let time = Duration::from_millis(3);
        assert_eq!(delay(Hedge::after(time), 0), Some(time));
        assert_eq!(delay(Hedge::after(time).max(0), 0), None);
        assert_eq!(delay(Hedge::after_percentile(95.0), 99), None);
        let found = delay(Hedge::after_percentile(95.0), 100).unwrap();
        assert!(found >= Duration::from_millis(8) && found <= Duration::from_millis(9));
    }
}

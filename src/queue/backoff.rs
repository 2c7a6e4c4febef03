use crate::env::Rng;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before a message is tried again, by how often it has been tried.
///
/// Waits that grow leave what is down the time to come up, and waits that are drawn by chance keep those that failed
/// together from coming back together: by default a wait is anything between nothing and its bound ("full jitter": M.
/// Brooker, Exponential backoff and jitter, 2015).
///
/// ```
/// use outgrow::env::Rng;
/// use outgrow::queue::Backoff;
/// use std::time::Duration;
///
/// let mut rng = Rng::seeded(7);
/// let growing = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60));
/// assert_eq!(growing.bound(1), Duration::from_secs(1));
/// assert_eq!(growing.bound(4), Duration::from_secs(8));
/// assert_eq!(growing.bound(40), Duration::from_secs(60));
/// assert!(growing.wait(4, &mut rng) <= Duration::from_secs(8));
///
/// let listed = Backoff::list([5, 30, 300].map(Duration::from_secs));
/// assert_eq!(listed.wait(2, &mut rng), Duration::from_secs(30));
/// assert_eq!(listed.wait(9, &mut rng), Duration::from_secs(300));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    waits: Waits,
    /// The share of a bound that chance decides, 0 to 1.
    jitter: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Waits {
    Growing {
        first: Duration,
        factor: f64,
        most: Duration,
    },
    Listed(Arc<[Duration]>),
}

impl Backoff {
    /// Waits of up to `first` after the first attempt, twice as much after each further one, and never more than `most`.
    #[must_use]
    pub fn exponential(first: Duration, most: Duration) -> Backoff {
        let factor = 2.0;
        Backoff {
            waits: Waits::Growing { first, factor, most },
            jitter: 1.0,
        }
    }

    /// The same wait after every attempt, and none of it by chance.
    #[must_use]
    pub fn fixed(wait: Duration) -> Backoff {
        Backoff::list([wait])
    }

    /// These waits, one after the other, the last of them again and again, and nothing by chance. An empty list waits for
    /// nothing.
    #[must_use]
    pub fn list(waits: impl IntoIterator<Item = Duration>) -> Backoff {
        Backoff {
            waits: Waits::Listed(waits.into_iter().collect()),
            jitter: 0.0,
        }
    }

    /// By how much a wait of an [`exponential`](Backoff::exponential) schedule is longer than the one before. Default: 2;
    /// less than 1, or no number, is 1. A list has its own.
    ///
    /// ```
    /// # use outgrow::queue::Backoff;
    /// # use std::time::Duration;
    /// let tripling = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60)).factor(3.0);
    /// assert_eq!(tripling.bound(3), Duration::from_secs(9));
    /// ```
    #[must_use]
    pub fn factor(mut self, by: f64) -> Backoff {
        if let Waits::Growing { factor, .. } = &mut self.waits {
            *factor = by.max(1.0);
        }
        self
    }

    /// How much of a wait chance decides: with 0 a wait is its bound, with 0.5 at least half of it, with 1 anything up to
    /// it. Default: 1, and 0 for a list; what is outside is taken to the nearer end.
    ///
    /// ```
    /// # use outgrow::{env::Rng, queue::Backoff};
    /// # use std::time::Duration;
    /// let exact = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60)).jitter(0.0);
    /// assert_eq!(exact.wait(3, &mut Rng::seeded(1)), Duration::from_secs(4));
    /// ```
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Backoff {
        self.jitter = if share > 0.0 { share.min(1.0) } else { 0.0 };
        self
    }

    /// The longest wait after attempt number `attempt`, the first being 1.
    #[must_use]
    pub fn bound(&self, attempt: u32) -> Duration {
        let before = attempt.saturating_sub(1);
        match &self.waits {
            Waits::Growing { first, .. } if first.is_zero() => Duration::ZERO,
            Waits::Growing { first, factor, most } => {
                let grown = first.as_secs_f64() * factor.powi(i32::try_from(before).unwrap_or(i32::MAX));
                Duration::try_from_secs_f64(grown).map_or(*most, |grown| grown.min(*most))
            }
            Waits::Listed(waits) => {
                let wait = waits.get(before as usize).or(waits.last());
                wait.copied().unwrap_or_default()
            }
        }
    }

    /// How long to wait after attempt number `attempt`, the first being 1.
    #[must_use]
    pub fn wait(&self, attempt: u32, rng: &mut Rng) -> Duration {
        self.bound(attempt).mul_f64(1.0 - self.jitter * rng.unit())
    }
}

/// A second at first, twice as much each time, 5 minutes at most, with full jitter.
impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::exponential(Duration::from_secs(1), Duration::from_secs(300))
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::env::Rng;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn waits_keep_within_their_bounds(
            first in 0_u64..1_000_000, most in 0_u64..10_000_000, factor in any::<f64>(), jitter in any::<f64>(),
            attempt in any::<u32>(), seed in any::<u64>(),
        ) {
            let (first, most) = (Duration::from_micros(first), Duration::from_micros(most));
            let backoff = Backoff::exponential(first, most).factor(factor).jitter(jitter);
            let bound = backoff.bound(attempt);
            prop_assert!(bound <= most);
            prop_assert!(bound >= backoff.bound(attempt.saturating_sub(1)), "they never shrink");
            prop_assert!(backoff.wait(attempt, &mut Rng::seeded(seed)) <= bound);
            let exact = backoff.jitter(0.0);
            prop_assert_eq!(exact.wait(attempt, &mut Rng::seeded(seed)), bound);
        }
    }

    #[test]
    fn the_default_doubles_from_a_second_to_five_minutes() {
        let bounds: Vec<_> = (0..12)
            .map(|attempt| Backoff::default().bound(attempt).as_secs())
            .collect();
        assert_eq!(bounds, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn chance_spreads_the_waits_over_all_they_may_be() {
        let mut rng = Rng::seeded(4);
        let mut waits: Vec<_> = (0..1_000).map(|_| Backoff::default().wait(1, &mut rng)).collect();
        waits.sort();
        let (least, median, most) = (waits[0], waits[500], waits[999]);
        assert!(least < Duration::from_millis(10), "{least:?}");
        assert!(
            median.abs_diff(Duration::from_millis(500)) < Duration::from_millis(60),
            "{median:?}"
        );
        assert!(most > Duration::from_millis(990), "{most:?}");
    }

    #[test]
    fn an_empty_list_waits_for_nothing() {
        assert_eq!(Backoff::list([]).wait(3, &mut Rng::seeded(1)), Duration::ZERO);
    }
}

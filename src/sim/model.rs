use crate::env::Rng;
use std::time::Duration;

/// How fast and how large the disk of one machine is.
///
/// The default is a fast local drive without a limit: 50 us a read, 10 us a write (into the page cache), 100 us a
/// sync, each plus the transfer, give or take a half. The struct is complete on purpose, so that a test writes
/// `DiskModel { capacity: 1 << 20, ..DiskModel::default() }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskModel {
    /// What reads take.
    pub read: Latency,
    /// What writes take, and operations that look at names and lengths or change them.
    pub write: Latency,
    /// What syncs take, by the bytes that they make durable.
    pub sync: Latency,
    /// The most bytes that all files together may have; a write beyond it is short, then fails with ENOSPC.
    pub capacity: u64,
}

impl Default for DiskModel {
    fn default() -> DiskModel {
        DiskModel {
            read: Latency::new(Duration::from_micros(50)).per_mib(Duration::from_micros(500)),
            write: Latency::new(Duration::from_micros(10)).per_mib(Duration::from_micros(100)),
            sync: Latency::new(Duration::from_micros(100)).per_mib(Duration::from_millis(1)),
            capacity: u64::MAX,
        }
    }
}

/// The time that an operation takes: a base, plus the transfer of its bytes, both varied by chance.
///
/// ```
/// use outgrow::sim::Latency;
/// use std::time::Duration;
///
/// let seek = Latency::new(Duration::from_millis(8)).per_mib(Duration::from_millis(10)).jitter(0.2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    base: Duration,
    per_mib: Duration,
    jitter: f64,
}

impl Latency {
    /// A base alone, with a jitter of one half.
    #[must_use]
    pub const fn new(base: Duration) -> Latency {
        Latency {
            base,
            per_mib: Duration::ZERO,
            jitter: 0.5,
        }
    }

    /// Adds `time` for each mebibyte transferred.
    #[must_use]
    pub const fn per_mib(mut self, time: Duration) -> Latency {
        self.per_mib = time;
        self
    }

    /// Varies the time evenly by up to this share of it either way: 0 is exact, and 1, the most, from zero to twice.
    #[must_use]
    pub const fn jitter(mut self, share: f64) -> Latency {
        self.jitter = share.clamp(0.0, 1.0);
        self
    }

    /// One draw. A whole number of nanoseconds, at least one, so that time passes with every operation.
    pub(super) fn draw(&self, bytes: u64, rng: &mut Rng) -> Duration {
        let transfer = self.per_mib.as_nanos() as f64 * bytes as f64 / f64::from(1 << 20);
        let mean = self.base.as_nanos() as f64 + transfer;
        let nanos = mean * (1.0 + self.jitter * (2.0 * rng.unit() - 1.0));
        Duration::from_nanos((nanos as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_base_plus_transfer_within_the_jitter() {
        let mut rng = Rng::seeded(1);
        let exact = Latency::new(Duration::from_micros(10))
            .per_mib(Duration::from_millis(1))
            .jitter(0.0);
        assert_eq!(exact.draw(0, &mut rng), Duration::from_micros(10));
        assert_eq!(exact.draw(1 << 21, &mut rng), Duration::from_micros(2_010));

        let varied = Latency::new(Duration::from_micros(10)).jitter(0.5);
        let draws: Vec<_> = (0..1_000).map(|_| varied.draw(0, &mut rng)).collect();
        assert!(draws.iter().all(|d| (5_000..15_000).contains(&d.as_nanos())));
        // A thousand even draws over 10 us: the mean's deviation is 0.09 us.
        let mean = draws.iter().sum::<Duration>() / 1_000;
        assert!((9_400..10_600).contains(&mean.as_nanos()), "{mean:?}");
    }
}

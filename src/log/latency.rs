use std::fmt;
use std::time::Duration;

/// Parts of an octave, each a bucket: a figure is at most an eighth too high.
const PARTS: u32 = 8;
/// What is shorter than 2^10 ns is one bucket.
const LOWEST: u32 = 10;
/// What is longer than 2^41 ns, 36 minutes, is one bucket.
const HIGHEST: u32 = 40;

/// How long something took, each time: a histogram with buckets that grow with what they hold.
///
/// ```
/// use outgrow::queue::Latencies;
/// use std::time::Duration;
/// let mut sends = Latencies::default();
/// (1..=100).for_each(|n| sends.record(Duration::from_micros(n)));
/// let p50 = sends.quantile(0.5);
/// assert!(p50 >= Duration::from_micros(50) && p50 <= Duration::from_micros(57));
/// assert_eq!((sends.count(), sends.max()), (100, Duration::from_micros(100)));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Latencies {
    count: u64,
    max: Duration,
    /// As many as are in use; about 2 KiB at most.
    buckets: Vec<u64>,
}

impl Latencies {
    /// Counts one that took so long.
    pub fn record(&mut self, took: Duration) {
        let bucket = bucket(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(took);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// How long this share of them took at most, as 0.99; up to an eighth too high. Zero before the first.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for (limit, count) in self.buckets() {
            below += count;
            if below >= wanted {
                return limit.min(self.max);
            }
        }
        self.max
    }

    /// The buckets in use: the upper limit of each, and how many are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.buckets.iter().enumerate();
        counts.map(|(bucket, count)| (limit(bucket), *count))
    }
}

fn bucket(nanos: u64) -> usize {
    let Some(octave) = nanos.checked_ilog2().filter(|octave| *octave >= LOWEST) else {
        return 0;
    };
    if octave > HIGHEST {
        return ((HIGHEST - LOWEST + 1) * PARTS + 1) as usize;
    }
    let part = (nanos >> (octave - PARTS.ilog2())) as u32 % PARTS;
    ((octave - LOWEST) * PARTS + part + 1) as usize
}

fn limit(bucket: usize) -> Duration {
    let Some(above) = (bucket as u32).checked_sub(1) else {
        return Duration::from_nanos(1 << LOWEST);
    };
    let (octave, part) = (LOWEST + above / PARTS, u64::from(above % PARTS));
    match octave > HIGHEST {
        true => Duration::MAX,
        false => Duration::from_nanos((u64::from(PARTS) + part + 1) << (octave - PARTS.ilog2())),
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies")
            .field("count", &self.count)
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_close_to_those_of_a_sorted_list(
            mut nanos in prop::collection::vec(prop_oneof![0..5_000_u64, 0..1_u64 << 45], 1..200),
            share in 0.0..=1.0_f64,
        ) {
            let mut latencies = Latencies::default();
            nanos.iter().for_each(|nanos| latencies.record(Duration::from_nanos(*nanos)));
            nanos.sort_unstable();
            let rank = (nanos.len() as f64 * share).ceil() as usize;
            let exact = nanos[rank.clamp(1, nanos.len()) - 1];
            let about = latencies.quantile(share).as_nanos() as u64;
            prop_assert!(about >= exact, "{about} for {exact}");
            let most = if exact < 1 << 41 { (exact + exact / 8 + 1).max(1 << LOWEST) } else { u64::MAX };
            prop_assert!(about <= most, "{about} for {exact}");
            prop_assert_eq!(latencies.buckets().map(|(_, count)| count).sum::<u64>(), latencies.count());
        }
    }

    #[test]
    fn nothing_took_no_time() {
        assert_eq!(Latencies::default().quantile(0.99), Duration::ZERO);
    }
}

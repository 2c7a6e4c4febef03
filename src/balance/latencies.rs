use crate::env::Tick;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::fmt;
use std::time::Duration;

/// How long requests have taken lately: counts by latency, an eighth of a power of two each, over a window of time.
/// Without a lock, in two kilobytes.
///
/// The window is two halves, of which the older is forgotten as a whole; so between a half and all of it counts.
/// Threads that change the half at the same moment may lose a few counts.
pub(super) struct Latencies {
    half: Duration,
    halves: [[AtomicU32; BUCKETS]; 2],
    /// The number of the half that goes on.
    turn: AtomicU64,
    /// What was last found, in nanoseconds, and until when that is good enough.
    found: AtomicU64,
    fresh_until: AtomicU64,
}

/// Latencies below 2^10 ns share the first bucket, those from 2^37 ns, two minutes, on share the last.
const LOWEST: u32 = 10;
const HIGHEST: u32 = 37;
/// Buckets of a power of two, as a power of two.
const FINE: u32 = 3;
const BUCKETS: usize = 1 + (((HIGHEST - LOWEST) << FINE) as usize) + 1;
/// Fewer say little of a percentile.
const ENOUGH: u64 = 100;
/// No percentile.
const NONE: u64 = u64::MAX;

impl Latencies {
    pub(super) fn new(window: Duration) -> Latencies {
        Latencies {
            half: (window / 2).max(Duration::from_nanos(1)),
            halves: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0))),
            turn: AtomicU64::new(0),
            found: AtomicU64::new(NONE),
            fresh_until: AtomicU64::new(0),
        }
    }

    /// Notes that a request which ended at `now` took so long.
    pub(super) fn note(&self, now: Tick, latency: Duration) {
        let half = self.turn_to(now);
        self.halves[(half % 2) as usize][bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The latency that `percent` percent keep within, rounded up by an eighth at most; none before a hundred were noted.
    /// What was found is good for a sixteenth of the window, or until there is something to be found.
    pub(super) fn percentile(&self, now: Tick, percent: f64) -> Option<Duration> {
        if now.as_nanos() >= self.fresh_until.load(Ordering::Relaxed) {
            let found = self.find(now, percent);
            self.found.store(found, Ordering::Relaxed);
            let fresh_until = if found == NONE { now } else { now + self.half / 8 };
            self.fresh_until.store(fresh_until.as_nanos(), Ordering::Relaxed);
        }
        let found = self.found.load(Ordering::Relaxed);
        (found != NONE).then(|| Duration::from_nanos(found))
    }

    fn find(&self, now: Tick, percent: f64) -> u64 {
        self.turn_to(now);
        let count = |i: usize| {
            self.halves
                .iter()
                .map(|half| u64::from(half[i].load(Ordering::Relaxed)))
                .sum::<u64>()
        };
        let counts: [u64; BUCKETS] = std::array::from_fn(count);
        let all: u64 = counts.iter().sum();
        if all < ENOUGH {
            return NONE;
        }
        let rank = (all as f64 * percent / 100.0).ceil() as u64;
        let mut within = 0;
        let bucket = counts.iter().position(|count| {
            within += count;
            within >= rank
        });
        bucket.map_or(NONE, top)
    }

    /// The half that `now` is in, emptied if nobody was here since it began.
    fn turn_to(&self, now: Tick) -> u64 {
        let half = now.as_nanos() / u64::try_from(self.half.as_nanos()).unwrap_or(u64::MAX);
        let turn = self.turn.load(Ordering::Relaxed);
        if half > turn
            && self
                .turn
                .compare_exchange(turn, half, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            for stale in (turn + 1..=half).rev().take(2) {
                self.halves[(stale % 2) as usize]
                    .iter()
                    .for_each(|count| count.store(0, Ordering::Relaxed));
            }
        }
        // The clock of another thread may be a little behind.
        half.max(turn)
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies")
            .field("half", &self.half)
            .finish_non_exhaustive()
    }
}

fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
    match nanos.ilog2() {
        ..LOWEST => 0,
        HIGHEST.. => BUCKETS - 1,
        power => {
            let fine = (nanos >> (power - FINE)) as usize & ((1 << FINE) - 1);
            1 + (((power - LOWEST) << FINE) as usize) + fine
        }
    }
}

/// The longest latency of a bucket, in nanoseconds; of the last its shortest.
fn top(bucket: usize) -> u64 {
    let above = bucket.min(BUCKETS - 2) as u64;
    let (power, fine) = (LOWEST + (above >> FINE) as u32, above & ((1 << FINE) - 1));
    ((1 << FINE) + fine) << (power - FINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Tick {
        Tick::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_percentile_needs_a_hundred_and_forgets_what_is_old() {
        let latencies = Latencies::new(WINDOW);
        let tenth = Duration::from_millis(100);
        (0..99).for_each(|_| latencies.note(at(0), tenth));
        assert_eq!(latencies.percentile(at(0), 50.0), None);
        latencies.note(at(0), tenth);
        let found = latencies.percentile(at(0), 50.0).unwrap();
        assert!(found >= tenth && found <= tenth * 9 / 8, "{found:?}");
        assert_eq!(
            latencies.percentile(at(9_999), 50.0),
            Some(found),
            "it counts in the second half too"
        );
        assert_eq!(latencies.percentile(at(10_700), 50.0), None);
        assert_eq!(latencies.percentile(at(1_000_000), 50.0), None);
    }

    #[test]
    fn what_was_found_serves_for_a_while() {
        let latencies = Latencies::new(WINDOW);
        (0..200).for_each(|_| latencies.note(at(0), Duration::from_millis(1)));
        let before = latencies.percentile(at(0), 90.0);
        (0..2_000).for_each(|_| latencies.note(at(1), Duration::from_secs(1)));
        assert_eq!(latencies.percentile(at(600), 90.0), before);
        assert!(latencies.percentile(at(700), 90.0) >= Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_ends_have_buckets() {
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::from_nanos(1_023))), (0, 0));
        assert_eq!(
            (bucket(Duration::from_nanos(1_024)), bucket(Duration::MAX)),
            (1, BUCKETS - 1)
        );
        assert_eq!(bucket(Duration::from_nanos((1 << HIGHEST) - 1)), BUCKETS - 2);
        assert_eq!((top(0), top(BUCKETS - 2)), (1 << LOWEST, 1 << HIGHEST));
    }

    proptest! {
        #[test]
        fn it_is_the_sorted_one_rounded_up_by_an_eighth(
            micros in prop::collection::vec(prop_oneof![2..1_000_u64, 2..100_000_000_u64], 100..400),
            percent in 1.0..99.9_f64,
        ) {
            let latencies = Latencies::new(WINDOW);
            micros.iter().for_each(|micros| latencies.note(at(0), Duration::from_micros(*micros)));
            let mut sorted = micros.clone();
            sorted.sort_unstable();
            let rank = (micros.len() as f64 * percent / 100.0).ceil() as usize;
            let exact = Duration::from_micros(sorted[rank - 1]);
            let found = latencies.percentile(at(0), percent).unwrap();
            prop_assert!(found >= exact && found <= exact * 9 / 8, "{found:?} for {exact:?}");
        }
    }
}

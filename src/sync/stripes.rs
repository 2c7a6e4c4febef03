use super::pins::Pin;
use super::{AtomicU64, CachePadded, Ordering};
use std::fmt;

/// Seats below this number count on lines of their own, without an atomic exchange.
const OWN: usize = 32;
/// Lines that the threads beyond share.
const SHARED: usize = 8;

/// Several counters that many threads add to without sharing a cache line; their sums are exact. A thread is told by
/// the pin it holds. About 5 KiB for up to 16 counters.
pub(crate) struct Stripes<const N: usize> {
    lines: Box<[CachePadded<[AtomicU64; N]>; OWN + SHARED]>,
}

impl<const N: usize> Stripes<N> {
    pub(crate) fn new() -> Stripes<N> {
        let line = || CachePadded::new([const { AtomicU64::new(0) }; N]);
        Stripes {
            lines: Box::new(std::array::from_fn(|_| line())),
        }
    }

    #[inline]
    pub(crate) fn add(&self, pin: &Pin, counter: usize, n: u64) {
        let number = pin.number();
        if number < OWN {
            // Nobody else writes this line: a seat has one owner at a time, and changes hands under a lock.
            let count = &self.lines[number][counter];
            count.store(count.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        } else {
            self.lines[OWN + number % SHARED][counter].fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self, counter: usize) -> u64 {
        let counts = self.lines.iter().map(|line| line[counter].load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
impl<const N: usize> Stripes<N> {
    /// What each line has of a counter.
    pub(crate) fn lines(&self, counter: usize) -> Vec<u64> {
        let lines = self.lines.iter();
        lines.map(|line| line[counter].load(Ordering::Relaxed)).collect()
    }

    /// The line on which a thread with this seat counts.
    pub(crate) fn line(pin: &Pin) -> usize {
        match pin.number() {
            own if own < OWN => own,
            shared => OWN + shared % SHARED,
        }
    }
}

impl<const N: usize> fmt::Debug for Stripes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..N).map(|counter| self.sum(counter))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::pins::pin;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
    fn threads_lose_no_count() {
        let counters = Stripes::<2>::new();
        // More threads at once than there are lines.
        for threads in [3, 60] {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..1_000).for_each(|_| counters.add(&pin(), 1, 1)));
                }
            });
        }
        assert_eq!((counters.sum(0), counters.sum(1)), (0, 63_000));
    }
}

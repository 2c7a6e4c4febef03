use crate::env::Rng;
use crate::sync::{AtomicU64, CachePadded, Mutex, OnceLock, Ordering, STRIPES, stripe};

/// A generator for each pick, without a lock and without a cache line that threads share. 2 KiB.
///
/// Each stripe is a counter whose values seed the picks' generators one after the other. A stripe starts when its
/// first thread needs it, so a simulation, which has one thread, draws the same numbers whichever stripe that has.
pub(super) struct Dice {
    seeds: Mutex<Rng>,
    stripes: [CachePadded<OnceLock<AtomicU64>>; STRIPES],
}

impl Dice {
    pub(super) fn new(seeds: Rng) -> Dice {
        Dice {
            seeds: Mutex::new(seeds),
            stripes: std::array::from_fn(|_| CachePadded::new(OnceLock::new())),
        }
    }

    #[inline]
    pub(super) fn roll(&self) -> Rng {
        let counter = self.stripes[stripe()].get_or_init(|| AtomicU64::new(self.seed()));
        let mut die = Die(counter.load(Ordering::Relaxed));
        let rng = die.roll();
        // Not one atomic step, which would double the price: threads that share a stripe may roll the same at times.
        counter.store(die.0, Ordering::Relaxed);
        rng
    }

    /// Dice for one picker.
    pub(super) fn die(&self) -> Die {
        Die(self.seed())
    }

    #[cold]
    fn seed(&self) -> u64 {
        self.seeds.lock().next_u64()
    }
}

/// The same for one who picks alone.
pub(super) struct Die(u64);

impl Die {
    #[inline]
    pub(super) fn roll(&mut self) -> Rng {
        let seed = self.0;
        self.0 = seed.wrapping_add(STEP);
        Rng::brief(seed)
    }
}

/// Odd, so that a counter comes by every seed; and no small multiple of the step of the mixing function, so that the states
/// of consecutive picks have no word in common.
const STEP: u64 = 0xd134_2543_de82_ef95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_draws_of_consecutive_picks_are_even_and_uncorrelated() {
        let dice = Dice::new(Rng::seeded(1));
        let mut pairs = [[0_u32; 8]; 8];
        let mut last = 0;
        for _ in 0..64_000 {
            let next = dice.roll().index(8);
            pairs[last][next] += 1;
            last = next;
        }
        // Each of the 64 pairs is binomial with mean 1,000 and deviation 31: six deviations.
        assert!(
            pairs.as_flattened().iter().all(|n| (810..1_190).contains(n)),
            "{pairs:?}"
        );
    }

    #[test]
    fn draws_of_one_pick_are_even_and_uncorrelated() {
        let dice = Dice::new(Rng::seeded(2));
        let mut triples = [[[0_u32; 4]; 4]; 4];
        for _ in 0..64_000 {
            let mut rng = dice.roll();
            let [a, b, c] = [rng.index(4), rng.index(4), rng.index(4)];
            triples[a][b][c] += 1;
        }
        let triples = triples.as_flattened().as_flattened();
        assert!(triples.iter().all(|n| (810..1_190).contains(n)), "{triples:?}");
        // And so are their lowest bits.
        let low = |bits: u32| (0..64_000).filter(|_| dice.roll().next_u64() >> bits & 1 == 1).count();
        assert!([0, 1, 31, 63].map(low).iter().all(|n| (31_240..32_760).contains(n)));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a thread with another stripe is the subject")]
    fn one_thread_draws_the_same_whatever_its_stripe() {
        let draw = || {
            let dice = Dice::new(Rng::seeded(7));
            [dice.roll().next_u64(), dice.roll().next_u64()]
        };
        let elsewhere = std::thread::spawn(draw).join();
        assert_eq!(elsewhere.expect("the thread draws"), draw());
    }
}

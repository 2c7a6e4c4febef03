use crate::hash::KeyedHash;

/// A small fast random generator (xoshiro256++ of Blackman and Vigna, 2021), seeded and forked by name.
///
/// Its streams are part of what a simulation seed means, so they do not change between releases. It is not for
/// secrets.
///
/// ```
/// use outgrow::env::Rng;
/// let mut a = Rng::seeded(7);
/// let mut b = Rng::seeded(7);
/// assert_eq!(a.next_u64(), b.next_u64());
/// assert!(a.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator that `seed` names.
    #[inline]
    #[must_use]
    pub fn seeded(seed: u64) -> Rng {
        let mut x = seed;
        Rng {
            state: std::array::from_fn(|_| splitmix(&mut x)),
        }
    }

    /// A generator for a few draws, at a fraction of the price of a seeded one: its state is the seed and what one long
    /// multiplication makes of it.
    #[inline]
    pub(crate) fn brief(seed: u64) -> Rng {
        // Not a zero with a zero for the seed: of nothing but zeros the generator would make nothing else.
        let long = u128::from(seed ^ 0xa076_1d64_78bd_642f) * u128::from(seed ^ 0xe703_7ed1_a0b4_28db);
        let (low, high) = (long as u64, (long >> 64) as u64);
        Rng {
            state: [low ^ high, high, low, seed],
        }
    }

    /// A generator of its own for the part called `name`; advances this one.
    #[must_use]
    pub fn fork(&mut self, name: &str) -> Rng {
        let key = KeyedHash::new(self.next_u64(), self.next_u64());
        Rng::seeded(key.hash(name.as_bytes()))
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `0..bound`, 0 when `bound` is 0.
    ///
    /// Takes the high half of a 128-bit product (Lemire, 2019) without its rejection step: the bias is below
    /// `bound / 2^64`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index in `0..len`, 0 when `len` is 0.
    #[inline]
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `[0, 1)`.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with probability `p`.
    #[inline]
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// An exponentially distributed number with the given mean: the gap between events of a Poisson process.
    #[inline]
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Puts `items` in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }
}

#[inline]
fn splitmix(x: &mut u64) -> u64 {
    *x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *x;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brief_generators_draw_differently_whatever_the_seed() {
        for seed in [0, 1, u64::MAX, 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db] {
            let mut rng = Rng::brief(seed);
            let draws = [(); 4].map(|()| rng.next_u64());
            assert!((1..4).all(|i| !draws[..i].contains(&draws[i])), "{seed}: {draws:x?}");
        }
    }

    #[test]
    fn seeds_and_names_decide_the_stream() {
        let draw = |seed, name| {
            let mut rng = Rng::seeded(seed).fork(name);
            [rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }

    #[test]
    fn reference_stream() {
        // The first outputs for state {1, 2, 3, 4}, computed by hand from the authors' definition.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        assert_eq!(rng.next_u64(), 41_943_041);
        assert_eq!(rng.next_u64(), 58_720_359);
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut rng = Rng::seeded(3);
        let mut seen = [0_u32; 10];
        for _ in 0..100_000 {
            seen[rng.index(10)] += 1;
        }
        // Each count is binomial with mean 10,000 and deviation 95: six deviations.
        assert!(seen.iter().all(|&n| (9_400..10_600).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}

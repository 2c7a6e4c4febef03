/// Who was evicted lately, at four bytes each: enough to know a key that comes back, and how long it was gone.
///
/// A table of buckets of one cache line. A bucket that is full gives up its oldest ghost, so that a ghost lives for
/// about as many evictions as there are ghosts, 7/8 of the entries; only where next to nothing is evicted for a thousand
/// ticks may one be taken for younger than it is. Two keys with the same fingerprint in the same bucket are
/// taken for one another: about one miss in 2,000 finds a ghost that is not its own.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    buckets: Box<[Bucket]>,
    /// Entries that the table was made for.
    made_for: usize,
}

/// A cache line: the latest ghost first, and what is empty last.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket([u32; WAYS]);

/// A ghost that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ghost {
    /// It had been in the main queue.
    pub(super) main: bool,
    /// Ticks since it was evicted.
    pub(super) gone: u32,
    /// Ticks that it had stayed in its queue before, at most [`LONGEST_STAY`].
    pub(super) stay: u32,
}

impl Ghosts {
    /// Remembers that the key with this `hash` was evicted at tick `now` out of a cache of `entries`.
    pub(super) fn add(&mut self, hash: u64, main: bool, stay: u32, now: u32, entries: usize) {
        if entries > self.made_for + self.made_for / 4 || entries < self.made_for - self.made_for / 4 {
            let ghosts = entries - entries / 8;
            self.buckets = vec![Bucket([EMPTY; WAYS]); ghosts.div_ceil(WAYS).max(1)].into_boxed_slice();
            self.made_for = entries;
        }
        let at = self.bucket(hash);
        let ways = &mut self.buckets[at].0;
        ways.copy_within(..WAYS - 1, 1);
        ways[0] = word(hash, main, stay, now);
    }

    /// Takes the ghost of the key with this `hash`, if it was evicted less than [`LIFE`] ticks before `now`.
    pub(super) fn take(&mut self, hash: u64, now: u32) -> Option<Ghost> {
        if self.buckets.is_empty() {
            return None;
        }
        let at = self.bucket(hash);
        let tag = tag(hash);
        let ways = &mut self.buckets[at].0;
        // All are compared, which takes fewer steps than to stop at the one that is it.
        let is_there = ways.iter().fold(false, |is_there, way| is_there | (way & TAGS == tag));
        if !is_there {
            return None;
        }
        let way = ways.iter().position(|way| way & TAGS == tag)?;
        let word = ways[way];
        ways.copy_within(way + 1.., way);
        ways[WAYS - 1] = EMPTY;
        (gone(word, now) < LIFE).then_some(Ghost {
            main: word & MAIN != 0,
            gone: gone(word, now),
            stay: word >> STAY_SHIFT & LONGEST_STAY,
        })
    }

    /// The bucket by the upper half of the hash; the lower bits chose the shard already.
    fn bucket(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }
}

/// Fifteen bits of the hash that are free of the shard's choice, and never zero.
fn tag(hash: u64) -> u32 {
    ((hash >> 16) as u32 & TAGS).max(1)
}

fn word(hash: u64, main: bool, stay: u32, now: u32) -> u32 {
    let main = if main { MAIN } else { 0 };
    tag(hash) | main | stay.min(LONGEST_STAY) << STAY_SHIFT | now << TIME_SHIFT
}

/// Ticks since `word` was written; they wrap at 1,024.
fn gone(word: u32, now: u32) -> u32 {
    (now << TIME_SHIFT).wrapping_sub(word & TIMES) >> TIME_SHIFT
}

/// Ticks after which a ghost is forgotten; there are as many in one turnover of the cache (see [`Clock`](super::clock::Clock)).
pub(super) const LIFE: u32 = super::clock::TURNOVER;
pub(super) const LONGEST_STAY: u32 = (1 << (TIME_SHIFT - STAY_SHIFT)) - 1;
const WAYS: usize = 16;
const EMPTY: u32 = 0;
/// A ghost is 15 bits of fingerprint, 1 for the queue, 6 for the stay and 10 for the tick.
const TAGS: u32 = MAIN - 1;
const MAIN: u32 = 1 << 15;
const STAY_SHIFT: u32 = 16;
const TIME_SHIFT: u32 = 22;
const TIMES: u32 = u32::MAX << TIME_SHIFT;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;

    #[test]
    fn a_ghost_is_found_once_with_what_it_was() {
        let mut ghosts = Ghosts::default();
        assert_eq!(ghosts.take(7 << 16, 0), None);
        ghosts.add(7 << 16, true, 5, 1_020, 100);
        ghosts.add(9 << 16, false, 500, 1_020, 100);
        let found = |main, gone, stay| Some(Ghost { main, gone, stay });
        assert_eq!(ghosts.take(7 << 16, 1_030), found(true, 10, 5));
        assert_eq!(ghosts.take(7 << 16, 1_030), None);
        assert_eq!(ghosts.take(9 << 16, 1_030), found(false, 10, LONGEST_STAY));
    }

    #[test]
    fn a_ghost_dies_of_age() {
        let mut ghosts = Ghosts::default();
        ghosts.add(1 << 60, true, 0, 0, 100);
        assert_eq!(ghosts.take(1 << 60, LIFE), None);
        ghosts.add(1 << 60, true, 0, 0, 100);
        assert!(ghosts.take(1 << 60, LIFE - 1).is_some());
    }

    #[test]
    fn the_latest_are_known_and_strangers_are_not() {
        const ENTRIES: u32 = 10_000;
        let mut rng = Rng::seeded(1);
        let hashes: Vec<u64> = std::iter::repeat_with(|| rng.next_u64())
            .take(3 * ENTRIES as usize)
            .collect();
        let mut ghosts = Ghosts::default();
        let tick = |i: u32| i * LIFE / ENTRIES;
        for (i, hash) in (0..).zip(&hashes) {
            ghosts.add(*hash, false, 0, tick(i), ENTRIES as usize);
        }
        let now = tick(3 * ENTRIES);
        let half = ENTRIES as usize / 2;
        let late = hashes
            .iter()
            .rev()
            .take(half)
            .filter(|hash| ghosts.take(**hash, now).is_some())
            .count();
        assert!(late > half * 98 / 100, "knows {late} of the last {half}");
        let early = hashes
            .iter()
            .take(ENTRIES as usize)
            .filter(|hash| ghosts.take(**hash, now).is_some())
            .count();
        assert!(early < 20, "takes {early} of the long gone for others");
    }

    #[test]
    fn a_table_follows_the_size_of_the_cache() {
        let mut ghosts = Ghosts::default();
        for entries in [1, 10, 100, 1_000, 100, 10] {
            ghosts.add(entries << 32, true, 0, 0, entries as usize);
            let ways = ghosts.buckets.len() * WAYS;
            assert!(
                (entries as usize * 7 / 10..=entries as usize + WAYS).contains(&ways),
                "{ways} for {entries}"
            );
        }
    }
}

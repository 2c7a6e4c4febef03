/// How often keys were seen lately, roughly and in little memory: a count-min sketch of four-bit counters that are halved
/// when ten times as many keys were counted as the cache holds (Einziger, Friedman and Manes, TOS 2017).
///
/// The four counters of a key lie in one cache line. A count is never too low before the next halving, up to 15.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    blocks: Box<[Block]>,
    /// Entries that it was made for.
    made_for: usize,
    counted: usize,
}

/// Four rows of two words, 32 counters each.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Block([u64; 2 * ROWS]);

impl Sketch {
    /// Counts the key with this `hash`, in a cache of `entries`.
    pub(super) fn count(&mut self, hash: u64, entries: usize) {
        if entries > self.made_for {
            self.made_for = entries.max(2 * self.made_for).max(32);
            self.blocks = vec![Block([0; 2 * ROWS]); self.made_for.div_ceil(ENTRIES_PER_BLOCK)].into_boxed_slice();
            self.counted = 0;
        }
        let at = self.block(hash);
        for (word, shift) in places(hash) {
            let word = &mut self.blocks[at].0[word];
            if *word >> shift & MOST < MOST {
                *word += 1 << shift;
            }
        }
        self.counted += 1;
        if self.counted >= PERIOD * self.made_for {
            self.halve();
        }
    }

    /// How often the key with this `hash` was counted, up to 15.
    pub(super) fn estimate(&self, hash: u64) -> u8 {
        if self.blocks.is_empty() {
            return 0;
        }
        let block = &self.blocks[self.block(hash)].0;
        let counts = places(hash).map(|(word, shift)| (block[word] >> shift & MOST) as u8);
        counts.min().expect("there are four counters")
    }

    fn halve(&mut self) {
        self.counted /= 2;
        for word in self.blocks.iter_mut().flat_map(|block| &mut block.0) {
            *word = *word >> 1 & HALVES;
        }
    }

    fn block(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }
}

/// The word and shift of each of the key's counters within its block, by hash bits that the shard's choice left.
fn places(hash: u64) -> impl Iterator<Item = (usize, u32)> {
    (0..ROWS).map(move |row| {
        let counter = (hash >> (17 + 5 * row)) as u32 % 32;
        (2 * row + (counter / 16) as usize, counter % 16 * 4)
    })
}

const ROWS: usize = 4;
const MOST: u64 = 15;
const HALVES: u64 = 0x7777_7777_7777_7777;
/// Entries for each block of 64 bytes.
const ENTRIES_PER_BLOCK: usize = 8;
/// Counters are halved after so many counts by entry.
const PERIOD: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn a_count_is_at_least_the_truth_and_mostly_exact() {
        const ENTRIES: usize = 10_000;
        let mut rng = Rng::seeded(3);
        let keys: Vec<u64> = std::iter::repeat_with(|| rng.next_u64()).take(ENTRIES).collect();
        let (mut sketch, mut truth) = (Sketch::default(), BTreeMap::new());
        for _ in 0..3 * ENTRIES {
            let key = keys[rng.index(ENTRIES)];
            sketch.count(key, ENTRIES);
            *truth.entry(key).or_insert(0_u8) += 1;
        }
        assert!(
            truth
                .iter()
                .all(|(key, count)| sketch.estimate(*key) >= (*count).min(15))
        );
        let exact = truth
            .iter()
            .filter(|(key, count)| sketch.estimate(**key) == **count)
            .count();
        assert!(exact > truth.len() * 9 / 10, "{exact} of {} are exact", truth.len());
    }

    #[test]
    fn counts_stop_at_their_maximum_and_fade() {
        let mut sketch = Sketch::default();
        for _ in 0..100 {
            sketch.count(7 << 50, 100);
        }
        assert_eq!(sketch.estimate(7 << 50), 15);
        for other in 0..1_000_u64 {
            sketch.count(other.wrapping_mul(0x9e37_79b9_7f4a_7c15), 100);
        }
        assert_eq!(sketch.estimate(7 << 50), 7);
    }

    #[test]
    fn nothing_was_seen_yet() {
        assert_eq!(Sketch::default().estimate(1), 0);
    }
}

use super::{Partitioner, count, tagged};
use crate::codec::{self, Reader};
use crate::hash::KeyedHash;
use crate::store::{Error, Result};
use std::sync::Arc;

/// The most slots and the most shards of a table.
const MOST: usize = u16::MAX as usize;

/// Keys hash to a fixed number of slots, and each slot belongs to a shard.
///
/// A lookup is one hash and one read of a table, whatever the number of shards. Of equal weights, no two shards differ
/// by more than one slot. Adding a shard to n equal ones moves exactly floor(S/(n+1)) of S slots, all of them to the
/// new one; removing a shard moves only its own. The table takes two bytes a slot; a clone shares it.
///
/// Use many more slots than there will ever be shards: with 16,384 and a hundred shards, shares differ by less than
/// one percent.
///
/// ```
/// use outgrow::shard::{Partitioner, SlotTable};
/// let mut table = SlotTable::new(16_384);
/// table.add("a", 1);
/// table.add("b", 3);
/// assert_eq!(table.share(1), 0.75);
/// assert!(table.route(b"user-7") < 2);
/// ```
#[derive(Clone, Debug)]
pub struct SlotTable {
    hash: KeyedHash,
    key: (u64, u64),
    owners: Arc<[u16]>,
    weights: Vec<u32>,
}

impl SlotTable {
    /// A table of so many slots, at least 1 and at most 65,535, without shards yet.
    #[must_use]
    pub fn new(slots: usize) -> SlotTable {
        let owners = std::iter::repeat_n(0, slots.clamp(1, MOST)).collect();
        SlotTable {
            hash: KeyedHash::default(),
            key: (0, 0),
            owners,
            weights: Vec::new(),
        }
    }

    /// Hashes keys under a secret, so that whoever chooses the keys cannot crowd one shard. Every table over the same
    /// data needs the same one.
    #[must_use]
    pub fn keyed(mut self, k0: u64, k1: u64) -> SlotTable {
        self.hash = KeyedHash::new(k0, k1);
        self.key = (k0, k1);
        self
    }

    /// The slot of a key.
    #[inline]
    #[must_use]
    pub fn slot(&self, key: &[u8]) -> usize {
        let hash = u128::from(self.hash.hash(tagged(key)));
        ((hash * self.owners.len() as u128) >> 64) as usize
    }

    /// The shard of each slot.
    #[must_use]
    pub fn owners(&self) -> &[u16] {
        &self.owners
    }

    fn counts(&self) -> Vec<usize> {
        // Before there is a shard, no slot is anybody's.
        let mut counts = vec![0; self.weights.len().max(1)];
        self.owners.iter().for_each(|owner| counts[usize::from(*owner)] += 1);
        counts.truncate(self.weights.len());
        counts
    }

    /// The slots that a shard of `weight` should have when all weights add up to `total`.
    fn quota(&self, weight: u32, total: u64) -> usize {
        (self.owners.len() as u128 * u128::from(weight) / u128::from(total.max(1))) as usize
    }

    fn total(&self) -> u64 {
        self.weights.iter().map(|weight| u64::from(*weight)).sum()
    }
}

/// How many slots a shard has for its weight, as a number that compares.
fn fullness(count: usize, weight: u32) -> u128 {
    ((count as u128) << 64) / u128::from(weight)
}

impl Partitioner for SlotTable {
    #[inline]
    fn route(&self, key: &[u8]) -> usize {
        self.owners[self.slot(key)].into()
    }

    fn shards(&self) -> usize {
        self.weights.len()
    }

    fn share(&self, shard: usize) -> f64 {
        let owned = self.owners.iter().filter(|owner| usize::from(**owner) == shard).count();
        owned as f64 / self.owners.len() as f64
    }

    fn add(&mut self, _: &str, weight: u32) {
        let (newest, weight) = (self.weights.len(), weight.max(1));
        let mut counts = self.counts();
        self.weights.push(weight);
        if newest == 0 {
            // Every slot points to shard 0 already.
            return;
        }
        let mut gives = vec![0; newest];
        for _ in 0..self.quota(weight, self.total()) {
            let donors = (0..newest).filter(|shard| counts[*shard] > 0);
            let Some(fullest) = donors.max_by_key(|shard| fullness(counts[*shard], self.weights[*shard])) else {
                break;
            };
            counts[fullest] -= 1;
            gives[fullest] += 1;
        }
        let owners = self.owners.iter().map(|owner| {
            let gives = &mut gives[usize::from(*owner)];
            if *gives == 0 {
                return *owner;
            }
            *gives -= 1;
            newest as u16
        });
        self.owners = owners.collect();
    }

    fn remove(&mut self, shard: usize) {
        let mut counts = self.counts();
        self.weights.remove(shard);
        counts.remove(shard);
        let weights = &self.weights;
        let owners = self.owners.iter().map(|owner| {
            let owner = usize::from(*owner);
            if owner != shard || weights.is_empty() {
                return owner.saturating_sub(usize::from(owner > shard)) as u16;
            }
            let emptiest = (0..weights.len())
                .min_by_key(|heir| fullness(counts[*heir], weights[*heir]))
                .unwrap_or(0);
            counts[emptiest] += 1;
            emptiest as u16
        });
        self.owners = owners.collect();
    }

    fn save(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.owners.len() * 2);
        codec::put_varint(&mut out, self.key.0);
        codec::put_varint(&mut out, self.key.1);
        codec::put_varint(&mut out, self.weights.len() as u64);
        self.weights
            .iter()
            .for_each(|weight| codec::put_varint(&mut out, u64::from(*weight)));
        codec::put_varint(&mut out, self.owners.len() as u64);
        self.owners
            .iter()
            .for_each(|owner| codec::put_varint(&mut out, u64::from(*owner)));
        out
    }

    fn restore(bytes: &[u8]) -> Result<SlotTable> {
        let mut reader = Reader::new(bytes);
        let key = (reader.varint()?, reader.varint()?);
        let shards = count(&mut reader, MOST)?;
        let weights = (0..shards).map(|_| Ok(u32::try_from(reader.varint()?).unwrap_or(u32::MAX).max(1)));
        let weights = weights.collect::<Result<Vec<_>>>()?;
        let slots = count(&mut reader, MOST)?.max(1);
        let owners = (0..slots).map(|_| match reader.varint()? {
            owner if owner < shards.max(1) as u64 => Ok(owner as u16),
            owner => Err(Error::corrupt(format!(
                "a slot that belongs to shard {owner} of {shards}"
            ))),
        });
        let owners = owners.collect::<Result<Vec<_>>>()?;
        Ok(SlotTable {
            hash: KeyedHash::new(key.0, key.1),
            key,
            owners: owners.into(),
            weights,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(slots: usize, weights: &[u32]) -> SlotTable {
        let mut table = SlotTable::new(slots);
        weights.iter().for_each(|weight| table.add("", *weight));
        table
    }

    #[test]
    fn a_key_without_a_tag_is_hashed_whole() {
        assert_eq!(tagged(b"user"), b"user");
        assert_eq!(tagged(b"cart/{user}/1"), b"user");
        assert_eq!(tagged(b"{}user"), b"{}user");
        assert_eq!(tagged(b"a{b{c}d}"), b"b{c");
        assert_eq!(tagged(b"open{"), b"open{");
    }

    proptest! {
        #[test]
        fn equal_shards_stay_equal_and_only_what_must_moves(slots in 1..2_000_usize, shards in 0..20_usize) {
            let mut table = table(slots, &vec![1; shards]);
            let before = table.clone();
            table.add("new", 1);
            let counts = table.counts();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
            let moved = before.owners.iter().zip(&*table.owners).filter(|(before, after)| before != after);
            if shards > 0 {
                prop_assert_eq!(moved.clone().count(), slots / (shards + 1));
            }
            prop_assert!(moved.into_iter().all(|(_, after)| usize::from(*after) == shards));
        }

        #[test]
        fn weights_are_kept_within_a_slot_or_two(weights in prop::collection::vec(1..6_u32, 1..12)) {
            let table = table(16_384, &weights);
            let total: u32 = weights.iter().sum();
            for (count, weight) in table.counts().iter().zip(&weights) {
                let ideal = 16_384.0 * f64::from(*weight) / f64::from(total);
                prop_assert!((*count as f64 - ideal).abs() <= weights.len() as f64, "{count} of {ideal}");
            }
        }

        #[test]
        fn removing_a_shard_moves_its_own_slots_only(
            weights in prop::collection::vec(1..4_u32, 2..10),
            victim in any::<prop::sample::Index>(),
        ) {
            let mut table = table(1_024, &weights);
            let (before, victim) = (table.clone(), victim.index(weights.len()));
            table.remove(victim);
            for (before, after) in before.owners.iter().zip(&*table.owners) {
                let before = usize::from(*before);
                if before != victim {
                    prop_assert_eq!(usize::from(*after), before - usize::from(before > victim));
                }
            }
            prop_assert_eq!(table.counts().iter().sum::<usize>(), 1_024);
            prop_assert!(table.counts().iter().all(|count| *count > 0));
        }

        #[test]
        fn bytes_round_trip(weights in prop::collection::vec(1..9_u32, 0..10), slots in 1..300_usize, cut: prop::sample::Index) {
            let table = table(slots, &weights).keyed(7, u64::MAX);
            let bytes = table.save();
            let back = SlotTable::restore(&bytes).unwrap();
            prop_assert_eq!((&back.owners, &back.weights, back.key), (&table.owners, &table.weights, table.key));
            prop_assert!(SlotTable::restore(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}

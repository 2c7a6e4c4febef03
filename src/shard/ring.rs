use super::{Partitioner, count, tagged};
use crate::codec::{self, Reader};
use crate::hash::KeyedHash;
use crate::store::{Error, Result};

/// Points that a shard of weight 1 has on the ring.
const POINTS: u32 = 160;
/// The most that a weight counts: a shard then has 163,840 points.
const MOST_WEIGHT: u32 = 1 << 10;
/// The most shards that a saved ring may have.
const MOST: usize = 1 << 16;

/// A consistent-hash ring (Karger and others, STOC 1997): a key belongs to the next point on a circle, and each shard
/// has many points, by its name.
///
/// What it is for: several routers that know only the names of the shards, not their history, agree. Its balance is
/// statistical (with 160 points a shard, shares differ by some eight percent) and a lookup is a binary search; where
/// the map can be kept, a [`SlotTable`](super::SlotTable) is exact and faster. 16 bytes a point. Weights above 1,024
/// count as 1,024.
///
/// ```
/// use outgrow::shard::{HashRing, Partitioner};
/// let mut ring = HashRing::new();
/// ring.add("a", 1);
/// ring.add("b", 1);
/// assert!((0.3..0.7).contains(&ring.share(0)));
/// ```
#[derive(Clone, Debug)]
pub struct HashRing {
    hash: KeyedHash,
    key: (u64, u64),
    shards: Vec<(String, u32)>,
    /// Where each point is and whose it is, by place.
    points: Vec<(u64, u32)>,
}

impl HashRing {
    /// A ring without shards yet.
    #[must_use]
    pub fn new() -> HashRing {
        HashRing {
            hash: KeyedHash::default(),
            key: (0, 0),
            shards: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Hashes keys and names under a secret. Every ring over the same data needs the same one.
    #[must_use]
    pub fn keyed(mut self, k0: u64, k1: u64) -> HashRing {
        self.hash = KeyedHash::new(k0, k1);
        self.key = (k0, k1);
        self.place(0);
        self
    }

    /// Places the points of the shards from `first` on; those of the others have their places.
    fn place(&mut self, first: usize) {
        let (hash, shards) = (self.hash, &self.shards);
        if first == 0 {
            self.points.clear();
        }
        let new = shards
            .iter()
            .enumerate()
            .skip(first)
            .flat_map(|(shard, (name, weight))| {
                (0..POINTS * *weight).map(move |point| {
                    let label = [name.as_bytes(), &point.to_le_bytes()].concat();
                    (hash.hash(&label), shard as u32)
                })
            });
        self.points.extend(new);
        // Of two points in one place the shard of the lesser name wins, whatever the order of joining. The stable sort
        // is quick where most is in order already.
        let name = |shard: u32| &shards[shard as usize].0;
        self.points
            .sort_by(|(at, shard), (other_at, other)| (at, name(*shard)).cmp(&(other_at, name(*other))));
        self.points.dedup_by_key(|(at, _)| *at);
    }
}

impl Default for HashRing {
    fn default() -> HashRing {
        HashRing::new()
    }
}

impl Partitioner for HashRing {
    #[inline]
    fn route(&self, key: &[u8]) -> usize {
        let at = self.hash.hash(tagged(key));
        let next = self.points.partition_point(|(point, _)| *point < at);
        let (_, shard) = self.points.get(next).unwrap_or(&self.points[0]);
        *shard as usize
    }

    fn shards(&self) -> usize {
        self.shards.len()
    }

    fn share(&self, shard: usize) -> f64 {
        let arc = |i: usize| {
            let before = self.points[(i + self.points.len() - 1) % self.points.len()].0;
            let arc = self.points[i].0.wrapping_sub(before);
            if self.points.len() == 1 { u64::MAX } else { arc }
        };
        let own = (0..self.points.len()).filter(|i| self.points[*i].1 as usize == shard);
        own.map(|i| arc(i) as f64).sum::<f64>() / (u64::MAX as f64)
    }

    fn add(&mut self, name: &str, weight: u32) {
        self.shards.push((name.to_owned(), weight.clamp(1, MOST_WEIGHT)));
        self.place(self.shards.len() - 1);
    }

    fn remove(&mut self, shard: usize) {
        self.shards.remove(shard);
        self.place(0);
    }

    fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        codec::put_varint(&mut out, self.key.0);
        codec::put_varint(&mut out, self.key.1);
        codec::put_varint(&mut out, self.shards.len() as u64);
        for (name, weight) in &self.shards {
            codec::put_bytes(&mut out, name.as_bytes());
            codec::put_varint(&mut out, u64::from(*weight));
        }
        out
    }

    fn restore(bytes: &[u8]) -> Result<HashRing> {
        let mut reader = Reader::new(bytes);
        let key = (reader.varint()?, reader.varint()?);
        let mut ring = HashRing {
            hash: KeyedHash::new(key.0, key.1),
            key,
            ..HashRing::new()
        };
        for _ in 0..count(&mut reader, MOST)? {
            let name = String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| Error::corrupt("a shard's name"))?;
            let weight = u32::try_from(reader.varint()?).map_err(|_| Error::corrupt("a shard's weight"))?;
            ring.shards.push((name, weight.clamp(1, MOST_WEIGHT)));
        }
        ring.place(0);
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(names: &[String]) -> HashRing {
        let mut ring = HashRing::new();
        names.iter().for_each(|name| ring.add(name, 1));
        ring
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("shard-{i}")).collect()
    }

    fn keys() -> impl Iterator<Item = [u8; 4]> {
        (0..2_000_u32).map(u32::to_le_bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_change_moves_keys_to_or_from_the_changed_shard_only(n in 1..10_usize) {
            let (before, after) = (ring(&names(n)), ring(&names(n + 1)));
            let moved: Vec<_> = keys().filter(|key| before.route(key) != after.route(key)).collect();
            prop_assert!(moved.iter().all(|key| after.route(key) == n));
            prop_assert!(!moved.is_empty());
            let mut removed = after.clone();
            removed.remove(n);
            prop_assert!(keys().all(|key| removed.route(&key) == before.route(&key)));
        }

        #[test]
        fn the_order_of_joining_does_not_matter(n in 1..10_usize) {
            let (names, mut backwards) = (names(n), names(n));
            backwards.reverse();
            let (one, other) = (ring(&names), ring(&backwards));
            prop_assert!(keys().all(|key| names[one.route(&key)] == backwards[other.route(&key)]));
        }
    }

    #[test]
    fn shares_follow_weights_and_add_up() {
        let mut ring = ring(&names(3));
        ring.add("heavy", 3);
        let shares: Vec<f64> = (0..4).map(|shard| ring.share(shard)).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((0.4..0.6).contains(&shares[3]), "{shares:?}");
        let counted = keys().filter(|key| ring.route(key) == 3).count() as f64 / 2_000.0;
        assert!((counted - shares[3]).abs() < 0.05, "{counted} {}", shares[3]);
    }

    #[test]
    fn bytes_round_trip() {
        let mut ring = ring(&names(3)).keyed(1, 2);
        ring.add("heavy", 2);
        ring.add("as heavy as can be", u32::MAX);
        let bytes = ring.save();
        assert_eq!(HashRing::restore(&bytes).unwrap().points, ring.points);
        assert!((0..bytes.len()).all(|len| HashRing::restore(&bytes[..len]).is_err()));
        let mut again = ring.clone();
        again.place(0);
        assert_eq!(
            again.points, ring.points,
            "adding one by one places as adding all at once"
        );
    }
}

//! Walking through all entries, most valuable first.

use super::cache::Cache;
use super::hasher::DefaultHash;
use super::inner::{Inner, Standing};
use super::slab::Slot;
use crate::sync::pins::{self, Pin};
use std::fmt;
use std::hash::{BuildHasher, Hash};

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Clones of its entries, those first that it would give up last: the first of each shard, then the second of each,
    /// and so on, each shard in the order of the policy.
    ///
    /// It notes where the entries are, four bytes for each, with the lock of a shard after the other, and then looks at
    /// one with each step, without a lock. What has expired by then or was invalidated is skipped. An entry that is there
    /// and is not written all the while comes once. One that is written may come as it was, as it is, both, or not at all;
    /// so may any while the cache is [resized](Cache::resize) to less than half. Looking is no hit, and is not counted.
    ///
    /// ```
    /// use outgrow::cache::{Cache, policy::Lru};
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, &str> = Cache::builder().capacity(100).policy(Lru::default()).build()?;
    /// cache.insert(1, "one");
    /// cache.insert(2, "two");
    /// cache.get(&1);
    /// assert_eq!(cache.iter().collect::<Vec<_>>(), [(1, "one"), (2, "two")]);
    /// # Ok(()) }
    /// ```
    pub fn iter(&self) -> Iter<'_, K, V, S>
    where
        K: Clone,
        V: Clone,
    {
        Iter(self.walk())
    }

    /// Clones of its keys, in the order and with the promises of [`iter`](Cache::iter).
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, Vec<u8>> = Cache::builder().build()?;
    /// cache.insert(7, vec![0; 1_000_000]);
    /// assert_eq!(cache.keys().collect::<Vec<_>>(), [7]);
    /// # Ok(()) }
    /// ```
    pub fn keys(&self) -> Keys<'_, K, V, S>
    where
        K: Clone,
    {
        Keys(self.walk())
    }

    /// Shows each entry, in the order and with the promises of [`iter`](Cache::iter). Nothing is cloned. While `look`
    /// runs no memory of entries that have left is freed; it may use the cache.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, String> = Cache::builder().build()?;
    /// cache.insert(7, "Ada".into());
    /// cache.insert(8, "Grace".into());
    /// let mut letters = 0;
    /// cache.for_each(|_, name| letters += name.len());
    /// assert_eq!(letters, 8);
    /// # Ok(()) }
    /// ```
    pub fn for_each(&self, mut look: impl FnMut(&K, &V)) {
        let mut walk = self.walk();
        while walk.next(|at| look(at.entry.key(), at.value)).is_some() {}
    }

    pub(super) fn walk(&self) -> Walk<'_, K, V, S> {
        let ranked = self.inner.shards.iter().map(|shard| shard.lock().ranked(&pins::pin()));
        Walk {
            inner: &self.inner,
            ranked: ranked.collect(),
            rank: 0,
            shard: 0,
        }
    }
}

/// A walk through the entries of a cache.
pub(super) struct Walk<'a, K, V, S> {
    inner: &'a Inner<K, V, S>,
    /// For each shard, where its entries were.
    ranked: Vec<Vec<u32>>,
    rank: usize,
    shard: usize,
}

/// An entry on the way, with a value that has not expired.
pub(super) struct At<'p, K, V> {
    pub(super) shard: usize,
    pub(super) slot: u32,
    pub(super) entry: &'p Slot<K, V>,
    pub(super) value: &'p V,
    pub(super) pin: &'p Pin,
}

impl<K, V, S> Walk<'_, K, V, S> {
    /// What `look` makes of the next entry, which is under a pin for so long.
    pub(super) fn next<R>(&mut self, look: impl FnOnce(&At<'_, K, V>) -> R) -> Option<R> {
        loop {
            let slot = self.next_slot()?;
            let pin = pins::pin();
            let number = self.shard - 1;
            let shard = &self.inner.shards[number];
            let Some(entry) = shard.at(slot, &pin) else { continue };
            if self.inner.judge(shard, slot, entry.word.read(), &pin) != Standing::Fresh {
                continue;
            }
            let Some(value) = entry.value() else { continue };
            return Some(look(&At {
                shard: number,
                slot,
                entry,
                value,
                pin: &pin,
            }));
        }
    }

    fn next_slot(&mut self) -> Option<u32> {
        loop {
            if self.shard == self.ranked.len() {
                self.shard = 0;
                self.rank += 1;
                if self.ranked.iter().all(|slots| slots.len() <= self.rank) {
                    // It stays at the end, however often it is asked.
                    self.ranked.clear();
                    return None;
                }
            }
            let slot = self.ranked[self.shard].get(self.rank).copied();
            self.shard += 1;
            if slot.is_some() {
                return slot;
            }
        }
    }

    fn left(&self) -> usize {
        self.ranked
            .iter()
            .map(|slots| slots.len().saturating_sub(self.rank))
            .sum()
    }
}

/// The entries of a cache, from [`Cache::iter`].
pub struct Iter<'a, K, V, S = DefaultHash>(Walk<'a, K, V, S>);

impl<K: Clone, V: Clone, S> Iterator for Iter<'_, K, V, S> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        self.0.next(|at| (at.entry.key().clone(), at.value.clone()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.0.left()))
    }
}

/// The keys of a cache, from [`Cache::keys`].
pub struct Keys<'a, K, V, S = DefaultHash>(Walk<'a, K, V, S>);

impl<K: Clone, V, S> Iterator for Keys<'_, K, V, S> {
    type Item = K;

    fn next(&mut self) -> Option<K> {
        self.0.next(|at| at.entry.key().clone())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.0.left()))
    }
}

impl<K, V, S> fmt::Debug for Iter<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("left", &self.0.left())
            .finish_non_exhaustive()
    }
}

impl<K, V, S> fmt::Debug for Keys<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("left", &self.0.left())
            .finish_non_exhaustive()
    }
}

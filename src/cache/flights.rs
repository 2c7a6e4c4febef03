use super::flight::Flight;
#[cfg(test)]
use crate::sync::Ordering;
use crate::sync::{AtomicUsize, CachePadded, Mutex, MutexGuard};
use hashbrown::{Equivalent, HashTable};
use std::sync::Arc;

/// The loads under way, by key.
///
/// A flight stays in the table until it has landed, everyone left, or its key was written: then those aboard still get
/// its value, but it is not stored, and who comes later does not board. The lock of its key's part here is taken
/// before that of the key's shard, never after.
pub(super) struct Flights<K, V> {
    parts: Box<[CachePadded<Mutex<HashTable<Under<K, V>>>>]>,
    /// How many calls wait, over all keys.
    pub(super) waiting: AtomicUsize,
    pub(super) limit: usize,
}

/// A flight with the key it loads and that key's hash.
struct Under<K, V> {
    hash: u64,
    key: K,
    flight: Arc<Flight<V>>,
}

/// The parts of the table, each with a lock; fixed, so that nothing depends on the machine.
const PARTS: usize = 16;

impl<K, V> Flights<K, V> {
    pub(super) fn new(limit: usize) -> Flights<K, V> {
        Flights {
            parts: (0..PARTS).map(|_| CachePadded::default()).collect(),
            waiting: AtomicUsize::new(0),
            limit,
        }
    }

    /// Holds the part of a hash: until it is let go nobody else finds, puts or takes a flight there.
    pub(super) fn hold(&self, hash: u64) -> Part<'_, K, V> {
        // The shard takes the lowest bits.
        Part(self.parts[(hash >> 32) as usize % PARTS].lock())
    }

    /// Takes every flight out, a part after the other, and calls `each` with its hash while the part is held.
    pub(super) fn take_all(&self, mut each: impl FnMut(u64)) {
        for part in &self.parts {
            let mut part = part.lock();
            part.iter().for_each(|under| each(under.hash));
            let all = std::mem::take(&mut *part);
            drop(part);
            // What keys and loaders do when dropped is theirs, so not under the lock.
            drop(all);
        }
    }

    /// How many keys are being loaded, and how many calls wait.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let keys = self.parts.iter().map(|part| part.lock().len()).sum();
        (keys, self.waiting.load(Ordering::Relaxed))
    }
}

/// A part of the table, held by one call.
pub(super) struct Part<'a, K, V>(MutexGuard<'a, HashTable<Under<K, V>>>);

impl<K, V> Part<'_, K, V> {
    /// The flight for `key`.
    pub(super) fn get<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Arc<Flight<V>>> {
        let under = self.0.find(hash, |under| key.equivalent(&under.key))?;
        Some(&under.flight)
    }

    /// Takes the flight for `key` out if `is_it` says so. The caller drops it when the part is held no more.
    pub(super) fn remove<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        is_it: impl Fn(&Arc<Flight<V>>) -> bool,
    ) -> Option<(K, Arc<Flight<V>>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let found = (self.0).find_entry(hash, |under| key.equivalent(&under.key) && is_it(&under.flight));
        let (under, _) = found.ok()?.remove();
        Some((under.key, under.flight))
    }

    /// Puts a flight in for a key that has none.
    pub(super) fn put(&mut self, hash: u64, key: K, flight: Arc<Flight<V>>) {
        self.0
            .insert_unique(hash, Under { hash, key, flight }, |under| under.hash);
    }
}

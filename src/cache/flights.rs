use super::flight::Flight;
use super::pauses::Pauses;
use crate::sync::{AtomicU64, AtomicUsize, CachePadded, Mutex, MutexGuard, Ordering};
use hashbrown::{Equivalent, HashTable};
use std::sync::Arc;
use std::time::Duration;

/// The loads under way, by key.
///
/// A flight stays in the table until it has landed, everyone left, or its key was written: then those aboard still get
/// its value, but it is not stored, and who comes later does not board. The lock of its key's part here is taken
/// before that of the key's shard, never after.
pub(super) struct Flights<K, V> {
    parts: Box<[Locked<K, V>]>,
    /// How many calls wait, over all keys.
    pub(super) waiting: AtomicUsize,
    pub(super) limit: usize,
    /// How long a load takes, in nanoseconds; zero before the first.
    usual: AtomicU64,
}

type Locked<K, V> = CachePadded<Mutex<Kept<K, V>>>;

/// What a part of the table keeps.
struct Kept<K, V> {
    under_way: HashTable<Under<K, V>>,
    pauses: Pauses,
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
            parts: (0..PARTS).map(|_| CachePadded::new(Mutex::new(Kept::new()))).collect(),
            waiting: AtomicUsize::new(0),
            limit,
            usual: AtomicU64::new(0),
        }
    }

    /// How long loads took lately: a mean in which each counts an eighth of all before it.
    pub(super) fn usual(&self) -> Duration {
        Duration::from_nanos(self.usual.load(Ordering::Relaxed))
    }

    /// Notes how long a load took. Of two at once one may be lost, which does no harm to a mean.
    pub(super) fn took(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let usual = match self.usual.load(Ordering::Relaxed) {
            0 => time,
            mean => mean - mean / 8 + time / 8,
        };
        self.usual.store(usual.max(1), Ordering::Relaxed);
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
            part.under_way.iter().for_each(|under| each(under.hash));
            let all = std::mem::take(&mut part.under_way);
            drop(part);
            // What keys and loaders do when dropped is theirs, so not under the lock.
            drop(all);
        }
    }

    /// How many keys are being loaded, and how many calls wait.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let keys = self.parts.iter().map(|part| part.lock().under_way.len()).sum();
        (keys, self.waiting.load(Ordering::Relaxed))
    }
}

impl<K, V> Kept<K, V> {
    fn new() -> Kept<K, V> {
        Kept {
            under_way: HashTable::new(),
            pauses: Pauses::default(),
        }
    }
}

/// A part of the table, held by one call.
pub(super) struct Part<'a, K, V>(MutexGuard<'a, Kept<K, V>>);

impl<K, V> Part<'_, K, V> {
    /// The flight for `key`.
    pub(super) fn get<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Arc<Flight<V>>> {
        let under = self.0.under_way.find(hash, |under| key.equivalent(&under.key))?;
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
        let is_it = |under: &Under<K, V>| key.equivalent(&under.key) && is_it(&under.flight);
        let (under, _) = self.0.under_way.find_entry(hash, is_it).ok()?.remove();
        Some((under.key, under.flight))
    }

    /// Whether this flight is still there.
    pub(super) fn has(&self, hash: u64, flight: &Arc<Flight<V>>) -> bool {
        let is_it = |under: &Under<K, V>| Arc::ptr_eq(&under.flight, flight);
        self.0.under_way.find(hash, is_it).is_some()
    }

    /// Takes this flight out, if it is still there.
    pub(super) fn take(&mut self, hash: u64, flight: &Arc<Flight<V>>) -> Option<(K, Arc<Flight<V>>)> {
        let is_it = |under: &Under<K, V>| Arc::ptr_eq(&under.flight, flight);
        let (under, _) = self.0.under_way.find_entry(hash, is_it).ok()?.remove();
        Some((under.key, under.flight))
    }

    /// Puts a flight in for a key that has none.
    pub(super) fn put(&mut self, hash: u64, key: K, flight: Arc<Flight<V>>) {
        let under = Under { hash, key, flight };
        self.0.under_way.insert_unique(hash, under, |under| under.hash);
    }

    /// The keys here whose loads failed a moment ago.
    pub(super) fn pauses(&mut self) -> &mut Pauses {
        &mut self.0.pauses
    }
}

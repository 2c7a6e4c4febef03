use super::cache::{Cache, Inner};
use super::flight::{Flight, Outcome, Seat};
use super::{InsertOptions, LoadError};
use crate::hash::KeyedHash;
use crate::sync::{AtomicUsize, Ordering};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures::FutureExt;
use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::sync::Arc;

/// The loads under way, by key.
///
/// A flight stays in the table until it has landed, everyone left, or its key was written: then those aboard still get
/// its value, but it is not stored, and who comes later does not board. The lock of its key's entry here is taken
/// before that of the key's shard, never after.
pub(super) struct Flights<K, V> {
    table: DashMap<K, Arc<Flight<V>>, KeyedHash>,
    /// How many calls wait, over all keys.
    waiting: AtomicUsize,
    limit: usize,
}

/// The parts of the table, each with a lock; fixed, so that nothing depends on the machine.
const TABLE_PARTS: usize = 16;

impl<K: Hash + Eq, V> Flights<K, V> {
    pub(super) fn new(hash: KeyedHash, limit: usize) -> Flights<K, V> {
        Flights {
            table: DashMap::with_hasher_and_shard_amount(hash, TABLE_PARTS),
            waiting: AtomicUsize::new(0),
            limit,
        }
    }

    /// How many keys are being loaded, and how many calls wait.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.table.len(), self.waiting.load(Ordering::Relaxed))
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    /// Makes what is being loaded for `key` stale: it will not be stored.
    #[cold]
    pub(super) fn detach<Q: Hash + Eq + ?Sized>(&self, hash: u64, key: &Q)
    where
        K: Borrow<Q>,
    {
        if self.flights.table.remove(key).is_some() {
            self.shard(hash).write().loading -= 1;
        }
    }

    /// Makes everything that is being loaded stale.
    pub(super) fn detach_all(&self) {
        self.flights.table.retain(|key, _| {
            self.shard(self.hash(key)).write().loading -= 1;
            false
        });
    }
}

/// What a call that missed finds when it looks again.
enum Found<'a, K: Hash + Eq, V: Clone, Q: Hash + Eq + ?Sized>
where
    K: Borrow<Q>,
{
    /// The value: a load landed in between.
    Value(V),
    /// A seat in the flight that loads it.
    Seat(Aboard<'a, K, V, Q>),
}

/// A seat, given up when dropped.
struct Aboard<'a, K: Hash + Eq, V: Clone, Q: Hash + Eq + ?Sized>
where
    K: Borrow<Q>,
{
    inner: &'a Inner<K, V>,
    key: &'a Q,
    hash: u64,
    flight: Arc<Flight<V>>,
    seat: Seat,
}

impl<K, V, Q> Drop for Aboard<'_, K, V, Q>
where
    K: Hash + Eq + Borrow<Q>,
    V: Clone,
    Q: Hash + Eq + ?Sized,
{
    fn drop(&mut self) {
        self.inner.flights.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.flight.leave(self.seat) {
            let is_mine = |_: &K, flight: &Arc<Flight<V>>| Arc::ptr_eq(flight, &self.flight);
            if self.inner.flights.table.remove_if(self.key, is_mine).is_some() {
                self.inner.shard(self.hash).write().loading -= 1;
            }
        }
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// The value under `key`, loaded by `load` if it is not there: one load, however many calls wait for it.
    ///
    /// The loader is polled by its callers, one at a time, and never by a pool of this crate. When the call that polls
    /// it is dropped, the loader passes to another that waits, and goes on from where it was; that is why it must be
    /// `'static`. When it panics, the panic is that call's, and the next starts its own loader. A value is stored as
    /// [`insert`](Cache::insert) would; an error is not stored, and everyone who waited gets it.
    ///
    /// A write to the key while it is loaded (an [`insert`](Cache::insert), a [`remove`](Cache::remove), a
    /// [`clear`](Cache::clear)) makes the load stale: those who wait still get its value, but it is not stored, and who
    /// asks later loads anew.
    ///
    /// ```
    /// use outgrow::cache::{Cache, LoadError};
    /// # futures::executor::block_on(async {
    /// let squares: Cache<u32, u32> = Cache::builder().capacity(100).build()?;
    /// let nine = squares.get_or_load(&3, |n| async move { Ok::<_, std::io::Error>(n * n) }).await?;
    /// assert_eq!((nine, squares.get(&3)), (9, Some(9)));
    ///
    /// let failed = squares.get_or_load(&7, |_| async { Err::<u32, _>("no luck") }).await;
    /// assert!(matches!(failed, Err(LoadError::Failed(error)) if *error == "no luck"));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the loader's error, shared by all who waited for that load;
    /// [`LoadError::Crowded`] when as many calls wait as [`max_waiting`](super::CacheBuilder::max_waiting) allows.
    ///
    /// # Panics
    /// When this call's turn at a loader panics.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its place. The last to go drops the loader with it. A future that was polled and
    /// is then neither polled again nor dropped holds up the others who wait for the same key, as with any async lock.
    pub async fn get_or_load<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        V: Send + Sync + 'static,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        match self.get(key) {
            Some(value) => Ok(value),
            None => self.load(key, Keep::Store, load).await,
        }
    }

    /// Joins or starts the load of `key`, which was not in the cache a moment ago.
    pub(super) async fn load<Q, F, Fut, E>(&self, key: &Q, keep: Keep, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        V: Send + Sync + 'static,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let mut load = Some(load);
        loop {
            let aboard = match self.inner.board(key)? {
                Found::Value(value) => return Ok(value),
                Found::Seat(aboard) => aboard,
            };
            let start = |load: &mut Option<F>| {
                let load = load.take().expect("a call starts its loader once, and ends with it");
                self.inner.counters.loads.add(1);
                load(key.to_owned()).map(erase).boxed()
            };
            let landed = poll_fn(|cx| {
                let land = |outcome: &Outcome<V>| self.inner.land(&aboard.flight, key, aboard.hash, keep, outcome);
                aboard.flight.poll(aboard.seat, cx, || start(&mut load), land)
            });
            let outcome = landed.await;
            drop(aboard);
            match Arc::try_unwrap(outcome).unwrap_or_else(|shared| Outcome::clone(&shared)) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if let Ok(error) = error.downcast() {
                        return Err(LoadError::Failed(error));
                    }
                    // Another call's loader failed with a type that this caller cannot be given: it tries its own.
                }
            }
        }
    }
}

/// Hides the type of a loader's error.
fn erase<V, E: Send + Sync + 'static>(loaded: Result<V, E>) -> Outcome<V> {
    loaded.map_err(|error| Arc::new(error) as _)
}

/// What becomes of a loaded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It goes into the cache.
    Store,
    /// Whoever loads sees to that.
    Leave,
}

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Finds a place in the flight for `key`, or starts one.
    fn board<'a, Q, E>(&'a self, key: &'a Q) -> Result<Found<'a, K, V, Q>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let Flights { table, waiting, limit } = &self.flights;
        if waiting.fetch_add(1, Ordering::Relaxed) >= *limit {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(LoadError::Crowded { limit: *limit });
        }
        let hash = self.hash(key);
        let aboard = |flight: Arc<Flight<V>>, seat| {
            Found::Seat(Aboard {
                inner: self,
                key,
                hash,
                flight,
                seat,
            })
        };
        if let Some(flight) = table.get(key).map(|flight| Arc::clone(&flight))
            && let Some(seat) = flight.board()
        {
            return Ok(aboard(flight, seat));
        }
        let mut entry = table.entry(key.to_owned());
        if let Entry::Occupied(occupied) = &mut entry {
            let flight = Arc::clone(occupied.get());
            if let Some(seat) = flight.board() {
                return Ok(aboard(flight, seat));
            }
            // Its last passenger is about to take it out of the table; it finds ours there and leaves it alone.
            let (flight, seat) = Flight::new();
            let flight = Arc::new(flight);
            occupied.insert(Arc::clone(&flight));
            drop(entry);
            return Ok(aboard(flight, seat));
        }
        let mut shard = self.shard(hash).write();
        // A load may have landed since this call missed; it landed under this lock.
        if let Some(value) = shard.peek(hash, key, |deadline| self.is_past(deadline)) {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Ok(Found::Value(value.clone()));
        }
        shard.loading += 1;
        drop(shard);
        let (flight, seat) = Flight::new();
        let flight = Arc::new(flight);
        entry.insert(Arc::clone(&flight));
        Ok(aboard(flight, seat))
    }

    /// Ends a flight: stores its value, unless the key was written in the meantime.
    fn land<Q>(&self, flight: &Arc<Flight<V>>, key: &Q, hash: u64, keep: Keep, outcome: &Outcome<V>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if outcome.is_err() {
            self.counters.load_errors.add(1);
        }
        let value = match (keep, outcome) {
            (Keep::Store, Ok(value)) => Some(value.clone()),
            _ => None,
        };
        let Entry::Occupied(entry) = self.flights.table.entry(key.to_owned()) else {
            return;
        };
        if !Arc::ptr_eq(entry.get(), flight) {
            return;
        }
        let mut shard = self.shard(hash).write();
        shard.loading -= 1;
        let gone = value.map(|value| self.put(&mut shard, hash, key.to_owned(), value, &InsertOptions::new()));
        drop(shard);
        entry.remove();
        drop(gone);
    }
}

use super::cache::Cache;
use super::flight::{Flight, Outcome, Seat};
use super::inner::{Inner, Standing};
use super::stats::Count;
use super::write::{Gone, Refused};
use super::{InsertOptions, LoadError, Rejected};
use crate::sync::{AtomicUsize, Ordering, pin};
use futures::FutureExt;
use hashbrown::Equivalent;
use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Makes everything that is being loaded stale.
    pub(super) fn detach_all(&self) {
        self.flights
            .take_all(|hash| self.shard(hash).lock().state().loading -= 1);
    }
}

/// What a call that missed finds when it looks again.
enum Boarded<'a, K: Hash + Eq, V, S: BuildHasher, Q: Equivalent<K> + ?Sized> {
    /// The value: a load landed in between.
    Value(V),
    /// A seat in the flight that loads it.
    Seat(Aboard<'a, K, V, S, Q>),
}

/// A seat, given up when dropped.
struct Aboard<'a, K: Hash + Eq, V, S: BuildHasher, Q: Equivalent<K> + ?Sized> {
    inner: &'a Inner<K, V, S>,
    key: &'a Q,
    hash: u64,
    flight: Arc<Flight<V>>,
    seat: Seat,
}

impl<K: Hash + Eq, V, S: BuildHasher, Q: Equivalent<K> + ?Sized> Drop for Aboard<'_, K, V, S, Q> {
    fn drop(&mut self) {
        let Inner { flights, .. } = self.inner;
        flights.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.flight.leave(self.seat) {
            let mut part = flights.hold(self.hash);
            let mine = part.remove(self.hash, self.key, |flight| Arc::ptr_eq(flight, &self.flight));
            if mine.is_some() {
                self.inner.shard(self.hash).lock().state().loading -= 1;
            }
            drop(part);
        }
    }
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Cache<K, V, S> {
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
                Boarded::Value(value) => return Ok(value),
                Boarded::Seat(aboard) => aboard,
            };
            let start = |load: &mut Option<F>| {
                let load = load.take().expect("a call starts its loader once, and ends with it");
                self.inner.counters.add(&pin(), Count::Loads, 1);
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

/// A call that is counted among those who wait, until this is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Inner<K, V, S> {
    /// Finds a place in the flight for `key`, or starts one.
    fn board<'a, Q, E>(&'a self, key: &'a Q) -> Result<Boarded<'a, K, V, S, Q>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let limit = self.flights.limit;
        let waits = Waits(&self.flights.waiting);
        if waits.0.fetch_add(1, Ordering::Relaxed) >= limit {
            return Err(LoadError::Crowded { limit });
        }
        let hash = self.hash(key);
        let aboard = |flight: Arc<Flight<V>>, seat| {
            // From here on its seat counts it.
            std::mem::forget(waits);
            Boarded::Seat(Aboard {
                inner: self,
                key,
                hash,
                flight,
                seat,
            })
        };
        let new_key = key.to_owned();
        let pin = pin();
        let mut part = self.flights.hold(hash);
        let known = part.get(hash, key).map(|flight| (Arc::clone(flight), flight.board()));
        if let Some((flight, Some(seat))) = known {
            return Ok(aboard(flight, seat));
        }
        // Its last passenger is about to take it out, and finds ours there, which it leaves alone.
        let abandoned = part.remove(hash, key, |_| true);
        let mut locked = self.shard(hash).lock();
        if abandoned.is_none() {
            // A load may have landed since this call missed; it landed under this lock.
            let found = self.peek(hash, key, &pin);
            let fresh = found.filter(|found| found.standing == Standing::Fresh);
            if let Some(value) = fresh.and_then(|found| found.entry.value()) {
                drop((locked, part));
                return Ok(Boarded::Value(value.clone()));
            }
            locked.state().loading += 1;
        }
        drop(locked);
        let (flight, seat) = Flight::new();
        let flight = Arc::new(flight);
        part.put(hash, new_key, Arc::clone(&flight));
        drop(part);
        drop(abandoned);
        Ok(aboard(flight, seat))
    }

    /// Ends a flight: stores its value, unless the key was written in the meantime.
    fn land<Q>(&self, flight: &Arc<Flight<V>>, key: &Q, hash: u64, keep: Keep, outcome: &Outcome<V>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let pin = pin();
        if outcome.is_err() {
            self.counters.add(&pin, Count::LoadErrors, 1);
        }
        let incoming = match (keep, outcome) {
            (Keep::Store, Ok(value)) => Some(self.incoming(key.to_owned(), Some(value.clone()), &InsertOptions::new())),
            _ => None,
        };
        let mut gone = Gone::new();
        let mut part = self.flights.hold(hash);
        let landed = part.remove(hash, key, |other| Arc::ptr_eq(other, flight));
        let mut refused = None;
        if landed.is_some() {
            self.shard(hash).lock().state().loading -= 1;
            let put = incoming.map(|incoming| self.put(incoming, |_, _| true, &pin, &mut gone));
            refused = put.and_then(Result::err);
        }
        drop(part);
        drop(landed);
        gone.tell(self.listener.as_ref());
        if let Some(Refused::NoSlot(incoming) | Refused::Condition(incoming)) = refused {
            // Whoever asks next loads it again.
            self.reject(incoming, Rejected::HeldBack);
        }
    }
}

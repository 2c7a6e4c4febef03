use super::look::{Ask, Look};
use crate::cache::flight::{Ended, Flight, Outcome, Seat, Start};
use crate::cache::inner::{Inner, Standing};
use crate::cache::stats::Count;
use crate::env::{Sleep, Tick};
use crate::sync::pins::Pin;
use crate::sync::{Ordering, pin};
use std::borrow::Borrow;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a call gets that asks.
pub(super) enum Boarded<K: Hash + Eq, V, S: BuildHasher> {
    /// An answer from the cache.
    Answer(Option<V>),
    /// An answer, and a seat in a flight that nobody else has started, to load it anew.
    Due {
        value: V,
        stale: bool,
        aboard: Aboard<K, V, S>,
    },
    /// A seat in the flight that loads it.
    Seat(Aboard<K, V, S>),
    /// Too many wait.
    Crowded { limit: usize },
}

/// A seat, given up when dropped.
pub(super) struct Aboard<K: Hash + Eq, V, S: BuildHasher> {
    pub(super) inner: Arc<Inner<K, V, S>>,
    pub(super) hash: u64,
    /// Whether this call is the flight's first.
    pub(super) is_first: bool,
    flight: Arc<Flight<V>>,
    seat: Seat,
    timer: Option<(Tick, Sleep)>,
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Aboard<K, V, S> {
    fn drop(&mut self) {
        self.inner.flights.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.flight.leave(self.seat) {
            self.inner.take_down(&self.flight, self.hash);
        }
    }
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Aboard<K, V, S> {
    /// Waits for the end of the flight, driving it if it is this call's turn: `start` makes a loader that is to be over at
    /// a time, and `key` the key to store what it yields under.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        ask: Ask,
        key: impl Fn() -> K,
        start: impl FnOnce(Option<Tick>) -> Start<V>,
    ) -> Poll<Arc<Outcome<V>>> {
        let Aboard {
            inner,
            hash,
            flight,
            seat,
            timer,
            ..
        } = self;
        let due = inner.load_due();
        let land = |ended: &Ended<V>| inner.land(flight, *hash, ask, &key, ended);
        if let Poll::Ready(outcome) = flight.poll(*seat, cx, due, || start(due), land) {
            return Poll::Ready(outcome);
        }
        let limit = inner.settings.load_timeout;
        let (Some(limit), Some(due)) = (limit, flight.due()) else {
            return Poll::Pending;
        };
        let armed = timer.take().filter(|(at, _)| *at == due);
        let (_, sleep) = timer.insert(armed.unwrap_or_else(|| (due, inner.time.env().sleep_until(due))));
        if Pinned::new(sleep).poll(cx).is_pending() {
            return Poll::Pending;
        }
        flight.expire(inner.time.read(), limit, land);
        let over = flight.poll_ended(*seat, cx);
        if over.is_pending() && flight.due().is_some_and(|now_due| now_due != due) {
            // Another loader was started meanwhile, and has a time of its own.
            cx.waker().wake_by_ref();
        }
        over
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// When a load that starts now has to be over.
    pub(super) fn load_due(&self) -> Option<Tick> {
        let limit = self.settings.load_timeout?;
        Some(self.time.read() + limit)
    }
}

/// Where a call finds itself that wants a seat.
enum Seating<K: Hash + Eq, V, S: BuildHasher> {
    Seat(Aboard<K, V, S>),
    /// What it saw in the cache is no longer what is there.
    Changed,
    /// It is being loaded, or not to be tried just now.
    Busy,
    Crowded,
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Inner<K, V, S> {
    /// Finds an answer in the cache, or a seat in the flight that loads it.
    pub(super) fn board<Q>(
        self: &Arc<Self>,
        hash: u64,
        key: &Q,
        ask: Ask,
        mut counts: bool,
        good: &impl Fn(&V) -> bool,
    ) -> Boarded<K, V, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        // While it is held no other entry takes a slot that was seen.
        let pin = pin();
        loop {
            let look = self.look(hash, key, ask, counts, good, &pin);
            counts = false;
            match look {
                Look::Answer(answer) => return Boarded::Answer(answer),
                Look::Due { value, slot, stale } => {
                    if let Seating::Seat(aboard) = self.seat(hash, key, Some(slot), false, &pin) {
                        return Boarded::Due { value, stale, aboard };
                    }
                    if stale {
                        self.counters.add(&pin, Count::StaleServed, 1);
                    }
                    return Boarded::Answer(Some(value));
                }
                Look::Missing(seen) => match self.seat(hash, key, seen, true, &pin) {
                    Seating::Seat(aboard) => return Boarded::Seat(aboard),
                    Seating::Crowded => {
                        let limit = self.flights.limit;
                        return Boarded::Crowded { limit };
                    }
                    Seating::Changed | Seating::Busy => {}
                },
            }
        }
    }

    /// Takes a seat in the flight for `key` if the call `joins` others, or in a new one.
    fn seat<Q>(self: &Arc<Self>, hash: u64, key: &Q, seen: Option<u32>, joins: bool, pin: &Pin) -> Seating<K, V, S>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let Some(waits) = Waits::begin(self) else {
            return Seating::Crowded;
        };
        let (new_key, due) = (key.to_owned(), self.load_due());
        let mut part = self.flights.hold(hash);
        if let Some(flight) = part.get(hash, key) {
            let seat = if joins { flight.board() } else { None };
            if let Some(seat) = seat {
                return Seating::Seat(waits.sit(hash, Arc::clone(flight), seat, false));
            }
            if !flight.is_abandoned() {
                return Seating::Busy;
            }
        }
        if !joins && part.pauses().is_paused(hash, self.time.read()) {
            return Seating::Busy;
        }
        let mut locked = self.shard(hash).lock();
        // A load may have landed since this call looked; it landed under this lock.
        let found = self.peek(hash, key, pin);
        let is_new = |slot| seen != Some(slot);
        if found.is_some_and(|found| found.standing != Standing::Gone && is_new(found.slot)) {
            return Seating::Changed;
        }
        // Its last passenger is about to take it out, and finds ours there, which it leaves alone.
        let abandoned = part.remove(hash, key, |_| true);
        if abandoned.is_none() {
            locked.state().loading += 1;
        }
        drop(locked);
        let (flight, seat) = Flight::new(due);
        let flight = Arc::new(flight);
        part.put(hash, new_key, Arc::clone(&flight));
        drop(part);
        drop(abandoned);
        Seating::Seat(waits.sit(hash, flight, seat, true))
    }
}

/// A call that is counted among those who wait, until it gives up or has a seat.
struct Waits<'a, K, V, S>(Option<&'a Arc<Inner<K, V, S>>>);

impl<'a, K: Hash + Eq, V, S: BuildHasher> Waits<'a, K, V, S> {
    fn begin(inner: &'a Arc<Inner<K, V, S>>) -> Option<Waits<'a, K, V, S>> {
        let before = inner.flights.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(Some(inner));
        (before < inner.flights.limit).then_some(waits)
    }

    /// It goes on counting until it is dropped.
    fn sit(mut self, hash: u64, flight: Arc<Flight<V>>, seat: Seat, is_first: bool) -> Aboard<K, V, S> {
        let inner = self.0.take().expect("a call that waits sits down once");
        Aboard {
            inner: Arc::clone(inner),
            hash,
            is_first,
            flight,
            seat,
            timer: None,
        }
    }
}

impl<K, V, S> Drop for Waits<'_, K, V, S> {
    fn drop(&mut self) {
        if let Some(inner) = self.0 {
            inner.flights.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

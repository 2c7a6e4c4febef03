use super::look::Ask;
use super::run::{Loader, Run, own_error};
use super::seat::{Aboard, Boarded};
use crate::cache::flight::{Failure, Outcome, Start};
use crate::cache::inner::Inner;
use crate::cache::stats::Count;
use crate::cache::{Cache, LoadError};
use crate::env::Tick;
use crate::sync::pin;
use hashbrown::Equivalent;
use std::borrow::Borrow;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// What is under `key` if it is `good`, else what `loader`, or the load under way, yields.
    pub(super) async fn ask<Q, L>(
        &self,
        key: &Q,
        ask: Ask,
        good: impl Fn(&V) -> bool,
        loader: L,
    ) -> Result<Option<V>, LoadError<L::Error>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        L: Loader<K, V>,
    {
        let hash = self.inner.hash(key);
        let boarded = match self.inner.board(hash, key, ask, ask.is_read, &good) {
            Boarded::Answer(answer) => return Ok(answer),
            boarded => boarded,
        };
        self.pursue(hash, key, ask, good, loader, boarded).await
    }

    /// Goes on from what a call found when it came.
    pub(super) async fn pursue<Q, L>(
        &self,
        hash: u64,
        key: &Q,
        ask: Ask,
        good: impl Fn(&V) -> bool,
        mut loader: L,
        mut boarded: Boarded<K, V, S>,
    ) -> Result<Option<V>, LoadError<L::Error>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        L: Loader<K, V>,
    {
        let inner = &self.inner;
        loop {
            let (aboard, present) = match boarded {
                Boarded::Answer(answer) => return Ok(answer),
                Boarded::Crowded { limit } => {
                    let spare = self.instead(hash, key, &good, None);
                    return spare.map(Some).ok_or(LoadError::Crowded { limit });
                }
                Boarded::Due { value, stale, aboard } => {
                    if L::IS_POLLED && inner.time.env().can_spawn_user() {
                        let run = Run::begin(inner, inner.load_due());
                        let clone = |key: &K| Borrow::<Q>::borrow(key).to_owned();
                        behind(aboard, ask, key.to_owned(), clone, loader.start(key.to_owned(), run));
                        self.count_stale(stale);
                        return Ok(Some(value));
                    }
                    (aboard, Some((value, stale)))
                }
                Boarded::Seat(aboard) => (aboard, None),
            };
            let start = |due| loader.start(key.to_owned(), Run::begin(inner, due));
            match ride(aboard, ask, || key.to_owned(), start).await {
                Ok(None) if !ask.absent => {} // Found by a call that may find none, and of no use to this one.
                Ok(value) => return Ok(value),
                Err(failure) => {
                    if let Some(error) = own_error(&failure) {
                        return self.instead(hash, key, &good, present).map(Some).ok_or(error);
                    }
                    // Another call's loader failed with a type that this caller cannot be given: it tries its own.
                }
            }
            boarded = inner.board(hash, key, ask, false, &good);
        }
    }

    /// What a call returns whose load has failed: what it had `present`, or what is there now.
    pub(super) fn instead<Q>(
        &self,
        hash: u64,
        key: &Q,
        good: &impl Fn(&V) -> bool,
        present: Option<(V, bool)>,
    ) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let Some((value, stale)) = present else {
            return self.inner.spare(hash, key, good, &pin());
        };
        self.count_stale(stale);
        Some(value)
    }

    fn count_stale(&self, stale: bool) {
        if stale {
            self.inner.counters.add(&pin(), Count::StaleServed, 1);
        }
    }
}

/// Waits in a flight until it has landed.
async fn ride<K, V, S>(
    mut aboard: Aboard<K, V, S>,
    ask: Ask,
    key: impl Fn() -> K,
    mut start: impl FnMut(Option<Tick>) -> Start<V>,
) -> Outcome<V>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    let outcome = poll_fn(|cx| aboard.poll(cx, ask, &key, &mut start)).await;
    drop(aboard);
    Arc::try_unwrap(outcome).unwrap_or_else(|shared| Outcome::clone(&shared))
}

/// Loads in the background, in a flight that has just begun.
fn behind<K, V, S>(aboard: Aboard<K, V, S>, ask: Ask, key: K, clone: fn(&K) -> K, start: Start<V>)
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    let env = aboard.inner.time.env().clone();
    let unsure = Unsure::new(&aboard);
    let mut start = Some(start);
    let task = env.spawn_user(async move {
        let start = |_| start.take().unwrap_or_else(|| Start::Done(Err(Failure::Lost)));
        let _landed: Outcome<V> = ride(aboard, ask, || clone(&key), start).await;
        unsure.end();
    });
    // Nobody waits for it: what it loads is found in the cache.
    task.expect("who loads in the background has seen that there is a runtime")
        .detach();
}

/// A load in the background. One that ends without landing has panicked, or its runtime has let it go; then its key is
/// paused as after an error.
pub(super) struct Unsure<K: Hash + Eq, V, S: BuildHasher> {
    inner: Arc<Inner<K, V, S>>,
    hash: u64,
    is_over: bool,
}

impl<K: Hash + Eq, V, S: BuildHasher> Unsure<K, V, S> {
    pub(super) fn new(aboard: &Aboard<K, V, S>) -> Unsure<K, V, S> {
        Unsure {
            inner: Arc::clone(&aboard.inner),
            hash: aboard.hash,
            is_over: false,
        }
    }

    pub(super) fn end(mut self) {
        self.is_over = true;
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Unsure<K, V, S> {
    fn drop(&mut self) {
        if !self.is_over {
            let (now, pause) = (self.inner.time.read(), self.inner.settings.refresh_pause);
            self.inner.flights.hold(self.hash).pauses().begin(self.hash, now, pause);
        }
    }
}

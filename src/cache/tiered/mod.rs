//! A cache in the process before a store that other processes write too, and what they tell each other.

mod builder;
mod ear;
mod front;
mod outbox;
mod stats;
mod talk;
#[cfg(test)]
mod tests;

pub use builder::TieredBuilder;
pub use stats::TieredStats;

use super::load::Keep;
use super::remember::{self, Looked};
use crate::store::{Batch, Capability, Effect, Entry, Error, Op, Receipt, Result, Scan, Store, is_reserved};
use bytes::Bytes;
use front::Front;
use futures::stream::BoxStream;
use std::fmt;
use std::sync::Arc;
use talk::Talking;

/// A [`Store`] of two tiers: a cache in this process before any store, kept true by an [`InvalidationBus`] over which
/// processes tell each other what they wrote. A clone is a handle to the same one.
///
/// For a store that has no [`Feed`](crate::store::Feed) and that several processes share, such as a `RedisStore`. Where
/// there is a feed, [`CachedStore`](super::CachedStore) needs no bus.
///
/// - A commit goes to the store below; then its keys are dropped here; then the others are told, which it waits for no
///   longer than a heartbeat. A commit that returned is seen by every read through this handle and its clones.
/// - Elsewhere it is seen as soon as the bus has delivered it. Each process hears its own heartbeats over the bus, and
///   uses its cache only as long after one was sent as [`heartbeat`](TieredBuilder::heartbeat) says: so a read from
///   memory has seen whatever the bus took longer ago than that, if the bus keeps its order. (Time for which the whole
///   machine was suspended does not count where its clock does not.)
/// - A bus that is silent for so long empties the cache, and reads go to the store below until it is heard again; so
///   does the end of a subscription. A gap in what another process said, and its silence without a goodbye (it may have
///   ended between a commit and its message), empties the cache too. [`stats`](Tiered::stats) tell of it all.
/// - What remains: a process that can write to the store but not reach the bus. The others have what it changed until
///   they notice its silence, and if it goes on like that, again until it is heard, or the entries'
///   [`ttl`](TieredBuilder::ttl) ends. It counts that as `unsent`.
/// - A read of the store below is kept only if no invalidation has overtaken it, and no longer than the entry has left
///   to live. The store below has to see its own commits: one that reads from copies that lag would bring old values
///   back. Reads of one key that miss at the same time are one read.
///
/// Single keys are remembered, those that do not exist too, for a short time. A [`scan`](Store::scan) goes to the store
/// below, as do reads of the crate's own keys.
///
/// ```
/// use outgrow::cache::{LocalBus, Tiered};
/// use outgrow::store::{LocalStore, StoreExt};
/// # futures::executor::block_on(async {
/// let (shared, bus) = (LocalStore::in_memory(), LocalBus::new());
/// let here = Tiered::builder(shared.clone()).bus(bus.clone()).capacity(100_000).build().await?;
/// let there = Tiered::builder(shared).bus(bus).build().await?;
/// here.put("7", "Ada").await?;
/// for _ in 0..2 {
///     assert_eq!(&here.read(b"7").await?.unwrap().value[..], b"Ada");
/// }
/// assert_eq!(here.stats().cache.hits, 1);
/// there.put("7", "Grace").await?;
/// # while here.stats().invalidations_heard == 0 { outgrow::env::Env::system().sleep(std::time::Duration::from_millis(1)).await }
/// assert_eq!(&here.read(b"7").await?.unwrap().value[..], b"Grace");
/// here.close().await;
/// there.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// [`InvalidationBus`]: super::InvalidationBus
pub struct Tiered<S> {
    shared: Arc<Shared<S>>,
    talking: Arc<Talking>,
}

struct Shared<S> {
    store: S,
    front: Arc<Front>,
}

impl<S: Store + 'static> Tiered<S> {
    /// Starts building a cache before `store`.
    pub fn builder(store: S) -> TieredBuilder<S> {
        TieredBuilder::new(store)
    }

    async fn start(store: S, front: Front) -> Tiered<S> {
        let front = Arc::new(front);
        let talking = Arc::new(Talking::start(&front));
        let tiered = Tiered {
            shared: Arc::new(Shared {
                store,
                front: Arc::clone(&front),
            }),
            talking,
        };
        // A bus that is not heard yet is one that reads go round.
        let _silent = front.env.timeout(front.limit, front.hearing()).await;
        tiered
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// What happened since it was built, and whether the bus is heard.
    #[must_use]
    pub fn stats(&self) -> TieredStats {
        self.shared.front.stats()
    }

    /// Drops every entry of this process; reads fill it again.
    pub fn clear(&self) {
        self.shared.front.clear();
    }

    /// Drops these keys here and elsewhere: for one who wrote them past every cache. Returns when others were told, or
    /// after a heartbeat without.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is closed and others would not be told.
    ///
    /// # Cancel safety
    /// Dropped halfway, others are told all the same.
    pub async fn invalidate(&self, keys: &[Bytes]) -> Result<()> {
        let told = self.shared.front.begin(keys.to_vec())?.wrote();
        self.told(told).await;
        Ok(())
    }

    /// Drops everything here and elsewhere, as [`invalidate`](Tiered::invalidate) does with keys.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is closed and others would not be told.
    ///
    /// # Cancel safety
    /// Dropped halfway, others are told all the same.
    pub async fn invalidate_all(&self) -> Result<()> {
        let writing = self.shared.front.begin(Vec::new())?;
        let told = self.shared.front.forget_all();
        drop(writing);
        self.told(Some(told)).await;
        Ok(())
    }

    /// Refuses more commits, waits for those under way and until others were told of them, says goodbye, and forgets
    /// everything. Reads go to the store below from then on.
    ///
    /// # Cancel safety
    /// Dropped halfway, more commits are refused all the same, and the rest follows when the last handle is dropped.
    pub async fn close(&self) {
        self.shared.front.finish_commits().await;
        self.talking.close().await;
    }

    async fn told(&self, place: Option<outbox::Place>) {
        if let Some(place) = place {
            self.shared.front.told(place).await;
        }
    }

    /// What is remembered of `key`, if anything is.
    fn remembered(&self, key: &[u8]) -> Option<Option<Entry>> {
        let front = &self.shared.front;
        remember::remembered(front.entries(), &front.env, key)
    }

    async fn load(&self, key: &[u8]) -> Result<Option<Entry>> {
        let shared = Arc::clone(&self.shared);
        let load = |key: Bytes| async move {
            let lease = shared.front.lease(&key);
            let found = shared.store.get(&key).await?;
            shared.front.keep(key, found.clone(), lease);
            Ok::<_, Error>(found)
        };
        let key = Bytes::copy_from_slice(key);
        let loaded = self.shared.front.entries().load(&key, Keep::Leave, load).await;
        loaded.map_err(remember::load_error)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + 'static> Store for Tiered<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let Shared { store, front } = &*self.shared;
        if !front.is_hearing() || is_reserved(key) {
            front.counters.bypassed.add(1);
            return store.get(key).await;
        }
        match self.remembered(key) {
            Some(found) => Ok(found),
            None => self.load(key).await,
        }
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let Shared { store, front } = &*self.shared;
        if !front.is_hearing() || keys.iter().any(|key| is_reserved(key)) {
            front.counters.bypassed.add(keys.len() as u64);
            return store.get_many(keys).await;
        }
        let looked = Looked::new(keys, |key| self.remembered(key));
        let leases: Vec<_> = looked.missing().iter().map(|key| front.lease(key)).collect();
        let read = match looked.missing() {
            [] => Vec::new(),
            missing => store.get_many(missing).await?,
        };
        looked.complete(read, |at, key, found| front.keep(key, found, leases[at]))
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.shared.store.scan(scan)
    }

    /// # Errors
    /// Those of the store below; and [`Error::Unavailable`] of no effect once it is closed, or its tasks are gone.
    ///
    /// # Cancel safety
    /// Dropped halfway, others are told of what it may have written all the same.
    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let keys = batch.ops().iter().map(Op::key).cloned().collect();
        let writing = self.shared.front.begin(keys)?;
        let result = self.shared.store.commit(batch).await;
        let nothing = matches!(&result, Err(error) if error.effect() == Effect::None);
        if nothing {
            writing.wrote_nothing();
        } else {
            self.told(writing.wrote()).await;
        }
        result
    }

    fn capability(&self) -> Capability {
        self.shared.store.capability()
    }
}

impl<S> Clone for Tiered<S> {
    fn clone(&self) -> Tiered<S> {
        Tiered {
            shared: Arc::clone(&self.shared),
            talking: Arc::clone(&self.talking),
        }
    }
}

impl<S> fmt::Debug for Tiered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered")
            .field("cache", self.shared.front.entries())
            .field("hearing", &self.shared.front.is_hearing())
            .finish_non_exhaustive()
    }
}

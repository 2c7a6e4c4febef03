//! A store that answers from memory: what it promises, and what follows the feed to keep the promise.

mod builder;
mod follow;
mod keeper;
mod session;
mod stats;
#[cfg(test)]
mod tests;

pub use builder::CachedStoreBuilder;
pub use session::CachedSession;
pub use stats::CachedStoreStats;

use super::load::Keep;
use super::remember::{self, Entries, Lifetimes, Looked};
use super::stripes::{Fate, Lease};
use crate::env::Env;
use crate::store::{
    Batch, Capability, Effect, Entry, Error, Feed, Op, Receipt, Result, Scan, Store, Token, Version, is_reserved,
};
use bytes::Bytes;
use follow::Following;
use futures::stream::BoxStream;
use keeper::Keeper;
use std::fmt;
use std::sync::Arc;

/// A [`Store`] that remembers what it read from the store below, and forgets it when it is written. A clone is a
/// handle to the same one.
///
/// - A commit that returned is seen by every read that begins afterwards: through this store, or, where the store
///   below calls followers before a commit returns ([`Feed::attach`]), through any handle to it in this process.
/// - A write made elsewhere is seen when the feed has told of it; [`stats`](CachedStore::stats) show the lag. A
///   [`session`](CachedStore::session) whose token is ahead of that reads from the store below.
/// - A read of the store below is kept only if no write has overtaken it, and never if it is older than the last write
///   known of its key: a copy that lags cannot bring back what was replaced.
/// - Reads of one key that miss at the same time are one read of the store below.
/// - When the feed breaks, everything is forgotten; until it is followed again, reads go to the store below.
///
/// Single keys are remembered, those that do not exist too, for a short time. A [`scan`](Store::scan) goes to the
/// store below. Its place is directly on the store whose feed it follows, under whatever only passes requests on.
///
/// ```
/// use outgrow::cache::CachedStore;
/// use outgrow::store::{LocalStore, StoreExt};
/// # futures::executor::block_on(async {
/// let users = CachedStore::builder(LocalStore::in_memory()).capacity(100_000).build().await?;
/// users.put("7", "Ada").await?;
/// for _ in 0..2 {
///     assert_eq!(&users.read(b"7").await?.unwrap().value[..], b"Ada");
/// }
/// assert_eq!(users.stats().cache.hits, 1);
/// users.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct CachedStore<S> {
    shared: Arc<Shared<S>>,
    following: Arc<Following>,
}

struct Shared<S> {
    store: S,
    env: Env,
    keeper: Arc<Keeper>,
    lifetimes: Lifetimes,
}

impl<S: Store + Feed + 'static> CachedStore<S> {
    /// Starts building a cache over `store`.
    pub fn builder(store: S) -> CachedStoreBuilder<S> {
        CachedStoreBuilder::new(store)
    }

    async fn start(store: S, env: Env, cache: Entries, lifetimes: Lifetimes) -> CachedStore<S> {
        let shared = Arc::new(Shared {
            store,
            env,
            keeper: Arc::new(Keeper::new(cache)),
            lifetimes,
        });
        let following = Arc::new(Following::start(&shared).await);
        CachedStore { shared, following }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// A view that sees at least what `token` names, and what it writes itself.
    ///
    /// # Errors
    /// [`Error::Full`] when the token has no room for the log of the store below.
    pub fn session(&self, token: Token) -> Result<CachedSession<S>> {
        CachedSession::new(self.clone(), token)
    }

    /// What happened since it was built, and how far behind the feed it is.
    #[must_use]
    pub fn stats(&self) -> CachedStoreStats {
        self.shared.keeper.stats(self.shared.store.position())
    }

    /// Drops every entry; reads fill it again.
    pub fn clear(&self) {
        // The versions that are known stay: they keep a lagging copy from bringing back what was replaced.
        self.shared.keeper.cache().clear();
    }

    /// Stops following the feed and forgets everything; reads go to the store below from then on.
    ///
    /// # Cancel safety
    /// Dropped halfway, it stops all the same. So it does when the last handle is dropped.
    pub async fn close(&self) {
        self.following.close().await;
    }

    /// Whether the cache may answer a reader that has seen `token`.
    fn has_seen(&self, token: &Token) -> bool {
        let needed = token.position(self.shared.store.log());
        needed.is_none_or(|needed| needed <= self.shared.keeper.followed())
    }

    /// What is remembered of `key`, if anything is.
    fn remembered(&self, key: &[u8]) -> Option<Option<Entry>> {
        remember::remembered(self.shared.keeper.cache(), &self.shared.env, key)
    }

    async fn load(&self, key: &[u8]) -> Result<Option<Entry>> {
        let shared = Arc::clone(&self.shared);
        let load = |key: Bytes| async move {
            let lease = shared.keeper.lease(&key);
            let found = shared.store.get(&key).await?;
            shared.keep(key, found.clone(), lease);
            Ok::<_, Error>(found)
        };
        let key = Bytes::copy_from_slice(key);
        let loaded = self.shared.keeper.cache().load(&key, Keep::Leave, load).await;
        loaded.map_err(remember::load_error)
    }
}

impl<S> Shared<S> {
    /// Keeps what a read found, for as long as it may be.
    fn keep(&self, key: Bytes, found: Option<Entry>, lease: Lease) {
        let ttl = self.lifetimes.of(found.as_ref(), self.env.wall());
        if !ttl.is_zero() && self.keeper.is_following() {
            self.keeper.fill(key, found, lease, ttl);
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + Feed + 'static> Store for CachedStore<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        if !self.shared.keeper.is_following() || is_reserved(key) {
            self.shared.keeper.counters.bypassed.add(1);
            return self.shared.store.get(key).await;
        }
        match self.remembered(key) {
            Some(found) => Ok(found),
            None => self.load(key).await,
        }
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let Shared { store, keeper, .. } = &*self.shared;
        if !keeper.is_following() || keys.iter().any(|key| is_reserved(key)) {
            keeper.counters.bypassed.add(keys.len() as u64);
            return store.get_many(keys).await;
        }
        let looked = Looked::new(keys, |key| self.remembered(key));
        let leases: Vec<_> = looked.missing().iter().map(|key| keeper.lease(key)).collect();
        let read = match looked.missing() {
            [] => Vec::new(),
            missing => store.get_many(missing).await?,
        };
        looked.complete(read, |at, key, found| self.shared.keep(key, found, leases[at]))
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.shared.store.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let mut writing = Writing::new(&self.shared.keeper, &batch);
        let result = self.shared.store.commit(batch).await;
        writing.outcome = match &result {
            Ok(receipt) => Wrote::At(receipt.version),
            Err(error) if error.effect() == Effect::None => Wrote::Nothing,
            Err(_) => Wrote::Perhaps,
        };
        drop(writing);
        result
    }

    fn capability(&self) -> Capability {
        self.shared.store.capability()
    }
}

/// A commit under way. When it ends, by being dropped too, what it may have written is forgotten.
struct Writing<'a> {
    keeper: &'a Keeper,
    keys: Vec<Bytes>,
    /// For each key, what its write says of it at a version.
    kinds: Vec<fn(Version) -> Fate>,
    outcome: Wrote,
}

enum Wrote {
    Nothing,
    Perhaps,
    At(Version),
}

impl<'a> Writing<'a> {
    fn new(keeper: &'a Keeper, batch: &Batch) -> Writing<'a> {
        let kind = |op: &Op| -> fn(Version) -> Fate {
            match op {
                Op::Put { .. } | Op::Add { .. } => Fate::Set,
                Op::Delete { .. } => Fate::Removed,
                // Its version is another store's.
                Op::Import { .. } => |_| Fate::Unknown,
            }
        };
        Writing {
            keeper,
            keys: batch.ops().iter().map(|op| op.key().clone()).collect(),
            kinds: batch.ops().iter().map(kind).collect(),
            outcome: Wrote::Perhaps,
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        match self.outcome {
            Wrote::Nothing => {}
            Wrote::Perhaps => self.keeper.wrote(&self.keys, self.kinds.iter().map(|_| Fate::Unknown)),
            Wrote::At(version) => self
                .keeper
                .wrote(&self.keys, self.kinds.iter().map(|kind| kind(version))),
        }
    }
}

impl<S> Clone for CachedStore<S> {
    fn clone(&self) -> CachedStore<S> {
        CachedStore {
            shared: Arc::clone(&self.shared),
            following: Arc::clone(&self.following),
        }
    }
}

impl<S> fmt::Debug for CachedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore")
            .field("cache", self.shared.keeper.cache())
            .field("following", &self.shared.keeper.is_following())
            .field("followed", &self.shared.keeper.followed())
            .finish_non_exhaustive()
    }
}

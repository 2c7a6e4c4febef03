use super::CachedStore;
use crate::cache::policy::EvictionPolicy;
use crate::cache::remember::{Lifetimes, weigh};
use crate::cache::{Cache, CacheBuilder, Error};
use crate::env::Env;
use crate::store::{Entry, Feed, Store};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// Builds a [`CachedStore`]; see each option for its default.
#[must_use]
pub struct CachedStoreBuilder<S> {
    store: S,
    cache: CacheBuilder<Bytes, Option<Entry>>,
    lifetimes: Lifetimes,
    env: Option<Env>,
}

impl<S: Store + Feed + 'static> CachedStoreBuilder<S> {
    pub(super) fn new(store: S) -> CachedStoreBuilder<S> {
        CachedStoreBuilder {
            store,
            cache: Cache::builder(),
            lifetimes: Lifetimes {
                ttl: Duration::from_secs(300),
                negative_ttl: Duration::from_secs(5),
            },
            env: None,
        }
    }

    /// The most keys it remembers, absent ones included. Default: 10,000.
    pub fn capacity(mut self, keys: usize) -> Self {
        self.cache = self.cache.capacity(keys);
        self
    }

    /// The most bytes that keys and values take together, beside what an entry costs in memory. Default: no limit.
    pub fn weight_capacity(mut self, bytes: u64) -> Self {
        self.cache = self.cache.weight_capacity(bytes).weigher(weigh);
        self
    }

    /// How long an entry is remembered at most, a millisecond at least; its own expiry cuts that short. Writes drop it at
    /// once, so this only bounds how long a mistake of the store below is repeated. Default: 5 minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.lifetimes.ttl = ttl;
        self
    }

    /// How long it is remembered that a key does not exist; zero for not at all. A write of the key ends it at once.
    /// Short, since absent keys are without number and crowd out those that exist. Default: 5 seconds.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.lifetimes.negative_ttl = ttl;
        self
    }

    /// Shortens each time to live by a random share of up to this much, 0 to 1. Default: 0.1.
    pub fn jitter(mut self, share: f64) -> Self {
        self.cache = self.cache.jitter(share);
        self
    }

    /// Which entries leave when it is full. Default: as for a [`Cache`].
    pub fn policy(mut self, policy: impl EvictionPolicy) -> Self {
        self.cache = self.cache.policy(policy);
        self
    }

    /// How many reads may wait for the store below at once; more fail with
    /// [`store::Error::Full`](crate::store::Error::Full). Default: 65,536.
    pub fn max_waiting(mut self, reads: usize) -> Self {
        self.cache = self.cache.max_waiting(reads);
        self
    }

    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Makes the store, and starts a task of the [`Env`] that follows the feed. It returns when that has begun, or has
    /// failed for the first time.
    ///
    /// # Errors
    /// [`Error::Option`] for an option outside its bounds, which it names.
    ///
    /// # Cancel safety
    /// Dropped halfway, it stops what it has started.
    pub async fn build(self) -> Result<CachedStore<S>, Error> {
        let env = self.env.unwrap_or_default();
        let cache = self.cache.ttl(self.lifetimes.ttl).env(env.clone());
        Ok(CachedStore::start(self.store, env, cache.build()?, self.lifetimes).await)
    }
}

impl<S> fmt::Debug for CachedStoreBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStoreBuilder")
            .field("cache", &self.cache)
            .field("lifetimes", &self.lifetimes)
            .finish_non_exhaustive()
    }
}

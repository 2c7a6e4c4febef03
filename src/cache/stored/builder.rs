use super::CachedStore;
use crate::cache::remember::Lifetimes;
use crate::cache::{Cache, Error, Policy};
use crate::env::Env;
use crate::store::{Feed, Store};
use std::fmt;
use std::time::Duration;

/// Builds a [`CachedStore`]; see each option for its default.
#[must_use]
pub struct CachedStoreBuilder<S> {
    store: S,
    capacity: usize,
    jitter: f64,
    policy: Policy,
    max_waiting: usize,
    lifetimes: Lifetimes,
    env: Option<Env>,
}

impl<S: Store + Feed + 'static> CachedStoreBuilder<S> {
    pub(super) fn new(store: S) -> CachedStoreBuilder<S> {
        CachedStoreBuilder {
            store,
            capacity: 10_000,
            jitter: 0.1,
            policy: Policy::default(),
            max_waiting: 1 << 16,
            lifetimes: Lifetimes {
                ttl: Duration::from_secs(300),
                negative_ttl: Duration::from_secs(5),
            },
            env: None,
        }
    }

    /// The most keys it remembers, absent ones included. Default: 10,000.
    pub fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys;
        self
    }

    /// How long an entry is remembered at most, longer than zero; its own expiry cuts that short. Writes drop it at
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
        self.jitter = share;
        self
    }

    /// Which entries leave when it is full. Default: [`Policy::S3Fifo`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How many reads may wait for the store below at once; more fail with
    /// [`store::Error::Full`](crate::store::Error::Full). Default: 65,536.
    pub fn max_waiting(mut self, reads: usize) -> Self {
        self.max_waiting = reads;
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
        let cache = Cache::builder()
            .capacity(self.capacity)
            .ttl(self.lifetimes.ttl)
            .jitter(self.jitter)
            .policy(self.policy)
            .max_waiting(self.max_waiting)
            .env(env.clone());
        Ok(CachedStore::start(self.store, env, cache.build()?, self.lifetimes).await)
    }
}

impl<S> fmt::Debug for CachedStoreBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStoreBuilder")
            .field("capacity", &self.capacity)
            .field("policy", &self.policy)
            .field("config", &self.lifetimes)
            .finish_non_exhaustive()
    }
}

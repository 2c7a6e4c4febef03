use super::Tiered;
use super::front::Front;
use crate::cache::bus::{ErasedBus, InvalidationBus, LocalBus};
use crate::cache::policy::EvictionPolicy;
use crate::cache::remember::{Lifetimes, weigh};
use crate::cache::{Cache, CacheBuilder, Error};
use crate::env::Env;
use crate::store::{Entry, Store};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// Builds a [`Tiered`]; see each option for its default.
#[must_use]
pub struct TieredBuilder<S> {
    store: S,
    bus: Box<dyn ErasedBus>,
    cache: CacheBuilder<Bytes, Option<Entry>>,
    heartbeat: Duration,
    lifetimes: Lifetimes,
    env: Option<Env>,
}

impl<S: Store + 'static> TieredBuilder<S> {
    pub(super) fn new(store: S) -> TieredBuilder<S> {
        TieredBuilder {
            store,
            bus: Box::new(LocalBus::new()),
            cache: Cache::builder(),
            heartbeat: Duration::from_secs(1),
            lifetimes: Lifetimes {
                ttl: Duration::from_secs(300),
                negative_ttl: Duration::from_secs(5),
            },
            env: None,
        }
    }

    /// How caches tell each other what was written: the same bus for all that stand before one store. Default: a
    /// [`LocalBus`] of its own, which is enough where nobody else writes to the store.
    pub fn bus(mut self, bus: impl InvalidationBus + 'static) -> Self {
        self.bus = Box::new(bus);
        self
    }

    /// How long the bus may be silent. Three heartbeats are sent in that time; without one that came back, the cache
    /// is emptied, and reads go to the store below until the bus is heard again. Longer than zero. A message that
    /// others published longer ago than this has been heard, or the cache is not used. Default: 1 second.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
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

    /// How long an entry is remembered at most, a millisecond at least; its own expiry cuts that short. It bounds how old a
    /// read may be where the bus failed in a way that nobody noticed. Default: 5 minutes.
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

    /// Shortens each time to live by a random share of up to this much, 0 to 1, so that processes that read an entry
    /// together do not read it again together. Default: 0.1.
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

    /// Makes the store, and starts two tasks of the [`Env`], one that listens to the bus and one that speaks. It
    /// returns when the bus was heard, or after [`heartbeat`](TieredBuilder::heartbeat) without.
    ///
    /// # Errors
    /// [`Error::Option`] for an option outside its bounds, which it names.
    ///
    /// # Cancel safety
    /// Dropped halfway, it stops what it has started.
    pub async fn build(self) -> Result<Tiered<S>, Error> {
        if self.heartbeat.is_zero() {
            return Err(Error::Option {
                option: "heartbeat",
                why: "no bus can be heard within no time".into(),
            });
        }
        let env = self.env.unwrap_or_default();
        let cache = self.cache.ttl(self.lifetimes.ttl).env(env.clone());
        let front = Front::new(env, self.bus, self.heartbeat, cache.build()?, self.lifetimes);
        Ok(Tiered::start(self.store, front).await)
    }
}

impl<S> fmt::Debug for TieredBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredBuilder")
            .field("cache", &self.cache)
            .field("heartbeat", &self.heartbeat)
            .field("lifetimes", &self.lifetimes)
            .finish_non_exhaustive()
    }
}

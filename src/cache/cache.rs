use super::builder::{CacheBuilder, Settings};
use super::load::Flights;
use super::shard::{Gone, Shard};
use super::stats::{CacheStats, Counters};
use crate::env::{Env, Rng, Tick};
use crate::hash::KeyedHash;
use crate::sync::{CachePadded, Mutex, RwLock};
use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// How far the coarse clock may be behind: two ticks of a kernel that ticks a hundred times a second, the slowest
/// that Linux is built with. Nearer to a deadline than this the exact clock decides.
const COARSE_LAG: Duration = Duration::from_millis(20);

/// A bounded map in memory that gives up what is least likely to be asked for again. A clone is a handle to the same
/// cache.
///
/// It never holds more than its capacity, whatever threads do; an [`insert`](Cache::insert) into a full one makes
/// room before it returns. Keys are spread over up to 64 shards by a hash with a secret of this instance, each with an
/// equal part of the capacity; below 512 entries there is one shard, and the policy's choice is exact.
///
/// What expires is never returned after its time. Its memory is freed by later writes, two expired entries each,
/// soonest first; there is no background thread. Where nothing has a time to live no clock is read.
///
/// A hit hashes the key (SipHash-1-3), takes its shard's lock, for reading only with [`Policy::S3Fifo`](super::Policy::S3Fifo), and clones
/// the value under it: make `V` cheap to clone, an `Arc` say. By its layout an entry takes `size_of::<(K, V)>()` and
/// about 65 bytes more, 100 with [`Policy::Lru`](super::Policy::Lru), and 25 on top where it expires; up to twice that
/// just after its vectors have doubled.
///
/// ```
/// use outgrow::cache::Cache;
/// # fn main() -> Result<(), outgrow::cache::Error> {
/// let cache: Cache<String, u32> = Cache::builder().capacity(1_000).build()?;
/// cache.insert("seven".into(), 7);
/// assert_eq!(cache.get("seven"), Some(7));
/// assert_eq!(cache.remove("seven"), Some(7));
/// assert!(cache.is_empty());
/// # Ok(()) }
/// ```
pub struct Cache<K, V> {
    pub(super) inner: Arc<Inner<K, V>>,
}

pub(super) struct Inner<K, V> {
    env: Env,
    hash: KeyedHash,
    settings: Settings,
    shards: Box<[Place<K, V>]>,
    pub(super) flights: Flights<K, V>,
    pub(super) counters: Counters,
    /// Draws the jitter.
    rng: Mutex<Rng>,
}

/// A shard behind its lock, on cache lines of its own.
type Place<K, V> = CachePadded<RwLock<Shard<K, V>>>;

/// What one insert does differently from the others; see [`Cache::insert_with`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct InsertOptions {
    ttl: Option<Duration>,
}

impl InsertOptions {
    /// As the cache was built.
    pub fn new() -> InsertOptions {
        InsertOptions::default()
    }

    /// Expires after `ttl`, less the cache's jitter, instead of the cache's own time to live. Zero does not keep the
    /// value, and removes the one that was there.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// Starts building a cache.
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }

    pub(super) fn new(env: Env, settings: Settings) -> Cache<K, V> {
        let mut rng = env.rng("cache");
        let hash = KeyedHash::new(rng.next_u64(), rng.next_u64());
        let shard = |capacity| CachePadded::new(RwLock::new(Shard::new(capacity, settings.policy)));
        let inner = Inner {
            shards: settings.shard_capacities().map(shard).collect(),
            flights: Flights::new(hash, settings.max_waiting),
            counters: Counters::default(),
            rng: Mutex::new(rng),
            env,
            hash,
            settings,
        };
        Cache { inner: Arc::new(inner) }
    }

    /// A clone of the value under `key`, if it is there and has not expired.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &*self.inner;
        let hash = inner.hash(key);
        let shard = inner.shard(hash);
        let value = if inner.settings.policy.locks_on_hit() {
            let mut shard = shard.write();
            shard.get_mut(hash, key, |deadline| inner.is_past(deadline)).cloned()
        } else {
            shard.read().get(hash, key, |deadline| inner.is_past(deadline)).cloned()
        };
        let counters = &inner.counters;
        let counter = if value.is_some() {
            &counters.hits
        } else {
            &counters.misses
        };
        counter.add(1);
        value
    }

    /// Whether `key` is there and has not expired. Not counted, and no hit to the policy.
    #[must_use]
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hash(key);
        let shard = self.inner.shard(hash).read();
        shard.peek(hash, key, |deadline| self.inner.is_past(deadline)).is_some()
    }

    /// Puts `value` under `key` and returns the value it replaces, if there was one that had not expired.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.insert_with(key, value, InsertOptions::new())
    }

    /// As [`insert`](Cache::insert), with options of its own.
    ///
    /// ```
    /// use outgrow::cache::{Cache, InsertOptions};
    /// use std::time::Duration;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, &str> = Cache::builder().build()?;
    /// cache.insert_with(7, "soon gone", InsertOptions::new().ttl(Duration::from_secs(30)));
    /// assert!(cache.contains(&7));
    /// cache.insert_with(7, "gone at once", InsertOptions::new().ttl(Duration::ZERO));
    /// assert!(!cache.contains(&7));
    /// # Ok(()) }
    /// ```
    #[allow(clippy::needless_pass_by_value, reason = "options are built in the call")]
    pub fn insert_with(&self, key: K, value: V, options: InsertOptions) -> Option<V> {
        let inner = &*self.inner;
        let hash = inner.hash(&key);
        let mut shard = inner.shard(hash).write();
        if shard.loading > 0 {
            drop(shard);
            inner.detach(hash, &key);
            shard = inner.shard(hash).write();
        }
        let gone = inner.put(&mut shard, hash, key, value, &options);
        drop(shard);
        gone.old.map(|(_, value)| value)
    }

    /// Takes out what is under `key`, and returns it unless it had expired. What is being loaded for `key` will not be
    /// stored.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &*self.inner;
        let hash = inner.hash(key);
        let mut shard = inner.shard(hash).write();
        if shard.loading > 0 {
            drop(shard);
            inner.detach(hash, key);
            shard = inner.shard(hash).write();
        }
        let now = inner.now_for(&shard, None);
        let gone = shard.remove(hash, key, now);
        drop(shard);
        inner.counters.count(&gone);
        gone.old.map(|(_, value)| value)
    }

    /// Takes out everything. What is being loaded will not be stored. An insert at the same time may survive.
    pub fn clear(&self) {
        self.inner.detach_all();
        for shard in &self.inner.shards {
            let all = shard.write().take_all();
            drop(all);
        }
    }

    /// The hash of a key in this cache.
    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.inner.hash(key)
    }

    /// Puts `value` under `key` if nothing is there. Loads for `key` go on.
    pub(super) fn fill(&self, key: K, value: V, options: &InsertOptions) {
        let inner = &*self.inner;
        let hash = inner.hash(&key);
        let mut shard = inner.shard(hash).write();
        let gone = match shard.peek(hash, &key, |deadline| inner.is_past(deadline)) {
            Some(_) => None,
            None => Some(inner.put(&mut shard, hash, key, value, options)),
        };
        drop(shard);
        drop(gone);
    }

    /// Takes out what is under `key`, whose [`hash`](Cache::hash) is known, if it is `stale`, and makes its load stale as
    /// [`remove`](Cache::remove) does.
    pub(super) fn remove_if<Q>(&self, hash: u64, key: &Q, stale: impl Fn(&V) -> bool)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &*self.inner;
        let place = inner.shard(hash);
        if place.read().loading > 0 {
            inner.detach(hash, key);
        }
        let is_stale = |shard: &Shard<K, V>| shard.peek(hash, key, |_| false).is_some_and(&stale);
        if !is_stale(&place.read()) {
            return;
        }
        let mut shard = place.write();
        if is_stale(&shard) {
            let now = inner.now_for(&shard, None);
            let gone = shard.remove(hash, key, now);
            drop(shard);
            inner.counters.count(&gone);
        }
    }
}

impl<K, V> Cache<K, V> {
    /// How many entries it holds, expired ones that no write has freed yet included. Never more than the capacity.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// True when it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.shards.iter().all(|shard| shard.read().len() == 0)
    }

    /// The most entries it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.settings.capacity
    }

    /// What happened since it was built.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.inner.counters.stats(self.len(), self.capacity())
    }
}

impl<K, V> Inner<K, V> {
    #[inline]
    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hash.hash_value(key)
    }

    /// The shard of a hash: by bits that a shard's own table does not use first.
    #[inline]
    pub(super) fn shard(&self, hash: u64) -> &RwLock<Shard<K, V>> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }

    /// How many loads the shards know of.
    #[cfg(test)]
    pub(super) fn loading(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().loading).sum()
    }

    /// Whether `deadline` has come: the coarse clock answers unless it is too near to tell.
    #[inline]
    pub(super) fn is_past(&self, deadline: Tick) -> bool {
        let coarse = self.env.coarse();
        deadline <= coarse || (deadline <= coarse + COARSE_LAG && deadline <= self.env.now())
    }

    /// The time, for a write that needs it: one with a time to live, or to a shard that has entries with one.
    fn now_for(&self, shard: &Shard<K, V>, ttl: Option<Duration>) -> Tick {
        if ttl.is_some() || shard.has_dated() {
            self.env.now()
        } else {
            Tick::ZERO
        }
    }

    /// What is left of `ttl` after the jitter.
    fn jittered(&self, ttl: Duration) -> Duration {
        if self.settings.jitter == 0.0 {
            return ttl;
        }
        let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let cut = nanos as f64 * self.settings.jitter * self.rng.lock().unit();
        Duration::from_nanos(nanos.saturating_sub(cut as u64))
    }
}

impl<K: Eq, V> Inner<K, V> {
    /// Puts an entry into its shard, dated and counted.
    pub(super) fn put(
        &self,
        shard: &mut Shard<K, V>,
        hash: u64,
        key: K,
        value: V,
        options: &InsertOptions,
    ) -> Gone<K, V> {
        let ttl = options.ttl.or(self.settings.ttl).map(|ttl| self.jittered(ttl));
        let now = self.now_for(shard, ttl);
        let deadline = ttl.map_or(Tick::MAX, |ttl| now + ttl);
        let gone = shard.insert(hash, key, value, deadline, now);
        self.counters.inserts.add(1);
        self.counters.count(&gone);
        gone
    }
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Cache<K, V> {
        Cache {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("policy", &self.inner.settings.policy)
            .finish_non_exhaustive()
    }
}

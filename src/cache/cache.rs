use super::InsertOptions;
use super::builder::{CacheBuilder, Parts};
use super::hasher::DefaultHash;
use super::inner::{Inner, Standing};
use super::pinned::Pinned;
use super::removal::{Inserted, Removal};
use super::shard::Shard;
use super::stats::CacheStats;
use super::write::Gone;
use crate::sync::{Ordering, pin};
use hashbrown::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// A bounded map in memory that gives up what is least likely to be asked for again. A clone is a handle to the same
/// cache.
///
/// It never holds more than its capacity, in count and in weight, whatever threads do: a write makes room before it
/// puts anything in. Keys are spread over up to 64 shards by a hash with a secret of this instance; the capacity is
/// common to all shards, and a cache of fewer than 8,192 entries has one.
///
/// **A hit** takes no lock and writes to no memory that threads share, but for a mark of the entry until the policy has
/// seen it a few times (three with the default one). It costs a hash, a pin (about 5 ns; [`pin`](Cache::pin) takes one for
/// many reads), and two or three cache lines. [`get`](Cache::get) clones the value; [`with`](Cache::with) and
/// [`pin`](Cache::pin) lend it. No clock is read for an entry that does not expire.
///
/// **A write** takes the lock of one shard, and at most one more at a time while it looks for room.
///
/// **What expires** is never returned after its time. It is freed by later writes, up to eight entries each, soonest
/// first, and by [`tidy`](Cache::tidy); no thread runs in the background.
///
/// **What has left** is dropped when no reader can have it any more: by the call that removes it if nobody reads, else
/// by later writes. So much of it is held back at most: up to 64 entries in a shard, and 512 and an eighth of its entries
/// while a pin is held for long; then inserts wait for up to a second, and are [rejected](super::Rejected::HeldBack).
///
/// Memory: `size_of::<(K, V)>()` and about 24 bytes for each entry, 4 more where it expires, 8 more in a cache with a
/// weight limit; 10 KiB for an empty cache.
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
pub struct Cache<K, V, S = DefaultHash> {
    pub(super) inner: Arc<Inner<K, V, S>>,
}

impl<K, V> Cache<K, V> {
    /// Starts building a cache.
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    pub(super) fn new(parts: Parts<K, V, S>) -> Cache<K, V, S> {
        Cache {
            inner: Arc::new(Inner::new(parts)),
        }
    }

    /// A clone of the value under `key`, if it is there and has not expired.
    ///
    /// ```
    /// use outgrow::cache::{Cache, Equivalent};
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// // A key of two parts is looked up by borrowed parts, without an allocation.
    /// #[derive(Hash)]
    /// struct Part<'a>(&'a str, u32);
    /// impl Equivalent<(String, u32)> for Part<'_> {
    ///     fn equivalent(&self, key: &(String, u32)) -> bool {
    ///         self.0 == key.0 && self.1 == key.1
    ///     }
    /// }
    /// let cache: Cache<(String, u32), u32> = Cache::builder().build()?;
    /// cache.insert(("org".into(), 7), 1);
    /// assert_eq!(cache.get(&Part("org", 7)), Some(1));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let inner = &*self.inner;
        inner.get(inner.hash(key), key, &pin()).cloned()
    }

    /// What `look` makes of the value under `key`, if it is there and has not expired. Nothing is cloned. While `look`
    /// runs no memory of entries that have left is freed; it may use the cache.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let names: Cache<u32, String> = Cache::builder().build()?;
    /// names.insert(7, "Ada".into());
    /// assert_eq!(names.with(&7, |name| name.len()), Some(3));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn with<Q, R>(&self, key: &Q, look: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let inner = &*self.inner;
        inner.get(inner.hash(key), key, &pin()).map(look)
    }

    /// Pins this thread for several reads, which are cheaper together and lend their values.
    ///
    /// The guard stays on its thread. While it lives, no memory of entries that have left is freed, in any cache of this
    /// process; drop it soon.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let names: Cache<u32, String> = Cache::builder().build()?;
    /// names.insert(7, "Ada".into());
    /// let pinned = names.pin();
    /// assert_eq!(pinned.get(&7).map(String::as_str), Some("Ada"));
    /// # Ok(()) }
    /// ```
    ///
    /// It can be used between the awaits of a task that moves between threads, and cannot be kept over one:
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// fn spawned<T: Send>(_: T) {}
    /// let names: Cache<u32, String> = Cache::builder().build().unwrap();
    /// spawned(async move {
    ///     let pinned = names.pin();
    ///     drop(pinned);
    ///     std::future::ready(()).await;
    /// });
    /// ```
    ///
    /// ```compile_fail
    /// # use outgrow::cache::Cache;
    /// fn spawned<T: Send>(_: T) {}
    /// let names: Cache<u32, String> = Cache::builder().build().unwrap();
    /// spawned(async move {
    ///     let pinned = names.pin();
    ///     std::future::ready(()).await;
    ///     drop(pinned);
    /// });
    /// ```
    #[inline]
    pub fn pin(&self) -> Pinned<'_, K, V, S> {
        Pinned::new(&self.inner)
    }

    /// Whether `key` is there and has not expired. Not counted, and no hit to the policy.
    #[must_use]
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let pin = pin();
        let found = self.inner.peek(self.inner.hash(key), key, &pin);
        found.is_some_and(|found| found.standing == Standing::Fresh)
    }

    /// Puts `value` under `key`, and says what became of it. What is being loaded for `key` will not be stored.
    ///
    /// An entry that is rejected is not in, nor is what was under its key.
    pub fn insert(&self, key: K, value: V) -> Inserted {
        self.inner.insert(key, value)
    }

    /// As [`insert`](Cache::insert), with options of its own.
    ///
    /// ```
    /// use outgrow::cache::{Cache, Inserted, InsertOptions, Rejected};
    /// use std::time::Duration;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, &str> = Cache::builder().build()?;
    /// cache.insert_with(7, "soon gone", InsertOptions::new().ttl(Duration::from_secs(30)).tag("org:7"));
    /// assert!(cache.contains(&7));
    /// let inserted = cache.insert_with(7, "gone at once", InsertOptions::new().ttl(Duration::ZERO));
    /// assert_eq!(inserted, Inserted::Rejected(Rejected::Expired));
    /// assert!(!cache.contains(&7));
    /// # Ok(()) }
    /// ```
    #[allow(clippy::needless_pass_by_value, reason = "options are built in the call")]
    pub fn insert_with(&self, key: K, value: V, options: InsertOptions) -> Inserted {
        self.inner.insert_with(key, value, &options)
    }

    /// Takes out what is under `key`, and returns a clone of it unless it had expired. What is being loaded for `key`
    /// will not be stored.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let hash = self.inner.hash(key);
        self.inner.remove_where(hash, key, |_| true, V::clone)
    }

    /// Takes out what is under `key`; true if there was anything that had not expired. As [`remove`](Cache::remove),
    /// without a clone.
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.inner.hash(key);
        self.inner.remove_where(hash, key, |_| true, |_| ()).is_some()
    }

    /// Ends everything that carries `tag`: from the return of this call on, no read on any thread returns it. Costs the
    /// same however many entries there are. They are freed by later writes, up to eight each, and by
    /// [`tidy`](Cache::tidy); until then they count. What is being loaded is not affected.
    ///
    /// ```
    /// # use outgrow::cache::{Cache, InsertOptions};
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let users: Cache<u32, &str> = Cache::builder().build()?;
    /// users.insert_with(7, "Ada", InsertOptions::new().tag("org:1").tag("admins"));
    /// users.insert_with(8, "Bob", InsertOptions::new().tag("org:2"));
    /// users.invalidate_tag("org:1");
    /// assert_eq!((users.get(&7), users.get(&8)), (None, Some("Bob")));
    /// # Ok(()) }
    /// ```
    pub fn invalidate_tag(&self, tag: &str) {
        if self.inner.tags.invalidate(tag) {
            self.inner.tag_ends.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes out every entry for which `keep` says no. Looks at each entry once, without a lock; what is put in meanwhile
    /// may not be looked at. What is being loaded is not affected.
    pub fn retain(&self, keep: impl Fn(&K, &V) -> bool) {
        for shard in &self.inner.shards {
            self.retain_in(shard, &keep);
        }
    }

    /// Takes out everything. What is being loaded will not be stored. An insert at the same time may survive. Takes a
    /// time that grows with the number of entries, a shard after the other.
    pub fn clear(&self) {
        self.inner.detach_all();
        for shard in &self.inner.shards {
            self.retain_in(shard, &|_, _| false);
            self.inner.free_all(shard);
        }
        let inner = &*self.inner;
        for (shard, slots) in inner.shards.iter().zip(Shard::fresh_slots(&inner.shards)) {
            shard.lock().exchange(slots);
        }
    }

    /// As [`retain`](Cache::retain), in one shard.
    fn retain_in(&self, shard: &Shard<K, V>, keep: &impl Fn(&K, &V) -> bool) {
        let mut layout = shard.lock().layout();
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.retain_some(shard, from, keep);
            // Entries that were given other slots meanwhile may have passed those still to be looked at.
            let was = std::mem::replace(&mut layout, shard.lock().layout());
            if was != layout {
                next = Some(0);
            }
        }
        self.inner.free_now(shard);
    }

    /// The entries from slot `from` on that `keep` says no to leave, some at a time, so that neither a lock nor a pin is
    /// held for long. Returns where to go on.
    fn retain_some(&self, shard: &Shard<K, V>, from: u32, keep: &impl Fn(&K, &V) -> bool) -> Option<u32> {
        const SOME: u32 = 256;
        let inner = &*self.inner;
        let pin = pin();
        let mut gone = Gone::new();
        let end = shard.lock().used(&pin);
        let to = from.saturating_add(SOME).min(end);
        for slot in from..to {
            let Some(entry) = shard.at(slot, &pin) else { continue };
            if entry.value().is_some_and(|value| keep(entry.key(), value)) {
                continue;
            }
            let mut locked = shard.lock();
            // The pin keeps the slot from being used for another entry in between.
            if shard.at(slot, &pin).is_some() {
                let size = inner.take_out(&mut locked, slot, Removal::Invalidated, &pin, &mut gone);
                inner.budget.give(size);
            }
        }
        gone.tell(inner.listener.as_ref());
        inner.free_some(shard, SOME as usize);
        (to < end).then_some(to)
    }

    /// Frees what has expired, what carries a tag that has ended, and what has left and no reader has any more. Writes do
    /// so a little at a time; this does it at once, for a cache that is idle.
    pub fn tidy(&self) {
        let inner = &*self.inner;
        for shard in &inner.shards {
            while inner.tidy_some(shard) {}
            inner.free_now(shard);
        }
        inner.shrink_shards();
    }

    /// The hash of a key in this cache.
    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.inner.hash(key)
    }

    /// Puts `value` under `key` if nothing is there. Loads for `key` go on.
    pub(super) fn fill(&self, key: K, value: V, options: &InsertOptions) {
        // What is not kept is asked for again.
        self.inner.fill(self.inner.incoming(key, Some(value), options));
    }

    /// Takes out what is under `key`, whose [`hash`](Cache::hash) is known, if it is `stale`, and makes its load stale as
    /// [`remove`](Cache::remove) does.
    pub(super) fn remove_if<Q>(&self, hash: u64, key: &Q, stale: impl Fn(&V) -> bool)
    where
        Q: Equivalent<K> + ?Sized,
    {
        let inner = &*self.inner;
        let has_work = {
            let pin = pin();
            let found = inner.peek(hash, key, &pin);
            let is_stale = found.is_some_and(|found| found.entry.value().is_some_and(&stale));
            is_stale || inner.shard(hash).lock().state().loading > 0
        };
        if has_work {
            inner.remove_where(hash, key, |entry| entry.value().is_some_and(&stale), |_| ());
        }
    }
}

impl<K, V, S> Cache<K, V, S> {
    /// How many entries it holds, expired ones that no write has freed yet included. Never more than the capacity.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.budget.used().count as usize
    }

    /// True when it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its entries weigh together; zero where weight has no limit.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.inner.budget.used().weight
    }

    /// The most entries it holds; `usize::MAX` where only weight is limited.
    #[must_use]
    pub fn capacity(&self) -> usize {
        usize::try_from(self.inner.budget.limit().count).unwrap_or(usize::MAX)
    }

    /// What happened since it was built.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.inner.stats()
    }
}

impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Cache<K, V, S> {
        Cache {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("len", &self.len())
            .field("capacity", &self.inner.budget.limit())
            .finish_non_exhaustive()
    }
}

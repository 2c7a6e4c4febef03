//! Caches that change their size while they are used.

use super::cache::Cache;
use super::inner::Inner;
use super::settings::{MAX_CAPACITY, MAX_SHARD};
use super::shard::Shard;
use super::slab::Relocated;
use super::write::Gone;
use super::{Error, trace, word};
use crate::sync::pins;
use std::hash::{BuildHasher, Hash};

/// The most entries that a shard gives up while its lock is held.
const BATCH: usize = 64;
/// How often moving a shard's entries is tried in one call.
const TRIES: usize = 4;
/// A shard is moved to less memory when it has more than so many times what it needs.
const SPARE: usize = 2;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Changes how many entries it holds at most. One that had no such limit gets one.
    ///
    /// More room is there at once, and costs memory as it fills. With less, entries leave now, those that the policy would
    /// give up next: from the return of this call on there are no more than `capacity`, whatever other threads put in
    /// meanwhile. The memory of a cache that has become less than half as large is given back too; for that the
    /// entries that stay are moved, a shard after the other. While a shard's are, for some microseconds or, with tens of
    /// thousands of entries, milliseconds, writes to it wait, and reads of it may miss what is there. Where readers hold
    /// pins for too long, or this thread does, a shard keeps its memory until [`tidy`](Cache::tidy) is called or the cache
    /// is resized again; the slots of all shards together are freed when the last has moved.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, u32> = Cache::builder().capacity(1_000).build()?;
    /// for n in 0..1_000 {
    ///     cache.insert(n, n);
    /// }
    /// cache.resize(100)?;
    /// assert_eq!((cache.len(), cache.capacity()), (100, 100));
    /// cache.resize(200)?;
    /// for n in 0..1_000 {
    ///     cache.insert(n, n);
    /// }
    /// assert_eq!(cache.len(), 200);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`] for a capacity of 0, or past what its shards can number: 32,768 for each, of which a cache has
    /// one when it was built for fewer than 8,192 entries, and up to 64 when it was built for up to two millions.
    pub fn resize(&self, capacity: usize) -> Result<(), Error> {
        let most = (self.inner.shards.len() * MAX_SHARD).min(MAX_CAPACITY);
        if !(1..=most).contains(&capacity) {
            return Err(Error::Option {
                option: "capacity",
                why: format!("this cache can be made to hold 1 to {most} entries"),
            });
        }
        let _span = trace::resize(capacity as u64);
        self.inner.budget.set_count(capacity as u64);
        self.inner.tell_shares();
        self.inner.fit();
        self.inner.give_memory_back();
        Ok(())
    }

    /// Changes what its entries may weigh together at most. As [`resize`](Cache::resize), which also says what happens to
    /// memory: here it is given back when the entries that are left need less than half of it.
    ///
    /// ```
    /// use outgrow::cache::{Cache, Error};
    /// # fn main() -> Result<(), Error> {
    /// let cache: Cache<u32, String> =
    ///     Cache::builder().weight_capacity(1_000).weigher(|_, text: &String| text.len() as u64).build()?;
    /// for n in 0..10 {
    ///     cache.insert(n, "x".repeat(100));
    /// }
    /// cache.resize_weight(450)?;
    /// assert_eq!((cache.len(), cache.weight()), (4, 400));
    ///
    /// let counting: Cache<u32, String> = Cache::builder().capacity(10).build()?;
    /// assert_eq!(counting.resize_weight(450), Err(Error::Unweighted));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Unweighted`] for a cache that was built without
    /// [`weight_capacity`](super::CacheBuilder::weight_capacity); [`Error::Option`] for a weight of 0.
    pub fn resize_weight(&self, weight: u64) -> Result<(), Error> {
        if !self.inner.budget.is_weighted() {
            return Err(Error::Unweighted);
        }
        if weight == 0 {
            return Err(Error::Option {
                option: "weight_capacity",
                why: "nothing would ever be kept".to_owned(),
            });
        }
        let _span = trace::resize(weight);
        self.inner.budget.set_weight(weight);
        self.inner.fit();
        self.inner.give_memory_back();
        Ok(())
    }

    /// Takes an entry out of the fullest part of the cache: up to eight that have expired there, or else the one that the
    /// policy would give up for a newcomer. False when there is none. The removal listener hears which.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, u32> = Cache::builder().build()?;
    /// cache.insert(7, 7);
    /// assert!(cache.evict_one() && !cache.evict_one());
    /// assert!(cache.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn evict_one(&self) -> bool {
        let inner = &*self.inner;
        loop {
            let lens = inner.shards.iter().map(|shard| shard.lock().len());
            let Some((len, fullest)) = lens.zip(&inner.shards).max_by_key(|(len, _)| *len) else {
                return false;
            };
            if len == 0 {
                return false;
            }
            if inner.evict_from(fullest, 1, |_| true) > 0 {
                return true;
            }
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Tells each shard's policy what its share is now.
    fn tell_shares(&self) {
        for shard in &self.shards {
            let mut locked = shard.lock();
            // Read under the lock: of two calls at once, the one that comes second to a shard knows the last limit.
            let share = self.share();
            locked.state().order.resize(share);
        }
    }

    /// How many entries a shard holds on average when the cache is full by count.
    fn share(&self) -> usize {
        let limit = usize::try_from(self.budget.limit().count).unwrap_or(usize::MAX);
        (limit / self.shards.len()).max(1)
    }

    /// Takes entries out until the limits hold, from each shard in proportion to what it has.
    fn fit(&self) {
        while self.budget.is_over() {
            let mut left = 0;
            for shard in &self.shards {
                let some = (shard.lock().len() / 16).clamp(1, BATCH);
                left += self.evict_from(shard, some, |inner| inner.budget.is_over());
            }
            if left == 0 {
                // What is used is room that other writes have taken and not filled yet.
                std::thread::yield_now();
            }
        }
    }

    /// Takes up to so many entries out of a shard, as long as `goes_on` says so; says how many.
    fn evict_from(&self, shard: &Shard<K, V>, at_most: usize, goes_on: impl Fn(&Self) -> bool) -> usize {
        let pin = pins::pin();
        let mut gone = Gone::new();
        let mut left = 0;
        let mut locked = shard.lock();
        let now = self.now_for(&mut locked, word::NEVER);
        let mut room = self.budget.room();
        left += self.tidy(&mut locked, now, &mut room, &pin, &mut gone);
        room.give_back();
        while left < at_most && locked.len() > 0 && goes_on(self) {
            self.evict_here(&mut locked, &mut room, &pin, &mut gone);
            room.give_back();
            left += 1;
        }
        drop(locked);
        gone.tell(self.listener.as_ref());
        drop(pin);
        self.free_now(shard);
        left
    }

    /// Moves the entries of shards that have much more memory than they need to less.
    fn give_memory_back(&self) {
        for shard in &self.shards {
            let len = shard.lock().len();
            let entries = if self.budget.limit().count == u64::MAX {
                len
            } else {
                self.share().max(len)
            };
            let too_large = shard.slots() > SPARE * shard.slots_for(entries);
            shard.lock().state().too_large_for = too_large.then_some(entries);
        }
        self.shrink_shards();
    }

    /// Moves the entries of shards that are known to have too much memory, as far as readers let it.
    pub(super) fn shrink_shards(&self) {
        for shard in &self.shards {
            for _ in 0..TRIES {
                if self.shrink(shard) {
                    break;
                }
                std::thread::yield_now();
            }
        }
        for shard in &self.shards {
            shard.free_maps();
        }
    }

    /// False when it is worth another try.
    fn shrink(&self, shard: &Shard<K, V>) -> bool {
        let mut locked = shard.lock();
        let Some(entries) = locked.state().too_large_for else {
            return true;
        };
        if pins::is_pinned() {
            // It would wait for itself.
            return true;
        }
        let share = self.share();
        let mut order = locked.ranked(&pins::pin());
        // Coldest first: a policy that takes a new number for a sign of life ends with the order that it had.
        order.reverse();
        match locked.relocate(entries, &order, &|key| self.hash(key)) {
            Relocated::HeldBack => false,
            Relocated::Moved { moves, slots, dead } => {
                let state = locked.state();
                state.renumber(&moves, slots);
                // Once more, now that it may forget about numbers that nobody has.
                state.order.resize(share);
                state.too_large_for = None;
                drop(locked);
                drop(dead);
                true
            }
        }
    }
}

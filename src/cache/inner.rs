use super::budget::Budget;
use super::builder::Parts;
use super::extra::Extra;
use super::flights::Flights;
use super::policy::HitCost;
use super::removal::{Listener, Removal};
use super::settings::Settings;
use super::shard::{Shard, State, hash_of};
use super::slab::{NotYet, Slot};
use super::stats::{CacheStats, Count, Counters};
use super::tags::Tags;
use super::time::{Time, millis};
use super::word::{MARK_MAX, NEVER, NEVER_SETTLED, Reading, settled};
use crate::env::Rng;
use crate::hash::KeyedHash;
use crate::sync::pins::{self, Pin};
use crate::sync::{AtomicU64, Mutex, Ordering};
use hashbrown::Equivalent;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

/// How many entries that have left are held back, over all shards, before the epoch is pushed to move.
const PATIENCE: usize = 512;

/// What the handles of a cache share.
pub(super) struct Inner<K, V, S> {
    pub(super) time: Time,
    pub(super) hasher: S,
    pub(super) settings: Settings,
    /// Where marks stop counting; zero under a policy that needs none.
    pub(super) mark_max: u8,
    /// What a word is not below when a hit on its entry changes nothing.
    settled: u64,
    /// How long entries are kept past their time to live, in milliseconds.
    pub(super) grace: u64,
    /// Whether a hit takes the shard's lock.
    pub(super) hit_locks: bool,
    /// Whether its entries neither expire nor weigh anything, and nobody hears of them, unless one insert says otherwise.
    pub(super) is_plain: bool,
    /// A power of two of them.
    pub(super) shards: Box<[Shard<K, V>]>,
    pub(super) budget: Budget,
    pub(super) tags: Tags,
    /// How often a tag was invalidated.
    pub(super) tag_ends: AtomicU64,
    pub(super) flights: Flights<K, V>,
    pub(super) counters: Counters,
    pub(super) weigher: Option<Weigher<K, V>>,
    pub(super) expiry: Option<Expiry<K, V>>,
    pub(super) listener: Option<Listener<K, V>>,
    /// Draws the jitter.
    pub(super) rng: Mutex<Rng>,
}

/// Says what an entry weighs.
pub(super) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Says how long an entry lives, if it knows.
pub(super) type Expiry<K, V> = Box<dyn Fn(&K, &V) -> Option<Duration> + Send + Sync>;

/// What a reader makes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Fresh,
    /// Its time to live ended so many milliseconds ago, and it is kept for a grace.
    Stale(u64),
    /// Its key is known to have no value.
    Absent,
    /// It has expired or was invalidated, and nobody has taken it out yet.
    Gone,
}

/// An entry that a reader found.
pub(super) struct Found<'a, K, V> {
    pub(super) slot: u32,
    pub(super) entry: &'a Slot<K, V>,
    pub(super) read: Reading,
    pub(super) standing: Standing,
}

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    pub(super) fn new(parts: Parts<K, V, S>) -> Inner<K, V, S> {
        let Parts {
            settings,
            policy,
            hasher,
            env,
            mut rng,
            ..
        } = parts;
        let shards = settings.shards();
        let planned = settings.capacity.map(|entries| entries.div_ceil(shards));
        let orders = policy.orders(shards, settings.capacity.unwrap_or(shards * 1024));
        assert_eq!(orders.len(), shards, "the policy gives an order for each shard");
        let weighted = settings.weight_capacity.is_some();
        let patience = (PATIENCE / shards).clamp(8, 64);
        let states = orders.into_iter().map(|order| State::new(order, weighted)).collect();
        let secret = KeyedHash::new(rng.next_u64(), rng.next_u64());
        let mark_max = match policy.hit_cost() {
            HitCost::Mark { max } => max.min(MARK_MAX),
            _ => 0,
        };
        Inner {
            time: Time::new(env),
            grace: settings.grace(),
            mark_max,
            settled: match policy.hit_cost() {
                HitCost::Lock => NEVER_SETTLED,
                _ => settled(mark_max),
            },
            hit_locks: policy.hit_cost() == HitCost::Lock,
            is_plain: !weighted
                && settings.ttl.is_none()
                && settings.idle.is_none()
                && parts.expiry.is_none()
                && parts.listener.is_none(),
            shards: Shard::several(planned, patience, states).collect(),
            budget: Budget::new(
                settings.capacity.map(|entries| entries as u64),
                settings.weight_capacity,
            ),
            tags: Tags::new(secret),
            tag_ends: AtomicU64::new(0),
            flights: Flights::new(settings.max_waiting),
            counters: Counters::new(),
            weigher: parts.weigher,
            expiry: parts.expiry,
            listener: parts.listener,
            rng: Mutex::new(rng),
            hasher,
            settings,
        }
    }

    #[inline]
    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        hash_of(&self.hasher, key)
    }

    /// The entry under `key`, and what a reader makes of it. Counts nothing.
    #[inline]
    pub(super) fn peek<'a, Q>(&'a self, hash: u64, key: &Q, pin: &'a Pin) -> Option<Found<'a, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let shard = self.shard(hash);
        let (slot, entry) = shard.find(hash, key, pin)?;
        let read = entry.word.read();
        let standing = self.judge(shard, slot, read, pin);
        Some(Found {
            slot,
            entry,
            read,
            standing,
        })
    }

    /// The fresh value under `key`, counted as a hit, or as a miss where there is none.
    #[inline(always)]
    pub(super) fn get<'a, Q>(&'a self, hash: u64, key: &Q, pin: &'a Pin) -> Option<&'a V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let (slot, entry) = match self.shard(hash).glance(hash, key, pin) {
            Ok(found) => found,
            Err(not_yet) => return self.get_further(hash, key, not_yet, pin),
        };
        let Some(value) = entry.settled_value(self.settled) else {
            return self.get_here(hash, slot, entry, pin);
        };
        self.counters.add(pin, Count::Hits, 1);
        Some(value)
    }

    fn get_nothing(&self, pin: &Pin) -> Option<&V> {
        self.counters.add(pin, Count::Misses, 1);
        None
    }

    #[inline(never)]
    fn get_further<'a, Q>(&'a self, hash: u64, key: &Q, not_yet: NotYet<'a, K, V>, pin: &'a Pin) -> Option<&'a V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        match self.shard(hash).find_further(hash, key, not_yet, pin) {
            Some((slot, entry)) => self.get_here(hash, slot, entry, pin),
            None => self.get_nothing(pin),
        }
    }

    #[inline(never)]
    fn get_here<'a>(&'a self, hash: u64, slot: u32, entry: &'a Slot<K, V>, pin: &'a Pin) -> Option<&'a V> {
        let read = entry.word.read();
        // Of what lives for a time and has nothing else to look at, that is all there is to know.
        if read.reaches_but_for_time(self.settled) && self.time.is_far(read.deadline().saturating_sub(self.grace)) {
            self.counters.add(pin, Count::Hits, 1);
            return entry.value();
        }
        let standing = self.judge(self.shard(hash), slot, read, pin);
        if standing != Standing::Fresh {
            return self.get_nothing(pin);
        }
        let found = Found {
            slot,
            entry,
            read,
            standing,
        };
        self.hit(hash, &found, pin);
        entry.value()
    }

    /// Counts a hit, and tells the policy.
    #[inline]
    pub(super) fn hit(&self, hash: u64, found: &Found<'_, K, V>, pin: &Pin) {
        self.counters.add(pin, Count::Hits, 1);
        self.count_use(hash, found, pin);
    }

    /// Tells the policy of an entry that was asked for, and moves its deadline where that slides.
    #[inline]
    pub(super) fn count_use(&self, hash: u64, found: &Found<'_, K, V>, pin: &Pin) {
        if found.read.mark() < self.mark_max {
            found.entry.word.count(found.read);
        }
        if self.hit_locks {
            self.touch(hash, found, pin);
        }
        if found.read.kind().idle {
            self.slide(self.shard(hash), found, pin);
        }
    }

    #[inline(never)]
    fn touch(&self, hash: u64, found: &Found<'_, K, V>, pin: &Pin) {
        let shard = self.shard(hash);
        let mut locked = shard.lock();
        // It may have left since it was found.
        if shard.at(found.slot, pin).is_some() {
            locked.state().order.touch(found.read.number(), hash);
        }
    }
}

impl<K, V, S> Inner<K, V, S> {
    /// The shard of a hash: by bits that its index does not use.
    #[inline]
    pub(super) fn shard(&self, hash: u64) -> &Shard<K, V> {
        &self.shards[self.shard_number(hash)]
    }

    #[inline]
    pub(super) fn shard_number(&self, hash: u64) -> usize {
        hash as usize & (self.shards.len() - 1)
    }

    #[inline]
    pub(super) fn judge(&self, shard: &Shard<K, V>, slot: u32, read: Reading, pin: &Pin) -> Standing {
        if read.is_plain() {
            return Standing::Fresh;
        }
        self.judge_further(shard, slot, read, pin)
    }

    fn judge_further(&self, shard: &Shard<K, V>, slot: u32, read: Reading, pin: &Pin) -> Standing {
        let extra = shard.extra(slot, read, pin);
        if self.time.is_past(read.deadline()) || extra.is_some_and(Extra::is_invalid) {
            return Standing::Gone;
        }
        if read.kind().absent {
            return Standing::Absent;
        }
        match self.fresh_until(read, extra) {
            Some(end) if self.time.is_past(end) => Standing::Stale(self.time.now().saturating_sub(end)),
            _ => Standing::Fresh,
        }
    }

    /// When the time to live ends of an entry that is kept for a grace after it.
    pub(super) fn fresh_until(&self, read: Reading, extra: Option<&Extra>) -> Option<u64> {
        (self.grace > 0).then(|| self.ttl_end(read, extra))?
    }

    /// When the time to live of a value ends, if it has one.
    pub(super) fn ttl_end(&self, read: Reading, extra: Option<&Extra>) -> Option<u64> {
        let end = match extra.and_then(|extra| extra.latest) {
            Some(latest) => latest,
            None if read.kind().idle => NEVER,
            None => read.deadline(),
        };
        (end != NEVER).then(|| end.saturating_sub(self.grace))
    }

    /// Moves the deadline of an entry whose idle time starts again, if that is worth a write.
    #[cold]
    fn slide(&self, shard: &Shard<K, V>, found: &Found<'_, K, V>, pin: &Pin) {
        let extra = shard.extra(found.slot, found.read, pin);
        let own = extra.and_then(|extra| extra.idle);
        let Some(idle) = own.or_else(|| self.settings.idle.map(millis)) else {
            return;
        };
        let latest = extra.and_then(|extra| extra.latest).unwrap_or(NEVER - 1);
        let deadline = self.time.coarse().saturating_add(idle).min(latest);
        if deadline > found.read.deadline().saturating_add(idle / 16) {
            found.entry.word.set_deadline(deadline);
        }
    }

    /// What is left of `ttl` after the jitter.
    pub(super) fn jittered(&self, ttl: Duration) -> Duration {
        if self.settings.jitter == 0.0 {
            return ttl;
        }
        let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let cut = nanos as f64 * self.settings.jitter * self.rng.lock().unit();
        Duration::from_nanos(nanos.saturating_sub(cut as u64))
    }

    pub(super) fn stats(&self) -> CacheStats {
        let (used, limit) = (self.budget.used(), self.budget.limit());
        CacheStats {
            entries: used.count,
            weight: used.weight,
            held_back: self.shards.iter().map(|shard| shard.lock().held() as u64).sum(),
            capacity: limit.count,
            weight_capacity: limit.weight,
            ..self.counters.stats()
        }
    }

    /// How often tags were invalidated.
    pub(super) fn tag_ends(&self) -> u64 {
        self.tag_ends.load(Ordering::Acquire)
    }
}

impl<K, V, S> Drop for Inner<K, V, S> {
    fn drop(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let pin = pins::pin();
        for shard in &self.shards {
            for (slot, entry) in shard.live(&pin) {
                let why = match self.judge(shard, slot, entry.word.read(), &pin) {
                    Standing::Gone => Removal::Expired,
                    _ => Removal::Dropped,
                };
                if let Some(value) = entry.value() {
                    listener(entry.key(), value, why);
                }
            }
        }
    }
}

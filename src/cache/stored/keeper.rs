use super::stats::CachedStoreStats;
use crate::cache::InsertOptions;
use crate::cache::remember::Entries;
use crate::cache::stripes::{Fate, Lease, Stripes};
use crate::store::{Change, Changed, Entry, Follower, Position, Record};
use crate::sync::{AtomicBool, Counter, Mutex, Ordering};
use bytes::Bytes;
use std::time::Duration;

/// What is cached of a store, and how far its feed has been followed. It knows no store: it is told of writes and
/// reads.
pub(super) struct Keeper {
    cache: Entries,
    stripes: Stripes,
    /// Whether every write after `followed` will be heard of. While not, nothing here may be read.
    following: AtomicBool,
    /// The last record of the feed whose keys were dropped. Held while they are.
    followed: Mutex<Position>,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bypassed: Counter,
    invalidations: Counter,
    refused_fills: Counter,
    breaks: Counter,
}

impl Keeper {
    pub(super) fn new(cache: Entries) -> Keeper {
        Keeper {
            cache,
            stripes: Stripes::new(),
            following: AtomicBool::new(false),
            followed: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// The map, to read and to load through. Nothing is put into it but by [`fill`](Keeper::fill).
    pub(super) fn cache(&self) -> &Entries {
        &self.cache
    }

    pub(super) fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    pub(super) fn followed(&self) -> Position {
        *self.followed.lock()
    }

    /// Starts anew: every record after `from` will be heard of.
    pub(super) fn begin(&self, from: Position) {
        let mut followed = self.followed.lock();
        self.empty();
        *followed = from;
        self.following.store(true, Ordering::Release);
    }

    /// The feed broke: nothing cached can be trusted.
    pub(super) fn end(&self) {
        self.following.store(false, Ordering::Release);
        self.empty();
    }

    pub(super) fn count_break(&self) {
        self.counters.breaks.add(1);
    }

    fn empty(&self) {
        self.stripes.forget();
        self.cache.clear();
    }

    /// A read of `key` from the store below begins.
    pub(super) fn lease(&self, key: &[u8]) -> Lease {
        self.stripes.lease(self.cache.hash(key))
    }

    /// Keeps what a read under `lease` found, unless a write has overtaken it.
    pub(super) fn fill(&self, key: Bytes, found: Option<Entry>, lease: Lease, ttl: Duration) {
        let (hash, version) = (self.cache.hash(&key[..]), found.as_ref().map(|entry| entry.version));
        let keep = || self.cache.fill(key, found, &InsertOptions::new().ttl(ttl));
        if !self.stripes.fill(hash, lease, version, keep) {
            self.counters.refused_fills.add(1);
        }
    }

    /// Drops what a commit of this process wrote, of which the feed may not have told yet. `fates` are in its order.
    pub(super) fn wrote(&self, keys: &[Bytes], fates: impl Iterator<Item = Fate>) {
        for (key, fate) in keys.iter().zip(fates) {
            let hash = self.cache.hash(&key[..]);
            self.stripes.wrote(hash, fate);
            self.forget(hash, key, fate);
        }
    }

    /// Hears of a record of the feed, in order, perhaps more than once.
    pub(super) fn hear(&self, at: Position, record: &Record) {
        let mut followed = self.followed.lock();
        if at <= *followed {
            return;
        }
        self.drop_all(record);
        *followed = at;
    }

    fn drop_all(&self, record: &Record) {
        for change in &record.changes {
            let fate = Fate::of(change);
            let hash = self.cache.hash(&change.key[..]);
            self.stripes.heard(hash, fate);
            self.forget(hash, &change.key, fate);
        }
    }

    fn forget(&self, hash: u64, key: &[u8], fate: Fate) {
        self.counters.invalidations.add(1);
        self.cache.remove_if(hash, key, |cached| !fate.left(cached.as_ref()));
    }

    pub(super) fn stats(&self, newest: Position) -> CachedStoreStats {
        let Counters {
            bypassed,
            invalidations,
            refused_fills,
            breaks,
        } = &self.counters;
        CachedStoreStats {
            cache: self.cache.stats(),
            following: self.is_following(),
            followed: self.followed(),
            newest,
            bypassed: bypassed.sum(),
            invalidations: invalidations.sum(),
            refused_fills: refused_fills.sum(),
            breaks: breaks.sum(),
        }
    }
}

/// Hears of commits before they return, where the store does that.
impl Follower for Keeper {
    fn committed(&self, at: Position, record: &Record) {
        let mut followed = self.followed.lock();
        if at <= *followed {
            return;
        }
        self.drop_all(record);
        // A store may leave out what was committed elsewhere; the watch, which does not, closes the gap.
        if at.seq == followed.seq + 1 {
            *followed = at;
        }
    }
}

impl Fate {
    fn of(change: &Change) -> Fate {
        match &change.to {
            Changed::Set(entry) => Fate::Set(entry.version),
            Changed::Removed(version) => Fate::Removed(*version),
        }
    }

    /// Whether `cached` is what the write left behind, read after it.
    fn left(self, cached: Option<&Entry>) -> bool {
        match (self, cached) {
            (Fate::Set(version), Some(cached)) => cached.version == version,
            (Fate::Removed(_), None) => true,
            _ => false,
        }
    }
}

//! Changing what is under a key in view of what is there.

use super::cache::Cache;
use super::hasher::DefaultHash;
use super::inner::{Inner, Standing};
use super::patience::Patience;
use super::slab::{Located, Slot};
use super::write::{Gone, Incoming, Refused};
use super::{InsertOptions, Inserted, Rejected};
use crate::sync::pins::{self, Pin};
use hashbrown::Equivalent;
use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// What is to become of a key; see [`Cache::compute`].
#[derive(Clone, Debug)]
pub enum Op<V> {
    /// What is there stays.
    Keep,
    /// This value goes in, as by [`Cache::insert`].
    Put(V),
    /// This value goes in, as by [`Cache::insert_with`].
    PutWith(V, InsertOptions),
    /// What is there is taken out.
    Remove,
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Cache<K, V, S> {
    /// Lets `change` say what is to become of `key`, given its value, if there is one that has not expired; returns a clone
    /// of the value that is there then.
    ///
    /// No other write to the key comes between what `change` is shown and what it does: if one did, it is called again
    /// with what is there now. While it runs no lock is held, and no memory of entries that have left is freed; it may use
    /// the cache. Looking is not counted as a hit or a miss. A change makes what is being loaded for `key` stale, as
    /// [`insert`](Cache::insert) does; [`Op::Keep`] does not.
    ///
    /// An entry that is rejected is not in, nor is what was there; then `None` comes back.
    ///
    /// ```
    /// use outgrow::cache::{Cache, Op};
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let stock: Cache<&str, u32> = Cache::builder().build()?;
    /// let add = |n| move |old: Option<&u32>| Op::Put(old.map_or(n, |old| old + n));
    /// assert_eq!(stock.compute("apples", add(3)), Some(3));
    /// assert_eq!(stock.compute("apples", add(4)), Some(7));
    /// let sell = |old: Option<&u32>| match old {
    ///     Some(7) => Op::Remove,
    ///     _ => Op::Keep,
    /// };
    /// assert_eq!(stock.compute("apples", sell), None);
    /// assert!(stock.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn compute(&self, key: K, mut change: impl FnMut(Option<&V>) -> Op<V>) -> Option<V> {
        let inner = &*self.inner;
        let hash = inner.hash(&key);
        let mut key = key;
        let mut patience = Patience::new();
        loop {
            let pin = pins::pin();
            let seen = inner.see(hash, &key, &pin);
            let (value, options) = match change(seen.value) {
                Op::Keep => return seen.value.cloned(),
                Op::Put(value) => (value, InsertOptions::new()),
                Op::PutWith(value, options) => (value, options),
                Op::Remove => {
                    let removed = inner.remove_seen(hash, &key, seen.entry);
                    drop(pin);
                    inner.free_now(inner.shard(hash));
                    if removed {
                        return None;
                    }
                    continue;
                }
            };
            let now = value.clone();
            let mut incoming = Some(inner.sparing(key, value, &options));
            let mut gone = Gone::new();
            let put = inner.put_over_seen(&mut incoming, seen.slot, &pin, &mut gone);
            gone.tell(inner.listener.as_ref());
            let refused = match put {
                Ok(inserted) => return inserted.is_kept().then_some(now),
                Err(refused) => refused,
            };
            drop(gone);
            drop(pin);
            let incoming = incoming.expect("what was refused stays");
            if refused == Refused::NoSlot && !patience.wait() {
                inner.give_up(incoming);
                return None;
            }
            key = incoming.key;
        }
    }

    /// Puts `value` under `key`, as [`insert`](Cache::insert), and returns a clone of the value that was there, unless it
    /// had expired.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, &str> = Cache::builder().build()?;
    /// assert_eq!((cache.replace(7, "old"), cache.replace(7, "new")), (None, Some("old")));
    /// assert_eq!(cache.get(&7), Some("new"));
    /// # Ok(()) }
    /// ```
    pub fn replace(&self, key: K, value: V) -> Option<V> {
        let mut value = Some(value);
        let mut old = None;
        self.settle(key, |seen| {
            old = seen.cloned();
            value.take().map_or(Next::Again, Next::Put)
        });
        old
    }

    /// The value under `key`, counted like a [`get`](Cache::get), or what `make` makes if there is none, which is put in.
    ///
    /// `make` is called at most once, without a lock. Of several calls at once each may make a value; the first to be
    /// done puts its in, and the others return that one. Where making takes long, [`get_or_load`](Cache::get_or_load)
    /// does it once for all who wait. What is made is returned even if the cache rejects it.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let lengths: Cache<String, usize> = Cache::builder().build()?;
    /// assert_eq!(lengths.get_or_insert_with("seven", || "seven".len()), 5);
    /// assert_eq!(lengths.get_or_insert_with("seven", || unreachable!("it is there")), 5);
    /// # Ok(()) }
    /// ```
    pub fn get_or_insert_with<Q>(&self, key: &Q, make: impl FnOnce() -> V) -> V
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        match self.get(key) {
            Some(value) => value,
            None => self.entry(key.to_owned()).or_insert_with(make),
        }
    }

    /// What is under `key`, to be changed or filled in one step, which no other write to the key comes into.
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let words: Cache<&str, u32> = Cache::builder().build()?;
    /// for word in ["to", "be", "or", "not", "to", "be"] {
    ///     words.entry(word).and_modify(|count| count + 1).or_insert(1);
    /// }
    /// assert_eq!((words.get("be"), words.get("or")), (Some(2), Some(1)));
    /// # Ok(()) }
    /// ```
    pub fn entry(&self, key: K) -> Entry<'_, K, V, S> {
        Entry { cache: self, key }
    }

    /// Lets `next` decide until no write came between. Returns the value that is there then, or that was rejected.
    fn settle(&self, key: K, mut next: impl FnMut(Option<&V>) -> Next<V>) -> Option<V> {
        let inner = &*self.inner;
        let hash = inner.hash(&key);
        let mut key = Some(key);
        let mut held = None;
        let mut patience = Patience::new();
        loop {
            let pin = pins::pin();
            let at = held
                .as_ref()
                .map(|incoming: &Incoming<K, V>| &incoming.key)
                .or(key.as_ref());
            let seen = inner.see(hash, at.expect("the key is in one of both"), &pin);
            let incoming = match next(seen.value) {
                Next::Stay => return seen.value.cloned(),
                Next::Again => held.take().expect("what was refused is tried again"),
                Next::Put(value) => {
                    let key = held.take().map_or_else(|| key.take(), |held| Some(held.key));
                    inner.sparing(key.expect("the key is in one of both"), value, &InsertOptions::new())
                }
            };
            let now = incoming.value.clone();
            held = Some(incoming);
            let mut gone = Gone::new();
            let put = inner.put_over_seen(&mut held, seen.slot, &pin, &mut gone);
            gone.tell(inner.listener.as_ref());
            let Err(refused) = put else { return now };
            drop(gone);
            drop(pin);
            if refused == Refused::NoSlot && !patience.wait() {
                inner.give_up(held.expect("what was refused stays"));
                return now;
            }
        }
    }
}

/// What is to be done about a key.
enum Next<V> {
    /// Nothing.
    Stay,
    /// This value goes in.
    Put(V),
    /// The value that was refused before goes in.
    Again,
}

/// What is under a key, from [`Cache::entry`]. Nothing happens before one of the `or` methods is called. They return the
/// value also where the cache rejects it; then nothing is under the key.
#[must_use = "nothing happens before one of its `or` methods is called"]
pub struct Entry<'a, K, V, S = DefaultHash> {
    cache: &'a Cache<K, V, S>,
    key: K,
}

/// What is under a key, with what is to be made of it; from [`Entry::and_modify`].
#[must_use = "nothing happens before one of its `or` methods is called"]
pub struct ModifiedEntry<'a, K, V, F, S = DefaultHash> {
    entry: Entry<'a, K, V, S>,
    modify: F,
}

impl<'a, K: Hash + Eq, V: Clone, S: BuildHasher> Entry<'a, K, V, S> {
    /// Puts what `modify` makes of the value in its place, if there is one. It may be called again when another write came
    /// between.
    pub fn and_modify<F: FnMut(&V) -> V>(self, modify: F) -> ModifiedEntry<'a, K, V, F, S> {
        ModifiedEntry { entry: self, modify }
    }

    /// The value that is there, or `value`, which is put in.
    pub fn or_insert(self, value: V) -> V {
        self.or_insert_with(|| value)
    }

    /// The value that is there, or what `make` makes, which is put in. Called at most once, without a lock.
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> V {
        let mut make = Some(make);
        let there = self.cache.settle(self.key, |seen| match (seen, make.take()) {
            (Some(_), _) => Next::Stay,
            (None, Some(make)) => Next::Put(make()),
            (None, None) => Next::Again,
        });
        there.expect("a value was there or was made")
    }
}

impl<K: Hash + Eq, V: Clone, F: FnMut(&V) -> V, S: BuildHasher> ModifiedEntry<'_, K, V, F, S> {
    /// The value as modified, or `value`, which is put in where there was none.
    pub fn or_insert(self, value: V) -> V {
        self.or_insert_with(|| value)
    }

    /// The value as modified, or what `make` makes where there was none, which is put in. Called at most once.
    pub fn or_insert_with(mut self, make: impl FnOnce() -> V) -> V {
        let mut make = Some(make);
        let mut made = None;
        let there = self.entry.cache.settle(self.entry.key, |seen| match seen {
            Some(value) => Next::Put((self.modify)(value)),
            None => Next::Put(made.get_or_insert_with(|| make.take().expect("made once")()).clone()),
        });
        there.expect("a value was there or was made")
    }

    /// The value as modified, or `None` where there was none; nothing is put in then.
    pub fn or_none(mut self) -> Option<V> {
        self.entry.cache.settle(self.entry.key, |seen| match seen {
            Some(value) => Next::Put((self.modify)(value)),
            None => Next::Stay,
        })
    }
}

/// What a look found under a key.
struct Seen<'p, K, V> {
    slot: Option<u32>,
    entry: Option<&'p Slot<K, V>>,
    /// Its value, unless it has expired.
    value: Option<&'p V>,
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    fn see<'p>(&'p self, hash: u64, key: &K, pin: &'p Pin) -> Seen<'p, K, V> {
        let found = self.peek(hash, key, pin);
        Seen {
            slot: found.as_ref().map(|found| found.slot),
            entry: found.as_ref().map(|found| found.entry),
            value: found
                .filter(|found| found.standing == Standing::Fresh)
                .and_then(|found| found.entry.value()),
        }
    }

    /// An entry whose value was made of what is under its key, which must not leave before.
    fn sparing(&self, key: K, value: V, options: &InsertOptions) -> Incoming<K, V> {
        Incoming {
            spares: true,
            ..self.incoming(key, Some(value), options)
        }
    }

    /// Rejects an entry for which there was no slot for too long; then nothing else is under its key.
    fn give_up(&self, incoming: Incoming<K, V>) {
        self.remove_where(incoming.hash, &incoming.key, |_| true, |_| ());
        self.reject(Some(incoming), Rejected::HeldBack);
    }

    /// Puts an entry in if what is under its key is what was `seen` there under this pin, which keeps the slot from being
    /// used for another. What is being loaded for the key will not be stored.
    fn put_over_seen<'p>(
        &'p self,
        incoming: &mut Option<Incoming<K, V>>,
        seen: Option<u32>,
        pin: &'p Pin,
        gone: &mut Gone<'p, K, V>,
    ) -> Result<Inserted, Refused> {
        let is_seen = |old: Option<Located>| old.map(|old| old.slot) == seen;
        let loads = Cell::new(false);
        let put = self.put(
            incoming,
            |locked, old| {
                loads.set(locked.state().loading > 0);
                is_seen(old) && !loads.get()
            },
            pin,
            gone,
        );
        match put {
            Err(Refused::Condition) if loads.get() => self.put_held(incoming, |_, old| is_seen(old), pin, gone),
            put => put,
        }
    }

    /// Takes out what is under `key` if it is what was `seen` there; false if it is something else by now. What is being
    /// loaded for the key will not be stored.
    fn remove_seen<Q>(&self, hash: u64, key: &Q, seen: Option<&Slot<K, V>>) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let found = Cell::new(None);
        let is_seen = |there: &Slot<K, V>| {
            found.set(Some(seen.is_some_and(|seen| std::ptr::eq(seen, there))));
            found.get() == Some(true)
        };
        self.remove_where(hash, key, is_seen, |_| ());
        found.get() == seen.map(|_| true)
    }
}

impl<K, V, S> fmt::Debug for Entry<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl<K, V, F, S> fmt::Debug for ModifiedEntry<'_, K, V, F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModifiedEntry").finish_non_exhaustive()
    }
}

//! Loading what is missing: one load for a key, however many ask.
//!
//! `ask` is the way of every call: what it finds in the cache (`look`), a seat among those who wait (`seat`), what a
//! loader is and what it costs (`run`), and what becomes of a loaded value (`land`). `many` loads several keys at once, by a loader
//! that they have shares in (`shared`).

mod ask;
mod blocking;
mod land;
mod look;
mod many;
mod run;
mod seat;
mod shared;

use super::cache::Cache;
use super::flight::Loaded;
use super::inner::Inner;
use super::{InsertOptions, LoadError};
use futures::TryFutureExt;
use look::Ask;
use run::Polled;
use std::borrow::Borrow;
use std::future::Future;
use std::hash::{BuildHasher, Hash};

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Makes everything that is being loaded stale.
    pub(super) fn detach_all(&self) {
        self.flights
            .take_all(|hash| self.shard(hash).lock().state().loading -= 1);
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// The value under `key`, loaded by `load` if it is not there: one load, however many calls wait for it.
    ///
    /// The loader is polled by its callers, one at a time, and never by a pool of this crate. When the call that polls
    /// it is dropped, the loader passes to another that waits, and goes on from where it was; that is why it must be
    /// `'static`. When it panics, the panic is that call's, and the next starts its own loader. A value is stored as
    /// [`insert`](Cache::insert) would; an error is not stored, and everyone who waited gets it.
    ///
    /// A write to the key while it is loaded (an [`insert`](Cache::insert), a [`remove`](Cache::remove), a
    /// [`clear`](Cache::clear)) makes the load stale: those who wait still get its value, but it is not stored, and who
    /// asks later loads anew.
    ///
    /// A value past its time to live is returned at once, and loaded anew in the background, where
    /// [`stale_while_revalidate`](super::CacheBuilder::stale_while_revalidate) says so; it is returned where loading fails,
    /// within [`stale_if_error`](super::CacheBuilder::stale_if_error).
    ///
    /// ```
    /// use outgrow::cache::{Cache, LoadError};
    /// # futures::executor::block_on(async {
    /// let squares: Cache<u32, u32> = Cache::builder().capacity(100).build()?;
    /// let nine = squares.get_or_load(&3, |n| async move { Ok::<_, std::io::Error>(n * n) }).await?;
    /// assert_eq!((nine, squares.get(&3)), (9, Some(9)));
    ///
    /// let failed = squares.get_or_load(&7, |_| async { Err::<u32, _>("no luck") }).await;
    /// assert!(matches!(failed, Err(LoadError::Failed(error)) if *error == "no luck"));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the loader's error, shared by all who waited for that load;
    /// [`LoadError::TimedOut`] when it took longer than [`load_timeout`](super::CacheBuilder::load_timeout);
    /// [`LoadError::Crowded`] when as many calls wait as [`max_waiting`](super::CacheBuilder::max_waiting) allows.
    ///
    /// # Panics
    /// When this call's turn at a loader panics.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its place. The last to go drops the loader with it. A future that was polled and
    /// is then neither polled again nor dropped holds up the others who wait for the same key, as with any async lock,
    /// though not past a [`load_timeout`](super::CacheBuilder::load_timeout).
    pub async fn get_or_load<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let load = |key| load(key).map_ok(Loaded::from);
        self.value(key, Ask::VALUE, |_| true, load).await
    }

    /// As [`get_or_load`](Cache::get_or_load), for a loader that also says how its value is to be kept: its tags, or a
    /// time to live that only it knows.
    ///
    /// ```
    /// use outgrow::cache::{Cache, InsertOptions};
    /// use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let users: Cache<u32, String> = Cache::builder().build()?;
    /// let load = |id| async move {
    ///     let options = InsertOptions::new().tag("org:1").ttl(Duration::from_secs(60));
    ///     Ok::<_, std::io::Error>((format!("user {id}"), options))
    /// };
    /// assert_eq!(users.get_or_load_with(&7, load).await?, "user 7");
    /// users.invalidate_tag("org:1");
    /// assert_eq!(users.get(&7), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Cache::get_or_load).
    ///
    /// # Panics
    /// When this call's turn at a loader panics.
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Cache::get_or_load).
    pub async fn get_or_load_with<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<(V, InsertOptions), E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let with = |(value, options)| Loaded {
            value: Some(value),
            options,
        };
        let load = |key| load(key).map_ok(with);
        self.value(key, Ask::VALUE, |_| true, load).await
    }

    /// As [`get_or_load`](Cache::get_or_load), for a loader that may find that there is no value. That is remembered for
    /// [`negative_ttl`](super::CacheBuilder::negative_ttl), and until then no loader of this method runs for the key; where
    /// it is not set, what was under the key leaves, and who asks next loads again.
    ///
    /// The other methods take no such answer: they load.
    ///
    /// ```
    /// use outgrow::cache::Cache;
    /// use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let users: Cache<u32, String> = Cache::builder().negative_ttl(Duration::from_secs(5)).build()?;
    /// for _ in 0..3 {
    ///     let nobody = users.get_or_load_optional(&7, |_| async { Ok::<_, std::io::Error>(None) }).await?;
    ///     assert_eq!(nobody, None);
    /// }
    /// assert_eq!((users.stats().loads, users.stats().negative_hits), (1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Cache::get_or_load).
    ///
    /// # Panics
    /// When this call's turn at a loader panics.
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Cache::get_or_load).
    pub async fn get_or_load_optional<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<Option<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let load = |key| load(key).map_ok(Loaded::optional);
        self.ask(key, Ask::OPTIONAL, |_| true, Polled::new(load)).await
    }

    /// As [`get_or_load`](Cache::get_or_load), but loads also when `reload` says of the value in the cache that it will not
    /// do. A call that finds the key being loaded waits for that, and gets what it yields without asking `reload` of it:
    /// it is newer than what the call came for. So a set of keys, say, that may lack one is loaded anew once for all
    /// who miss it.
    ///
    /// ```
    /// use outgrow::cache::Cache;
    /// # futures::executor::block_on(async {
    /// let signing_keys: Cache<&str, Vec<u32>> = Cache::builder().build()?;
    /// signing_keys.insert("issuer", vec![1, 2]);
    /// let load = |_| async { Ok::<_, std::io::Error>(vec![2, 3]) };
    /// let keys = signing_keys.get_or_load_if(&"issuer", |keys| !keys.contains(&3), load).await?;
    /// assert_eq!((keys, signing_keys.stats().loads), (vec![2, 3], 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Cache::get_or_load). A value that `reload` refuses is not returned in the place of an error, and
    /// stays in the cache.
    ///
    /// # Panics
    /// When this call's turn at a loader panics, or `reload` does.
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Cache::get_or_load).
    pub async fn get_or_load_if<Q, P, F, Fut, E>(&self, key: &Q, reload: P, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        P: Fn(&V) -> bool,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let load = |key| load(key).map_ok(Loaded::from);
        self.value(key, Ask::VALUE, |value| !reload(value), load).await
    }

    /// Loads `key` anew, whatever is there, and returns what was loaded. Until then, and if loading fails, what is there
    /// stays. A key that is being loaded is not loaded twice: the call waits for that load.
    ///
    /// A write to the key meanwhile is newer: it stays, and what was loaded is returned but not stored. Counted as a
    /// load, not as a read.
    ///
    /// ```
    /// use outgrow::cache::Cache;
    /// # futures::executor::block_on(async {
    /// let rates: Cache<&str, f64> = Cache::builder().build()?;
    /// rates.insert("EUR", 1.05);
    /// assert!(rates.refresh(&"EUR", |_| async { Err::<f64, _>("unreachable") }).await.is_err());
    /// assert_eq!(rates.get(&"EUR"), Some(1.05));
    /// rates.refresh(&"EUR", |_| async { Ok::<_, std::io::Error>(1.07) }).await?;
    /// assert_eq!(rates.get(&"EUR"), Some(1.07));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Cache::get_or_load).
    ///
    /// # Panics
    /// When this call's turn at a loader panics.
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Cache::get_or_load).
    pub async fn refresh<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let load = |key| load(key).map_ok(Loaded::from);
        self.value(key, Ask::REFRESH, |_| false, load).await
    }

    /// As [`get_or_load`](Cache::get_or_load), uncounted, and what is loaded is not put in: whoever loads sees to that.
    pub(super) async fn load_only<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let load = |key| load(key).map_ok(Loaded::from);
        self.value(key, Ask::LOAD_ONLY, |_| true, load).await
    }

    async fn value<Q, F, Fut, E>(
        &self,
        key: &Q,
        ask: Ask,
        good: impl Fn(&V) -> bool,
        load: F,
    ) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let value = self.ask(key, ask, good, Polled::new(load)).await?;
        Ok(value.expect(HAS_ONE))
    }
}

const HAS_ONE: &str = "who does not ask for an absent value gets none";

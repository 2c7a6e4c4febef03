use super::{
    Batch, BoxStore, Entry, Error, Expect, Feature, Position, Prefixed, Receipt, Result, Retried, RetryPolicy, Store,
    Timed, cursor_key,
};
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;

/// What callers of a [`Store`] reach for: single-key writes, and decorators that read as a pipeline.
///
/// ```
/// use outgrow::store::{LocalStore, StoreExt};
/// # futures::executor::block_on(async {
/// let users = LocalStore::in_memory().boxed();
/// users.put("7", "Ada").await?;
/// assert_eq!(&users.read(b"7").await?.unwrap().value[..], b"Ada");
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// ```
pub trait StoreExt: Store + Sized {
    /// Reads one key: [`Store::get`] under a name that no other trait has.
    fn read(&self, key: &[u8]) -> impl Future<Output = Result<Option<Entry>>> + Send {
        self.get(key)
    }

    /// Sets a key.
    fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> impl Future<Output = Result<Receipt>> + Send {
        self.commit(Batch::new().put(key, value))
    }

    /// Sets a key for a time.
    fn put_for(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> impl Future<Output = Result<Receipt>> + Send {
        self.commit(Batch::new().put_for(key, value, ttl))
    }

    /// Sets a key if it is as expected, else fails with [`Error::Conflict`].
    fn put_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expect: Expect,
    ) -> impl Future<Output = Result<Receipt>> + Send {
        let key = key.into();
        self.commit(Batch::new().expect(key.clone(), expect).put(key, value))
    }

    /// Removes a key.
    fn delete(&self, key: impl Into<Bytes>) -> impl Future<Output = Result<Receipt>> + Send {
        self.commit(Batch::new().delete(key))
    }

    /// Adds to a counter.
    fn add(&self, key: impl Into<Bytes>, delta: i64) -> impl Future<Output = Result<Receipt>> + Send {
        self.commit(Batch::new().add(key, delta))
    }

    /// Where the follower `name` stands, as kept by [`Batch::cursor`]; [`Error::Unsupported`] from a store that keeps
    /// no cursors.
    fn cursor(&self, name: &str) -> impl Future<Output = Result<Option<Position>>> + Send {
        let key = cursor_key(name.as_bytes());
        async move {
            self.capability().require(Feature::Cursors)?;
            self.get(&key)
                .await?
                .map(|entry| parse_cursor(&entry.value))
                .transpose()
        }
    }

    /// The part of the store whose keys begin with `prefix`, as a store of its own: see [`Prefixed`].
    fn prefixed(self, prefix: impl Into<Bytes>) -> Prefixed<Self> {
        Prefixed::new(self, prefix)
    }

    /// Gives each call at most `limit`: see [`Timed`].
    fn timed(self, limit: Duration) -> Timed<Self> {
        Timed::new(self, limit)
    }

    /// Tries again what may succeed the next time: see [`Retried`].
    fn retried(self, policy: RetryPolicy) -> Retried<Self> {
        Retried::new(self, policy)
    }

    /// Puts the store behind the common type.
    fn boxed(self) -> BoxStore
    where
        Self: 'static,
    {
        BoxStore::new(self)
    }
}

impl<S: Store> StoreExt for S {}

fn parse_cursor(text: &[u8]) -> Result<Position> {
    let parse = || {
        let (epoch, seq) = std::str::from_utf8(text).ok()?.split_once('.')?;
        Some(Position::new(epoch.parse().ok()?, seq.parse().ok()?))
    };
    parse().ok_or_else(|| Error::corrupt("a cursor that is not a position"))
}

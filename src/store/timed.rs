use super::{
    Batch, Capability, Effect, Entry, Error, Feed, Follower, LogId, Position, Receipt, Record, Result, Scan, Store,
};
use crate::env::Env;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Weak;
use std::time::Duration;

/// A store whose every call ends within a time limit. Made by [`StoreExt::timed`](super::StoreExt::timed).
///
/// It belongs right around the store that may hang, and inside a [`Retried`](super::Retried): each attempt then has
/// the whole limit, and an attempt that hangs leaves room for the next. Around a retry, the first attempt that hangs
/// would use up the time of all.
///
/// A call that is late fails with [`Error::Timeout`]; for a commit with [`Effect::Unknown`], since the store below may
/// have it already. A scan has the limit for each entry, from when it is asked for; a scan that is late has ended. A
/// feed's [`watch`](Feed::watch) waits for ever by its nature and has no limit.
///
/// ```
/// use outgrow::store::{LocalStore, StoreExt};
/// use std::time::Duration;
/// # futures::executor::block_on(async {
/// let store = LocalStore::in_memory().timed(Duration::from_secs(2));
/// store.put("7", "Ada").await?;
/// assert!(store.read(b"7").await?.is_some());
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Timed<S> {
    inner: S,
    limit: Duration,
    env: Env,
}

impl<S> Timed<S> {
    /// Gives each call of `inner` at most `limit`. A limit of zero fails whatever does not answer at once.
    pub fn new(inner: S, limit: Duration) -> Timed<S> {
        Timed {
            inner,
            limit,
            env: Env::default(),
        }
    }

    /// The world whose time counts. Default: [`Env::default`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Timed<S> {
        self.env = env;
        self
    }
}

impl<S: Send + Sync> Timed<S> {
    async fn within<T: Send>(&self, effect: Effect, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let answer = self.env.timeout(self.limit, call).await;
        answer.unwrap_or(Err(Error::Timeout { effect }))
    }

    fn each_within<'a, T: Send + 'a>(&'a self, entries: BoxStream<'a, Result<T>>) -> BoxStream<'a, Result<T>> {
        let next = move |mut entries: BoxStream<'a, Result<T>>| async move {
            let next = async { entries.next().await.transpose() };
            let entry = self.within(Effect::None, next).await?;
            Ok(entry.map(|entry| (entry, entries)))
        };
        stream::try_unfold(entries, next).boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Timed<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.within(Effect::None, self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        self.within(Effect::None, self.inner.get_many(keys)).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.each_within(self.inner.scan(scan))
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.within(Effect::Unknown, self.inner.commit(batch)).await
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Feed> Feed for Timed<S> {
    fn log(&self) -> LogId {
        self.inner.log()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        self.inner.watch(from)
    }

    async fn snapshot(&self) -> Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)> {
        let (at, entries) = self.within(Effect::None, self.inner.snapshot()).await?;
        Ok((at, self.each_within(entries)))
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        self.inner.attach(follower)
    }
}

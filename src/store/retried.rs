use super::retry::{Attempts, Budget, Verdict};
use super::{
    Batch, Capability, Entry, Error, Feed, Follower, LogId, Position, Receipt, Record, Result, RetryPolicy, Scan, Store,
};
use crate::env::{Env, Rng};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::{Arc, Weak};

/// A store that tries again what may succeed the next time. Made by [`StoreExt::retried`](super::StoreExt::retried).
///
/// It belongs around a [`Timed`](super::Timed), so that the limit is each attempt's own, and inside of caches, whose
/// hits need no retry: `store.timed(limit).retried(policy)`. One is enough in a stack: what it gives up on is
/// [`Error::Retried`], and a retry further out lets that pass. Clones share one budget.
///
/// - Reads are tried again after any error whose [`retry`](Error::retry) is [`May`](super::Retry::May). A scan goes on
///   after the last entry that it gave, and has all its attempts again for the next.
/// - A commit that failed with [`Effect::None`](super::Effect) is tried again likewise.
/// - A commit of unknown effect is tried again only if it cannot happen twice, because it breaks an expectation of its
///   own: [`Expect::At`](super::Expect) a version of a key that it writes, [`Absent`](super::Expect::Absent) of a key
///   that it sets for ever, [`Present`](super::Expect::Present) of a key that it deletes. (For the last two, somebody
///   else may undo the first attempt during the wait, and then the second happens too; with a version nobody can.)
///   If a later attempt fails for any reason, the earlier error is reported, in [`Error::Retried`] and of unknown
///   effect: a conflict would most often be one with the attempt before.
///
/// ```
/// use outgrow::store::{LocalStore, RetryPolicy, StoreExt};
/// use std::time::Duration;
/// # futures::executor::block_on(async {
/// let store = LocalStore::in_memory().timed(Duration::from_secs(1)).retried(RetryPolicy::default());
/// store.put("7", "Ada").await?;
/// assert!(store.read(b"7").await?.is_some());
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Retried<S> {
    inner: S,
    policy: RetryPolicy,
    env: Env,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    budget: Budget,
    rng: Rng,
}

impl<S> Retried<S> {
    /// Tries the calls of `inner` again as `policy` says.
    pub fn new(inner: S, policy: RetryPolicy) -> Retried<S> {
        let env = Env::default();
        let shared = Shared {
            budget: policy.new_budget(),
            rng: env.rng("retry"),
        };
        Retried {
            inner,
            policy,
            env,
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// The world whose time it waits in and whose chance spreads the waits. Default: [`Env::default`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Retried<S> {
        self.shared.lock().rng = env.rng("retry");
        self.env = env;
        self
    }

    /// Waits until the next attempt, or says why there is none.
    async fn after(&self, error: Error, attempts: &mut Attempts) -> Result<()> {
        let verdict = {
            let Shared { budget, rng } = &mut *self.shared.lock();
            attempts.failed(error, &self.policy, budget, rng)
        };
        match verdict {
            Verdict::GiveUp(error) => Err(error),
            Verdict::Again(wait) => {
                self.env.sleep(wait).await;
                Ok(())
            }
        }
    }

    async fn retry<T, F>(&self, mut attempts: Attempts, mut call: impl FnMut() -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        self.earn();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.after(error, &mut attempts).await?,
            }
        }
    }

    fn earn(&self) {
        self.shared.lock().budget.earn(&self.policy);
    }
}

/// A scan under way.
struct Walk<'a> {
    entries: BoxStream<'a, Result<(Bytes, Entry)>>,
    /// What is left of it.
    rest: Scan,
    attempts: Attempts,
}

impl<S: Store> Retried<S> {
    async fn next<'a>(&'a self, walk: &mut Walk<'a>) -> Result<Option<(Bytes, Entry)>> {
        loop {
            match walk.entries.next().await {
                None => return Ok(None),
                Some(Ok((key, entry))) => {
                    walk.rest = walk.rest.clone().after(key.clone(), 1);
                    walk.attempts = Attempts::reading();
                    return Ok(Some((key, entry)));
                }
                Some(Err(error)) => {
                    self.after(error, &mut walk.attempts).await?;
                    walk.entries = self.inner.scan(walk.rest.clone());
                }
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Retried<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.retry(Attempts::reading(), || self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        self.retry(Attempts::reading(), || self.inner.get_many(keys)).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.earn();
        let walk = Walk {
            entries: self.inner.scan(scan.clone()),
            rest: scan,
            attempts: Attempts::reading(),
        };
        let next = move |mut walk| async move { Ok(self.next(&mut walk).await?.map(|entry| (entry, walk))) };
        stream::try_unfold(walk, next).boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let attempts = Attempts::committing(&batch);
        self.retry(attempts, || self.inner.commit(batch.clone())).await
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Feed> Feed for Retried<S> {
    fn log(&self) -> LogId {
        self.inner.log()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    /// Not retried: who follows a feed starts again from where it got to.
    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        self.inner.watch(from)
    }

    async fn snapshot(&self) -> Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)> {
        self.retry(Attempts::reading(), || self.inner.snapshot()).await
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        self.inner.attach(follower)
    }
}

//! A task that frees what expires while nobody writes.

use super::cache::Cache;
use super::inner::Inner;
use super::shard::{LockedShard, Shard};
use super::word;
use super::write::Gone;
use crate::env::{Env, Task, give_way};
use crate::sync::pins;
use futures::channel::oneshot;
use futures::future::{Either, select};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the lock of a shard is taken before other tasks get a turn; each time frees up to eight entries.
const STEPS: usize = 32;

/// Tidies a cache from time to time; from [`Cache::ticker`]. Dropping it ends that soon, and waits for nothing.
#[must_use = "it stops when dropped"]
pub struct Ticker {
    stop: oneshot::Sender<()>,
    pub(super) task: Task<()>,
}

impl Ticker {
    /// Ends it, and waits until it does nothing any more.
    ///
    /// # Cancel safety
    /// It ends all the same.
    pub async fn close(self) {
        drop(self.stop);
        // A task that is gone has ended too.
        let _ended = self.task.await;
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker").finish_non_exhaustive()
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Starts a task, on the [`Env`] of the cache, that [tidies](Cache::tidy) it every `interval`, but looks only at the
    /// parts that have something to free. So an idle cache gives up what has expired, and the removal listener hears of it,
    /// within `interval` and 16 ms. Less than 16 ms is taken as that.
    ///
    /// It does not keep the cache: when the last handle is dropped, it ends. A turn frees at most 256 entries before it lets
    /// other tasks run.
    ///
    /// ```
    /// use outgrow::cache::{Cache, InsertOptions};
    /// use std::time::Duration;
    /// # use outgrow::env::Env;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let cache: Cache<u32, u32> = Cache::builder().env(Env::system()).build()?;
    /// let ticker = cache.ticker(Duration::from_millis(20));
    /// cache.insert_with(7, 7, InsertOptions::new().ttl(Duration::from_millis(5)));
    /// while !cache.is_empty() {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(cache.stats().expirations, 1);
    /// futures::executor::block_on(ticker.close());
    /// # Ok(()) }
    /// ```
    pub fn ticker(&self, interval: Duration) -> Ticker {
        let (stop, stopped) = oneshot::channel();
        let env = self.inner.time.env().clone();
        let interval = interval.max(Duration::from_millis(super::wheel::STEP_MS));
        let ticks = tick(Arc::downgrade(&self.inner), env.clone(), interval, stopped);
        Ticker {
            stop,
            task: env.spawn(ticks),
        }
    }
}

async fn tick<K, V, S>(inner: Weak<Inner<K, V, S>>, env: Env, interval: Duration, mut stopped: oneshot::Receiver<()>)
where
    K: Hash + Eq,
    S: BuildHasher,
{
    loop {
        let wait = pin!(env.sleep(interval));
        if let Either::Right(_) = select(wait, &mut stopped).await {
            return;
        }
        let mut number = 0;
        loop {
            // Only between two turns, so that the cache is not kept while this waits.
            let Some(inner) = inner.upgrade() else { return };
            let Some(shard) = inner.shards.get(number) else { break };
            if inner.has_work(shard) && (0..STEPS).all(|_| inner.tidy_some(shard)) {
                drop(inner);
                give_way().await;
                continue;
            }
            inner.free_now(shard);
            number += 1;
        }
        if let Some(inner) = inner.upgrade() {
            inner.shrink_shards();
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Frees a few entries of a shard that have expired, or whose tags have ended; false when there are no more.
    pub(super) fn tidy_some(&self, shard: &Shard<K, V>) -> bool {
        let pin = pins::pin();
        let mut gone = Gone::new();
        let mut locked = shard.lock();
        let now = self.now_for(&mut locked, word::NEVER);
        self.tidy(&mut locked, now, &mut self.budget.room(), &pin, &mut gone);
        let more = self.is_due(&mut locked);
        drop(locked);
        gone.tell(self.listener.as_ref());
        more
    }

    fn has_work(&self, shard: &Shard<K, V>) -> bool {
        self.is_due(&mut shard.lock())
    }

    /// Whether there are deadlines to look at, or entries that may carry a tag that has ended.
    fn is_due(&self, locked: &mut LockedShard<'_, K, V>) -> bool {
        let due = locked.state().next_due();
        due.is_some_and(|due| due <= self.time.now()) || !locked.is_swept(self.tag_ends())
    }
}

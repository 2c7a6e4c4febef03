use super::HAS_ONE;
use super::look::Ask;
use super::run::Called;
use super::seat::Boarded;
use crate::cache::{Cache, LoadError};
use crate::sync::{Condvar, Mutex};
use futures::task::{ArcWake, waker};
use std::borrow::Borrow;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// As [`get_or_load`](Cache::get_or_load), for a caller and a loader that block their thread. It waits with the async
    /// calls for the same load, whoever's that is, and may take over a loader that one of them began. That one is then
    /// polled on this thread, so what it needs there, a runtime's context say, has to be entered.
    ///
    /// Its loader never runs in the background. A stale value within
    /// [`stale_while_revalidate`](super::super::CacheBuilder::stale_while_revalidate) that nobody loads anew is loaded by
    /// this call, while others get the stale one. Not for use in a simulation, where no thread may wait for another.
    ///
    /// ```
    /// use outgrow::cache::Cache;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let squares: Cache<u32, u32> = Cache::builder().build()?;
    /// assert_eq!(squares.get_or_load_blocking(&3, |n| Ok::<_, std::io::Error>(n * n))?, 9);
    /// assert_eq!(squares.get(&3), Some(9));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Cache::get_or_load).
    ///
    /// # Panics
    /// When this call's turn at a loader panics; the next who waits then starts its own.
    pub fn get_or_load_blocking<Q, F, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Result<V, E>,
        E: Send + Sync + 'static,
    {
        let hash = self.inner.hash(key);
        let boarded = match self.inner.board(hash, key, Ask::VALUE, true, &|_| true) {
            Boarded::Answer(Some(value)) => return Ok(value),
            boarded => boarded,
        };
        let value = self.pursue(hash, key, Ask::VALUE, |_| true, Called::new(load), boarded);
        Ok(block_on(value)?.expect(HAS_ONE))
    }
}

/// What a thread sleeps at until it is woken.
#[derive(Default)]
struct Bed {
    woken: Mutex<bool>,
    news: Condvar,
}

impl ArcWake for Bed {
    fn wake_by_ref(bed: &Arc<Bed>) {
        *bed.woken.lock() = true;
        bed.news.notify_one();
    }
}

/// Polls `future` on this thread until it is ready. Unlike the executor's of the same name it may be called inside a
/// future that is polled by such a call.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bed = Arc::<Bed>::default();
    let waker = waker(Arc::clone(&bed));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = bed.woken.lock();
        while !std::mem::take(&mut *woken) {
            bed.news.wait(&mut woken);
        }
    }
}

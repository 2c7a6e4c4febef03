use crate::cache::flight::{Failure, Loaded, Start};
use crate::cache::inner::Inner;
use crate::cache::stats::Count;
use crate::cache::{InsertOptions, LoadError, trace};
use crate::env::Tick;
use crate::sync::pin;
use futures::FutureExt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How a call loads: by polling a future, or by blocking in a function.
pub(super) trait Loader<K, V> {
    type Error: Send + Sync + 'static;

    /// Whether what it starts can be polled in the background.
    const IS_POLLED: bool;

    /// Starts loading `key`, once at most; `run` measures it.
    fn start<S: Send + Sync + 'static>(&mut self, key: K, run: Run<K, V, S>) -> Start<V>
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static;
}

/// Makes a future that loads.
pub(super) struct Polled<F>(Option<F>);

/// A function that blocks until it has loaded.
pub(super) struct Called<F>(Option<F>);

impl<F> Polled<F> {
    pub(super) fn new(load: F) -> Polled<F> {
        Polled(Some(load))
    }
}

impl<F> Called<F> {
    pub(super) fn new(load: F) -> Called<F> {
        Called(Some(load))
    }
}

const ONCE: &str = "a call starts its loader once, and ends with what that yields";

impl<K, V, F, Fut, E> Loader<K, V> for Polled<F>
where
    F: FnOnce(K) -> Fut,
    Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    type Error = E;

    const IS_POLLED: bool = true;

    fn start<S: Send + Sync + 'static>(&mut self, key: K, run: Run<K, V, S>) -> Start<V>
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let load = self.0.take().expect(ONCE);
        Start::Work(trace::load(load(key)).map(|loaded| run.end(loaded)).boxed())
    }
}

impl<K, V, F, E> Loader<K, V> for Called<F>
where
    F: FnOnce(K) -> Result<V, E>,
    E: Send + Sync + 'static,
{
    type Error = E;

    const IS_POLLED: bool = false;

    fn start<S: Send + Sync + 'static>(&mut self, key: K, run: Run<K, V, S>) -> Start<V>
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let load = self.0.take().expect(ONCE);
        Start::Done(run.end(load(key).map(Loaded::from)))
    }
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Loaded<V> {
        Loaded::optional(Some(value))
    }
}

impl<V> Loaded<V> {
    pub(super) fn optional(value: Option<V>) -> Loaded<V> {
        Loaded {
            value,
            options: InsertOptions::new(),
        }
    }
}

/// A loader that runs. Counts it, and how long it takes; one that is dropped before its end failed if it panicked or was
/// out of time, and else nobody waited for it any more.
pub(super) struct Run<K, V, S> {
    inner: Arc<Inner<K, V, S>>,
    begun: Tick,
    due: Option<Tick>,
    cut_short: bool,
}

impl<K, V, S> Run<K, V, S> {
    pub(super) fn begin(inner: &Arc<Inner<K, V, S>>, due: Option<Tick>) -> Run<K, V, S> {
        inner.counters.add(&pin(), Count::Loads, 1);
        Run {
            inner: Arc::clone(inner),
            begun: inner.time.read(),
            due,
            cut_short: true,
        }
    }

    /// Notes what came of it, and hides the type of its error.
    pub(super) fn end<T, E: Send + Sync + 'static>(mut self, loaded: Result<T, E>) -> Result<T, Failure> {
        self.cut_short = false;
        match loaded {
            Ok(loaded) => {
                self.inner.flights.took(self.time());
                Ok(loaded)
            }
            Err(error) => {
                self.inner.counters.add(&pin(), Count::LoadErrors, 1);
                Err(Failure::Error(Arc::new(error)))
            }
        }
    }

    fn time(&self) -> Duration {
        self.inner.time.read() - self.begun
    }
}

impl<K, V, S> Drop for Run<K, V, S> {
    fn drop(&mut self) {
        let (time, pin) = (self.time(), pin());
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.inner.counters.add(&pin, Count::LoadNanos, nanos);
        let out_of_time = || self.due.is_some_and(|due| due <= self.begun + time);
        if self.cut_short && (std::thread::panicking() || out_of_time()) {
            self.inner.counters.add(&pin, Count::LoadErrors, 1);
        }
    }
}

/// What a failure is to a caller whose loader fails with an `E`; `None` if it is none of its own.
pub(super) fn own_error<E: Send + Sync + 'static>(failure: &Failure) -> Option<LoadError<E>> {
    match failure {
        Failure::Error(error) => Arc::clone(error).downcast().ok().map(LoadError::Failed),
        Failure::TimedOut(after) => Some(LoadError::TimedOut { after: *after }),
        Failure::Lost => None,
    }
}

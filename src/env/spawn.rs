use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs futures in the background. Callers use [`Env::spawn`](super::Env::spawn) and its kin.
///
/// A future handed over never panics: [`Env`](super::Env) catches that and reports it through the [`Task`].
pub trait Spawn: Send + Sync {
    /// Runs a future that does not block its thread.
    fn spawn(&self, future: BoxFuture<'static, ()>);

    /// Runs a future that may block, on a thread of its own.
    ///
    /// # Errors
    /// When the operating system refuses another thread.
    fn spawn_dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> io::Result<()>;

    /// Runs a short future that may block, on a thread shared with others of its kind.
    fn spawn_blocking(&self, future: BoxFuture<'static, ()>);
}

/// Waits for a spawned future. Dropping it detaches: the future runs on.
#[must_use = "a task that nobody waits for should be detached by name"]
pub struct Task<T> {
    done: oneshot::Receiver<T>,
}

impl<T> Task<T> {
    /// Lets the future run on by itself.
    pub fn detach(self) {}
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskGone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.done.poll_unpin(cx).map_err(|_| TaskGone)
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

/// The task ended without a result: it panicked, or its executor (or simulated machine) is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task ended without a result: it panicked or its executor is gone")]
pub struct TaskGone;

impl From<TaskGone> for io::Error {
    fn from(gone: TaskGone) -> io::Error {
        io::Error::other(gone)
    }
}

/// Splits `future` into the half that waits and the half that runs.
pub(super) fn task<F>(future: F) -> (Task<F::Output>, BoxFuture<'static, ()>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (send, done) = oneshot::channel();
    // Not an async block, which would keep `future` twice: where it was captured, and where it is awaited.
    let run = AssertUnwindSafe(future).catch_unwind().map(|output| {
        if let Ok(output) = output {
            // Nobody may be waiting any more; that is what detaching means.
            drop(send.send(output));
        }
    });
    (Task { done }, run.boxed())
}

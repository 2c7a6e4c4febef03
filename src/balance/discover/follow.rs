use super::DiscoveryError;
use crate::balance::background::{Background, brief};
use crate::balance::pool::WeakPool;
use crate::balance::{Balancer, Endpoint, NeedsSpawner, Pool};
use crate::env::{Env, Task};
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    /// Follows a source of endpoint sets: a future that [updates](Pool::update) the pool with each set, and keeps what
    /// the pool has when an item is an error. What it did is told by [`status`](Pool::status).
    ///
    /// Nothing happens until the future is polled: spawn it on your runtime, or call [`Follow::spawn`]. It holds the pool
    /// weakly, and ends when the stream ends or the last handle of the pool is gone. A pool follows one source at a time:
    /// another future that begins takes over, and the former one ends.
    ///
    /// # Cancel safety
    /// Dropping the future ends the following and leaves the pool with the last set.
    pub fn follow<S>(&self, sets: S) -> Follow<B, T>
    where
        S: Stream<Item = Result<Vec<Endpoint<T>>, DiscoveryError>> + Send + 'static,
    {
        let background = Arc::clone(self.background());
        Follow {
            env: self.env().clone(),
            work: Some(Work {
                pool: self.downgrade(),
                env: self.env().clone(),
                background,
                source: "stream".to_owned(),
                on_empty: OnEmpty::default(),
                sets: sets.boxed(),
            }),
            running: None,
        }
    }
}

/// What happens when a source says that there are no endpoints.
///
/// A registry that has lost its data, a file that was cut and a name that somebody deleted by mistake look the same as a
/// service that was shut down on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum OnEmpty {
    /// The pool keeps the endpoints that it has, and its status says so. The default.
    #[default]
    Keep,
    /// The pool has no endpoints then.
    Apply,
}

/// A future that keeps a pool's endpoints as a source says; from [`Pool::follow`].
///
/// ```
/// use futures::StreamExt;
/// use futures::channel::mpsc;
/// use outgrow::balance::discover::OnEmpty;
/// use outgrow::balance::{Endpoint, Pool, RoundRobin};
///
/// let pool = Pool::builder(RoundRobin::default()).endpoints([Endpoint::new("fallback")]).build();
/// let (say, sets) = mpsc::unbounded();
/// let follow = pool.follow(sets.map(Ok)).source("push").on_empty(OnEmpty::Apply);
/// say.unbounded_send(vec![Endpoint::new("a"), Endpoint::new("b")])?;
/// say.unbounded_send(vec![])?;
/// drop(say);
/// futures::executor::block_on(follow);
/// assert!(pool.status().endpoints.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a pool follows nothing until the future is spawned or awaited"]
pub struct Follow<B: Balancer, T: Send + Sync + 'static = ()> {
    env: Env,
    /// Until the first poll.
    work: Option<Work<B, T>>,
    running: Option<BoxFuture<'static, ()>>,
}

impl<B: Balancer, T: Send + Sync + 'static> Follow<B, T> {
    /// The name of the source in the pool's status. Default: `stream`. Has no effect once the future was polled.
    pub fn source(mut self, name: impl Into<String>) -> Self {
        if let Some(work) = &mut self.work {
            work.source = name.into();
        }
        self
    }

    /// What happens when a set is empty. Default: [`OnEmpty::Keep`]. Has no effect once the future was polled.
    pub fn on_empty(mut self, choice: OnEmpty) -> Self {
        if let Some(work) = &mut self.work {
            work.on_empty = choice;
        }
        self
    }

    /// Spawns the future on the user's runtime that the pool's [`Env`] has: tokio's with `Env::tokio`, or that of
    /// [`spawner`](crate::env::EnvBuilder::spawner). Dropping the [`Task`] lets it run on.
    ///
    /// # Errors
    /// [`NeedsSpawner`] when there is none.
    pub fn spawn(self) -> Result<Task<()>, NeedsSpawner> {
        self.env.clone().spawn_user(self).ok_or(NeedsSpawner)
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Future for Follow<B, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = self.work.take() {
            self.running = Some(work.run().boxed());
        }
        let Some(running) = &mut self.running else {
            return Poll::Ready(());
        };
        let done = running.poll_unpin(cx);
        if done.is_ready() {
            self.running = None;
        }
        done
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Follow<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.work.as_ref().map(|work| &work.source);
        f.debug_struct("Follow")
            .field("source", &source)
            .finish_non_exhaustive()
    }
}

struct Work<B: Balancer, T: Send + Sync + 'static> {
    pool: WeakPool<B, T>,
    env: Env,
    background: Arc<Background>,
    source: String,
    on_empty: OnEmpty,
    sets: BoxStream<'static, Result<Vec<Endpoint<T>>, DiscoveryError>>,
}

impl<B: Balancer, T: Send + Sync + 'static> Work<B, T> {
    async fn run(mut self) {
        let post = Holding::take(&self.background, &self.env, self.source, self.on_empty);
        let background = &*post.background;
        loop {
            let over = pin!(background.over(&background.discovery, post.turn));
            match select(over, self.sets.next()).await {
                Either::Right((Some(item), _)) => post.apply(&self.pool, self.on_empty, item),
                Either::Right((None, _)) | Either::Left(_) => return,
            }
        }
    }
}

/// The post of the pool's follower, given back when dropped.
struct Holding {
    background: Arc<Background>,
    env: Env,
    turn: u64,
}

impl Holding {
    fn take(background: &Arc<Background>, env: &Env, source: String, on_empty: OnEmpty) -> Holding {
        let now = env.now();
        let turn = background.take(&background.discovery, |journal| journal.begin(source, on_empty, now));
        Holding {
            background: Arc::clone(background),
            env: env.clone(),
            turn,
        }
    }

    /// Applies an item, unless somebody else follows by now: a set must not come after that one's.
    fn apply<B: Balancer, T: Send + Sync + 'static>(
        &self,
        pool: &WeakPool<B, T>,
        on_empty: OnEmpty,
        item: Result<Vec<Endpoint<T>>, DiscoveryError>,
    ) {
        // Before the post's lock and dropped after it: this may be the last handle, whose end is told to the post.
        let Some(pool) = pool.upgrade() else { return };
        let now = self.env.now();
        self.background.discovery.work(self.turn, |journal| match item {
            Ok(set) if set.is_empty() && on_empty == OnEmpty::Keep => journal.kept_for_empty(now),
            Ok(set) => {
                pool.update(set);
                journal.applied(now);
            }
            Err(error) => journal.failed(brief(&error), now),
        });
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let now = self.env.now();
        self.background.discovery.work(self.turn, |journal| journal.ended(now));
    }
}

//! Active checks: asking endpoints whether they are well before a request does.

mod gate;
mod ledger;
mod rota;
mod run;
#[cfg(feature = "tokio")]
mod tcp;

pub use ledger::CheckStatus;
pub(super) use ledger::Ledger;
#[cfg(feature = "tokio")]
pub use tcp::TcpCheck;

use super::{Balancer, Endpoint, NeedsSpawner, Pool};
use crate::env::{Env, Task};
use futures::FutureExt;
use futures::future::BoxFuture;
use rota::Rules;
use run::Work;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A question to an endpoint whether it is well: a connection that opens, a page that answers, a query.
///
/// Any closure that takes an endpoint and gives a future of a `Result` is one; the future takes what it needs of the
/// endpoint with it. It is dropped when it takes longer than the [`timeout`](HealthChecks::timeout).
///
/// ```
/// use outgrow::balance::{Check, Endpoint};
///
/// fn is_check<T: Send + Sync + 'static>(_: &impl Check<T>) {}
/// is_check::<u16>(&|endpoint: &Endpoint<u16>| {
///     let port = endpoint.target;
///     async move { if port == 80 { Ok(()) } else { Err("nobody answers") } }
/// });
/// ```
pub trait Check<T: Send + Sync + 'static = ()>: Send + Sync + 'static {
    /// Why an endpoint is not well. Its text is kept for the status.
    type Error: fmt::Display + Send;

    /// Asks `endpoint`.
    fn check(&self, endpoint: &Endpoint<T>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<T, F, Fut, E> Check<T> for F
where
    T: Send + Sync + 'static,
    F: Fn(&Endpoint<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: fmt::Display + Send,
{
    type Error = E;

    fn check(&self, endpoint: &Endpoint<T>) -> impl Future<Output = Result<(), E>> + Send {
        self(endpoint)
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    /// Checks the endpoints again and again, those that are drained or ejected too, and keeps those that fail out of the
    /// pick range. What the checks found is told by [`status`](Pool::status).
    ///
    /// The first check of an endpoint decides by itself whether it is healthy; until then it is taken to be.
    pub fn check<C: Check<T>>(&self, check: C) -> HealthChecks<B, T, C> {
        HealthChecks::new(self, check)
    }
}

/// A future that checks a pool's endpoints; from [`Pool::check`].
///
/// Nothing happens until it is polled: spawn it on your runtime, or call [`spawn`](HealthChecks::spawn). It polls the
/// checks itself. It holds the pool weakly, follows every change of the membership at once, and ends when the last handle
/// of the pool is gone. A pool is checked by one such future at a time: another that begins takes over, and the former one
/// ends.
///
/// An endpoint that dies is out after at most `fall` intervals and `fall` timeouts, if no more than
/// [`at_once`](HealthChecks::at_once) endpoints hang.
///
/// # Cancel safety
/// Dropping the future drops the checks that are running, and lets those that were out for their checks' sake back in:
/// nobody would find out that they are well again.
///
/// ```
/// use futures::FutureExt;
/// use outgrow::balance::{Endpoint, Pool, Request, RoundRobin};
/// use outgrow::sim::World;
/// use std::time::Duration;
///
/// let world = World::new(1);
/// let pool = Pool::builder(RoundRobin::default())
///     .endpoints([Endpoint::new("a").target(true), Endpoint::new("b").target(false)])
///     .env(world.env())
///     .build();
/// let checks = pool.check(|endpoint: &Endpoint<bool>| {
///     let well = endpoint.target;
///     async move { if well { Ok(()) } else { Err("not well") } }
/// });
/// world.env().spawn(checks.interval(Duration::from_secs(1))).detach();
/// world.run_for(Duration::from_secs(10));
/// for _ in 0..4 {
///     assert_eq!(&**pool.pick(&Request::new())?.id(), "a");
/// }
/// let b = pool.status().endpoints[1].check.clone().expect("it was checked");
/// assert!(!b.healthy && b.failed >= 9 && b.last_error.as_deref() == Some("not well"));
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
#[must_use = "nothing is checked until the future is spawned or awaited"]
pub struct HealthChecks<B: Balancer, T: Send + Sync + 'static, C> {
    env: Env,
    /// Until the first poll.
    work: Option<Work<B, T, C>>,
    running: Option<BoxFuture<'static, ()>>,
}

impl<B: Balancer, T: Send + Sync + 'static, C: Check<T>> HealthChecks<B, T, C> {
    /// Checks the endpoints of `pool` by `check`; the same as [`Pool::check`].
    pub fn new(pool: &Pool<B, T>, check: C) -> HealthChecks<B, T, C> {
        HealthChecks {
            env: pool.env().clone(),
            work: Some(Work {
                pool: pool.downgrade(),
                env: pool.env().clone(),
                background: Arc::clone(pool.background()),
                check: Arc::new(check),
                rules: Rules::default(),
                timeout: Duration::from_secs(2),
                at_once: 64,
            }),
            running: None,
        }
    }

    /// The time from the end of a check to the next of the same endpoint. Default: 5 s. Less than a millisecond is taken
    /// as one.
    pub fn interval(self, interval: Duration) -> Self {
        self.with(|work| work.rules.interval = interval)
    }

    /// Another interval for endpoints that are out for their checks' sake: shorter to take them back sooner, or longer to
    /// leave them in peace. Default: the same interval.
    pub fn unhealthy_interval(self, interval: Duration) -> Self {
        self.with(|work| work.rules.unhealthy_interval = Some(interval))
    }

    /// By what share chance makes an interval longer or shorter, so that the checks do not come in bursts. Default: 0.1,
    /// kept within 0 and 1.
    pub fn jitter(self, share: f64) -> Self {
        self.with(|work| work.rules.jitter = share)
    }

    /// How long a check may take; longer is a failure. Default: 2 s. At zero only what is ready at once passes.
    pub fn timeout(self, limit: Duration) -> Self {
        self.with(|work| work.timeout = limit)
    }

    /// Checks in a row that an unhealthy endpoint must pass to be picked again. Default: 2; 0 is taken as 1.
    pub fn rise(self, passes: u32) -> Self {
        self.with(|work| work.rules.rise = passes)
    }

    /// Checks in a row that a healthy endpoint must fail to be out. Default: 3; 0 is taken as 1.
    pub fn fall(self, failures: u32) -> Self {
        self.with(|work| work.rules.fall = failures)
    }

    /// The most checks that run at once; the others wait their turn. Default: 64; 0 is taken as 1.
    pub fn at_once(self, checks: usize) -> Self {
        self.with(|work| work.at_once = checks)
    }

    /// Spawns the future on the user's runtime that the pool's [`Env`] has: tokio's with `Env::tokio`, or that of
    /// [`spawner`](crate::env::EnvBuilder::spawner). Dropping the [`Task`] lets it run on.
    ///
    /// # Errors
    /// [`NeedsSpawner`] when there is none.
    pub fn spawn(self) -> Result<Task<()>, NeedsSpawner> {
        self.env.clone().spawn_user(self).ok_or(NeedsSpawner)
    }

    fn with(mut self, change: impl FnOnce(&mut Work<B, T, C>)) -> Self {
        self.work.as_mut().map(change);
        self
    }
}

/// The check is behind an `Arc`, and what is pinned is in a box.
impl<B: Balancer, T: Send + Sync + 'static, C> Unpin for HealthChecks<B, T, C> {}

impl<B: Balancer, T: Send + Sync + 'static, C: Check<T>> Future for HealthChecks<B, T, C> {
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

impl<B: Balancer, T: Send + Sync + 'static, C> fmt::Debug for HealthChecks<B, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.work.as_ref().map(|work| &work.rules);
        f.debug_struct("HealthChecks")
            .field("rules", &rules)
            .finish_non_exhaustive()
    }
}

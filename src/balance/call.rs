use super::attempts::{Call, Done, Plan, Try, Verdict};
use super::hedge::Hedging;
use super::shared::SharedNode;
use super::{
    Balancer, Endpoint, EndpointId, Failure, Hedge, Lease, Outcome, PickError, Pool, Request, RetryBudget, ServerLoad,
};
use crate::env::{Env, Tick};
use crate::sync::Mutex;
use futures::future::{Either, select};
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Sends requests to a pool's endpoints: picks, limits the time, judges the answer, tells the pool, and tries another
/// endpoint where that can help. From [`Pool::caller`].
///
/// What it needs to know of a request is a closure that sends it and one that judges the answer; it opens no connections
/// and has no tasks, so it runs on any runtime and in a simulation, by the pool's [`Env`].
///
/// - **Retries** go to endpoints that the call has not tried, while there are some. The first follows at once, later ones
///   after a [pause](Caller::backoff). Unless [told otherwise](Caller::retry), a request is tried again only when no
///   connection could be had, so that nothing happens twice.
/// - When the pool has **no room** or no endpoint that is well, it waits and picks again. There is no waiting for a pool without
///   endpoints, or past the request's deadline.
/// - A [budget](RetryBudget) bounds what retries and hedges add to the load of the endpoints.
/// - A **time limit** that passes is a [`Failure::Timeout`] of the endpoint's. So is the deadline for a call's first attempt;
///   what the deadline cuts off a later one, or a hedge, counts as cancelled, since that may have had too little time.
///
/// Clones share the budget and what hedging has learned, so that a service is best called through clones of one
/// `Caller`; they may differ in the rest, such as whether a request may be retried.
///
/// ```
/// use outgrow::balance::{Endpoint, Failure, Outcome, Pool, PowerOfTwo, Request, Retry};
/// use std::time::Duration;
///
/// # futures::executor::block_on(async {
/// let pool = Pool::builder(PowerOfTwo::default())
///     .endpoints([Endpoint::new("a").target(7), Endpoint::new("b").target(0), Endpoint::new("c").target(7)])
///     .build();
/// let caller = pool.caller().attempts(3).attempt_timeout(Duration::from_secs(1)).retry(Retry::Always);
/// let judge = |answer: &Result<i32, &str>| match answer {
///     Ok(_) => Outcome::Success,
///     Err(_) => Outcome::Failure(Failure::Response),
/// };
/// for _ in 0..20 {
///     let send = |endpoint: outgrow::balance::Attempt<_, i32>| async move {
///         if endpoint.target == 0 { Err("division by zero") } else { Ok(42 / endpoint.target) }
///     };
///     assert_eq!(caller.call(&Request::new(), judge, send).await, Ok(6));
/// }
/// # });
/// ```
pub struct Caller<B: Balancer, T: Send + Sync + 'static = ()> {
    pool: Pool<B, T>,
    plan: Plan,
    attempt_timeout: Option<Duration>,
}

/// Which failures let a request be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// [`Failure::Connect`] only: whatever the request asks for has not happened.
    #[default]
    Connect,
    /// All. For requests that are idempotent: carrying one out twice is as good as once. Only these are hedged.
    Always,
}

impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    /// Starts a caller, which picks, sends, tries again and hedges.
    pub fn caller(&self) -> Caller<B, T> {
        Caller::new(self.clone())
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Caller<B, T> {
    /// A caller of the pool's endpoints; the same as [`Pool::caller`].
    #[must_use]
    pub fn new(pool: Pool<B, T>) -> Caller<B, T> {
        Caller {
            pool,
            plan: Plan::default(),
            attempt_timeout: None,
        }
    }

    /// How often a call picks at most, the first time included. Default: 3. With 1, and 0, nothing is tried again.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.plan.attempts = attempts;
        self
    }

    /// How long an attempt may take. By default only the request's deadline bounds it. A hedge is limited as what it hedges,
    /// each from its own start.
    #[must_use]
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = Some(limit);
        self
    }

    /// Which failures let a request be sent again. Default: [`Retry::Connect`].
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.plan.retry = retry;
        self
    }

    /// What retries and hedges are paid from. Default: a [budget](RetryBudget::default) of its own and its clones'. Callers
    /// of one service through several pools do well to share one.
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.plan.budget = budget;
        self
    }

    /// How long to wait before picking again after the pool had no room or nobody who is well, and before the second retry
    /// and later ones: a random time below a bound that begins at `first` and doubles each time up to `longest`; and for the
    /// return of the first ejected endpoint, if that is no later than `longest`. Default: 10 ms and 1 s. With zeros there
    /// is no waiting.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.plan.first = first;
        self.plan.longest = longest;
        self
    }

    /// Sends a second request when the first takes long; heeded for [`Retry::Always`] only. By default there are no hedges.
    /// Sets the percentile anew: it learns from the calls of this caller and its later clones.
    #[must_use]
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.plan.hedging = Some(Arc::new(Hedging::new(hedge)));
        self
    }

    /// The pool that it calls.
    #[must_use]
    pub fn pool(&self) -> &Pool<B, T> {
        &self.pool
    }

    /// Sends a request by `send`, and again as the rules say; `judge` tells how it went. What is not a
    /// [failure](Outcome::Failure) nor a [back-off](Outcome::Backoff) by its judgement is returned at once.
    ///
    /// The lease of an endpoint ends with the future of its attempt: what belongs to the answer, such as reading its body,
    /// belongs into that. If the last answer that there was is `Ok`, it is returned, even when it was judged a failure.
    ///
    /// # Errors
    /// [`CallError`], with the last error and how many requests were sent.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempts that are under way, which count as cancelled: nothing is left in flight. What
    /// they asked of their endpoints may or may not have happened.
    pub async fn call<R, E, F>(
        &self,
        request: &Request<'_>,
        judge: impl Fn(&Result<R, E>) -> Outcome,
        mut send: impl FnMut(Attempt<B, T>) -> F,
    ) -> Result<R, CallError<E>>
    where
        F: Future<Output = Result<R, E>>,
    {
        let tried = Mutex::new(request.avoid.to_vec());
        let call = Call {
            plan: &self.plan,
            env: self.env(),
            dice: &self.pool.shared.dice,
            retry: self.plan.retry,
            deadline: request.deadline,
        };
        let begin = |this: Try| {
            let picked = self.pick(request, &tried, this).map(|lease| {
                let limit = self.limit(request);
                let answer = send(Attempt::new(&lease, this, limit.map(|limit| limit.at)));
                UnderWay { lease, limit, answer }
            });
            self.follow(picked, this, &judge)
        };
        let (answer, attempts) = call.run(begin).await;
        answer.map_err(|cause| CallError { attempts, cause })
    }

    fn env(&self) -> &Env {
        &self.pool.shared.core.env
    }

    /// Picks an endpoint that was not tried, or one that was if there is no other and it is not for a hedge.
    fn pick(&self, request: &Request<'_>, tried: &Mutex<Vec<EndpointId>>, this: Try) -> Result<Lease<B, T>, Verdict> {
        let mut tried = tried.lock();
        let request = Request {
            avoid: &tried,
            ..*request
        };
        let lease = self.pool.pick(&request).map_err(Verdict::Refused)?;
        if this.hedge && tried.contains(lease.id()) {
            return Err(Verdict::NoOther);
        }
        tried.push(lease.id().clone());
        Ok(lease)
    }

    /// How long an attempt that begins now may take.
    fn limit(&self, request: &Request<'_>) -> Option<Limit> {
        let whole = self.attempt_timeout.map(|limit| self.env().now() + limit);
        let (at, whole) = match (whole, request.deadline) {
            (Some(whole), Some(deadline)) => (whole.min(deadline), whole <= deadline),
            (Some(whole), None) => (whole, true),
            (None, deadline) => (deadline?, false),
        };
        Some(Limit { at, whole })
    }

    /// Waits for an answer, tells the pool, and says what it means.
    async fn follow<R, E, F>(
        &self,
        picked: Result<UnderWay<B, T, F>, Verdict>,
        this: Try,
        judge: &impl Fn(&Result<R, E>) -> Outcome,
    ) -> Done<Result<R, Cause<E>>>
    where
        F: Future<Output = Result<R, E>>,
    {
        let UnderWay { lease, limit, answer } = match picked {
            Ok(picked) => picked,
            Err(verdict) => {
                let error = match verdict {
                    Verdict::Refused(error) => error,
                    _ => PickError::NoEndpoints,
                };
                return Done {
                    output: Err(Cause::Pick(error)),
                    verdict,
                };
            }
        };
        let answer = match limit {
            None => Some(answer.await),
            Some(limit) => match select(pin!(answer), self.env().sleep_until(limit.at)).await {
                Either::Left((answer, _)) => Some(answer),
                Either::Right(_) => None,
            },
        };
        let (outcome, output) = match answer {
            Some(answer) => (judge(&answer), answer.map_err(Cause::Failed)),
            None => {
                let blamed = limit.is_some_and(|limit| limit.whole) || (this.number == 1 && !this.hedge);
                let outcome = if blamed {
                    Outcome::Failure(Failure::Timeout)
                } else {
                    Outcome::Cancelled
                };
                (outcome, Err(Cause::Timeout))
            }
        };
        lease.finish(outcome);
        Done {
            output,
            verdict: outcome.into(),
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Clone for Caller<B, T> {
    fn clone(&self) -> Self {
        Caller {
            pool: self.pool.clone(),
            plan: self.plan.clone(),
            attempt_timeout: self.attempt_timeout,
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Caller<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("plan", &self.plan)
            .field("attempt_timeout", &self.attempt_timeout)
            .finish_non_exhaustive()
    }
}

/// An attempt that was begun.
struct UnderWay<B: Balancer, T: Send + Sync + 'static, F> {
    lease: Lease<B, T>,
    limit: Option<Limit>,
    answer: F,
}

#[derive(Clone, Copy)]
struct Limit {
    /// When the attempt is given up.
    at: Tick,
    /// Whether it will then have had the whole time that attempts have.
    whole: bool,
}

/// One of the times that a call sends its request; derefs to the endpoint that it goes to.
pub struct Attempt<B: Balancer, T: Send + Sync + 'static = ()> {
    node: SharedNode<B, T>,
    this: Try,
    ends: Option<Tick>,
}

impl<B: Balancer, T: Send + Sync + 'static> Attempt<B, T> {
    fn new(lease: &Lease<B, T>, this: Try, ends: Option<Tick>) -> Attempt<B, T> {
        Attempt {
            node: lease.share(),
            this,
            ends,
        }
    }

    /// Which attempt of its call it is, from 1. A hedge has the number of the attempt that it is for.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.this.number
    }

    /// Whether it is a hedge.
    #[must_use]
    pub fn is_hedge(&self) -> bool {
        self.this.hedge
    }

    /// When it will be given up, by the clock of the pool's environment; worth telling the endpoint.
    #[must_use]
    pub fn ends(&self) -> Option<Tick> {
        self.ends
    }

    /// Notes what the endpoint says of its own load; see [`Lease::report_load`].
    pub fn report_load(&self, load: ServerLoad) {
        self.node.report(load);
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Deref for Attempt<B, T> {
    type Target = Endpoint<T>;

    fn deref(&self) -> &Endpoint<T> {
        &self.node.endpoint
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Attempt<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", self.id())
            .field("this", &self.this)
            .finish_non_exhaustive()
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause} (requests sent: {attempts})")]
#[non_exhaustive]
pub struct CallError<E> {
    /// How many requests were sent, hedges included.
    pub attempts: u32,
    /// What became of the last of them; without any, why there was no endpoint.
    #[source]
    pub cause: Cause<E>,
}

/// What a call ended with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause<E> {
    /// There was no endpoint, so nothing was sent.
    #[error(transparent)]
    Pick(PickError),
    /// There was no answer in time. Whether what was asked for has happened is not known.
    #[error("there was no answer in time")]
    Timeout,
    /// The last error of the closure that sends.
    #[error(transparent)]
    Failed(E),
}

use super::{Avoid, Deadline};
use crate::balance::attempts::{Call, Done, Plan, Verdict};
use crate::balance::dice::Dice;
use crate::balance::hedge::Hedging;
use crate::balance::{Hedge, Retry, RetryBudget};
use crate::env::{Env, Tick};
use futures::future::BoxFuture;
use http::Method;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Sends requests again that fail, to endpoints that they have not been to, and hedges those that take long.
///
/// It stands above a [`BalanceService`](super::BalanceService), which tells it how a request went; layers between
/// the two are no harm if they let the request's extensions through. It is the [`Caller`](crate::balance::Caller) of a
/// stack of services, and follows the same rules: what may have happened is not asked for twice unless the [request
/// is idempotent](Retriable::is_idempotent), and a [budget](RetryBudget) bounds retries and hedges together. For hedges
/// alone, allow one [attempt](RetryLayer::attempts).
///
/// Services made by clones of one layer share the budget and what hedging has learned. A request costs an allocation.
/// A response counts as answered when its head is there: what fails with its body is not sent again.
///
/// ```
/// use outgrow::balance::Hedge;
/// use outgrow::balance::tower::RetryLayer;
/// let layer = RetryLayer::new().attempts(2).hedge(Hedge::after_percentile(95.0));
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct RetryLayer {
    plan: Plan,
    /// For all requests, if they are not to be asked.
    retry: Option<Retry>,
    env: Env,
    dice: Arc<Dice>,
}

impl RetryLayer {
    /// Three attempts, under a budget of its own, by the rules of the requests' methods.
    #[must_use]
    pub fn new() -> RetryLayer {
        let env = Env::default();
        RetryLayer {
            plan: Plan::default(),
            retry: None,
            dice: Arc::new(Dice::new(env.rng("retries"))),
            env,
        }
    }

    /// How often a request is sent at most, the first time included and hedges not. Default: 3. With 1, and 0, nothing is
    /// sent again.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.plan.attempts = attempts;
        self
    }

    /// What retries and hedges are paid from. Default: a [budget](RetryBudget::default) of this layer's own.
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.plan.budget = budget;
        self
    }

    /// How long to wait; see [`Caller::backoff`](crate::balance::Caller::backoff). Default: 10 ms and 1 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.plan.first = first;
        self.plan.longest = longest;
        self
    }

    /// Sends a second request when the first takes long. By default there are no hedges.
    #[must_use]
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.plan.hedging = Some(Arc::new(Hedging::new(hedge)));
        self
    }

    /// Which failures let a request be sent again, whatever it says of itself. By default [it is
    /// asked](Retriable::is_idempotent).
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Takes time and chance from `env`; by default from [`Env::default`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.dice = Arc::new(Dice::new(env.rng("retries")));
        self.env = env;
        self
    }
}

impl Default for RetryLayer {
    fn default() -> RetryLayer {
        RetryLayer::new()
    }
}

impl fmt::Debug for RetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("plan", &self.plan)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService {
            inner,
            rules: Arc::new(self.clone()),
        }
    }
}

/// A request that can be sent several times.
pub trait Retriable: Clone {
    /// Makes the request carry `avoid` to the [`BalanceService`](super::BalanceService) below.
    fn carry(&mut self, avoid: Avoid);

    /// What it carries already.
    fn carried(&self) -> Option<Avoid> {
        None
    }

    /// Whether carrying it out twice is as good as once.
    fn is_idempotent(&self) -> bool;

    /// When its answer is of no more use, on the clock of the layer's environment.
    fn deadline(&self) -> Option<Tick> {
        None
    }
}

/// In the extensions [`Avoid`] and [`Deadline`]. Idempotent by its method: RFC 9110, section 9.2.2.
impl<Body: Clone> Retriable for http::Request<Body> {
    fn carry(&mut self, avoid: Avoid) {
        self.extensions_mut().insert(avoid);
    }

    fn carried(&self) -> Option<Avoid> {
        self.extensions().get::<Avoid>().cloned()
    }

    fn is_idempotent(&self) -> bool {
        const IDEMPOTENT: [Method; 6] = [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
        ];
        IDEMPOTENT.contains(self.method())
    }

    fn deadline(&self) -> Option<Tick> {
        self.extensions().get::<Deadline>().map(|deadline| deadline.0)
    }
}

/// Sends requests again through `S`; made by [`RetryLayer`]. Always ready: it waits for a clone of `S` to be ready within
/// the response's future.
#[derive(Clone, Debug)]
pub struct RetryService<S> {
    inner: S,
    rules: Arc<RetryLayer>,
}

impl<S, R> Service<R> for RetryService<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    R: Retriable + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (inner, rules) = (self.inner.clone(), Arc::clone(&self.rules));
        Box::pin(async move { rules.send(inner, request).await })
    }
}

impl RetryLayer {
    async fn send<S, R>(&self, inner: S, request: R) -> Result<S::Response, S::Error>
    where
        S: Service<R> + Clone,
        R: Retriable,
    {
        let by_request = || {
            if request.is_idempotent() {
                Retry::Always
            } else {
                Retry::Connect
            }
        };
        let call = Call {
            plan: &self.plan,
            env: &self.env,
            dice: &self.dice,
            retry: self.retry.unwrap_or_else(by_request),
            deadline: request.deadline(),
        };
        let avoid = request.carried().unwrap_or_default();
        let (answer, _) = call
            .run(move |this| {
                let avoid = avoid.again(this.hedge);
                let mut request = request.clone();
                request.carry(avoid.clone());
                once(inner.clone(), request, avoid)
            })
            .await;
        answer
    }
}

async fn once<S: Service<R>, R>(mut service: S, request: R, avoid: Avoid) -> Done<Result<S::Response, S::Error>> {
    let output = match poll_fn(|cx| service.poll_ready(cx)).await {
        Ok(()) => service.call(request).await,
        Err(error) => Err(error),
    };
    Done {
        output,
        // Whatever did not get to a balancer is not for another endpoint to mend.
        verdict: avoid.verdict().unwrap_or(Verdict::Settled),
    }
}

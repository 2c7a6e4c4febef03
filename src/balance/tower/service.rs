use super::future::{HttpFuture, PlainFuture};
use super::load::LoadReader;
use super::sending::{Picked, Sending};
use super::{Avoid, BalanceError, ByStatus, Classify, Deadline, Direct, LeasedBody, Reach, Via};
use crate::balance::{Balancer, Pool, Request};
use http::request::Parts;
use http::{Response, Uri};
use http_body::Body;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// Sends each request to one of a pool's endpoints. Cheap to clone; clones share the pool.
///
/// [`http`](BalanceService::http) makes one for HTTP requests to endpoints whose targets are services, [`BalanceLayer`]
/// one for HTTP requests through a common client, and [`plain`](BalanceService::plain) one for anything else. Of an HTTP
/// request the lease ends with the [body](LeasedBody) of the response, of another with the response.
///
/// It is always ready. It picks when it is called, and waits within the response's future until the endpoint's service is
/// ready; when that fails to become so, nothing was sent, and it counts as [`Failure::Connect`](crate::balance::Failure).
///
/// Two extensions of an HTTP request are heeded: [`Avoid`] and [`Deadline`]. A load that the endpoint reports in a header
/// or trailer `endpoint-load-metrics`, in ORCA's text or JSON form, is passed to the policy: `named_metrics.in_flight`,
/// with `named_metrics.latency_ms`, or what [`concurrency`](BalanceService::concurrency) makes of a utilization.
pub struct BalanceService<B: Balancer, T: Send + Sync + 'static, M = Http> {
    pool: Pool<B, T>,
    timeout: Option<Duration>,
    mode: M,
}

/// For HTTP requests, judged by `C`, that get to their endpoint by `R`.
#[derive(Clone)]
pub struct Http<C = ByStatus, R = Direct> {
    look: Look<Parts>,
    loads: LoadReader,
    classify: C,
    reach: R,
}

/// For requests that are an `R`, judged by `C`.
pub struct Plain<R, C> {
    look: Look<R>,
    avoid: Option<Reader<R, Option<Avoid>>>,
    classify: C,
}

/// What the pool is told about a request.
struct Look<H> {
    key: Option<KeyReader<H>>,
    zone: Option<ZoneReader<H>>,
}

type KeyReader<H> = Arc<dyn Fn(&H) -> Option<Cow<'_, [u8]>> + Send + Sync>;
type ZoneReader<H> = Arc<dyn Fn(&H) -> Option<Cow<'_, str>> + Send + Sync>;
type Reader<H, R> = Arc<dyn Fn(&H) -> R + Send + Sync>;

impl<B: Balancer, S: Send + Sync + 'static> BalanceService<B, S> {
    /// Sends HTTP requests through the services that are the targets of `pool`.
    pub fn http(pool: Pool<B, S>) -> BalanceService<B, S> {
        BalanceService::over(pool, Direct)
    }
}

impl<B: Balancer, T: Send + Sync + 'static, R> BalanceService<B, T, Http<ByStatus, R>> {
    /// Sends HTTP requests to the targets of `pool` as `reach` does.
    pub fn over(pool: Pool<B, T>, reach: R) -> Self {
        BalanceService {
            pool,
            timeout: None,
            mode: Http {
                look: Look::default(),
                loads: LoadReader::default(),
                classify: ByStatus,
                reach,
            },
        }
    }
}

impl<B: Balancer, S: Send + Sync + 'static, R, C> BalanceService<B, S, Plain<R, C>> {
    /// Sends requests that are an `R` through the services that are the targets of `pool`; `classify` says how they went.
    pub fn plain(pool: Pool<B, S>, classify: C) -> Self {
        BalanceService {
            pool,
            timeout: None,
            mode: Plain {
                look: Look::default(),
                avoid: None,
                classify,
            },
        }
    }

    /// Tells the policy the key of a request, for those that keep together what has the same. By default none.
    #[must_use]
    pub fn key(mut self, key: impl Fn(&R) -> Option<Cow<'_, [u8]>> + Send + Sync + 'static) -> Self {
        self.mode.look.key = Some(Arc::new(key));
        self
    }

    /// Tells the pool where a request comes from. By default from the pool's own zone.
    #[must_use]
    pub fn zone(mut self, zone: impl Fn(&R) -> Option<Cow<'_, str>> + Send + Sync + 'static) -> Self {
        self.mode.look.zone = Some(Arc::new(zone));
        self
    }

    /// Finds the [`Avoid`] that a request carries. By default none does.
    #[must_use]
    pub fn avoid(mut self, avoid: impl Fn(&R) -> Option<Avoid> + Send + Sync + 'static) -> Self {
        self.mode.avoid = Some(Arc::new(avoid));
        self
    }
}

impl<B: Balancer, T: Send + Sync + 'static, C, R> BalanceService<B, T, Http<C, R>> {
    /// Tells the policy the key of a request, for those that keep together what has the same. By default none.
    ///
    /// ```
    /// use outgrow::balance::tower::BalanceService;
    /// use outgrow::balance::{Maglev, Pool};
    /// let pool = Pool::<_, ()>::builder(Maglev::default()).build();
    /// let by_path = BalanceService::http(pool).key(|head| Some(head.uri.path().as_bytes().into()));
    /// # let _ = by_path;
    /// ```
    #[must_use]
    pub fn key(mut self, key: impl Fn(&Parts) -> Option<Cow<'_, [u8]>> + Send + Sync + 'static) -> Self {
        self.mode.look.key = Some(Arc::new(key));
        self
    }

    /// Tells the pool where a request comes from. By default from the pool's own zone.
    #[must_use]
    pub fn zone(mut self, zone: impl Fn(&Parts) -> Option<Cow<'_, str>> + Send + Sync + 'static) -> Self {
        self.mode.look.zone = Some(Arc::new(zone));
        self
    }

    /// Judges answers by `classify`. Default: [`ByStatus`].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> BalanceService<B, T, Http<D, R>> {
        BalanceService {
            pool: self.pool,
            timeout: self.timeout,
            mode: Http {
                look: self.mode.look,
                loads: self.mode.loads,
                classify,
                reach: self.mode.reach,
            },
        }
    }

    /// Takes an endpoint that reports a utilization, from 0 to 1, and not its requests in flight, to have as many as that
    /// times `requests`, which is how many it works on at once. By default utilizations are not heeded.
    #[must_use]
    pub fn concurrency(mut self, requests: f32) -> Self {
        self.mode.loads.concurrency = Some(requests);
        self
    }
}

impl<B: Balancer, T: Send + Sync + 'static, M> BalanceService<B, T, M> {
    /// How long an endpoint may take until its response begins; then the request is dropped, and counts as a
    /// [`Failure::Timeout`](crate::balance::Failure). By default only the request's [`Deadline`] bounds it.
    ///
    /// A layer that limits the time from outside drops the request without a word, which counts as cancelled, and an endpoint
    /// that hangs is never ejected.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The pool that it picks from.
    #[must_use]
    pub fn pool(&self) -> &Pool<B, T> {
        &self.pool
    }
}

impl<B, T, C, R, Inner, Outer> Service<http::Request<Outer>> for BalanceService<B, T, Http<C, R>>
where
    B: Balancer,
    T: Send + Sync + 'static,
    R: Reach<T, Outer>,
    R::Service: Service<http::Request<Outer>, Response = Response<Inner>>,
    C: Classify<Response<Inner>, <R::Service as Service<http::Request<Outer>>>::Error> + Clone,
    Inner: Body,
{
    type Response = Response<LeasedBody<Inner, B, T>>;
    type Error = BalanceError<<R::Service as Service<http::Request<Outer>>>::Error>;
    type Future = HttpFuture<B, T, R::Service, http::Request<Outer>, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Outer>) -> Self::Future {
        let (head, body) = request.into_parts();
        let avoid = head.extensions.get::<Avoid>().cloned();
        let deadline = head.extensions.get::<Deadline>().map(|deadline| deadline.0);
        let picked = self.mode.look.at(&head, |request| {
            let request = Request { deadline, ..request };
            Picked::pick(&self.pool, request, avoid, self.timeout)
        });
        let request = http::Request::from_parts(head, body);
        let sending = match picked.target() {
            Some(target) => {
                let (service, request) = self.mode.reach.reach(target, request);
                Sending::new(picked, Some((service, request)))
            }
            None => Sending::new(picked, None),
        };
        HttpFuture {
            sending,
            classify: self.mode.classify.clone(),
            loads: self.mode.loads,
        }
    }
}

impl<B, S, R, C> Service<R> for BalanceService<B, S, Plain<R, C>>
where
    B: Balancer,
    S: Service<R> + Clone + Send + Sync + 'static,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BalanceError<S::Error>;
    type Future = PlainFuture<B, S, S, R, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let avoid = self.mode.avoid.as_ref().and_then(|avoid| avoid(&request));
        let picked = self.mode.look.at(&request, |request| {
            Picked::pick(&self.pool, request, avoid, self.timeout)
        });
        let service = picked.target().cloned();
        PlainFuture {
            sending: Sending::new(picked, service.map(|service| (service, request))),
            classify: self.mode.classify.clone(),
        }
    }
}

impl<H> Look<H> {
    /// Hands `pick` what is known of the request with this head.
    fn at<P>(&self, head: &H, pick: impl FnOnce(Request<'_>) -> P) -> P {
        let key = self.key.as_ref().and_then(|key| key(head));
        let zone = self.zone.as_ref().and_then(|zone| zone(head));
        pick(Request {
            key: key.as_deref(),
            zone: zone.as_deref(),
            ..Request::new()
        })
    }
}

impl<H> Default for Look<H> {
    fn default() -> Self {
        Look { key: None, zone: None }
    }
}

impl<H> Clone for Look<H> {
    fn clone(&self) -> Self {
        Look {
            key: self.key.clone(),
            zone: self.zone.clone(),
        }
    }
}

impl<R, C: Clone> Clone for Plain<R, C> {
    fn clone(&self) -> Self {
        Plain {
            look: self.look.clone(),
            avoid: self.avoid.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static, M: Clone> Clone for BalanceService<B, T, M> {
    fn clone(&self) -> Self {
        BalanceService {
            pool: self.pool.clone(),
            timeout: self.timeout,
            mode: self.mode.clone(),
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static, M> fmt::Debug for BalanceService<B, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceService")
            .field("pool", &self.pool)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<C, R> fmt::Debug for Http<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("loads", &self.loads)
            .finish_non_exhaustive()
    }
}

impl<R, C> fmt::Debug for Plain<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

/// Balances what goes through one client: a pool of addresses over, say, hyper-util's `Client`, which keeps the
/// connections.
///
/// ```
/// use outgrow::balance::tower::BalanceLayer;
/// use outgrow::balance::{Endpoint, Pool, PowerOfTwo};
/// let servers = ["http://10.0.0.1:80", "http://10.0.0.2:80"];
/// let endpoints = servers.map(|server| Endpoint::new(server).target(http::Uri::from_static(server)));
/// let layer = BalanceLayer::new(Pool::builder(PowerOfTwo::default()).endpoints(endpoints).build());
/// # let _ = layer;
/// ```
pub struct BalanceLayer<B: Balancer> {
    pool: Pool<B, Uri>,
}

impl<B: Balancer> BalanceLayer<B> {
    /// Balances among the servers at the targets of `pool`, of which scheme and authority count.
    #[must_use]
    pub fn new(pool: Pool<B, Uri>) -> BalanceLayer<B> {
        BalanceLayer { pool }
    }
}

impl<B: Balancer, S> Layer<S> for BalanceLayer<B> {
    type Service = BalanceService<B, Uri, Http<ByStatus, Via<S>>>;

    fn layer(&self, client: S) -> Self::Service {
        BalanceService::over(self.pool.clone(), Via(client))
    }
}

impl<B: Balancer> Clone for BalanceLayer<B> {
    fn clone(&self) -> Self {
        BalanceLayer::new(self.pool.clone())
    }
}

impl<B: Balancer> fmt::Debug for BalanceLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer").field("pool", &self.pool).finish()
    }
}

use super::background::Background;
use super::roster::Rules;
use super::shared::{Parts, Shared, SharedNode};
use super::slow_start::SlowStart;
use super::{
    Balancer, Endpoint, Lease, OutlierEjection, Panic, Picker, PoolStatus, Request, ServerLoad, Subset, ZoneRouting,
};
use crate::env::Env;
use crate::sync::pin;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A set of endpoints, and the policy that picks among them. Cheap to clone; clones are the same pool.
///
/// A pick reads an immutable snapshot without a lock, so it never waits for a change of the membership. A pick that
/// begins after [`remove`](Pool::remove), [`drain`](Pool::drain) or [`update`](Pool::update) has returned sees the
/// change.
///
/// Endpoints are told apart by id: in-flight counts, averages, ejections and drains survive every change that keeps the id.
///
/// **Priorities.** Those of the lowest [number](Endpoint::priority) get all requests while at least five in seven of them
/// are active. With fewer they get 1.4 times as much as are active, and the next number gets the rest, and so on; where all
/// together have too little, what there is divides in proportion. As in Envoy.
///
/// **Limits.** An endpoint with as many leases as it may have is passed over for the next one that has room; a pick is
/// refused only when there is none.
///
/// The pool has no tasks of its own: an endpoint whose ejection is over returns at the next pick, change or
/// [`status`](Pool::status).
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Request, RoundRobin};
///
/// let pool = Pool::builder(RoundRobin::default())
///     .endpoints([Endpoint::new("a").target(8001), Endpoint::new("b").target(8002)])
///     .build();
/// pool.drain("a");
/// let lease = pool.pick(&Request::new())?;
/// assert_eq!(lease.target, 8002);
/// assert_eq!(pool.status().endpoints[1].in_flight, 1);
/// lease.succeed();
/// assert_eq!(pool.status().endpoints[1].succeeded, 1);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Pool<B: Balancer, T: Send + Sync + 'static = ()> {
    pub(super) shared: Arc<Shared<B, T>>,
}

impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    /// Starts a pool that picks by `policy`.
    pub fn builder(policy: B) -> PoolBuilder<B, T> {
        PoolBuilder {
            policy,
            endpoints: Vec::new(),
            rules: Rules {
                outliers: Some(OutlierEjection::default()),
                ..Rules::default()
            },
            zones: None,
            limit: None,
            limit_each: u32::MAX,
            env: None,
        }
    }

    /// Picks the endpoint for a request. Never waits. Allocates nothing, other than at a thread's first pick and, now
    /// and then, for a pick that frees what a change of the membership left behind.
    ///
    /// # Errors
    /// [`NoEndpoints`](PickError::NoEndpoints) when there are none or all are drained,
    /// [`AllEjected`](PickError::AllEjected) when there are some and none of them is well,
    /// [`Saturated`](PickError::Saturated) when a limit of requests in flight is reached,
    /// [`Expired`](PickError::Expired) after the request's deadline, and [`Refused`](PickError::Refused) by the policy.
    // Always, as `Picker::pick`: a lease that is returned through memory is written in words and read back in double words,
    // for which the processor has to wait.
    #[inline(always)]
    pub fn pick(&self, request: &Request<'_>) -> Result<Lease<B, T>, PickError> {
        let shared = &*self.shared;
        let pin = pin();
        let mut snapshot = shared.current.load(&pin);
        if shared.is_stale(snapshot) {
            shared.try_settle();
            snapshot = shared.current.load(&pin);
        }
        shared.pick(snapshot, request, &mut shared.dice.roll())
    }

    /// A handle for one task or thread that picks often: it saves what clones of a pool need to share, some nanoseconds a
    /// pick, and can choose without taking a lease.
    #[must_use]
    pub fn picker(&self) -> Picker<B, T> {
        Picker::new(Arc::clone(&self.shared))
    }

    /// Makes `set` the endpoints of the pool. Those that were there already, by id, keep their in-flight count, ejection
    /// and drain; the last of several with one id counts.
    ///
    /// Takes time in proportion to the size of the set, plus what the policy's table takes; so do the next four.
    pub fn update(&self, set: impl IntoIterator<Item = Endpoint<T>>) {
        let set: Vec<_> = set.into_iter().collect();
        self.shared
            .change(|roster, now| roster.update(set.into_iter().map(|endpoint| self.shared.seat(endpoint)), now));
    }

    /// Adds an endpoint, or replaces the one of the same id, which keeps its in-flight count, ejection and drain.
    pub fn add(&self, endpoint: Endpoint<T>) {
        let (member, node) = self.shared.seat(endpoint);
        self.shared.change(|roster, now| roster.add(member, node, now));
    }

    /// Removes an endpoint and forgets what belongs to its id; leases that it has go on. False if there is none.
    pub fn remove(&self, id: &str) -> bool {
        self.shared.change(|roster, _| roster.remove(id))
    }

    /// Gives an endpoint no new requests until it is [enabled](Pool::enable); leases that it has go on, and
    /// [`drained`](Pool::drained) waits for them. False if there is no such endpoint.
    pub fn drain(&self, id: &str) -> bool {
        self.shared.change(|roster, _| roster.drain(id))
    }

    /// Ends a drain and an ejection. False if there is no such endpoint.
    pub fn enable(&self, id: &str) -> bool {
        self.shared.change(|roster, now| roster.enable(id, now))
    }

    /// Waits until an endpoint has nothing in flight: the second half of draining it. False if there is no such endpoint.
    /// Removing it meanwhile changes nothing. One that is not [drained](Pool::drain) may never get there.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// ```
    /// use futures::FutureExt;
    /// use outgrow::balance::{Endpoint, Pool, Request, RoundRobin};
    /// let pool = Pool::builder(RoundRobin::default()).endpoints([Endpoint::new("a")]).build();
    /// let lease = pool.pick(&Request::new())?;
    /// pool.drain("a");
    /// let mut drained = Box::pin(pool.drained("a"));
    /// assert_eq!(drained.as_mut().now_or_never(), None);
    /// lease.succeed();
    /// assert_eq!(drained.now_or_never(), Some(true));
    /// # Ok::<(), outgrow::balance::PickError>(())
    /// ```
    pub async fn drained(&self, id: &str) -> bool {
        let Some(load) = self.shared.load(id) else { return false };
        self.shared.idle.wait(|| load.watch().then_some(())).await;
        true
    }

    /// Notes what an active check found: an unhealthy endpoint gets no requests until it is healthy again, however many
    /// are; see [`Panic`]. False if there is no such endpoint.
    pub fn set_health(&self, id: &str, healthy: bool) -> bool {
        self.shared.set_health(id, healthy)
    }

    /// Notes what an endpoint says of its own load, in answer to a probe; see [`Lease::report_load`]. False if there is no
    /// such endpoint.
    pub fn report_load(&self, id: &str, load: ServerLoad) -> bool {
        let found = self.shared.load(id);
        found.map(|of| self.shared.report(&of, load)).is_some()
    }

    /// How the pool and its endpoints are. Takes the lock of the changes, and time in proportion to the endpoints.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.shared.status()
    }
}

/// What those who work for a pool from outside need of it.
impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    pub(super) fn downgrade(&self) -> WeakPool<B, T> {
        WeakPool(Arc::downgrade(&self.shared))
    }

    pub(super) fn env(&self) -> &Env {
        &self.shared.core.env
    }

    pub(super) fn background(&self) -> &Arc<Background> {
        &self.shared.home
    }

    pub(super) fn nodes(&self) -> Vec<SharedNode<B, T>> {
        self.shared.nodes()
    }
}

/// A pool that goes when its last handle does.
pub(super) struct WeakPool<B: Balancer, T: Send + Sync + 'static>(Weak<Shared<B, T>>);

impl<B: Balancer, T: Send + Sync + 'static> WeakPool<B, T> {
    pub(super) fn upgrade(&self) -> Option<Pool<B, T>> {
        self.0.upgrade().map(|shared| Pool { shared })
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Clone for Pool<B, T> {
    fn clone(&self) -> Self {
        Pool {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Pool<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = pin();
        let groups = self.shared.current.load(&pin).groups();
        let range: Vec<_> = groups.flat_map(|group| &group.loads).collect();
        f.debug_struct("Pool").field("range", &range).finish_non_exhaustive()
    }
}

/// Builds a [`Pool`].
#[must_use]
pub struct PoolBuilder<B: Balancer, T: Send + Sync + 'static = ()> {
    policy: B,
    endpoints: Vec<Endpoint<T>>,
    rules: Rules,
    zones: Option<ZoneRouting>,
    limit: Option<u32>,
    limit_each: u32,
    env: Option<Env>,
}

impl<B: Balancer, T: Send + Sync + 'static> PoolBuilder<B, T> {
    /// Adds endpoints; none by default. The last of several with one id counts.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint<T>>) -> Self {
        self.endpoints.extend(endpoints);
        self
    }

    /// When endpoints that do worse than others are ejected; by default as [`OutlierEjection::default`] says, and never
    /// with `None`.
    pub fn outliers(mut self, rules: impl Into<Option<OutlierEjection>>) -> Self {
        self.rules.outliers = rules.into();
        self
    }

    /// What to do when too few endpoints are well; by default [`Panic::Never`].
    pub fn panic(mut self, panic: Panic) -> Self {
        self.rules.panic = panic;
        self
    }

    /// Keeps requests in their zone while it can carry them; by default zones make no difference. The policy's table is
    /// built for each zone as well.
    pub fn zones(mut self, zones: ZoneRouting) -> Self {
        self.rules.zoned = true;
        self.zones = Some(zones);
        self
    }

    /// Lets endpoints that join others, or come back from an ejection, a drain or failed checks, in slowly: their weight
    /// grows from a tenth to the whole within `window`, in nine steps, each of which builds the policy's table anew.
    /// Policies that do not heed weights do not heed this. By default, and with a window of zero, they get their whole share
    /// at once.
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.rules.slow_start = Some(SlowStart { window });
        self
    }

    /// Uses a part of the endpoints only; by default all.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.rules.subset = Some(subset);
        self
    }

    /// Lets at most `most` requests be in flight; further picks fail with [`Saturated`](PickError::Saturated). By default
    /// there is no limit. Counting to it costs picks a cache line that they share.
    pub fn max_in_flight(mut self, most: u32) -> Self {
        self.limit = Some(most);
        self
    }

    /// Lets at most `most` requests be in flight to each endpoint that [does not say](Endpoint::max_in_flight) it; 1,000,000
    /// by default, which is also the most.
    pub fn max_in_flight_per_endpoint(mut self, most: u32) -> Self {
        self.limit_each = most;
        self
    }

    /// Takes time and chance from `env`; by default from [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Puts the pool together.
    #[must_use]
    pub fn build(self) -> Pool<B, T> {
        let shared = Shared::new(Parts {
            policy: self.policy,
            env: self.env.unwrap_or_default(),
            rules: self.rules,
            zones: self.zones,
            limit: self.limit,
            limit_each: self.limit_each,
        });
        let pool = Pool { shared };
        pool.update(self.endpoints);
        pool
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for PoolBuilder<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Why there is no endpoint for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// The pool has no endpoint, or all are drained. Trying again helps only once that has changed.
    #[error("the pool has no endpoint that takes requests")]
    NoEndpoints,
    /// No endpoint is well: all are ejected or fail their checks, or too few are for [`Panic::Refuse`].
    #[error("no endpoint is well{}", returns(*.returns_in))]
    AllEjected {
        /// How long until the first that is ejected returns, which is when to try again; none if all fail their checks.
        returns_in: Option<Duration>,
    },
    /// As many requests are in flight as may be, at every endpoint or in the whole pool. It is time to shed load.
    #[error("as many requests are in flight as the limits allow")]
    Saturated,
    /// The request's deadline has passed.
    #[error("the deadline of the request has passed")]
    Expired,
    /// The policy takes no endpoint for this request.
    #[error("the policy takes no endpoint for this request")]
    Refused,
}

fn returns(returns_in: Option<Duration>) -> String {
    returns_in.map_or_else(String::new, |time| format!(", the first returns in {time:?}"))
}

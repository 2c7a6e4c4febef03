use super::load::Era;
use super::shared::Node;
use super::{Balancer, Endpoint};
use crate::env::Tick;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The right to send one request to an endpoint, which it derefs to.
///
/// The endpoint counts one request more in flight until the lease ends. Say how the request went with
/// [`succeed`](Lease::succeed), [`fail`](Lease::fail) or [`backoff`](Lease::backoff); dropping the lease otherwise counts
/// it as cancelled, which says nothing about the endpoint. **A timeout is a failure**: when a time limit drops the future
/// that holds the lease, keep the lease outside of that future and call `fail`, or an endpoint that hangs is never ejected.
///
/// A lease may outlive the pool, and the endpoint's membership of it.
#[must_use = "a lease that is dropped counts as a cancelled request"]
pub struct Lease<B: Balancer, T: Send + Sync + 'static = ()> {
    /// There until the lease ends.
    node: Option<Arc<Node<B, T>>>,
    started: Started,
    era: Era,
}

/// When a request began, or that it is not timed, in the space of a time: no request begins at the end of it.
#[derive(Clone, Copy)]
pub(super) struct Started(Tick);

impl Started {
    pub(super) const UNTIMED: Started = Started(Tick::MAX);

    #[inline]
    pub(super) fn at(now: Tick) -> Started {
        Started(now)
    }

    #[inline]
    pub(super) fn get(self) -> Option<Tick> {
        (self.0 != Tick::MAX).then_some(self.0)
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Lease<B, T> {
    #[inline]
    pub(super) fn new(node: Arc<Node<B, T>>, era: Era, started: Started) -> Lease<B, T> {
        Lease {
            node: Some(node),
            started,
            era,
        }
    }

    /// The endpoint, for longer than the lease.
    pub(super) fn share(&self) -> Arc<Node<B, T>> {
        Arc::clone(self.node.as_ref().expect("only what takes the lease ends it"))
    }

    /// Ends the lease: the endpoint did what it was asked.
    #[inline(always)]
    pub fn succeed(mut self) {
        self.end(Outcome::Success);
        // There is nothing left to drop, which the compiler does not see.
        mem::forget(self);
    }

    /// Ends the lease: the endpoint answered wrongly, too late or not at all.
    #[inline]
    pub fn fail(mut self, failure: Failure) {
        self.end(Outcome::Failure(failure));
    }

    /// Ends the lease: the endpoint asked to be left alone for `retry_after`, as a server does with the status 429 or 503
    /// and a `Retry-After`. It gets no requests until then, up to the [longest
    /// ejection](super::OutlierEjection::max_ejection_time), unless too many are out already or the pool ejects none. That
    /// is no failure of the endpoint's and counts as cancelled.
    pub fn backoff(mut self, retry_after: Duration) {
        self.end(Outcome::Backoff(retry_after));
    }

    /// Ends the lease with `outcome`.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// Notes what the endpoint says of its own load, in a header or trailer of its answer. It tells of what other
    /// processes send there, which nothing else does; [`Adaptive`](super::Adaptive) and [`Prequal`](super::Prequal) heed it.
    pub fn report_load(&self, load: ServerLoad) {
        self.node().report(load);
    }

    #[inline]
    fn node(&self) -> &Node<B, T> {
        self.node.as_ref().expect("only what takes the lease ends it")
    }

    #[inline(always)]
    fn end(&mut self, outcome: Outcome) {
        if let Some(node) = self.node.take() {
            node.finish(self.era, self.started, outcome);
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Deref for Lease<B, T> {
    type Target = Endpoint<T>;

    #[inline]
    fn deref(&self) -> &Endpoint<T> {
        &self.node().endpoint
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Drop for Lease<B, T> {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Lease<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", self.id()).finish_non_exhaustive()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did what it was asked.
    Success,
    /// The endpoint answered wrongly, too late or not at all.
    Failure(Failure),
    /// The endpoint asked to be left alone for so long.
    Backoff(Duration),
    /// The caller lost interest; nothing is known about the endpoint.
    Cancelled,
}

/// What was wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No connection could be had, so nothing was sent: trying another endpoint is safe.
    Connect,
    /// There was no answer in time.
    Timeout,
    /// The answer says that the endpoint failed, as the status 500 does.
    Response,
    /// Anything else.
    Other,
}

/// What an endpoint says of its own load (ORCA, Open Request Cost Aggregation, is a format for it).
///
/// ```
/// use outgrow::balance::ServerLoad;
/// use std::time::Duration;
/// let load = ServerLoad::new(12.0).latency(Duration::from_millis(8));
/// assert_eq!(load.in_flight(), 12.0);
/// assert_eq!(ServerLoad::new(f32::NAN).in_flight(), 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerLoad {
    in_flight: f32,
    latency: Option<Duration>,
}

impl ServerLoad {
    /// So many requests are at the endpoint, from everybody, waiting and in work. Whoever has a utilization only, from 0
    /// to 1, gives it times the requests that the endpoint works on at once. What is negative or no number is taken as 0.
    #[must_use]
    pub const fn new(in_flight: f32) -> ServerLoad {
        let in_flight = if in_flight > 0.0 { in_flight } else { 0.0 };
        ServerLoad {
            in_flight,
            latency: None,
        }
    }

    /// And a request that comes now, behind those that are there, may expect to take so long. The mean of what past
    /// requests took is something else, and misleads: where it is lowest all clients go at once.
    #[must_use]
    pub const fn latency(mut self, latency: Duration) -> ServerLoad {
        self.latency = Some(latency);
        self
    }

    /// Requests at the endpoint.
    #[must_use]
    pub const fn in_flight(&self) -> f32 {
        self.in_flight
    }

    /// How long a request may take, if it was said.
    #[must_use]
    pub const fn expected_latency(&self) -> Option<Duration> {
        self.latency
    }
}

/// What a policy learns when a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// How it ended.
    pub outcome: Outcome,
    /// From the pick to the end of the lease, if it was measured; see [`Timing`](super::Timing).
    pub latency: Option<Duration>,
    /// When it ended: there if the latency is, and for every failure of a policy that wants latencies.
    pub at: Option<Tick>,
}

impl Completion {
    /// A request that ended like this.
    #[must_use]
    pub const fn new(outcome: Outcome, latency: Option<Duration>, at: Option<Tick>) -> Completion {
        Completion { outcome, latency, at }
    }
}

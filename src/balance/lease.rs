use super::load::Era;
use super::pool::Node;
use super::{Balancer, Endpoint};
use crate::env::Tick;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The right to send one request to an endpoint, which it derefs to.
///
/// The endpoint counts one request more in flight until the lease ends. Say how the request went with
/// [`succeed`](Lease::succeed) or [`fail`](Lease::fail); dropping the lease otherwise counts it as cancelled, which
/// says nothing about the endpoint. **A timeout is a failure**: when a time limit drops the future that holds the
/// lease, keep the lease outside of that future and call `fail`, or an endpoint that hangs is never ejected.
///
/// A lease may outlive the pool, and the endpoint's membership of it.
#[must_use = "a lease that is dropped counts as a cancelled request"]
pub struct Lease<B: Balancer, T: Send + Sync + 'static = ()> {
    node: Arc<Node<B, T>>,
    era: Era,
    started: Option<Tick>,
    outcome: Outcome,
}

impl<B: Balancer, T: Send + Sync + 'static> Lease<B, T> {
    #[inline]
    pub(super) fn new(node: Arc<Node<B, T>>, era: Era, started: Option<Tick>) -> Lease<B, T> {
        Lease {
            node,
            era,
            started,
            outcome: Outcome::Cancelled,
        }
    }

    /// Ends the lease: the endpoint did what it was asked.
    #[inline]
    pub fn succeed(mut self) {
        self.outcome = Outcome::Success;
    }

    /// Ends the lease: the endpoint answered wrongly, too late or not at all.
    #[inline]
    pub fn fail(mut self) {
        self.outcome = Outcome::Failure;
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Deref for Lease<B, T> {
    type Target = Endpoint<T>;

    #[inline]
    fn deref(&self) -> &Endpoint<T> {
        &self.node.endpoint
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Drop for Lease<B, T> {
    #[inline]
    fn drop(&mut self) {
        self.node.finish(self.era, self.started, self.outcome);
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
    Failure,
    /// The caller lost interest; nothing is known about the endpoint.
    Cancelled,
}

/// What a policy learns when a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// How it ended.
    pub outcome: Outcome,
    /// From the pick to the end of the lease; there only if the policy [needs it](Balancer::needs_latency).
    pub latency: Option<Duration>,
}

impl Completion {
    /// A request that ended like this.
    #[must_use]
    pub const fn new(outcome: Outcome, latency: Option<Duration>) -> Completion {
        Completion { outcome, latency }
    }
}

use super::Centre;
use super::router::Node;
use crate::balance::EndpointId;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The most routes that [`GeoRouter::nearest`](super::GeoRouter::nearest) gives.
pub const MOST_ROUTES: usize = 8;

/// The data centre that a client goes to, which it derefs to, and why.
///
/// It says where to go and holds nothing of the centre's: whoever picks an endpoint there ends that lease. A route may
/// outlive the router, and the centre's membership of it.
pub struct Route<T = ()> {
    node: Arc<Node<T>>,
    /// There when it is another than the node.
    home: Option<EndpointId>,
    reason: Reason,
    scope: Option<u8>,
}

impl<T> Route<T> {
    #[inline]
    pub(super) fn new(node: Arc<Node<T>>, home: Option<EndpointId>, reason: Reason, scope: Option<u8>) -> Route<T> {
        Route {
            node,
            home,
            reason,
            scope,
        }
    }

    /// Why it is this centre.
    #[inline]
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The centre whose client it is: another than this one when it was [shifted](Reason::Shifted),
    /// [spilled](Reason::Spilled) or [avoided](Reason::Avoided).
    #[inline]
    #[must_use]
    pub fn home(&self) -> &EndpointId {
        self.home.as_ref().unwrap_or_else(|| self.node.centre.id())
    }

    /// How many leading bits of the client's address decided: any address that shares them is routed the same, until
    /// something changes. It is the scope prefix length of a DNS answer with a client subnet (RFC 7871). For an IPv4
    /// address in the guise of an IPv6 one it counts the bits of the IPv4 address. `None` without an address.
    #[inline]
    #[must_use]
    pub fn scope(&self) -> Option<u8> {
        self.scope
    }
}

impl<T> Deref for Route<T> {
    type Target = Centre<T>;

    #[inline]
    fn deref(&self) -> &Centre<T> {
        &self.node.centre
    }
}

impl<T> Clone for Route<T> {
    fn clone(&self) -> Self {
        Route {
            node: Arc::clone(&self.node),
            home: self.home.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for Route<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("id", self.id())
            .field("home", self.home())
            .field("reason", &self.reason)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Why a client goes to a centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Reason {
    /// An override for a subnet.
    Subnet,
    /// An override for a country.
    Country,
    /// An override for a continent.
    Continent,
    /// It answers the client's group fastest, and faster than the nearest.
    Latency,
    /// It is the nearest, as biased.
    Nearest,
    /// Nobody knows where the client is: see [`Fallback`](super::Fallback).
    Fallback,
    /// The client's own centre is turned down to a share of its clients or drained, and this client is not of that share.
    Shifted,
    /// The client's own centre is down, or asked for more than its capacity.
    Spilled,
    /// The client's own centre was tried before.
    Avoided,
}

/// Up to [`MOST_ROUTES`] routes, the best first; holds them inline.
#[derive(Clone, Debug)]
pub struct Routes<T = ()> {
    routes: [Option<Route<T>>; MOST_ROUTES],
    len: usize,
}

impl<T> Routes<T> {
    #[inline]
    pub(super) fn new(len: usize, route: impl FnMut(usize) -> Option<Route<T>>) -> Routes<T> {
        Routes {
            routes: std::array::from_fn(route),
            len,
        }
    }

    /// How many there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The best one.
    #[must_use]
    pub fn first(&self) -> &Route<T> {
        self.routes[0].as_ref().expect("there is at least one")
    }

    /// All, the best first.
    pub fn iter(&self) -> impl Iterator<Item = &Route<T>> {
        self.routes.iter().flatten()
    }
}

impl<T> IntoIterator for Routes<T> {
    type Item = Route<T>;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Route<T>>, MOST_ROUTES>>;

    fn into_iter(self) -> Self::IntoIter {
        self.routes.into_iter().flatten()
    }
}

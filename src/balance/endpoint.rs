// Of `core`, which has the types of addresses and no sockets.
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// One of the places a request can go: an address, a connection pool, a node.
///
/// ```
/// use outgrow::balance::Endpoint;
/// let endpoint = Endpoint::new("10.0.0.1:80").weight(3).zone("eu-1").metadata("version", "7").target(8080_u16);
/// assert_eq!(endpoint.weight, 3);
/// assert_eq!(endpoint.target, 8080);
/// assert_eq!(endpoint.metadata["version"], "7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint<T = ()> {
    id: EndpointId,
    /// Its capacity relative to the others; 1 by default. One of weight 0 gets no new requests.
    pub weight: u32,
    /// Where it is; none by default.
    pub zone: Option<Arc<str>>,
    /// How far it comes in line: those of a higher number get requests only as far as those of lower ones are out. 0, the
    /// first, by default. See [`Pool`](super::Pool).
    pub priority: u8,
    /// The most requests of this pool in flight there; by default what the [pool
    /// says](super::PoolBuilder::max_in_flight_per_endpoint).
    pub max_in_flight: Option<u32>,
    /// What else is known about it, by name; the pool hands it on and makes nothing of it.
    pub metadata: BTreeMap<String, String>,
    /// What the caller needs in order to reach it: an address, a client, a handle. Dropped some time after the endpoint
    /// was removed and its last lease is gone, on any thread that uses a pool; its `Drop` must not call the pool.
    pub target: T,
}

impl Endpoint {
    /// The endpoint called `id`, with weight 1, no zone and nothing as its target.
    #[must_use]
    pub fn new(id: impl Into<EndpointId>) -> Endpoint {
        Endpoint {
            id: id.into(),
            weight: 1,
            zone: None,
            priority: 0,
            max_in_flight: None,
            metadata: BTreeMap::new(),
            target: (),
        }
    }
}

impl<T> Endpoint<T> {
    /// Its name, which tells it from every other endpoint of the pool. In-flight counts and ejections belong to it.
    #[inline]
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Sets the [`weight`](Endpoint::weight).
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the [`zone`](Endpoint::zone).
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the [`priority`](Endpoint::priority).
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sets [`max_in_flight`](Endpoint::max_in_flight).
    #[must_use]
    pub fn max_in_flight(mut self, most: u32) -> Self {
        self.max_in_flight = Some(most);
        self
    }

    /// Adds to the [`metadata`](Endpoint::metadata).
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Sets the [`target`](Endpoint::target).
    #[must_use]
    pub fn target<U>(self, target: U) -> Endpoint<U> {
        Endpoint {
            id: self.id,
            weight: self.weight,
            zone: self.zone,
            priority: self.priority,
            max_in_flight: self.max_in_flight,
            metadata: self.metadata,
            target,
        }
    }
}

/// The endpoint at an address: its id is the address as text, such as `10.0.0.1:80` or `[::1]:80`, and its target the
/// address.
///
/// ```
/// use outgrow::balance::Endpoint;
/// use std::net::SocketAddr;
/// let endpoint = Endpoint::from(SocketAddr::from(([10, 0, 0, 1], 80))).weight(2);
/// assert_eq!(&**endpoint.id(), "10.0.0.1:80");
/// assert_eq!(endpoint.target.port(), 80);
/// ```
impl From<SocketAddr> for Endpoint<SocketAddr> {
    fn from(address: SocketAddr) -> Self {
        Endpoint::new(address.to_string()).target(address)
    }
}

/// The name of an endpoint. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

impl Deref for EndpointId {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EndpointId {
    fn from(id: &str) -> EndpointId {
        EndpointId(id.into())
    }
}

impl From<String> for EndpointId {
    fn from(id: String) -> EndpointId {
        EndpointId(id.into())
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for EndpointId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

/// What a policy is told about an endpoint when it builds its table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    id: EndpointId,
    /// The endpoint's capacity relative to the others; while one is [let in
    /// slowly](super::PoolBuilder::slow_start), the weights of all are scaled up to tell its share.
    pub weight: u32,
    /// Where the endpoint is.
    pub zone: Option<Arc<str>>,
    /// How far it comes in line.
    pub priority: u8,
}

impl Member {
    /// The endpoint's name.
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.id
    }
}

impl<T> From<&Endpoint<T>> for Member {
    fn from(endpoint: &Endpoint<T>) -> Member {
        Member {
            id: endpoint.id.clone(),
            weight: endpoint.weight,
            zone: endpoint.zone.clone(),
            priority: endpoint.priority,
        }
    }
}

use super::discover::DiscoveryStatus;
use super::{CheckStatus, EndpointId};
use std::time::Duration;

/// What a pool has done, and how its endpoints are; from [`Pool::status`](super::Pool::status).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStatus {
    /// The endpoints, in the order in which they were given.
    pub endpoints: Vec<EndpointStatus>,
    /// Ejections since the pool was built, of endpoints that have left it too.
    pub ejections: u64,
    /// Picks that found no endpoint, or were refused by the policy.
    pub refused: u64,
    /// How the source of its endpoints is, if it has [followed](super::Pool::follow) one.
    pub discovery: Option<DiscoveryStatus>,
}

/// One endpoint of a pool. Counts begin when the endpoint joins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Its name.
    pub id: EndpointId,
    /// Its capacity relative to the others.
    pub weight: u32,
    /// Where it is.
    pub zone: Option<String>,
    /// How far it comes in line.
    pub priority: u8,
    /// Whether it may be picked.
    pub state: EndpointState,
    /// How long until an ejected one returns.
    pub returns_in: Option<Duration>,
    /// Leases that have not ended.
    pub in_flight: u32,
    /// Leases that ended in success.
    pub succeeded: u64,
    /// Leases that ended in failure.
    pub failed: u64,
    /// Leases that were dropped without an outcome, or ended because the endpoint asked to be left alone.
    pub cancelled: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// What its active checks say, if it was checked.
    pub check: Option<CheckStatus>,
}

/// Whether an endpoint may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum EndpointState {
    /// It may.
    Active,
    /// It gets no new requests until it is enabled, or has weight 0; leases that it has go on.
    Draining,
    /// It did worse than the others, or asked to be left alone, and is out for a while.
    Ejected,
    /// Its checks fail; it is back when they succeed.
    Unhealthy,
    /// It is not in this client's [subset](super::Subset).
    Unused,
}

impl EndpointState {
    /// Whether it takes requests, or would if it were well.
    pub(super) fn is_usable(self) -> bool {
        !matches!(self, EndpointState::Draining | EndpointState::Unused)
    }
}

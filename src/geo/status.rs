use super::Position;
use crate::balance::EndpointId;

/// What a router has done, and how its centres are; from [`GeoRouter::status`](super::GeoRouter::status).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GeoStatus {
    /// The centres, in the order in which they were given.
    pub centres: Vec<CentreStatus>,
    /// Whether no centre that is not drained is healthy. Then all of them get requests, or none:
    /// [`AllDown`](super::AllDown).
    pub all_down: bool,
    /// Overrides that name a centre which has left.
    pub idle_overrides: usize,
    /// Groups of clients with observed latencies.
    pub groups: usize,
    /// Groups that made room for others.
    pub groups_evicted: u64,
    /// Routes of clients of which nobody knew where they are.
    pub unlocated: u64,
    /// Clients that no centre took.
    pub refused: u64,
}

/// One data centre of a router. Counts begin when the centre joins.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CentreStatus {
    /// Its name.
    pub id: EndpointId,
    /// Where it is.
    pub position: Position,
    /// Its size relative to the others.
    pub weight: u32,
    /// Requests a second that it can serve, without what its pool [reports](super::GeoRouter::report_pool) as missing.
    pub capacity: Option<f64>,
    /// By how many percent it seems nearer than it is.
    pub bias: i8,
    /// Whether it is healthy.
    pub healthy: bool,
    /// The share of its clients that it is to keep: 1 unless it is shifted or drained.
    pub share: f64,
    /// Requests a second of its own clients, wherever they go.
    pub demand: f64,
    /// Requests a second that it is to get as things are.
    pub planned: f64,
    /// Clients that were routed to it.
    pub routed: u64,
}

use crate::store::{Position, Record};
use bytes::Bytes;
use std::time::Duration;

/// A [`ReplicatedStore`](super::ReplicatedStore) at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The epoch of the present primary; of the last one when there is none.
    pub epoch: u64,
    /// The primary's name, while it is up.
    pub primary: Option<String>,
    /// Every node, in the order in which they were given.
    pub nodes: Vec<NodeStatus>,
    /// Writes that wait for their acknowledgement.
    pub pending: usize,
    /// Records that nodes gave up because a newer primary had others in their place; see
    /// [`divergent`](super::ReplicatedStore::divergent).
    pub divergent: u64,
}

/// One node at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// What its readers see.
    pub applied: Position,
    /// The last record on its disk, as far as it has said so.
    pub durable: Position,
    /// How far it may be behind the primary; `None` when it does not answer reads.
    pub lag: Option<Duration>,
    /// Why it is down.
    pub why: Option<String>,
    /// Checkpoints that could not be written; the log grows meanwhile.
    pub failed_checkpoints: u64,
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// It follows the primary and counts towards a majority.
    Replica,
    /// It follows the primary, but lacks part of what it once had: it neither counts nor can become the primary until
    /// it has everything again.
    Learner,
    /// It does not run.
    #[default]
    Down,
}

/// Who becomes the primary in a [`failover`](super::ReplicatedStore::failover).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailoverTo {
    /// The most caught-up node, other than the present primary while there is another.
    MostCaughtUp,
    /// The node of this name.
    Node(String),
}

/// How a failover went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailoverReport {
    /// The new epoch.
    pub epoch: u64,
    /// The primary before, if there was one.
    pub from: Option<String>,
    /// The primary now.
    pub to: String,
    /// Writes that had been visible and did not survive: acknowledged with [`Ack::Primary`](super::Ack::Primary), or
    /// before such a one in the log. Never one that [`Ack::Majority`](super::Ack::Majority) acknowledged. They come back
    /// with their values in [`divergent`](super::ReplicatedStore::divergent) when the old primary does.
    pub lost: Vec<LostWrite>,
    /// How long writes had no primary.
    pub took: Duration,
}

/// A write that did not survive a failover.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostWrite {
    /// Where it stood.
    pub at: Position,
    /// The keys that it wrote.
    pub keys: Vec<Bytes>,
}

/// A record that a node gave up, because a newer primary had another in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Divergent {
    /// The node that had it.
    pub node: String,
    /// Where it stood.
    pub at: Position,
    /// What it would have done.
    pub record: Record,
}

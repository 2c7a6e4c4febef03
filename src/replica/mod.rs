//! One set of data on several nodes, so that it survives any one of them and more of them can answer reads.
//!
//! A [`ReplicatedStore`] is a [`Store`](crate::store::Store). Its primary accepts writes and sends them, as resolved
//! records, to the other nodes; every node keeps them in a log of its own and applies them in order. What a caller can
//! choose are views: when a write counts ([`Ack`]), who answers reads ([`ReadPreference`]), and a [`Session`] that never
//! goes back in time.
//!
//! The rules are those of Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", ATC 2014)
//! except that nobody stands for election: [`failover`](ReplicatedStore::failover) is a call, made by whoever watches over
//! the service. It fences the old primary by a new epoch that a majority has promised on disk, promotes the most
//! caught-up of them, and reports what was lost: nothing that [`Ack::Majority`] had acknowledged. A node that lost part of
//! its disk does not count until it has everything again, as in protocol-aware recovery (Alagappan and others, FAST 2018).
//!
//! When not to use it: the nodes are in one process, on as many disks as there are. That guards against disks, and in a
//! simulation stands for as many machines; it does not guard against the loss of the one machine. Data has to fit into
//! memory. The set of nodes is fixed when the store is made.
//!
//! What it does not promise: damage to what a node wrote last is found while the store is running, but if all of it was
//! stopped meanwhile, looks like a write that was never finished; with three nodes or more, another has it still.
//!
//! The parts, pure first: `history` knows which epoch wrote what, `primary` what counts, `ship` what another node lacks,
//! `accept` what a node takes, `choose` who is next, `preference` who is read from. `actor`, with `lead` and `follow`, is
//! the task of one node around them; `failover` and `start` are what a store does with all of its nodes; `gate` is where
//! writes become visible.

mod accept;
mod actor;
mod builder;
mod checkpoint;
mod choose;
mod db;
mod entry;
mod failover;
mod follow;
mod gate;
mod history;
mod lead;
mod link;
mod meta;
mod node;
mod open;
mod preference;
mod primary;
mod saving;
mod session;
mod shared;
mod ship;
mod shipping;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod view;
mod window;

pub use builder::{Node, ReplicatedStoreBuilder};
pub use db::ReplicatedStore;
pub use link::{CLIENT, Link, Passage};
pub use preference::ReadPreference;
pub use session::Session;
pub use status::{Divergent, FailoverReport, FailoverTo, LostWrite, NodeStatus, ReplicaStatus, Role};
pub use view::ReplicaView;

/// When a write counts as acknowledged. In every case it is on disk somewhere, and visible at the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// It is on the primary's disk. A failover may lose it, and says so; so that readers at the primary see it, they see
    /// everything before it too, whether a majority has it yet or not.
    Primary,
    /// It is on the disks of a majority of the nodes: no failover loses it.
    #[default]
    Majority,
    /// It is on every node's disk. A node that is down makes such writes time out.
    All,
}

/// The largest record: what a frame of the log takes, less its own needs.
const MAX_RECORD: usize = (1 << 20) - 4_096;

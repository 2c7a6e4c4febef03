//! Picks one of many endpoints for each request, and learns from how the request went.
//!
//! A [`Pool`] holds the endpoints. A policy, which is any [`Balancer`], chooses among those that are neither drained
//! nor ejected. A pick gives a [`Lease`]: it derefs to the endpoint, counts as one request in flight until it is
//! dropped, and takes the outcome. An endpoint that fails several times in a row is ejected for a while.
//!
//! ```
//! use outgrow::balance::{Endpoint, Failure, OutlierEjection, Pool, PowerOfTwo, Request};
//!
//! let pool = Pool::builder(PowerOfTwo::default())
//!     .endpoints([Endpoint::new("10.0.0.1:80").weight(2).zone("a"), Endpoint::new("10.0.0.2:80").zone("b")])
//!     .outliers(OutlierEjection::default().consecutive_failures(3))
//!     .build();
//!
//! let lease = pool.pick(&Request::new())?;
//! let tried = [lease.id().clone()];
//! lease.fail(Failure::Timeout); // it did not answer: go to another
//!
//! let lease = pool.pick(&Request::new().avoid(&tried))?;
//! assert_ne!(*lease.id(), tried[0]);
//! lease.succeed();
//! # Ok::<(), outgrow::balance::PickError>(())
//! ```
//!
//! | policy | a pick costs | use it when |
//! |---|---|---|
//! | [`Adaptive`] | a look at each of up to 128 endpoints, at 16 of more | in doubt |
//! | [`PowerOfTwo`] | the same for any number of endpoints | every nanosecond counts, and endpoints that fail are ejected |
//! | [`PeakEwma`] | the same for any number, and two readings of the clock | endpoints differ in speed, or one may turn slow |
//! | [`Prequal`] | the same for any number, and a lock | many processes send to the same endpoints, which can say how busy they are |
//! | [`LeastRequest`] | a look at every endpoint | there are at most about a hundred, and one process sends most of the traffic |
//! | [`RoundRobin`] | the same for any number | requests are alike and endpoints too |
//! | [`SmoothWeighted`] | as round robin | the shares must be exact |
//! | [`WeightedRandom`] | the same for any number, and threads share nothing | requests are alike and many pick at once |
//! | [`Maglev`] | the same for any number, and the hash of a key | requests of one key belong together |
//! | [`Ring`] | the same for any number, and the hash of a key | no other key may move when an endpoint leaves, or memcached or nginx place keys too |
//! | [`Sticky`] | that of the policy within, and a lock | a key must stay where it is for as long as that is well |
//!
//! [`choosing`] tells more, with what each costs in the tail.
//!
//! The pool says where the next request goes; it opens no connections. Beside it are
//!
//! * [`discover`]: endpoints from names that are resolved, files that are watched, or a stream of one's own, and
//!   [`HealthChecks`], which ask them how they are: futures that the user spawns.
//! * [`Caller`], which sends a request by a closure, limits its time, tries other endpoints under a [`RetryBudget`] and
//!   [hedges](Hedge).
//! * The module `tower` (feature `tower`), which does all of that in stacks of tower services, and so for tonic and hyper.
//!
//! A pool sees the load that this process puts on an endpoint, and of what others put there only what the endpoint
//! [reports](Lease::report_load). Whoever comes from another balancer finds its parts in [`coming_from`].

mod attempts;
mod background;
mod budget;
mod call;
mod check;
pub mod choosing;
pub mod coming_from;
mod counts;
mod dice;
pub mod discover;
mod endpoint;
mod hedge;
mod latencies;
mod lease;
mod load;
mod outlier;
mod picker;
mod policy;
mod pool;
mod probe;
mod range;
mod request;
mod roster;
mod shared;
mod slow_start;
mod snapshot;
mod status;
mod subset;
mod sweep;
#[cfg(feature = "tower")]
pub mod tower;
mod zones;

pub use background::NeedsSpawner;
pub use budget::RetryBudget;
pub use call::{Attempt, CallError, Caller, Cause, Retry};
#[cfg(feature = "tokio")]
pub use check::TcpCheck;
pub use check::{Check, CheckStatus, HealthChecks};
pub use endpoint::{Endpoint, EndpointId, Member};
pub use hedge::Hedge;
pub use lease::{Completion, Failure, Lease, Outcome, ServerLoad};
pub use load::Load;
pub use outlier::OutlierEjection;
pub use picker::Picker;
pub use policy::{
    Adaptive, BadTableSize, LeastRequest, Maglev, MaglevTable, PeakEwma, PowerOfTwo, Prequal, PrequalTable, Ring,
    RingLayout, RingTable, RoundRobin, SmoothWeighted, Sticky, StickyTable, WeightedRandom,
};
pub use pool::{PickError, Pool, PoolBuilder};
pub use probe::{Probe, Probes};
pub use range::Panic;
pub use request::Request;
pub use status::{EndpointState, EndpointStatus, PoolStatus};
pub use subset::Subset;
pub use sweep::{FailurePercentage, SlowOutlier, SuccessRate};
pub use zones::ZoneRouting;

use crate::env::{Rng, Tick};
use std::sync::Arc;

/// A policy: which of the endpoints that may be picked gets the next request.
///
/// The [`Pool`] owns the endpoints and keeps those that are drained or ejected away from the policy, so a policy
/// never has to test for them. What follows from the membership alone (rings, alias tables, cycles) is built by
/// [`table`](Balancer::table) when the membership changes, not on the way of a pick.
///
/// A policy of one's own, which keeps a user at one endpoint for as long as it is there (rendezvous hashing: Thaler
/// and Ravishankar, 1998):
///
/// ```
/// use outgrow::balance::{Balancer, Endpoint, Load, Member, Pool, Request};
/// use outgrow::env::{Rng, Tick};
/// use outgrow::hash::KeyedHash;
/// use std::sync::Arc;
///
/// struct Sticky;
///
/// impl Balancer for Sticky {
///     type Table = Vec<u64>;
///
///     fn table(&self, members: &[Member]) -> Vec<u64> {
///         members.iter().map(|m| KeyedHash::default().hash(m.id().as_bytes())).collect()
///     }
///
///     fn pick(
///         &self,
///         table: &Vec<u64>,
///         loads: &[Arc<Load>],
///         request: &Request<'_>,
///         _: Tick,
///         rng: &mut Rng,
///     ) -> Option<usize> {
///         let Some(key) = request.key else { return Some(rng.index(table.len())) };
///         let score = |i: &usize| (!request.avoids(&loads[*i]), KeyedHash::new(table[*i], 0).hash(key));
///         (0..table.len()).max_by_key(score)
///     }
/// }
///
/// let pool = Pool::builder(Sticky).endpoints(["a", "b", "c"].map(Endpoint::new)).build();
/// let home = |key| pool.pick(&Request::new().key(key)).map(|lease| lease.id().clone());
/// let before = home(b"user-7")?;
/// pool.add(Endpoint::new("d"));
/// let after = home(b"user-7")?;
/// assert!(after == before || &*after == "d"); // a key moves to a new endpoint or not at all
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub trait Balancer: Send + Sync + 'static {
    /// What is worked out once per change of the membership.
    type Table: Send + Sync + 'static;

    /// Builds the table for `members`, in the order that [`pick`](Balancer::pick) will see them; each weight is at
    /// least 1. Runs under the pool's writer lock: it must not call the pool.
    fn table(&self, members: &[Member]) -> Self::Table;

    /// Chooses a position in `loads`, which has the order of the table's members and is not empty.
    ///
    /// Takes an endpoint that [the request avoids](Request::avoids) only when there is no other. `None`, or a position
    /// that does not exist, refuses the request. `now` is the time by the clock that [`timing`](Balancer::timing) asks for,
    /// and zero without. Runs for every request on the caller's thread: it must not block, and is expected not to
    /// allocate.
    fn pick(
        &self,
        table: &Self::Table,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize>;

    /// Takes note of a request that begins; `load` counts it as in flight already. Not all that are picked begin.
    #[inline]
    fn begin(&self, load: &Load) {
        let _ = load;
    }

    /// Takes note of how a request went; `load` no longer counts it as in flight.
    #[inline]
    fn finish(&self, load: &Load, done: &Completion) {
        let _ = (load, done);
    }

    /// Takes note of what an endpoint says of its own load; [`Load::reported`] tells it as well.
    fn report(&self, load: &Load, said: &ServerLoad, now: Tick) {
        let _ = (load, said, now);
    }

    /// Which clock it wants, and whether it wants latencies. Never, unless it says otherwise.
    fn timing(&self) -> Timing {
        Timing::Never
    }
}

/// What a policy wants to know of time, and so what a request pays for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// Nothing; no clock is read.
    Never,
    /// The coarse clock at each pick, which is up to some milliseconds behind, and the latency of at most one request an
    /// endpoint in a millisecond. What is measured is exact.
    Sampled,
    /// The [stopwatch](crate::env::Env::stopwatch) at each pick, and every latency.
    Always,
}

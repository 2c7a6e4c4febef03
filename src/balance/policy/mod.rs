//! The policies, one file each, and what they share.

mod adaptive;
mod alias;
mod average;
mod bound;
mod dense;
mod least_request;
mod maglev;
mod pairs;
mod peak_ewma;
mod places;
mod power_of_two;
mod prequal;
mod reports;
mod ring;
mod ring_layout;
mod round_robin;
mod smooth;
mod sticky;
mod weighted_random;

pub use adaptive::Adaptive;
pub use least_request::LeastRequest;
pub use maglev::{BadTableSize, Maglev, MaglevTable};
pub use peak_ewma::PeakEwma;
pub use power_of_two::PowerOfTwo;
pub use prequal::{Prequal, PrequalTable};
pub use ring::{Ring, RingTable};
pub use ring_layout::RingLayout;
pub use round_robin::{RoundRobin, SmoothWeighted};
pub use sticky::{Sticky, StickyTable};
pub use weighted_random::WeightedRandom;

use super::{Load, Member, Request};
use std::sync::Arc;

/// The first endpoint from `start` on, and round, that the request does not avoid.
fn next_untried(loads: &[Arc<Load>], request: &Request<'_>, start: usize) -> Option<usize> {
    let mut around = (start..loads.len()).chain(0..start);
    around.find(|&i| !request.avoids(&loads[i]))
}

/// The weights of the members, or nothing when all are alike.
fn weights(members: &[Member]) -> Option<Box<[u32]>> {
    let alike = members.windows(2).all(|pair| pair[0].weight == pair[1].weight);
    (!alike).then(|| members.iter().map(|member| member.weight).collect())
}

/// Weighs endpoints.
#[derive(Clone, Copy)]
struct Scale<'a> {
    loads: &'a [Arc<Load>],
    weights: Option<&'a [u32]>,
}

impl Scale<'_> {
    #[inline]
    fn weigh(&self, i: usize) -> Burden {
        Burden {
            after: u64::from(self.loads[i].in_flight()) + 1,
            weight: self.weights.map_or(1, |weights| weights[i].into()),
        }
    }
}

/// The load that one more request would leave an endpoint with, and what it is in proportion to.
#[derive(Clone, Copy)]
struct Burden {
    after: u64,
    weight: u64,
}

impl Burden {
    /// Above that of any endpoint.
    const MOST: Burden = Burden {
        after: u32::MAX as u64 + 2,
        weight: 0,
    };

    #[inline]
    fn is_below(self, other: Burden) -> bool {
        self.after * other.weight < other.after * self.weight
    }
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::balance::Endpoint;

    pub(super) fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(i, &weight): (usize, &u32)| Member::from(&Endpoint::new(format!("e{i}")).weight(weight));
        weights.iter().enumerate().map(member).collect()
    }

    pub(super) fn loads(members: &[Member]) -> Vec<Arc<Load>> {
        let load = |(slot, member): (u32, &Member)| Arc::new(Load::new(member.id().clone()).with_slot(slot));
        (0..).zip(members).map(load).collect()
    }

    /// The loads of endpoints of which the `i`th has `in_flight[i]` requests.
    pub(super) fn loaded(in_flight: &[u32]) -> Vec<Arc<Load>> {
        let loads = loads(&members(&vec![1; in_flight.len()]));
        for (load, &n) in loads.iter().zip(in_flight) {
            for _ in 0..n {
                load.begin().expect("there is room");
            }
        }
        loads
    }
}

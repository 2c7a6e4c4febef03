//! The balancers' policy: the requests of one visit that need its state go to one web machine, as long as it is there;
//! all others go wherever they cost least.

use outgrow::balance::{Adaptive, Balancer, Completion, Load, Member, Request, Timing};
use outgrow::env::{Rng, Tick};
use outgrow::hash::KeyedHash;
use std::sync::Arc;

/// Points of each machine on the ring. Its share varies by one part in the square root of that: the machine with the
/// largest share is full first, and with fewer points much of the others would lie idle by then.
const POINTS: u64 = 1_000;

/// Picks by the request's key on a consistent-hash ring (Karger and others, 1997), so that the loss of one machine
/// moves only its own visits; without a key as [`Adaptive`] does, which learns from the requests of both kinds.
#[derive(Debug, Default)]
pub(super) struct Sticky {
    hash: KeyedHash,
    adaptive: Adaptive,
}

/// What follows from the membership.
pub(super) struct Table {
    ring: Vec<(u64, usize)>,
    adaptive: <Adaptive as Balancer>::Table,
}

impl Balancer for Sticky {
    type Table = Table;

    fn table(&self, members: &[Member]) -> Table {
        let points = members.iter().enumerate().flat_map(|(index, member)| {
            let id = self.hash.hash(member.id().as_bytes());
            (0..POINTS).map(move |point| (self.hash.hash(&(id ^ point).to_le_bytes()), index))
        });
        let mut ring: Vec<_> = points.collect();
        ring.sort_unstable();
        Table {
            ring,
            adaptive: self.adaptive.table(members),
        }
    }

    fn pick(
        &self,
        table: &Table,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let Some(key) = request.key else {
            return self.adaptive.pick(&table.adaptive, loads, request, now, rng);
        };
        let (point, ring) = (self.hash.hash(key), &table.ring);
        let start = ring.partition_point(|(at, _)| *at < point);
        let mut onwards = ring[start..].iter().chain(&ring[..start]).map(|(_, index)| *index);
        let first = onwards.next()?;
        if !request.avoids(&loads[first]) {
            return Some(first);
        }
        onwards.find(|index| !request.avoids(&loads[*index])).or(Some(first))
    }

    fn begin(&self, load: &Load) {
        self.adaptive.begin(load);
    }

    fn finish(&self, load: &Load, done: &Completion) {
        self.adaptive.finish(load, done);
    }

    fn timing(&self) -> Timing {
        self.adaptive.timing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outgrow::balance::{Endpoint, Pool};

    #[test]
    fn a_visit_stays_and_the_loss_of_a_machine_moves_only_its_own() {
        let pool = Pool::builder(Sticky::default())
            .endpoints(["a", "b", "c", "d"].map(Endpoint::new))
            .build();
        let home = |visit: u32| {
            let lease = pool
                .pick(&Request::new().key(&visit.to_le_bytes()))
                .expect("the pool has endpoints");
            lease.id().clone()
        };
        let before: Vec<_> = (0..4_000).map(home).collect();
        assert_eq!(before, (0..4_000).map(home).collect::<Vec<_>>());
        let of_c = before.iter().filter(|id| &***id == "c").count();
        assert!((700..1_300).contains(&of_c), "{of_c}");
        pool.remove("c");
        let moved = (0..4_000)
            .zip(&before)
            .filter(|(visit, before)| home(*visit) != **before)
            .count();
        assert_eq!(moved, of_c);
    }

    #[test]
    fn what_needs_no_state_goes_where_there_is_less_to_do() {
        let pool = Pool::builder(Sticky::default())
            .endpoints(["a", "b"].map(Endpoint::new))
            .build();
        let visit = pool.pick(&Request::new().key(b"7")).expect("the pool has endpoints");
        let file = pool.pick(&Request::new()).expect("the pool has endpoints");
        assert_ne!(file.id(), visit.id());
    }
}

use crate::balance::{Load, Member, Request};
use crate::sync::{AtomicU64, CachePadded, Ordering};
use std::sync::Arc;

/// Keeps every endpoint near the average: consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018).
///
/// An endpoint with room has fewer requests in flight than `factor` times its share of all that would be with this one, which
/// is to say that it stays below that rounded up. With a factor of 1 or more somebody always has room.
#[derive(Debug)]
pub(super) struct Bound {
    factor: f64,
    in_flight: CachePadded<AtomicU64>,
}

impl Bound {
    /// A factor below 1 counts as 1, and so does what is no number.
    pub(super) fn new(factor: f64) -> Bound {
        Bound {
            factor: factor.max(1.0),
            in_flight: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Counts a request in, where there is a bound.
    #[inline]
    pub(super) fn begin(bound: Option<&Bound>) {
        if let Some(bound) = bound {
            bound.in_flight.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request out, where there is a bound.
    #[inline]
    pub(super) fn end(bound: Option<&Bound>) {
        if let Some(bound) = bound {
            bound.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What the endpoints may have in flight at this moment.
    #[inline]
    pub(super) fn room<'a>(&self, weights: &'a Weights) -> Room<'a> {
        Room {
            most: self.factor * (self.in_flight.load(Ordering::Relaxed) + 1) as f64,
            weights,
        }
    }
}

/// The weights of the members and their sum.
#[derive(Debug)]
pub(super) struct Weights {
    /// Nothing when all are alike.
    each: Option<Box<[u32]>>,
    total: f64,
}

impl Weights {
    pub(super) fn new(members: &[Member]) -> Weights {
        let each = super::weights(members);
        let total = match &each {
            Some(each) => each.iter().map(|&weight| u64::from(weight)).sum::<u64>() as f64,
            None => members.len() as f64,
        };
        Weights { each, total }
    }
}

/// How many requests may be where.
#[derive(Clone, Copy)]
pub(super) struct Room<'a> {
    /// In all, if they were shared by weight.
    most: f64,
    weights: &'a Weights,
}

impl Room<'_> {
    #[inline]
    fn is_at(&self, i: usize, load: &Load) -> bool {
        let weight = self.weights.each.as_ref().map_or(1, |each| each[i]);
        f64::from(load.in_flight()) * self.weights.total < self.most * f64::from(weight)
    }
}

/// The first endpoint of a walk that has room and that the request does not avoid. Without such a one the first that it does
/// not avoid; if it avoids all, that makes no difference.
#[inline]
pub(super) fn first_fit<W: Iterator<Item = usize>>(
    first: usize,
    walk: impl Fn() -> W,
    loads: &[Arc<Load>],
    request: &Request<'_>,
    room: Option<Room<'_>>,
) -> usize {
    let fits = room.is_none_or(|room| room.is_at(first, &loads[first]));
    if fits && request.avoid.is_empty() {
        return first;
    }
    next_fit(first, walk, loads, request, room)
}

#[cold]
fn next_fit<W: Iterator<Item = usize>>(
    first: usize,
    walk: impl Fn() -> W,
    loads: &[Arc<Load>],
    request: &Request<'_>,
    room: Option<Room<'_>>,
) -> usize {
    let avoiding = !request.avoid.is_empty() && !loads.iter().all(|load| request.avoids(load));
    let untried = |i: &usize| !avoiding || !request.avoids(&loads[*i]);
    let fits = |i: &usize| room.is_none_or(|room| room.is_at(*i, &loads[*i]));
    let found = walk().find(|i| untried(i) && fits(i));
    found.or_else(|| walk().find(untried)).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loads, members};
    use super::super::{Maglev, Ring};
    use crate::balance::{Balancer, Completion, Outcome, Request};
    use crate::env::{Rng, Tick};
    use proptest::prelude::*;

    /// What happens: a request of a key comes, or one that is there ends.
    type Step = (u8, bool, prop::sample::Index);

    /// Plays the steps against a bounded policy and its unbounded twin. The factor is in quarters, so that the bound can be
    /// told in whole numbers.
    fn check<B: Balancer>(
        bounded: &B,
        plain: &B,
        weights: &[u32],
        factor: u64,
        steps: &[Step],
    ) -> Result<(), TestCaseError> {
        let members = members(weights);
        let (table, twin, loads) = (bounded.table(&members), plain.table(&members), loads(&members));
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut rng = Rng::seeded(1);
        let mut held = Vec::new();
        for (key, comes, which) in steps {
            if !comes && !held.is_empty() {
                let (i, era) = held.swap_remove(which.index(held.len()));
                let load: &std::sync::Arc<crate::balance::Load> = &loads[i];
                load.end(era, Outcome::Success, 5);
                bounded.finish(load, &Completion::new(Outcome::Success, None, None));
                continue;
            }
            let key = [*key];
            let request = Request::new().key(&key);
            let most = |i: usize| (factor * (held.len() as u64 + 1) * u64::from(weights[i])).div_ceil(4 * total);
            let would_have = |i: usize| u64::from(loads[i].in_flight()) + 1;
            let home = plain
                .pick(&twin, &loads, &request, Tick::ZERO, &mut rng)
                .expect("there are some");
            let picked = bounded
                .pick(&table, &loads, &request, Tick::ZERO, &mut rng)
                .expect("there are some");
            prop_assert!(
                would_have(picked) <= most(picked),
                "{} has {} of {}",
                picked,
                would_have(picked),
                most(picked)
            );
            prop_assert_eq!(
                picked == home,
                would_have(home) <= most(home),
                "it is at home where there is room"
            );
            held.push((picked, loads[picked].begin().expect("there is no limit")));
            bounded.begin(&loads[picked]);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn nobody_is_ever_above_the_bound_and_keys_stay_at_home_below_it(
            weights in prop::collection::vec(1_u32..6, 1..8),
            factor in 4_u64..9,
            steps in prop::collection::vec((0_u8..6, prop::bool::weighted(0.7), any::<prop::sample::Index>()), 1..120),
        ) {
            let times = factor as f64 / 4.0;
            check(&Ring::with_points(20).bounded_load(times), &Ring::with_points(20), &weights, factor, &steps)?;
            let maglev = || Maglev::with_slots(251).expect("a prime");
            check(&maglev().bounded_load(times), &maglev(), &weights, factor, &steps)?;
        }
    }

    #[test]
    fn with_nothing_in_flight_it_is_the_unbounded() {
        let members = members(&[1, 2, 3, 4]);
        let loads = loads(&members);
        let (ring, bounded) = (Ring::default(), Ring::default().bounded_load(1.0));
        let (table, twin) = (ring.table(&members), bounded.table(&members));
        for key in 0..1_000_u32 {
            let key = key.to_le_bytes();
            let request = Request::new().key(&key);
            let pick = |policy: &Ring, table| policy.pick(table, &loads, &request, Tick::ZERO, &mut Rng::seeded(1));
            assert_eq!(pick(&ring, &table), pick(&bounded, &twin));
        }
    }

    #[test]
    fn what_was_tried_is_avoided_even_where_only_it_has_room() {
        let members = members(&[1, 1]);
        let loads = super::super::testing::loaded(&[0, 9]);
        let policy = Ring::default().bounded_load(1.0);
        let table = policy.table(&members);
        (0..9).for_each(|_| policy.begin(&loads[1]));
        for key in 0..20_u8 {
            let pick = |tried: &[_]| {
                let request = Request::new().key(std::slice::from_ref(&key)).avoid(tried);
                policy.pick(&table, &loads, &request, Tick::ZERO, &mut Rng::seeded(1))
            };
            assert_eq!(pick(&[]), Some(0));
            assert_eq!(pick(&["e0".into()]), Some(1));
            assert_eq!(pick(&["e0".into(), "e1".into()]), Some(0));
        }
    }
}

use super::{Burden, Scale, weights};
use crate::balance::{Balancer, Load, Member, Request};
use crate::env::{Rng, Tick};
use std::sync::Arc;

/// Least request: the endpoint with the fewest requests in flight, in proportion to its weight.
///
/// Looks at every endpoint, about a nanosecond each, so beyond a hundred [`PowerOfTwo`](super::PowerOfTwo) serves
/// better. What is compared is the load after the pick, `(in flight + 1) / weight`: among idle endpoints the heaviest
/// comes first. The first of equals from a random place on wins.
///
/// An endpoint that fails fast looks idle and attracts traffic until it is
/// [ejected](crate::balance::OutlierEjection).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LeastRequest;

impl Balancer for LeastRequest {
    type Table = Option<Box<[u32]>>;

    fn table(&self, members: &[Member]) -> Self::Table {
        weights(members)
    }

    #[inline]
    fn pick(
        &self,
        table: &Self::Table,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        _: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let scale = Scale {
            loads,
            weights: table.as_deref(),
        };
        let start = rng.index(loads.len());
        if request.avoid.is_empty() {
            return lightest(scale, start, |_| true);
        }
        lightest(scale, start, |i| !request.avoids(&loads[i])).or_else(|| lightest(scale, start, |_| true))
    }
}

/// The first of the lightest, from `start` on and round, of those to `keep`.
#[inline]
fn lightest(scale: Scale<'_>, start: usize, keep: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best = None;
    let mut least = Burden::MOST;
    // Plain loops: as one chain of iterators this takes several times as long.
    for part in [start..scale.loads.len(), 0..start] {
        for i in part {
            let burden = scale.weigh(i);
            if burden.is_below(least) && keep(i) {
                (best, least) = (Some(i), burden);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loaded, members};
    use super::*;

    fn picks(weights: &[u32], in_flight: &[u32], request: &Request<'_>) -> Vec<usize> {
        let policy = LeastRequest;
        let (table, loads) = (policy.table(&members(weights)), loaded(in_flight));
        let mut rng = Rng::seeded(1);
        let mut seen: Vec<_> = (0..100)
            .filter_map(|_| policy.pick(&table, &loads, request, Tick::ZERO, &mut rng))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn takes_the_least_loaded_and_any_of_equals() {
        assert_eq!(picks(&[1, 1, 1, 1], &[3, 1, 2, 4], &Request::new()), [1]);
        assert_eq!(picks(&[1, 1, 1, 1], &[1, 2, 1, 1], &Request::new()), [0, 2, 3]);
    }

    #[test]
    fn counts_load_in_proportion_to_weight() {
        // After one more: 10/10, 2/1, 6/5.
        assert_eq!(picks(&[10, 1, 5], &[9, 1, 5], &Request::new()), [0]);
        // After one more: 11/10, 2/1, 5/5.
        assert_eq!(picks(&[10, 1, 5], &[10, 1, 4], &Request::new()), [2]);
    }

    #[test]
    fn avoids_what_was_tried_while_it_can() {
        let tried = ["e1".into(), "e2".into()];
        assert_eq!(picks(&[1, 1, 1], &[9, 0, 3], &Request::new().avoid(&tried)), [0]);
        assert_eq!(picks(&[1, 1, 1], &[9, 0, 3], &Request::new().avoid(&tried[1..])), [1]);
        let all = ["e0".into(), "e1".into(), "e2".into()];
        assert_eq!(picks(&[1, 1, 1], &[9, 0, 3], &Request::new().avoid(&all)), [1]);
    }
}

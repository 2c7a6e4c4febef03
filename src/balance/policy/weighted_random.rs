use super::alias::Alias;
use super::{next_untried, weights};
use crate::balance::{Balancer, Load, Member, Request};
use crate::env::{Rng, Tick};
use std::sync::Arc;

/// Weighted random: each pick is drawn anew, with a probability in proportion to the weight.
///
/// Threads and processes that pick at once share nothing and never fall into step. The shares are right on average only;
/// where they have to be exact, there is [`SmoothWeighted`](super::SmoothWeighted). A pick takes the same time for any number
/// of endpoints (the alias method: Walker, 1977), and 8 bytes for each where the weights differ.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Request, WeightedRandom};
/// let pool = Pool::builder(WeightedRandom::default())
///     .endpoints([Endpoint::new("a").weight(9), Endpoint::new("b")])
///     .build();
/// let picks = (0..1_000).filter(|_| pool.pick(&Request::new()).is_ok_and(|lease| &**lease.id() == "a"));
/// assert!((800..980).contains(&picks.count()));
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRandom {}

/// How the endpoints are drawn: nothing is worked out where all weigh the same.
#[derive(Debug)]
pub struct Draw(Option<Alias>);

/// Draws before a request that avoids endpoints takes the next that it does not.
const DRAWS: usize = 4;

impl Balancer for WeightedRandom {
    type Table = Draw;

    fn table(&self, members: &[Member]) -> Draw {
        Draw(weights(members).map(|weights| Alias::new(&weights)))
    }

    #[inline(always)]
    fn pick(
        &self,
        Draw(alias): &Draw,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        _: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let mut draw = || match alias {
            Some(alias) => alias.draw(rng),
            None => rng.index(loads.len()),
        };
        let first = draw();
        if request.avoid.is_empty() {
            return Some(first);
        }
        let untried = |i: &usize| !request.avoids(&loads[*i]);
        let drawn = std::iter::once(first).chain((1..DRAWS).map(|_| draw())).find(untried);
        drawn.or_else(|| next_untried(loads, request, first)).or(Some(first))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loads, members};
    use super::*;
    use crate::balance::EndpointId;

    fn counts(weights: &[u32], avoid: &[EndpointId], picks: usize) -> Vec<usize> {
        let members = members(weights);
        let (policy, loads) = (WeightedRandom::default(), loads(&members));
        let table = policy.table(&members);
        let (request, mut rng) = (Request::new().avoid(avoid), Rng::seeded(7));
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[policy.pick(&table, &loads, &request, Tick::ZERO, &mut rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [&[1, 1, 1, 1][..], &[99, 1], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
            let (picks, total) = (200_000, weights.iter().sum::<u32>());
            for (count, weight) in counts(weights, &[], picks).into_iter().zip(weights) {
                let expected = picks as f64 * f64::from(*weight) / f64::from(total);
                // Six standard deviations of a binomial count.
                assert!(
                    (count as f64 - expected).abs() < 6.0 * expected.sqrt(),
                    "{count} picks where {expected} are expected, of {weights:?}"
                );
            }
        }
    }

    #[test]
    fn what_was_tried_is_taken_only_when_nothing_else_is_left() {
        let tried = |ids: &[&str]| ids.iter().map(|id| EndpointId::from(*id)).collect::<Vec<_>>();
        assert_eq!(counts(&[1_000_000, 1, 1], &tried(&["e0"]), 1_000)[0], 0);
        assert_eq!(counts(&[1, 1, 1], &tried(&["e0", "e2"]), 100), [0, 100, 0]);
        assert_eq!(counts(&[5, 1], &tried(&["e0", "e1"]), 100).iter().sum::<usize>(), 100);
    }
}

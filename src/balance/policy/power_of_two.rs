use super::Scale;
use super::pairs::Pairs;
use crate::balance::{Balancer, Load, Member, Request};
use crate::env::{Rng, Tick};
use std::sync::Arc;

/// Power of two choices: of two endpoints drawn at random, the one with fewer requests in flight (Mitzenmacher, 2001).
///
/// A pick costs the same for any number of endpoints, and unlike a full scan it does not send every client's next
/// request to the one that looks idle. With weights, both the draw and the comparison, `(in flight + 1) / weight`, are
/// in proportion to them.
///
/// An endpoint that fails fast looks idle and gets up to twice its share until it is
/// [ejected](crate::balance::OutlierEjection).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PowerOfTwo;

impl Balancer for PowerOfTwo {
    type Table = Pairs;

    fn table(&self, members: &[Member]) -> Pairs {
        Pairs::new(members)
    }

    #[inline(always)]
    fn pick(&self, pairs: &Pairs, loads: &[Arc<Load>], request: &Request<'_>, _: Tick, rng: &mut Rng) -> Option<usize> {
        pairs.pick(loads, request, rng, |b, a, weights| {
            let scale = Scale { loads, weights };
            scale.weigh(b).is_below(scale.weigh(a))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loaded, loads, members};
    use super::*;
    use crate::balance::Outcome;
    use std::collections::BTreeMap;

    fn shares(weights: &[u32], in_flight: &[u32], request: &Request<'_>) -> Vec<f64> {
        let policy = PowerOfTwo;
        let (table, loads) = (policy.table(&members(weights)), loaded(in_flight));
        let mut rng = Rng::seeded(1);
        let mut shares = vec![0.0; weights.len()];
        for _ in 0..100_000 {
            shares[policy.pick(&table, &loads, request, Tick::ZERO, &mut rng).unwrap()] += 1e-5;
        }
        shares
    }

    fn assert_near(shares: &[f64], want: &[f64]) {
        // The deviation of a share is at most 0.0016: six of them.
        let near = |(share, want): (&f64, &f64)| (share - want).abs() < 0.0096;
        assert!(shares.iter().zip(want).all(near), "{shares:?} is not {want:?}");
    }

    #[test]
    fn a_pair_goes_to_its_lighter_half() {
        assert_near(
            &shares(&[1, 1, 1], &[0, 1, 2], &Request::new()),
            &[2.0 / 3.0, 1.0 / 3.0, 0.0],
        );
        assert_near(&shares(&[1; 4], &[3; 4], &Request::new()), &[0.25; 4]);
        assert_near(&shares(&[1], &[9], &Request::new()), &[1.0]);
    }

    #[test]
    fn weights_scale_the_draw_and_the_load() {
        // In balance: 1/100 of a pair is (light, light); the heavy one has room for 9 times the load.
        assert_near(&shares(&[9, 1], &[8, 0], &Request::new()), &[0.9, 0.1]);
        // The light one has its one request, which leaves the heavy one every pair that it is in.
        assert_near(&shares(&[9, 1], &[8, 1], &Request::new()), &[0.99, 0.01]);
    }

    #[test]
    fn avoids_what_was_tried_while_it_can() {
        let tried: Vec<_> = ["e0", "e1"].map(Into::into).to_vec();
        assert_near(
            &shares(&[1; 3], &[0, 0, 9], &Request::new().avoid(&tried)),
            &[0.0, 0.0, 1.0],
        );
        assert_near(
            &shares(&[900, 90, 1], &[0; 3], &Request::new().avoid(&tried)),
            &[0.0, 0.0, 1.0],
        );
        assert_near(&shares(&[1; 2], &[0, 9], &Request::new().avoid(&tried)), &[1.0, 0.0]);
    }

    /// The mean time in the system of a queue joined by the shorter of two, in service times, for infinitely many
    /// servers (Mitzenmacher, 2001): the sum of load^(2^i - 2).
    fn supermarket(load: f64) -> f64 {
        (1..10).map(|i| load.powi(2_i32.pow(i) - 2)).sum()
    }

    #[test]
    fn queues_are_as_short_as_the_supermarket_model_says() {
        const SERVERS: usize = 200;
        const LOAD: f64 = 0.8;
        const CUSTOMERS: u64 = 200_000;
        let policy = PowerOfTwo;
        let members = members(&[1; SERVERS]);
        let (table, loads) = (policy.table(&members), loads(&members));
        let mut rng = Rng::seeded(1);
        let nanos = |time: f64| (time * 1e9) as u64;

        // Poisson arrivals; each server serves in order, each customer for an exponential time with mean 1.
        let (mut now, mut spent) = (0, 0);
        let mut free_at = [0; SERVERS];
        let mut departures: BTreeMap<(u64, u64), _> = BTreeMap::new();
        for customer in 0..CUSTOMERS {
            now += nanos(rng.exponential(1.0 / (LOAD * SERVERS as f64)));
            while let Some(due) = departures.first_entry().filter(|due| due.key().0 <= now) {
                let (server, era): (usize, _) = due.remove();
                loads[server].end(era, Outcome::Success, 5);
            }
            let server = policy
                .pick(&table, &loads, &Request::new(), Tick::ZERO, &mut rng)
                .unwrap();
            free_at[server] = now.max(free_at[server]) + nanos(rng.exponential(1.0));
            spent += free_at[server] - now;
            departures.insert((free_at[server], customer), (server, loads[server].begin().unwrap()));
        }

        let mean = spent as f64 / 1e9 / CUSTOMERS as f64;
        assert!((mean / supermarket(LOAD) - 1.0).abs() < 0.03, "{mean}");
    }
}

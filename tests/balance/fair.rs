//! Whoever builds a pool often, and picks seldom, must not end at the first endpoint every time.

use crate::clock::ManualClock;
use outgrow::balance::{
    Balancer, Endpoint, LeastRequest, Maglev, PeakEwma, Pool, PowerOfTwo, Prequal, Request, Ring, RoundRobin,
    SmoothWeighted, Sticky, WeightedRandom,
};

const ENDPOINTS: usize = 10;
const REBUILDS: u64 = 10_000;
/// The value that chi-square with nine degrees of freedom passes once in a million times.
const LIMIT: f64 = 44.8;

fn endpoints() -> impl Iterator<Item = Endpoint> {
    (0..ENDPOINTS).map(|i| Endpoint::new(i.to_string()))
}

fn first<B: Balancer>(pool: &Pool<B>) -> usize {
    let lease = pool.pick(&Request::new()).unwrap();
    lease.id().parse().unwrap()
}

/// How far counts that should be the same are from it.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let part = |&count: &u32| (f64::from(count) - expected).powi(2) / expected;
    counts.iter().map(part).sum()
}

fn check<B: Balancer>(policy: impl Fn() -> B) {
    let name = std::any::type_name::<B>();
    let mut counts = [0; ENDPOINTS];
    for seed in 0..REBUILDS {
        let env = ManualClock::default().env(seed);
        let pool = Pool::builder(policy()).endpoints(endpoints()).env(env).build();
        counts[first(&pool)] += 1;
    }
    assert!(chi_square(&counts) < LIMIT, "{name}, new pools: {counts:?}");

    let env = ManualClock::default().env(1);
    let pool = Pool::builder(policy()).endpoints(endpoints()).env(env).build();
    let mut counts = [0; ENDPOINTS];
    for _ in 0..REBUILDS {
        pool.update(endpoints());
        counts[first(&pool)] += 1;
    }
    assert!(chi_square(&counts) < LIMIT, "{name}, one pool: {counts:?}");
}

#[test]
fn the_first_pick_after_a_rebuild_is_anybodys() {
    check(RoundRobin::default);
    check(RoundRobin::exact);
    check(SmoothWeighted::default);
    check(SmoothWeighted::exact);
    check(WeightedRandom::default);
    check(LeastRequest::default);
    check(PowerOfTwo::default);
    check(PeakEwma::default);
    check(Prequal::default);
    check(|| Ring::with_points(20));
    check(|| Maglev::with_slots(251).unwrap());
    check(|| Sticky::new(RoundRobin::default()).capacity(10));
}

#[test]
fn the_measure_notices_a_bias() {
    // One endpoint in ten gets a tenth more than its share.
    let mut biased = [990_u32; ENDPOINTS];
    biased[0] = 1_090;
    assert!(chi_square(&biased) < LIMIT);
    let mut biased = [975_u32; ENDPOINTS];
    biased[0] = 1_225;
    assert!(chi_square(&biased) > LIMIT);
}

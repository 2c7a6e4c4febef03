//! What a pick allocates. A program of its own, since a thread may free, and so queue, what another replaced.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

mod support;

use outgrow::balance::{
    Adaptive, Balancer, Endpoint, EndpointId, LeastRequest, Maglev, PeakEwma, Pool, PowerOfTwo, Prequal, Request, Ring,
    RoundRobin, SmoothWeighted, Sticky, WeightedRandom,
};
use std::hint::black_box;
use support::counting::{Counting, asked};

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations<B: Balancer>(policy: B) -> u64 {
    let endpoints = (1..=1_000).map(|i| Endpoint::new(format!("e{i}")).weight(1 + i % 3));
    let pool = Pool::builder(policy).endpoints(endpoints).build();
    let tried: [EndpointId; 2] = ["e1".into(), "e2".into()];
    let run = |n| {
        for i in 0..n {
            let request = Request::new().key(b"user-7").avoid(&tried[..i % 3]);
            let lease = pool.pick(&request).unwrap();
            if i % 2 == 0 { lease.succeed() } else { drop(lease) }
        }
    };
    // The first pick registers the thread, and some later ones free the snapshots from before the last change.
    run(1_000);
    asked(|| run(10_000))
}

/// Of a policy that remembers keys, once its memory is full of others.
fn allocations_of_new_keys() -> u64 {
    let endpoints = (0..10).map(|i| Endpoint::new(format!("e{i}")));
    let policy = Sticky::new(PowerOfTwo::default()).capacity(2_000);
    let pool = Pool::builder(policy).endpoints(endpoints).build();
    let run = |keys: std::ops::Range<u32>| {
        for key in keys {
            let key = key.to_le_bytes();
            pool.pick(&Request::new().key(&key)).unwrap().succeed();
        }
    };
    run(0..50_000);
    asked(|| run(50_000..100_000))
}

#[test]
fn a_pick_and_its_completion_allocate_nothing() {
    assert_eq!(asked(|| drop(black_box(Box::new(1)))), 1, "the counter counts");
    assert_eq!(allocations(Adaptive::default()), 0);
    assert_eq!(allocations(RoundRobin::default()), 0);
    assert_eq!(allocations(RoundRobin::exact()), 0);
    assert_eq!(allocations(SmoothWeighted::default()), 0);
    assert_eq!(allocations(LeastRequest::default()), 0);
    assert_eq!(allocations(PowerOfTwo::default()), 0);
    assert_eq!(allocations(PeakEwma::default()), 0);
    assert_eq!(allocations(Prequal::default()), 0);
    assert_eq!(allocations(Sticky::new(PowerOfTwo::default())), 0);
    assert_eq!(allocations_of_new_keys(), 0);
    assert_eq!(allocations(WeightedRandom::default()), 0);
    assert_eq!(allocations(Maglev::default()), 0);
    assert_eq!(allocations(Ring::default()), 0);
    assert_eq!(allocations(Ring::default().bounded_load(1.25)), 0);
    assert_eq!(allocations(Maglev::default().bounded_load(1.25)), 0);
}

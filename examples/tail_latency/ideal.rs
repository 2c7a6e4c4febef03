//! What no balancer can do: one queue before all servers, and choosing with full knowledge.

use crate::scenario::{Arrivals, Scenario};
use crate::world::Traffic;
use outgrow::env::Rng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The latencies when a request waits in one queue and goes to the fastest server that is free.
pub(crate) fn central(scenario: &Scenario, seed: u64) -> Vec<u64> {
    let mut traffic = Traffic::new(scenario, &mut Rng::seeded(seed));
    assert!(
        matches!(scenario.arrivals, Arrivals::Load(_)),
        "a central queue needs arrivals from outside"
    );
    // Free servers, the fastest first, and busy ones, the first to be free first.
    let mut order: Vec<usize> = (0..scenario.speeds.len()).collect();
    order.sort_by(|&a, &b| scenario.speeds[b].total_cmp(&scenario.speeds[a]));
    let mut free: BinaryHeap<_> = (0..order.len()).map(Reverse).collect();
    let mut busy = BinaryHeap::new();
    (0..scenario.requests)
        .map(|_| {
            let (at, work) = (traffic.arrival(), traffic.work());
            while let Some(&Reverse((until, rank))) = busy.peek().filter(|Reverse((until, _))| *until <= at) {
                let _: u64 = until;
                busy.pop();
                free.push(Reverse(rank));
            }
            let (start, rank) = match free.pop() {
                Some(Reverse(rank)) => (at, rank),
                None => busy.pop().map(|Reverse(next)| next).expect("all servers are busy"),
            };
            let done = start + (work / scenario.speeds[order[rank]]) as u64;
            busy.push(Reverse((done, rank)));
            done - at + 2 * scenario.one_way
        })
        .collect()
}

/// The latencies when each request joins the queue where it is expected to be done first, all queues and speeds known.
pub(crate) fn shortest_expected_delay(scenario: &Scenario, seed: u64) -> Vec<u64> {
    let mut traffic = Traffic::new(scenario, &mut Rng::seeded(seed));
    let mut queues: Vec<VecDeque<u64>> = vec![VecDeque::new(); scenario.speeds.len()];
    (0..scenario.requests)
        .map(|_| {
            let (at, work) = (traffic.arrival(), traffic.work());
            for queue in &mut queues {
                while queue.front().is_some_and(|done| *done <= at) {
                    queue.pop_front();
                }
            }
            let delay = |i: usize| (queues[i].len() + 1) as f64 / scenario.speeds[i];
            let best = (0..queues.len())
                .min_by(|&a, &b| delay(a).total_cmp(&delay(b)))
                .expect("a server");
            let start = queues[best].back().map_or(at, |last| at.max(*last));
            let done = start + (work / scenario.speeds[best]) as u64;
            queues[best].push_back(done);
            done - at + 2 * scenario.one_way
        })
        .collect()
}

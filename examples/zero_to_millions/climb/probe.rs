//! One probe: so many users on one rung, and how it bears them.

use super::Result;
use super::cluster::Cluster;
use super::plan::Plan;
use super::rows::Rows;
use super::service::{Deed, handle};
use crate::hardware::Hardware;
use crate::report::{Busy, CurvePoint};
use crate::traffic::Traffic;
use crate::visits::Visits;
use outgrow::sim::World;
use parking_lot::Mutex;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What all probes share.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) visits: Arc<Visits>,
    pub(super) hardware: Arc<Hardware>,
    pub(super) rows: Arc<Rows>,
    /// Whether each URL is rendered.
    pub(super) dynamic: Arc<[bool]>,
    pub(super) slo: Duration,
    pub(super) timeout: Duration,
    pub(super) seed: u64,
    /// Requests measured by a probe.
    pub(super) requests: usize,
    /// Requests before that.
    pub(super) warm_up: usize,
    /// The least time that a probe measures.
    pub(super) shortest: Duration,
}

/// The most errors that a rung may make.
const ERRORS: f64 = 0.001;
/// How many arrivals pass between two looks at whether a probe is lost already.
const LOOK: usize = 1_024;

/// What a probe found.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) point: CurvePoint,
    pub(super) hit_ratio: Option<f64>,
    pub(super) busy: Vec<Busy>,
    /// Whether p99 and errors are within the objective.
    pub(super) passed: bool,
}

#[cfg(test)]
impl Measured {
    /// Of a probe that was not run.
    pub(super) fn verdict(users: u64, passed: bool) -> Measured {
        let point = CurvePoint {
            users,
            requests_per_second: 0.0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            p999_ms: 0.0,
            error_rate: 0.0,
        };
        Measured {
            point,
            hit_ratio: None,
            busy: Vec::new(),
            passed,
        }
    }
}

/// How the measured requests went.
#[derive(Debug, Default)]
struct Tally {
    /// Of those answered in time, in microseconds.
    latencies: Vec<u32>,
    /// Answered later than the objective, or not.
    slow: usize,
    failed: usize,
}

impl Tally {
    fn count(&mut self, answered: bool, latency: Duration, setup: &Setup) {
        if answered && latency <= setup.timeout {
            self.latencies.push(latency.as_micros() as u32);
            self.slow += usize::from(latency > setup.slo);
        } else {
            self.failed += 1;
            self.slow += 1;
        }
    }

    /// Whether the objective is missed whatever the rest of `requests` does.
    fn is_lost(&self, requests: usize) -> bool {
        self.failed as f64 > ERRORS * requests as f64 || self.slow > requests / 100
    }
}

/// Puts `users` users on `plan`, or the part of them that it is measured with.
pub(super) fn probe(setup: &Arc<Setup>, plan: &Plan, users: u64) -> Result<Measured> {
    let world = World::new(setup.seed);
    let mut measured = world.run(run(&world, setup, plan, plan.part_of(users)))?;
    measured.point.users = users;
    Ok(measured)
}

async fn run(world: &World, setup: &Arc<Setup>, plan: &Plan, users: NonZeroU32) -> Result<Measured> {
    let cluster = Cluster::build(world, plan, &setup.hardware, &setup.rows, setup.timeout).await?;
    let env = cluster.env.clone();
    let mut rng = world.rng("deeds");
    let start = env.now();
    let traffic = Traffic::new(Arc::clone(&setup.visits), users, start, world.rng("traffic"));
    let rate = setup.visits.rate_per_user() * f64::from(users.get());
    let requests = setup.requests.max((rate * setup.shortest.as_secs_f64()) as usize);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (mut first, mut last) = (start, start);
    let (mut issued, mut lookups) = (0, (0, 0));
    for (i, arrival) in traffic.take(setup.warm_up + requests).enumerate() {
        if arrival.at > env.now() {
            env.sleep_until(arrival.at).await;
        }
        if i == setup.warm_up {
            cluster.reset();
            first = env.now();
            lookups = cluster.cache_counts();
        }
        let measured = i >= setup.warm_up;
        issued += usize::from(measured);
        last = env.now();
        let deed = Deed::new(&cluster, arrival, setup.dynamic[arrival.step.url as usize], &mut rng);
        let request = {
            let (cluster, setup, tally) = (Arc::clone(&cluster), Arc::clone(setup), Arc::clone(&tally));
            async move {
                let answer = handle(&cluster, deed).await;
                if measured {
                    let latency = cluster.env.now() - deed.arrival.at;
                    tally.lock().count(answer.is_ok(), latency, &setup);
                }
                if let Ok(answered) = answer {
                    answered.send_rest(&cluster).await;
                }
            }
        };
        env.spawn(request).detach();
        if i % LOOK == 0 && tally.lock().is_lost(requests) {
            break;
        }
    }
    let (busy, after) = (cluster.busy(), cluster.cache_counts());
    env.sleep(setup.timeout).await;
    let mut tally = std::mem::take(&mut *tally.lock());
    // What is still under way has timed out.
    let unanswered = issued - tally.latencies.len() - tally.failed;
    tally.failed += unanswered;
    tally.slow += unanswered;
    let span = (last - first).as_secs_f64();
    let error_rate = tally.failed as f64 / issued.max(1) as f64;
    let quantiles = quantiles(&mut tally.latencies, [0.5, 0.99, 0.999]);
    let point = CurvePoint {
        users: 0,
        requests_per_second: if span > 0.0 {
            issued as f64 / span * f64::from(plan.part)
        } else {
            0.0
        },
        p50_ms: quantiles[0],
        p99_ms: quantiles[1],
        p999_ms: quantiles[2],
        error_rate,
    };
    let (hits, looked) = (after.0 - lookups.0, after.1 - lookups.1);
    let passed = issued == requests && !tally.is_lost(requests);
    let hit_ratio = (looked > 0).then(|| hits as f64 / looked as f64);
    Ok(Measured {
        point,
        hit_ratio,
        busy,
        passed,
    })
}

/// Quantiles of latencies, in milliseconds; those without an answer count as longer than any other.
pub(super) fn quantiles<const N: usize>(latencies: &mut [u32], at: [f64; N]) -> [f64; N] {
    latencies.sort_unstable();
    at.map(|share| {
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        latencies
            .get(rank.saturating_sub(1))
            .map_or(0.0, |&micros| f64::from(micros) / 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut latencies: Vec<u32> = (1..=1_000).rev().map(|n| n * 1_000).collect();
        assert_eq!(quantiles(&mut latencies, [0.5, 0.99, 0.999]), [500.0, 990.0, 999.0]);
        assert_eq!(quantiles(&mut [], [0.5]), [0.0]);
    }
}

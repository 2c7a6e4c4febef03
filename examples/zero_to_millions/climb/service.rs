//! The web application: what becomes of one request.

use super::cluster::{Cluster, Region, Web};
use super::regions::Way;
use super::rows::Rows;
use super::station::{Failure, Work};
use crate::traffic::Arrival;
use bytes::Bytes;
use futures::future::try_join_all;
use outgrow::balance::{self, Request};
use outgrow::env::Rng;
use outgrow::store::{self, Batch, BoxStore, Store};
use std::time::Duration;

/// A request that got no answer, or an error of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

impl From<Failure> for Failed {
    fn from(_: Failure) -> Failed {
        Failed
    }
}

impl From<store::Error> for Failed {
    fn from(_: store::Error) -> Failed {
        Failed
    }
}

/// What one request will do: decided by the seed when it arrives, so that a retry does the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    pub(super) arrival: Arrival,
    dynamic: bool,
    writes: bool,
    job: bool,
    seed: u64,
}

impl Deed {
    /// Whether it needs what its web machine remembers of the visit; a file is the same wherever it comes from.
    pub(super) fn needs_state(&self) -> bool {
        self.dynamic
    }

    /// Draws what `arrival` does.
    pub(super) fn new(cluster: &Cluster, arrival: Arrival, dynamic: bool, rng: &mut Rng) -> Deed {
        let workload = &cluster.hardware.workload;
        Deed {
            arrival,
            dynamic,
            writes: dynamic && (arrival.step.writes || rng.chance(workload.write_share)),
            job: dynamic && rng.chance(workload.job_share),
            seed: rng.next_u64(),
        }
    }
}

/// How often a request that changes nothing is tried.
const ATTEMPTS: usize = 2;
/// How much of an answer is sent before other answers have their turn: half a millisecond of a 4 Gbit/s link.
const PIECE: u64 = 256 << 10;

/// An answer whose first piece has been sent, which is where a request's latency ends: how long a large file takes
/// after that is up to its user's own line.
pub(super) struct Answered {
    region: usize,
    /// Which web machine of the region answers.
    web: usize,
    balancer: Option<usize>,
    /// Bytes that are still to be sent.
    left: u64,
}

/// Answers one request: in the region that it is routed to, through a load balancer if there is one.
pub(super) async fn handle(cluster: &Cluster, deed: Deed) -> Result<Answered, Failed> {
    let Way { region, travel } = cluster.geography.route(deed.arrival.visit)?;
    let first = u64::from(deed.arrival.step.bytes).min(PIECE);
    let mut answered = Answered {
        region,
        web: 0,
        balancer: None,
        left: u64::from(deed.arrival.step.bytes) - first,
    };
    let balancers = &cluster.regions[region].balancers;
    if balancers.is_empty() {
        let done = answer(cluster, &answered, deed, first, travel).await;
        return done.map(|()| answered).map_err(|blamed| blamed.0);
    }
    let at = deed.arrival.visit as usize % balancers.len();
    answered.balancer = Some(at);
    let key = deed.arrival.visit.to_le_bytes();
    let mut tried = Vec::new();
    loop {
        let request = match deed.needs_state() {
            true => Request::new().key(&key),
            false => Request::new(),
        };
        let lease = balancers[at].pool.pick(&request.avoid(&tried)).map_err(|_| Failed)?;
        answered.web = lease.target;
        match answer(cluster, &answered, deed, first, travel).await {
            Ok(()) => {
                lease.succeed();
                return Ok(answered);
            }
            Err(Blamed(failed, Blame::Web)) => {
                tried.push(lease.id().clone());
                lease.fail(balance::Failure::Other);
                // A write may have happened: only what changes nothing is asked again.
                if deed.writes || deed.job || tried.len() == ATTEMPTS {
                    return Err(failed);
                }
            }
            Err(Blamed(failed, Blame::Other)) => {
                // The web machine did its part.
                lease.succeed();
                return Err(failed);
            }
        }
    }
}

impl Answered {
    fn region<'a>(&self, cluster: &'a Cluster) -> &'a Region {
        &cluster.regions[self.region]
    }

    /// Which of all web machines answers.
    pub(super) fn machine(&self, cluster: &Cluster) -> usize {
        self.region * self.region(cluster).webs.len() + self.web
    }

    /// Sends the rest of the answer. One that is cut off by a machine's end is not counted as failed: it was answered.
    pub(super) async fn send_rest(mut self, cluster: &Cluster) {
        while self.left > 0 {
            let bytes = self.left.min(PIECE);
            self.left -= bytes;
            let sent = self.send(cluster, bytes, [Duration::ZERO; 2], Duration::ZERO);
            if sent.await.is_err() {
                return;
            }
        }
    }

    /// Sends a piece of the answer: the balancer passes it on while the web machine sends it. Both have more to do
    /// besides, first the web machine.
    async fn send(
        &self,
        cluster: &Cluster,
        bytes: u64,
        besides: [Duration; 2],
        travel: Duration,
    ) -> Result<(), Blamed> {
        let Cluster { env, hardware, .. } = cluster;
        let now = env.now();
        let work = |besides, per_mib: Duration| Work {
            cpu: besides + per_mib.mul_f64(bytes as f64 / f64::from(1 << 20)),
            bytes,
            disk_reads: 0,
        };
        let region = self.region(cluster);
        let web = &region.webs[self.web].host;
        let sent = web
            .book(now, work(besides[0], hardware.web.send_cpu_per_mib))
            .map_err(web_failed)?;
        let Some(balancer) = self.balancer.map(|at| &region.balancers[at].host) else {
            env.sleep_until(sent.done + travel).await;
            return web.finish(sent).map_err(web_failed);
        };
        let passed_on = balancer
            .book(now, work(besides[1], hardware.balancer.send_cpu_per_mib))
            .map_err(other_failed)?;
        env.sleep_until(sent.done.max(passed_on.done) + travel).await;
        web.finish(sent).map_err(web_failed)?;
        balancer.finish(passed_on).map_err(other_failed)
    }
}

/// Whose fault it is that a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Web,
    Other,
}

struct Blamed(Failed, Blame);

fn web_failed(_: Failure) -> Blamed {
    Blamed(Failed, Blame::Web)
}

fn other_failed(_: impl Into<Failed>) -> Blamed {
    Blamed(Failed, Blame::Other)
}

/// What is done for one request until the first piece of its answer has been sent, and has travelled to its user.
async fn answer(
    cluster: &Cluster,
    answered: &Answered,
    deed: Deed,
    first: u64,
    travel: Duration,
) -> Result<(), Blamed> {
    let (machine, request_cpu) = (&cluster.hardware.web, cluster.hardware.balancer.request_cpu);
    let inside = match answered.balancer {
        Some(_) => machine.machine.round_trip,
        None => Duration::ZERO,
    };
    let web_cpu = if deed.dynamic {
        let region = answered.region(cluster);
        render(cluster, region, &region.webs[answered.web], deed).await?;
        Duration::ZERO
    } else {
        machine.static_cpu
    };
    answered
        .send(cluster, first, [web_cpu, request_cpu], inside + travel)
        .await
}

/// What a web machine does for a page: reads, rendering, and the changes that the request makes.
async fn render(cluster: &Cluster, region: &Region, web: &Web, deed: Deed) -> Result<(), Blamed> {
    let Cluster {
        env, hardware, rows, ..
    } = cluster;
    let workload = &hardware.workload;
    let mut rng = Rng::seeded(deed.seed);
    let keys: Vec<Bytes> = (0..workload.reads_per_dynamic).map(|_| rows.draw(&mut rng)).collect();
    if let [main, others @ ..] = &*keys {
        // What else a page shows depends on its main object; then it is asked for at once.
        web.store.get(main).await.map_err(other_failed)?;
        if !others.is_empty() {
            web.store.get_many(others).await.map_err(other_failed)?;
        }
    }
    let lookups = match web.caches.is_empty() {
        true => Duration::ZERO,
        false => hardware.web.cache_cpu * workload.reads_per_dynamic,
    };
    let cpu = Work::cpu(hardware.web.render_cpu + lookups);
    web.host.serve(env, cpu, Duration::ZERO).await.map_err(web_failed)?;
    if deed.writes {
        let rows = changed_rows(rows, deed, &mut rng, workload.writes_per_write);
        commit(&web.store, rows).await.map_err(other_failed)?;
    }
    if !deed.job {
        return Ok(());
    }
    if let Some(jobs) = &region.jobs {
        return jobs.send(cluster, deed.seed).await.map_err(other_failed);
    }
    let cpu = Work::cpu(workload.job_cpu);
    web.host.serve(env, cpu, Duration::ZERO).await.map_err(web_failed)?;
    let batch = job_rows(deed.seed, workload.job_writes);
    web.store.commit(batch).await.map(drop).map_err(other_failed)
}

/// What a writing request changes: one row that others read, drawn by popularity, and rows that only its user does.
fn changed_rows(rows: &Rows, deed: Deed, rng: &mut Rng, count: u32) -> Vec<Bytes> {
    let own = (1..count).map(|n| format!("visit/{}/{n}", deed.arrival.visit).into());
    [rows.draw(rng)].into_iter().take(count as usize).chain(own).collect()
}

/// What a job writes: rows of its own, which a sharded store keeps together for the name in braces.
pub(super) fn job_rows(job: u64, count: u32) -> Batch {
    let rows = (0..count).map(|n| format!("job/{{{job:x}}}/{n}").into());
    rows.fold(Batch::new(), put)
}

fn put(batch: Batch, row: Bytes) -> Batch {
    batch.put(row, Bytes::from_static(b"a changed row"))
}

/// Writes all rows in one commit, or, where a store has no commit across its shards, each in its own at the same time.
async fn commit(store: &BoxStore, rows: Vec<Bytes>) -> store::Result<()> {
    if store.capability().has(store::Feature::AtomicBatches) {
        store.commit(rows.into_iter().fold(Batch::new(), put)).await?;
    } else {
        try_join_all(rows.into_iter().map(|row| store.commit(put(Batch::new(), row)))).await?;
    }
    Ok(())
}

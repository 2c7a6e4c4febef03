//! The web application: what becomes of one request.

use super::cluster::{Cluster, Web};
use super::rows::Rows;
use super::station::{Failure, Work};
use crate::traffic::Arrival;
use bytes::Bytes;
use outgrow::balance::Request;
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

/// Answers one request, through the load balancer if there is one. Says which web machine did.
pub(super) async fn handle(cluster: &Cluster, deed: Deed) -> Result<usize, Failed> {
    let Some(balancer) = &cluster.balancer else {
        return answer(cluster, &cluster.webs[0], deed)
            .await
            .map(|()| 0)
            .map_err(|failed| failed.0);
    };
    let machine = &cluster.hardware.balancer;
    let bytes = u64::from(deed.arrival.step.bytes);
    let work = Work {
        cpu: machine.request_cpu + sending(machine.send_cpu_per_mib, bytes),
        bytes,
        reads_disk: false,
    };
    balancer.host.serve(&cluster.env, work, Duration::ZERO).await?;
    let key = deed.arrival.visit.to_le_bytes();
    let mut tried = Vec::new();
    loop {
        let lease = balancer
            .pool
            .pick(&Request::new().key(&key).avoid(&tried))
            .map_err(|_| Failed)?;
        let web = lease.target;
        match answer(cluster, &cluster.webs[web], deed).await {
            Ok(()) => {
                lease.succeed();
                return Ok(web);
            }
            Err(Blamed(failed, Blame::Web)) => {
                tried.push(lease.id().clone());
                lease.fail();
                // A write may have happened: only what changes nothing is asked again.
                if deed.writes || deed.job || tried.len() == ATTEMPTS {
                    return Err(failed);
                }
            }
            Err(Blamed(failed, Blame::Behind)) => {
                // The web machine did its part.
                lease.succeed();
                return Err(failed);
            }
        }
    }
}

/// Whose fault it is that a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Web,
    Behind,
}

struct Blamed(Failed, Blame);

fn web_failed(_: Failure) -> Blamed {
    Blamed(Failed, Blame::Web)
}

fn behind_failed(_: impl Into<Failed>) -> Blamed {
    Blamed(Failed, Blame::Behind)
}

/// What a web machine does for one request.
async fn answer(cluster: &Cluster, web: &Web, deed: Deed) -> Result<(), Blamed> {
    let Cluster {
        env,
        hardware,
        rows,
        jobs,
        ..
    } = cluster;
    let machine = &hardware.web;
    let travel = if cluster.balancer.is_some() {
        machine.machine.round_trip
    } else {
        Duration::ZERO
    };
    let bytes = u64::from(deed.arrival.step.bytes);
    let sent = |cpu| Work {
        cpu: cpu + sending(machine.send_cpu_per_mib, bytes),
        bytes,
        reads_disk: false,
    };
    if !deed.dynamic {
        return web
            .host
            .serve(env, sent(machine.static_cpu), travel)
            .await
            .map_err(web_failed);
    }
    let mut rng = Rng::seeded(deed.seed);
    for _ in 0..hardware.workload.reads_per_dynamic {
        web.store.get(&rows.draw(&mut rng)).await.map_err(behind_failed)?;
    }
    let lookups = if web.caches.is_empty() {
        0
    } else {
        hardware.workload.reads_per_dynamic
    };
    let work = sent(machine.render_cpu + machine.cache_cpu * lookups);
    web.host.serve(env, work, travel).await.map_err(web_failed)?;
    if deed.writes {
        let batch = changed_rows(rows, deed, &mut rng, hardware.workload.writes_per_write);
        web.store.commit_rows(batch).await.map_err(behind_failed)?;
    }
    if deed.job {
        match jobs {
            Some(jobs) => jobs.send(cluster, deed.seed).await.map_err(behind_failed)?,
            None => {
                web.host
                    .serve(env, Work::cpu(hardware.workload.job_cpu), Duration::ZERO)
                    .await
                    .map_err(web_failed)?;
                let batch = job_rows(deed.seed, hardware.workload.job_writes);
                web.store.commit_rows(batch).await.map_err(behind_failed)?;
            }
        }
    }
    Ok(())
}

/// What sending `bytes` takes of a core.
fn sending(per_mib: Duration, bytes: u64) -> Duration {
    per_mib.mul_f64(bytes as f64 / f64::from(1 << 20))
}

/// What a writing request changes: one row that others read, drawn by popularity, and rows that only its user does.
fn changed_rows(rows: &Rows, deed: Deed, rng: &mut Rng, count: u32) -> Vec<Bytes> {
    let own = (1..count).map(|n| format!("visit/{}/{n}", deed.arrival.visit).into());
    [rows.draw(rng)].into_iter().take(count as usize).chain(own).collect()
}

/// What a job writes: rows of its own.
pub(super) fn job_rows(job: u64, count: u32) -> Vec<Bytes> {
    (0..count).map(|n| format!("job/{job:x}/{n}").into()).collect()
}

/// Writing rows to whatever store there is.
pub(super) trait CommitRows {
    /// Writes all in one commit, or, where a store has no commit across its shards, one by one.
    async fn commit_rows(&self, rows: Vec<Bytes>) -> store::Result<()>;
}

impl CommitRows for BoxStore {
    async fn commit_rows(&self, rows: Vec<Bytes>) -> store::Result<()> {
        let put = |batch: Batch, row: &Bytes| batch.put(row.clone(), Bytes::from_static(b"a changed row"));
        if self.capability().has(store::Feature::AtomicBatches) {
            self.commit(rows.iter().fold(Batch::new(), put)).await?;
        } else {
            for row in &rows {
                self.commit(put(Batch::new(), row)).await?;
            }
        }
        Ok(())
    }
}

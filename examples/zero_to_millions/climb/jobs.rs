//! Work that nobody waits for: sent to a real queue, done by workers at their own pace.

use super::cluster::{Cluster, Region};
use super::service::{Failed, job_rows};
use super::station::{Host, Work};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::ready;
use outgrow::queue::{self, Delivery, DurableQueue, Message, Subscriber};
use outgrow::sim::Machine;
use outgrow::store::Store;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The queue's machine, and the block that runs on it.
pub(super) struct Jobs {
    pub(super) host: Arc<Host>,
    pub(super) machine: Machine,
    queue: Mutex<Option<DurableQueue>>,
    next_id: AtomicU64,
    /// Jobs that were accepted and never done, while a drill keeps count.
    open: Mutex<Option<BTreeSet<u64>>>,
}

/// How long a worker that has lost the queue waits before it asks again.
const RECONNECT: Duration = Duration::from_millis(100);
/// How long a worker has for a job, many times what one takes; then another worker gets it.
const LEASE: Duration = Duration::from_secs(10);
/// How long a job that failed is left alone: what it needs may be down.
const RETRY: Duration = Duration::from_secs(1);
/// Enough for a job to outlast any outage of the drills.
const MAX_ATTEMPTS: u32 = 100;
const TOPIC: &str = "jobs";

impl Jobs {
    /// Opens the queue on its machine.
    pub(super) async fn open(machine: Machine, host: Host) -> Result<Jobs, queue::Error> {
        let queue = DurableQueue::builder().env(machine.env()).open("jobs").await?;
        Ok(Jobs {
            host: Arc::new(host),
            machine,
            queue: Mutex::new(Some(queue)),
            next_id: AtomicU64::new(0),
            open: Mutex::new(None),
        })
    }

    fn queue(&self) -> Option<DurableQueue> {
        self.queue.lock().clone()
    }

    /// Hands a job over; it is on the queue's disk when this returns.
    pub(super) async fn send(&self, cluster: &Cluster, seed: u64) -> Result<(), Failed> {
        let server = &cluster.hardware.queue;
        self.host
            .serve(&cluster.env, Work::cpu(server.send_cpu), server.machine.round_trip)
            .await?;
        let queue = self.queue().ok_or(Failed)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let payload = [id.to_le_bytes(), seed.to_le_bytes()].concat();
        // Counted before it is sent, so that a worker that is quicker than the acknowledgement finds it.
        if let Some(open) = &mut *self.open.lock() {
            open.insert(id);
        }
        let sent = queue.topic(TOPIC).send(Message::new(Bytes::from(payload))).await;
        if sent.is_err() {
            // Nothing was promised.
            self.done(id);
        }
        sent.map(drop).map_err(|_| Failed)
    }

    /// Starts the workers' loops in all regions, one for each of their cores.
    pub(super) fn start_workers(cluster: &Arc<Cluster>) {
        for region in 0..cluster.regions.len() {
            for (worker, host) in cluster.regions[region].workers.iter().enumerate() {
                for _ in 0..host.cpu.servers() {
                    let work = Arc::clone(cluster);
                    let work = async move { work_off(&work, region, worker).await };
                    cluster.env.spawn(work).detach();
                }
            }
        }
    }

    /// Kills the queue's process; what its disk holds stays.
    pub(super) fn kill(&self, cluster: &Cluster) {
        self.leave(cluster);
        self.machine.kill();
    }

    /// Cuts the power of the queue's machine; what its disk was made to sync stays.
    pub(super) fn crash(&self, cluster: &Cluster) {
        self.leave(cluster);
        self.machine.crash();
    }

    fn leave(&self, cluster: &Cluster) {
        *self.queue.lock() = None;
        self.host.set_up(false, cluster.env.now());
    }

    /// Starts the queue's process again.
    pub(super) async fn restart(&self, cluster: &Cluster) -> Result<(), queue::Error> {
        let queue = DurableQueue::builder().env(self.machine.env()).open("jobs").await?;
        *self.queue.lock() = Some(queue);
        self.host.set_up(true, cluster.env.now());
        Ok(())
    }

    /// Starts to count the jobs that are accepted.
    pub(super) fn keep_count(&self) {
        *self.open.lock() = Some(BTreeSet::new());
    }

    fn done(&self, id: u64) {
        if let Some(open) = &mut *self.open.lock() {
            open.remove(&id);
        }
    }

    /// How many accepted jobs are not done.
    pub(super) fn open_jobs(&self) -> u64 {
        self.open.lock().as_ref().map_or(0, |open| open.len() as u64)
    }
}

/// Does jobs for ever, on one core of one worker.
async fn work_off(cluster: &Arc<Cluster>, region: usize, worker: usize) {
    let (region, most) = (&cluster.regions[region], at_once(cluster, region));
    let Some(jobs) = &region.jobs else { return };
    loop {
        if let Some(queue) = jobs.queue()
            && let Ok(deliveries) = subscribe(&queue).await
        {
            let deliveries = deliveries.scan((), |(), delivery| ready(delivery.ok()));
            let work = |delivery| work_on(cluster, region, jobs, worker, delivery);
            deliveries.for_each_concurrent(most, work).await;
        }
        cluster.env.sleep(RECONNECT).await;
    }
}

/// How many jobs a core has open: one, and more where the core would else wait for the primary's answer from afar, which
/// comes after a few times that the distance is travelled.
fn at_once(cluster: &Cluster, region: usize) -> usize {
    let geography = &cluster.geography;
    let distances = (0..cluster.regions.len()).map(|home| geography.round_trip(region, home));
    let away = 3.0 * distances.max().unwrap_or_default().as_secs_f64();
    let work = cluster.hardware.workload.job_cpu.as_secs_f64().max(1e-4);
    1 + (away / work).ceil() as usize
}

async fn work_on(cluster: &Cluster, region: &Region, jobs: &Jobs, worker: usize, delivery: Delivery<DurableQueue>) {
    match do_job(cluster, region, jobs, worker, &delivery).await {
        Ok(id) => {
            jobs.done(id);
            // One that is done and cannot be acknowledged is done once more, unless the queue's disk has the
            // acknowledgement all the same.
            drop(delivery.ack().await);
        }
        // Where the queue cannot be told, the lease ends by itself.
        Err(Failed) => drop(delivery.retry_in(RETRY).await),
    }
}

async fn subscribe(queue: &DurableQueue) -> Result<Subscriber<DurableQueue>, queue::Error> {
    let subscription = queue.topic(TOPIC).subscribe("workers");
    subscription.lease(LEASE).max_attempts(MAX_ATTEMPTS).build().await
}

/// Does one job, and says which it was.
async fn do_job(
    cluster: &Cluster,
    region: &Region,
    jobs: &Jobs,
    worker: usize,
    delivery: &Delivery<DurableQueue>,
) -> Result<u64, Failed> {
    let (env, hardware) = (&cluster.env, &cluster.hardware);
    let server = &hardware.queue;
    jobs.host
        .serve(env, Work::cpu(server.receive_cpu), server.machine.round_trip)
        .await?;
    region.workers[worker]
        .serve(env, Work::cpu(hardware.workload.job_cpu), Duration::ZERO)
        .await?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| delivery.payload()[at + i]));
    let (id, seed) = (number(0), number(8));
    let batch = job_rows(seed, hardware.workload.job_writes);
    // A worker reaches the database as the web machines do.
    region.webs[worker % region.webs.len()].store.commit(batch).await?;
    Ok(id)
}

//! Work that nobody waits for: sent to a real queue, done by workers at their own pace.

use super::cluster::Cluster;
use super::service::{Failed, job_rows};
use super::station::{Host, Work};
use bytes::Bytes;
use futures::StreamExt;
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

    /// Starts the workers' loops, one for each of their cores.
    pub(super) fn start_workers(cluster: &Arc<Cluster>) {
        for worker in 0..cluster.workers.len() {
            for _ in 0..cluster.workers[worker].cpu.servers() {
                let cluster = Arc::clone(cluster);
                cluster
                    .env
                    .clone()
                    .spawn(async move { work(&cluster, worker).await })
                    .detach();
            }
        }
    }

    /// Kills the queue's process; what its disk holds stays.
    pub(super) fn kill(&self, cluster: &Cluster) {
        *self.queue.lock() = None;
        self.host.set_up(false, cluster.env.now());
        self.machine.kill();
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
async fn work(cluster: &Arc<Cluster>, worker: usize) {
    let Some(jobs) = &cluster.jobs else { return };
    loop {
        if let Some(queue) = jobs.queue()
            && let Ok(mut deliveries) = subscribe(&queue).await
        {
            while let Some(Ok(delivery)) = deliveries.next().await {
                match do_job(cluster, jobs, worker, &delivery).await {
                    Ok(id) => {
                        jobs.done(id);
                        // One that is done and cannot be acknowledged is done once more, unless the queue's disk has
                        // the acknowledgement all the same.
                        drop(delivery.ack().await);
                    }
                    // Where the queue cannot be told, the lease ends by itself.
                    Err(Failed) => drop(delivery.retry_in(RETRY).await),
                }
            }
        }
        cluster.env.sleep(RECONNECT).await;
    }
}

async fn subscribe(queue: &DurableQueue) -> Result<Subscriber<DurableQueue>, queue::Error> {
    let subscription = queue.topic(TOPIC).subscribe("workers");
    subscription.lease(LEASE).max_attempts(MAX_ATTEMPTS).build().await
}

/// Does one job, and says which it was.
async fn do_job(
    cluster: &Cluster,
    jobs: &Jobs,
    worker: usize,
    delivery: &Delivery<DurableQueue>,
) -> Result<u64, Failed> {
    let (env, hardware) = (&cluster.env, &cluster.hardware);
    let server = &hardware.queue;
    jobs.host
        .serve(env, Work::cpu(server.receive_cpu), server.machine.round_trip)
        .await?;
    cluster.workers[worker]
        .serve(env, Work::cpu(hardware.workload.job_cpu), Duration::ZERO)
        .await?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| delivery.payload()[at + i]));
    let (id, seed) = (number(0), number(8));
    let batch = job_rows(seed, hardware.workload.job_writes);
    // A worker reaches the database as the web machines do.
    cluster.webs[worker % cluster.webs.len()].store.commit(batch).await?;
    Ok(id)
}

//! How many machines each rung gets, worked out beforehand from what one request asks of each tier.
//!
//! The rule: a tier that a rung does not mean to relieve gets a quarter more than the tier that it does, so that the
//! rung shows what its own block is worth. The search then finds what the whole really carries.

use crate::hardware::Hardware;
use crate::visits::Visits;

/// More than enough of what is not the point of a rung.
pub(super) const HEADROOM: f64 = 1.25;
/// Nodes of a replicated database: a primary and two replicas.
pub(super) const NODES: u32 = 3;
/// Shards of the last rung.
pub(super) const SHARDS: u32 = 4;
/// The most machines of one kind.
const MOST: f64 = 256.0;
/// The least: below two there is nothing to balance.
const LEAST: f64 = 2.0;

/// What one request asks for on average, in seconds of a core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Rendering and sending, on a web machine.
    pub(super) web: f64,
    /// The share of jobs, wherever they run.
    pub(super) jobs: f64,
    /// Reads, on a database machine.
    pub(super) reads: f64,
    /// Writes, on a primary.
    pub(super) writes: f64,
    /// Taking the writes over, on each replica.
    pub(super) applies: f64,
}

/// Machines of the tiers that are sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Web machines behind the balancer, with one database machine.
    pub(super) balanced: u32,
    /// With a replicated database, with and without caches.
    pub(super) replicated: u32,
    /// With a queue.
    pub(super) queued: u32,
    /// Machines that work the queue off.
    pub(super) workers: u32,
}

impl Demand {
    pub(super) fn new(visits: &Visits, hardware: &Hardware) -> Demand {
        let Hardware {
            workload,
            web,
            database,
            ..
        } = hardware;
        let steps = visits.all_steps();
        let total = steps.len() as f64;
        let dynamic: Vec<bool> = visits.urls().iter().map(|url| hardware.is_dynamic(url)).collect();
        let dynamic = steps.iter().filter(|step| dynamic[step.url as usize]).count() as f64 / total;
        let mib = steps.iter().map(|step| f64::from(step.bytes)).sum::<f64>() / total / f64::from(1 << 20);
        let rows = dynamic
            * (workload.write_share * f64::from(workload.writes_per_write)
                + workload.job_share * f64::from(workload.job_writes));
        Demand {
            web: dynamic * web.render_cpu.as_secs_f64()
                + (1.0 - dynamic) * web.static_cpu.as_secs_f64()
                + mib * web.send_cpu_per_mib.as_secs_f64(),
            jobs: dynamic * workload.job_share * workload.job_cpu.as_secs_f64(),
            reads: dynamic * f64::from(workload.reads_per_dynamic) * database.read_cpu.as_secs_f64(),
            writes: rows * database.write_cpu.as_secs_f64(),
            applies: rows * database.apply_cpu.as_secs_f64(),
        }
    }

    /// The requests a second that `nodes` database machines of `cores` cores take when nothing is cached.
    pub(super) fn database_limit(&self, nodes: u32, cores: u32) -> f64 {
        let replicas = f64::from(nodes - 1);
        f64::from(nodes * cores) / (self.reads + self.writes + replicas * self.applies)
    }

    /// The requests a second that a single machine takes.
    pub(super) fn single_limit(&self, cores: u32) -> f64 {
        f64::from(cores) / (self.web + self.jobs + self.reads + self.writes)
    }
}

impl Sizes {
    pub(super) fn new(demand: &Demand, hardware: &Hardware) -> Sizes {
        let Hardware { web, database, .. } = hardware;
        let cores = f64::from(web.machine.cores);
        let machines = |rate: f64, each: f64| (rate * each * HEADROOM / cores).ceil().clamp(LEAST, MOST) as u32;
        let with_jobs = demand.web + demand.jobs;
        let balanced = machines(demand.database_limit(1, database.machine.cores), with_jobs);
        let replicated = machines(demand.database_limit(NODES, database.machine.cores), with_jobs).max(balanced);
        // With a cache most reads are gone; what a primary cannot share is its writes.
        let written = f64::from(database.machine.cores) / demand.writes.max(f64::EPSILON);
        let queued = machines(written, demand.web).max(replicated);
        Sizes {
            balanced,
            replicated,
            queued,
            workers: machines(written, demand.jobs),
        }
    }
}

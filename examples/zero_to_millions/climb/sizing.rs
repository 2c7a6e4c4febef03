//! How many machines each rung gets, worked out beforehand from what one request asks of each tier.
//!
//! The rule: a tier that a rung does not mean to relieve gets a quarter more than the tier that it does, so that the
//! rung shows what its own block is worth. The search then finds what the whole really carries.

use super::regions::REGIONS;
use crate::hardware::{Hardware, Machine};
use crate::visits::Visits;

/// More than enough of what is not the point of a rung.
pub(super) const HEADROOM: f64 = 1.25;
/// Nodes of a replicated database: a primary and two replicas.
pub(super) const NODES: u32 = 3;
/// Shards of the last rungs.
pub(super) const SHARDS: u32 = 3;
/// The most machines of one kind.
const MOST: f64 = 256.0;

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
    /// Passing the answer on, on a load balancer.
    pub(super) balancing: f64,
    /// The answer, in bytes.
    pub(super) bytes: f64,
}

/// Machines in front of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tier {
    pub(super) balancers: u32,
    pub(super) webs: u32,
}

/// The sizes of what is in front of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// With one database machine.
    pub(super) balanced: Tier,
    /// With a replicated database, with and without caches.
    pub(super) replicated: Tier,
    /// With a queue.
    pub(super) queued: Tier,
    /// With a sharded database.
    pub(super) sharded: Tier,
    /// With a sharded database, in each of several regions.
    pub(super) regional: Tier,
    /// The requests a second that the web machines of such a region take.
    pub(super) region_takes: u32,
    /// Machines that work the queue off, for each shard.
    pub(super) workers: u32,
}

impl Demand {
    pub(super) fn new(visits: &Visits, hardware: &Hardware) -> Demand {
        let Hardware {
            workload,
            web,
            database,
            balancer,
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
        let bytes = mib * f64::from(1 << 20);
        Demand {
            web: dynamic * web.render_cpu.as_secs_f64()
                + (1.0 - dynamic) * web.static_cpu.as_secs_f64()
                + mib * web.send_cpu_per_mib.as_secs_f64(),
            jobs: dynamic * workload.job_share * workload.job_cpu.as_secs_f64(),
            reads: dynamic * f64::from(workload.reads_per_dynamic) * database.read_cpu.as_secs_f64(),
            writes: rows * database.write_cpu.as_secs_f64(),
            applies: rows * database.apply_cpu.as_secs_f64(),
            balancing: balancer.request_cpu.as_secs_f64() + mib * balancer.send_cpu_per_mib.as_secs_f64(),
            bytes,
        }
    }

    /// The requests a second that `nodes` database machines of `cores` cores take when nothing is cached.
    pub(super) fn database_limit(&self, nodes: u32, cores: u32) -> f64 {
        let replicas = f64::from(nodes - 1);
        f64::from(nodes * cores) / (self.reads + self.writes + replicas * self.applies)
    }

    /// The requests a second that a single machine takes.
    pub(super) fn single_limit(&self, machine: &Machine) -> f64 {
        1.0 / self.machines(machine, self.web + self.jobs + self.reads + self.writes)
    }

    /// The web machines that one request a second takes up.
    pub(super) fn webs(&self, machine: &Machine, queued: bool) -> f64 {
        self.machines(machine, self.web + if queued { 0.0 } else { self.jobs })
    }

    /// The machines that a request a second takes up when it needs so much of a core and its answer is sent.
    fn machines(&self, machine: &Machine, cpu: f64) -> f64 {
        (cpu / f64::from(machine.cores)).max(self.bytes / machine.network_bytes_per_second)
    }

    /// What is in front of a database that takes `rate` requests a second.
    fn tier(&self, hardware: &Hardware, rate: f64, queued: bool) -> Tier {
        let balancing = self.machines(&hardware.balancer.machine, self.balancing);
        Tier {
            balancers: count(rate * balancing).max(1),
            // Below two there is nothing to balance.
            webs: count(rate * self.webs(&hardware.web.machine, queued)).max(2),
        }
    }
}

impl Sizes {
    pub(super) fn new(demand: &Demand, hardware: &Hardware) -> Sizes {
        let cores = hardware.database.machine.cores;
        // With a cache most reads are gone; what a primary cannot share is its writes.
        let written = f64::from(cores) / demand.writes.max(f64::EPSILON);
        let balanced = demand.tier(hardware, demand.database_limit(1, cores), false);
        let replicated = demand.tier(hardware, demand.database_limit(NODES, cores), false);
        let queued = demand.tier(hardware, written, true).max(replicated);
        let sharded = demand.tier(hardware, written * f64::from(SHARDS), true).max(queued);
        let regional = sharded.divided(REGIONS);
        Sizes {
            balanced,
            replicated: replicated.max(balanced),
            queued,
            sharded,
            regional,
            region_takes: (f64::from(regional.webs) / demand.webs(&hardware.web.machine, true)) as u32,
            workers: count(written * demand.jobs / f64::from(hardware.web.machine.cores)).max(1),
        }
    }
}

impl Tier {
    /// What each of so many regions needs of it.
    fn divided(self, regions: u32) -> Tier {
        Tier {
            balancers: self.balancers.div_ceil(regions),
            webs: self.webs.div_ceil(regions).max(2),
        }
    }

    /// The larger of both in each part.
    fn max(self, other: Tier) -> Tier {
        Tier {
            balancers: self.balancers.max(other.balancers),
            webs: self.webs.max(other.webs),
        }
    }
}

/// As many machines as give the headroom over what is needed.
fn count(needed: f64) -> u32 {
    (needed * HEADROOM).ceil().min(MOST) as u32
}

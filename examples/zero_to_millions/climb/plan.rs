//! The rungs: which machines each has, and what it adds to the one before.

use super::regions::REGIONS;
use super::sizing::{Demand, HEADROOM, NODES, SHARDS, Sizes, Tier};
use crate::hardware::Hardware;
use std::num::NonZeroU32;

/// One rung: its parts, how many of each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) rung: Rung,
    /// How many times larger its one machine is; 1 but for the scaled-up single servers.
    pub(super) size: u32,
    /// How many places there are that each have balancers, web machines, workers and nodes of every shard.
    pub(super) regions: u32,
    /// The requests a second that the web machines of one region take, where there are several.
    pub(super) region_takes: u32,
    /// Each machine is measured as a `part`-th of itself, under a `part`-th of the users.
    pub(super) part: u32,
    pub(super) balancers: u32,
    pub(super) webs: u32,
    pub(super) workers: u32,
    pub(super) shards: u32,
    /// Database machines of each shard in each region. One of all is the primary.
    pub(super) nodes: u32,
}

/// The rungs in climbing order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rung {
    Single,
    Doubled,
    Quadrupled,
    Database,
    Balancer,
    Replication,
    Cache,
    Queue,
    Sharding,
    DataCentres,
}

impl Rung {
    pub(super) const ALL: [Rung; 10] = [
        Rung::Single,
        Rung::Doubled,
        Rung::Quadrupled,
        Rung::Database,
        Rung::Balancer,
        Rung::Replication,
        Rung::Cache,
        Rung::Queue,
        Rung::Sharding,
        Rung::DataCentres,
    ];

    /// What `--rung` calls it.
    pub(super) fn id(self) -> &'static str {
        match self {
            Rung::Single => "single",
            Rung::Doubled => "single-x2",
            Rung::Quadrupled => "single-x4",
            Rung::Database => "database",
            Rung::Balancer => "balancer",
            Rung::Replication => "replication",
            Rung::Cache => "cache",
            Rung::Queue => "queue",
            Rung::Sharding => "sharding",
            Rung::DataCentres => "data-centres",
        }
    }

    /// What the table calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Rung::Single => "single server",
            Rung::Doubled => "single server, doubled",
            Rung::Quadrupled => "single server, quadrupled",
            Rung::Database => "separate database",
            Rung::Balancer => "load balancer",
            Rung::Replication => "replication",
            Rung::Cache => "cache",
            Rung::Queue => "message queue",
            Rung::Sharding => "sharding",
            Rung::DataCentres => "data centres",
        }
    }

    /// The rung that it is compared with: the one before, scaled-up single servers aside.
    pub(super) fn below(self) -> Option<Rung> {
        match self {
            Rung::Single => None,
            Rung::Doubled | Rung::Quadrupled | Rung::Database => Some(Rung::Single),
            Rung::Balancer => Some(Rung::Database),
            Rung::Replication => Some(Rung::Balancer),
            Rung::Cache => Some(Rung::Replication),
            Rung::Queue => Some(Rung::Cache),
            Rung::Sharding => Some(Rung::Queue),
            Rung::DataCentres => Some(Rung::Sharding),
        }
    }

    /// What it adds, and the resources (as [`Busy`](crate::report::Busy) names them) that this is meant to relieve.
    pub(super) fn adds(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Rung::Single => ("web and database on one machine", &[]),
            Rung::Doubled => (
                "a machine of twice the size",
                &["server cpu", "server disk", "server network"],
            ),
            Rung::Quadrupled => (
                "a machine of four times the size",
                &["server cpu", "server disk", "server network"],
            ),
            Rung::Database => ("a machine for the database alone", &["server cpu", "server disk"]),
            Rung::Balancer => ("a load balancer and more web machines", &["web cpu", "web network"]),
            Rung::Replication => (
                "two replicas that take their share of the reads",
                &["database cpu", "database disk"],
            ),
            Rung::Cache => (
                "a cache in every web machine",
                &["database cpu", "replica cpu", "database disk", "replica disk"],
            ),
            Rung::Queue => ("a queue, and workers for what nobody waits for", &["web cpu"]),
            Rung::Sharding => (
                "more primaries, each for a part of the keys",
                &["database cpu", "database disk"],
            ),
            Rung::DataCentres => (
                "two more regions, and in each the machines that answer the users near it",
                &[
                    "database cpu",
                    "replica cpu",
                    "database disk",
                    "replica disk",
                    "web cpu",
                    "web network",
                    "balancer cpu",
                    "balancer network",
                ],
            ),
        }
    }

    pub(super) fn together(self) -> bool {
        self <= Rung::Quadrupled
    }

    pub(super) fn balanced(self) -> bool {
        self >= Rung::Balancer
    }

    pub(super) fn cached(self) -> bool {
        self >= Rung::Cache
    }

    pub(super) fn queued(self) -> bool {
        self >= Rung::Queue
    }
}

/// The parts that machines and users may be divided into.
pub(super) const PARTS: [u32; 3] = [1, 2, 4];

/// `plan` with machines divided by `wanted` or more, or else as far as they can be.
pub(super) fn divided(plan: &Plan, hardware: &Hardware, wanted: f64) -> Plan {
    let mut divided = plan.clone();
    for part in PARTS {
        if f64::from(divided.part) < wanted {
            divided = plan.divided(part, hardware).unwrap_or(divided);
        }
    }
    divided
}

impl Plan {
    pub(super) fn new(rung: Rung, sizes: &Sizes) -> Plan {
        let size = match rung {
            Rung::Doubled => 2,
            Rung::Quadrupled => 4,
            _ => 1,
        };
        let Tier { balancers, webs } = match rung {
            Rung::Single | Rung::Doubled | Rung::Quadrupled | Rung::Database => Tier { balancers: 0, webs: 1 },
            Rung::Balancer => sizes.balanced,
            Rung::Replication | Rung::Cache => sizes.replicated,
            Rung::Queue => sizes.queued,
            Rung::Sharding => sizes.sharded,
            Rung::DataCentres => sizes.regional,
        };
        let shards = if rung >= Rung::Sharding { SHARDS } else { 1 };
        let regions = if rung == Rung::DataCentres { REGIONS } else { 1 };
        let workers = match rung.queued() {
            true => (sizes.workers * shards).div_ceil(regions),
            false => 0,
        };
        let nodes = if rung >= Rung::Replication { NODES } else { 1 };
        Plan {
            rung,
            size,
            regions,
            region_takes: sizes.region_takes,
            part: 1,
            balancers,
            webs,
            workers,
            shards,
            nodes,
        }
    }

    /// The same with machines of a `part`-th of the cores, disk and network, for a `part`-th of the users; `None` where
    /// cores cannot be divided so. There are as many machines as before, since it is their number that decides how many
    /// caches each write has to reach and how many shards a key may be on. What a machine has in memory stays too: a
    /// part of the users looks at all of the data.
    pub(super) fn divided(&self, part: u32, hardware: &Hardware) -> Option<Plan> {
        let kinds = [
            &hardware.web.machine,
            &hardware.database.machine,
            &hardware.queue.machine,
            &hardware.balancer.machine,
        ];
        let whole = kinds.iter().all(|machine| machine.cores % part == 0);
        (self.part == 1 && whole).then(|| Plan { part, ..self.clone() })
    }

    /// The users of all that come to the part that is measured.
    pub(super) fn part_of(&self, users: u64) -> NonZeroU32 {
        let share = (users / u64::from(self.part)).clamp(1, u64::from(u32::MAX));
        NonZeroU32::new(share as u32).unwrap_or(NonZeroU32::MIN)
    }

    /// How many machines of each kind, in each region.
    fn counts(&self) -> [(&'static str, u32); 6] {
        let separate = u32::from(!self.rung.together());
        [
            ("server", 1 - separate),
            ("load balancer", self.balancers),
            ("web", self.webs * separate),
            ("database", self.shards * self.nodes * separate),
            ("queue", u32::from(self.rung.queued())),
            ("worker", self.workers),
        ]
    }

    pub(super) fn machines(&self) -> u32 {
        self.counts().iter().map(|(_, count)| count * self.regions).sum()
    }

    /// US dollars a month.
    pub(super) fn price(&self, hardware: &Hardware) -> f64 {
        let each = |kind| match kind {
            // A single server keeps the database's disk.
            "server" | "database" => hardware.database.machine.price * f64::from(self.size),
            "load balancer" => hardware.balancer.machine.price,
            "queue" => hardware.queue.machine.price,
            _ => hardware.web.machine.price,
        };
        self.counts()
            .iter()
            .map(|(kind, count)| each(kind) * f64::from(count * self.regions))
            .sum()
    }

    /// In words: `1 load balancer, 5 web, 1 database`.
    pub(super) fn parts(&self) -> String {
        let parts = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let parts = parts
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect::<Vec<_>>()
            .join(", ");
        match self.regions {
            1 => parts,
            regions => format!("{regions} regions, each with {parts}"),
        }
    }

    /// The requests a second that it might take, to start the search from.
    pub(super) fn guess(&self, demand: &Demand, hardware: &Hardware) -> f64 {
        if self.rung.together() {
            return demand.single_limit(&hardware.web.machine) * f64::from(self.size);
        }
        let webs = f64::from(self.webs * self.regions) / demand.webs(&hardware.web.machine, self.rung.queued());
        if self.rung.cached() {
            // How much a cache takes off the database is what the search is to find out.
            return webs / HEADROOM;
        }
        webs.min(demand.database_limit(self.nodes, hardware.database.machine.cores))
    }
}

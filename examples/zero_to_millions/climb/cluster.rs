//! The machines of one rung, in a simulated world, with the real blocks on them.

use super::Result;
use super::database::{Database, Node};
use super::jobs::Jobs;
use super::plan::Plan;
use super::regions::{Geography, Ways};
use super::rows::Rows;
use super::station::{DiskRead, Host};
use super::sticky::Sticky;
use crate::hardware::{self, Hardware};
use crate::report::Busy;
use bytes::Bytes;
use outgrow::balance::{Endpoint, OutlierEjection, Pool};
use outgrow::cache::CachedStore;
use outgrow::env::Env;
use outgrow::replica::{Ack, Node as ReplicaNode, ReplicatedStore};
use outgrow::shard::{ShardedStore, SlotTable};
use outgrow::sim::{DiskModel, Latency, Machine, World};
use outgrow::store::{BoxStore, Store, StoreExt};
use std::sync::Arc;
use std::time::Duration;

/// Rows that a cache is warmed with at once.
const WARMED_AT_ONCE: usize = 1_024;
/// How often each region is asked whether it is up, and how many answers in a row it takes to believe that it is not.
const HEALTH_CHECK: Duration = Duration::from_millis(333);
const MISSED_CHECKS: u32 = 3;
/// Enough for a few messages between any two regions.
const INTRODUCTION: Duration = Duration::from_secs(1);

/// Everything that a request meets.
pub(super) struct Cluster {
    pub(super) env: Env,
    pub(super) hardware: Arc<Hardware>,
    pub(super) rows: Arc<Rows>,
    pub(super) geography: Arc<Geography>,
    pub(super) regions: Vec<Region>,
    /// Each has nodes in every region.
    pub(super) shards: Vec<Database>,
    /// Whether web machine and database are the same machine.
    pub(super) together: bool,
}

/// What one place has of its own, besides its nodes of the database.
pub(super) struct Region {
    /// A visit always comes to the same one, as its name server told it.
    pub(super) balancers: Vec<Balancer>,
    pub(super) webs: Vec<Web>,
    pub(super) workers: Vec<Arc<Host>>,
    pub(super) jobs: Option<Jobs>,
}

/// A load balancer's machine, and the block that runs on it.
pub(super) struct Balancer {
    pub(super) host: Arc<Host>,
    pub(super) pool: Pool<Sticky, usize>,
}

/// A web machine, with the store as it sees it.
pub(super) struct Web {
    pub(super) host: Arc<Host>,
    pub(super) store: BoxStore,
    /// Its caches, one for each shard.
    pub(super) caches: Vec<CachedStore<Database>>,
}

impl Cluster {
    /// Builds the machines of `plan`, and warms the caches.
    pub(super) async fn build(
        world: &World,
        plan: &Plan,
        hardware: &Arc<Hardware>,
        rows: &Arc<Rows>,
        patience: Duration,
    ) -> Result<Arc<Cluster>> {
        let env = world.env();
        let geography = Arc::new(Geography::new(plan, hardware, &env)?);
        let maker = Maker {
            world,
            hardware,
            rows,
            patience,
            env: &env,
            geography: &geography,
            plan,
        };
        let server = plan.rung.together().then(|| Arc::new(maker.database_host()));
        let mut shards = Vec::new();
        for shard in 0..plan.shards {
            shards.push(maker.database(shard, server.as_ref()).await?);
        }
        let mut regions = Vec::new();
        for region in 0..plan.regions {
            regions.push(maker.region(region as usize, server.as_ref(), &shards).await?);
        }
        let (hardware, rows) = (Arc::clone(hardware), Arc::clone(rows));
        let together = plan.rung.together();
        let cluster = Arc::new(Cluster {
            env,
            hardware,
            rows,
            geography,
            regions,
            shards,
            together,
        });
        if plan.regions > 1 {
            // Until the nodes of all regions have heard of their primary.
            cluster.env.sleep(INTRODUCTION).await;
        }
        cluster.warm().await?;
        if plan.rung.queued() {
            Jobs::start_workers(&cluster);
        }
        if plan.regions > 1 {
            cluster.start_health_checks();
        }
        Ok(cluster)
    }

    /// Fills every cache with the hottest rows.
    async fn warm(&self) -> Result<()> {
        self.shards.iter().for_each(|shard| shard.shared().set_warming(true));
        for web in self.webs().filter(|web| !web.caches.is_empty()) {
            let mut hottest = self.rows.hottest();
            loop {
                let some: Vec<Bytes> = hottest.by_ref().take(WARMED_AT_ONCE).collect();
                if some.is_empty() {
                    break;
                }
                web.store.get_many(&some).await?;
            }
        }
        self.shards.iter().for_each(|shard| shard.shared().set_warming(false));
        Ok(())
    }

    /// Tells the router how each region is, for ever.
    fn start_health_checks(self: &Arc<Cluster>) {
        for region in 0..self.regions.len() {
            let cluster = Arc::clone(self);
            let checks = async move {
                let mut missed = 0;
                loop {
                    cluster.env.sleep(HEALTH_CHECK).await;
                    let before = missed;
                    missed = match cluster.regions[region].is_up() {
                        true => 0,
                        false => missed + 1,
                    };
                    if (missed >= MISSED_CHECKS) != (before >= MISSED_CHECKS) {
                        cluster.geography.set_health(region, missed < MISSED_CHECKS);
                    }
                }
            };
            self.env.spawn(checks).detach();
        }
    }

    /// The web machines of all regions.
    pub(super) fn webs(&self) -> impl Iterator<Item = &Web> {
        self.regions.iter().flat_map(|region| &region.webs)
    }

    /// The queues of all regions.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Jobs> {
        self.regions.iter().filter_map(|region| region.jobs.as_ref())
    }

    /// Starts counting how busy everything is anew.
    pub(super) fn reset(&self) {
        let now = self.env.now();
        self.hosts().for_each(|(_, _, host)| host.reset(now));
    }

    /// How busy each kind of resource is, the busiest machine of each kind for those that are not interchangeable.
    pub(super) fn busy(&self) -> Vec<Busy> {
        let now = self.env.now();
        let mut kinds: Vec<(String, Vec<f64>)> = Vec::new();
        for (region, kind, host) in self.hosts() {
            let place = self.geography.names()[region];
            for (part, station) in [("cpu", &host.cpu), ("disk", &host.disk), ("network", &host.network)] {
                let name = format!("{place} {kind} {part}").trim_start().to_owned();
                let busy = station.utilisation(now);
                match kinds.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, all)) => all.push(busy),
                    None => kinds.push((name, vec![busy])),
                }
            }
        }
        let mean = |all: Vec<f64>| all.iter().sum::<f64>() / all.len() as f64;
        kinds
            .into_iter()
            .map(|(name, all)| Busy {
                name,
                utilisation: mean(all),
            })
            .collect()
    }

    /// Every machine, with its region and its kind.
    fn hosts(&self) -> impl Iterator<Item = (usize, &'static str, &Arc<Host>)> {
        let databases = self.shards.iter().filter(|_| !self.together).flat_map(|shard| {
            let primary = shard.shared().primary();
            shard.shared().nodes.iter().map(move |node| {
                let kind = match std::ptr::eq(node, primary) {
                    true => "database",
                    false => "replica",
                };
                (node.region, kind, &node.host)
            })
        });
        let regions = self.regions.iter().enumerate();
        let others =
            regions.flat_map(|(at, region)| region.hosts(self.together).map(move |(kind, host)| (at, kind, host)));
        others.chain(databases)
    }

    /// Hits and lookups of all caches so far.
    pub(super) fn cache_counts(&self) -> (u64, u64) {
        let stats = self.webs().flat_map(|web| &web.caches).map(|cache| cache.stats().cache);
        stats.fold((0, 0), |(hits, lookups), stats| {
            (hits + stats.hits, lookups + stats.hits + stats.misses)
        })
    }
}

impl Region {
    /// Whether it answers.
    fn is_up(&self) -> bool {
        self.balancers.iter().any(|balancer| balancer.host.is_up())
    }

    /// Its machines, but for the database's.
    pub(super) fn hosts(&self, together: bool) -> impl Iterator<Item = (&'static str, &Arc<Host>)> {
        let web = if together { "server" } else { "web" };
        let webs = self.webs.iter().map(move |machine| (web, &machine.host));
        let balancers = self.balancers.iter().map(|balancer| ("balancer", &balancer.host));
        let queue = self.jobs.iter().map(|jobs| ("queue", &jobs.host));
        let workers = self.workers.iter().map(|worker| ("worker", worker));
        balancers.chain(webs).chain(queue).chain(workers)
    }
}

/// What is needed to make machines.
struct Maker<'a> {
    world: &'a World,
    hardware: &'a Arc<Hardware>,
    rows: &'a Arc<Rows>,
    patience: Duration,
    env: &'a Env,
    geography: &'a Arc<Geography>,
    plan: &'a Plan,
}

impl Maker<'_> {
    /// How much larger a machine is here than the file says.
    fn factor(&self) -> f64 {
        f64::from(self.plan.size) / f64::from(self.plan.part)
    }

    fn host(&self, machine: &hardware::Machine) -> Host {
        self.host_with_disk(machine, DiskRead::default())
    }

    fn host_with_disk(&self, machine: &hardware::Machine, read: DiskRead) -> Host {
        let cores = machine.cores * self.plan.size / self.plan.part;
        let bytes_per_second = machine.network_bytes_per_second * self.factor();
        Host::new(cores, bytes_per_second, read, self.patience)
    }

    fn database_host(&self) -> Host {
        let database = &self.hardware.database;
        let read = DiskRead {
            latency: database.disk_read,
            work: Duration::from_secs_f64(1.0 / (database.disk_reads_per_second * self.factor())),
        };
        self.host_with_disk(&database.machine, read)
    }

    /// A machine whose disk takes `sync` to make a write durable.
    fn machine(&self, name: &str, sync: Duration) -> Machine {
        let machine = self.world.machine(name);
        machine.set_disk(DiskModel {
            sync: Latency::new(sync).jitter(0.2),
            ..DiskModel::default()
        });
        machine
    }

    /// A shard: in each region as many nodes as the plan says, the first of all of them the primary.
    async fn database(&self, shard: u32, server: Option<&Arc<Host>>) -> Result<Database> {
        let sync = self.hardware.database.disk_sync;
        let name = |node| (format!("db{shard}-{node}"), (node / self.plan.nodes) as usize);
        let names: Vec<(String, usize)> = (0..self.plan.nodes * self.plan.regions).map(name).collect();
        let machines: Vec<_> = names.iter().map(|(name, _)| self.machine(name, sync)).collect();
        let mut builder = ReplicatedStore::builder().env(self.env.clone()).ack(Ack::Majority);
        for ((name, _), machine) in names.iter().zip(&machines) {
            let node = ReplicaNode::new(name.as_str()).env(machine.env());
            builder = builder.node(node.tag("node", name.as_str()));
        }
        if self.plan.regions > 1 {
            builder = builder.link(Ways {
                geography: Arc::clone(self.geography),
                nodes: names.clone(),
            });
        }
        let db = builder.open("data").await?;
        let nodes = names.into_iter().zip(machines).map(|((name, region), machine)| {
            let host = server.cloned().unwrap_or_else(|| Arc::new(self.database_host()));
            Node::new(name, region, host, machine, &db)
        });
        let nodes = nodes.collect();
        Ok(Database::new(
            self.env,
            db,
            nodes,
            self.rows,
            self.hardware,
            self.geography,
            self.plan.size,
        ))
    }

    async fn region(&self, region: usize, server: Option<&Arc<Host>>, shards: &[Database]) -> Result<Region> {
        let shards: Vec<Database> = shards.iter().map(|shard| shard.seen_from(region)).collect();
        let mut webs = Vec::new();
        for web in 0..self.plan.webs {
            let host = server
                .cloned()
                .unwrap_or_else(|| Arc::new(self.host(&self.hardware.web.machine)));
            webs.push(self.web(&format!("web-{region}-{web}"), host, &shards).await?);
        }
        let jobs = match self.plan.rung.queued() {
            true => Some(self.jobs(region).await?),
            false => None,
        };
        let worker = |_| Arc::new(self.host(&self.hardware.web.machine));
        Ok(Region {
            balancers: (0..self.plan.balancers).map(|_| self.balancer(webs.len())).collect(),
            webs,
            workers: (0..self.plan.workers).map(worker).collect(),
            jobs,
        })
    }

    fn balancer(&self, webs: usize) -> Balancer {
        let webs = (0..webs).map(|web| Endpoint::new(format!("web-{web}")).target(web));
        let pool = Pool::builder(Sticky::default()).env(self.env.clone()).endpoints(webs);
        Balancer {
            host: Arc::new(self.host(&self.hardware.balancer.machine)),
            pool: pool.outliers(OutlierEjection::default()).build(),
        }
    }

    async fn web(&self, name: &str, host: Arc<Host>, shards: &[Database]) -> Result<Web> {
        let mut caches = Vec::new();
        if self.plan.rung.cached() {
            for shard in shards {
                let capacity = self.rows.cacheable().div_ceil(shards.len());
                let cached = CachedStore::builder(shard.clone())
                    .env(self.env.clone())
                    .capacity(capacity);
                caches.push(cached.build().await?);
            }
        }
        let store = match (shards, &*caches) {
            ([only], []) => only.clone().boxed(),
            ([_], [cached]) => cached.clone().boxed(),
            _ => {
                let machine = self.world.machine(name);
                let mut sharded = ShardedStore::builder(SlotTable::new(16_384)).env(machine.env());
                for (shard, cached) in caches.iter().enumerate() {
                    sharded = sharded.shard(format!("shard-{shard}"), cached.clone());
                }
                sharded.open("shards").await?.boxed()
            }
        };
        Ok(Web { host, store, caches })
    }

    async fn jobs(&self, region: usize) -> Result<Jobs> {
        let queue = &self.hardware.queue;
        let machine = self.machine(&format!("queue-{region}"), queue.disk_sync);
        Ok(Jobs::open(machine, self.host(&queue.machine)).await?)
    }
}

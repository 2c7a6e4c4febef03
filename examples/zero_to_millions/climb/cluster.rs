//! The machines of one rung, in a simulated world, with the real blocks on them.

use super::Result;
use super::database::{Database, Node};
use super::jobs::Jobs;
use super::plan::Plan;
use super::rows::Rows;
use super::station::{DiskRead, Host};
use super::sticky::Sticky;
use crate::hardware::{self, Hardware};
use crate::report::Busy;
use bytes::Bytes;
use outgrow::balance::{Endpoint, Pool};
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

/// Everything that a request meets.
pub(super) struct Cluster {
    pub(super) env: Env,
    pub(super) hardware: Arc<Hardware>,
    pub(super) rows: Arc<Rows>,
    /// A visit always comes to the same one, as its name server told it.
    pub(super) balancers: Vec<Balancer>,
    pub(super) webs: Vec<Web>,
    pub(super) workers: Vec<Arc<Host>>,
    pub(super) shards: Vec<Database>,
    pub(super) jobs: Option<Jobs>,
    /// Whether web machine and database are the same machine.
    pub(super) together: bool,
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
        let maker = Maker {
            world,
            hardware,
            rows,
            patience,
            env: &env,
            plan,
        };
        let server = plan.rung.together().then(|| Arc::new(maker.database_host()));
        let mut shards = Vec::new();
        for shard in 0..plan.shards {
            shards.push(maker.database(shard, server.as_ref()).await?);
        }
        let mut webs = Vec::new();
        for web in 0..plan.webs {
            let host = server
                .clone()
                .unwrap_or_else(|| Arc::new(maker.host(&hardware.web.machine)));
            webs.push(maker.web(web, host, &shards).await?);
        }
        let balancer = |_| {
            let ids = (0..webs.len()).map(|web| Endpoint::new(format!("web-{web}")).target(web));
            let pool = Pool::builder(Sticky::default()).env(env.clone()).endpoints(ids).build();
            Balancer {
                host: Arc::new(maker.host(&hardware.balancer.machine)),
                pool,
            }
        };
        let balancers = (0..plan.balancers).map(balancer).collect();
        let jobs = match plan.rung.queued() {
            true => Some(maker.jobs().await?),
            false => None,
        };
        let workers = (0..plan.workers)
            .map(|_| Arc::new(maker.host(&hardware.web.machine)))
            .collect();
        let (hardware, rows) = (Arc::clone(hardware), Arc::clone(rows));
        let together = plan.rung.together();
        let cluster = Arc::new(Cluster {
            env,
            hardware,
            rows,
            balancers,
            webs,
            workers,
            shards,
            jobs,
            together,
        });
        cluster.warm().await?;
        if cluster.jobs.is_some() {
            Jobs::start_workers(&cluster);
        }
        Ok(cluster)
    }

    /// Fills every cache with the hottest rows.
    async fn warm(&self) -> Result<()> {
        self.shards.iter().for_each(|shard| shard.shared().set_warming(true));
        for web in self.webs.iter().filter(|web| !web.caches.is_empty()) {
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

    /// Starts counting how busy everything is anew.
    pub(super) fn reset(&self) {
        let now = self.env.now();
        self.hosts().for_each(|(_, host)| host.reset(now));
    }

    /// How busy each kind of resource is, the busiest machine of each kind for those that are not interchangeable.
    pub(super) fn busy(&self) -> Vec<Busy> {
        let now = self.env.now();
        let mut kinds: Vec<(String, Vec<f64>)> = Vec::new();
        for (kind, host) in self.hosts() {
            for (part, station) in [("cpu", &host.cpu), ("disk", &host.disk), ("network", &host.network)] {
                let name = format!("{kind} {part}");
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

    fn hosts(&self) -> impl Iterator<Item = (&'static str, &Arc<Host>)> {
        let web = if self.together { "server" } else { "web" };
        let webs = self.webs.iter().map(move |web_machine| (web, &web_machine.host));
        let databases = self.shards.iter().filter(|_| !self.together).flat_map(|shard| {
            let primary = shard.shared().primary();
            shard.shared().nodes.iter().map(move |node| {
                (
                    if std::ptr::eq(node, primary) {
                        "database"
                    } else {
                        "replica"
                    },
                    &node.host,
                )
            })
        });
        let balancer = self.balancers.iter().map(|balancer| ("balancer", &balancer.host));
        let queue = self.jobs.iter().map(|jobs| ("queue", &jobs.host));
        let workers = self.workers.iter().map(|worker| ("worker", worker));
        balancer.chain(webs).chain(databases).chain(queue).chain(workers)
    }

    /// Hits and lookups of all caches so far.
    pub(super) fn cache_counts(&self) -> (u64, u64) {
        let stats = self
            .webs
            .iter()
            .flat_map(|web| &web.caches)
            .map(|cache| cache.stats().cache);
        stats.fold((0, 0), |(hits, lookups), stats| {
            (hits + stats.hits, lookups + stats.hits + stats.misses)
        })
    }
}

/// What is needed to make machines.
struct Maker<'a> {
    world: &'a World,
    hardware: &'a Arc<Hardware>,
    rows: &'a Arc<Rows>,
    patience: Duration,
    env: &'a Env,
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

    async fn database(&self, shard: u32, server: Option<&Arc<Host>>) -> Result<Database> {
        let sync = self.hardware.database.disk_sync;
        let names = (0..self.plan.nodes).map(|node| format!("db{shard}-{node}"));
        let machines: Vec<_> = names.map(|name| (self.machine(&name, sync), name)).collect();
        let nodes = machines.iter().map(|(machine, name)| {
            ReplicaNode::new(name.as_str())
                .env(machine.env())
                .tag("node", name.as_str())
        });
        let mut builder = ReplicatedStore::builder().env(self.env.clone()).ack(Ack::Majority);
        for node in nodes {
            builder = builder.node(node);
        }
        let db = builder.open("data").await?;
        let nodes = machines.into_iter().map(|(machine, name)| {
            let host = server.cloned().unwrap_or_else(|| Arc::new(self.database_host()));
            Node::new(name, host, machine, &db)
        });
        let nodes = nodes.collect();
        Ok(Database::new(
            self.env,
            db,
            nodes,
            self.rows,
            self.hardware,
            self.plan.size,
        ))
    }

    async fn web(&self, web: u32, host: Arc<Host>, shards: &[Database]) -> Result<Web> {
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
                let machine = self.world.machine(&format!("web-{web}"));
                let mut sharded = ShardedStore::builder(SlotTable::new(16_384)).env(machine.env());
                for (shard, cached) in caches.iter().enumerate() {
                    sharded = sharded.shard(format!("shard-{shard}"), cached.clone());
                }
                sharded.open("shards").await?.boxed()
            }
        };
        Ok(Web { host, store, caches })
    }

    async fn jobs(&self) -> Result<Jobs> {
        let queue = &self.hardware.queue;
        let host = self.host(&queue.machine);
        Ok(Jobs::open(self.machine("queue", queue.disk_sync), host).await?)
    }
}

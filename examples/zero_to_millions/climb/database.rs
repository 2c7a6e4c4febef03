//! The database as the web machines see it: a real replicated store, on modelled machines behind a network.

use super::regions::Geography;
use super::rows::Rows;
use super::station::{Failure, Host, Work};
use crate::hardware::Hardware;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use outgrow::balance::{self, Endpoint, EndpointId, Lease, LeastRequest, Pool, Request};
use outgrow::env::Env;
use outgrow::replica::{ReadPreference, ReplicatedStore};
use outgrow::sim::Machine;
use outgrow::store::{
    Batch, BoxStore, Capability, Effect, Entry, Error, Feed, Follower, LogId, Position, Receipt, Record, Result, Scan,
    Store, StoreExt, Version,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A [`Store`] over the network. Each call takes its time on a modelled machine, then does the real thing.
#[derive(Clone)]
pub(super) struct Database {
    shared: Arc<Shared>,
    /// Where it is seen from.
    region: usize,
}

pub(super) struct Shared {
    pub(super) db: ReplicatedStore,
    pub(super) nodes: Vec<Node>,
    env: Env,
    /// In each region, which node of those that are up answers a read.
    readers: Vec<Pool<LeastRequest, usize>>,
    geography: Arc<Geography>,
    primary: AtomicUsize,
    rows: Arc<Rows>,
    hardware: Arc<Hardware>,
    memory: u32,
    /// While caches are being warmed nothing takes time.
    warming: AtomicBool,
    ledger: Mutex<Option<Ledger>>,
}

/// The newest version of each key whose write was acknowledged.
pub(super) type Ledger = BTreeMap<Bytes, Version>;

/// How long a record of the feed waits for more to be sent with it.
const FEED_DELAY: Duration = Duration::from_millis(10);
/// How long a node is left alone that does not answer while its primary changes.
const NOT_YET: Duration = Duration::from_millis(50);
/// The most records that are sent at once.
const FEED_BATCH: usize = 4_096;

/// A machine of the database.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) region: usize,
    pub(super) host: Arc<Host>,
    pub(super) machine: Machine,
    /// Reads at this node and no other.
    view: BoxStore,
}

impl Node {
    pub(super) fn new(name: String, region: usize, host: Arc<Host>, machine: Machine, db: &ReplicatedStore) -> Node {
        let here = ReadPreference::nearest().tag("node", &name);
        let view = db.reading(here).boxed();
        Node {
            name,
            region,
            host,
            machine,
            view,
        }
    }
}

impl Database {
    pub(super) fn new(
        env: &Env,
        db: ReplicatedStore,
        nodes: Vec<Node>,
        rows: &Arc<Rows>,
        hardware: &Arc<Hardware>,
        geography: &Arc<Geography>,
        memory: u32,
    ) -> Database {
        let readers = |region| {
            let here = nodes.iter().enumerate().filter(|(_, node)| node.region == region);
            let endpoints = here.map(|(i, node)| Endpoint::new(node.name.as_str()).target(i));
            let pool = Pool::builder(LeastRequest::default()).env(env.clone());
            pool.endpoints(endpoints).build()
        };
        let readers = (0..geography.names().len()).map(readers).collect();
        let shared = Shared {
            db,
            nodes,
            env: env.clone(),
            readers,
            geography: Arc::clone(geography),
            primary: AtomicUsize::new(0),
            rows: Arc::clone(rows),
            hardware: Arc::clone(hardware),
            memory,
            warming: AtomicBool::new(false),
            ledger: Mutex::new(None),
        };
        Database {
            shared: Arc::new(shared),
            region: 0,
        }
    }

    /// The same database as one sees it from this region: reads are answered here, writes go to the primary.
    pub(super) fn seen_from(&self, region: usize) -> Database {
        Database {
            shared: Arc::clone(&self.shared),
            region,
        }
    }

    /// To the primary and back, beyond what it takes inside a region.
    fn distance(&self) -> Duration {
        self.shared
            .geography
            .round_trip(self.region, self.shared.primary().region)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Reads at the node of this region with the least to do; a node that is down is tried once, and then another.
    async fn read(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let shared = &*self.shared;
        let mut tried = Vec::new();
        loop {
            let request = Request::new().avoid(&tried);
            let lease = shared.readers[self.region]
                .pick(&request)
                .map_err(|error| unavailable(&error.to_string()))?;
            let node = &shared.nodes[lease.target];
            tried.push(lease.id().clone());
            let error = match shared.reach(node, keys).await {
                Ok(()) => match shared.read_at(node, keys).await {
                    Ok(entries) => {
                        lease.succeed();
                        return Ok(entries);
                    }
                    Err(error) => {
                        // It is well, and only does not know its primary yet.
                        lease.backoff(NOT_YET);
                        error
                    }
                },
                Err(failure) => {
                    lease.fail(balance::Failure::Other);
                    down(failure)
                }
            };
            if tried.len() == shared.nodes.len().min(2) {
                return Err(error);
            }
        }
    }
}

impl Shared {
    /// Takes the time that a read takes on a node's machine, there and back.
    async fn reach(&self, node: &Node, keys: &[Bytes]) -> Result<(), Failure> {
        if self.warming.load(Ordering::Relaxed) {
            return Ok(());
        }
        let database = &self.hardware.database;
        let rows = keys.len() as u32;
        let on_disk = keys.iter().filter(|key| !self.rows.is_resident(key, self.memory));
        let work = Work {
            cpu: database.read_cpu * rows,
            bytes: u64::from(self.hardware.workload.row_bytes) * u64::from(rows),
            disk_reads: on_disk.count() as u32,
        };
        node.host.serve(&self.env, work, database.machine.round_trip).await
    }

    async fn read_at(&self, node: &Node, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let mut entries = match keys {
            [key] => vec![node.view.get(key).await?],
            _ => node.view.get_many(keys).await?,
        };
        // A row that nobody has written since the data was loaded is made up on the spot, so that it need not be kept.
        entries.iter_mut().for_each(|entry| {
            entry.get_or_insert_with(|| Entry {
                value: Bytes::from_static(b"a row"),
                version: Version(0),
                expires: None,
            });
        });
        Ok(entries)
    }

    async fn write(&self, batch: Batch, distance: Duration) -> Result<Receipt> {
        let database = &self.hardware.database;
        let rows = batch.ops().len() as u32;
        let keys: Vec<Bytes> = batch.keys().cloned().collect();
        let primary = &self.nodes[self.primary.load(Ordering::Relaxed)];
        let work = Work {
            cpu: database.write_cpu * rows,
            bytes: 0,
            disk_reads: 0,
        };
        let lease = self.lease_on(primary);
        let written = async {
            let travel = database.machine.round_trip + distance;
            primary.host.serve(&self.env, work, travel).await.map_err(down)?;
            self.db.commit(batch).await
        };
        let written = written.await;
        match (lease, &written) {
            (Some(lease), Ok(_)) => lease.succeed(),
            (Some(lease), Err(_)) => lease.fail(balance::Failure::Other),
            (None, _) => {}
        }
        let receipt = written?;
        for node in &self.nodes {
            if !std::ptr::eq(node, primary) && node.host.is_up() {
                // Nobody waits for a replica to take the rows over.
                let _done = node
                    .host
                    .cpu
                    .book(self.env.now(), database.apply_cpu * rows, Duration::MAX);
            }
        }
        if let Some(ledger) = &mut *self.ledger.lock() {
            for key in keys {
                let newest = ledger.entry(key).or_default();
                *newest = receipt.version.max(*newest);
            }
        }
        Ok(receipt)
    }

    /// Counts a write among what its node has to do, so that reads go elsewhere.
    fn lease_on(&self, node: &Node) -> Option<Lease<LeastRequest, usize>> {
        let others = self.nodes.iter().filter(|other| !std::ptr::eq(*other, node));
        let others: Vec<EndpointId> = others.map(|other| other.name.as_str().into()).collect();
        let lease = self.readers[node.region].pick(&Request::new().avoid(&others)).ok()?;
        // It is another node's when this one is believed to be down.
        std::ptr::eq(&self.nodes[lease.target], node).then_some(lease)
    }

    /// Whether calls take no time, while caches are filled.
    pub(super) fn set_warming(&self, on: bool) {
        self.warming.store(on, Ordering::Relaxed);
    }

    /// The node that takes writes.
    pub(super) fn primary(&self) -> &Node {
        &self.nodes[self.primary.load(Ordering::Relaxed)]
    }

    /// The nodes in a region.
    pub(super) fn nodes_in(&self, region: usize) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.region == region)
    }

    /// Sends writes to this node from now on.
    pub(super) fn set_primary(&self, name: &str) {
        if let Some(index) = self.nodes.iter().position(|node| node.name == name) {
            self.primary.store(index, Ordering::Relaxed);
        }
    }

    /// Starts to keep what is acknowledged.
    pub(super) fn keep_ledger(&self) {
        *self.ledger.lock() = Some(Ledger::new());
    }

    /// How many acknowledged writes the store no longer knows.
    pub(super) async fn lost_writes(&self) -> Result<u64> {
        let ledger = self.ledger.lock().take().unwrap_or_default();
        let mut lost = 0;
        for (key, version) in ledger {
            let found = self.db.get(&key).await?;
            lost += u64::from(found.is_none_or(|entry| entry.version < version));
        }
        Ok(lost)
    }
}

fn unavailable(what: &str) -> Error {
    Error::Unavailable {
        what: what.to_owned(),
        effect: Effect::None,
    }
}

fn down(failure: Failure) -> Error {
    unavailable(match failure {
        Failure::Down => "the database machine is down",
        Failure::Refused => "the database machine's line is too long",
    })
}

impl Store for Database {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let entries = self.read(&[Bytes::copy_from_slice(key)]).await?;
        Ok(entries.into_iter().next().flatten())
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        self.read(keys).await
    }

    /// At the primary, and in no time: no request of the workload scans.
    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.shared.db.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.shared.write(batch, self.distance()).await
    }

    fn capability(&self) -> Capability {
        self.shared.db.capability()
    }
}

impl Feed for Database {
    fn log(&self) -> LogId {
        self.shared.db.log()
    }

    fn position(&self) -> Position {
        self.shared.db.position()
    }

    /// Over the network: what has gathered comes at once, a moment after the first of it.
    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        let delayed = move |records: Vec<Result<_>>| async move {
            if records.first().is_some_and(Result::is_ok) {
                self.shared.env.sleep(FEED_DELAY + self.distance() / 2).await;
            }
            stream::iter(records)
        };
        let gathered = self.shared.db.watch(from).ready_chunks(FEED_BATCH);
        gathered.then(delayed).flatten().boxed()
    }

    async fn snapshot(&self) -> Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)> {
        self.shared.db.snapshot().await
    }

    /// Not possible: who follows is on another machine, and has to watch.
    fn attach(&self, _: Weak<dyn Follower>) -> Result<()> {
        Err(Error::Invalid {
            what: "a follower on another machine cannot be called: it has to watch".to_owned(),
        })
    }
}

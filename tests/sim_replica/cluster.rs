//! A store on simulated machines, and the play: clients and chaos, then peace and judgement.

use crate::oracle::{Counts, Oracle};
use crate::{chaos, clients};
use futures::StreamExt;
use outgrow::env::{Env, Rng, Tick};
use outgrow::replica::{FailoverTo, Link, Node, Passage, ReadPreference, ReplicatedStore, Role};
use outgrow::sim::{Faults, Machine, World};
use outgrow::store::{Error, Feed, Follower, Position, Record, Scan, Store, StoreExt};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Everything that a seed decides at its start.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    /// Some writes count on the primary's disk alone, and may be lost.
    pub(crate) weak: bool,
    /// Damage, which at most a minority of the nodes may have, or openings of the whole store, which make damage to the
    /// newest records invisible: not both.
    pub(crate) victim: Option<usize>,
}

/// The store under test with all around it. A clone is a handle.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) wire: Arc<Mutex<Wire>>,
    /// Replaced when the whole store is opened again; absent meanwhile.
    pub(crate) db: Arc<Mutex<Option<ReplicatedStore>>>,
    /// Follows the present opening of the store, and no other: one that was only dropped may go on for a while.
    follower: Arc<Mutex<Arc<Newest>>>,
}

/// How messages travel.
pub(crate) struct Wire {
    rng: Rng,
    pub(crate) slowest: Duration,
    pub(crate) loss: f64,
    /// Those who are on the other side of a cut.
    pub(crate) cut: BTreeSet<String>,
}

struct Ways(Arc<Mutex<Wire>>);

impl Link for Ways {
    fn pass(&self, from: &str, to: &str) -> Passage {
        let wire = &mut *self.0.lock().unwrap();
        if wire.cut.contains(from) != wire.cut.contains(to) || wire.rng.chance(wire.loss) {
            return Passage::Lost;
        }
        // A few take much longer, and find another primary when they arrive.
        let slowest = if wire.rng.chance(0.02) { 300 * MS } else { wire.slowest };
        match wire.rng.below(slowest.as_nanos() as u64 + 1) {
            0 => Passage::AtOnce,
            nanos => Passage::After(Duration::from_nanos(nanos)),
        }
    }
}

/// Hears of every record before its commit returns.
#[derive(Default)]
pub(crate) struct Newest(Mutex<Position>);

impl Follower for Newest {
    fn committed(&self, at: Position, _: &Record) {
        *self.0.lock().unwrap() = at;
    }
}

impl Newest {
    pub(crate) fn position(&self) -> Position {
        *self.0.lock().unwrap()
    }
}

impl Cluster {
    pub(crate) fn new(world: &World) -> Cluster {
        let mut rng = world.rng("plan");
        let nodes = [3, 3, 3, 3, 5, 1][rng.index(6)];
        let plan = Plan {
            nodes,
            weak: rng.chance(0.5),
            victim: (nodes > 1 && rng.chance(0.5)).then(|| rng.index(nodes)),
        };
        let wire = Wire {
            rng: world.rng("wire"),
            slowest: MS * [0, 1, 10][rng.index(3)],
            loss: 0.0,
            cut: BTreeSet::new(),
        };
        Cluster {
            world: world.clone(),
            plan,
            oracle: Arc::default(),
            wire: Arc::new(Mutex::new(wire)),
            db: Arc::default(),
            follower: Arc::default(),
        }
    }

    pub(crate) fn env(&self) -> Env {
        self.world.env()
    }

    pub(crate) fn name(&self, node: usize) -> String {
        format!("n{node}")
    }

    pub(crate) fn machine(&self, node: usize) -> Machine {
        self.world.machine(&self.name(node))
    }

    pub(crate) fn db(&self) -> Option<ReplicatedStore> {
        self.db.lock().unwrap().clone()
    }

    pub(crate) fn follower(&self) -> Arc<Newest> {
        Arc::clone(&self.follower.lock().unwrap())
    }

    pub(crate) async fn open(&self) -> Result<ReplicatedStore, Error> {
        let builder = ReplicatedStore::builder()
            .env(self.env())
            .link(Ways(Arc::clone(&self.wire)))
            .write_timeout(400 * MS)
            .failover_timeout(400 * MS)
            .read_wait(20 * MS)
            .checkpoint_bytes(64 << 10);
        let node = |node| {
            Node::new(self.name(node))
                .env(self.machine(node).env())
                .tag("name", self.name(node))
        };
        let builder = (0..self.plan.nodes).fold(builder, |builder, n| builder.node(node(n)));
        let db = builder.open("db").await?;
        let newest = Arc::<Newest>::default();
        let follower: Arc<dyn Follower> = newest.clone();
        db.attach(Arc::downgrade(&follower))?;
        *self.follower.lock().unwrap() = newest;
        Ok(db)
    }

    /// The whole play.
    pub(crate) async fn play(self) -> Counts {
        // Messages may be slow from the start.
        while self.db().is_none() {
            let db = self.open().await;
            *self.db.lock().unwrap() = db.ok();
        }
        let until = self.env().now() + 3_000 * MS;
        let mut tasks = vec![self.env().spawn(chaos::run(self.clone(), until))];
        for client in 0..4 {
            tasks.push(self.env().spawn(clients::run(self.clone(), client, until)));
        }
        for task in tasks {
            task.await.expect("no client and no chaos panics");
        }
        self.heal().await;
        self.check_nodes_agree().await;
        self.oracle.judge(&self.plan);
        self.oracle.counts()
    }

    /// Stops all faults, starts what is down, and expects the store to come back by what an operator would do.
    async fn heal(&self) {
        {
            let mut wire = self.wire.lock().unwrap();
            wire.cut.clear();
            wire.loss = 0.0;
        }
        (0..self.plan.nodes).for_each(|node| self.machine(node).set_faults(Faults::default()));
        let limit = self.env().now() + 20_000 * MS;
        loop {
            let why = match self.try_to_heal().await {
                Ok(()) => return,
                Err(why) => why,
            };
            assert!(
                self.env().now() < limit,
                "the store did not heal: {why}; {:?}",
                self.db()
            );
            self.env().sleep(50 * MS).await;
        }
    }

    async fn try_to_heal(&self) -> Result<(), String> {
        let db = match self.db() {
            Some(db) => db,
            None => {
                let db = self.open().await.map_err(|error| error.to_string())?;
                *self.db.lock().unwrap() = Some(db.clone());
                db
            }
        };
        self.check_whys(&db);
        for (node, status) in db.status().nodes.iter().enumerate() {
            if status.role == Role::Down {
                let env = self.machine(node).env();
                db.restart(&status.name, env).await.map_err(|error| error.to_string())?;
            }
        }
        if db.put("heal", "1").await.is_err() {
            let report = db.failover(FailoverTo::MostCaughtUp).await;
            self.oracle.failed_over(&report);
            report.map_err(|error| error.to_string())?;
            db.put("heal", "2").await.map_err(|error| error.to_string())?;
        }
        self.env().sleep(100 * MS).await;
        let status = db.status();
        let goal = db.position();
        let behind = status
            .nodes
            .iter()
            .find(|node| node.applied != goal || node.lag.is_none() || node.role == Role::Learner);
        behind.map_or(Ok(()), |node| Err(format!("{node:?} has not got to {goal}")))
    }

    /// A node may go down for what its disk did, never for what another node did.
    pub(crate) fn check_whys(&self, db: &ReplicatedStore) {
        for node in db.status().nodes {
            let why = node.why.unwrap_or_default();
            let broken = why.contains("would replace") || why.contains("not committed") || why.contains("broken");
            assert!(!broken, "{}: {why}", node.name);
        }
    }

    async fn check_nodes_agree(&self) {
        let db = self.db().expect("healed");
        let mut first = None;
        for node in 0..self.plan.nodes {
            let only = ReadPreference::nearest().tag("name", self.name(node));
            let view = db.reading(only);
            let all: Vec<_> = view
                .scan(Scan::all())
                .map(|entry| entry.expect("the node answers"))
                .collect()
                .await;
            let first = first.get_or_insert_with(|| {
                self.oracle.state(all.iter());
                all.clone()
            });
            assert_eq!(*first, all, "{} differs", self.name(node));
        }
        self.oracle.divergent(&db.divergent());
    }
}

/// A tick in which nothing else has happened.
pub(crate) fn tick(env: &Env) -> Tick {
    env.now()
}

//! Scenes on simulated machines, one promise each. Random ones are in `tests/sim_replica`.

mod disks;

use super::*;
use crate::sim::{DiskOp, Inject, Machine, World};
use crate::store::{Batch, Error, Expect, Feed, Position, Store, StoreExt, Version};
use crate::sync::Mutex;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A store over machines of its names.
struct Scene {
    world: World,
    names: &'static [&'static str],
}

const THREE: &[&str] = &["a", "b", "c"];

impl Scene {
    fn new(seed: u64, names: &'static [&'static str]) -> Scene {
        let world = World::new(seed);
        Scene { world, names }
    }

    fn machine(&self, name: &str) -> Machine {
        self.world.machine(name)
    }

    fn builder(&self) -> ReplicatedStoreBuilder {
        let builder = ReplicatedStore::builder().env(self.world.env());
        let node = |name: &&str| Node::new(*name).env(self.machine(name).env()).tag("zone", *name);
        self.names.iter().map(node).fold(builder, ReplicatedStoreBuilder::node)
    }

    fn open(&self) -> ReplicatedStore {
        self.world.run(self.builder().open("db")).unwrap()
    }

    fn restart(&self, db: &ReplicatedStore, name: &str) {
        self.world.run(db.restart(name, self.machine(name).env())).unwrap();
    }

    /// Lets everything that is under way come to its end.
    fn settle(&self) {
        self.world.run_for(200 * MS);
    }

    fn put(&self, db: &impl Store, key: &'static str, value: &'static str) {
        self.world.run(db.put(key, value)).unwrap();
    }

    fn get(&self, db: &impl Store, key: &str) -> Option<String> {
        let entry = self.world.run(db.get(key.as_bytes())).unwrap();
        entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }

    fn failover(&self, db: &ReplicatedStore, to: FailoverTo) -> FailoverReport {
        self.world.run(db.failover(to)).unwrap()
    }
}

fn only(name: &str) -> ReadPreference {
    ReadPreference::nearest().tag("zone", name)
}

fn role(db: &ReplicatedStore, name: &str) -> Role {
    db.status().nodes.iter().find(|node| node.name == name).unwrap().role
}

#[test]
fn one_node_keeps_what_it_acknowledged() {
    let scene = Scene::new(1, &["a"]);
    let db = scene.open();
    let log = db.log();
    scene.put(&db, "k", "1");
    scene.put(&db, "k", "2");
    scene.machine("a").crash();
    let refused = scene.world.run(db.put("k", "3")).unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    assert!(matches!(scene.world.run(db.get(b"k")), Err(Error::Unavailable { .. })));
    drop(db);
    let db = scene.open();
    assert_eq!(db.log(), log);
    assert_eq!(scene.get(&db, "k").as_deref(), Some("2"));
    assert_eq!(db.status().epoch, 2);
}

#[test]
fn a_write_reaches_every_node() {
    let scene = Scene::new(2, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    scene.settle();
    for name in THREE {
        assert_eq!(scene.get(&db.reading(only(name)), "k").as_deref(), Some("1"), "{name}");
    }
    let status = db.status();
    assert_eq!(status.primary.as_deref(), Some("a"));
    assert!(
        status.nodes.iter().all(|node| node.applied == Position::new(1, 2)),
        "{status:?}"
    );
    assert!(
        status.nodes.iter().all(|node| node.lag == Some(Duration::ZERO)),
        "{status:?}"
    );
}

#[test]
fn a_minority_may_die() {
    let scene = Scene::new(3, THREE);
    let db = scene.open();
    scene.machine("c").crash();
    scene.put(&db, "k", "1");
    assert_eq!(role(&db, "c"), Role::Down);
    scene.machine("b").crash();
    // The write may be done or not; what is certain is that nobody said it was.
    let unknown = scene.world.run(db.put("k", "2")).unwrap_err();
    assert_eq!(unknown.effect(), crate::store::Effect::Unknown);
    assert_eq!(scene.get(&db, "k").as_deref(), Some("1"));
    let alone = scene.world.run(db.failover(FailoverTo::MostCaughtUp)).unwrap_err();
    assert!(matches!(alone, Error::Unavailable { .. }), "{alone}");
    scene.restart(&db, "b");
    scene.restart(&db, "c");
    scene.put(&db, "k", "3");
    scene.settle();
    assert_eq!(scene.get(&db.reading(only("c")), "k").as_deref(), Some("3"));
}

#[test]
fn failover_keeps_what_a_majority_has() {
    let scene = Scene::new(4, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    scene.machine("a").crash();
    let report = scene.failover(&db, FailoverTo::MostCaughtUp);
    assert_eq!((report.from.as_deref(), report.lost.len()), (Some("a"), 0));
    assert_eq!(scene.get(&db, "k").as_deref(), Some("1"));
    scene.put(&db, "k", "2");
    scene.restart(&db, "a");
    scene.settle();
    assert_eq!(role(&db, "a"), Role::Replica);
    assert_eq!(scene.get(&db.reading(only("a")), "k").as_deref(), Some("2"));
    assert!(db.divergent().is_empty());
}

#[test]
fn a_planned_failover_goes_where_it_is_told_and_loses_nothing() {
    let scene = Scene::new(5, THREE);
    let db = scene.open();
    let weak = db.acking(Ack::Primary);
    for (name, value) in [("b", "1"), ("c", "2"), ("a", "3")] {
        scene.put(&weak, "k", value);
        let report = scene.failover(&db, FailoverTo::Node(name.into()));
        assert_eq!((report.to.as_str(), report.lost.len()), (name, 0));
        assert_eq!(scene.get(&db, "k").as_deref(), Some(value));
    }
    let unknown = scene.world.run(db.failover(FailoverTo::Node("d".into())));
    assert!(matches!(unknown, Err(Error::Invalid { .. })));
}

/// Cuts every way between "a" and the rest when told to.
#[derive(Clone, Default)]
struct Cut(Arc<Mutex<Vec<&'static str>>>);

impl Link for Cut {
    fn pass(&self, from: &str, to: &str) -> Passage {
        let cut = self.0.lock();
        let apart = |name: &str| cut.contains(&name);
        if apart(from) != apart(to) {
            Passage::Lost
        } else {
            Passage::AtOnce
        }
    }
}

/// From whom to whom, and how many messages still get there.
type Way = (&'static str, &'static str, usize);

/// Ways on which only so many messages get through; on all others, all do.
#[derive(Clone, Default)]
struct Ration(Arc<Mutex<Vec<Way>>>);

impl Link for Ration {
    fn pass(&self, from: &str, to: &str) -> Passage {
        let mut left = self.0.lock();
        match left.iter_mut().find(|way| (way.0, way.1) == (from, to)) {
            Some((.., 0)) => Passage::Lost,
            Some((.., left)) => {
                *left -= 1;
                Passage::AtOnce
            }
            None => Passage::AtOnce,
        }
    }
}

#[test]
fn a_failover_names_who_is_in_office_when_the_one_that_was_wanted_falls_silent() {
    let scene = Scene::new(20, THREE);
    let ration = Ration::default();
    let db = scene
        .world
        .run(scene.builder().link(ration.clone()).open("db"))
        .unwrap();
    // "b" lacks a record, so another has to be in office first and hand over.
    ration.0.lock().push(("a", "b", 0));
    scene.put(&db, "k", "1");
    // It hears the ping and promises that epoch, but is not asked to promise the next.
    *ration.0.lock() = vec![(CLIENT, "b", 2)];
    let report = scene.failover(&db, FailoverTo::Node("b".into()));
    assert_eq!(report.epoch, 3);
    assert_ne!(report.to, "b");
    assert_eq!(role(&db, &report.to), Role::Primary);
    scene.put(&db, "k", "2");
    assert_eq!(scene.get(&db, "k").as_deref(), Some("2"));
    assert_eq!(db.status().primary, Some(report.to));
}

#[test]
fn what_only_the_primary_had_is_reported_and_handed_back() {
    let scene = Scene::new(6, THREE);
    let cut = Cut::default();
    let db = scene.world.run(scene.builder().link(cut.clone()).open("db")).unwrap();
    scene.put(&db, "k", "1");
    scene.put(&db, "old", "1");
    let session = db.reading(only("a")).session();
    // The primary cannot reach the others any more, but the client still reaches it.
    cut.0.lock().extend(["b", "c"]);
    scene.put(&db.acking(Ack::Primary), "k", "2");
    scene.put(&db.acking(Ack::Primary), "new", "1");
    assert_eq!(scene.get(&session, "k").as_deref(), Some("2"));
    let mut watch = db.watch(db.position());
    // Now the client is with the others.
    *cut.0.lock() = vec!["a"];
    let report = scene.failover(&db, FailoverTo::MostCaughtUp);
    let keys: Vec<_> = report.lost.iter().flat_map(|lost| lost.keys.clone()).collect();
    assert_eq!(keys, ["k", "new"]);
    let entry = scene.world.run(db.get(b"k")).unwrap().unwrap();
    assert_eq!(&entry.value[..], b"1");
    assert!(
        entry.version > Version(4),
        "the lost write's version is not issued again: {entry:?}"
    );
    assert_eq!(scene.get(&db, "new"), None);
    assert!(matches!(
        scene.world.run(watch.next()),
        Some(Err(Error::PositionGone { .. }))
    ));
    assert!(matches!(
        scene.world.run(session.get(b"k")),
        Err(Error::TokenLost { .. })
    ));
    let token = session.token().to_string();
    assert!(matches!(db.session_from(&token), Err(Error::TokenLost { .. })));
    assert!(db.divergent().is_empty());
    // The old primary comes back: it gives up what nobody else has.
    cut.0.lock().clear();
    scene.put(&db, "k", "3");
    scene.settle();
    let back = db.divergent();
    let keys: Vec<_> = back
        .iter()
        .map(|back| (back.node.as_str(), back.record.changes[0].key.clone()))
        .collect();
    assert_eq!(keys, [("a", "k".into()), ("a", "new".into())]);
    for key in ["k", "old", "new"] {
        assert_eq!(scene.get(&db.reading(only("a")), key), scene.get(&db, key));
    }
    assert_eq!(role(&db, "a"), Role::Replica);
}

#[test]
fn a_refusal_waits_for_the_write_that_it_rests_on() {
    let scene = Scene::new(7, THREE);
    let cut = Cut::default();
    let db = scene.world.run(scene.builder().link(cut.clone()).open("db")).unwrap();
    cut.0.lock().extend(["b", "c"]);
    let first = scene.world.run(async {
        let env = scene.world.env();
        let (one, two) = (db.clone(), db.clone());
        let first = env.spawn(async move { one.put("k", "1").await });
        env.sleep(MS).await;
        let second = env.spawn(async move { two.put_if("k", "2", Expect::Absent).await });
        env.sleep(10 * MS).await;
        // The first write is on one disk only, so nobody may conclude anything from it yet.
        let mut second = second;
        assert!((&mut second).now_or_never().is_none());
        cut.0.lock().clear();
        assert!(matches!(second.await.unwrap(), Err(Error::Conflict { .. })));
        first.await.unwrap()
    });
    assert!(first.is_ok());
}

#[test]
fn a_session_waits_for_its_writes_then_goes_to_the_primary_or_says_so() {
    let scene = Scene::new(8, THREE);
    let cut = Cut::default();
    let db = scene.world.run(scene.builder().link(cut.clone()).open("db")).unwrap();
    let session = db.reading(ReadPreference::secondary()).session();
    for value in ["1", "2", "3"] {
        scene.put(&session, "k", value);
        assert_eq!(scene.get(&session, "k").as_deref(), Some(value));
    }
    let others = ReadPreference::secondary().tag("zone", "c");
    let strict = db.reading(others).session();
    let lenient = db
        .reading(ReadPreference::secondary_preferred().tag("zone", "c"))
        .session();
    // Each write is on two disks by now; let "c" have all of them.
    scene.settle();
    cut.0.lock().push("c");
    scene.put(&strict, "k", "4");
    let behind = scene.world.run(strict.get(b"k")).unwrap_err();
    assert!(
        matches!(behind, Error::Behind { need, best, .. } if best >= need),
        "{behind}"
    );
    scene.put(&lenient, "k", "5");
    let gone = scene.world.run(lenient.get(b"k")).unwrap_err();
    assert!(
        matches!(gone, Error::Behind { .. }),
        "the primary has another tag: {gone}"
    );
    let started = scene.world.now();
    let spill = db.reading(ReadPreference::secondary_preferred().zone("c")).session();
    scene.put(&spill, "k", "6");
    assert_eq!(scene.get(&spill, "k").as_deref(), Some("6"));
    assert!(scene.world.now() - started < 50 * MS);
    // Without a session, the node that is cut off answers what it has.
    assert_eq!(scene.get(&db.reading(only("c")), "k").as_deref(), Some("3"));
    let fresh = db.reading(only("c").max_lag(5 * MS));
    scene.settle();
    assert!(matches!(
        scene.world.run(fresh.get(b"k")),
        Err(Error::Unavailable { .. })
    ));
}

#[test]
fn misuse_is_refused_by_name() {
    let scene = Scene::new(17, THREE);
    let open = |builder: ReplicatedStoreBuilder| scene.world.run(builder.open("db"));
    let env = scene.world.env();
    let refused = |result: crate::store::Result<ReplicatedStore>| matches!(result, Err(Error::Invalid { .. }));
    let builder = || ReplicatedStore::builder().env(env.clone());
    for name in ["", "a/b", "..", "client", "é"] {
        assert!(refused(open(builder().node(Node::new(name)))), "{name:?}");
    }
    assert!(refused(open(builder().node(Node::new("a")).node(Node::new("a")))));
    let db = scene.open();
    scene.world.run(db.close());
    assert!(matches!(
        scene.world.run(db.put("k", "1")),
        Err(Error::Unavailable { .. })
    ));
    drop(db);
    // The same disks with other nodes.
    let node = |name: &str| Node::new(name).env(scene.machine(name).env());
    assert!(refused(open(builder().node(node("a")).node(node("b")))));
}

#[test]
fn writes_in_flight_are_bounded() {
    let scene = Scene::new(18, THREE);
    let cut = Cut::default();
    let builder = scene
        .builder()
        .link(cut.clone())
        .max_pending(2)
        .max_exposed(3)
        .write_timeout(300 * MS);
    let db = scene.world.run(builder.open("db")).unwrap();
    cut.0.lock().extend(["b", "c"]);
    let weak = db.acking(Ack::Primary);
    let results = scene
        .world
        .run(futures::future::join_all((0..3).map(|_| db.put("k", "1"))));
    let full = |result: &crate::store::Result<_>| matches!(result, Err(Error::Full { .. }));
    let late = |result: &crate::store::Result<_>| matches!(result, Err(Error::Timeout { .. }));
    assert_eq!(results.iter().filter(|result| full(result)).count(), 1);
    assert_eq!(results.iter().filter(|result| late(result)).count(), 2);
    for i in 0..4 {
        assert_eq!(full(&scene.world.run(weak.put("k", "2"))), i == 3);
    }
    assert_eq!(db.status().pending, 0);
}

#[test]
fn a_commit_dropped_at_any_poll_leaves_nothing_behind() {
    for polls in 0..12 {
        let scene = Scene::new(19, THREE);
        let db = scene.open();
        let done = scene.world.run(async {
            let mut commit = Box::pin(db.commit(Batch::new().put("k", "1")));
            let mut left = polls;
            futures::future::poll_fn(|cx| {
                if left == 0 {
                    return std::task::Poll::Ready(false);
                }
                left -= 1;
                let polled = commit.poll_unpin(cx).map(|result| result.is_ok());
                if polled.is_pending() {
                    cx.waker().wake_by_ref();
                }
                polled
            })
            .await
        });
        scene.settle();
        assert_eq!(db.status().pending, 0, "{polls}");
        let found = scene.get(&db, "k");
        assert!(polls == 0 || found.is_some(), "{polls}");
        assert!(!done || found.is_some(), "{polls}");
        scene.put(&db, "k", "2");
    }
}

#[test]
fn a_follower_resumes_where_it_was_after_the_store_is_opened_again() {
    let scene = Scene::new(21, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    let at = db.position();
    scene.put(&db, "k", "2");
    scene.world.run(db.close());
    drop(db);
    let db = scene.open();
    let mut watch = db.watch(at);
    let (next, record) = scene.world.run(watch.next()).unwrap().unwrap();
    assert_eq!(next.seq, at.seq + 1);
    assert_eq!(record.changes[0].key, "k");
}

#[test]
fn all_waits_for_every_disk() {
    let scene = Scene::new(22, THREE);
    let builder = scene.builder().write_timeout(300 * MS);
    let db = scene.world.run(builder.open("db")).unwrap();
    let all = db.acking(Ack::All);
    scene.put(&all, "k", "1");
    assert!(db.status().nodes.iter().all(|node| node.durable.seq == 2));
    scene.machine("c").crash();
    let late = scene.world.run(all.put("k", "2")).unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }));
}

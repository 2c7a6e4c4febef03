//! What disks do to a store: lie, fill up, fail, and stay bounded.

use super::*;
use crate::env::Env;
use crate::sim::Faults;

#[test]
fn a_node_that_lost_its_disk_learns_everything_again_before_it_counts() {
    let scene = Scene::new(9, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    scene.settle();
    scene.machine("b").crash();
    scene.put(&db, "k", "2");
    // A flipped bit in what "b" had acknowledged.
    let machine = scene.machine("b");
    let segment = machine
        .files()
        .into_iter()
        .find(|name| name.starts_with("db/b/log/"))
        .unwrap();
    let at = machine
        .read_file(&segment)
        .unwrap()
        .windows(1)
        .rposition(|byte| byte == b"k")
        .unwrap() as u64;
    assert!(machine.flip_bit(&segment, at * 8));
    scene.machine("c").crash();
    scene.restart(&db, "b");
    assert_eq!(role(&db, "b"), Role::Learner);
    scene.settle();
    assert_eq!(role(&db, "b"), Role::Replica);
    scene.put(&db, "k", "3");
    scene.settle();
    assert_eq!(scene.get(&db.reading(only("b")), "k").as_deref(), Some("3"));
}

#[test]
fn a_learner_is_not_promoted() {
    let scene = Scene::new(10, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    scene.settle();
    for name in ["a", "b"] {
        scene.machine(name).crash();
    }
    let machine = scene.machine("b");
    assert!(machine.flip_bit("db/b/meta", 100));
    scene.restart(&db, "b");
    let refused = scene.world.run(db.failover(FailoverTo::MostCaughtUp)).unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    scene.restart(&db, "a");
    let report = scene.failover(&db, FailoverTo::MostCaughtUp);
    assert_ne!(report.to, "b");
    assert_eq!(scene.get(&db, "k").as_deref(), Some("1"));
    scene.settle();
    assert_eq!(role(&db, "b"), Role::Replica);
}

/// A store that writes its state down often.
fn small(scene: &Scene) -> ReplicatedStore {
    let builder = scene.builder().checkpoint_bytes(64 << 10).feed(10);
    scene.world.run(builder.open("db")).unwrap()
}

fn fill(scene: &Scene, db: &ReplicatedStore, writes: u64) {
    scene.world.run(async {
        for i in 0..writes {
            let key = format!("key {}", i % 10);
            db.put(key, vec![i as u8; 4_000]).await.unwrap();
        }
    });
}

fn disk_bytes(machine: &Machine) -> usize {
    let files = machine.files();
    files
        .iter()
        .filter_map(|file| machine.read_file(file))
        .map(|bytes| bytes.len())
        .sum()
}

#[test]
fn disks_stay_bounded_and_a_node_far_behind_gets_a_snapshot() {
    let scene = Scene::new(11, THREE);
    let db = small(&scene);
    fill(&scene, &db, 20);
    scene.machine("c").crash();
    fill(&scene, &db, 500);
    scene.settle();
    for name in ["a", "b"] {
        let bytes = disk_bytes(&scene.machine(name));
        assert!(bytes < 600_000, "{name}: {bytes} bytes for 2 MB of writes");
    }
    scene.restart(&db, "c");
    scene.settle();
    let status = db.status();
    assert!(status.nodes.iter().all(|node| node.applied.seq == 521), "{status:?}");
    // From a checkpoint and the log after it, everything is there again.
    scene.world.run(db.close());
    drop(db);
    let db = small(&scene);
    assert_eq!(db.status().epoch, 2);
    scene.settle();
    for name in THREE {
        let all = scene.world.run(
            db.reading(only(name))
                .scan(crate::store::Scan::all())
                .collect::<Vec<_>>(),
        );
        assert_eq!(all.len(), 10, "{name}");
        assert!(all.iter().all(|entry| entry.as_ref().unwrap().1.value.len() == 4_000));
    }
}

#[test]
fn a_damaged_checkpoint_costs_nothing_but_time() {
    let scene = Scene::new(12, &["a"]);
    let db = small(&scene);
    fill(&scene, &db, 100);
    scene.world.run(db.close());
    drop(db);
    let machine = scene.machine("a");
    let newest = machine
        .files()
        .into_iter()
        .rfind(|name| name.contains("checkpoint-"))
        .unwrap();
    assert!(machine.flip_bit(&newest, 4_000));
    let db = small(&scene);
    let entry = scene.world.run(db.get(b"key 9")).unwrap().unwrap();
    assert_eq!(entry.value[0], 99);
}

#[test]
fn one_node_with_a_gap_refuses_to_open() {
    let scene = Scene::new(13, &["a"]);
    let db = scene.open();
    for _ in 0..5 {
        scene.put(&db, "key", "value");
    }
    scene.world.run(db.close());
    drop(db);
    let machine = scene.machine("a");
    let segment = machine
        .files()
        .into_iter()
        .find(|name| name.starts_with("db/a/log/"))
        .unwrap();
    let bytes = machine.read_file(&segment).unwrap();
    let at = bytes.windows(3).position(|bytes| bytes == b"key").unwrap() as u64;
    assert!(machine.flip_bit(&segment, at * 8));
    let refused = scene.world.run(scene.builder().open("db")).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again() {
    let scene = Scene::new(14, &["a"]);
    let db = scene.open();
    scene.put(&db, "k", "1");
    for _ in 0..3 {
        scene.machine("a").inject(DiskOp::Write, 0, Inject::NoSpace);
        let full = scene.world.run(db.put("k", "2")).unwrap_err();
        assert!(matches!(full, Error::Full { .. }), "{full}");
        scene.settle();
    }
    assert_eq!(scene.get(&db, "k").as_deref(), Some("1"));
    scene.put(&db, "k", "3");
    scene.world.run(db.close());
    drop(db);
    let db = scene.open();
    assert_eq!(scene.get(&db, "k").as_deref(), Some("3"));
}

#[test]
fn a_replica_with_a_full_disk_catches_up_when_there_is_room() {
    let scene = Scene::new(15, THREE);
    let db = scene.open();
    scene.machine("b").inject(DiskOp::Write, 0, Inject::NoSpace);
    scene.put(&db, "k", "1");
    scene.world.run_for(5 * MS);
    assert_eq!(scene.get(&db.reading(only("b")), "k"), None);
    assert_eq!(role(&db, "b"), Role::Replica);
    scene.settle();
    assert_eq!(scene.get(&db.reading(only("b")), "k").as_deref(), Some("1"));
}

#[test]
fn a_node_whose_sync_failed_is_down_until_it_is_started_again() {
    let scene = Scene::new(16, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    // The file that its log makes ahead is ready.
    scene.settle();
    scene.machine("a").inject(DiskOp::Sync, 0, Inject::Fail);
    // Others may have it, but the primary is gone before it knows.
    let slow = Faults {
        stall: 1.0,
        stall_for: 5 * MS,
        ..Faults::default()
    };
    let all_are = |faults| {
        ["b", "c"]
            .iter()
            .for_each(|other| scene.machine(other).set_faults(faults));
    };
    all_are(slow);
    let unknown = scene.world.run(db.put("k", "2")).unwrap_err();
    assert_eq!(unknown.effect(), crate::store::Effect::Unknown);
    all_are(Faults::default());
    scene.settle();
    assert_eq!(role(&db, "a"), Role::Down);
    assert!(db.status().nodes[0].why.is_some());
    scene.failover(&db, FailoverTo::MostCaughtUp);
    scene.put(&db, "k", "3");
    scene.restart(&db, "a");
    scene.settle();
    assert_eq!(scene.get(&db.reading(only("a")), "k").as_deref(), Some("3"));
}

#[test]
fn dropping_the_store_stops_its_nodes_and_frees_their_directories() {
    let scene = Scene::new(20, THREE);
    let db = scene.open();
    scene.put(&db, "k", "1");
    drop(db);
    scene.settle();
    let db = scene.open();
    assert_eq!(scene.get(&db, "k").as_deref(), Some("1"));
}

#[test]
fn it_works_on_real_threads_and_files() {
    let dir = std::env::temp_dir().join(format!("outgrow-replica-{}", std::process::id()));
    let open = || {
        let builder = THREE
            .iter()
            .fold(ReplicatedStore::builder().env(Env::system()), |builder, name| {
                builder.node(Node::new(*name))
            });
        futures::executor::block_on(builder.open(&dir)).unwrap()
    };
    let db = open();
    futures::executor::block_on(async {
        let writes = (0..200).map(|i| {
            let db = &db;
            async move { db.put(format!("key {i}"), format!("{i}")).await }
        });
        let written = futures::future::join_all(writes).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        db.failover(FailoverTo::Node("c".into())).await.unwrap();
        db.add("n", 5).await.unwrap();
        db.close().await;
    });
    let db = open();
    futures::executor::block_on(async {
        for i in 0..200 {
            let entry = db.get(format!("key {i}").as_bytes()).await.unwrap().unwrap();
            assert_eq!(entry.value, format!("{i}"));
        }
        assert_eq!(&db.get(b"n").await.unwrap().unwrap().value[..], b"5");
        db.close().await;
    });
    #[allow(clippy::disallowed_methods, reason = "the test cleans up after itself")]
    std::fs::remove_dir_all(&dir).unwrap();
}

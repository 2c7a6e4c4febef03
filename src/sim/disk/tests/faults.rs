//! Every kind of fault, by chance and by order, is seen by the program and counted exactly.

use super::api::{create, root};
use crate::env::{File, OpenMode};
use crate::sim::{DiskOp, FaultCounts, FaultKind, Faults, Inject, Machine, World};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One of each operation that faults befall; the errors that came back.
async fn round(file: &dyn File) -> Vec<io::Error> {
    let mut buf = [0; 64];
    let results = [
        file.read_at(&mut buf, 0).await.map(drop),
        file.write_at(&[5; 64], 0).await.map(drop),
        file.sync_data().await,
    ];
    results.into_iter().filter_map(Result::err).collect()
}

fn with_file(seed: u64) -> (World, Machine, Arc<dyn File>) {
    let world = World::new(seed);
    let machine = world.machine("n1");
    let env = machine.env();
    let file = world.run(async {
        let file = create(&env, "f").await.unwrap();
        file.write_at(&[1; 600], 0).await.unwrap();
        file.sync_data().await.unwrap();
        file
    });
    (world, machine, file)
}

/// Runs ten rounds under faults that always strike.
fn ten_rounds(faults: Faults) -> (FaultCounts, usize) {
    let (world, machine, file) = with_file(1);
    machine.set_faults(faults);
    let mut errors = 0;
    for _ in 0..10 {
        errors += world.run(round(&*file)).len();
    }
    (world.faults(), errors)
}

#[test]
fn each_fault_by_chance_is_seen_and_counted() {
    let none = Faults::default();
    let cases = [
        (
            FaultKind::ReadError,
            Faults {
                read_error: 1.0,
                ..none
            },
            10,
        ),
        (
            FaultKind::WriteError,
            Faults {
                write_error: 1.0,
                ..none
            },
            10,
        ),
        (FaultKind::NoSpace, Faults { no_space: 1.0, ..none }, 10),
        (
            FaultKind::SyncError,
            Faults {
                sync_error: 1.0,
                ..none
            },
            10,
        ),
        (
            FaultKind::ShortRead,
            Faults {
                short_read: 1.0,
                ..none
            },
            0,
        ),
        (
            FaultKind::ShortWrite,
            Faults {
                short_write: 1.0,
                ..none
            },
            0,
        ),
        (FaultKind::BitFlip, Faults { bit_flip: 1.0, ..none }, 0),
    ];
    for (kind, faults, errors) in cases {
        let (counts, seen) = ten_rounds(faults);
        assert_eq!(counts.get(kind), 10, "{kind}");
        assert_eq!(counts.total(), 10, "nothing but {kind}: {counts}");
        assert_eq!(seen, errors, "{kind}");
    }
    let stall = Faults {
        stall: 1.0,
        stall_for: Duration::from_secs(1),
        ..none
    };
    assert_eq!(ten_rounds(stall).0.get(FaultKind::Stall), 30);
    assert_eq!(ten_rounds(none).0, FaultCounts::default());
}

#[test]
fn chances_are_met() {
    let (counts, _) = {
        let (world, machine, file) = with_file(7);
        machine.set_faults(Faults {
            write_error: 0.1,
            ..Faults::default()
        });
        for _ in 0..10_000 {
            let _may_fail = world.run(file.write_at(&[0; 16], 0));
        }
        (world.faults(), ())
    };
    // Binomial with mean 1,000 and deviation 30: six deviations.
    let errors = counts.get(FaultKind::WriteError);
    assert!((820..1_180).contains(&errors), "{errors}");
}

#[test]
fn faults_have_the_shapes_they_promise() {
    let (world, machine, file) = with_file(1);
    let order = |op, fault| machine.inject(op, 0, fault);
    world.run(async {
        order(DiskOp::Write, Inject::Short);
        let n = file.write_at(&[2; 500], 0).await.unwrap();
        assert!((1..500).contains(&n), "{n}");

        let mut buf = [0; 500];
        order(DiskOp::Read, Inject::Short);
        let n = file.read_at(&mut buf, 0).await.unwrap();
        assert!((1..500).contains(&n), "{n}");

        order(DiskOp::Write, Inject::NoSpace);
        let full = file.write_at(&[3; 500], 0).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(!machine.read_file("f").unwrap().contains(&3));

        order(DiskOp::Read, Inject::Fail);
        assert_eq!(file.read_at(&mut [0; 1], 0).await.unwrap_err().raw_os_error(), Some(5));

        let before = world.now();
        order(DiskOp::Sync, Inject::Stall(Duration::from_secs(3)));
        file.sync_data().await.unwrap();
        assert!(world.now() - before >= Duration::from_secs(3));
    });
    assert_eq!(
        world.faults().to_string(),
        "read error 1, no space 1, short read 1, short write 1, stall 1"
    );
}

#[test]
fn an_order_strikes_exactly_the_operation_it_names() {
    let (world, machine, file) = with_file(1);
    let before = machine.ops(DiskOp::Write);
    machine.inject(DiskOp::Write, 3, Inject::Fail);
    let failed: Vec<_> = (0..10).filter(|_| world.run(file.write_at(b"x", 0)).is_err()).collect();
    assert_eq!(failed, [3]);
    assert_eq!(machine.ops(DiskOp::Write) - before, 10);
}

#[test]
fn names_fail_too() {
    let (world, machine, _) = with_file(1);
    let env = machine.env();
    let (f, g) = (Path::new("f"), Path::new("g"));
    world.run(async {
        for op in [
            DiskOp::Open,
            DiskOp::Create,
            DiskOp::Rename,
            DiskOp::Remove,
            DiskOp::List,
            DiskOp::SyncDir,
        ] {
            machine.inject(op, 0, Inject::Fail);
        }
        assert!(env.disk().open(f, OpenMode::Existing).await.is_err());
        assert!(env.disk().open(g, OpenMode::New).await.is_err());
        assert!(env.disk().list(root()).await.is_err());
        assert!(env.disk().sync_dir(root()).await.is_err());
        assert!(env.disk().rename(f, g).await.is_err());
        let there = if machine.files() == ["f"] { f } else { g };
        assert!(env.disk().remove(there).await.is_err());
    });
    let faults = world.faults();
    assert_eq!(faults.get(FaultKind::ReadError), 2);
    assert_eq!(faults.get(FaultKind::WriteError), 3);
    assert_eq!(faults.get(FaultKind::SyncError), 1);
}

/// A program that writes ten sectors, each synced, and says after each how far it is.
async fn append(env: crate::env::Env, done: Arc<std::sync::atomic::AtomicU64>) -> io::Result<()> {
    let file = create(&env, "log").await?;
    for i in 0..10 {
        file.write_at(&[i as u8 + 1; 512], i * 512).await?;
        file.sync_data().await?;
        done.store(i + 1, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn a_crash_at_every_operation_loses_nothing_synced() {
    for (op, count) in [
        (DiskOp::Create, 1),
        (DiskOp::SyncDir, 1),
        (DiskOp::Write, 10),
        (DiskOp::Sync, 10),
    ] {
        for nth in 0..count {
            let world = World::new(nth);
            let machine = world.machine("n1");
            machine.inject(op, nth, Inject::Crash);
            let done = Arc::default();
            let task = machine.env().spawn(append(machine.env(), Arc::clone(&done)));
            assert!(world.run(task).is_err(), "{op:?} {nth}: the task dies with its machine");
            assert_eq!(world.faults().get(FaultKind::Crash), 1);

            let done = done.load(std::sync::atomic::Ordering::Relaxed);
            let left = machine.read_file("log").unwrap_or_default();
            assert_eq!(
                done,
                if matches!(op, DiskOp::Write | DiskOp::Sync) {
                    nth
                } else {
                    0
                }
            );
            assert!(
                (0..done).all(|i| left[i as usize * 512..][..512] == [i as u8 + 1; 512]),
                "{op:?} {nth}"
            );
        }
    }
}

#[test]
fn data_is_part_of_the_trace() {
    let digest = |byte| {
        let (world, _, file) = with_file(1);
        world.run(file.write_at(&[byte; 10], 0)).unwrap();
        world.trace().digest
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

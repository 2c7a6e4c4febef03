//! The disk as a machine's programs meet it: what survives a crash, a kill, a failed sync, a dropped operation.

use crate::env::{Env, File, OpenMode, write_all_at};
use crate::sim::{DiskModel, DiskOp, FaultKind, Inject, Latency, Machine, World};
use futures::FutureExt;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn root() -> &'static Path {
    Path::new("")
}

pub(super) async fn create(env: &Env, path: &str) -> io::Result<Arc<dyn File>> {
    let file = env.disk().open(Path::new(path), OpenMode::New).await?;
    env.disk().sync_dir(root()).await?;
    Ok(file)
}

/// A world with one machine that holds a durable file `f` of these bytes.
fn with_file(seed: u64, bytes: &[u8]) -> (World, Machine, Arc<dyn File>) {
    let world = World::new(seed);
    let machine = world.machine("n1");
    let env = machine.env();
    let file = world.run(async {
        let file = create(&env, "f").await.unwrap();
        write_all_at(&*file, bytes, 0).await.unwrap();
        file.sync_data().await.unwrap();
        file
    });
    (world, machine, file)
}

#[test]
fn the_contract_of_disks_holds() {
    let world = World::new(1);
    world.run(crate::env::tests::disk_contract(
        world.env(),
        Path::new("base").to_owned(),
    ));
}

#[test]
fn an_unsynced_write_is_torn_in_any_way() {
    let mut masks = BTreeSet::new();
    for seed in 0..300 {
        let (world, machine, file) = with_file(seed, &[0; 4 * 512]);
        world.run(file.write_at(&[1; 4 * 512], 0)).unwrap();
        machine.crash();
        let left = machine.read_file("f").unwrap();
        let sectors = left.chunks(512).map(|sector| {
            assert!(
                sector.iter().all(|b| *b == sector[0]),
                "a sector is written whole or not at all"
            );
            char::from(b'0' + sector[0])
        });
        masks.insert(sectors.collect::<String>());
    }
    assert_eq!(masks.len(), 16, "every subset of four sectors occurs: {masks:?}");
}

#[test]
fn an_unsynced_end_of_file_may_be_anywhere() {
    let lens: BTreeSet<_> = (0..200)
        .map(|seed| {
            let (world, machine, file) = with_file(seed, &[1; 100]);
            world.run(file.write_at(&[2; 2_000], 100)).unwrap();
            machine.crash();
            let left = machine.read_file("f").unwrap();
            assert_eq!(left[..100], [1; 100], "what was synced is there");
            left.len()
        })
        .collect();
    assert!(
        lens.contains(&100) && lens.contains(&2_100) && lens.len() > 20,
        "{lens:?}"
    );
}

#[test]
fn a_failed_sync_is_readable_and_lost() {
    let (world, machine, file) = with_file(1, b"old");
    machine.inject(DiskOp::Sync, 0, Inject::Fail);
    let mut buf = [0; 3];
    world.run(async {
        file.write_at(b"new", 0).await.unwrap();
        assert!(file.sync_data().await.is_err());
        file.read_at(&mut buf, 0).await.unwrap();
        assert_eq!(&buf, b"new", "the page cache still has it");
        file.sync_data().await.unwrap();
        file.read_at(&mut buf, 0).await.unwrap();
        assert_eq!(&buf, b"new");
        file.drop_cache().await.unwrap();
        file.read_at(&mut buf, 0).await.unwrap();
        assert_eq!(&buf, b"old", "the later sync has not written it");
    });

    // Without the dropped cache a crash does the same, and a write after the failure starts anew.
    machine.inject(DiskOp::Sync, 0, Inject::Fail);
    world.run(async {
        file.write_at(b"new", 0).await.unwrap();
        assert!(file.sync_data().await.is_err());
        file.sync_data().await.unwrap();
    });
    machine.crash();
    assert_eq!(machine.read_file("f").unwrap(), b"old");
    assert_eq!(world.faults().get(FaultKind::SyncError), 2);
}

#[test]
fn a_kill_keeps_the_page_cache() {
    let (world, machine, file) = with_file(1, b"old");
    world.run(file.write_at(b"new", 0)).unwrap();
    machine.kill();
    assert_eq!(machine.read_file("f").unwrap(), b"new");
    assert!(
        world.run(file.write_at(b"x", 0)).is_err(),
        "the handle died with its process"
    );
    assert_eq!(machine.read_file("f").unwrap(), b"new");
}

#[test]
fn a_rename_is_durable_after_its_directory_is_synced() {
    let outcome = |seed, synced: bool| {
        let (world, machine, _) = with_file(seed, b"old");
        let env = machine.env();
        world.run(async {
            let file = create(&env, "tmp").await.unwrap();
            file.write_at(b"new", 0).await.unwrap();
            file.sync_data().await.unwrap();
            env.disk().rename(Path::new("tmp"), Path::new("f")).await.unwrap();
            if synced {
                env.disk().sync_dir(root()).await.unwrap();
            }
        });
        machine.crash();
        machine.read_file("f").unwrap()
    };
    let unsynced: BTreeSet<_> = (0..50).map(|seed| outcome(seed, false)).collect();
    assert_eq!(unsynced, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    assert!((0..50).all(|seed| outcome(seed, true) == b"new"));
}

#[test]
fn a_new_file_needs_its_directory_synced() {
    let there = |seed: &u64| {
        let world = World::new(*seed);
        let machine = world.machine("n1");
        let env = machine.env();
        world.run(async {
            env.disk().create_dir(Path::new("d/e")).await.unwrap();
            let file = env.disk().open(Path::new("d/e/f"), OpenMode::New).await.unwrap();
            file.write_at(b"x", 0).await.unwrap();
            file.sync_data().await.unwrap();
        });
        machine.crash();
        machine.read_file("d/e/f").is_some()
    };
    let kept = (0..50).filter(there).count();
    assert!((10..40).contains(&kept), "kept {kept} times of 50");
}

#[test]
fn a_dropped_operation_has_happened_or_not_or_in_part() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (world, machine, file) = with_file(seed, &[0; 1_024]);
        assert!(file.write_at(&[1; 1_024], 0).now_or_never().is_none());
        let left = machine.read_file("f").unwrap();
        let written = left.iter().filter(|b| **b == 1).count();
        assert!(left[..written].iter().all(|b| *b == 1), "what was written is a prefix");
        seen.insert(match written {
            0 => "nothing",
            1_024 => "all",
            _ => "a part",
        });
        assert_eq!(world.faults().get(FaultKind::CutOff), 1);
    }
    assert_eq!(seen, BTreeSet::from(["nothing", "all", "a part"]));
}

#[test]
fn an_operation_of_the_dead_does_nothing_later() {
    for (seed, how) in (0..20).flat_map(|seed| [(seed, Machine::crash as fn(&Machine)), (seed, Machine::kill)]) {
        let (world, machine, file) = with_file(seed, b"old");
        let mut write = file.write_at(b"new", 0);
        assert!((&mut write).now_or_never().is_none());
        how(&machine);
        assert!(world.run(&mut write).is_err());
        assert_eq!(machine.read_file("f").unwrap(), b"old");

        let file = world.run(async { machine.env().disk().open(Path::new("f"), OpenMode::Existing).await });
        let file = file.unwrap();
        let mut write = file.write_at(b"new", 0);
        assert!((&mut write).now_or_never().is_none());
        how(&machine);
        drop(write);
        assert_eq!(machine.read_file("f").unwrap(), b"old");
    }
}

#[test]
fn a_lock_lasts_until_its_holder_lets_go_or_dies() {
    let world = World::new(1);
    let machine = world.machine("n1");
    let lock = || {
        let env = machine.env();
        world.run(async move { env.disk().lock(root()).await })
    };
    let held = lock().unwrap();
    assert_eq!(lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(held);
    let held = lock().unwrap();
    machine.kill();
    let after_kill = lock().unwrap();
    drop(held);
    assert!(lock().is_err(), "what the dead held is not what the living hold");
    machine.crash();
    drop(lock().unwrap());
    drop(after_kill);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let (world, machine, file) = with_file(1, &[1; 600]);
    machine.set_disk(DiskModel {
        capacity: 1_000,
        ..DiskModel::default()
    });
    world.run(async {
        assert_eq!(file.write_at(&[2; 600], 600).await.unwrap(), 400);
        let full = file.write_at(&[2; 200], 1_000).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(
            file.set_len(1_001).await.unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(
            file.write_at(&[3; 600], 0).await.unwrap(),
            600,
            "what is there can be overwritten"
        );
        file.set_len(500).await.unwrap();
        assert_eq!(file.write_at(&[2; 200], 500).await.unwrap(), 200, "space comes back");
    });
    assert_eq!(world.faults().get(FaultKind::NoSpace), 2);
    assert_eq!(world.faults().get(FaultKind::ShortWrite), 1);
}

#[test]
fn operations_take_the_time_of_the_model() {
    let (world, machine, file) = with_file(1, &[1; 600]);
    let exact = |millis| Latency::new(Duration::from_millis(millis)).jitter(0.0);
    machine.set_disk(DiskModel {
        read: exact(5),
        write: exact(7),
        sync: exact(100),
        ..DiskModel::default()
    });
    let env = machine.env();
    let start = world.now();
    let took = |end: u64| assert_eq!(world.now() - start, Duration::from_millis(end));
    world.run(async {
        file.read_at(&mut [0; 10], 0).await.unwrap();
        took(5);
        file.write_at(&[0; 10], 0).await.unwrap();
        took(12);
        file.sync_data().await.unwrap();
        took(112);
        env.disk().sync_dir(root()).await.unwrap();
        took(212);
        file.len().await.unwrap();
        took(219);
    });
}

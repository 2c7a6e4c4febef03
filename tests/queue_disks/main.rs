//! The durable queue on real file systems that lose power, fill up, or fail: ext4 and XFS in images of their own, mounted for
//! the test by who may mount. What was acknowledged is kept by the parent of the process that has the queue.
#![allow(clippy::disallowed_methods, reason = "this is the outside world")]

mod mounted;
#[path = "../support/mod.rs"]
mod support;
mod talk;

use futures::executor::block_on;
use mounted::{FileSystem, Mounted};
use outgrow::queue::{DurableQueue, Error, Queue, Settle, Subscription};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use talk::{Ledger, Process};

const ROUNDS: u64 = 5;
const KIB: usize = 1 << 10;

/// The child's half; by itself it has nothing to do.
#[test]
fn child() {
    talk::child();
}

#[test]
fn a_power_cut_on_ext4_loses_nothing_acknowledged() {
    power_cuts(FileSystem::Ext4);
}

#[test]
fn a_power_cut_on_xfs_loses_nothing_acknowledged() {
    power_cuts(FileSystem::Xfs);
}

/// Cuts the power of the file system while a process sends, as `shutdown` without a flush of the journal does: what was not
/// synced is gone.
fn power_cuts(kind: FileSystem) {
    let Some(mut disk) = Mounted::image(kind, 320 << 20) else {
        return;
    };
    let mut ledger = Ledger::default();
    for round in 0..ROUNDS {
        let mut process = Process::start(&disk.path().join("queue"), round);
        process.hear(&mut ledger, 200);
        disk.cut_power();
        process.end(&mut ledger);
        disk.mount_again();
        check(&disk.path().join("queue"), &ledger);
    }
    support::report("power cuts", kind.name(), ROUNDS);
    support::report("power cuts", "acknowledged messages", ledger.acked.len() as u64);
}

/// The image of the file system is on a disk without room for it, so that writing back fails behind the queue's back: the sync
/// says so once, and the cache shows what never got there. On such a disk ext4 also loses what was synced before, where it
/// shares a page with a write that grows the file and fails; a log whose segments are filled with zeros first never
/// grows a file under a write.
#[test]
fn a_failed_sync_poisons_and_what_was_acknowledged_before_is_there() {
    let Some(mut thin) = Mounted::thin(FileSystem::Ext4, 40 << 20, 200 << 20) else {
        return;
    };
    let mut ledger = Ledger::default();
    let mut process = Process::start(&thin.path().join("queue"), 0);
    process.hear_all(&mut ledger);
    let failed = process.failure();
    assert!(
        failed.contains("sync failed") || failed.contains("effect unknown") || failed.contains("full"),
        "the failure is told: {failed:?}"
    );
    assert!(ledger.acked.len() > 50, "it got somewhere: {}", ledger.acked.len());
    // What is only in the cache goes with the mount.
    thin.make_room(300 << 20);
    thin.mount_again();
    check(&thin.path().join("queue"), &ledger);
    support::report("failed syncs", "acknowledged messages", ledger.acked.len() as u64);
}

#[test]
fn a_full_disk_refuses_sends_and_takes_acknowledgements() {
    let Some(disk) = Mounted::tmpfs(24 << 20) else { return };
    block_on(async {
        let builder = DurableQueue::builder().segment_bytes(1 << 20).cache_bytes(1 << 20);
        let queue = builder.open(disk.path().join("queue")).await.expect("it opens");
        let all = Subscription::new("t", "all");
        queue.subscribe(&all).await.expect("it subscribes");
        let topic = queue.topic("t");
        let mut sent = 0_u64;
        let full = loop {
            match topic.send(vec![7; 64 * KIB]).await {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, Error::Full { .. }) && sent > 20, "{full:?} after {sent}");
        queue.check().expect("a full disk is no poison");
        let mut seen = 0;
        while seen < sent {
            let some = queue
                .receive(&all, 8, Duration::from_secs(10))
                .await
                .expect("it receives");
            assert!(!some.is_empty(), "{seen} of {sent} came");
            for raw in some {
                seen += 1;
                queue
                    .settle(&raw.token, Settle::Ack)
                    .await
                    .expect("an acknowledgement goes through");
            }
        }
        // Space comes back by itself, soon after.
        let again = async {
            loop {
                match topic.send(vec![7; 64 * KIB]).await {
                    Ok(_) => break,
                    Err(Error::Full { .. }) => std::thread::sleep(Duration::from_millis(20)),
                    Err(error) => panic!("{error}"),
                }
            }
        };
        again.await;
        queue.close().await;
        let queue = DurableQueue::open(disk.path().join("queue"))
            .await
            .expect("it opens again");
        let left = queue
            .receive(&all, 8, Duration::from_secs(10))
            .await
            .expect("it receives");
        assert_eq!(left.len(), 1, "only what was sent last is not acknowledged");
        queue.close().await;
    });
}

#[test]
fn a_second_process_is_refused_and_a_dead_one_holds_nothing() {
    let dir = talk::TempDir::new("second");
    let mut ledger = Ledger::default();
    let mut process = Process::start(&dir.0, 0);
    process.hear(&mut ledger, 5);
    let second = block_on(DurableQueue::open(&dir.0));
    assert!(matches!(second, Err(Error::Locked)), "{second:?}");
    process.kill();
    process.end(&mut ledger);
    check(&dir.0, &ledger);
}

/// Every message that was acknowledged is there, whole, and none that was never tried.
fn check(dir: &Path, ledger: &Ledger) {
    block_on(async {
        let queue = DurableQueue::builder()
            .segment_bytes(256 << 10)
            .open(dir)
            .await
            .expect("it opens");
        let opened = queue.opened();
        assert!(opened.lost.is_empty() && opened.damaged.is_empty(), "{opened:?}");
        // One that has seen nothing yet; since none acknowledges, all of them keep all.
        let name = format!("checker-{}", ledger.acked.len());
        let mut checker = Subscription::new("t", &name);
        checker.max_in_flight = 65_536;
        queue.subscribe(&checker).await.expect("it subscribes");
        let mut found = BTreeSet::new();
        loop {
            let wait = Duration::from_millis(500);
            let some = queue.receive(&checker, 1_000, wait).await.expect("it receives");
            if some.is_empty() {
                break;
            }
            for raw in some {
                let id = talk::id_of(&raw.message.payload).expect("what was sent");
                assert!(ledger.tried.contains(&id), "{id} was never sent");
                assert!(found.insert(id.clone()), "{id} is there twice");
            }
        }
        let lost: Vec<_> = ledger.acked.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        queue.close().await;
    });
}

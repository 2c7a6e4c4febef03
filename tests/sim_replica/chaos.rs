//! What goes wrong, and what an operator does about it.

use crate::cluster::{Cluster, MS, tick};
use outgrow::env::{Rng, Tick};
use outgrow::replica::{CLIENT, FailoverTo, ReplicatedStore, Role};
use outgrow::sim::{DiskOp, Faults, Inject};
use std::time::Duration;

pub(crate) async fn run(cluster: Cluster, until: Tick) {
    let env = cluster.env();
    let mut rng = env.rng("chaos");
    while tick(&env) < until {
        env.sleep(Duration::from_micros(rng.below(150_000))).await;
        let Some(db) = cluster.db() else { continue };
        let node = rng.index(cluster.plan.nodes);
        match rng.below(30) {
            0 => cluster.machine(node).crash(),
            1 => cluster.machine(node).kill(),
            2 => crash_primary(&cluster, &db),
            3..=4 => crash_soon(&cluster, node, &mut rng),
            5..=11 => start_again(&cluster, &db).await,
            12..=17 => fail_over(&cluster, &db, &mut rng).await,
            18 => cut(&cluster, &mut rng),
            19 => strand_primary(&cluster, &db, &mut rng).await,
            20..=22 => cluster.wire.lock().unwrap().cut.clear(),
            23..=24 => cluster.wire.lock().unwrap().loss = [0.0, 0.0, 0.02, 0.1][rng.index(4)],
            25..=27 => spoil(&cluster, node, &mut rng),
            28 => cluster.machine(node).skew_wall(rng.below(20_000) as i64 - 10_000),
            _ => open_again(&cluster, db, &mut rng).await,
        }
    }
}

fn crash_primary(cluster: &Cluster, db: &ReplicatedStore) {
    let status = db.status();
    if let Some(primary) = status.nodes.iter().position(|node| node.role == Role::Primary) {
        cluster.machine(primary).crash();
    }
}

/// Lets the machine die in the middle of an operation of its disk.
fn crash_soon(cluster: &Cluster, node: usize, rng: &mut Rng) {
    let op = DiskOp::ALL[rng.index(DiskOp::ALL.len())];
    let how = if rng.chance(0.7) { Inject::Crash } else { Inject::Kill };
    cluster.machine(node).inject(op, rng.below(10), how);
}

async fn start_again(cluster: &Cluster, db: &ReplicatedStore) {
    for (node, status) in db.status().nodes.iter().enumerate() {
        if status.role == Role::Down {
            // Its disk may not let it.
            let _result = db.restart(&status.name, cluster.machine(node).env()).await;
        }
    }
}

async fn fail_over(cluster: &Cluster, db: &ReplicatedStore, rng: &mut Rng) {
    let to = match rng.below(2) {
        0 => FailoverTo::MostCaughtUp,
        _ => FailoverTo::Node(cluster.name(rng.index(cluster.plan.nodes))),
    };
    let report = db.failover(to).await;
    cluster.oracle.failed_over(&report);
}

/// Cuts some nodes off, with or without the client on their side.
fn cut(cluster: &Cluster, rng: &mut Rng) {
    let mut wire = cluster.wire.lock().unwrap();
    wire.cut = (0..cluster.plan.nodes)
        .filter(|_| rng.chance(0.4))
        .map(|node| cluster.name(node))
        .collect();
    if rng.chance(0.3) {
        wire.cut.insert(CLIENT.to_owned());
    }
}

/// Leaves the primary alone with the client, then the client alone with the others: what only the primary has is lost.
async fn strand_primary(cluster: &Cluster, db: &ReplicatedStore, rng: &mut Rng) {
    let Some(primary) = db.status().primary else { return };
    cluster.wire.lock().unwrap().cut = [primary.clone(), CLIENT.to_owned()].into();
    cluster.env().sleep(Duration::from_micros(rng.below(100_000))).await;
    cluster.wire.lock().unwrap().cut = [primary].into();
    fail_over(cluster, db, rng).await;
}

/// Makes a disk worse, or good again.
fn spoil(cluster: &Cluster, node: usize, rng: &mut Rng) {
    let p = [0.0, 0.002, 0.01][rng.index(3)];
    let mut faults = Faults {
        stall: 5.0 * p,
        stall_for: MS * (rng.below(50) as u32),
        short_read: 5.0 * p,
        short_write: 5.0 * p,
        no_space: p,
        read_error: p,
        write_error: p,
        sync_error: p,
        bit_flip: 0.0,
    };
    if cluster.plan.victim == Some(node) {
        faults.bit_flip = 5.0 * p;
    }
    cluster.machine(node).set_faults(faults);
}

/// Closes or drops the whole store, and opens it again.
async fn open_again(cluster: &Cluster, db: ReplicatedStore, rng: &mut Rng) {
    if cluster.plan.victim.is_some() {
        return;
    }
    *cluster.db.lock().unwrap() = None;
    let closed = rng.chance(0.5);
    if closed {
        db.close().await;
    }
    cluster.check_whys(&db);
    cluster.oracle.divergent(&db.divergent());
    cluster.oracle.opening_over(closed);
    drop(db);
    for _ in 0..20 {
        cluster.env().sleep(20 * MS).await;
        if let Ok(db) = cluster.open().await {
            *cluster.db.lock().unwrap() = Some(db);
            return;
        }
    }
}

//! What goes wrong, and what an operator does about it.

use crate::cluster::{Cluster, MS, tick};
use outgrow::env::{Rng, Tick};
use outgrow::replica::{CLIENT, FailoverTo, ReplicatedStore, Role};
use outgrow::sim::Faults;
use std::time::Duration;

pub(crate) async fn run(cluster: Cluster, until: Tick) {
    let env = cluster.env();
    let mut rng = env.rng("chaos");
    while tick(&env) < until {
        env.sleep(Duration::from_micros(rng.below(150_000))).await;
        let Some(db) = cluster.db() else { continue };
        let node = rng.index(cluster.plan.nodes);
        match rng.below(20) {
            0..=1 => cluster.machine(node).crash(),
            2 => cluster.machine(node).kill(),
            3 => crash_primary(&cluster, &db),
            4..=7 => start_again(&cluster, &db).await,
            8..=11 => fail_over(&cluster, &db, &mut rng).await,
            12..=13 => cut(&cluster, &mut rng),
            14 => cluster.wire.lock().unwrap().cut.clear(),
            15 => cluster.wire.lock().unwrap().loss = [0.0, 0.02, 0.2][rng.index(3)],
            16..=17 => spoil(&cluster, node, &mut rng),
            18 => cluster.machine(node).skew_wall(rng.below(20_000) as i64 - 10_000),
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

/// Makes a disk worse, or good again.
fn spoil(cluster: &Cluster, node: usize, rng: &mut Rng) {
    let p = [0.0, 0.002, 0.02][rng.index(3)];
    let mut faults = Faults {
        stall: 5.0 * p,
        stall_for: MS * (rng.below(50) as u32),
        short_read: 0.0,
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
    if rng.chance(0.5) {
        db.close().await;
    }
    cluster.check_whys(&db);
    cluster.oracle.divergent(&db.divergent());
    cluster.oracle.opened_again();
    drop(db);
    for _ in 0..20 {
        cluster.env().sleep(20 * MS).await;
        if let Ok(db) = cluster.open().await {
            *cluster.db.lock().unwrap() = Some(db);
            return;
        }
    }
}

//! Clients: they write and read a few keys, with and without sessions, and give up when they please.

use crate::cluster::{Cluster, MS, tick};
use crate::oracle::Seen;
use bytes::Bytes;
use outgrow::env::{Rng, Tick};
use outgrow::replica::{Ack, ReadPreference, ReplicatedStore, Session};
use outgrow::store::{Batch, Effect, Error, Store};
use std::time::Duration;

const KEYS: u64 = 3;

pub(crate) async fn run(cluster: Cluster, client: u64, until: Tick) {
    let env = cluster.env();
    let mut rng = env.rng("client");
    let mut session: Option<Visit> = None;
    while tick(&env) < until {
        env.sleep(Duration::from_micros(rng.below(30_000))).await;
        let Some(db) = cluster.db() else {
            session = None;
            continue;
        };
        match rng.below(10) {
            0 => session = None,
            1..=3 => write(&cluster, &db, &mut rng).await,
            4 => read(&cluster, &db, &mut rng).await,
            _ => {
                let visit = session.get_or_insert_with(|| begin(&cluster, &db, &mut rng));
                if !in_session(&cluster, visit, &mut rng).await {
                    session = None;
                }
            }
        }
        if rng.chance(0.02) {
            cluster.world.note(format!("client {client} is still there"));
        }
    }
}

fn key(rng: &mut Rng) -> Bytes {
    format!("key/{}", rng.below(KEYS)).into()
}

/// A key of writes that may be lost.
fn weak_key(rng: &mut Rng) -> Bytes {
    format!("weak/{}", rng.below(KEYS)).into()
}

/// A session, and what it has to remember.
struct Visit {
    session: Session,
    /// The opening of the store that it belongs to; it may outlive it.
    opening: usize,
    seen: Seen,
    /// Whether its writes wait for a majority.
    safe: bool,
}

fn begin(cluster: &Cluster, db: &ReplicatedStore, rng: &mut Rng) -> Visit {
    let preference = match rng.below(4) {
        0 => ReadPreference::nearest(),
        1 => ReadPreference::secondary_preferred(),
        2 => ReadPreference::primary_preferred(),
        _ => ReadPreference::secondary(),
    };
    let safe = !(cluster.plan.weak && rng.chance(0.4));
    let ack = if safe { Ack::Majority } else { Ack::Primary };
    Visit {
        session: db.reading(preference).acking(ack).session(),
        opening: cluster.oracle.opening(),
        seen: Seen::default(),
        safe,
    }
}

/// A value that makes checkpoints come about.
fn value(rng: &mut Rng) -> Bytes {
    vec![b'v'; rng.index(4_000)].into()
}

/// Writes a key and a mark; now and then the caller loses patience.
async fn write(cluster: &Cluster, db: &ReplicatedStore, rng: &mut Rng) {
    let safe = !(cluster.plan.weak && rng.chance(0.3));
    let key = if safe { key(rng) } else { weak_key(rng) };
    let (opening, follower) = (cluster.oracle.opening(), cluster.follower());
    let (number, mark) = cluster.oracle.begin_write(opening, &key, safe);
    let batch = Batch::new().put(key, value(rng)).put(mark, "").add("counter", 1);
    let view = db.acking(if safe { Ack::Majority } else { Ack::Primary });
    let patience = if rng.chance(0.1) {
        Duration::from_micros(rng.below(3_000))
    } else {
        10_000 * MS
    };
    let result = cluster.env().timeout(patience, view.commit(batch)).await;
    let effect = Effect::Unknown;
    let result = result.unwrap_or(Err(Error::Timeout { effect }));
    if let Ok(receipt) = &result {
        let (_, at) = receipt.at.iter().next().expect("a receipt says where");
        let told = follower.position();
        assert!(told >= at, "committed at {at}, but followers have heard of {told} only");
    }
    cluster.oracle.end_write(number, &result);
}

/// Reads at the primary.
async fn read(cluster: &Cluster, db: &ReplicatedStore, rng: &mut Rng) {
    let key = key(rng);
    let begun = cluster.oracle.begin_read();
    if let Ok(found) = db.get(&key).await {
        cluster.oracle.end_read(begun, &key, found.map(|entry| entry.version));
    }
}

/// Reads or writes in a session; false when it has to begin anew.
async fn in_session(cluster: &Cluster, visit: &mut Visit, rng: &mut Rng) -> bool {
    let Visit {
        session,
        opening,
        seen,
        safe,
    } = visit;
    let (opening, safe) = (*opening, *safe);
    let key = if safe { key(rng) } else { weak_key(rng) };
    if rng.chance(0.3) {
        let (number, mark) = cluster.oracle.begin_write(opening, &key, safe);
        let batch = Batch::new().put(key.clone(), value(rng)).put(mark, "");
        let result = session.commit(batch).await;
        if let Ok(receipt) = &result {
            seen.wrote(&key, receipt.version);
        }
        cluster.oracle.end_write(number, &result);
        let lost = matches!(result, Err(Error::TokenLost { .. }));
        if lost {
            cluster.oracle.token_lost(&cluster.plan);
        }
        return !lost;
    }
    match session.get(&key).await {
        Ok(found) => {
            cluster.oracle.session_read();
            seen.read(&key, found.map(|entry| entry.version));
            true
        }
        Err(Error::TokenLost { .. }) => {
            cluster.oracle.token_lost(&cluster.plan);
            false
        }
        Err(Error::Unavailable { .. } | Error::Behind { .. } | Error::Timeout { .. }) => true,
        Err(error) => panic!("a session's read failed: {error}"),
    }
}

//! A cluster of three, whose topics are on all of them and are synced before they are acknowledged.

use crate::server::Cluster;
use crate::{MS, SOON, builder, keeps_the_contract, on_tokio, servers, support, text};
use outgrow::env::Env;
use outgrow::queue::{Effect, Feature, JetStreamQueue, Queue};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn it_keeps_the_contract() {
    let Some(servers) = servers("cluster-suite", 3) else {
        return;
    };
    on_tokio(keeps_the_contract(&servers));
}

/// How far producers are ahead of consumers at most, who wait for each acknowledgement.
const AHEAD: usize = 200;

/// What was attempted, what the queue said that it has, and what came out.
#[derive(Default)]
struct Ledger {
    attempted: Mutex<BTreeSet<String>>,
    sent: Mutex<BTreeSet<String>>,
    /// What was delivered and settled, as often as that happened. A settlement that was not answered may have happened.
    handled: Mutex<Vec<String>>,
    failed: AtomicUsize,
    over: AtomicBool,
}

impl Ledger {
    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    fn handled(&self) -> usize {
        self.handled.lock().unwrap().len()
    }
}

async fn produce(queue: JetStreamQueue, ledger: Arc<Ledger>, name: usize) {
    let topic = queue.topic("orders");
    let mut number = 0;
    while !ledger.over.load(Ordering::Relaxed) {
        if ledger.sent() > ledger.handled() + AHEAD {
            Env::system().sleep(MS).await;
            continue;
        }
        let text = format!("{name}/{number}");
        ledger.attempted.lock().unwrap().insert(text.clone());
        match topic.send(text.clone()).await {
            Ok(_) => drop(ledger.sent.lock().unwrap().insert(text)),
            Err(_) => drop(ledger.failed.fetch_add(1, Ordering::Relaxed)),
        }
        number += 1;
    }
}

async fn consume(queue: JetStreamQueue, ledger: Arc<Ledger>) {
    let orders = queue.topic("orders");
    let builder = orders.subscribe("shop").lease(5_000 * MS).max_attempts(50);
    let mut jobs = builder.prefetch(10).build().await.unwrap();
    // It goes on by itself: an error is only counted.
    while let Some(job) = jobs.next().await {
        let Ok(job) = job else {
            ledger.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let text = text(&job);
        match job.ack().await {
            Ok(()) => ledger.handled.lock().unwrap().push(text),
            Err(error) => {
                ledger.failed.fetch_add(1, Ordering::Relaxed);
                if error.effect() == Effect::Unknown {
                    ledger.handled.lock().unwrap().push(text);
                }
            }
        }
    }
}

/// Waits until `count` has grown by `by`, and says how long that took.
async fn grows(what: &str, count: impl Fn() -> usize, by: usize) -> Duration {
    let (start, wanted) = (Instant::now(), count() + by);
    while count() < wanted {
        assert!(start.elapsed() < SOON, "{what} goes on");
        Env::system().sleep(5 * MS).await;
    }
    start.elapsed()
}

/// The server that leads the stream, and whether all follow it closely.
async fn leader(admin: &async_nats::jetstream::Context) -> (usize, bool) {
    let start = Instant::now();
    loop {
        let cluster = admin.get_stream("drill_orders").await.ok();
        let cluster = cluster.and_then(|stream| stream.cached_info().cluster.clone());
        if let Some((cluster, leader)) = cluster.and_then(|cluster| Some((cluster.clone(), cluster.leader?))) {
            let index = (0..3).find(|index| Cluster::name(*index) == leader).unwrap();
            let close =
                cluster.replicas.len() == 2 && cluster.replicas.iter().all(|peer| peer.current && !peer.offline);
            return (index, close);
        }
        assert!(start.elapsed() < SOON, "the stream has a leader again");
        Env::system().sleep(50 * MS).await;
    }
}

#[test]
fn nodes_that_are_killed_cost_no_acknowledged_message() {
    let Some(mut servers) = servers("drill", 3) else { return };
    on_tokio(async {
        let start = Instant::now();
        let queue = builder("drill").connect(&servers.url()).await.unwrap();
        assert!(queue.capability().has(Feature::Durable));
        let ledger = Arc::new(Ledger::default());
        // Made first, so that it has everything.
        let orders = queue.topic("orders");
        drop(
            orders
                .subscribe("shop")
                .lease(5_000 * MS)
                .max_attempts(50)
                .build()
                .await
                .unwrap(),
        );
        println!(
            "the cluster took its first subscription after {} ms",
            start.elapsed().as_millis()
        );
        let consumers: Vec<_> = (0..2)
            .map(|_| tokio::spawn(consume(queue.clone(), Arc::clone(&ledger))))
            .collect();
        let producers: Vec<_> = (0..4)
            .map(|name| tokio::spawn(produce(queue.clone(), Arc::clone(&ledger), name)))
            .collect();
        let admin = async_nats::jetstream::new(async_nats::connect(servers_of(&servers)).await.unwrap());
        grows("the traffic", || ledger.handled(), 200).await;

        // One that only follows.
        let (led, _) = leader(&admin).await;
        let follower = (led + 1) % 3;
        servers.kill(follower);
        let sends = grows("sending", || ledger.sent(), 1).await;
        let deliveries = grows("delivering", || ledger.handled(), 1).await + sends;
        println!(
            "a follower killed: a send after {} ms, a delivery after {} ms",
            sends.as_millis(),
            deliveries.as_millis()
        );
        grows("the traffic", || ledger.handled(), 200).await;
        tokio::task::block_in_place(|| servers.restart(follower));
        let waited = Instant::now();
        let led = loop {
            let (led, close) = leader(&admin).await;
            if close {
                break led;
            }
            assert!(waited.elapsed() < SOON, "the node catches up");
            Env::system().sleep(50 * MS).await;
        };
        println!("restarted, it had caught up after {} ms", waited.elapsed().as_millis());

        // The one that leads.
        servers.kill(led);
        let sends = grows("sending", || ledger.sent(), 1).await;
        let deliveries = grows("delivering", || ledger.handled(), 1).await + sends;
        println!(
            "the leader killed: a send after {} ms, a delivery after {} ms",
            sends.as_millis(),
            deliveries.as_millis()
        );
        support::report("jetstream: leader killed", "ms until a send", sends.as_millis() as u64);
        support::report(
            "jetstream: leader killed",
            "ms until a delivery",
            deliveries.as_millis() as u64,
        );
        grows("the traffic", || ledger.handled(), 200).await;
        tokio::task::block_in_place(|| servers.restart(led));
        grows("the traffic", || ledger.handled(), 100).await;

        ledger.over.store(true, Ordering::Relaxed);
        for producer in producers {
            producer.await.unwrap();
        }
        let sent = ledger.sent.lock().unwrap().clone();
        let (mut waited, mut before) = (Instant::now(), usize::MAX);
        let missing = loop {
            let handled: BTreeSet<String> = ledger.handled.lock().unwrap().iter().cloned().collect();
            let missing: Vec<_> = sent.difference(&handled).cloned().collect();
            // A disk that others use too may be slow, as long as it goes on.
            if missing.len() < before {
                (waited, before) = (Instant::now(), missing.len());
            }
            if missing.is_empty() || waited.elapsed() > SOON {
                break missing;
            }
            Env::system().sleep(20 * MS).await;
        };
        queue.close().await;
        for consumer in consumers {
            consumer.abort();
        }
        let handled = ledger.handled.lock().unwrap().clone();
        let attempted = ledger.attempted.lock().unwrap().clone();
        let unknown: Vec<_> = handled.iter().filter(|text| !attempted.contains(*text)).collect();
        let twice = handled.len() - handled.iter().collect::<BTreeSet<_>>().len();
        println!(
            "{} attempted, {} acknowledged, {} handled, {twice} of them again, {} calls failed, in {} ms",
            attempted.len(),
            sent.len(),
            handled.len(),
            ledger.failed.load(Ordering::Relaxed),
            start.elapsed().as_millis()
        );
        let some = &missing[..missing.len().min(20)];
        assert!(
            missing.is_empty(),
            "acknowledged and lost: {} messages, {some:?}",
            missing.len()
        );
        assert_eq!(unknown, Vec::<&String>::new(), "never sent and delivered");
    });
}

/// The addresses, one by one.
fn servers_of(servers: &Cluster) -> Vec<String> {
    servers.url().split(',').map(str::to_owned).collect()
}

//! Real NATS servers, started by each test: the queue's contract on one and on a cluster of three, and what happens when
//! nodes are killed, consumers are lost, and two processes want the same message.
#![allow(clippy::disallowed_methods, reason = "the test acts as the outside world")]
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::print_stdout, reason = "what a fault cost is worth knowing")]

mod cluster;
mod one;
#[path = "../../examples/queue_jetstream.rs"]
mod queue_jetstream;
#[path = "../support/nats.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

use outgrow::env::Env;
use outgrow::queue::suite::{self, Subject};
use outgrow::queue::{Delivery, JetStreamBuilder, JetStreamQueue, Queue, ServerSync, Subscription};
use server::Cluster;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// How long something may take that has to come, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Servers for the test called `name`, unless this machine has none.
#[track_caller]
fn servers(name: &str, count: usize) -> Option<Cluster> {
    let program = support::need("nats-server")?;
    Some(Cluster::start(&program, name, count))
}

/// Runs `test` on a tokio runtime of its own.
fn on_tokio<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// A queue that waits longer than any stall of a busy machine.
fn builder(prefix: &str) -> JetStreamBuilder {
    let builder = JetStreamQueue::builder()
        .prefix(prefix)
        .timeout(Duration::from_secs(60));
    builder.server_sync(ServerSync::Always)
}

/// What everything that a queue declares has to do.
async fn keeps_the_contract(servers: &Cluster) {
    let next = AtomicU64::new(0);
    let env = Env::tokio().unwrap();
    suite::queue(async || {
        let prefix = format!("case{}", next.fetch_add(1, Ordering::Relaxed));
        let env = env.clone();
        let queue = builder(&prefix).connect(&servers.url()).await.unwrap();
        Subject::new(queue, move |by| env.sleep(by))
    })
    .await;
}

/// Takes up to `max` messages that have to come.
async fn take(queue: &JetStreamQueue, from: &Subscription, max: usize) -> Vec<Delivery<JetStreamQueue>> {
    let raw = queue.receive(from, max, SOON).await.unwrap();
    assert!(!raw.is_empty(), "a message comes");
    raw.into_iter().map(|raw| Delivery::new(queue.clone(), raw)).collect()
}

async fn next(queue: &JetStreamQueue, from: &Subscription) -> Delivery<JetStreamQueue> {
    take(queue, from, 1).await.remove(0)
}

fn text(delivery: &Delivery<JetStreamQueue>) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

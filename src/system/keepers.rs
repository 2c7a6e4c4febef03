//! The crate's own blocks that keep data on disk, as parts of a system.

use super::{Block, BlockStatus, Health};
use crate::env::Env;
use crate::queue::{DurableQueue, QueueStats};
use crate::replica::{ReplicatedStore, Role};
use crate::shard::{Partitioner, ShardedStore};
use crate::store::Store;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::time::Duration;

/// How often a draining block is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Down without a primary, degraded while a node is down or still catching up as a learner. A drain waits for the writes
/// that wait for their acknowledgement; new ones are taken until it is closed.
impl Block for ReplicatedStore {
    fn kind(&self) -> &'static str {
        "replicated store"
    }

    fn status(&self) -> BlockStatus {
        let status = ReplicatedStore::status(self);
        let full = |role| matches!(role, Role::Primary | Role::Replica);
        let missing: Vec<&str> = status
            .nodes
            .iter()
            .filter(|node| !full(node.role))
            .map(|node| node.name.as_str())
            .collect();
        let block = match (&status.primary, missing.is_empty()) {
            (None, _) => BlockStatus::new(Health::Down).because("there is no primary"),
            (Some(_), true) => BlockStatus::new(Health::Ready),
            (Some(_), false) => {
                let names = missing.join(", ");
                BlockStatus::new(Health::Degraded).because(format!("down or behind: {names}"))
            }
        };
        let lag = status
            .nodes
            .iter()
            .filter_map(|node| node.lag)
            .max()
            .unwrap_or_default();
        let failed: u64 = status.nodes.iter().map(|node| node.failed_checkpoints).sum();
        block
            .figure("epoch", status.epoch as f64)
            .figure("nodes", status.nodes.len() as f64)
            .figure("full_nodes", (status.nodes.len() - missing.len()) as f64)
            .figure("pending", status.pending as f64)
            .figure("lag_seconds", lag.as_secs_f64())
            .figure("divergent", status.divergent as f64)
            .figure("failed_checkpoints", failed as f64)
    }

    fn drain<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, ()> {
        until(env, || ReplicatedStore::status(self).pending == 0)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ReplicatedStore::close(self).boxed()
    }
}

/// Down when it is closed, or poisoned by a failed write; degraded once messages are lost to damage. A drain waits until no delivery is leased: stop the consumers before, or
/// give them to the system as blocks after the queue. Messages that nobody has taken stay, on disk.
impl Block for DurableQueue {
    fn kind(&self) -> &'static str {
        "durable queue"
    }

    fn status(&self) -> BlockStatus {
        let stats = self.stats();
        let block = match (self.check(), stats.lost) {
            (Err(error), _) => BlockStatus::new(Health::Down).because(error.to_string()),
            (Ok(()), 0) => BlockStatus::new(Health::Ready),
            (Ok(()), lost) => BlockStatus::new(Health::Degraded).because(format!("{lost} messages are lost to damage")),
        };
        let messages: usize = stats.topics.values().map(|topic| topic.messages).sum();
        block
            .figure("topics", stats.topics.len() as f64)
            .figure("messages", messages as f64)
            .figure("in_flight", in_flight(&stats) as f64)
            .figure("sent", stats.sent as f64)
            .figure("delivered", stats.delivered as f64)
            .figure("acked", stats.acked as f64)
            .figure("dead", stats.dead as f64)
            .figure("bytes", stats.bytes as f64)
            .figure("syncs", stats.syncs as f64)
    }

    fn drain<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, ()> {
        until(env, || in_flight(&self.stats()) == 0)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        DurableQueue::close(self).boxed()
    }
}

fn in_flight(stats: &QueueStats) -> usize {
    let subscriptions = stats.topics.values().flat_map(|topic| topic.subscriptions.values());
    subscriptions.map(|subscription| subscription.in_flight).sum()
}

/// Always ready: how the shards are, they say themselves, so add them as blocks too, before it. A drain waits for the move
/// of a shard that is being added. There is nothing to close: the directory of its map is free when the last clone is gone.
impl<S: Store + 'static, P: Partitioner> Block for ShardedStore<S, P> {
    fn kind(&self) -> &'static str {
        "sharded store"
    }

    fn status(&self) -> BlockStatus {
        let status = ShardedStore::status(self);
        let largest = status.shards.iter().map(|shard| shard.share).fold(0.0, f64::max);
        BlockStatus::new(Health::Ready)
            .figure("shards", status.shards.len() as f64)
            .figure("largest_share", largest)
            .figure("map_version", status.version as f64)
            .figure("moving", f64::from(u8::from(status.moving.is_some())))
    }

    fn drain<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, ()> {
        until(env, || ShardedStore::status(self).moving.is_none())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

/// Looks again and again until `done`.
fn until<'a>(env: &'a Env, mut done: impl FnMut() -> bool + Send + 'a) -> BoxFuture<'a, ()> {
    async move {
        while !done() {
            env.sleep(LOOK).await;
        }
    }
    .boxed()
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::replica::{Node, ReplicatedStoreBuilder};
    use crate::shard::SlotTable;
    use crate::sim::World;
    use crate::store::{LocalStore, StoreExt};
    use crate::system::System;

    fn with(env: &Env, block: impl Block + 'static) -> System {
        let system = System::builder().env(env.clone()).block("it", block);
        system.build().expect("one name")
    }

    /// Each node on a machine of its own.
    async fn replicated(world: &World) -> ReplicatedStore {
        let node = |name| Node::new(name).env(world.machine(name).env());
        let builder = ReplicatedStore::builder().env(world.env());
        let builder = ["a", "b", "c"]
            .into_iter()
            .map(node)
            .fold(builder, ReplicatedStoreBuilder::node);
        builder.open("db").await.expect("empty disks")
    }

    fn figure(system: &System, name: &str) -> f64 {
        system.status().blocks[0].status.figures[name]
    }

    #[test]
    fn a_replicated_store_says_which_node_is_missing() {
        let world = World::new(1);
        let env = world.env();
        world.run(async {
            let db = replicated(&world).await;
            let system = with(&env, db.clone());
            db.put("k", "1").await.unwrap();
            assert_eq!(system.status().health, Health::Ready);
            assert_eq!(figure(&system, "nodes"), 3.0);
            assert_eq!(figure(&system, "full_nodes"), 3.0);

            world.machine("c").crash();
            env.sleep(Duration::from_secs(1)).await;
            let status = system.status();
            assert_eq!(status.health, Health::Degraded);
            assert!(status.blocks[0].status.reason.as_ref().unwrap().ends_with(": c"));
            assert_eq!(figure(&system, "full_nodes"), 2.0);

            assert!(system.shut_down(Duration::from_secs(10)).await.is_clean());
            assert_eq!(system.status().health, Health::Down);
            assert!(db.put("k", "2").await.is_err());
        });
    }

    #[test]
    fn a_replicated_store_drains_when_its_writes_are_acknowledged() {
        let world = World::new(1);
        let env = world.env();
        world.run(async {
            let db = replicated(&world).await;
            let writer = db.clone();
            let write = env.spawn(async move { writer.put("k", "1").await });
            while Block::status(&db).figures["pending"] == 0.0 {
                env.sleep(Duration::from_micros(1)).await;
            }
            Block::drain(&db, &env).await;
            assert_eq!(Block::status(&db).figures["pending"], 0.0);
            assert!(write.now_or_never().is_some_and(|written| written.is_ok()));
            db.close().await;
        });
    }

    #[test]
    fn a_queue_drains_when_its_deliveries_are_settled() {
        let world = World::new(1);
        let env = world.env();
        world.run(async {
            let queue = DurableQueue::builder().env(env.clone()).open("jobs").await.unwrap();
            let system = with(&env, queue.clone());
            let mail = queue.topic("mail");
            mail.send("1").await.unwrap();
            mail.send("2").await.unwrap();
            let mut jobs = mail.subscribe("mailer").max_in_flight(1).build().await.unwrap();
            let job = jobs.next().await.unwrap().unwrap();
            assert_eq!(figure(&system, "in_flight"), 1.0);
            assert_eq!((figure(&system, "messages"), figure(&system, "sent")), (2.0, 2.0));

            let second = Duration::from_secs(1);
            assert!(env.timeout(second, Block::drain(&queue, &env)).await.is_err());
            drop(jobs);
            job.ack().await.unwrap();
            assert!(system.shut_down(second).await.is_clean());
            assert_eq!(figure(&system, "acked"), 1.0);
            assert!(mail.send("3").await.is_err());
            assert_eq!(Block::status(&queue).health, Health::Down);

            let again = DurableQueue::builder().env(env.clone()).open("jobs").await.unwrap();
            assert_eq!(Block::status(&again).figures["messages"], 1.0);
            again.close().await;
        });
    }

    #[test]
    fn a_sharded_store_drains_when_its_shard_has_joined() {
        let world = World::new(1);
        let env = world.env();
        world.run(async {
            let local = || {
                LocalStore::builder(crate::store::MemoryEngine::new())
                    .env(env.clone())
                    .build()
            };
            let builder = ShardedStore::builder(SlotTable::new(64)).env(env.clone());
            let store = builder.shard("a", local()).open("map").await.unwrap();
            let system = with(&env, store.clone());
            for n in 0..100 {
                store.put(format!("key/{n}"), "1").await.unwrap();
            }
            assert_eq!(
                (figure(&system, "shards"), figure(&system, "largest_share")),
                (1.0, 1.0)
            );

            let (adding, joining) = (store.clone(), local());
            let task = env.spawn(async move { adding.add_shard("b", joining).await });
            while figure(&system, "moving") == 0.0 {
                env.sleep(Duration::from_nanos(100)).await;
            }
            assert!(system.shut_down(Duration::from_secs(10)).await.is_clean());
            assert_eq!((figure(&system, "moving"), figure(&system, "shards")), (0.0, 2.0));
            assert_eq!(figure(&system, "largest_share"), 0.5);
            assert!(task.await.is_ok());
        });
    }
}

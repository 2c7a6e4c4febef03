//! What holds of acknowledgements that are waited for together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::testing::{SECOND, subscribe};
use crate::env::{Env, Rng};
use crate::queue::*;
use crate::sim::{DiskOp, Inject, Machine, World, drop_at_every_poll};
use crate::sync::Mutex;
use futures::future::{join_all, select};
use futures::poll;
use std::collections::BTreeSet;
use std::pin::pin;

async fn open(env: &Env) -> DurableQueue {
    let queue = DurableQueue::builder().env(env.clone());
    queue.ack_durability(Durability::Disk).open("q").await.unwrap()
}

/// So many deliveries of a new queue.
async fn deliver(env: &Env, count: usize) -> (DurableQueue, Vec<Delivery<DurableQueue>>) {
    let queue = open(env).await;
    let mut from = Subscription::new("t", "s");
    from.max_in_flight = count;
    queue.subscribe(&from).await.unwrap();
    let names = (0..count).map(|n| Message::new(n.to_string()));
    queue.topic("t").send_all(names).await.unwrap();
    let raw = queue.receive(&from, count, SECOND).await.unwrap();
    assert_eq!(raw.len(), count);
    let of = |raw| Delivery::new(queue.clone(), raw);
    (queue.clone(), raw.into_iter().map(of).collect())
}

/// What there is to deliver, by payload.
async fn left(queue: &DurableQueue) -> Vec<String> {
    let from = subscribe(queue, "t", "s").await;
    let raw = queue.receive(&from, 10_000, SECOND).await.unwrap();
    let text = |raw: RawDelivery| String::from_utf8_lossy(&raw.message.payload).into_owned();
    raw.into_iter().map(text).collect()
}

async fn left_after_crash(machine: &Machine) -> Vec<String> {
    machine.crash();
    left(&open(&machine.env()).await).await
}

/// The number of the log's next entry.
fn end(queue: &DurableQueue) -> u64 {
    queue.shell().log.range().end
}

#[test]
fn what_is_acknowledged_together_is_one_entry() {
    for (count, entries) in [(1, 1), (100, 1), (4_096, 1), (4_097, 2)] {
        let world = World::new(1);
        let machine = world.machine("node");
        world.run(async {
            let (queue, jobs) = deliver(&machine.env(), count).await;
            let before = end(&queue);
            let acks = join_all(jobs.into_iter().map(Delivery::ack)).await;
            assert!(acks.iter().all(Result::is_ok));
            assert_eq!(end(&queue) - before, entries, "of {count}");
            assert_eq!(left_after_crash(&machine).await, [""; 0]);
        });
    }
}

#[test]
fn the_future_of_an_ack_is_small() {
    let world = World::new(8);
    world.run(async {
        let (_queue, mut jobs) = deliver(&world.env(), 1).await;
        let ack = size_of_val(&jobs.pop().unwrap().ack());
        assert!(ack <= 280, "{ack} bytes");
    });
}

#[test]
fn whoever_gives_up_an_ack_holds_up_nobody_else() {
    for dropped in 0..3 {
        let polls = drop_at_every_poll(2, move |world, cut| async move {
            let machine = world.machine("node");
            let (_queue, jobs) = deliver(&machine.env(), 3).await;
            let since = machine.env().now();
            let acks = jobs.into_iter().enumerate().map(|(n, job)| {
                let cut = &cut;
                async move {
                    match n == dropped {
                        true => cut.run(job.ack()).await.is_none_or(|acked| acked.is_ok()),
                        false => job.ack().await.is_ok(),
                    }
                }
            });
            assert_eq!(join_all(acks).await, [true; 3]);
            assert!(
                machine.env().now() - since < Duration::from_millis(5),
                "no timer is waited for"
            );
            let left = left_after_crash(&machine).await;
            assert!(left.is_empty() || left == [dropped.to_string()], "{left:?}");
        });
        assert!(polls >= 2, "{polls}");
    }
}

#[test]
fn whoever_does_not_poll_an_ack_holds_up_nobody_else_for_long() {
    let world = World::new(3);
    let machine = world.machine("node");
    world.run(async {
        let (_queue, jobs) = deliver(&machine.env(), 2).await;
        let mut acks = jobs.into_iter().map(Delivery::ack);
        let mut first = pin!(acks.next().unwrap());
        assert!(poll!(first.as_mut()).is_pending());
        let second = acks.next().unwrap();
        let late = machine.env().sleep(Duration::from_millis(100));
        assert!(matches!(
            select(pin!(second), late).await,
            futures::future::Either::Left((Ok(()), _))
        ));
        assert_eq!(first.await, Ok(()));
        assert_eq!(left_after_crash(&machine).await, [""; 0]);
    });
}

#[test]
fn a_failed_sync_is_told_to_all() {
    let world = World::new(4);
    let machine = world.machine("node");
    world.run(async {
        let (queue, jobs) = deliver(&machine.env(), 10).await;
        machine.inject(DiskOp::Sync, 0, Inject::Fail);
        for acked in join_all(jobs.into_iter().map(Delivery::ack)).await {
            assert_eq!(acked.as_ref().unwrap_err().effect(), Effect::Unknown, "{acked:?}");
        }
        assert_eq!(queue.check(), Err(Error::Poisoned));
        queue.close().await;
        let left = left(&open(&machine.env()).await).await;
        assert!(left.is_empty() || left.len() == 10, "{left:?}");
    });
}

#[test]
fn a_full_disk_is_told_to_all_and_the_log_hears_of_them_later() {
    let world = World::new(5);
    let machine = world.machine("node");
    world.run(async {
        let (_queue, jobs) = deliver(&machine.env(), 10).await;
        machine.inject(DiskOp::Write, 0, Inject::NoSpace);
        for acked in join_all(jobs.into_iter().map(Delivery::ack)).await {
            assert!(matches!(acked, Err(Error::Full { .. })), "{acked:?}");
        }
        machine.env().sleep(10 * SECOND).await;
        assert_eq!(left_after_crash(&machine).await, [""; 0]);
    });
}

#[test]
fn closing_sees_those_through_that_wait() {
    let world = World::new(6);
    let machine = world.machine("node");
    world.run(async {
        let (queue, jobs) = deliver(&machine.env(), 3).await;
        let mut acks = pin!(join_all(jobs.into_iter().map(Delivery::ack)));
        assert!(poll!(acks.as_mut()).is_pending());
        queue.close().await;
        assert_eq!(acks.await, [const { Ok(()) }; 3]);
        assert_eq!(left_after_crash(&machine).await, [""; 0]);
    });
}

#[test]
fn no_ack_is_on_disk_before_its_message() {
    let world = World::new(7);
    let machine = world.machine("node");
    world.run(async {
        let env = machine.env();
        let build = || DurableQueue::builder().env(env.clone()).durability(Durability::Os);
        let queue = build().ack_durability(Durability::Disk).open("q").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send_all(["a", "b"]).await.unwrap();
        let mut raw = queue.receive(&from, 2, SECOND).await.unwrap();
        let syncs = queue.stats().syncs;
        Delivery::new(queue.clone(), raw.pop().unwrap()).ack().await.unwrap();
        assert!(queue.stats().syncs > syncs, "it waits for the disk");
        assert_eq!(left_after_crash(&machine).await, ["a"]);
    });
}

/// Consumers that each acknowledge what they get, some of it together, and note what was granted, until `over`.
async fn consume(queue: &DurableQueue, over: Duration, env: &Env, mut rng: Rng, granted: &Mutex<BTreeSet<u64>>) {
    let from = &subscribe(queue, "t", "s").await;
    let consumers = (0..4).map(|_| {
        let mut rng = Rng::seeded(rng.next_u64());
        async move {
            loop {
                let some = queue.receive(from, 1 + rng.index(5), SECOND).await.unwrap();
                join_all(some.into_iter().map(async |raw| {
                    let seq = raw.token.seq;
                    Delivery::new(queue.clone(), raw).ack().await.unwrap();
                    granted.lock().insert(seq);
                }))
                .await;
            }
        }
    });
    select(pin!(join_all(consumers)), env.sleep(over)).await;
}

#[test]
fn what_is_granted_is_not_forgotten_by_a_crash() {
    let mut all = 0;
    for seed in 0..300 {
        let world = World::new(seed);
        let machine = world.machine("node");
        all += world.run(async {
            let env = machine.env();
            let queue = open(&env).await;
            let names = (0..200).map(|n| Message::new(n.to_string()));
            let sent = queue.topic("t").send_all(names).await.unwrap();
            let mut rng = world.env().rng("consumers");
            let over = Duration::from_micros(rng.below(20_000));
            let granted = Mutex::new(BTreeSet::new());
            consume(&queue, over, &env, rng, &granted).await;
            let granted = std::mem::take(&mut *granted.lock());
            let left: BTreeSet<String> = left_after_crash(&machine).await.into_iter().collect();
            for (n, receipt) in sent.iter().enumerate() {
                let again = granted.contains(&receipt.seq) && left.contains(&n.to_string());
                assert!(!again, "seed {seed}: {n} was acknowledged and comes again");
            }
            granted.len()
        });
    }
    assert!(all > 1_000, "something is acknowledged before the crash: {all}");
}

//! What the durable queue promises beyond the suite.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::testing::{SECOND, next, open, subscribe};
use crate::env::Env;
use crate::queue::suite::{self, Subject};
use crate::queue::*;
use crate::sim::{DiskModel, DiskOp, Faults, Inject, World, drop_at_every_poll};
use futures::future::join_all;
use futures::join;
use std::cell::Cell;

/// Receives and acknowledges all there is.
async fn drain(queue: &DurableQueue, from: &Subscription) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(job) = next(queue, from).await {
        all.push(String::from_utf8(job.payload().to_vec()).unwrap());
        job.ack().await.unwrap();
    }
    all
}

#[test]
fn the_suite_holds() {
    let world = World::new(1);
    let (env, made) = (world.env(), Cell::new(0));
    world.run(suite::queue(async || {
        made.set(made.get() + 1);
        let queue = DurableQueue::builder().env(env.clone());
        let queue = queue.open(format!("queue-{}", made.get())).await.unwrap();
        let env: Env = env.clone();
        Subject::new(queue, move |by| env.sleep(by))
    }));
}

#[test]
fn a_token_settles_nothing_but_its_own_delivery() {
    let world = World::new(21);
    world.run(async {
        let queue = open(&world.env()).await;
        let mut tokens = Vec::new();
        for (topic, name) in [("t", "s"), ("t", "other"), ("u", "s")] {
            let from = subscribe(&queue, topic, name).await;
            queue.topic(topic).send("m").await.unwrap();
            tokens.push(queue.receive(&from, 1, SECOND).await.unwrap().pop().unwrap().token);
        }
        let mut wrong = Vec::new();
        for (one, other) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            let (one, other) = (tokens[one].clone(), &tokens[other]);
            let (topic, subscription) = (other.topic.clone(), other.subscription.clone());
            let generation = other.generation;
            wrong.push(DeliveryToken { topic, ..one.clone() });
            wrong.push(DeliveryToken {
                subscription,
                ..one.clone()
            });
            wrong.push(DeliveryToken { generation, ..one });
        }
        for wrong in wrong.iter().filter(|wrong| !tokens.contains(wrong)) {
            let settled = queue.settle(wrong, Settle::Ack).await;
            assert_eq!(settled, Err(Error::LeaseLost { seq: wrong.seq }), "{wrong:?}");
        }
        for token in &tokens {
            assert_eq!(queue.settle(token, Settle::Ack).await, Ok(()));
        }
    });
}

#[test]
fn reopening_goes_on_where_it_stopped() {
    let world = World::new(2);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send_all(["a", "b", "c", "d"]).await.unwrap();
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        let held = next(&queue, &from).await.unwrap();
        let third = next(&queue, &from).await.unwrap();
        third.dead_letter("bad").await.unwrap();
        // Deliveries are not waited for, but soon written.
        machine.env().sleep(SECOND).await;
        machine.crash();
        drop(held);

        let queue = open(&machine.env()).await;
        let report = queue.opened();
        assert_eq!(
            (report.messages, report.lost.len(), report.damaged.len()),
            (4, 0, 0),
            "{report:?}"
        );
        let again = next(&queue, &from).await.unwrap();
        assert_eq!(
            (&again.payload()[..], again.attempt()),
            (&b"b"[..], 2),
            "an attempt outlives the crash"
        );
        again.ack().await.unwrap();
        assert_eq!(drain(&queue, &from).await, ["d"]);
        let dead = subscribe(&queue, "t.dead", "undertaker").await;
        assert_eq!(drain(&queue, &dead).await, ["c"]);
    });
}

#[test]
fn old_messages_come_from_disk_and_settled_ones_free_it() {
    let world = World::new(3);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        let payload = |n: usize| format!("{n} {}", "x".repeat(500));
        for n in 0..100 {
            queue.topic("t").send(payload(n)).await.unwrap();
        }
        let full = queue.stats().bytes;
        assert!(full > 50_000, "far more than the cache holds");
        let drained = drain(&queue, &from).await;
        assert_eq!(drained, (0..100).map(payload).collect::<Vec<_>>());
        env.sleep(SECOND).await;
        let left = queue.stats().bytes;
        assert!(left < 20_000, "{left} of {full} bytes are left");
        queue.close().await;

        // The records that told of the subscription are gone with the segments; it stands all the same.
        let queue = open(&env).await;
        queue.topic("t").send("new").await.unwrap();
        assert_eq!(drain(&queue, &from).await, ["new"]);
    });
}

#[test]
fn a_full_directory_refuses_sends_and_takes_acknowledgements() {
    let world = World::new(4);
    let env = world.env();
    world.run(async {
        let queue = DurableQueue::builder()
            .env(env.clone())
            .segment_bytes(8 << 10)
            .max_bytes(30_000);
        let queue = queue.open("q").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let payload = "x".repeat(1_000);
        let refused = loop {
            if let Err(error) = queue.topic("t").send(payload.clone()).await {
                break error;
            }
        };
        assert!(matches!(refused, Error::Full { .. }), "{refused}");
        assert_eq!((refused.retry(), refused.effect()), (Retry::May, Effect::None));
        assert!(drain(&queue, &from).await.len() >= 25);
        env.sleep(SECOND).await;
        queue.topic("t").send(payload).await.unwrap();
    });
}

#[test]
fn a_full_disk_refuses_sends_and_heals() {
    let world = World::new(5);
    let machine = world.machine("node");
    machine.set_disk(DiskModel {
        capacity: 40_000,
        ..DiskModel::default()
    });
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        let mut sent = 0;
        let refused = loop {
            match queue.topic("t").send("x".repeat(1_000)).await {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full { .. }), "{refused}");
        machine.set_disk(DiskModel::default());
        queue.topic("t").send("y").await.unwrap();
        assert_eq!(drain(&queue, &from).await.len(), sent + 1);
    });
}

#[test]
fn a_refused_send_stays_refused_when_its_number_is_given_again() {
    let world = World::new(4);
    let machine = world.machine("node");
    world.run(async {
        let env = machine.env();
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send("a").await.unwrap();
        let job = next(&queue, &from).await.unwrap();
        env.sleep(SECOND).await;
        machine.inject(DiskOp::Write, 0, Inject::NoSpace);
        // The caller is busy elsewhere when its send fails, and hears of it last.
        let topic = queue.topic("t");
        let mut refused = std::pin::pin!(topic.send("b"));
        assert!(futures::poll!(&mut refused).is_pending());
        env.sleep(SECOND).await;
        job.ack().await.unwrap();
        topic.send("c").await.unwrap();
        assert_eq!(drain(&queue, &from).await, ["c"]);
        let error = refused.await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error}");
        assert_eq!(drain(&queue, &from).await, [""; 0]);
    });
}

#[test]
fn a_failed_sync_poisons_until_reopening() {
    let world = World::new(6);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send("a").await.unwrap();
        machine.inject(DiskOp::Sync, 0, Inject::Fail);
        let waiting = queue.receive(&from, 5, 100 * SECOND);
        let failed = queue.topic("t").send("b").await;
        assert_eq!(failed.as_ref().unwrap_err().effect(), Effect::Unknown, "{failed:?}");
        assert_eq!(queue.topic("t").send("c").await, Err(Error::Poisoned));
        assert_eq!(waiting.await, Err(Error::Poisoned));
        queue.close().await;
        let queue = open(&machine.env()).await;
        queue.topic("t").send("d").await.unwrap();
        let all = drain(&queue, &from).await;
        assert!(all == ["a", "d"] || all == ["a", "b", "d"], "{all:?}");
    });
}

#[test]
fn damage_costs_the_message_that_it_hits() {
    let world = World::new(7);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        queue
            .topic("t")
            .send_all(["aaaaaaaa", "bbbbbbbb", "cccccccc"])
            .await
            .unwrap();
        queue.close().await;
        let path = machine.files().into_iter().find(|path| path.ends_with(".seg")).unwrap();
        let bytes = machine.read_file(&path).unwrap();
        let at = bytes.windows(8).position(|bytes| bytes == b"bbbbbbbb").unwrap();
        assert!(machine.flip_bit(&path, at as u64 * 8));
        let queue = open(&machine.env()).await;
        let report = queue.opened();
        assert_eq!(
            (report.messages, report.lost.len(), report.damaged.len()),
            (2, 1, 1),
            "{report:?}"
        );
        assert_eq!(drain(&queue, &from).await, ["aaaaaaaa", "cccccccc"]);
        queue.close().await;

        // Found while the queue is open.
        let queue = open(&machine.env()).await;
        let sent = queue.topic("t").send_all(["d".repeat(3_000), "e".repeat(3_000)]).await;
        let damaged = sent.unwrap()[0].seq;
        machine.env().sleep(SECOND).await;
        let path = machine
            .files()
            .into_iter()
            .rfind(|path| path.ends_with(".seg"))
            .unwrap();
        let bytes = machine.read_file(&path).unwrap();
        let at = bytes.windows(8).position(|bytes| bytes == b"dddddddd").unwrap();
        assert!(machine.flip_bit(&path, at as u64 * 8));
        assert_eq!(drain(&queue, &from).await, ["e".repeat(3_000)]);
        assert_eq!(queue.stats().lost, 1);
        let lost: Vec<_> = queue.lost().into_iter().map(|lost| lost.seqs).collect();
        assert_eq!(lost, std::slice::from_ref(&(damaged..damaged + 1)));
        let kept = machine.files().into_iter().filter(|path| path.contains("quarantine"));
        let mut kept = kept.map(|path| machine.read_file(&path).unwrap());
        assert!(kept.any(|bytes| {
            bytes
                .windows(8)
                .any(|bytes| bytes == b"eddddddd" || bytes == b"dddddddd")
        }));
    });
}

#[test]
fn streams_end_when_the_queue_is_closed() {
    let world = World::new(8);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mut jobs = queue.topic("t").subscribe("s").build().await.unwrap();
        let close = async {
            env.sleep(SECOND).await;
            queue.close().await;
        };
        let (end, ()) = join!(jobs.next(), close);
        assert!(end.is_none());
        assert_eq!(queue.topic("t").send("x").await, Err(Error::Closed));
        // The directory is free again, also when nobody closes.
        for _ in 0..3 {
            drop(open(&env).await);
            env.sleep(SECOND).await;
        }
    });
}

#[test]
fn a_dropped_send_is_whole_or_nothing_and_wakes_consumers() {
    drop_at_every_poll(1, |world, cut| async move {
        let env = world.env();
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        // It waits before the message is there, and nobody but the one who goes away could tell it.
        let waiting = queue.receive(&from, 5, 10 * SECOND);
        let (got, sent) = join!(waiting, cut.run(queue.send("t", vec!["a".into(), "b".into()])));
        let got = got.unwrap().len();
        assert!(got == 2 || (got == 0 && sent.is_none()), "{got}");
        queue.topic("t").send("c").await.unwrap();
        drop(queue.receive(&from, 5, SECOND).await.unwrap());
        queue.close().await;
        let left = open(&env).await.opened().messages;
        assert_eq!(left, got + 1);
    });
}

#[test]
fn a_dropped_receive_leases_nothing() {
    drop_at_every_poll(2, |world, cut| async move {
        let env = world.env();
        let queue = DurableQueue::builder()
            .env(env.clone())
            .cache_bytes(0)
            .open("q")
            .await
            .unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let receive = cut.run(queue.receive(&from, 5, 100 * SECOND));
        let send = async {
            env.sleep(SECOND).await;
            queue.topic("t").send_all(["a", "b"]).await.unwrap();
        };
        let (got, ()) = join!(receive, send);
        match got {
            Some(got) => assert!(!got.unwrap().is_empty()),
            None => {
                let next = queue.receive(&from, 5, SECOND).await.unwrap();
                let attempts: Vec<_> = next.iter().map(|raw| raw.attempt).collect();
                assert_eq!(attempts, [1, 1], "it was never delivered");
            }
        }
    });
}

#[test]
fn a_dropped_settlement_is_done_or_not() {
    let settles = [
        Settle::Ack,
        Settle::Retry { after: SECOND },
        Settle::DeadLetter { reason: "x".into() },
    ];
    for settle in settles {
        drop_at_every_poll(3, |world, cut| {
            let settle = settle.clone();
            async move {
                let env = world.env();
                let queue = open(&env).await;
                let from = subscribe(&queue, "t", "s").await;
                let dead = subscribe(&queue, "t.dead", "s").await;
                queue.topic("t").send_all(["a", "b"]).await.unwrap();
                let job = next(&queue, &from).await.unwrap();
                cut.run(queue.settle(job.token(), settle.clone())).await;
                drop(job);
                // Longer than every wait and lease.
                env.sleep(60 * SECOND).await;
                let again = drain(&queue, &from).await;
                let buried = drain(&queue, &dead).await;
                let back = again == ["a", "b"] && buried.is_empty();
                let gone = again == ["b"];
                match settle {
                    Settle::Ack => assert!(buried.is_empty() && (back || gone), "{again:?} {buried:?}"),
                    Settle::DeadLetter { .. } => assert!(back || (gone && buried == ["a"]), "{again:?} {buried:?}"),
                    _ => assert!(back, "{again:?}"),
                }
                let stats = queue.stats();
                let subscription = stats.topics["t"].subscriptions["s"];
                let empty = SubscriptionStats {
                    redelivered: subscription.redelivered,
                    ..SubscriptionStats::default()
                };
                assert_eq!(subscription, empty, "nothing is stuck");
            }
        });
    }
}

#[test]
fn many_producers_share_syncs() {
    let world = World::new(9);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        let before = queue.stats().syncs;
        let sends = (0..200).map(|n| mail.send(format!("{n}")));
        assert!(join_all(sends).await.iter().all(Result::is_ok));
        let syncs = queue.stats().syncs - before;
        assert!(syncs <= 10, "{syncs} syncs for 200 sends");
    });
}

#[test]
fn a_slow_disk_delays_and_loses_nothing() {
    let world = World::new(10);
    let machine = world.machine("node");
    machine.set_faults(Faults {
        stall: 0.3,
        stall_for: SECOND,
        ..Faults::default()
    });
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        // More than the log's buffer holds, so that senders wait for room.
        let large = vec![b'x'; 900 << 10];
        let sends = (0..40).map(|_| queue.send("t", vec![Message::new(large.clone())]));
        assert!(join_all(sends).await.iter().all(Result::is_ok));
        assert_eq!(drain(&queue, &from).await.len(), 40);
    });
}

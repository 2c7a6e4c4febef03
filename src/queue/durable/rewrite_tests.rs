//! What the durable queue promises of messages that nobody settles while everything behind them is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::hooks::rewrite_often;
use super::shell::Effect;
use super::testing::{SECOND, next, small, subscribe};
use crate::env::{Env, WallTime};
use crate::queue::*;
use crate::sim::{DiskOp, Faults, Inject, Machine, World};
use std::collections::BTreeMap;
use std::pin::pin;

async fn open(env: &Env) -> Result<DurableQueue> {
    rewrite_often(small(env)).open("q").await
}

/// A text of 500 bytes and a number.
fn long(n: usize) -> Message {
    Message::new(format!("{n} {}", "x".repeat(500)))
}

/// Messages of every kind that may stay for long, each with what is to be seen of it later.
fn stragglers(env: &Env) -> Vec<Message> {
    let at = env.wall() + 3_600 * SECOND;
    vec![
        Message::new("plain"),
        Message::new("urgent").priority(Priority::Urgent).header("a", "b"),
        Message::new("first of its key").key("k").dedup_id("first"),
        Message::new("second of its key").key("k"),
        Message::new("late").deliver_at(at),
        Message::new("mortal").ttl(3_600 * SECOND).priority(Priority::Low),
    ]
}

/// Sends many messages and settles them, so that whatever holds their segments is alone there.
async fn pass(queue: &DurableQueue, many: usize) -> Result<()> {
    let from = Subscription::new("busy", "s");
    queue.subscribe(&from).await?;
    for n in 0..many {
        queue.topic("busy").send(long(n)).await?;
        let received = queue.receive(&from, 1, SECOND).await?;
        for raw in received {
            queue.settle(&raw.token, Settle::Ack).await?;
        }
    }
    Ok(())
}

/// All that a subscription has to deliver, by payload; none of it is settled.
async fn look(queue: &DurableQueue, from: &Subscription) -> BTreeMap<String, RawDelivery> {
    let received = queue.receive(from, 100, SECOND).await.unwrap();
    let text = |raw: &RawDelivery| String::from_utf8_lossy(&raw.message.payload).into_owned();
    let all: BTreeMap<_, _> = received.iter().map(|raw| (text(raw), raw.clone())).collect();
    assert_eq!(all.len(), received.len(), "nothing comes twice");
    all
}

#[test]
fn when_nothing_is_left_to_write_again_what_is_on_its_way_does_not_come_early() {
    let world = World::new(1);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let slow = Faults {
            stall: 1.0,
            stall_for: SECOND,
            ..Faults::default()
        };
        machine.set_faults(slow);
        let mut sending = pin!(queue.send("t", vec![Message::new("slow")]));
        assert!(futures::poll!(sending.as_mut()).is_pending());
        // All that was to be written again has been settled meanwhile: the append has no entries, and is ready at once.
        let nothing = |_: &mut _| Some((Vec::new(), Effect::Copied(Vec::new())));
        let append = queue.shell().append(nothing).await.unwrap().unwrap();
        append.done().await.unwrap();
        assert_eq!(queue.receive(&from, 1, SECOND / 100).await, Ok(Vec::new()));
        sending.await.unwrap();
        assert_eq!(next(&queue, &from).await.unwrap().payload(), "slow");
        queue.close().await;
    });
}

#[test]
fn a_message_that_was_written_again_is_as_it_was() {
    let world = World::new(1);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await.unwrap();
        let mut wanted = Subscription::new("t", "ordered");
        (wanted.ordered, wanted.lease) = (true, 7_200 * SECOND);
        queue.subscribe(&wanted).await.unwrap();
        let other = subscribe(&queue, "t", "other").await;
        let sent = queue.send("t", stragglers(&machine.env())).await.unwrap();
        let before = look(&queue, &wanted).await;
        assert_eq!(before.len(), 4, "one of a key, and the late one not yet");
        // The other subscription is done with most of them, and has given one back.
        for raw in look(&queue, &other).await.into_values() {
            if raw.message.payload != "plain" {
                queue.settle(&raw.token, Settle::Ack).await.unwrap();
            }
        }
        pass(&queue, 200).await.unwrap();
        machine.env().sleep(SECOND).await;
        let stats = queue.stats();
        assert!(stats.rewritten >= 6, "{}", stats.rewritten);
        assert!(stats.bytes < 30_000, "{} bytes on disk", stats.bytes);
        // Leases hold, and the next of a key follows the first.
        let first = before["first of its key"].clone();
        queue.settle(&first.token, Settle::Ack).await.unwrap();
        let second = look(&queue, &wanted).await;
        assert_eq!(second.keys().collect::<Vec<_>>(), ["second of its key"]);
        machine.env().sleep(SECOND).await;
        let again = Message::new("first of its key").dedup_id("first");
        assert_eq!(
            queue.send("t", vec![again]).await,
            Ok(vec![Receipt::duplicate(sent[2].seq)])
        );

        for _ in 0..2 {
            machine.crash();
            let queue = open(&machine.env()).await.unwrap();
            queue.subscribe(&wanted).await.unwrap();
            let after = look(&queue, &wanted).await;
            let names: Vec<_> = after.keys().map(String::as_str).collect();
            assert_eq!(names, ["mortal", "plain", "second of its key", "urgent"]);
            for (name, raw) in &after {
                let known = before.get(name).unwrap_or_else(|| &second[name]);
                assert_eq!(raw.token.seq, known.token.seq, "{name}");
                assert_eq!(
                    (&raw.message, raw.enqueued_at),
                    (&known.message, known.enqueued_at),
                    "{name}"
                );
                assert!(raw.attempt > known.attempt, "{name}: attempts are counted on");
            }
            assert_eq!(queue.topic("t").redrive(9).await, Ok(0));
            assert_eq!(
                queue.stats().topics["t"].subscriptions["other"].backlog,
                2,
                "plain and late"
            );
            pass(&queue, 60).await.unwrap();
            machine.env().sleep(SECOND).await;
            assert!(queue.stats().rewritten > 0, "copies are copied again");
        }
        machine.crash();
        let queue = open(&machine.env()).await.unwrap();
        machine.skew_wall(3_600_000);
        let late = look(&queue, &other).await;
        assert_eq!(late.keys().collect::<Vec<_>>(), ["late", "plain"]);
    });
}

#[test]
fn dead_letters_and_large_messages_do_not_hold_the_log() {
    let world = World::new(2);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let large = Message::new(vec![7; 1_500_000]).key("k");
        queue.send("t", vec!["bad".into(), large.clone()]).await.unwrap();
        next(&queue, &from)
            .await
            .unwrap()
            .dead_letter("it is bad")
            .await
            .unwrap();
        pass(&queue, 100).await.unwrap();
        machine.env().sleep(SECOND).await;
        let stats = queue.stats();
        assert!(stats.rewritten >= 2 && stats.bytes < 1_600_000, "{stats:?}");
        machine.crash();
        let queue = open(&machine.env()).await.unwrap();
        assert_eq!(queue.redrive("t").await, Ok(1));
        let all = look(&queue, &from).await;
        assert!(all.values().any(|raw| raw.message == large));
        assert!(all.contains_key("bad"));
    });
}

#[test]
fn subscriptions_begin_at_a_time_or_at_the_first_message_wherever_it_lies() {
    let world = World::new(3);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await.unwrap();
        for name in ["a", "b", "c"] {
            queue.topic("t").send(name).await.unwrap();
            machine.env().sleep(10 * SECOND).await;
        }
        let noon = machine.env().wall();
        pass(&queue, 100).await.unwrap();
        machine.env().sleep(SECOND).await;
        assert!(queue.stats().rewritten >= 3);
        queue.topic("t").send("d").await.unwrap();
        machine.crash();
        let queue = open(&machine.env()).await.unwrap();
        let since = Start::Time(WallTime::from_millis(noon.as_millis() - 12_000));
        for (name, start, first) in [
            ("all", Start::First, "a"),
            ("some", since, "c"),
            ("new", Start::Now, ""),
        ] {
            let mut wanted = Subscription::new("t", name);
            wanted.start = start;
            queue.subscribe(&wanted).await.unwrap();
            let all = look(&queue, &wanted).await;
            assert_eq!(all.keys().next().map_or("", String::as_str), first, "{name}");
        }
    });
}

#[test]
fn what_everybody_settled_behind_a_straggler_takes_no_memory() {
    let world = World::new(4);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await.unwrap();
        let mut from = Subscription::new("t", "s");
        from.lease = 3_600 * SECOND;
        queue.subscribe(&from).await.unwrap();
        queue.topic("t").send("straggler").await.unwrap();
        assert_eq!(queue.receive(&from, 1, SECOND).await.unwrap().len(), 1);
        for _ in 0..20 {
            let batch: Vec<Message> = (0..100).map(|_| Message::new("x").key("k")).collect();
            queue.send("t", batch).await.unwrap();
            for raw in queue.receive(&from, 100, SECOND).await.unwrap() {
                queue.settle(&raw.token, Settle::Ack).await.unwrap();
            }
        }
        machine.env().sleep(SECOND).await;
        assert_eq!(queue.stats().topics["t"].messages, 1);
    });
}

/// Runs until the machine crashes at an operation of its disk, or to the end; then all must be there once.
async fn crash_at(machine: &Machine, op: DiskOp, nth: u64) -> bool {
    let queue = open(&machine.env()).await.unwrap();
    let from = subscribe(&queue, "t", "s").await;
    let names = ["a", "b", "c"];
    queue.send("t", names.map(Message::new).into()).await.unwrap();
    let held = queue.receive(&from, 1, SECOND).await.unwrap();
    pass(&queue, 12).await.unwrap();
    let before = machine.ops(op);
    machine.inject(op, nth, Inject::Crash);
    let lived = pass(&queue, 30).await.is_ok();
    machine.env().sleep(SECOND).await;
    if machine.ops(op) - before <= nth {
        assert!(lived && queue.stats().rewritten >= 3);
        return false;
    }
    machine.crash();
    let queue = open(&machine.env()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(queue.opened().lost, []);
        let all = look(&queue, &from).await;
        assert_eq!(
            all.keys().map(String::as_str).collect::<Vec<_>>(),
            names,
            "{op:?} {nth}"
        );
        assert_eq!(all["a"].token.seq, held[0].token.seq);
        all.values().for_each(|raw| queue.release(&raw.token));
        // The next life goes on where this one was stopped.
        pass(&queue, 10).await.unwrap();
        machine.env().sleep(SECOND).await;
    }
    true
}

#[test]
fn a_crash_at_any_operation_of_the_disk_leaves_each_message_once() {
    let mut crashes = 0;
    for op in [
        DiskOp::Write,
        DiskOp::Sync,
        DiskOp::Rename,
        DiskOp::Remove,
        DiskOp::SyncDir,
    ] {
        for nth in 0.. {
            let world = World::new(nth);
            let machine = world.machine("node");
            let more = world.run(crash_at(&machine, op, nth));
            if !more {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 60, "{crashes}");
}

#[test]
fn a_damaged_copy_is_told_by_the_number_of_its_message() {
    damage_a_copy(false);
    damage_a_copy(true);
}

/// Of a message that was delivered before it was written again, or was not.
fn damage_a_copy(delivered: bool) {
    let world = World::new(6);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let sent = queue
            .send("t", vec!["aaaaaaaa".into(), "bbbbbbbb".into()])
            .await
            .unwrap();
        if delivered {
            look(&queue, &from).await;
        }
        pass(&queue, 60).await.unwrap();
        machine.env().sleep(SECOND).await;
        assert!(queue.stats().rewritten >= 2);
        // What is told of the open messages is not in the frame of their copies.
        pass(&queue, 60).await.unwrap();
        machine.env().sleep(SECOND).await;
        // The mark that closing writes is not synced: what it shares a sector with would hide the damage.
        queue.topic("busy").send("x".repeat(1_000)).await.unwrap();
        queue.close().await;
        let mut flipped = 0;
        for path in machine.files() {
            let bytes = machine.read_file(&path).unwrap_or_default();
            // It may have been written again more than once.
            let places = bytes.windows(8).enumerate().filter(|(_, bytes)| *bytes == b"aaaaaaaa");
            for (at, _) in places {
                // The head of its frame, with which goes what was told of it there.
                let frame = bytes[..at].windows(4).rposition(|bytes| bytes == b"oGf1").unwrap();
                flipped += u64::from(machine.flip_bit(&path, frame as u64 * 8));
            }
        }
        assert!(flipped > 0);
        let queue = rewrite_often(small(&machine.env())).find_damage();
        let queue = queue.open("q").await.unwrap();
        let lost = &queue.opened().lost;
        assert!(lost.iter().any(|lost| lost.seqs.contains(&sent[0].seq)), "{lost:?}");
        let left = look(&queue, &from).await;
        let is_told = lost.iter().any(|lost| lost.seqs.contains(&sent[1].seq));
        assert!(
            left.contains_key("bbbbbbbb") != is_told && !left.contains_key("aaaaaaaa"),
            "{left:?} of {lost:?}"
        );
    });
}

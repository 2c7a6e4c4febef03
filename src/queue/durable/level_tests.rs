//! What the durable queue promises of levels of durability, of large messages, and of damage that is not to be served.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::testing::{SECOND, next};
use crate::env::Env;
use crate::queue::*;
use crate::sim::{DiskModel, World};
use futures::join;

fn build(env: &Env) -> DurableQueueBuilder {
    DurableQueue::builder().env(env.clone()).segment_bytes(8 << 10)
}

#[test]
fn the_operating_system_keeps_what_the_process_loses() {
    let world = World::new(1);
    let machine = world.machine("node");
    world.run(async {
        let open = || build(&machine.env()).durability(Durability::Os).open("q");
        let queue = open().await.unwrap();
        let from = Subscription::new("t", "s");
        queue.subscribe(&from).await.unwrap();
        machine.env().sleep(SECOND).await;
        let syncs = queue.stats().syncs;
        let named = |id: &'static str| Message::new(id).dedup_id(id);
        queue.topic("t").send_all([named("a"), named("b")]).await.unwrap();
        let job = next(&queue, &from).await.unwrap();
        assert_eq!(queue.stats().syncs, syncs, "it is delivered before it is synced");
        job.ack().await.unwrap();
        queue.topic("t").send(named("c")).await.unwrap();
        machine.kill();
        let queue = open().await.unwrap();
        assert!(queue.topic("t").send(named("c")).await.unwrap().duplicate);
        let mut left = Vec::new();
        while let Some(job) = next(&queue, &from).await {
            left.push(String::from_utf8_lossy(job.payload()).into_owned());
            job.ack().await.unwrap();
        }
        assert!(left == ["b", "c"] || left == ["a", "b", "c"], "{left:?}");
    });
}

#[test]
fn large_messages_go_every_way_that_others_go() {
    let world = World::new(2);
    let machine = world.machine("node");
    world.run(async {
        let queue = build(&machine.env()).open("q").await.unwrap();
        let from = Subscription::new("t", "s");
        queue.subscribe(&from).await.unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let large = Message::new(large).key("k").dedup_id("large");
        let (sent, small) = join!(
            queue.send("t", vec![large.clone(), "twin".into()]),
            queue.send("t", vec!["small".into()])
        );
        assert!(
            small.unwrap()[0].seq < sent.unwrap()[0].seq,
            "it does not wait for the large one"
        );
        machine.crash();
        let queue = build(&machine.env()).cache_bytes(1 << 20).open("q").await.unwrap();
        assert!(queue.topic("t").send(large.clone()).await.unwrap().duplicate);
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        next(&queue, &from)
            .await
            .unwrap()
            .dead_letter("too large")
            .await
            .unwrap();
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        assert_eq!(queue.redrive("t").await, Ok(1));
        machine.crash();
        let queue = build(&machine.env()).open("q").await.unwrap();
        let again = next(&queue, &from).await.unwrap();
        assert!(*again.message() == large, "as it was: {:?}", again.message());
        again.ack().await.unwrap();
        let refused = queue.send("t", vec![Message::new(vec![0; 64 << 20])]).await;
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    });
}

#[test]
fn a_full_disk_takes_acknowledgements() {
    let world = World::new(3);
    let machine = world.machine("node");
    machine.set_disk(DiskModel {
        capacity: 100_000,
        ..DiskModel::default()
    });
    world.run(async {
        let queue = build(&machine.env())
            .ack_durability(Durability::Disk)
            .open("q")
            .await
            .unwrap();
        let from = Subscription::new("t", "s");
        queue.subscribe(&from).await.unwrap();
        let mut sent = 0;
        while queue.topic("t").send("x".repeat(1_000)).await.is_ok() {
            sent += 1;
        }
        let refused = queue.topic("t").send("x".repeat(1_000)).await;
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        for _ in 0..sent {
            next(&queue, &from).await.unwrap().ack().await.unwrap();
        }
        machine.env().sleep(SECOND).await;
        queue.topic("t").send("there is room").await.unwrap();
    });
}

#[test]
fn damage_can_be_refused() {
    let world = World::new(4);
    let machine = world.machine("node");
    world.run(async {
        let queue = build(&machine.env()).open("q").await.unwrap();
        queue.topic("t").send_all(["aaaaaaaa", "bbbbbbbb"]).await.unwrap();
        queue.close().await;
        let holds = |path: &String| {
            let bytes = machine.read_file(path).unwrap_or_default();
            bytes.windows(8).position(|bytes| bytes == b"aaaaaaaa")
        };
        let files = machine.files();
        let found = files.iter().find_map(|path| Some((path.clone(), holds(path)?)));
        let (path, at) = found.unwrap();
        assert!(machine.flip_bit(&path, at as u64 * 8));
        let refused = build(&machine.env()).refuse_damage().open("q").await.unwrap_err();
        assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
        let queue = build(&machine.env()).open("q").await.unwrap();
        assert_eq!(queue.opened().messages, 1, "the rest is there");
    });
}

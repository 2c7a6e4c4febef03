//! What the durable queue promises of repetitions, limits, acknowledgements, redriving and replay.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::testing::{SECOND, next, open, small, subscribe};
use crate::env::WallTime;
use crate::queue::*;
use crate::sim::{DiskOp, Inject, Machine, World, drop_at_every_poll};
use futures::{FutureExt, join};

async fn begin(queue: &DurableQueue, name: &str, start: Start) -> Subscription {
    let mut wanted = Subscription::new("t", name);
    wanted.start = start;
    queue.subscribe(&wanted).await.unwrap();
    wanted
}

/// Receives and acknowledges all there is.
async fn drain(queue: &DurableQueue, from: &Subscription) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(job) = next(queue, from).await {
        let said = String::from_utf8(job.payload().to_vec()).unwrap();
        all.push(said.split(' ').next().unwrap().to_owned());
        job.ack().await.unwrap();
    }
    all
}

fn named(id: &str) -> Message {
    Message::new(id.to_owned()).dedup_id(id.to_owned())
}

/// A text of 500 bytes and a number.
fn long(n: usize) -> Message {
    Message::new(format!("{n} {}", "x".repeat(500)))
}

#[test]
fn ids_outlive_restarts_and_the_segments_that_held_them() {
    let world = World::new(1);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        let topic = queue.topic("t");
        let first = topic.send(named("a")).await.unwrap();
        for n in 0..60 {
            topic.send(long(n)).await.unwrap();
        }
        assert_eq!(drain(&queue, &from).await.len(), 61);
        machine.env().sleep(SECOND).await;
        let oldest = queue.stats();
        assert!(
            oldest.bytes < 20_000,
            "the segment of the message is gone: {}",
            oldest.bytes
        );
        assert_eq!(topic.send(named("a")).await, Ok(Receipt::duplicate(first.seq)));
        let b = topic.send(named("b")).await.unwrap();
        for _ in 0..2 {
            machine.crash();
            let queue = open(&machine.env()).await;
            let topic = queue.topic("t");
            assert_eq!(topic.send(named("a")).await, Ok(Receipt::duplicate(first.seq)));
            assert_eq!(topic.send(named("b")).await, Ok(Receipt::duplicate(b.seq)));
            assert_eq!(queue.stats().duplicates, 2);
        }
        machine.crash();
        let queue = open(&machine.env()).await;
        assert_eq!(drain(&queue, &from).await, ["b"], "once");
        // The window ends by the clock that went on meanwhile.
        queue.close().await;
        machine.env().sleep(200 * SECOND).await;
        let queue = open(&machine.env()).await;
        let anew = queue.topic("t").send(named("a")).await.unwrap();
        assert!(!anew.duplicate && anew.seq > b.seq);
    });
}

#[test]
fn only_so_many_ids_are_remembered() {
    let world = World::new(2);
    let env = world.env();
    world.run(async {
        let queue = small(&env).dedup_ids(2).open("q").await.unwrap();
        let topic = queue.topic("t");
        for id in ["a", "b", "c"] {
            topic.send(named(id)).await.unwrap();
        }
        assert!(topic.send(named("b")).await.unwrap().duplicate);
        assert!(!topic.send(named("a")).await.unwrap().duplicate);
        assert_eq!(queue.stats().forgotten_ids, 2);
        for id in ["", &"x".repeat(129)] {
            let refused = topic.send(named(id)).await;
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        }
        queue.close().await;
        let queue = small(&env).dedup_window(Duration::ZERO).open("q").await.unwrap();
        let twins = queue.topic("t").send_all([named("c"), named("c")]).await.unwrap();
        assert!(twins.iter().all(|receipt| !receipt.duplicate), "nothing is told apart");
    });
}

#[test]
fn a_repetition_shares_the_fate_of_what_is_on_its_way() {
    let world = World::new(3);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await;
        let topic = queue.topic("t");
        // No room: both fail, and leave no id behind.
        machine.inject(DiskOp::Write, 0, Inject::NoSpace);
        let (first, second) = join!(topic.send(named("a")), topic.send(named("a")));
        for failed in [first, second] {
            assert!(matches!(failed, Err(Error::Full { .. })), "{failed:?}");
        }
        let sent = topic.send(named("a")).await.unwrap();
        assert!(!sent.duplicate);
        // The one who sends goes away, and the one who repeats it is told all the same.
        let mut gone = topic.send(named("b")).boxed();
        assert!(futures::poll!(&mut gone).is_pending());
        let mut twin = topic.send(named("b")).boxed();
        assert!(futures::poll!(&mut twin).is_pending());
        drop(gone);
        assert!(twin.await.unwrap().duplicate);
        // Also when the queue is closed meanwhile.
        let mut gone = topic.send(named("c")).boxed();
        assert!(futures::poll!(&mut gone).is_pending());
        let mut twin = topic.send(named("c")).boxed();
        assert!(futures::poll!(&mut twin).is_pending());
        let close = async {
            queue.close().await;
            drop(gone);
        };
        let (twin, ()) = join!(twin, close);
        assert!(twin.unwrap().duplicate);
        let queue = open(&machine.env()).await;
        machine.inject(DiskOp::Sync, 0, Inject::Fail);
        let topic = queue.topic("t");
        let (first, second) = join!(topic.send(named("d")), topic.send(named("d")));
        for failed in [first, second] {
            assert_eq!(failed.as_ref().unwrap_err().effect(), Effect::Unknown, "{failed:?}");
        }
    });
}

#[test]
fn a_dropped_send_leaves_its_id_only_with_its_message() {
    drop_at_every_poll(4, |world, cut| async move {
        let env = world.env();
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        cut.run(queue.send("t", vec![named("a"), named("b")])).await;
        let again = queue.topic("t").send_all([named("a"), named("b")]).await.unwrap();
        assert_eq!(again[0].duplicate, again[1].duplicate);
        assert_eq!(drain(&queue, &from).await, ["a", "b"]);
        queue.close().await;
        let queue = open(&env).await;
        let late = queue.topic("t").send(named("b")).await;
        assert_eq!(late, Ok(Receipt::duplicate(again[1].seq)));
    });
}

/// Sends, acknowledges, waits and crashes; then says whether the message comes again.
async fn acknowledged_then_crash(machine: &Machine, how: Durability, wait: Duration) -> bool {
    let queue = small(&machine.env()).ack_durability(how).open("q").await.unwrap();
    let from = subscribe(&queue, "t", "s").await;
    queue.topic("t").send("a").await.unwrap();
    let job = next(&queue, &from).await.unwrap();
    machine.env().sleep(SECOND).await;
    job.ack().await.unwrap();
    assert!(next(&queue, &from).await.is_none(), "it is in force at once");
    queue.topic("t").send("b").await.unwrap();
    let job = next(&queue, &from).await.unwrap();
    job.ack().await.unwrap();
    machine.env().sleep(wait).await;
    machine.crash();
    let queue = open(&machine.env()).await;
    let left = drain(&queue, &from).await;
    assert!(left.is_empty() || left == ["b"], "{left:?}");
    !left.is_empty()
}

#[test]
fn acknowledgements_become_durable_soon_or_at_once() {
    let world = World::new(5);
    world.run(async {
        let soon = Duration::from_millis(100);
        for (name, how, wait, comes_again) in [
            ("weak, at once", Durability::Os, Duration::ZERO, true),
            ("weak, later", Durability::Os, soon, false),
            ("strong", Durability::Disk, Duration::ZERO, false),
        ] {
            let machine = world.machine(name);
            let again = acknowledged_then_crash(&machine, how, wait).await;
            assert_eq!(again, comes_again, "{name}");
        }
        // Closing writes what waits.
        let machine = world.machine("closed");
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send("a").await.unwrap();
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        queue.close().await;
        let queue = open(&machine.env()).await;
        assert_eq!(drain(&queue, &from).await, [""; 0]);
        queue.topic("t").send("b").await.unwrap();
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        drop(queue);
        machine.env().sleep(SECOND).await;
        let queue = open(&machine.env()).await;
        assert_eq!(
            drain(&queue, &from).await,
            [""; 0],
            "also when the last handle is dropped"
        );
    });
}

#[test]
fn topics_keep_to_their_limits() {
    let world = World::new(6);
    let machine = world.machine("node");
    let build = || {
        let queue = small(&machine.env()).retention(Retention::acknowledged().max_messages(3));
        let queue = queue.topic_retention("bytes", Retention::acknowledged().max_bytes(1_700));
        queue.topic_retention("all", Retention::all().max_messages(4))
    };
    world.run(async {
        let queue = build().open("q").await.unwrap();
        let count = subscribe(&queue, "count", "s").await;
        let bytes = subscribe(&queue, "bytes", "s").await;
        let all = subscribe(&queue, "all", "s").await;
        let held = {
            queue.topic("count").send(long(100)).await.unwrap();
            next(&queue, &count).await.unwrap()
        };
        for n in 0..5 {
            for topic in ["count", "bytes", "all"] {
                queue.topic(topic).send(long(n)).await.unwrap();
            }
        }
        let seq = held.seq();
        assert_eq!(held.ack().await, Err(Error::LeaseLost { seq }), "a limit has taken it");
        assert_eq!(drain(&queue, &all).await, ["1", "2", "3", "4"]);
        assert_eq!(queue.stats().dropped, 3 + 2 + 1);
        machine.env().sleep(SECOND).await;
        machine.crash();
        let queue = build().open("q").await.unwrap();
        assert_eq!(drain(&queue, &count).await, ["2", "3", "4"]);
        assert_eq!(drain(&queue, &bytes).await, ["2", "3", "4"]);
        assert_eq!(drain(&queue, &all).await, [""; 0]);
        // What is settled is kept for whoever comes, and what goes then counts as nobody's loss.
        let late = subscribe(&queue, "all", "late").await;
        assert_eq!(drain(&queue, &late).await, ["1", "2", "3", "4"]);
        queue.topic("all").send_all([long(5), long(6)]).await.unwrap();
        assert_eq!(queue.stats().dropped, 0);
        assert_eq!(queue.stats().topics["all"].messages, 4);
    });
}

#[test]
fn messages_grow_too_old() {
    let world = World::new(7);
    let machine = world.machine("node");
    let build = || small(&machine.env()).retention(Retention::acknowledged().max_age(10 * SECOND));
    world.run(async {
        let queue = build().open("q").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        for n in 0..4 {
            queue.topic("t").send(long(n)).await.unwrap();
            machine.env().sleep(4 * SECOND).await;
        }
        let backlog = queue.stats().topics["t"].subscriptions["s"].backlog;
        assert_eq!(backlog, 2, "two are 12 s and 16 s old, and nobody looked");
        let age = queue.stats().topics["t"].subscriptions["s"].oldest_age;
        assert!((8 * SECOND..10 * SECOND).contains(&age), "{age:?}");
        queue.close().await;
        machine.env().sleep(2 * SECOND).await;
        let queue = build().open("q").await.unwrap();
        assert_eq!(drain(&queue, &from).await, ["2", "3"]);
        // A clock that was put forward is noticed within a minute.
        queue.topic("t").send(long(4)).await.unwrap();
        machine.skew_wall(3_600_000);
        machine.env().sleep(61 * SECOND).await;
        assert_eq!(queue.stats().topics["t"].messages, 0);
        assert_eq!(queue.stats().dropped, 1);
    });
}

#[test]
fn a_send_waits_for_room_or_has_it_made() {
    let world = World::new(8);
    let env = world.env();
    world.run(async {
        let queue = small(&env)
            .max_bytes(30_000)
            .on_full(OnFull::Wait)
            .open("wait")
            .await
            .unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let mut sent = 0;
        let waits = loop {
            match env.timeout(SECOND, queue.topic("t").send(long(sent))).await {
                Ok(receipt) => drop(receipt.unwrap()),
                Err(elapsed) => break elapsed,
            }
            sent += 1;
        };
        assert_eq!(
            (waits, queue.stats().sent),
            (crate::env::Elapsed, sent as u64),
            "it was given up"
        );
        let topic = queue.topic("t");
        let (late, got) = join!(topic.send(long(sent)), drain(&queue, &from));
        late.unwrap();
        assert_eq!(got.len(), sent + 1, "there was room once consumers had settled enough");
        // Whoever waits hears that the queue is closed.
        let close = async {
            env.sleep(SECOND).await;
            queue.close().await;
        };
        let wait = async {
            loop {
                if let Err(error) = topic.send(long(0)).await {
                    return error;
                }
            }
        };
        assert_eq!(join!(wait, close).0, Error::Closed);

        let queue = small(&env).max_bytes(30_000).on_full(OnFull::DropOldest);
        let queue = queue.open("drop").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        for n in 0..200 {
            queue.topic("t").send(long(n)).await.unwrap();
        }
        let stats = queue.stats();
        assert!(stats.bytes <= 40_000, "{} bytes", stats.bytes);
        let got = drain(&queue, &from).await;
        assert_eq!(got.len() as u64 + stats.dropped, 200);
        assert_eq!(got.last().unwrap(), "199");
        assert!(got.len() > 10, "no more are dropped than have to: {got:?}");
    });
}

#[test]
fn a_full_disk_is_waited_for() {
    let world = World::new(9);
    let machine = world.machine("node");
    world.run(async {
        let queue = small(&machine.env()).on_full(OnFull::Wait).open("q").await.unwrap();
        for _ in 0..3 {
            machine.inject(DiskOp::Write, 0, Inject::NoSpace);
            let sent = queue.topic("t").send(named("a")).await;
            assert!(sent.is_ok(), "{sent:?}");
        }
        assert_eq!(queue.stats().sent, 1);
    });
}

#[test]
fn a_dropped_wait_for_room_sends_nothing() {
    drop_at_every_poll(5, |world, cut| async move {
        let env = world.env();
        let queue = small(&env)
            .max_bytes(30_000)
            .on_full(OnFull::Wait)
            .open("q")
            .await
            .unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let mut sent = 0;
        while queue.stats().bytes < 30_000 {
            queue.topic("t").send(long(sent)).await.unwrap();
            sent += 1;
        }
        let waiting = cut.run(queue.send("t", vec!["late".into()]));
        let (late, got) = join!(waiting, async {
            env.sleep(SECOND).await;
            drain(&queue, &from).await
        });
        let came = got.iter().filter(|got| *got == "late").count();
        assert!(came == 1 || (came == 0 && late.is_none()), "{came}");
        assert_eq!(got.len(), sent + came);
        queue.topic("t").send("more").await.unwrap();
        assert_eq!(drain(&queue, &from).await, ["more"]);
    });
}

#[test]
fn dead_letters_go_back() {
    let world = World::new(10);
    let machine = world.machine("node");
    world.run(async {
        let queue = open(&machine.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        let topic = queue.topic("t");
        let message = |n: usize| {
            Message::new(format!("{n}"))
                .header("trace", "1")
                .key("k")
                .dedup_id(format!("{n}"))
        };
        for n in 0..5 {
            topic.send(message(n)).await.unwrap();
            next(&queue, &from).await.unwrap().dead_letter("bad").await.unwrap();
        }
        assert_eq!(topic.redrive(2).await, Ok(2));
        for n in 0..2 {
            let again = next(&queue, &from).await.unwrap();
            assert_eq!(
                (again.message(), again.attempt()),
                (&message(n), 1),
                "as it was, with no attempts"
            );
            again.ack().await.unwrap();
        }
        // What a consumer of the dead letters has dealt with, or holds, stays away.
        let dead = subscribe(&queue, "t.dead", "undertaker").await;
        next(&queue, &dead).await.unwrap().ack().await.unwrap();
        let held = next(&queue, &dead).await.unwrap();
        let (one, other) = join!(queue.redrive("t"), queue.redrive("t"));
        assert_eq!(one.unwrap() + other.unwrap(), 1, "two at once move it once");
        held.ack().await.unwrap();
        machine.env().sleep(SECOND).await;
        machine.crash();
        let queue = open(&machine.env()).await;
        assert_eq!(drain(&queue, &from).await, ["4"]);
        assert_eq!(drain(&queue, &dead).await, [""; 0]);
        assert_eq!((queue.redrive("t").await, queue.redrive("none").await), (Ok(0), Ok(0)));
        assert_eq!(
            queue.topic("t").send(message(1)).await.map(|receipt| receipt.duplicate),
            Ok(true)
        );
    });
}

#[test]
fn a_dropped_redrive_leaves_each_letter_in_one_place() {
    drop_at_every_poll(6, |world, cut| async move {
        let queue = open(&world.env()).await;
        let from = subscribe(&queue, "t", "s").await;
        for n in ["a", "b"] {
            queue.topic("t").send(n).await.unwrap();
            next(&queue, &from).await.unwrap().dead_letter("bad").await.unwrap();
        }
        cut.run(queue.redrive("t")).await;
        world.env().sleep(SECOND).await;
        let back = drain(&queue, &from).await;
        let left = queue.redrive("t").await.unwrap();
        assert_eq!(back.len() + left, 2);
        assert_eq!(drain(&queue, &from).await.len(), left);
    });
}

#[test]
fn subscriptions_begin_at_a_time_whatever_the_clock_did() {
    let world = World::new(11);
    let machine = world.machine("node");
    world.run(async {
        let env = machine.env();
        let queue = small(&env).retention(Retention::all()).open("q").await.unwrap();
        let mut times = Vec::new();
        for n in 0..60 {
            times.push(env.wall());
            queue.topic("t").send(long(n)).await.unwrap();
            env.sleep(Duration::from_millis(300)).await;
        }
        queue.close().await;
        let queue = small(&env).retention(Retention::all()).open("q").await.unwrap();
        for from in [0, 1, 7, 30, 59] {
            let begin = begin(&queue, &format!("{from}"), Start::Time(times[from])).await;
            let got = drain(&queue, &begin).await;
            assert_eq!(got, (from..60).map(|n| n.to_string()).collect::<Vec<_>>());
        }
        // Set back, a clock says times that were already; what counts is the first message at that time or later.
        machine.skew_wall(-10_000);
        queue.topic("t").send(long(60)).await.unwrap();
        let future = begin(&queue, "future", Start::Time(WallTime::from_millis(u64::MAX))).await;
        let first = begin(&queue, "first", Start::Time(WallTime::from_millis(0))).await;
        let last = begin(&queue, "last", Start::Seq(u64::MAX >> 1)).await;
        queue.topic("t").send(long(61)).await.unwrap();
        assert_eq!(drain(&queue, &future).await, ["61"]);
        assert_eq!(drain(&queue, &first).await.len(), 62);
        assert_eq!(drain(&queue, &last).await, [""; 0]);
    });
}

#[test]
fn stats_tell_how_far_behind_a_subscription_is() {
    let world = World::new(12);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send_all(["a", "b", "c"]).await.unwrap();
        env.sleep(5 * SECOND).await;
        queue.topic("t").send("d").await.unwrap();
        drop(next(&queue, &from).await);
        let a = next(&queue, &from).await.unwrap();
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        let stats = queue.stats();
        let mine = stats.topics["t"].subscriptions["s"];
        assert_eq!(
            (mine.backlog, mine.in_flight, mine.ready, mine.lag, mine.redelivered),
            (3, 1, 2, 4, 1)
        );
        assert!(
            (5 * SECOND..6 * SECOND).contains(&mine.oldest_age),
            "{:?}",
            mine.oldest_age
        );
        a.ack().await.unwrap();
        let stats = queue.stats();
        let mine = stats.topics["t"].subscriptions["s"];
        assert_eq!((mine.backlog, mine.lag), (2, 2));
        assert_eq!(stats.sends.count(), 2);
        assert!(stats.sends.quantile(0.5) > Duration::ZERO && stats.sends.max() < SECOND);
    });
}

#[test]
fn subscriptions_are_bounded() {
    let world = World::new(13);
    let env = world.env();
    world.run(async {
        let queue = small(&env).max_subscriptions(1).open("q").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let refused = queue.subscribe(&Subscription::new("t", "other")).await;
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        queue.subscribe(&from).await.unwrap();
        let mut most = Subscription::new("t", "s");
        most.max_in_flight = 1 << 20;
        queue.subscribe(&most).await.unwrap();
        most.max_in_flight += 1;
        let refused = queue.subscribe(&most).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        let refused = DurableQueue::builder().env(env.clone()).max_bytes(10).open("r").await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    });
}

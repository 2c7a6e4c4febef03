//! One server.

use crate::{MS, SOON, builder, keeps_the_contract, next, on_tokio, queue_jetstream, servers, take, text};
use bytes::Bytes;
use futures::FutureExt;
use outgrow::env::Env;
use outgrow::queue::{
    Capability, DEAD_ATTEMPTS, DEAD_REASON, Effect, Error, Feature, JetStreamQueue, Message, Priority, Queue,
    ServerSync, Settle, Start, Subscription,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[test]
fn it_keeps_the_contract() {
    let Some(servers) = servers("suite", 1) else { return };
    on_tokio(keeps_the_contract(&servers));
}

#[test]
fn it_says_what_it_cannot_promise() {
    let Some(servers) = servers("says", 1) else { return };
    on_tokio(async {
        let url = servers.url();
        let silent = JetStreamQueue::connect(&url).await.unwrap();
        assert!(
            silent.warnings()[0].contains("sync_interval"),
            "{:?}",
            silent.warnings()
        );
        assert!(!silent.capability().has(Feature::Durable));
        let strict = JetStreamQueue::builder().strict().connect(&url).await.unwrap_err();
        assert!(
            matches!(&strict, Error::Invalid { what } if what.contains("sync_interval")),
            "{strict}"
        );

        let told = JetStreamQueue::builder().server_sync(ServerSync::Always).strict();
        let queue = told.connect(&url).await.unwrap();
        assert_eq!(queue.warnings(), &[] as &[String]);
        let absent = [
            Feature::AtomicBatches,
            Feature::AtomicDeadLetters,
            Feature::Priorities,
            Feature::OrderedKeys,
            Feature::AckThrough,
        ];
        let expected = absent.into_iter().fold(Capability::all(), Capability::without);
        assert_eq!(queue.capability(), expected);

        // What it cannot do it refuses, and nothing of it happens.
        let topic = queue.topic("t");
        let urgent = topic.send(Message::new("x").priority(Priority::Urgent)).await;
        assert_eq!(urgent, Err(Error::Unsupported(Feature::Priorities)));
        let mut ordered = Subscription::new("t", "s");
        ordered.ordered = true;
        let refused = queue.subscribe(&ordered).await;
        assert_eq!(refused, Err(Error::Unsupported(Feature::OrderedKeys)));
        let huge = topic.send(vec![0; 2 << 20]).await.unwrap_err();
        assert!(matches!(huge, Error::TooLarge { max: 1_048_576, .. }), "{huge}");
        let nameless = topic.send(Message::new("x").dedup_id(vec![0; 129])).await.unwrap_err();
        assert!(matches!(nameless, Error::Invalid { .. }), "{nameless}");
        let from = Subscription::new("t", "s");
        queue.subscribe(&from).await.unwrap();
        topic.send("fine").await.unwrap();
        let fine = next(&queue, &from).await;
        assert_eq!(text(&fine), "fine");
        let through = queue.settle(fine.token(), Settle::AckThrough).await;
        assert_eq!(through, Err(Error::Unsupported(Feature::AckThrough)));
        fine.ack().await.unwrap();

        queue.close().await;
        assert_eq!(topic.send("late").await, Err(Error::Closed));

        let nobody = JetStreamQueue::builder().timeout(500 * MS).dedup_window(SOON);
        let nobody = nobody.connect("nats://127.0.0.1:1").await.unwrap_err();
        assert!(
            matches!(
                nobody,
                Error::Io {
                    effect: Effect::None,
                    ..
                }
            ),
            "{nobody}"
        );
    });
    // Without tokio it says so.
    let connect = JetStreamQueue::builder().env(Env::system());
    let refused = futures::executor::block_on(connect.connect(&servers.url())).unwrap_err();
    assert!(
        matches!(&refused, Error::Invalid { what } if what.contains("tokio")),
        "{refused}"
    );
}

#[test]
fn the_mailer_of_the_example_runs_on_it() {
    let Some(servers) = servers("mailer", 1) else { return };
    on_tokio(async {
        queue_jetstream::example(Some(&servers.url())).await.unwrap();
        queue_jetstream::example(None).await.unwrap();
    });
}

#[test]
fn one_process_cannot_settle_what_another_holds() {
    let Some(servers) = servers("fenced", 1) else { return };
    on_tokio(async {
        let one = builder("f").connect(&servers.url()).await.unwrap();
        let other = builder("f").connect(&servers.url()).await.unwrap();
        let mut from = Subscription::new("t", "s");
        from.lease = 500 * MS;
        one.subscribe(&from).await.unwrap();
        let sent = one.topic("t").send("a").await.unwrap();

        let late = next(&one, &from).await;
        // The other finds the subscription as the first made it. It gets the message when the first has lost it.
        let mut again = next(&other, &from).await;
        assert_eq!((again.seq(), again.attempt()), (sent.seq, 2));
        let foreign = one.settle(again.token(), Settle::Ack).await;
        assert_eq!(
            foreign,
            Err(Error::LeaseLost { seq: sent.seq }),
            "a token is one process' own"
        );
        assert_eq!(late.ack().await, Err(Error::LeaseLost { seq: sent.seq }));

        // A lease that is kept up lasts longer than the server's own limit, and ends when it was to.
        again.extend(2_500 * MS).await.unwrap();
        let extended = Instant::now();
        let third = next(&one, &from).await;
        let lasted = extended.elapsed();
        assert!((2_400 * MS..10_000 * MS).contains(&lasted), "{lasted:?}");
        assert_eq!(third.attempt(), 3);
        third.ack().await.unwrap();
        assert!(again.extend(SOON).await.is_err());
    });
}

#[test]
fn a_message_is_stored_once_under_its_name() {
    let Some(servers) = servers("named", 1) else { return };
    on_tokio(async {
        let queue = builder("d").connect(&servers.url()).await.unwrap();
        let topic = queue.topic("t");
        let named = |text: &'static str| Message::new(text).dedup_id(vec![0, 255, b'*']);
        let first = topic.send(named("a")).await.unwrap();
        let again = topic
            .send_all([named("b"), Message::new("c"), named("d")])
            .await
            .unwrap();
        assert!(!first.duplicate);
        assert_eq!((again[0].seq, again[0].duplicate), (first.seq, true));
        assert_eq!((again[2].seq, again[2].duplicate), (first.seq, true));
        let from = Subscription::new("t", "s");
        queue.subscribe(&from).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 2 {
            for delivery in take(&queue, &from, 9).await {
                got.push(text(&delivery));
                delivery.ack().await.unwrap();
            }
        }
        assert_eq!(got, ["a", "c"]);
    });
}

#[test]
fn messages_wait_for_their_time_and_are_forgotten_after_it() {
    let Some(servers) = servers("times", 1) else { return };
    on_tokio(async {
        let queue = builder("w").connect(&servers.url()).await.unwrap();
        let topic = queue.topic("t");
        let from = Subscription::new("t", "s");
        queue.subscribe(&from).await.unwrap();
        let start = Instant::now();
        let later = Message::new("later").key("k").header("h", "1").deliver_in(2_000 * MS);
        topic.send(later.clone()).await.unwrap();
        topic.send(Message::new("forgotten").ttl(300 * MS)).await.unwrap();
        topic
            .send(Message::new("never").deliver_in(2_000 * MS).ttl(500 * MS))
            .await
            .unwrap();
        Env::system().sleep(400 * MS).await;
        topic.send(Message::new("now").ttl(SOON)).await.unwrap();

        let now = next(&queue, &from).await;
        assert_eq!(text(&now), "now");
        now.ack().await.unwrap();
        let got = next(&queue, &from).await;
        let waited = start.elapsed();
        assert!((2_000 * MS..8_000 * MS).contains(&waited), "{waited:?}");
        println!("a message delayed by 2 s came after {} ms", waited.as_millis());
        assert!(*got.message() == later, "all its parts: {:?}", got.message());
        got.ack().await.unwrap();
        let none = queue.receive(&from, 5, 1_500 * MS).await.unwrap();
        assert!(none.is_empty(), "{none:?}");
    });
}

#[test]
fn a_subscription_begins_where_it_says() {
    let Some(servers) = servers("replay", 1) else { return };
    on_tokio(async {
        let queue = builder("r").connect(&servers.url()).await.unwrap();
        let topic = queue.topic("t");
        let sent = topic.send_all(["a", "b"]).await.unwrap();
        Env::system().sleep(50 * MS).await;
        let between = Env::system().wall();
        Env::system().sleep(50 * MS).await;
        topic.send("c").await.unwrap();
        for (name, start, expected) in [
            ("seq", Start::Seq(sent[1].seq), "b"),
            ("time", Start::Time(between), "c"),
            ("first", Start::First, "a"),
        ] {
            let mut from = Subscription::new("t", name);
            from.start = start;
            queue.subscribe(&from).await.unwrap();
            assert_eq!(text(&next(&queue, &from).await), expected, "{name}");
        }
    });
}

#[test]
fn a_full_topic_refuses_until_it_was_settled() {
    let Some(servers) = servers("full", 1) else { return };
    on_tokio(async {
        let queue = builder("full").max_bytes(100_000).tidy_every(100 * MS);
        let queue = queue.connect(&servers.url()).await.unwrap();
        assert!(
            !queue.capability().has(Feature::DelayedMessages),
            "the server cannot do both"
        );
        let delayed = queue.topic("t").send(Message::new("x").deliver_in(SOON)).await;
        assert_eq!(delayed, Err(Error::Unsupported(Feature::DelayedMessages)));
        let (topic, from) = (queue.topic("t"), Subscription::new("t", "s"));
        queue.subscribe(&from).await.unwrap();
        let mut sent = 0;
        let refused = loop {
            match topic.send(vec![7; 9_000]).await {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, Error::Full { .. }) && refused.effect() == Effect::None,
            "{refused}"
        );
        assert!(sent >= 9, "{sent} fitted");
        let mut got = 0;
        while got < sent {
            for delivery in take(&queue, &from, 9).await {
                delivery.ack().await.unwrap();
                got += 1;
            }
        }
        let until = Instant::now() + SOON;
        while topic.send(vec![7; 9_000]).await.is_err() {
            assert!(Instant::now() < until, "what was settled makes room");
            Env::system().sleep(20 * MS).await;
        }
        let stats = queue.stats().await.unwrap();
        let topic = &stats.topics["t"];
        assert!(topic.messages < sent && topic.bytes > 9_000, "{topic:?}");
        assert_eq!(topic.subscriptions["s"].backlog, 1);
        assert_eq!(
            (stats.sent, stats.acked, stats.delivered),
            (sent as u64 + 1, sent as u64, sent as u64)
        );
    });
}

#[test]
fn a_lost_consumer_is_made_again_where_it_stood() {
    let Some(servers) = servers("lost", 1) else { return };
    on_tokio(async {
        let queue = builder("l").tidy_every(50 * MS).connect(&servers.url()).await.unwrap();
        let (topic, from) = (queue.topic("t"), Subscription::new("t", "s"));
        queue.subscribe(&from).await.unwrap();
        topic.send_all(["a", "b"]).await.unwrap();
        next(&queue, &from).await.ack().await.unwrap();
        // It is tidied, which looks how far it came.
        Env::system().sleep(500 * MS).await;

        let admin = async_nats::jetstream::new(async_nats::connect(servers.url()).await.unwrap());
        let waiting = queue.receive(&from, 5, SOON);
        let loss = async {
            let stream = admin.get_stream("l_t").await.unwrap();
            stream.delete_consumer("s").await.unwrap();
            stream.get_info().await.unwrap()
        };
        let (_, got) = futures::join!(loss, waiting);
        let got = got.unwrap();
        assert_eq!(
            &got[0].message.payload[..],
            b"b",
            "what was not settled, and nothing else: {got:?}"
        );

        // A whole stream that is gone is no matter of making it again.
        admin.delete_stream("l_t").await.unwrap();
        let gone = queue.receive(&from, 5, SOON).await;
        assert!(matches!(gone, Err(Error::NoSubscription { .. })), "{gone:?}");
        // Sending makes a topic, as ever.
        topic.send("c").await.unwrap();
        queue.subscribe(&from).await.unwrap();
        assert_eq!(text(&next(&queue, &from).await), "c");
    });
}

#[test]
fn a_server_that_was_killed_is_found_again() {
    let Some(mut servers) = servers("killed", 1) else {
        return;
    };
    on_tokio(async {
        let queue = builder("k").connect(&servers.url()).await.unwrap();
        let (topic, mut from) = (queue.topic("t"), Subscription::new("t", "s"));
        from.lease = SOON;
        queue.subscribe(&from).await.unwrap();
        topic.send_all(["held", "waiting"]).await.unwrap();
        let held = next(&queue, &from).await;
        servers.kill(0);
        // A send, an acknowledgement and a receive that begin while nobody is there end well.
        let (send, ack, receive) = (topic.send("sent meanwhile"), held.ack(), queue.receive(&from, 9, SOON));
        let restart = async {
            Env::system().sleep(1_000 * MS).await;
            tokio::task::block_in_place(|| servers.restart(0));
        };
        let (sent, acked, received, ()) = futures::join!(send, ack, receive, restart);
        sent.unwrap();
        acked.unwrap();
        // The server forgets who holds what when it is killed, so what was held may come again.
        let mut got: BTreeSet<_> = received.unwrap().into_iter().map(|raw| raw.message.payload).collect();
        while !["sent meanwhile", "waiting"]
            .iter()
            .all(|text| got.contains(text.as_bytes()))
        {
            let more = queue.receive(&from, 9, SOON).await.unwrap();
            assert!(!more.is_empty(), "they come: {got:?}");
            got.extend(more.into_iter().map(|raw| raw.message.payload));
        }
    });
}

#[test]
fn a_call_to_a_server_that_stays_away_ends_in_time() {
    let Some(mut servers) = servers("away", 1) else { return };
    on_tokio(async {
        let queue = builder("a").timeout(2_000 * MS).connect(&servers.url()).await.unwrap();
        let (topic, mut from) = (queue.topic("t"), Subscription::new("t", "s"));
        from.lease = SOON;
        queue.subscribe(&from).await.unwrap();
        topic.send("a").await.unwrap();
        let held = next(&queue, &from).await;
        servers.kill(0);
        let start = Instant::now();
        let sent = topic.send("b").await.unwrap_err();
        assert_eq!(sent.effect(), Effect::Unknown, "{sent}");
        let received = queue.receive(&from, 1, 1_000 * MS).await.unwrap_err();
        assert_eq!(received.effect(), Effect::None, "{received}");
        let acked = held.ack().await.unwrap_err();
        assert_eq!(acked.effect(), Effect::Unknown, "{acked}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
    });
}

#[test]
fn a_dropped_receive_leaves_nothing_leased() {
    let Some(servers) = servers("dropped", 1) else { return };
    on_tokio(async {
        let queue = builder("x").connect(&servers.url()).await.unwrap();
        let (topic, from) = (queue.topic("t"), Subscription::new("t", "s"));
        queue.subscribe(&from).await.unwrap();
        for round in 0..20 {
            let mut dropped = Box::pin(queue.receive(&from, 1, SOON));
            assert!(dropped.as_mut().now_or_never().is_none());
            // Before, while and after the message comes.
            let send = topic.send(round.to_string());
            if round % 2 == 0 {
                send.await.unwrap();
                drop(dropped);
            } else {
                Env::system().sleep(Duration::from_micros(round * 200)).await;
                drop(dropped);
                send.await.unwrap();
            }
            let start = Instant::now();
            let got = next(&queue, &from).await;
            assert_eq!(text(&got), round.to_string());
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "it did not wait for a lease to end"
            );
            got.ack().await.unwrap();
        }
    });
}

#[test]
fn what_nobody_can_read_is_a_dead_letter_and_what_others_sent_is_a_message() {
    let Some(servers) = servers("others", 1) else { return };
    on_tokio(async {
        let queue = builder("o").connect(&servers.url()).await.unwrap();
        let (from, dead) = (Subscription::new("t", "s"), Subscription::new("t.dead", "s"));
        queue.subscribe(&from).await.unwrap();
        queue.subscribe(&dead).await.unwrap();
        let other = async_nats::jetstream::new(async_nats::connect(servers.url()).await.unwrap());
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("outgrow", "1");
        headers.insert("outgrow-ttl", "soon");
        other
            .publish_with_headers("o.t", headers, "x".into())
            .await
            .unwrap()
            .await
            .unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("trace", "7");
        other
            .publish_with_headers("o.t", headers, "plain".into())
            .await
            .unwrap()
            .await
            .unwrap();

        let plain = next(&queue, &from).await;
        assert!(
            *plain.message() == Message::new("plain").header("trace", "7"),
            "{plain:?}"
        );
        plain.ack().await.unwrap();
        let letter = next(&queue, &dead).await;
        let reason = letter.message().get(DEAD_REASON).unwrap();
        assert!(String::from_utf8_lossy(&reason).contains("outgrow-ttl"), "{reason:?}");
        assert_eq!(letter.message().get(DEAD_ATTEMPTS), Some(Bytes::from("1")));
        letter.ack().await.unwrap();
    });
}

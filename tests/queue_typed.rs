//! Topics of one type, as sinks, and for plain threads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

use futures::{SinkExt, StreamExt, stream};
use outgrow::env::Env;
use outgrow::queue::{
    Backoff, BlockingSubscriber, BlockingTopic, Codec, CodecError, DEAD_REASON, DurableQueue, Error, Json, Message,
    Postcard, Topic, TypedTopic, Undecodable, Worker,
};
use outgrow::sim::{DiskModel, World};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    user: String,
    cents: u64,
    #[serde(default)]
    note: Option<String>,
}

fn order(cents: u64) -> Order {
    Order {
        user: "Ada".into(),
        cents,
        note: None,
    }
}

async fn open(env: &Env) -> DurableQueue {
    DurableQueue::builder().env(env.clone()).open("q").await.unwrap()
}

/// The reasons on the dead letters of topic "t".
async fn reasons(env: &Env, queue: &DurableQueue) -> Vec<String> {
    let mut letters = queue.topic("t.dead").subscribe("undertaker").build().await.unwrap();
    let mut all = Vec::new();
    while let Ok(Some(letter)) = env.timeout(SECOND, letters.next()).await {
        let letter = letter.unwrap();
        all.push(String::from_utf8(letter.message().get(DEAD_REASON).unwrap().to_vec()).unwrap());
        letter.ack().await.unwrap();
    }
    all
}

proptest! {
    #[test]
    fn values_round_trip(user: String, cents: u64, note: Option<String>) {
        let order = Order { user, cents, note };
        let json = Json.encode(&order).unwrap();
        prop_assert_eq!(&Codec::<Order>::decode(&Json, &json).unwrap(), &order);
        let postcard = Postcard.encode(&order).unwrap();
        prop_assert_eq!(&Codec::<Order>::decode(&Postcard, &postcard).unwrap(), &order);
        // What follows or is missing is noticed.
        let longer = [&postcard[..], b"x"].concat().into();
        prop_assert!(Codec::<Order>::decode(&Postcard, &longer).is_err());
        let cut = json.slice(..json.len() - 1);
        prop_assert!(Codec::<Order>::decode(&Json, &cut).is_err());
    }
}

#[test]
fn values_come_as_they_were_sent() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let orders = queue.topic("t").typed::<Order>();
        orders.send(&order(1)).await.unwrap();
        orders.send_all(&[order(2), order(3)]).await.unwrap();
        let message = orders.message(&order(4)).unwrap().key("user-7").header("trace", "x");
        orders.clone().topic().send(message).await.unwrap();
        let mut jobs = orders.subscribe("s").prefetch(2).build().await.unwrap();
        for cents in 1..=3 {
            let job = jobs.next().await.unwrap().unwrap();
            assert_eq!((job.cents, job.delivery().attempt()), (cents, 1));
            job.ack().await.unwrap();
        }
        let job = jobs.next().await.unwrap().unwrap();
        assert_eq!(job.delivery().key().unwrap(), "user-7");
        let (value, delivery) = job.into_parts();
        assert_eq!(value, order(4));
        drop(delivery);
        // As a stream, too, and again.
        let again = StreamExt::next(&mut jobs).await.unwrap().unwrap();
        assert_eq!((again.cents, again.delivery().attempt()), (4, 2));
        again.retry_in(SECOND).await.unwrap();
        let mut third = jobs.next().await.unwrap().unwrap();
        third.delivery_mut().keep_alive();
        env.sleep(100 * SECOND).await;
        third.dead_letter("enough").await.unwrap();
        assert_eq!(reasons(&env, &queue).await, ["enough"]);
    });
}

#[test]
fn what_cannot_be_decoded_poisons_nothing() {
    let world = World::new(2);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let orders = queue.topic("t").typed::<Order>();
        for cents in 0..10 {
            orders.topic().send(format!("nonsense {cents}")).await.unwrap();
            orders.send(&order(cents)).await.unwrap();
        }
        let mut jobs = orders.subscribe("s").prefetch(3).build().await.unwrap();
        for cents in 0..5 {
            let job = jobs.next().await.unwrap().unwrap();
            assert_eq!(job.cents, cents);
            job.ack().await.unwrap();
        }
        for cents in 5..10 {
            let job = StreamExt::next(&mut jobs).await.unwrap().unwrap();
            assert_eq!(job.cents, cents);
            job.ack().await.unwrap();
        }
        let reasons = reasons(&env, &queue).await;
        assert_eq!(reasons.len(), 10);
        let why = |reason: &String| reason.starts_with("cannot be decoded: expected ident");
        assert!(reasons.iter().all(why), "{reasons:?}");
        assert_eq!(queue.stats().topics["t"].subscriptions["s"].backlog, 0);
    });
}

/// Reads what other releases wrote only after a while.
#[derive(Default)]
struct Learns {
    asked: AtomicU32,
}

impl Codec<u32> for Learns {
    fn encode(&self, value: &u32) -> Result<bytes::Bytes, CodecError> {
        match value {
            0 => Err("nought cannot be said".into()),
            value => Ok(value.to_string().into()),
        }
    }

    fn decode(&self, payload: &bytes::Bytes) -> Result<u32, CodecError> {
        match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err("not yet".into()),
            _ => Ok(std::str::from_utf8(payload)?.parse()?),
        }
    }
}

fn numbers(topic: &Topic<DurableQueue>) -> TypedTopic<u32, DurableQueue, Learns> {
    topic.typed_with(Learns::default())
}

#[test]
fn what_cannot_be_decoded_may_be_tried_again() {
    let world = World::new(3);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let numbers = numbers(&queue.topic("t"));
        numbers.send(&7).await.unwrap();
        let refused = numbers.send(&0).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Invalid { what } if what.contains("nought")),
            "{refused}"
        );
        assert!(numbers.send_all(&[1, 0]).await.is_err());
        let jobs = numbers.subscribe("s").undecodable(Undecodable::Retry);
        let mut jobs = jobs.backoff(Backoff::fixed(SECOND)).build().await.unwrap();
        let start = env.now();
        let job = jobs.next().await.unwrap().unwrap();
        assert_eq!((*job, job.delivery().attempt()), (7, 3));
        let took = env.now() - start;
        assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
        job.ack().await.unwrap();
        assert_eq!(queue.stats().sent, 1, "of the batch, none");
    });
}

#[test]
fn workers_take_values() {
    let world = World::new(4);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let orders = queue.topic("t").typed::<Order>();
        orders.send_all(&[order(1), order(2)]).await.unwrap();
        orders.topic().send("nonsense").await.unwrap();
        let worker = Worker::new(orders.subscribe("s").build().await.unwrap()).concurrency(3);
        let progress = worker.progress();
        let seen = Mutex::new(Vec::new());
        let stop = async {
            while progress.counts().done + progress.counts().dead < 3 {
                env.sleep(SECOND).await;
            }
        };
        let handler = async |job: outgrow::queue::Job<Order>| {
            assert!(job.message().payload.starts_with(b"{"));
            seen.lock().unwrap().push(job.into_inner().cents);
        };
        let counts = worker.run(handler, stop).await.unwrap();
        assert_eq!((counts.done, counts.dead), (2, 1));
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
        assert!(reasons(&env, &queue).await[0].starts_with("cannot be decoded"));
    });
}

#[test]
fn a_sink_batches_and_keeps_the_order() {
    let world = World::new(5);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mut sink = queue.topic("t").sink(64);
        let before = queue.stats().syncs;
        let mut messages = stream::iter(0..1_000).map(|n| Ok(Message::new(format!("{n}"))));
        sink.send_all(&mut messages).await.unwrap();
        assert_eq!((sink.sent(), queue.stats().sent), (1_000, 1_000));
        let syncs = queue.stats().syncs - before;
        assert!(syncs <= 40, "{syncs} syncs for 1,000 messages");
        let large = vec![b'x'; 200 << 10];
        for _ in 0..10 {
            sink.feed(Message::new(large.clone())).await.unwrap();
        }
        sink.close().await.unwrap();
        let mut jobs = queue.topic("t").subscribe("s").prefetch(100).build().await.unwrap();
        for n in 0..1_000 {
            let job = jobs.next().await.unwrap().unwrap();
            assert_eq!(job.payload(), &format!("{n}"));
            job.ack().await.unwrap();
        }
        assert_eq!(jobs.next().await.unwrap().unwrap().payload(), &large);
    });
}

#[test]
fn a_sink_gives_back_what_failed() {
    let world = World::new(6);
    let machine = world.machine("node");
    machine.set_disk(DiskModel {
        capacity: 400_000,
        ..DiskModel::default()
    });
    world.run(async {
        let queue = open(&machine.env()).await;
        let topic = queue.topic("t");
        topic.subscribe("s").build().await.unwrap();
        let mut sink = topic.sink(4);
        let mut failed = Vec::new();
        let mut refused = 0;
        for n in 0..200 {
            let message = Message::new(format!("{n:05}{}", "x".repeat(5_000)));
            while let Err(error) = sink.feed(message.clone()).await {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                failed.extend(sink.take_failed());
                refused += 1;
            }
        }
        while let Err(error) = sink.flush().await {
            assert!(matches!(error, Error::Full { .. }), "{error}");
            failed.extend(sink.take_failed());
        }
        assert!(refused > 0 && !failed.is_empty());
        assert_eq!(
            sink.sent() as usize + failed.len(),
            200,
            "each of them is one or the other"
        );
        machine.set_disk(DiskModel::default());
        topic.send_all(failed).await.unwrap();
        let mut all = Vec::new();
        let mut jobs = topic.subscribe("s").prefetch(50).build().await.unwrap();
        for _ in 0..200 {
            let job = jobs.next().await.unwrap().unwrap();
            all.push(String::from_utf8_lossy(&job.payload()[..5]).into_owned());
            job.ack().await.unwrap();
        }
        all.sort();
        assert_eq!(all, (0..200).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    });
}

fn folder(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("outgrow-typed-{name}-{}", std::process::id()))
}

#[test]
fn plain_threads_send_and_receive() {
    let dir = folder("threads");
    let queue = futures::executor::block_on(DurableQueue::open(&dir)).unwrap();
    let topic = BlockingTopic::new(queue.topic("t"));
    let mut jobs = topic.subscribe("s").unwrap();
    assert!(jobs.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let topic = topic.clone();
            std::thread::spawn(move || {
                for n in 0..50 {
                    topic.send(format!("{sender} {n}")).unwrap();
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for job in jobs.iter().take(200) {
        let job = job.unwrap();
        all.push(String::from_utf8(job.payload().to_vec()).unwrap());
        job.ack().unwrap();
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 200);

    topic.send_all(["a", "b"]).unwrap();
    jobs.recv()
        .unwrap()
        .unwrap()
        .retry_in(Duration::from_millis(5))
        .unwrap();
    let mut b = jobs.recv().unwrap().unwrap();
    b.extend(SECOND).unwrap();
    b.keep_alive();
    b.dead_letter("enough").unwrap();
    let a = jobs.recv().unwrap().unwrap();
    assert_eq!((a.payload().as_ref(), a.attempt()), (b"a".as_slice(), 2));
    drop(a);
    let a = jobs.recv().unwrap().unwrap().into_inner();
    futures::executor::block_on(a.ack()).unwrap();
    assert_eq!(jobs.subscription().name.as_ref(), "s");
    // A thread that waits hears of the end.
    let waits = std::thread::spawn(move || jobs.recv().unwrap().is_none());
    futures::executor::block_on(queue.close());
    assert!(waits.join().unwrap());
    assert_eq!(topic.send("late"), Err(Error::Closed));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_task_of_a_runtime_is_not_blocked() {
    let dir = folder("runtime");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let queue = DurableQueue::open(&dir).await.unwrap();
        let topic = BlockingTopic::new(queue.topic("t"));
        let (on_worker, on_blocking) = (topic.clone(), topic.clone());
        let refused = tokio::task::spawn(async move { on_worker.send("x") }).await;
        assert!(refused.unwrap_err().is_panic());
        // Its threads for blocking work are for that.
        let sent = tokio::task::spawn_blocking(move || on_blocking.send("y")).await;
        sent.unwrap().unwrap();
        let subscriber = topic.topic().subscribe("s").build().await.unwrap();
        let mut jobs = BlockingSubscriber::new(subscriber);
        let received = tokio::task::spawn_blocking(move || jobs.recv().unwrap().unwrap().payload().clone()).await;
        assert_eq!(received.unwrap(), "y", "the first was never sent");
        queue.close().await;
    });
    std::fs::remove_dir_all(&dir).unwrap();
}

//! The worker, and the leases that it keeps, in simulated time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

#[path = "../support/mod.rs"]
mod support;

mod drops;
mod flaky;
mod leases;
mod shutdown;
mod storm;

use bytes::Bytes;
use flaky::{Flaky, passing};
use futures::join;
use outgrow::env::{Env, Tick};
use outgrow::queue::{
    Backoff, DEAD_ATTEMPTS, DEAD_REASON, DurableQueue, Error, Job, Outcome, Queue, SubscriberBuilder, Topic, Worker,
    WorkerCounts, WorkerProgress,
};
use outgrow::sim::World;
use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const LEASE: Duration = Duration::from_millis(100);

pub(crate) async fn open(env: &Env) -> DurableQueue {
    DurableQueue::builder().env(env.clone()).open("q").await.unwrap()
}

/// A subscription with short leases and short exact waits.
pub(crate) fn subscribe<Q: Queue + Clone + 'static>(topic: &Topic<Q>) -> SubscriberBuilder<Q> {
    let waits = Backoff::list([10, 20, 40].map(Duration::from_millis));
    topic.subscribe("s").lease(LEASE).max_attempts(3).backoff(waits)
}

pub(crate) fn text(job: &Job<Bytes>) -> String {
    String::from_utf8(job.to_vec()).unwrap()
}

/// Waits until `done` says so of what a worker has done.
pub(crate) async fn until(env: &Env, progress: &WorkerProgress, done: impl Fn(WorkerCounts) -> bool) {
    let start = env.now();
    while !done(progress.counts()) {
        assert!(
            env.now() - start < 600 * SECOND,
            "it never ends: {:?}",
            progress.counts()
        );
        env.sleep(Duration::from_millis(1)).await;
    }
}

/// The reasons of all dead letters of a topic, and how often each was delivered.
pub(crate) async fn reasons(env: &Env, queue: &DurableQueue, topic: &str) -> Vec<(String, String)> {
    let dead = queue.topic(&format!("{topic}.dead"));
    let mut letters = dead.subscribe("undertaker").build().await.unwrap();
    let mut all = Vec::new();
    while let Ok(Some(letter)) = env.timeout(SECOND, letters.next()).await {
        let letter = letter.unwrap();
        let header = |name| String::from_utf8(letter.message().get(name).unwrap().to_vec()).unwrap();
        all.push((header(DEAD_REASON), header(DEAD_ATTEMPTS)));
        letter.ack().await.unwrap();
    }
    all
}

#[test]
fn jobs_are_done_in_their_order() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        mail.send_all((0..100).map(|n| format!("{n}"))).await.unwrap();
        let worker = Worker::new(subscribe(&mail).build().await.unwrap());
        let progress = worker.progress();
        let seen = Mutex::new(Vec::new());
        let handler = async |job: Job<Bytes>| {
            env.sleep(Duration::from_millis(3)).await;
            seen.lock().unwrap().push(text(&job));
        };
        let run = worker.run(handler, until(&env, &progress, |counts| counts.done == 100));
        let counts = run.await.unwrap();
        let expected: Vec<_> = (0..100).map(|n| format!("{n}")).collect();
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!((counts.done, counts.retried, counts.dead, counts.lost), (100, 0, 0, 0));
        assert_eq!(queue.stats().topics["t"].subscriptions["s"].backlog, 0);
    });
}

#[test]
fn as_many_run_as_are_asked_for() {
    let world = World::new(2);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        mail.send_all((0..60).map(|n| format!("{n}"))).await.unwrap();
        let worker = Worker::new(subscribe(&mail).build().await.unwrap()).concurrency(6);
        let progress = worker.progress();
        let busy = Mutex::new((0, 0));
        let handler = async |_: Job<Bytes>| {
            {
                let mut busy = busy.lock().unwrap();
                busy.0 += 1;
                busy.1 = busy.1.max(busy.0);
            }
            env.sleep(SECOND).await;
            busy.lock().unwrap().0 -= 1;
        };
        let start = env.now();
        let run = worker.run(handler, until(&env, &progress, |counts| counts.done == 60));
        run.await.unwrap();
        assert_eq!(busy.lock().unwrap().1, 6);
        let took = env.now() - start;
        assert!(took < 11 * SECOND, "10 rounds of a second, and little more: {took:?}");
    });
}

#[test]
fn failures_wait_and_then_say_why() {
    let world = World::new(3);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        mail.send_all(["fails", "fine"]).await.unwrap();
        let worker = Worker::new(subscribe(&mail).build().await.unwrap()).concurrency(2);
        let progress = worker.progress();
        let tries = Mutex::new(Vec::<(Tick, bool)>::new());
        let handler = async |job: Job<Bytes>| {
            if text(&job) == "fine" {
                return Ok(());
            }
            tries.lock().unwrap().push((env.now(), job.is_last_attempt()));
            Err(format!("attempt {} went wrong", job.attempt()))
        };
        let run = worker.run(handler, until(&env, &progress, |counts| counts.dead == 1));
        let counts = run.await.unwrap();
        assert_eq!((counts.done, counts.retried, counts.dead), (1, 2, 1));
        let tries = tries.into_inner().unwrap();
        assert_eq!(
            tries.iter().map(|(_, last)| *last).collect::<Vec<_>>(),
            [false, false, true]
        );
        let waits: Vec<_> = tries
            .windows(2)
            .map(|pair| (pair[1].0 - pair[0].0).as_millis())
            .collect();
        assert!(
            (10..15).contains(&waits[0]) && (20..25).contains(&waits[1]),
            "{waits:?}"
        );
        let expected = [("attempt 3 went wrong".into(), "3".into())];
        assert_eq!(reasons(&env, &queue, "t").await, expected);
    });
}

#[test]
fn handlers_have_their_say() {
    let world = World::new(4);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        mail.send_all(["later", "never"]).await.unwrap();
        let worker = Worker::new(subscribe(&mail).build().await.unwrap());
        let progress = worker.progress();
        let later = Mutex::new(Vec::new());
        let handler = async |job: Job<Bytes>| match (text(&job).as_str(), job.attempt()) {
            ("later", attempt) => {
                later.lock().unwrap().push(env.now());
                match attempt {
                    1 => Outcome::retry_in(5 * SECOND, "too early"),
                    _ => Outcome::Done,
                }
            }
            _ => Outcome::dead_letter("no such user"),
        };
        let run = worker.run(handler, until(&env, &progress, |counts| counts.done == 1));
        let counts = run.await.unwrap();
        assert_eq!((counts.done, counts.retried, counts.dead), (1, 1, 1));
        let later = later.into_inner().unwrap();
        let wait = later[1] - later[0];
        assert!(wait >= 5 * SECOND && wait < 6 * SECOND, "{wait:?}");
        assert_eq!(reasons(&env, &queue, "t").await, [("no such user".into(), "1".into())]);
    });
}

#[test]
fn a_panic_is_a_failed_attempt() {
    let world = World::new(5);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        mail.send_all(["at once", "later", "fine"]).await.unwrap();
        let worker = Worker::new(subscribe(&mail).build().await.unwrap()).concurrency(3);
        let progress = worker.progress();
        let handler = |job: Job<Bytes>| {
            let said = text(&job);
            assert!(said != "at once", "it panics before there is a future");
            let env = env.clone();
            async move {
                env.sleep(LEASE * 3).await;
                assert!(said != "later", "it panics while it works");
            }
        };
        let run = worker.run(handler, until(&env, &progress, |counts| counts.dead == 2));
        let counts = run.await.unwrap();
        assert_eq!(
            (counts.done, counts.retried, counts.dead, counts.panicked),
            (1, 4, 2, 6)
        );
        let mut reasons = reasons(&env, &queue, "t").await;
        reasons.sort();
        let expected = ["before there is a future", "while it works"];
        for ((reason, attempts), expected) in reasons.iter().zip(expected) {
            let expected = format!("the handler panicked: it panics {expected}");
            assert_eq!((reason.as_str(), attempts.as_str()), (expected.as_str(), "3"));
        }
    });
}

#[test]
fn an_attempt_has_a_time_limit() {
    let world = World::new(6);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let mail = queue.topic("t");
        mail.send("hangs").await.unwrap();
        let worker = Worker::new(subscribe(&mail).build().await.unwrap()).time_limit(SECOND);
        let progress = worker.progress();
        let start = env.now();
        let handler = async |_: Job<Bytes>| pending::<()>().await;
        let run = worker.run(handler, until(&env, &progress, |counts| counts.dead == 1));
        let counts = run.await.unwrap();
        assert_eq!((counts.retried, counts.dead, counts.lost), (2, 1, 0));
        let took = env.now() - start;
        assert!(took > 3 * SECOND && took < 4 * SECOND, "{took:?}");
        assert_eq!(
            reasons(&env, &queue, "t").await,
            [("it took longer than 1s".into(), "3".into())]
        );
    });
}

#[test]
fn errors_that_pass_are_waited_out() {
    let world = World::new(7);
    let env = world.env();
    world.run(async {
        let queue = Flaky::new(open(&env).await, env.clone());
        let mail = Topic::new(queue.clone(), "t").env(env.clone());
        let subscriber = subscribe(&mail).build().await.unwrap();
        mail.send("a").await.unwrap();
        queue.script().receives.extend((0..12).map(|_| passing()));
        // The acknowledgement has to be tried again, too.
        queue.script().settles.extend((0..2).map(|_| passing()));
        let worker = Worker::new(subscriber);
        let progress = worker.progress();
        let handler = async |_: Job<Bytes>| {};
        let ended = |counts: WorkerCounts| counts.done + counts.lost == 1;
        let counts = worker.run(handler, until(&env, &progress, ended)).await.unwrap();
        assert_eq!((counts.done, counts.lost), (1, 0));
        let asked = std::mem::take(&mut queue.script().asked);
        let waits: Vec<_> = asked.windows(2).take(12).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits[0] >= SECOND / 20 && waits[0] <= SECOND / 9, "{waits:?}");
        assert!(waits[11] >= 5 * SECOND && waits[11] <= 11 * SECOND, "{waits:?}");
    });
}

#[test]
fn an_error_that_cannot_pass_ends_the_run_after_what_runs() {
    let world = World::new(8);
    let env = world.env();
    world.run(async {
        let queue = Flaky::new(open(&env).await, env.clone());
        let mail = Topic::new(queue.clone(), "t").env(env.clone());
        let subscriber = subscribe(&mail).build().await.unwrap();
        mail.send("a").await.unwrap();
        let worker = Worker::new(subscriber).concurrency(2);
        let progress = worker.progress();
        let handler = async |_: Job<Bytes>| {
            queue.script().receives.push_back(Error::Poisoned);
            env.sleep(SECOND).await;
        };
        let ended = worker.run(handler, pending()).await;
        assert_eq!(ended, Err(Error::Poisoned));
        assert_eq!((progress.counts().done, progress.counts().lost), (1, 0));
    });
}

#[test]
fn a_closed_queue_ends_the_run() {
    let world = World::new(9);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let worker = Worker::new(subscribe(&queue.topic("t")).build().await.unwrap());
        let close = async {
            env.sleep(SECOND).await;
            queue.close().await;
        };
        let (ended, ()) = join!(worker.run(async |_: Job<Bytes>| {}, pending()), close);
        assert_eq!(ended, Ok(WorkerCounts::default()));
    });
}

#[test]
fn workers_run_on_a_runtime_of_threads() {
    let dir = std::env::temp_dir().join(format!("outgrow-worker-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let counts = runtime.block_on(async {
        let queue = DurableQueue::open(&dir).await.unwrap();
        let mail = queue.topic("t");
        mail.send_all((0..200).map(|n| format!("{n}"))).await.unwrap();
        let subscriber = mail.subscribe("s").prefetch(50).build().await.unwrap();
        let worker = Worker::new(subscriber).concurrency(10);
        let progress = worker.progress();
        let env = Env::default();
        // A task of the runtime: the run can be sent between threads.
        let run = tokio::task::spawn(async move {
            let stop = until(&env, &progress, |counts| counts.done == 200);
            worker.run(|job: Job<Bytes>| async move { drop(job) }, stop).await
        });
        let counts = run.await.unwrap().unwrap();
        queue.close().await;
        counts
    });
    assert_eq!((counts.done, counts.retried, counts.returned), (200, 0, 0));
    std::fs::remove_dir_all(&dir).unwrap();
}

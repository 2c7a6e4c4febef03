//! How a worker stops.

use super::{LEASE, SECOND, open, subscribe, text, until};
use bytes::Bytes;
use futures::FutureExt;
use outgrow::queue::{DurableQueue, Job, Worker};
use outgrow::sim::World;
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

/// What is left of topic "t", without waiting for any lease to end, and its attempts.
async fn left(env: &outgrow::env::Env, queue: &DurableQueue) -> Vec<(String, u32)> {
    let mut jobs = subscribe(&queue.topic("t")).build().await.unwrap();
    let mut left = Vec::new();
    while let Ok(Some(job)) = env.timeout(LEASE / 4, jobs.next()).await {
        let job = job.unwrap();
        left.push((String::from_utf8(job.payload().to_vec()).unwrap(), job.attempt()));
        job.ack().await.unwrap();
    }
    left
}

#[test]
fn it_finishes_what_runs_and_gives_back_the_rest() {
    let world = World::new(41);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        queue
            .topic("t")
            .send_all((0..50).map(|n| format!("{n}")))
            .await
            .unwrap();
        let subscriber = subscribe(&queue.topic("t")).prefetch(20).build().await.unwrap();
        let worker = Worker::new(subscriber).concurrency(4);
        let done = Mutex::new(BTreeSet::new());
        let handler = async |job: Job<Bytes>| {
            env.sleep(SECOND).await;
            done.lock().unwrap().insert(text(&job));
        };
        // In the middle of the third round.
        let counts = worker.run(handler, env.sleep(SECOND * 5 / 2)).await.unwrap();
        assert_eq!((counts.done, counts.retried, counts.lost), (12, 0, 0));
        assert_eq!(counts.returned, 8, "of the twenty that it took");
        let done = done.into_inner().unwrap();
        let left: BTreeSet<_> = left(&env, &queue).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(done.len() + left.len(), 50);
        assert!(done.is_disjoint(&left));
    });
}

#[test]
fn without_a_prefetch_nothing_has_used_up_an_attempt() {
    let world = World::new(42);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        queue
            .topic("t")
            .send_all((0..50).map(|n| format!("{n}")))
            .await
            .unwrap();
        let worker = Worker::new(subscribe(&queue.topic("t")).build().await.unwrap()).concurrency(4);
        let handler = async |_: Job<Bytes>| env.sleep(SECOND).await;
        let counts = worker.run(handler, env.sleep(SECOND * 5 / 2)).await.unwrap();
        assert_eq!((counts.done, counts.returned), (12, 0));
        let left = left(&env, &queue).await;
        assert!(
            left.len() == 38 && left.iter().all(|(_, attempt)| *attempt == 1),
            "{left:?}"
        );
    });
}

#[test]
fn a_grace_ends_what_does_not() {
    let world = World::new(43);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        queue.topic("t").send_all(["quick", "slow", "hangs"]).await.unwrap();
        let subscriber = subscribe(&queue.topic("t")).build().await.unwrap();
        let worker = Worker::new(subscriber).concurrency(3).grace(5 * SECOND);
        let handler = async |job: Job<Bytes>| match text(&job).as_str() {
            "quick" => {}
            "slow" => env.sleep(4 * SECOND).await,
            _ => pending().await,
        };
        let start = env.now();
        let counts = worker.run(handler, env.sleep(SECOND)).await.unwrap();
        assert_eq!((counts.done, counts.returned), (2, 1));
        let took = env.now() - start;
        assert!(took >= 6 * SECOND && took < 7 * SECOND, "{took:?}");
        assert_eq!(
            left(&env, &queue).await,
            [("hangs".into(), 2)],
            "at once, not when its lease ends"
        );
    });
}

#[test]
fn a_run_that_is_dropped_gives_everything_back() {
    // At any moment of it.
    for millis in (0..400).step_by(7) {
        let world = World::new(44);
        let env = world.env();
        world.run(async {
            let queue = open(&env).await;
            queue
                .topic("t")
                .send_all((0..20).map(|n| format!("{n}")))
                .await
                .unwrap();
            let subscriber = subscribe(&queue.topic("t")).prefetch(5).build().await.unwrap();
            let worker = Worker::new(subscriber).concurrency(3);
            let progress = worker.progress();
            let handler = async |_: Job<Bytes>| env.sleep(LEASE / 2).await;
            let run = worker.run(handler, pending());
            let cut = env.timeout(Duration::from_millis(millis), run).await;
            assert!(cut.is_err());
            let left = left(&env, &queue).await;
            let names: BTreeSet<_> = left.iter().map(|(name, _)| name.clone()).collect();
            let done = progress.counts().done as usize;
            // An acknowledgement on its way is done or not.
            assert!((17..=20).contains(&(names.len() + done)), "{done} done, left: {left:?}");
            assert_eq!(names.len(), left.len(), "each of them once");
        });
    }
}

#[test]
fn a_shutdown_before_the_first_job_is_one() {
    let world = World::new(45);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        queue.topic("t").send("a").await.unwrap();
        let worker = Worker::new(subscribe(&queue.topic("t")).build().await.unwrap());
        let run = worker.run(async |_: Job<Bytes>| {}, async {});
        assert_eq!(run.await.unwrap().done, 0);
        let worker = Worker::new(subscribe(&queue.topic("t")).build().await.unwrap());
        let progress = worker.progress();
        let handler = async |_: Job<Bytes>| {};
        worker
            .run(handler, until(&env, &progress, |counts| counts.done == 1))
            .await
            .unwrap();
        assert!(queue.topic("t").subscribe("s").build().now_or_never().is_some());
    });
}

//! Leases that are kept while somebody works, and what happens when they are lost all the same.

use super::{Flaky, LEASE, SECOND, open, passing, subscribe, text, until};
use bytes::Bytes;
use futures::join;
use outgrow::queue::{Error, Job, Queue, Settle, Topic, Worker, WorkerCounts};
use outgrow::sim::World;
use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::sync::Mutex;

#[test]
fn slow_jobs_are_nobody_elses_meanwhile() {
    let world = World::new(21);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let slow = queue.topic("t");
        slow.send_all((0..20).map(|n| format!("{n}"))).await.unwrap();
        let at_work = Mutex::new(BTreeMap::<String, u32>::new());
        let handler = async |job: Job<Bytes>| {
            let name = text(&job);
            let before = at_work.lock().unwrap().insert(name.clone(), job.attempt());
            assert_eq!(before, None, "{name} was being handled");
            env.sleep(30 * LEASE).await;
            at_work.lock().unwrap().remove(&name);
            assert_eq!(job.attempt(), 1, "nobody tried before");
        };
        let worker = async |prefetch| {
            let subscriber = subscribe(&slow).prefetch(prefetch).build().await.unwrap();
            let worker = Worker::new(subscriber).concurrency(3);
            let backlog = async {
                let start = env.now();
                while queue.stats().topics["t"].subscriptions["s"].backlog > 0 {
                    assert!(env.now() - start < 60 * SECOND, "it never ends");
                    env.sleep(LEASE).await;
                }
            };
            worker.run(&handler, backlog).await.unwrap()
        };
        // One of them takes more than it can begin, and keeps the leases of those as well.
        let (one, two) = join!(worker(1), worker(6));
        assert_eq!((one.done + two.done, one.panicked + two.panicked), (20, 0));
        assert_eq!((one.lost + two.lost, one.retried + two.retried), (0, 0));
    });
}

#[test]
fn a_lease_that_is_lost_ends_the_handler() {
    let world = World::new(22);
    let env = world.env();
    world.run(async {
        let queue = Flaky::new(open(&env).await, env.clone());
        let slow = Topic::new(queue.clone(), "t").env(env.clone());
        slow.send("a").await.unwrap();
        let finished = Mutex::new(Vec::new());
        let handler = async |job: Job<Bytes>| {
            if job.attempt() == 1 {
                let seq = job.seq();
                queue.script().extend = Some(Error::LeaseLost { seq });
                env.sleep(10 * LEASE).await;
            }
            queue.script().extend = None;
            finished.lock().unwrap().push(job.attempt());
        };
        let worker = Worker::new(subscribe(&slow).build().await.unwrap());
        let progress = worker.progress();
        let run = worker.run(handler, until(&env, &progress, |counts| counts.done == 1));
        let counts = run.await.unwrap();
        assert_eq!((counts.done, counts.lost), (1, 1));
        assert_eq!(*finished.lock().unwrap(), [2], "the first was dropped while it slept");
    });
}

#[test]
fn a_lease_that_cannot_be_extended_in_time_is_lost() {
    let world = World::new(23);
    let env = world.env();
    world.run(async {
        let queue = Flaky::new(open(&env).await, env.clone());
        let slow = Topic::new(queue.clone(), "t").env(env.clone());
        slow.send("a").await.unwrap();
        let mut jobs = subscribe(&slow).build().await.unwrap();
        let mut job = jobs.next().await.unwrap().unwrap();
        let start = env.now();
        job.keep_alive();
        job.keep_alive(); // the same
        env.sleep(5 * LEASE).await;
        queue.script().extend = Some(passing());
        let before = queue.script().extensions;
        job.lease_lost().await;
        let held = env.now() - start;
        assert!(held > 5 * LEASE && held < 7 * LEASE, "{held:?}");
        let tries = queue.script().extensions - before;
        assert!((2..=6).contains(&tries), "it tries again while there is time: {tries}");
        assert!(matches!(job.ack().await, Err(Error::LeaseLost { .. })));
    });
}

#[test]
fn what_is_settled_is_not_extended() {
    // At every moment of an extension's way, which takes most of the time here.
    for wait in 0..40 {
        let world = World::new(24);
        let env = world.env();
        world.run(async {
            let queue = Flaky::new(open(&env).await, env.clone());
            queue.script().extend_takes = LEASE / 4;
            let topic = Topic::new(queue.clone(), "t").env(env.clone());
            topic.send_all(["a", "b", "c", "d"]).await.unwrap();
            let mut jobs = subscribe(&topic).prefetch(4).build().await.unwrap();
            let mut held = Vec::new();
            for _ in 0..4 {
                let mut job = jobs.next().await.unwrap().unwrap();
                job.keep_alive();
                held.push(job);
            }
            env.sleep(LEASE * wait / 20).await;
            let [a, b, c, d] = <[_; 4]>::try_from(held).unwrap();
            a.ack().await.unwrap();
            b.retry_in(SECOND).await.unwrap();
            c.dead_letter("enough").await.unwrap();
            drop(d);
            let before = queue.script().through.len();
            env.sleep(10 * LEASE).await;
            let script = queue.script();
            assert_eq!(
                script.through.len(),
                before,
                "nothing comes after: {:?}",
                script.through
            );
            let settled = script
                .through
                .iter()
                .position(|(_, settle)| *settle == Settle::Ack)
                .unwrap();
            let (seq, _) = script.through[settled];
            let later = script.through[settled + 1..].iter().filter(|(of, _)| *of == seq);
            assert_eq!(later.count(), 0);
        });
    }
}

#[test]
fn a_kept_delivery_that_is_dropped_goes_back_at_once() {
    let world = World::new(25);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let topic = queue.topic("t");
        topic.send("a").await.unwrap();
        let mut jobs = subscribe(&topic).lease(10 * SECOND).build().await.unwrap();
        let mut job = jobs.next().await.unwrap().unwrap();
        job.keep_alive();
        env.sleep(35 * SECOND).await;
        let start = env.now();
        drop(job);
        let again = jobs.next().await.unwrap().unwrap();
        assert_eq!((again.attempt(), env.now() - start < SECOND), (2, true));
        // Not kept, this one's lease ends.
        env.sleep(11 * SECOND).await;
        assert!(matches!(again.ack().await, Err(Error::LeaseLost { .. })));
    });
}

#[test]
fn the_keeper_lets_the_queue_go() {
    let world = World::new(26);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        queue.topic("t").send("a").await.unwrap();
        let mut jobs = subscribe(&queue.topic("t")).lease(3600 * SECOND).build().await.unwrap();
        let mut job = jobs.next().await.unwrap().unwrap();
        job.keep_alive();
        drop((job, jobs, queue));
        // The directory is free long before the keeper would look again.
        env.sleep(SECOND).await;
        drop(open(&env).await);
    });
}

#[test]
fn one_task_keeps_as_many_as_there_are() {
    let world = World::new(27);
    let env = world.env();
    world.run(async {
        let queue = Flaky::new(open(&env).await, env.clone());
        let topic = Topic::new(queue.clone(), "t").env(env.clone());
        topic.send_all((0..500).map(|n| format!("{n}"))).await.unwrap();
        let subscriber = subscribe(&topic).max_in_flight(1_000).build().await.unwrap();
        let worker = Worker::new(subscriber).concurrency(500);
        let progress = worker.progress();
        let start = env.now();
        let handler = async |_: Job<Bytes>| env.sleep(5 * LEASE).await;
        let run = worker.run(handler, until(&env, &progress, |counts| counts.done == 500));
        let counts = run.await.unwrap();
        assert_eq!((counts.done, counts.lost), (500, 0));
        assert!(env.now() - start < 7 * LEASE);
        let extensions = queue.script().extensions;
        // Each third to half of a lease, over five of them.
        assert!((500 * 9..=500 * 16).contains(&extensions), "{extensions}");
        assert!(queue.capability().has(outgrow::queue::Feature::Extend));
    });
}

#[test]
fn nothing_is_kept_without_a_word() {
    let world = World::new(28);
    let env = world.env();
    world.run(async {
        let queue = Flaky::new(open(&env).await, env.clone());
        let topic = Topic::new(queue.clone(), "t").env(env.clone());
        topic.send("a").await.unwrap();
        let mut jobs = subscribe(&topic).build().await.unwrap();
        let job = jobs.next().await.unwrap().unwrap();
        let lost = env.timeout(2 * LEASE, job.lease_lost()).await;
        assert!(lost.is_err(), "nobody watches this lease");
        assert!(job.ack().await.is_err());
        assert_eq!(queue.script().extensions, 0);
        // A worker without work neither.
        drop(jobs);
        queue.script().asked.clear();
        let worker = Worker::new(
            subscribe(&Topic::new(queue.clone(), "empty").env(env.clone()))
                .build()
                .await
                .unwrap(),
        );
        let handler = |_: Job<Bytes>| pending::<()>();
        assert_eq!(worker.run(handler, ready(())).await, Ok(WorkerCounts::default()));
        let script = queue.script();
        assert_eq!((script.extensions, script.asked.len()), (0, 0));
    });
}

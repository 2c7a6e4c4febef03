//! Workers that come and go, and handlers that do everything wrong, over many seeds: no job is handled twice at a time,
//! each ends exactly once, and none is lost.

use super::{LEASE, SECOND, open, support, text};
use bytes::Bytes;
use outgrow::env::{Env, Rng};
use outgrow::queue::{Backoff, DEAD_REASON, DurableQueue, Job, Outcome, Worker, WorkerCounts};
use outgrow::sim::{World, each_seed};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const JOBS: usize = 60;

#[derive(Clone)]
struct Storm {
    env: Env,
    queue: DurableQueue,
    at_work: Arc<Mutex<BTreeSet<String>>>,
    done: Arc<Mutex<BTreeSet<String>>>,
    /// Jobs that were begun while they were being handled.
    twice: Arc<Mutex<Vec<String>>>,
}

/// A job that a handler works on, until it is dropped.
struct AtWork(Storm, String);

impl AtWork {
    fn new(storm: &Storm, job: &Job<Bytes>) -> AtWork {
        let name = text(job);
        if !storm.at_work.lock().unwrap().insert(name.clone()) {
            // A panic here would be taken for the handler's own.
            storm.twice.lock().unwrap().push(name.clone());
        }
        AtWork(storm.clone(), name)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.lock().unwrap().remove(&self.1);
    }
}

impl Storm {
    async fn handle(&self, job: Job<Bytes>, mut rng: Rng) -> Result<Outcome, &'static str> {
        let at_work = AtWork::new(self, &job);
        let long = if rng.chance(0.2) { 20 } else { 1 };
        self.env.sleep(LEASE.mul_f64(rng.unit()) * long).await;
        match rng.below(10) {
            0 => return Err("bad luck"),
            1 => panic!("worse luck"),
            2 => return Ok(Outcome::retry_in(LEASE.mul_f64(rng.unit()), "not now")),
            3 if rng.chance(0.3) => return Ok(Outcome::dead_letter("never")),
            _ => {}
        }
        self.done.lock().unwrap().insert(at_work.1.clone());
        Ok(Outcome::Done)
    }

    /// Workers one after the other, each stopped in its own way.
    async fn work(self, name: usize) -> WorkerCounts {
        let mut rng = self.env.rng(&format!("worker {name}"));
        let mut sum = WorkerCounts::default();
        while !self.is_over() {
            let subscriber = self.queue.topic("t").subscribe("s");
            let subscriber = subscriber.lease(LEASE).max_attempts(1_000).prefetch(1 + rng.index(4));
            let backoff = Backoff::exponential(LEASE / 10, LEASE);
            let subscriber = subscriber.backoff(backoff).build().await.unwrap();
            let worker = Worker::new(subscriber)
                .concurrency(1 + rng.index(5))
                .time_limit(LEASE * 15)
                .grace(LEASE.mul_f64(10.0 * rng.unit()));
            let progress = worker.progress();
            let life = LEASE.mul_f64(20.0 * rng.unit());
            let dice = Mutex::new(rng.clone());
            let handler = |job| {
                let rng = dice.lock().unwrap().fork("handler");
                self.handle(job, rng)
            };
            if rng.chance(0.2) {
                // It just goes away.
                let run = worker.run(handler, std::future::pending());
                assert!(self.env.timeout(life, run).await.is_err());
            } else {
                let stop = async {
                    let deadline = self.env.now() + life;
                    while !self.is_over() && self.env.now() < deadline {
                        self.env.sleep(LEASE / 3).await;
                    }
                };
                worker.run(handler, stop).await.unwrap();
            }
            let counts = progress.counts();
            assert_eq!(counts.lost, 0, "leases are kept");
            sum.done += counts.done;
            sum.dead += counts.dead;
            sum.retried += counts.retried;
            sum.returned += counts.returned;
            sum.panicked += counts.panicked;
        }
        sum
    }

    fn is_over(&self) -> bool {
        self.queue.stats().topics["t"].subscriptions["s"].backlog == 0
    }
}

/// The jobs that became dead letters.
async fn letters(env: &Env, queue: &DurableQueue) -> Vec<String> {
    let mut letters = queue.topic("t.dead").subscribe("undertaker").build().await.unwrap();
    let mut all = Vec::new();
    while let Ok(Some(letter)) = env.timeout(SECOND, letters.next()).await {
        let letter = letter.unwrap();
        assert_eq!(letter.message().get(DEAD_REASON).unwrap(), "never");
        all.push(String::from_utf8(letter.payload().to_vec()).unwrap());
        letter.ack().await.unwrap();
    }
    all
}

fn simulate(world: &World) -> WorkerCounts {
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let topic = queue.topic("t");
        topic.send_all((0..JOBS).map(|n| format!("{n}"))).await.unwrap();
        topic
            .subscribe("s")
            .lease(LEASE)
            .max_attempts(1_000)
            .build()
            .await
            .unwrap();
        let storm = Storm {
            env: env.clone(),
            queue: queue.clone(),
            at_work: Arc::default(),
            done: Arc::default(),
            twice: Arc::default(),
        };
        let workers: Vec<_> = (0..3).map(|name| env.spawn(storm.clone().work(name))).collect();
        let mut sum = WorkerCounts::default();
        for worker in workers {
            let counts = env
                .timeout(3600 * SECOND, worker)
                .await
                .expect("it ends")
                .expect("no worker panics");
            sum.done += counts.done;
            sum.dead += counts.dead;
            sum.retried += counts.retried;
            sum.returned += counts.returned;
            sum.panicked += counts.panicked;
        }
        let mut ended = storm.done.lock().unwrap().clone();
        // A job whose acknowledgement was cut off may be in both.
        ended.extend(letters(&env, &queue).await);
        assert_eq!(ended.len(), JOBS);
        assert_eq!(*storm.twice.lock().unwrap(), [""; 0]);
        assert!(storm.at_work.lock().unwrap().is_empty());
        sum
    })
}

#[test]
fn every_job_ends_and_none_is_handled_twice_at_a_time() {
    let mut sum = WorkerCounts::default();
    let mut worlds = 0;
    each_seed(support::SEEDS / 4, |world| {
        let counts = simulate(world);
        sum.done += counts.done;
        sum.retried += counts.retried;
        sum.returned += counts.returned;
        sum.panicked += counts.panicked;
        sum.dead += counts.dead;
        worlds += 1;
    });
    support::report("worker simulation", "seeds", worlds);
    for (kind, count) in [
        ("jobs done", sum.done),
        ("attempts that failed", sum.retried),
        ("panics", sum.panicked),
        ("dead letters", sum.dead),
        ("deliveries given back", sum.returned),
    ] {
        support::report("worker simulation", kind, count);
        assert!(count >= worlds, "{kind}: {count} in {worlds} seeds");
    }
}

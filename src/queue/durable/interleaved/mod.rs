//! Two consumers of one message while time passes, in thousands of interleavings: a scheduler chooses at each lock which
//! thread goes on. It also finds out when all wait for each other, and when nobody wakes one that waits.
//!
//! `RUSTFLAGS="--cfg outgrow_shuttle" cargo test --release --all-features --lib interleaved --target-dir target-models`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the threads are the scheduler's")]

mod world;

use crate::env::{Clock, Tick};
use crate::queue::*;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};
use std::sync::Arc;
use world::{HandClock, world};

/// How many interleavings of each kind are tried.
const RUNS: usize = 3_000;
const LEASE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;

fn explore(run: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(run, RUNS);
}

/// A queue with one message, and what its consumers have seen.
#[derive(Clone)]
struct Scene {
    queue: DurableQueue,
    wanted: Subscription,
    /// Attempts that reached a consumer, and settlements that were granted.
    seen: Arc<Mutex<Vec<u32>>>,
    granted: Arc<Mutex<Vec<u32>>>,
    clock: HandClock,
}

/// A delivery, and when its lease ends.
struct Held {
    delivery: Delivery<DurableQueue>,
    ends: Tick,
}

/// What is left of the message, the dead letters, and what the threads have to say.
struct Played<T> {
    scene: Scene,
    left: usize,
    dead: usize,
    said: T,
}

impl Scene {
    /// Lets the threads loose on a queue with one message, and closes it when they are done.
    fn play<T>(acks: Durability, run: impl FnOnce(&Scene) -> T) -> Played<T> {
        let (env, clock) = world();
        let queue = DurableQueue::builder()
            .env(env)
            .segment_bytes(8 << 10)
            .ack_durability(acks);
        let queue = block_on(queue.open("q")).unwrap();
        let mut wanted = Subscription::new("t", "s");
        (wanted.lease, wanted.max_attempts) = (LEASE, ATTEMPTS);
        block_on(queue.subscribe(&wanted)).unwrap();
        block_on(queue.topic("t").send("one")).unwrap();
        let scene = Scene {
            queue,
            wanted,
            seen: Arc::default(),
            granted: Arc::default(),
            clock,
        };
        let said = run(&scene);
        let stats = DurableQueue::stats(&scene.queue);
        let left = stats
            .topics
            .get("t")
            .map_or(0, |topic| topic.subscriptions["s"].backlog);
        let dead = stats.topics.get(&*dead_letters("t")).map_or(0, |topic| topic.messages);
        block_on(scene.queue.close());
        Played {
            scene,
            left,
            dead,
            said,
        }
    }

    fn thread<T: Send + 'static>(&self, run: impl FnOnce(Scene) -> T + Send + 'static) -> JoinHandle<T> {
        let scene = self.clone();
        thread::spawn(move || run(scene))
    }

    /// What can be had within `wait`.
    fn receive(&self, wait: Duration) -> Option<Held> {
        let raw = block_on(self.queue.receive(&self.wanted, 1, wait)).unwrap().pop()?;
        self.seen.lock().push(raw.attempt);
        Some(Held {
            delivery: Delivery::new(self.queue.clone(), raw),
            ends: self.clock.now() + LEASE,
        })
    }

    /// Settles a delivery by `how`, which has to fail if its lease had ended before, or a later attempt had reached anybody.
    /// Says whether it was granted.
    fn settle(&self, held: Held, how: impl AsyncFnOnce(Delivery<DurableQueue>) -> Result<()>) -> bool {
        let attempt = held.delivery.attempt();
        let is_late = self.clock.now() >= held.ends;
        let overtaken = self.seen.lock().iter().any(|other| *other > attempt);
        let result = block_on(how(held.delivery));
        match &result {
            Ok(()) => self.granted.lock().push(attempt),
            Err(error) => assert!(matches!(error, Error::LeaseLost { .. }), "{error}"),
        }
        let granted = result.is_ok();
        assert!(!(is_late && granted), "attempt {attempt} is settled after its time");
        assert!(!(overtaken && granted), "attempt {attempt} settles a later one");
        granted
    }

    fn ack(&self, held: Held) -> bool {
        self.settle(held, async |delivery| delivery.ack().await)
    }

    /// Each attempt reached one consumer.
    fn check_attempts(&self) {
        let mut seen = self.seen.lock().clone();
        seen.sort_unstable();
        assert!(
            seen.is_sorted_by(|before, after| before < after),
            "an attempt is seen twice: {seen:?}"
        );
    }
}

impl<T> Played<T> {
    /// Settled at most once, and there until then.
    fn check(&self) {
        self.scene.check_attempts();
        let granted = self.scene.granted.lock().len();
        assert!(granted <= 1, "settled {granted} times");
        assert_eq!(self.left, 1 - granted, "it is there until it is settled");
    }
}

/// One who looks once, one who looks again and again, and time that passes under both.
fn two_and_the_clock(acks: Durability, how: fn(&Scene, Held) -> bool) {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    explore(move || {
        let played = Scene::play(acks, |scene| {
            let consumers = [1, 4].map(|times| {
                scene.thread(move |scene| {
                    for _ in 0..times {
                        match scene.receive(Duration::ZERO) {
                            Some(held) => _ = how(&scene, held),
                            None => thread::yield_now(),
                        }
                    }
                })
            });
            // While somebody has it, who may be done with it or not.
            while scene.seen.lock().is_empty() {
                thread::yield_now();
            }
            scene.clock.advance(LEASE + LEASE / 10);
            consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
        });
        played.check();
        assert_eq!(played.dead, 0);
        let scene = &played.scene;
        let lost = scene.seen.lock().len() - scene.granted.lock().len();
        count.fetch_add(lost, Ordering::Relaxed);
    });
    assert!(refused.load(Ordering::Relaxed) > RUNS / 100, "hardly a lease was lost");
}

#[test]
fn a_message_is_acknowledged_once() {
    for acks in [Durability::Os, Durability::Disk] {
        two_and_the_clock(acks, Scene::ack);
    }
}

#[test]
fn a_lease_that_was_extended_holds() {
    two_and_the_clock(Durability::Os, |scene, mut held| {
        let extended = block_on(held.delivery.extend(100 * LEASE)).is_ok();
        if extended {
            held.ends = held.ends + 99 * LEASE;
        }
        let acked = scene.ack(held);
        assert_eq!(acked, extended, "a lease that holds is not lost");
        acked
    });
}

#[test]
fn a_message_is_done_or_dead() {
    explore(|| {
        let played = Scene::play(Durability::Os, |scene| {
            let buries = scene.thread(|scene| {
                let held = scene.receive(Duration::ZERO)?;
                Some(scene.settle(held, async |delivery| delivery.dead_letter("for no reason").await))
            });
            let acks = scene.thread(|scene| Some(scene.ack(scene.receive(Duration::ZERO)?)));
            scene.clock.advance(LEASE + LEASE / 10);
            acks.join().unwrap();
            buries.join().unwrap() == Some(true)
        });
        played.check();
        assert_eq!(played.dead, usize::from(played.said), "one letter if it is dead");
    });
}

/// Whoever waits gets what another gives back, without time passing.
#[test]
fn what_is_dropped_is_delivered_at_once() {
    explore(|| {
        let played = Scene::play(Durability::Os, |scene| {
            let drops = scene.receive(Duration::ZERO).expect("nobody else has it");
            let waits = scene.thread(|scene| {
                let held = scene.receive(LEASE).expect("the clock stands");
                (held.delivery.attempt(), scene.ack(held))
            });
            drop(drops);
            waits.join().unwrap()
        });
        played.check();
        assert_eq!(played.said, (2, true));
    });
}

/// Of two that wait, one gets it, and the other what that one gives back.
#[test]
fn both_who_wait_get_their_turn() {
    explore(|| {
        let played = Scene::play(Durability::Os, |scene| {
            let first = scene.receive(Duration::ZERO).expect("nobody else has it");
            let both = [(); 2].map(|()| {
                scene.thread(|scene| {
                    let held = scene.receive(LEASE).expect("the clock stands");
                    held.delivery.attempt() == 3 && scene.ack(held)
                })
            });
            drop(first);
            both.map(|thread| thread.join().unwrap())
        });
        played.check();
        assert!(played.said.contains(&true));
    });
}

//! Those who use the queue while its machine is up.

use super::ledger::{Ledger, Place};
use outgrow::env::{Env, Rng};
use outgrow::queue::{DEAD_SUBSCRIPTION, Delivery, DurableQueue, Error, Message, Queue, Subscription, dead_letters};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const SUBSCRIPTIONS: [Place; 3] = [("red", "a"), ("red", "b"), ("blue", "a")];
const MAX_ATTEMPTS: u32 = 6;
const LEASE: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) queue: DurableQueue,
    pub(crate) env: Env,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

fn subscription((topic, name): Place) -> Subscription {
    let mut wanted = Subscription::new(topic, name);
    wanted.max_attempts = MAX_ATTEMPTS;
    wanted.lease = LEASE;
    wanted.max_in_flight = 20;
    wanted
}

impl Life {
    /// Runs a task that dies with the machine.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Life) -> F) {
        self.env.spawn(task(self.clone())).detach();
    }

    pub(crate) async fn subscribe_all(&self) -> bool {
        for place in SUBSCRIPTIONS {
            if self.queue.subscribe(&subscription(place)).await.is_err() {
                return false;
            }
        }
        true
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) async fn produce(self, name: u64) {
        let mut rng = self.env.rng(&format!("producer {name}"));
        loop {
            self.env.sleep(Duration::from_micros(rng.below(3_000))).await;
            let topic = ["red", "blue"][rng.index(2)];
            let count = if rng.chance(0.7) { 1 } else { rng.below(5) };
            let payloads: Vec<_> = (0..count).map(|_| self.ledger().attempt(topic)).collect();
            let messages = payloads.iter().map(|payload| message(payload, &mut rng)).collect();
            let sending = self.queue.send(topic, messages);
            // Some who send lose patience.
            let result = match rng.chance(0.1) {
                true => self.env.timeout(Duration::from_micros(rng.below(300)), sending).await,
                false => Ok(sending.await),
            };
            let Ok(result) = result else { continue };
            self.ledger().sent(payloads, &result);
            if matches!(result, Err(Error::Poisoned | Error::Closed)) {
                return;
            }
        }
    }

    pub(crate) async fn consume(self, place: Place) {
        let mut rng = self.env.rng(&format!("consumer {place:?}"));
        let wanted = subscription(place);
        loop {
            let wait = Duration::from_micros(rng.below(5_000));
            let received = match self.queue.receive(&wanted, 1 + rng.index(4), wait).await {
                Ok(received) => received,
                Err(Error::Poisoned | Error::Closed) => return,
                Err(Error::Io { .. }) => continue,
                Err(error) => panic!("receiving at {place:?}: {error}"),
            };
            for raw in received {
                self.handle(place, Delivery::new(self.queue.clone(), raw), &mut rng)
                    .await;
            }
        }
    }

    async fn handle(&self, place: Place, mut delivery: Delivery<DurableQueue>, rng: &mut Rng) {
        let attempt = delivery.attempt();
        let id = self
            .ledger()
            .delivered(place, delivery.payload(), attempt, MAX_ATTEMPTS);
        let settled = match rng.below(20) {
            0 => return drop(delivery),
            1 => return drop(delivery.retry_in(Duration::from_micros(rng.below(30_000))).await),
            2 => delivery.dead_letter("for no reason").await,
            3 => {
                let extended = delivery.extend(2 * LEASE).await;
                self.env.sleep(LEASE + LEASE / 2).await;
                let result = delivery.ack().await;
                // A lease that was extended holds, unless something else failed.
                assert!(
                    extended.is_err() || !matches!(result, Err(Error::LeaseLost { .. })),
                    "{id:?} at {place:?}"
                );
                result
            }
            4 => {
                self.env.sleep(LEASE * 2).await;
                let result = delivery.ack().await;
                assert!(result.is_err(), "the lease on {id:?} has ended");
                result
            }
            5 => {
                let patience = Duration::from_micros(rng.below(300));
                match self.env.timeout(patience, delivery.ack()).await {
                    Ok(result) => result,
                    Err(_) => return,
                }
            }
            _ => delivery.ack().await,
        };
        self.ledger().settled(place, &id, attempt, &settled);
    }

    /// Takes all that is left; false if the queue fails meanwhile.
    pub(crate) async fn drain_all(&self) -> bool {
        for place in SUBSCRIPTIONS {
            if self.drain(place).await.is_err() {
                return false;
            }
        }
        for topic in ["red", "blue"] {
            if self.undertake(topic).await.is_err() {
                return false;
            }
        }
        let stats = DurableQueue::stats(&self.queue);
        let backlog: usize = stats
            .topics
            .values()
            .flat_map(|topic| topic.subscriptions.values())
            .map(|s| s.backlog)
            .sum();
        assert_eq!(backlog, 0, "{stats:?}");
        true
    }

    async fn drain(&self, place: Place) -> Result<(), Error> {
        let wanted = subscription(place);
        loop {
            // Longer than any lease, retry or burial.
            let received = self.queue.receive(&wanted, 10, Duration::from_secs(5)).await?;
            if received.is_empty() {
                return Ok(());
            }
            for raw in received {
                let id = self
                    .ledger()
                    .delivered(place, &raw.message.payload, raw.attempt, MAX_ATTEMPTS);
                let attempt = raw.attempt;
                let result = Delivery::new(self.queue.clone(), raw).ack().await;
                self.ledger().settled(place, &id, attempt, &result);
                result?;
            }
        }
    }

    async fn undertake(&self, topic: &str) -> Result<(), Error> {
        let dead = self.queue.topic(&dead_letters(topic));
        let mut letters = dead.subscribe("undertaker").prefetch(10).build().await?;
        while let Ok(Some(letter)) = self.env.timeout(Duration::from_secs(5), letters.next()).await {
            let letter = letter?;
            let of = letter
                .message()
                .get(DEAD_SUBSCRIPTION)
                .expect("a dead letter says whose it was");
            let of = String::from_utf8_lossy(&of).into_owned();
            self.ledger().buried(of, letter.payload(), letter.seq());
            letter.ack().await?;
        }
        Ok(())
    }
}

/// A message whose bytes tell whether they are the right ones.
fn message(payload: &str, rng: &mut Rng) -> Message {
    let most = if rng.chance(0.1) { 3_000 } else { 60 };
    let padding = rng.index(most);
    Message::new(format!("{payload} {}", ".".repeat(padding)))
}

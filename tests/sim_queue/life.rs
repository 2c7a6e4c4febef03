//! Those who use the queue while its machine is up.

use super::ledger::{Id, LARGE, Ledger, Place};
use outgrow::env::{Env, Rng, WallTime};
use outgrow::queue::{
    DEAD_SEQ, DEAD_SUBSCRIPTION, DeliverAt, Delivery, DurableQueue, Error, Feature, Message, Priority, Queue,
    RawDelivery, Settle, Subscription, dead_letters,
};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A topic that keeps only its latest messages.
pub(crate) const LIMITED: Place = ("green", "a");
/// A subscription where many are acknowledged at once.
const THROUGH: Place = ("red", "b");
/// A subscription whose keys are in order.
const ORDERED: Place = ("blue", "a");
pub(crate) const SUBSCRIPTIONS: [Place; 4] = [("red", "a"), THROUGH, ORDERED, LIMITED];
const TOPICS: [&str; 3] = ["red", "blue", "green"];
const MAX_ATTEMPTS: u32 = 6;
const LEASE: Duration = Duration::from_millis(20);

/// What may have been sent and is sent again, to be told as a repetition: topic, payloads and messages.
pub(crate) type Sent = (&'static str, Vec<String>, Vec<Message>);

#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) queue: DurableQueue,
    pub(crate) env: Env,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// Whether some messages are so long that they are written in pieces.
    pub(crate) large: bool,
}

fn subscription(place: Place, can_order: bool) -> Subscription {
    let mut wanted = Subscription::new(place.0, place.1);
    wanted.ordered = can_order && place == ORDERED;
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
            if self.queue.subscribe(&self.subscription(place)).await.is_err() {
                return false;
            }
        }
        true
    }

    fn has(&self, feature: Feature) -> bool {
        self.queue.capability().has(feature)
    }

    fn subscription(&self, place: Place) -> Subscription {
        subscription(place, self.has(Feature::OrderedKeys))
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) async fn produce(self, name: u64) {
        let mut rng = self.env.rng(&format!("producer {name}"));
        let mut before = None;
        loop {
            self.env.sleep(Duration::from_micros(rng.below(3_000))).await;
            if rng.chance(0.05) {
                // What an earlier life, or another producer, may have sent.
                before = self.ledger().repeat(&mut rng).or(before);
            }
            if !self.send_some(&mut rng, &mut before).await {
                return;
            }
        }
    }

    /// Now and then sends dead letters again.
    pub(crate) async fn redrive(self) {
        let mut rng = self.env.rng("redriver");
        loop {
            self.env.sleep(Duration::from_micros(rng.below(30_000))).await;
            self.ledger().redrive();
            match self.queue.topic(TOPICS[rng.index(3)]).redrive(1 + rng.index(3)).await {
                Ok(moved) => self.ledger().counts.redriven += moved as u64,
                Err(Error::Poisoned | Error::Closed) => return,
                Err(_) => {}
            }
        }
    }

    /// Sends a batch, or what may have been sent `before`; false when the queue takes nothing more.
    pub(crate) async fn send_some(&self, rng: &mut Rng, before: &mut Option<Sent>) -> bool {
        let again = before.take().filter(|_| rng.chance(0.5));
        let is_again = again.is_some();
        let (topic, payloads, messages) = again.unwrap_or_else(|| self.batch(rng));
        if is_again {
            for (payload, message) in payloads.iter().zip(&messages) {
                if let Some(DeliverAt::In(delay)) = message.deliver {
                    self.ledger().due_again(payload, self.env.wall() + delay);
                }
            }
        }
        let sending = self.queue.send(topic, messages.clone());
        // Some who send lose patience.
        let result = match rng.chance(0.1) {
            true => self.env.timeout(Duration::from_micros(rng.below(300)), sending).await,
            false => Ok(sending.await),
        };
        if let Ok(result) = &result {
            self.ledger().sent(&payloads, is_again, result);
        }
        if matches!(result, Ok(Err(Error::Poisoned | Error::Closed))) {
            return false;
        }
        let named = !messages.is_empty() && messages.iter().all(|message| message.dedup_id.is_some());
        if named {
            // A repetition is always sent with the first one still in doubt.
            payloads.iter().for_each(|payload| self.ledger().in_doubt(payload));
            let sent = (topic, payloads, messages);
            self.ledger().name(sent.clone());
            *before = Some(sent);
        }
        true
    }

    fn batch(&self, rng: &mut Rng) -> (&'static str, Vec<String>, Vec<Message>) {
        let topic = TOPICS[rng.index(3)];
        let count = if rng.chance(0.7) { 1 } else { rng.below(5) };
        let named = rng.chance(0.4);
        let payloads: Vec<_> = (0..count).map(|_| self.ledger().attempt(topic)).collect();
        let messages = payloads.iter().map(|payload| {
            let message = self.wish(payload, message(payload, self.large, rng), rng);
            match named {
                true => message.dedup_id(payload.clone()),
                false => message,
            }
        });
        let messages = messages.collect();
        (topic, payloads, messages)
    }

    /// Wishes by chance what the queue can do.
    fn wish(&self, payload: &str, mut message: Message, rng: &mut Rng) -> Message {
        let (mut due, mut mortal) = (None, false);
        if rng.chance(0.5) {
            message = message.key(["x", "y", "z"][rng.index(3)]);
        }
        if rng.chance(0.1) && self.has(Feature::DelayedMessages) {
            // A delay of nothing is none: it is over at once, wherever the clock is set later.
            let delay = Duration::from_micros(1 + rng.below(30_000));
            due = Some(self.env.wall() + delay);
            message = message.deliver_in(delay);
        }
        if rng.chance(0.05) && self.has(Feature::TimeToLive) {
            mortal = true;
            message = message.ttl(Duration::from_micros(rng.below(50_000)));
        }
        if rng.chance(0.3) && self.has(Feature::Priorities) {
            message = message.priority([Priority::Low, Priority::High, Priority::Urgent][rng.index(3)]);
        }
        self.ledger().wished(payload, due, mortal);
        message
    }

    pub(crate) async fn consume(self, place: Place) {
        let mut rng = self.env.rng(&format!("consumer {place:?}"));
        while self.receive_some(place, &mut rng).await {}
    }

    /// Receives some and settles each in one way or another; false when the queue gives nothing more.
    pub(crate) async fn receive_some(&self, place: Place, rng: &mut Rng) -> bool {
        let wanted = self.subscription(place);
        let wait = Duration::from_micros(rng.below(5_000));
        let received = match self.queue.receive(&wanted, 1 + rng.index(4), wait).await {
            Ok(received) => received,
            Err(Error::Poisoned | Error::Closed) => return false,
            Err(Error::Io { .. }) => return true,
            Err(error) => panic!("receiving at {place:?}: {error}"),
        };
        self.received(place, &wanted, &received);
        for raw in received {
            self.handle(place, raw, rng).await;
        }
        true
    }

    fn received(&self, place: Place, wanted: &Subscription, received: &[RawDelivery]) {
        let in_order = received.iter().filter(|_| wanted.ordered);
        in_order.for_each(|raw| self.ledger().in_order(place, raw, MAX_ATTEMPTS));
    }

    fn delivered(&self, place: Place, raw: &RawDelivery) -> Id {
        let wall: WallTime = self.env.wall();
        self.ledger().delivered(place, raw, wall, MAX_ATTEMPTS)
    }

    async fn handle(&self, place: Place, raw: RawDelivery, rng: &mut Rng) {
        let which = (raw.token.seq, raw.attempt);
        let id = self.delivered(place, &raw);
        let mut delivery = Delivery::new(self.queue.clone(), raw);
        let settled = match rng.below(40) {
            0 => return drop(delivery),
            1 => return drop(delivery.retry_in(Duration::from_micros(rng.below(30_000))).await),
            2 => {
                let result = delivery.dead_letter("for no reason").await;
                self.ledger().condemned(place, which.0, &result);
                result
            }
            3 => {
                let extended = delivery.extend(2 * LEASE).await;
                self.env.sleep(LEASE + LEASE / 2).await;
                let result = delivery.ack().await;
                // A lease that was extended holds, unless something else failed or took the message.
                let taken = place == THROUGH || self.ledger().may_drop(place);
                assert!(
                    extended.is_err() || taken || !matches!(result, Err(Error::LeaseLost { .. })),
                    "{id:?} at {place:?}"
                );
                result
            }
            4 | 7 => {
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
            6 if place == THROUGH && self.has(Feature::AckThrough) => {
                self.ledger().through(place, which.0);
                self.queue.settle(delivery.token(), Settle::AckThrough).await
            }
            _ => delivery.ack().await,
        };
        self.ledger().settled(place, &id, which, &settled);
    }

    /// Takes all that is left; false if the queue fails meanwhile.
    pub(crate) async fn drain_all(&self, rng: &mut Rng) -> bool {
        if rng.chance(0.3) {
            self.ledger().redrive();
            for topic in TOPICS {
                match self.queue.topic(topic).redrive(1 + rng.index(20)).await {
                    Ok(moved) => self.ledger().counts.redriven += moved as u64,
                    Err(_) => return false,
                }
            }
        }
        for place in SUBSCRIPTIONS {
            if self.drain(place).await.is_err() {
                return false;
            }
        }
        for topic in TOPICS {
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

    /// Messages that are not due yet, since a clock was set back.
    fn delayed(&self, (topic, name): Place) -> usize {
        let stats = DurableQueue::stats(&self.queue);
        let subscription = stats.topics.get(topic).and_then(|topic| topic.subscriptions.get(name));
        subscription.map_or(0, |subscription| subscription.delayed)
    }

    async fn drain(&self, place: Place) -> Result<(), Error> {
        let wanted = self.subscription(place);
        loop {
            // Longer than any lease, retry or burial.
            let received = self.queue.receive(&wanted, 10, Duration::from_secs(5)).await?;
            if received.is_empty() && self.delayed(place) == 0 {
                return Ok(());
            }
            self.received(place, &wanted, &received);
            for raw in received {
                let id = self.delivered(place, &raw);
                let which = (raw.token.seq, raw.attempt);
                let result = Delivery::new(self.queue.clone(), raw).ack().await;
                self.ledger().settled(place, &id, which, &result);
                match result {
                    // A limit may have taken it meanwhile.
                    Err(Error::LeaseLost { .. }) => {}
                    result => result?,
                }
            }
        }
    }

    async fn undertake(&self, topic: &str) -> Result<(), Error> {
        let dead = self.queue.topic(&dead_letters(topic));
        let mut letters = dead.subscribe("undertaker").prefetch(10).build().await?;
        while let Ok(letter) = self.env.timeout(Duration::from_secs(5), letters.next()).await {
            // It ends with the machine, where a crash was still on order.
            let letter = letter.ok_or(Error::Closed)??;
            let says = |name| {
                let value = letter.message().get(name).expect("a dead letter says whose it was");
                String::from_utf8_lossy(&value).into_owned()
            };
            let of = says(DEAD_SEQ).parse().expect("and which");
            self.ledger()
                .buried(says(DEAD_SUBSCRIPTION), letter.payload(), of, letter.seq());
            letter.ack().await?;
        }
        Ok(())
    }
}

/// A message whose bytes tell whether they are the right ones.
fn message(payload: &str, large: bool, rng: &mut Rng) -> Message {
    let most = if rng.chance(0.1) { 3_000 } else { 60 };
    let least = if large && rng.chance(0.05) { LARGE } else { 0 };
    let padding = least + rng.index(most);
    Message::new(format!("{payload} {}", ".".repeat(padding)))
}

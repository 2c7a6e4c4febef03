//! What every [`Queue`] has to do, as a function that any implementation can run (feature `suite`).
//!
//! [`queue`] wants a fresh, empty queue for every case, so it is given the way to make one. What a queue declares in its
//! [`Capability`](super::Capability) has to work, and what it lacks has to answer [`Error::Unsupported`].
//!
//! ```
//! use outgrow::queue::DurableQueue;
//! use outgrow::queue::suite::{self, Subject};
//! use outgrow::sim::World;
//! use std::cell::Cell;
//!
//! let world = World::new(1);
//! let (env, made) = (world.env(), Cell::new(0));
//! world.run(suite::queue(async || {
//!     made.set(made.get() + 1);
//!     let queue = DurableQueue::builder().env(env.clone());
//!     let queue = queue.open(format!("queue-{}", made.get())).await.unwrap();
//!     let env = env.clone();
//!     Subject::new(queue, move |by| env.sleep(by))
//! }));
//! ```
//!
//! A case that fails panics and says what it saw. What it does not prove: durability, which takes a crash.

mod consumers;
mod failures;
mod messages;
mod wishes;

use super::{Delivery, Error, Feature, Message, Queue, Result, SubscriberBuilder, Subscription, Topic};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// How long a case waits for something that has to come.
const SOON: Duration = Duration::from_secs(20);
/// How long a case waits for something that must not come.
const MOMENT: Duration = Duration::from_millis(50);
/// The leases that cases let run out.
const LEASE: Duration = Duration::from_secs(2);

/// A queue to be examined, with power over the time that it lives in.
pub struct Subject<Q> {
    queue: Q,
    advance: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl<Q: Queue + Clone + Unpin + 'static> Subject<Q> {
    /// An empty `queue`, and how to let so much of its time pass: for a queue on the operating system's clock that is a
    /// sleep, of five seconds at most for each case about time.
    pub fn new<F, Fut>(queue: Q, advance: F) -> Subject<Q>
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Subject {
            queue,
            advance: Box::new(move |by| advance(by).boxed()),
        }
    }

    async fn advance(&self, by: Duration) {
        (self.advance)(by).await;
    }

    fn topic(&self, name: &str) -> Topic<Q> {
        Topic::new(self.queue.clone(), name)
    }

    async fn send(&self, topic: &str, payloads: &[&'static str]) -> Vec<u64> {
        let receipts = self.topic(topic).send_all(payloads.iter().copied()).await;
        receipts
            .expect("a send works")
            .iter()
            .map(|receipt| receipt.seq)
            .collect()
    }

    /// A subscription with short leases.
    async fn subscribe(&self, topic: &str, name: &str) -> Subscription {
        let wanted = self.wanted(topic, name);
        self.queue.subscribe(&wanted).await.expect("a subscription can be made");
        wanted
    }

    fn wanted(&self, topic: &str, name: &str) -> Subscription {
        let mut wanted = Subscription::new(topic, name);
        wanted.lease = LEASE;
        wanted
    }

    fn builder(&self, topic: &str, name: &str) -> SubscriberBuilder<Q> {
        self.topic(topic).subscribe(name).lease(LEASE)
    }

    /// The next message, which has to come.
    async fn next(&self, from: &Subscription) -> Delivery<Q> {
        let mut some = self.take(from, 1, SOON).await;
        assert_eq!(some.len(), 1, "a message comes");
        some.remove(0)
    }

    async fn take(&self, from: &Subscription, max: usize, wait: Duration) -> Vec<Delivery<Q>> {
        let raw = self.queue.receive(from, max, wait).await.expect("a receive works");
        assert!(raw.len() <= max, "no more than was asked for");
        raw.into_iter()
            .map(|raw| Delivery::new(self.queue.clone(), raw))
            .collect()
    }

    /// Takes and acknowledges all that is there, and returns what it says.
    async fn drain(&self, from: &Subscription) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let some = self.take(from, 7, MOMENT).await;
            if some.is_empty() {
                return all;
            }
            for delivery in some {
                all.push(text(&delivery));
                delivery.ack().await.expect("an acknowledgement works");
            }
        }
    }

    /// What a call that needs `feature` gave, if the queue has it; if not, the call has to have said so.
    fn has<T: fmt::Debug>(&self, feature: Feature, result: Result<T>) -> Option<T> {
        if self.queue.capability().has(feature) {
            return Some(result.expect("what the queue declares works"));
        }
        let unsupported = Error::Unsupported(feature);
        assert_eq!(result.expect_err("what the queue lacks is refused"), unsupported);
        None
    }

    async fn is_empty(&self, from: &Subscription) {
        let some = self.take(from, 1, MOMENT).await;
        assert!(some.is_empty(), "nothing may come: {some:?}");
    }
}

impl<Q> fmt::Debug for Subject<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

fn text<Q: Queue>(delivery: &Delivery<Q>) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

/// Takes a queue through its contract.
///
/// # Panics
/// When it breaks it.
pub async fn queue<Q: Queue + Clone + Unpin + 'static>(make: impl AsyncFn() -> Subject<Q>) {
    messages::come_in_order(make().await).await;
    messages::keep_all_their_parts(make().await).await;
    messages::too_large_is_refused_whole(make().await).await;
    messages::sends_wake_consumers(make().await).await;
    messages::waiting_ends(make().await).await;
    messages::topics_are_apart(make().await).await;
    consumers::subscriptions_each_get_all(make().await).await;
    consumers::consumers_compete(make().await).await;
    consumers::subscriptions_start_where_they_say(make().await).await;
    consumers::flight_is_bounded(make().await).await;
    consumers::streams_deliver(make().await).await;
    consumers::nonsense_is_refused(make().await).await;
    failures::leases_end(make().await).await;
    failures::dropped_deliveries_come_back(make().await).await;
    failures::retries_wait(make().await).await;
    failures::leases_can_be_extended(make().await).await;
    failures::dead_letters_say_why(make().await).await;
    failures::attempts_are_bounded(make().await).await;
    failures::settled_is_settled(make().await).await;
    wishes::delays_are_waited_for(make().await).await;
    wishes::times_are_waited_for(make().await).await;
    wishes::what_has_expired_is_not_delivered(make().await).await;
    wishes::priorities_come_first_and_starve_nobody(make().await).await;
    wishes::ordered_keys_come_one_by_one(make().await).await;
    wishes::repetitions_are_told(make().await).await;
    wishes::repetitions_at_once_are_told(make().await).await;
    wishes::acknowledging_through_settles_all_before(make().await).await;
    wishes::subscriptions_can_begin_anywhere(make().await).await;
}

use super::consumer::Consumer;
use super::{Backoff, Delivery, Queue, RawDelivery, Result, Retry, Start, Subscription, trace};
use crate::env::Env;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FusedStream, Stream};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long one request to the queue waits; then comes the next.
const WAIT: Duration = Duration::from_secs(30);

/// Builds a [`Subscriber`].
///
/// ```
/// # use outgrow::queue::{Backoff, DurableQueue, Start};
/// # use std::time::Duration;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-subscriber-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let orders = queue.topic("orders");
/// let mut jobs = orders
///     .subscribe("billing")
///     .start(Start::First)
///     .lease(Duration::from_secs(60))
///     .max_attempts(3)
///     .backoff(Backoff::list([1, 60].map(Duration::from_millis)))
///     .prefetch(10)
///     .build()
///     .await?;
/// assert_eq!(jobs.subscription().max_attempts, 3);
///
/// orders.send("order 1").await?;
/// let job = jobs.next().await.expect("the queue is open")?;
/// job.retry().await?; // in a millisecond, as the list says
/// let again = jobs.next().await.expect("the queue is open")?;
/// assert_eq!(again.attempt(), 2);
/// again.ack().await?;
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SubscriberBuilder<Q> {
    queue: Q,
    subscription: Subscription,
    prefetch: usize,
    backoff: Backoff,
    env: Option<Env>,
}

impl<Q: Queue + Clone + 'static> SubscriberBuilder<Q> {
    pub(super) fn new(queue: Q, topic: &str, name: &str, env: Option<Env>) -> SubscriberBuilder<Q> {
        SubscriberBuilder {
            queue,
            subscription: Subscription::new(topic, name),
            prefetch: 1,
            backoff: Backoff::default(),
            env,
        }
    }

    /// Where the subscription begins if it does not exist yet. Default: [`Start::First`].
    pub fn start(mut self, start: Start) -> Self {
        self.subscription.start = start;
        self
    }

    /// How long a delivery may stay unsettled before it is delivered again. Default: 30 s; at least 1 ms.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.subscription.lease = lease;
        self
    }

    /// After how many deliveries a message becomes a dead letter. Default: 5; at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.subscription.max_attempts = attempts;
        self
    }

    /// How long [`Delivery::retry`] and a [`Worker`](super::Worker) wait before a message is tried again. Default: a second
    /// at first, twice as long each time, 5 minutes at most, with full jitter.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Delivers messages of one key one after the other, in the order in which they were sent: the next one when the one
    /// before it is settled for good. Default: no. See [`Feature::OrderedKeys`](super::Feature::OrderedKeys).
    pub fn ordered(mut self) -> Self {
        self.subscription.ordered = true;
        self
    }

    /// The world that leases are kept and retries are drawn in. Default: that of the topic.
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// How many messages the whole subscription may have delivered and not settled for good. Default: 1,000; from 1 to
    /// 1,048,576.
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.subscription.max_in_flight = messages;
        self
    }

    /// How many messages are taken at once. Their leases begin when they are taken, so more than one is for consumers
    /// that are quick, or that settle many at a time. Default: 1; 0 is 1.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = messages.max(1);
        self
    }

    /// Makes the subscription, if it does not exist, and joins its consumers. Its settings follow the latest to join.
    ///
    /// # Errors
    /// [`Error::Invalid`](super::Error::Invalid) when a setting is out of its bounds, and as
    /// [`Queue::subscribe`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the subscription exists.
    pub async fn build(self) -> Result<Subscriber<Q>> {
        self.queue.subscribe(&self.subscription).await?;
        let consumer = Consumer::new(self.queue, self.subscription.lease, self.backoff, self.env);
        Ok(Subscriber {
            consumer: Arc::new(consumer),
            subscription: self.subscription,
            prefetch: self.prefetch,
            keep_alive: false,
            ahead: VecDeque::new(),
            receiving: None,
            ended: false,
        })
    }
}

/// One consumer of a subscription: a stream of deliveries, without end while the queue is open.
///
/// After an error that cannot pass ([`Retry::Never`]), such as a poisoned queue, the stream ends; a closed queue ends it
/// without an error. Dropping it gives back what it has taken and not yet handed out. For deliveries to be handled many at
/// a time, with everything that can go wrong, there is the [`Worker`](super::Worker).
pub struct Subscriber<Q: Queue> {
    consumer: Arc<Consumer<Q>>,
    subscription: Subscription,
    prefetch: usize,
    /// Whether leases are kept from the moment that deliveries come.
    keep_alive: bool,
    ahead: VecDeque<Delivery<Q>>,
    receiving: Option<BoxFuture<'static, Result<Vec<RawDelivery>>>>,
    ended: bool,
}

impl<Q: Queue> Subscriber<Q> {
    /// What it subscribes to.
    #[must_use]
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    pub(super) fn env(&self) -> &Env {
        self.consumer.env()
    }

    /// Gives back what it has taken and not yet handed out; returns how many deliveries that were.
    pub(super) fn give_back(&mut self) -> usize {
        self.receiving = None;
        std::mem::take(&mut self.ahead).len()
    }

    /// Has the leases of what comes from now on kept until it is settled.
    pub(super) fn keep_all_alive(&mut self) {
        self.keep_alive = true;
    }
}

impl<Q: Queue + Clone + Unpin + 'static> Subscriber<Q> {
    /// The next delivery; `None` when the queue is closed, or after an error that cannot pass.
    ///
    /// The [`Stream`] has a `next` of its own, in futures' `StreamExt`, and this one is better where it may be dropped
    /// before its end, as in a race with something else: what the stream was about to take stays with the stream, which
    /// for that moment nobody polls, and this one gives it back to the other consumers.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing leased that was not leased before.
    pub async fn next(&mut self) -> Option<Result<Delivery<Q>>> {
        let next = Next(self);
        poll_fn(|cx| next.0.poll_for(next.0.prefetch, cx)).await
    }

    /// Polls for the next delivery; if the queue has to be asked, for so many.
    pub(super) fn poll_for(&mut self, max: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery<Q>>>> {
        loop {
            if let Some(delivery) = self.ahead.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let receiving = match &mut self.receiving {
                Some(receiving) => receiving,
                None => self
                    .receiving
                    .insert(receive(&self.consumer.queue, &self.subscription, max)),
            };
            let received = ready!(receiving.poll_unpin(cx));
            self.receiving = None;
            match received {
                Ok(raw) => self.received(raw),
                Err(super::Error::Closed) => self.ended = true,
                Err(error) => {
                    self.ended = error.retry() == Retry::Never;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// As [`poll_for`](Subscriber::poll_for), for a consumer that has room for so many.
    pub(super) fn poll_with_room(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery<Q>>>> {
        self.poll_for(room.max(self.prefetch), cx)
    }

    fn received(&mut self, raw: Vec<RawDelivery>) {
        let since = self.consumer.now();
        let deliveries = raw.into_iter().map(|raw| Delivery::of(&self.consumer, raw, since));
        let before = self.ahead.len();
        self.ahead.extend(deliveries);
        if self.keep_alive {
            self.ahead.range_mut(before..).for_each(Delivery::keep_alive);
        }
    }
}

fn receive<Q: Queue + Clone + 'static>(
    queue: &Q,
    subscription: &Subscription,
    max: usize,
) -> BoxFuture<'static, Result<Vec<RawDelivery>>> {
    let (queue, subscription) = (queue.clone(), subscription.clone());
    async move {
        let receiving = queue.receive(&subscription, max, WAIT);
        trace::receive(&subscription.topic, &subscription.name, receiving).await
    }
    .boxed()
}

/// A call of [`Subscriber::next`].
struct Next<'a, Q: Queue>(&'a mut Subscriber<Q>);

impl<Q: Queue> Drop for Next<'_, Q> {
    fn drop(&mut self) {
        self.0.receiving = None;
    }
}

impl<Q: Queue + Clone + Unpin + 'static> Stream for Subscriber<Q> {
    type Item = Result<Delivery<Q>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.poll_for(this.prefetch, cx)
    }
}

impl<Q: Queue + Clone + Unpin + 'static> FusedStream for Subscriber<Q> {
    fn is_terminated(&self) -> bool {
        self.ended && self.ahead.is_empty()
    }
}

impl<Q: Queue> fmt::Debug for Subscriber<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("subscription", &self.subscription)
            .field("ahead", &self.ahead.len())
            .finish_non_exhaustive()
    }
}

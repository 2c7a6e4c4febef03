use super::{Delivery, Queue, RawDelivery, Result, Retry, Start, Subscription};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FusedStream, Stream};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long one request to the queue waits; then comes the next.
const WAIT: Duration = Duration::from_secs(30);

/// Builds a [`Subscriber`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SubscriberBuilder<Q> {
    queue: Q,
    subscription: Subscription,
    prefetch: usize,
}

impl<Q: Queue + Clone + 'static> SubscriberBuilder<Q> {
    pub(super) fn new(queue: Q, topic: &str, name: &str) -> SubscriberBuilder<Q> {
        SubscriberBuilder {
            queue,
            subscription: Subscription::new(topic, name),
            prefetch: 1,
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
        Ok(Subscriber {
            queue: self.queue,
            subscription: self.subscription,
            prefetch: self.prefetch,
            ahead: VecDeque::new(),
            receiving: None,
            ended: false,
        })
    }
}

/// One consumer of a subscription: a stream of deliveries, without end while the queue is open.
///
/// After an error that cannot pass ([`Retry::Never`]), such as a closed queue, the stream ends. Dropping it gives back
/// what it has taken and not yet handed out.
pub struct Subscriber<Q: Queue> {
    queue: Q,
    subscription: Subscription,
    prefetch: usize,
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
}

impl<Q: Queue + Clone + 'static> Subscriber<Q> {
    fn receive(&self) -> BoxFuture<'static, Result<Vec<RawDelivery>>> {
        let (queue, subscription, max) = (self.queue.clone(), self.subscription.clone(), self.prefetch);
        async move { queue.receive(&subscription, max, WAIT).await }.boxed()
    }
}

impl<Q: Queue + Clone + Unpin + 'static> Stream for Subscriber<Q> {
    type Item = Result<Delivery<Q>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(delivery) = this.ahead.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let receiving = match &mut this.receiving {
                Some(receiving) => receiving,
                None => this.receiving.insert(this.receive()),
            };
            let received = ready!(receiving.poll_unpin(cx));
            this.receiving = None;
            match received {
                Ok(raw) => this
                    .ahead
                    .extend(raw.into_iter().map(|raw| Delivery::new(this.queue.clone(), raw))),
                Err(super::Error::Closed) => this.ended = true,
                Err(error) => {
                    this.ended = error.retry() == Retry::Never;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
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

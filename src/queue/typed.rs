use super::{
    Backoff, Codec, CodecError, Delivery, Error, Message, Queue, Receipt, Result, Start, Subscriber, SubscriberBuilder,
    Subscription, Topic,
};
use crate::env::Env;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FusedStream, Stream};
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A [`Topic`] for values of one type. Cheap to clone.
///
/// A payload that its codec cannot read does not reach the consumer, and does not hold up what comes after it: see
/// [`Undecodable`].
///
/// ```
/// # #[cfg(feature = "json")] fn main() {
/// use outgrow::queue::{DEAD_REASON, DurableQueue};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order {
///     user: String,
///     cents: u64,
/// }
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-typed-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let orders = queue.topic("orders").typed::<Order>();
/// orders.topic().send("not an order").await?;
/// orders.send(&Order { user: "Ada".into(), cents: 250 }).await?;
///
/// let mut jobs = orders.subscribe("billing").build().await?;
/// let job = jobs.next().await.expect("the queue is open")?;
/// assert_eq!((job.user.as_str(), job.cents), ("Ada", 250)); // it derefs to the order
/// job.ack().await?;
///
/// let mut dead = queue.topic("orders.dead").subscribe("undertaker").build().await?;
/// let letter = dead.next().await.expect("the queue is open")?;
/// let reason = letter.message().get(DEAD_REASON).unwrap();
/// assert!(reason.starts_with(b"cannot be decoded: "), "{reason:?}");
/// # drop(letter);
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # }
/// # #[cfg(not(feature = "json"))] fn main() {}
/// ```
pub struct TypedTopic<T, Q, C> {
    topic: Topic<Q>,
    codec: Arc<C>,
    of: Of<T>,
}

/// It makes and takes values, and holds none.
type Of<T> = PhantomData<fn(T) -> T>;

/// What becomes of a delivery whose payload the codec cannot read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecodable {
    /// It becomes a dead letter at once, with what the codec said as the reason.
    #[default]
    DeadLetter,
    /// It is tried again by the subscriber's [schedule](SubscriberBuilder::backoff): while a release is rolled out,
    /// another consumer may be able to read it. It becomes a dead letter when its attempts are used up.
    Retry,
}

impl<T, Q: Queue + Clone + 'static, C: Codec<T>> TypedTopic<T, Q, C> {
    pub(super) fn new(topic: Topic<Q>, codec: C) -> TypedTopic<T, Q, C> {
        TypedTopic {
            topic,
            codec: Arc::new(codec),
            of: PhantomData,
        }
    }

    /// The topic below.
    #[must_use]
    pub fn topic(&self) -> &Topic<Q> {
        &self.topic
    }

    /// A message that says `value`, to which a key, headers, a delay and so on can be added before the topic
    /// [below](TypedTopic::topic) sends it.
    ///
    /// ```
    /// # #[cfg(feature = "json")] fn main() {
    /// # use outgrow::queue::DurableQueue;
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-message-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// # let queue = DurableQueue::open(&dir).await?;
    /// let numbers = queue.topic("numbers").typed::<u32>();
    /// let message = numbers.message(&7)?.key("lucky");
    /// assert_eq!(message.payload, "7");
    /// numbers.topic().send(message).await?;
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// # }
    /// # #[cfg(not(feature = "json"))] fn main() {}
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] with what the codec said, when it cannot write the value.
    pub fn message(&self, value: &T) -> Result<Message> {
        let encoded = self.codec.encode(value);
        let payload = encoded.map_err(|error| Error::invalid(format!("cannot be encoded: {error}")))?;
        Ok(Message::new(payload))
    }

    /// Sends a value; it is durable when this returns.
    ///
    /// # Errors
    /// As [`message`](TypedTopic::message) and [`Topic::send`].
    ///
    /// # Cancel safety
    /// As [`Topic::send`].
    pub async fn send(&self, value: &T) -> Result<Receipt> {
        let message = self.message(value)?;
        self.topic.send(message).await
    }

    /// Sends values in one call, as [`Topic::send_all`] does.
    ///
    /// # Errors
    /// As [`send`](TypedTopic::send); when one of them cannot be written none is sent.
    ///
    /// # Cancel safety
    /// As [`Topic::send`].
    pub async fn send_all<'a>(&self, values: impl IntoIterator<Item = &'a T>) -> Result<Vec<Receipt>>
    where
        T: 'a,
    {
        let messages: Result<Vec<_>> = values.into_iter().map(|value| self.message(value)).collect();
        self.topic.send_all(messages?).await
    }

    /// Subscribes under `name`, as [`Topic::subscribe`] does.
    pub fn subscribe(&self, name: &str) -> TypedSubscriberBuilder<T, Q, C> {
        TypedSubscriberBuilder {
            builder: self.topic.subscribe(name),
            codec: Arc::clone(&self.codec),
            undecodable: Undecodable::default(),
            of: PhantomData,
        }
    }
}

impl<T, Q: Clone, C> Clone for TypedTopic<T, Q, C> {
    fn clone(&self) -> Self {
        TypedTopic {
            topic: self.topic.clone(),
            codec: Arc::clone(&self.codec),
            of: PhantomData,
        }
    }
}

impl<T, Q: fmt::Debug, C> fmt::Debug for TypedTopic<T, Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedTopic")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Builds a [`TypedSubscriber`]; what is not told here is as with a [`SubscriberBuilder`].
#[must_use]
pub struct TypedSubscriberBuilder<T, Q, C> {
    builder: SubscriberBuilder<Q>,
    codec: Arc<C>,
    undecodable: Undecodable,
    of: Of<T>,
}

impl<T, Q: Queue + Clone + 'static, C: Codec<T>> TypedSubscriberBuilder<T, Q, C> {
    /// What becomes of a payload that the codec cannot read. Default: [`Undecodable::DeadLetter`].
    pub fn undecodable(mut self, undecodable: Undecodable) -> Self {
        self.undecodable = undecodable;
        self
    }

    /// See [`SubscriberBuilder::start`].
    pub fn start(self, start: Start) -> Self {
        self.map(|builder| builder.start(start))
    }

    /// See [`SubscriberBuilder::lease`].
    pub fn lease(self, lease: Duration) -> Self {
        self.map(|builder| builder.lease(lease))
    }

    /// See [`SubscriberBuilder::max_attempts`].
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.map(|builder| builder.max_attempts(attempts))
    }

    /// See [`SubscriberBuilder::backoff`].
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.map(|builder| builder.backoff(backoff))
    }

    /// See [`SubscriberBuilder::ordered`].
    pub fn ordered(self) -> Self {
        self.map(SubscriberBuilder::ordered)
    }

    /// See [`SubscriberBuilder::max_in_flight`].
    pub fn max_in_flight(self, messages: usize) -> Self {
        self.map(|builder| builder.max_in_flight(messages))
    }

    /// See [`SubscriberBuilder::prefetch`].
    pub fn prefetch(self, messages: usize) -> Self {
        self.map(|builder| builder.prefetch(messages))
    }

    /// See [`SubscriberBuilder::env`].
    pub fn env(self, env: Env) -> Self {
        self.map(|builder| builder.env(env))
    }

    /// See [`SubscriberBuilder::build`].
    ///
    /// # Errors
    /// As [`SubscriberBuilder::build`].
    ///
    /// # Cancel safety
    /// As [`SubscriberBuilder::build`].
    pub async fn build(self) -> Result<TypedSubscriber<T, Q, C>> {
        Ok(TypedSubscriber {
            inner: self.builder.build().await?,
            codec: self.codec,
            undecodable: self.undecodable,
            settling: None,
            of: PhantomData,
        })
    }

    fn map(mut self, change: impl FnOnce(SubscriberBuilder<Q>) -> SubscriberBuilder<Q>) -> Self {
        self.builder = change(self.builder);
        self
    }
}

impl<T, Q: fmt::Debug, C> fmt::Debug for TypedSubscriberBuilder<T, Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedSubscriberBuilder")
            .field("builder", &self.builder)
            .field("undecodable", &self.undecodable)
            .finish_non_exhaustive()
    }
}

/// One consumer of a subscription, of values: a stream of [`TypedDelivery`].
pub struct TypedSubscriber<T, Q: Queue, C> {
    inner: Subscriber<Q>,
    codec: Arc<C>,
    undecodable: Undecodable,
    /// What could not be read, on its way out.
    settling: Option<BoxFuture<'static, Result<()>>>,
    of: Of<T>,
}

impl<T, Q: Queue + Clone + Unpin + 'static, C: Codec<T>> TypedSubscriber<T, Q, C> {
    /// What it subscribes to.
    #[must_use]
    pub fn subscription(&self) -> &Subscription {
        self.inner.subscription()
    }

    /// The next delivery; `None` when the queue is closed, or after an error that cannot pass. Better than the stream's own
    /// `next` where it may be dropped before its end, as [`Subscriber::next`] tells.
    ///
    /// # Errors
    /// As [`Subscriber::next`], and when what could not be read could not be settled either; it then comes again.
    ///
    /// # Cancel safety
    /// As [`Subscriber::next`].
    pub async fn next(&mut self) -> Option<Result<TypedDelivery<T, Q>>> {
        loop {
            if let Err(error) = poll_fn(|cx| self.poll_settling(cx)).await {
                return Some(Err(error));
            }
            match self.inner.next().await? {
                Ok(delivery) => match self.open(delivery) {
                    Some(delivery) => return Some(Ok(delivery)),
                    None => continue,
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn poll_settling(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(settling) = &mut self.settling else {
            return Poll::Ready(Ok(()));
        };
        let settled = ready!(settling.poll_unpin(cx));
        self.settling = None;
        // One whose lease ended meanwhile is somebody else's now.
        Poll::Ready(match settled {
            Err(Error::LeaseLost { .. }) => Ok(()),
            settled => settled,
        })
    }

    fn open(&mut self, delivery: Delivery<Q>) -> Option<TypedDelivery<T, Q>> {
        match self.codec.decode(delivery.payload()) {
            Ok(value) => Some(TypedDelivery { value, delivery }),
            Err(error) => {
                let reason = undecodable(&error);
                self.settling = Some(match self.undecodable {
                    Undecodable::DeadLetter => delivery.dead_letter(reason).boxed(),
                    Undecodable::Retry => delivery.retry().boxed(),
                });
                None
            }
        }
    }

    pub(super) fn parts(&mut self) -> (&mut Subscriber<Q>, &C, Undecodable) {
        (&mut self.inner, &self.codec, self.undecodable)
    }
}

/// The reason on the dead letter of a payload that could not be read.
pub(super) fn undecodable(error: &CodecError) -> String {
    format!("cannot be decoded: {error}")
}

impl<T, Q: Queue + Clone + Unpin + 'static, C: Codec<T>> Stream for TypedSubscriber<T, Q, C> {
    type Item = Result<TypedDelivery<T, Q>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Err(error) = ready!(this.poll_settling(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(delivery) = ready!(Pin::new(&mut this.inner).poll_next(cx)?) else {
                return Poll::Ready(None);
            };
            if let Some(delivery) = this.open(delivery) {
                return Poll::Ready(Some(Ok(delivery)));
            }
        }
    }
}

impl<T, Q: Queue + Clone + Unpin + 'static, C: Codec<T>> FusedStream for TypedSubscriber<T, Q, C> {
    fn is_terminated(&self) -> bool {
        self.inner.is_terminated() && self.settling.is_none()
    }
}

impl<T, Q: Queue, C> fmt::Debug for TypedSubscriber<T, Q, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedSubscriber")
            .field("inner", &self.inner)
            .field("undecodable", &self.undecodable)
            .finish_non_exhaustive()
    }
}

/// A [`Delivery`] with the value that its payload says, to which it derefs.
///
/// ```
/// # #[cfg(feature = "json")] fn main() {
/// # use outgrow::queue::{DurableQueue, Undecodable};
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-typed-delivery-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let numbers = queue.topic("numbers").typed::<u32>();
/// numbers.send(&7).await?;
/// let mut jobs = numbers.subscribe("adder").undecodable(Undecodable::Retry).build().await?;
/// let seven = jobs.next().await.expect("the queue is open")?;
/// assert_eq!((*seven + 1, seven.delivery().attempt()), (8, 1));
/// let (seven, delivery) = seven.into_parts();
/// delivery.ack().await?; // or `ack` on the whole
/// assert_eq!(seven, 7);
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # }
/// # #[cfg(not(feature = "json"))] fn main() {}
/// ```
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct TypedDelivery<T, Q: Queue> {
    value: T,
    delivery: Delivery<Q>,
}

impl<T, Q: Queue> TypedDelivery<T, Q> {
    /// The delivery: its number, attempt, key and headers.
    pub fn delivery(&self) -> &Delivery<Q> {
        &self.delivery
    }

    /// The delivery, to extend its lease or [keep](Delivery::keep_alive) it.
    pub fn delivery_mut(&mut self) -> &mut Delivery<Q> {
        &mut self.delivery
    }

    /// The value, and the delivery that remains to be settled.
    pub fn into_parts(self) -> (T, Delivery<Q>) {
        (self.value, self.delivery)
    }

    /// See [`Delivery::ack`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub async fn ack(self) -> Result<()> {
        self.delivery.ack().await
    }

    /// See [`Delivery::retry`].
    ///
    /// # Errors
    /// As [`Delivery::retry`].
    ///
    /// # Cancel safety
    /// As [`Delivery::retry`].
    pub async fn retry(self) -> Result<()> {
        self.delivery.retry().await
    }

    /// See [`Delivery::retry_in`].
    ///
    /// # Errors
    /// As [`Delivery::retry_in`].
    ///
    /// # Cancel safety
    /// As [`Delivery::retry_in`].
    pub async fn retry_in(self, after: Duration) -> Result<()> {
        self.delivery.retry_in(after).await
    }

    /// See [`Delivery::dead_letter`].
    ///
    /// # Errors
    /// As [`Delivery::dead_letter`].
    ///
    /// # Cancel safety
    /// As [`Delivery::dead_letter`].
    pub async fn dead_letter(self, reason: impl Into<String>) -> Result<()> {
        self.delivery.dead_letter(reason).await
    }
}

impl<T, Q: Queue> Deref for TypedDelivery<T, Q> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T, Q: Queue> fmt::Debug for TypedDelivery<T, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedDelivery")
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

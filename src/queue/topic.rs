use super::{Codec, Message, Queue, Receipt, Result, SubscriberBuilder, TopicSink, TypedTopic, trace};
use crate::env::Env;
use std::sync::Arc;

/// A topic of a [`Queue`]: where messages are sent and subscribed to. Cheap to clone.
///
/// ```
/// # use outgrow::queue::{DurableQueue, Message};
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-topic-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let orders = queue.topic("orders");
/// assert_eq!(orders.name(), "orders");
/// let first = orders.send("order 1").await?; // durable
/// let more = orders.send_all((2..5).map(|n| Message::new(format!("order {n}")).key("user-7"))).await?;
/// assert!(more.len() == 3 && more[0].seq > first.seq);
///
/// let mut jobs = orders.subscribe("billing").build().await?;
/// let job = jobs.next().await.expect("the queue is open")?;
/// assert_eq!((job.seq(), job.payload().as_ref()), (first.seq, b"order 1".as_slice()));
/// # drop(job);
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Topic<Q> {
    queue: Q,
    name: Arc<str>,
    env: Option<Env>,
}

impl<Q: Queue + Clone + 'static> Topic<Q> {
    /// The topic `name` of `queue`.
    pub fn new(queue: Q, name: &str) -> Topic<Q> {
        Topic {
            queue,
            name: name.into(),
            env: None,
        }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// The world that its subscribers keep leases and draw retries in. Default: [`Env::default`], of the moment in which a
    /// subscriber first needs it; a queue that lives in another world gives its own.
    #[must_use]
    pub fn env(mut self, env: Env) -> Topic<Q> {
        self.env = Some(env);
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message; it is durable when this returns.
    ///
    /// # Errors
    /// As [`Queue::send`]; [`Error::effect`](super::Error::effect) says whether it may have been sent all the same.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the message is sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Receipt> {
        trace::send(&self.name, 1, self.queue.send_one(&self.name, message.into())).await
    }

    /// Sends messages in one call, which for many is much cheaper than one by one: with
    /// [`Feature::AtomicBatches`](super::Feature::AtomicBatches) as a whole or not at all.
    ///
    /// # Errors
    /// As [`send`](Topic::send).
    ///
    /// # Cancel safety
    /// As [`send`](Topic::send).
    pub async fn send_all<M: Into<Message>>(&self, messages: impl IntoIterator<Item = M>) -> Result<Vec<Receipt>> {
        let messages: Vec<Message> = messages.into_iter().map(Into::into).collect();
        let many = messages.len();
        trace::send(&self.name, many, self.queue.send(&self.name, messages)).await
    }

    /// Subscribes under `name`, which is durable: the next subscriber of that name goes on where this one stops.
    pub fn subscribe(&self, name: &str) -> SubscriberBuilder<Q> {
        SubscriberBuilder::new(self.queue.clone(), &self.name, name, self.env.clone())
    }

    /// The topic as a [`Sink`](futures::Sink) that takes up to `ahead` messages before it has to wait for the queue; 0 is 1.
    pub fn sink(&self, ahead: usize) -> TopicSink<Q> {
        TopicSink::new(self.clone(), ahead)
    }

    /// The topic for values of one type, as `codec` writes them.
    pub fn typed_with<T, C: Codec<T>>(&self, codec: C) -> TypedTopic<T, Q, C> {
        TypedTopic::new(self.clone(), codec)
    }

    /// The topic for values of one type, written as JSON, which bears fields that come and go.
    #[cfg(feature = "json")]
    pub fn typed<T>(&self) -> TypedTopic<T, Q, super::Json>
    where
        super::Json: Codec<T>,
    {
        self.typed_with(super::Json)
    }
}

use super::{Delivery, Message, Queue, Receipt, Result, Subscriber, Subscription, Topic};
use crate::env::{self, may_block};
use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

/// A [`Topic`] for plain threads: its calls block until they are done. Cheap to clone.
///
/// Not for async code, whose thread it would hold up.
///
/// ```
/// use outgrow::queue::{BlockingTopic, DurableQueue};
/// use futures::executor::block_on;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-blocking-{}", std::process::id()));
/// let queue = block_on(DurableQueue::open(&dir))?;
/// let mail = BlockingTopic::new(queue.topic("mail"));
/// mail.send("to Ada")?; // durable
/// assert_eq!(mail.send_all(["to Grace", "to Mary"])?.len(), 2);
///
/// let mut jobs = mail.subscribe("mailer")?;
/// for job in jobs.iter().take(3) {
///     job?.ack()?;
/// }
/// block_on(queue.close());
/// assert!(jobs.recv()?.is_none(), "the queue is closed");
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), outgrow::queue::Error>(())
/// ```
///
/// # Panics
/// Every call does when it is made by a task of a tokio runtime (with the feature `tokio`, by which it is noticed), or
/// inside an executor of the futures crate. A thread of tokio's `spawn_blocking` may call it.
#[derive(Clone, Debug)]
pub struct BlockingTopic<Q> {
    topic: Topic<Q>,
}

impl<Q: Queue + Clone + Unpin + 'static> BlockingTopic<Q> {
    /// The topic, for plain threads.
    pub fn new(topic: Topic<Q>) -> BlockingTopic<Q> {
        BlockingTopic { topic }
    }

    /// The topic, for async code.
    #[must_use]
    pub fn topic(&self) -> &Topic<Q> {
        &self.topic
    }

    /// See [`Topic::send`].
    ///
    /// # Errors
    /// As [`Topic::send`].
    pub fn send(&self, message: impl Into<Message>) -> Result<Receipt> {
        wait(self.topic.send(message))
    }

    /// See [`Topic::send_all`].
    ///
    /// # Errors
    /// As [`Topic::send_all`].
    pub fn send_all<M: Into<Message>>(&self, messages: impl IntoIterator<Item = M>) -> Result<Vec<Receipt>> {
        wait(self.topic.send_all(messages))
    }

    /// Subscribes under `name` with the defaults. For others, build the [`Subscriber`] from
    /// [`Topic::subscribe`], and turn it into a [`BlockingSubscriber`].
    ///
    /// # Errors
    /// As [`SubscriberBuilder::build`](super::SubscriberBuilder::build).
    pub fn subscribe(&self, name: &str) -> Result<BlockingSubscriber<Q>> {
        wait(self.topic.subscribe(name).build()).map(BlockingSubscriber::new)
    }
}

/// A [`Subscriber`] for plain threads.
///
/// ```
/// use outgrow::queue::{BlockingSubscriber, DurableQueue};
/// use futures::executor::block_on;
/// use std::time::Duration;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-blocking-sub-{}", std::process::id()));
/// # let queue = block_on(DurableQueue::open(&dir))?;
/// let mail = queue.topic("mail");
/// let mut jobs = BlockingSubscriber::new(block_on(mail.subscribe("mailer").prefetch(10).build())?);
/// assert!(jobs.recv_timeout(Duration::from_millis(10))?.is_none(), "nothing came");
/// block_on(mail.send("to Ada"))?;
/// let job = jobs.recv()?.expect("the queue is open");
/// assert_eq!((job.payload().as_ref(), job.attempt()), (b"to Ada".as_slice(), 1));
/// job.ack()?;
/// # block_on(queue.close());
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), outgrow::queue::Error>(())
/// ```
///
/// # Panics
/// As [`BlockingTopic`].
#[derive(Debug)]
pub struct BlockingSubscriber<Q: Queue> {
    inner: Subscriber<Q>,
}

impl<Q: Queue + Clone + Unpin + 'static> BlockingSubscriber<Q> {
    /// The subscriber, for plain threads.
    pub fn new(inner: Subscriber<Q>) -> BlockingSubscriber<Q> {
        BlockingSubscriber { inner }
    }

    /// What it subscribes to.
    #[must_use]
    pub fn subscription(&self) -> &Subscription {
        self.inner.subscription()
    }

    /// Waits for the next delivery; `None` when the queue is closed, or after an error that cannot pass.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub fn recv(&mut self) -> Result<Option<BlockingDelivery<Q>>> {
        let next = wait(self.inner.next()).transpose()?;
        Ok(next.map(BlockingDelivery::new))
    }

    /// Waits for the next delivery for at most `limit`; `None` also when that passes.
    ///
    /// # Errors
    /// As [`recv`](BlockingSubscriber::recv).
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<Option<BlockingDelivery<Q>>> {
        let env = self.inner.env().clone();
        match wait(env.timeout(limit, self.inner.next())) {
            Ok(next) => Ok(next.transpose()?.map(BlockingDelivery::new)),
            Err(_elapsed) => Ok(None),
        }
    }

    /// The deliveries that come, without end while the queue is open.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<BlockingDelivery<Q>>> + use<'_, Q> {
        std::iter::from_fn(|| self.recv().transpose())
    }
}

/// A [`Delivery`] for plain threads, to which it derefs.
///
/// # Panics
/// As [`BlockingTopic`].
#[derive(Debug)]
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct BlockingDelivery<Q: Queue> {
    inner: Delivery<Q>,
}

impl<Q: Queue + Clone + 'static> BlockingDelivery<Q> {
    fn new(inner: Delivery<Q>) -> BlockingDelivery<Q> {
        BlockingDelivery { inner }
    }

    /// The delivery, for async code.
    pub fn into_inner(self) -> Delivery<Q> {
        self.inner
    }

    /// See [`Delivery::ack`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub fn ack(self) -> Result<()> {
        wait(self.inner.ack())
    }

    /// See [`Delivery::ack_through`].
    ///
    /// # Errors
    /// As [`Delivery::ack_through`].
    pub fn ack_through(self) -> Result<()> {
        wait(self.inner.ack_through())
    }

    /// See [`Delivery::retry`].
    ///
    /// # Errors
    /// As [`Delivery::retry`].
    pub fn retry(self) -> Result<()> {
        wait(self.inner.retry())
    }

    /// See [`Delivery::retry_in`].
    ///
    /// # Errors
    /// As [`Delivery::retry_in`].
    pub fn retry_in(self, after: Duration) -> Result<()> {
        wait(self.inner.retry_in(after))
    }

    /// See [`Delivery::dead_letter`].
    ///
    /// # Errors
    /// As [`Delivery::dead_letter`].
    pub fn dead_letter(self, reason: impl Into<String>) -> Result<()> {
        wait(self.inner.dead_letter(reason))
    }

    /// See [`Delivery::extend`].
    ///
    /// # Errors
    /// As [`Delivery::extend`].
    pub fn extend(&mut self, by: Duration) -> Result<()> {
        wait(self.inner.extend(by))
    }

    /// See [`Delivery::keep_alive`].
    pub fn keep_alive(&mut self) {
        self.inner.keep_alive();
    }
}

impl<Q: Queue> Deref for BlockingDelivery<Q> {
    type Target = Delivery<Q>;

    fn deref(&self) -> &Delivery<Q> {
        &self.inner
    }
}

/// Blocks the thread until `future` is ready.
fn wait<F: Future>(future: F) -> F::Output {
    may_block();
    // A thread inside an executor is no plain thread either.
    let enter = futures::executor::enter();
    drop(enter.expect("plain threads only: this one runs an executor, so await the topic itself"));
    env::wait(future)
}

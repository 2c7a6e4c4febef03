use super::consumer::{Consumer, Whose};
use super::keep_alive::{KeepId, Keeper};
use super::{DeliveryToken, Message, Queue, RawDelivery, Result, Settle, trace};
use crate::env::{Tick, WallTime};
use bytes::Bytes;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

/// A message in the hands of a consumer, until its lease ends.
///
/// Settle it with [`ack`](Delivery::ack), [`retry`](Delivery::retry), [`retry_in`](Delivery::retry_in) or
/// [`dead_letter`](Delivery::dead_letter). One that is dropped goes back at once and has used up an attempt.
///
/// ```
/// # use outgrow::queue::{DurableQueue, Message};
/// # use std::time::Duration;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-delivery-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let mail = queue.topic("mail");
/// mail.send(Message::new("to Ada").key("user-7").header("trace", "4bf92f35")).await?;
///
/// let mut jobs = mail.subscribe("mailer").build().await?;
/// let mut job = jobs.next().await.expect("the queue is open")?;
/// assert_eq!((job.attempt(), job.key().unwrap().as_ref()), (1, b"user-7".as_slice()));
/// assert_eq!(job.headers(), [("trace".to_owned(), "4bf92f35".into())]);
/// assert!(job.enqueued_at().as_millis() > 0);
/// job.extend(Duration::from_secs(60)).await?; // from now
/// drop(job);                                  // given back
///
/// let again = jobs.next().await.expect("the queue is open")?;
/// assert_eq!((again.payload().as_ref(), again.attempt()), (b"to Ada".as_slice(), 2));
/// again.ack().await?;
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery<Q: Queue> {
    held: Held<Q>,
    attempt: u32,
    enqueued_at: WallTime,
    message: Message,
}

/// What settles a delivery, which is all that is left of it while that is under way. Dropped before that, it goes back.
struct Held<Q: Queue> {
    whose: Whose<Q>,
    token: DeliveryToken,
    /// When the lease began, if anyone looked at the clock then.
    since: Option<Tick>,
    kept: Option<KeepId>,
    settled: bool,
}

impl<Q: Queue> Delivery<Q> {
    /// The delivery that `queue` gave out as `raw`. What a subscriber's builder can set is as by default: the
    /// [schedule](super::Backoff) of retries, and a lease of 30 s for [`keep_alive`](Delivery::keep_alive).
    pub fn new(queue: Q, raw: RawDelivery) -> Delivery<Q> {
        Delivery::whose(Whose::Queues(queue), raw, None)
    }

    pub(super) fn of(consumer: &Arc<Consumer<Q>>, raw: RawDelivery, since: Option<Tick>) -> Delivery<Q> {
        Delivery::whose(Whose::Of(Arc::clone(consumer)), raw, since)
    }

    fn whose(whose: Whose<Q>, raw: RawDelivery, since: Option<Tick>) -> Delivery<Q> {
        Delivery {
            held: Held {
                whose,
                token: raw.token,
                since,
                kept: None,
                settled: false,
            },
            attempt: raw.attempt,
            enqueued_at: raw.enqueued_at,
            message: raw.message,
        }
    }

    /// The message's number, as in the sender's [`Receipt`](super::Receipt).
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.held.token.seq
    }

    /// How often the message has been delivered to this subscription, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the message was sent, by the wall clock of the queue.
    #[must_use]
    pub fn enqueued_at(&self) -> WallTime {
        self.enqueued_at
    }

    /// What the message says.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// The message's key.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.message.key.as_ref()
    }

    /// The message's headers, in the order in which they were added.
    #[must_use]
    pub fn headers(&self) -> &[(String, Bytes)] {
        &self.message.headers
    }

    /// The whole message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What settles it through [`Queue::settle`].
    #[must_use]
    pub fn token(&self) -> &DeliveryToken {
        &self.held.token
    }

    /// Says that the message is done: it is not delivered to this subscription again.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](super::Error::LeaseLost) when the lease has ended, and as [`Queue::settle`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the message is done.
    pub fn ack(self) -> impl Future<Output = Result<()>> {
        let Delivery { mut held, .. } = self;
        async move { held.settle(ACK).await }
    }

    /// Says that the message is done, and so is everything that comes before it in the subscription, delivered or not: for
    /// consumers that go through a topic as through a log.
    ///
    /// ```
    /// # use outgrow::queue::{DurableQueue, Error, Feature, Queue};
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-through-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// # let queue = DurableQueue::open(&dir).await?;
    /// let steps = queue.topic("steps");
    /// steps.send_all(["one", "two", "three"]).await?;
    /// let mut follow = steps.subscribe("follower").prefetch(2).build().await?;
    /// let one = follow.next().await.expect("the queue is open")?;
    /// let two = follow.next().await.expect("the queue is open")?;
    /// match two.ack_through().await {
    ///     Ok(()) => assert!(matches!(one.ack().await, Err(Error::LeaseLost { .. })), "done with the other"),
    ///     Err(unsupported) => assert_eq!(unsupported, Error::Unsupported(Feature::AckThrough)),
    /// }
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`ack`](Delivery::ack), and [`Error::Unsupported`](super::Error::Unsupported) without
    /// [`Feature::AckThrough`](super::Feature::AckThrough).
    ///
    /// # Cancel safety
    /// As [`ack`](Delivery::ack).
    pub fn ack_through(self) -> impl Future<Output = Result<()>> {
        self.settle(Settle::AckThrough)
    }

    /// Has the message delivered again when the wait is over that the subscriber's
    /// [`backoff`](super::SubscriberBuilder::backoff) has for this attempt; if its attempts are used up, it becomes a dead
    /// letter.
    ///
    /// # Errors
    /// As [`ack`](Delivery::ack).
    ///
    /// # Cancel safety
    /// As [`retry_in`](Delivery::retry_in).
    pub async fn retry(self) -> Result<()> {
        let after = self.backoff();
        self.settle(Settle::Retry { after }).await
    }

    /// Has the message delivered again in a while; if its attempts are used up, it becomes a dead letter.
    ///
    /// # Errors
    /// As [`ack`](Delivery::ack).
    ///
    /// # Cancel safety
    /// Dropping the future leaves open when the message is delivered again.
    pub async fn retry_in(self, after: Duration) -> Result<()> {
        self.settle(Settle::Retry { after }).await
    }

    /// Makes the message a dead letter, with a reason of which the first KiB is kept.
    ///
    /// # Errors
    /// As [`ack`](Delivery::ack). When the disk is full the message stays, and is delivered again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether it is a dead letter or delivered again.
    pub async fn dead_letter(self, reason: impl Into<String>) -> Result<()> {
        let reason = reason.into();
        self.settle(Settle::DeadLetter { reason }).await
    }

    /// Makes the lease last this long from now.
    ///
    /// # Errors
    /// As [`ack`](Delivery::ack).
    ///
    /// # Cancel safety
    /// Dropping the future leaves open how long the lease lasts.
    pub async fn extend(&mut self, by: Duration) -> Result<()> {
        let Held { whose, token, .. } = &self.held;
        whose.queue().settle(token, Settle::Extend { by }).await
    }

    /// Waits until [`keep_alive`](Delivery::keep_alive) finds that the lease is lost all the same: the message is, or will
    /// be, delivered to somebody else. Without `keep_alive` it waits for ever.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lease_lost(&self) {
        match self.held.kept.zip(self.held.whose.known()) {
            Some((id, consumer)) => poll_fn(|cx| consumer.keeper.poll_lost(id, cx)).await,
            None => pending().await,
        }
    }

    /// Settles it without giving it up, so that it can be tried again.
    pub(super) async fn try_settle(&mut self, settle: Settle) -> Result<()> {
        self.held.settle(&settle).await
    }

    #[allow(
        clippy::manual_async_fn,
        reason = "an async function would have room for the delivery twice"
    )]
    fn settle(self, settle: Settle) -> impl Future<Output = Result<()>> {
        let Delivery { mut held, .. } = self;
        async move { held.settle(&settle).await }
    }

    /// What the subscriber's schedule says of the next attempt.
    pub(super) fn backoff(&self) -> Duration {
        self.held.whose.wait(self.attempt)
    }

    /// How long a lease of the subscription lasts.
    pub(super) fn lease(&self) -> Duration {
        self.held.whose.lease()
    }

    /// Takes the message out of the delivery, which remains to be settled.
    pub(super) fn take_message(&mut self) -> Message {
        std::mem::take(&mut self.message)
    }
}

impl<Q: Queue + Clone + 'static> Delivery<Q> {
    /// Has a task of the [`Env`](crate::env::Env) lengthen the lease, whenever a third to a half of it has passed, until
    /// the delivery is settled or dropped; then nothing of it happens any more. It stops when the lease is lost, of which
    /// [`lease_lost`](Delivery::lease_lost) tells.
    ///
    /// For work whose length nobody knows. Whoever holds the delivery for ever keeps the message for ever: give the work a
    /// time limit. One task serves all deliveries of a subscriber.
    ///
    /// ```
    /// # use outgrow::queue::DurableQueue;
    /// # use std::time::Duration;
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-keep-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// # let queue = DurableQueue::open(&dir).await?;
    /// # let env = outgrow::env::Env::system();
    /// let films = queue.topic("films");
    /// films.send("convert film 7").await?;
    /// let mut jobs = films.subscribe("converter").lease(Duration::from_millis(200)).build().await?;
    /// let mut job = jobs.next().await.expect("the queue is open")?;
    /// job.keep_alive();
    /// env.sleep(Duration::from_millis(500)).await; // far longer than the lease
    /// assert_eq!(job.ack().await, Ok(()));
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn keep_alive(&mut self) {
        let held = &mut self.held;
        if held.kept.is_none() {
            held.kept = Some(Keeper::keep(held.whose.consumer(), &held.token, held.since));
        }
    }
}

/// Apart, so that the futures of acknowledgements need no room for it.
const ACK: &Settle = &Settle::Ack;

impl<Q: Queue> Held<Q> {
    async fn settle(&mut self, settle: &Settle) -> Result<()> {
        // Whatever is settled from here on must not be extended.
        self.let_go();
        let settling = self.whose.queue().settle(&self.token, settle.clone());
        let settled = trace::settle(&self.token, settle, settling).await;
        self.settled = settled.is_ok();
        settled
    }

    fn let_go(&mut self) {
        if let Some((id, consumer)) = self.kept.take().zip(self.whose.known()) {
            consumer.keeper.let_go(id);
        }
    }
}

impl<Q: Queue> Drop for Held<Q> {
    fn drop(&mut self) {
        self.let_go();
        if !self.settled {
            self.whose.queue().release(&self.token);
        }
    }
}

impl<Q: Queue> fmt::Debug for Delivery<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("token", &self.held.token)
            .field("attempt", &self.attempt)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

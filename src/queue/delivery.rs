use super::{DeliveryToken, Message, Queue, RawDelivery, Result, Settle};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// A message in the hands of a consumer, until its lease ends.
///
/// Settle it with [`ack`](Delivery::ack), [`retry_in`](Delivery::retry_in) or [`dead_letter`](Delivery::dead_letter).
/// One that is dropped goes back at once and has used up an attempt.
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery<Q: Queue> {
    queue: Q,
    token: DeliveryToken,
    attempt: u32,
    message: Message,
    settled: bool,
}

impl<Q: Queue> Delivery<Q> {
    /// The delivery that `queue` gave out as `raw`.
    pub fn new(queue: Q, raw: RawDelivery) -> Delivery<Q> {
        Delivery {
            queue,
            token: raw.token,
            attempt: raw.attempt,
            message: raw.message,
            settled: false,
        }
    }

    /// The message's number, as in the sender's [`Receipt`](super::Receipt).
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.token.seq
    }

    /// How often the message has been delivered to this subscription, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
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

    /// The message with its headers.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What settles it through [`Queue::settle`].
    #[must_use]
    pub fn token(&self) -> &DeliveryToken {
        &self.token
    }

    /// Says that the message is done: it is not delivered to this subscription again.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](super::Error::LeaseLost) when the lease has ended, and as [`Queue::settle`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the message is done.
    pub async fn ack(self) -> Result<()> {
        self.settle(Settle::Ack).await
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
        self.queue.settle(&self.token, Settle::Extend { by }).await
    }

    async fn settle(mut self, settle: Settle) -> Result<()> {
        self.queue.settle(&self.token, settle).await?;
        self.settled = true;
        Ok(())
    }
}

impl<Q: Queue> Drop for Delivery<Q> {
    fn drop(&mut self) {
        if !self.settled {
            self.queue.release(&self.token);
        }
    }
}

impl<Q: Queue> fmt::Debug for Delivery<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("token", &self.token)
            .field("attempt", &self.attempt)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

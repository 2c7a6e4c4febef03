use super::{Codec, Delivery, Message, Queue, Subscriber, TypedSubscriber, Undecodable, undecodable};
use crate::env::WallTime;
use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// What a [`Worker`](super::Worker) hands to its handler: the value that a message says, to which it derefs, and what else
/// is known of the delivery. The worker settles it.
///
/// ```
/// use bytes::Bytes;
/// use outgrow::queue::{Job, Outcome};
///
/// async fn greet(job: Job<Bytes>) -> Result<Outcome, std::str::Utf8Error> {
///     let name = std::str::from_utf8(&job)?; // a failed attempt
///     match name {
///         "" => Ok(Outcome::dead_letter("nobody to greet")),
///         _ if job.is_last_attempt() => Ok(Outcome::Done),
///         _ => Ok(Outcome::retry("too shy")),
///     }
/// }
/// # let _ = greet;
/// assert_eq!(Outcome::from(()), Outcome::Done);
/// ```
pub struct Job<T> {
    value: T,
    seq: u64,
    attempt: u32,
    max_attempts: u32,
    enqueued_at: WallTime,
    message: Message,
}

impl<T> Job<T> {
    pub(super) fn new<Q: Queue>(delivery: &mut Delivery<Q>, value: T, max_attempts: u32) -> Job<T> {
        Job {
            value,
            seq: delivery.seq(),
            attempt: delivery.attempt(),
            max_attempts,
            enqueued_at: delivery.enqueued_at(),
            message: delivery.take_message(),
        }
    }

    /// The value, alone.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The message's number, as in the sender's [`Receipt`](super::Receipt).
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// How often the message has been delivered to this subscription, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the message becomes a dead letter if this attempt fails.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// When the message was sent, by the wall clock of the queue.
    #[must_use]
    pub fn enqueued_at(&self) -> WallTime {
        self.enqueued_at
    }

    /// The message: its payload, key and headers.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }
}

impl<T> Deref for Job<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("seq", &self.seq)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What a handler makes of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Done,
    /// The attempt has failed. The next one comes after the wait that the subscriber's
    /// [`backoff`](super::SubscriberBuilder::backoff) has for it; after the last one the job becomes a dead letter, with
    /// this reason.
    Retry {
        /// What went wrong.
        reason: String,
    },
    /// As [`Retry`](Outcome::Retry), with a wait of its own: what the answer "429 Too Many Requests" asked for, say.
    RetryIn {
        /// How long to wait.
        after: Duration,
        /// What went wrong.
        reason: String,
    },
    /// It can never be done, and becomes a dead letter now.
    DeadLetter {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// A failed attempt.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Outcome {
        let reason = reason.to_string();
        Outcome::Retry { reason }
    }

    /// A failed attempt, with a wait of its own.
    #[must_use]
    pub fn retry_in(after: Duration, reason: impl fmt::Display) -> Outcome {
        let reason = reason.to_string();
        Outcome::RetryIn { after, reason }
    }

    /// A job that can never be done.
    #[must_use]
    pub fn dead_letter(reason: impl fmt::Display) -> Outcome {
        let reason = reason.to_string();
        Outcome::DeadLetter { reason }
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Outcome {
        Outcome::Done
    }
}

/// What a handler may return: nothing, an [`Outcome`], or a `Result` of either, whose error is whatever can be displayed
/// and is a failed attempt, tried again by the subscriber's schedule.
///
/// ```
/// use outgrow::queue::{IntoOutcome, Outcome};
/// let failed: Result<(), &str> = Err("no answer");
/// assert_eq!(failed.into_outcome(), Outcome::retry("no answer"));
/// let hopeless: Result<Outcome, std::io::Error> = Ok(Outcome::dead_letter("no such user"));
/// assert_eq!(hopeless.into_outcome(), Outcome::dead_letter("no such user"));
/// assert_eq!(().into_outcome(), Outcome::Done);
/// ```
pub trait IntoOutcome {
    /// The outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<O: Into<Outcome>, E: fmt::Display> IntoOutcome for Result<O, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::retry, Into::into)
    }
}

/// Where a [`Worker`](super::Worker) takes its jobs from: a [`Subscriber`] or a [`TypedSubscriber`]. Nothing else
/// implements it.
pub trait Source: sealed::Sealed {
    /// The queue.
    type Queue: Queue + Clone + Unpin + 'static;
    /// What a message says.
    type Value;

    #[doc(hidden)]
    fn subscriber(&mut self) -> &mut Subscriber<Self::Queue>;

    #[doc(hidden)]
    fn open(&mut self, delivery: &Delivery<Self::Queue>) -> Result<Self::Value, Outcome>;
}

mod sealed {
    pub trait Sealed {}
}

impl<Q: Queue> sealed::Sealed for Subscriber<Q> {}

impl<Q: Queue + Clone + Unpin + 'static> Source for Subscriber<Q> {
    type Queue = Q;
    type Value = Bytes;

    fn subscriber(&mut self) -> &mut Subscriber<Q> {
        self
    }

    fn open(&mut self, delivery: &Delivery<Q>) -> Result<Bytes, Outcome> {
        Ok(delivery.payload().clone())
    }
}

impl<T, Q: Queue, C> sealed::Sealed for TypedSubscriber<T, Q, C> {}

impl<T, Q: Queue + Clone + Unpin + 'static, C: Codec<T>> Source for TypedSubscriber<T, Q, C> {
    type Queue = Q;
    type Value = T;

    fn subscriber(&mut self) -> &mut Subscriber<Q> {
        self.parts().0
    }

    fn open(&mut self, delivery: &Delivery<Q>) -> Result<T, Outcome> {
        let (_, codec, policy) = self.parts();
        codec.decode(delivery.payload()).map_err(|error| match policy {
            Undecodable::DeadLetter => Outcome::dead_letter(undecodable(&error)),
            Undecodable::Retry => Outcome::retry(undecodable(&error)),
        })
    }
}

use super::{Error, Result};
use crate::env::WallTime;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a lease lasts unless a subscriber says otherwise.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// Something to send: a payload, and beside it a key and headers that the queue carries along.
///
/// ```
/// use outgrow::queue::Message;
/// let message = Message::new("hello").key("user-7").header("trace", "4bf92f35");
/// assert_eq!(message.get("trace").as_deref(), Some(b"4bf92f35".as_slice()));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// What it says.
    pub payload: Bytes,
    /// Whom or what it is about.
    pub key: Option<Bytes>,
    /// Names with values, in the order in which they were added.
    pub headers: Vec<(String, Bytes)>,
    /// When it may be delivered; none is at once.
    pub deliver: Option<DeliverAt>,
    /// How long after it was sent it is worth delivering; none is for ever.
    pub ttl: Option<Duration>,
    /// Which of those that can be delivered comes first.
    pub priority: Priority,
    /// What tells it from a repetition of itself.
    pub dedup_id: Option<Bytes>,
}

/// When a message may be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverAt {
    /// So long after it was sent.
    In(Duration),
    /// At this time by the wall clock.
    At(WallTime),
}

/// Which message comes first. Lower ones are not starved: of every sixteen deliveries while all levels have messages,
/// eight are urgent, four high, three normal and one low; of a level that has none the others take the turns. Within a
/// level messages come in the order in which they were sent. An [ordered](Subscription::ordered) subscription does not
/// look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// After everything else.
    Low,
    /// As messages are by default.
    #[default]
    Normal,
    /// Before most.
    High,
    /// Before everything else.
    Urgent,
}

impl Message {
    /// A message with this payload.
    pub fn new(payload: impl Into<Bytes>) -> Message {
        Message {
            payload: payload.into(),
            ..Message::default()
        }
    }

    /// Has it delivered after `delay`, and not before: the time is kept by the wall clock, so that it goes on while the
    /// queue is closed.
    #[must_use]
    pub fn deliver_in(mut self, delay: Duration) -> Message {
        self.deliver = Some(DeliverAt::In(delay));
        self
    }

    /// Has it delivered at this time by the wall clock, or at once if that has passed.
    #[must_use]
    pub fn deliver_at(mut self, at: WallTime) -> Message {
        self.deliver = Some(DeliverAt::At(at));
        self
    }

    /// Has it forgotten when it was not delivered within `ttl` after it was sent.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Message {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the [`Priority`]; by default [`Normal`](Priority::Normal).
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Message {
        self.priority = priority;
        self
    }

    /// Names it, so that sending it again within the queue's window does nothing: the receipt is then that of the first. The
    /// name is the topic's own, at most 128 bytes.
    #[must_use]
    pub fn dedup_id(mut self, id: impl Into<Bytes>) -> Message {
        self.dedup_id = Some(id.into());
        self
    }

    /// Sets the key. An [ordered](Subscription::ordered) subscription delivers messages of one key one after the other; for
    /// others the queue does not look at it.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Message {
        self.key = Some(key.into());
        self
    }

    /// Adds a header. Names that begin with `outgrow-` are the queue's own.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Message {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Bytes> {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.clone())
    }
}

/// Shows sizes, since a payload may be large or secret.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("payload", &self.payload.len())
            .field("key", &self.key.as_ref().map(Bytes::len))
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

impl<P: Into<Bytes>> From<P> for Message {
    fn from(payload: P) -> Message {
        Message::new(payload)
    }
}

/// What a send leaves in the sender's hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's number in its queue: growing, not dense.
    pub seq: u64,
    /// Whether a message of the same [id](Message::dedup_id) was there already, whose number this is.
    pub duplicate: bool,
}

impl Receipt {
    /// A receipt for message number `seq`.
    #[must_use]
    pub fn new(seq: u64) -> Receipt {
        let duplicate = false;
        Receipt { seq, duplicate }
    }

    /// A receipt for a repetition of message number `seq`.
    #[must_use]
    pub fn duplicate(seq: u64) -> Receipt {
        let duplicate = true;
        Receipt { seq, duplicate }
    }
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the oldest message that the topic still keeps.
    #[default]
    First,
    /// With what is sent after it was made.
    Now,
    /// With the first message whose number is this or higher.
    Seq(u64),
    /// With the first message that was sent at this time or later.
    Time(WallTime),
}

/// A named place in a topic from which messages are received, and how. The name is durable; consumers of one name
/// compete, and different names each get every message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The topic.
    pub topic: Arc<str>,
    /// The name, unique within the topic.
    pub name: Arc<str>,
    /// Where it begins, if it does not exist yet. Default: [`Start::First`].
    pub start: Start,
    /// How long a delivery may stay unsettled before it is delivered again. Default: 30 s; at least 1 ms.
    pub lease: Duration,
    /// After how many deliveries a message becomes a dead letter. Default: 5; at least 1.
    pub max_attempts: u32,
    /// How many messages may be delivered and not yet settled for good, those that wait for a retry included; then
    /// nothing new is delivered. Default: 1,000; from 1 to 1,048,576.
    pub max_in_flight: usize,
    /// Whether messages of one key are delivered one after the other, in the order in which they were sent: the next one when the
    /// one before it is settled for good. Messages without a key are not held up, except when more than 1,048,576 messages
    /// stand behind others of their keys. Such a subscription takes all messages in the order of their numbers, whatever
    /// their priority. One that becomes ordered is so for what is delivered from then on. Default: no.
    pub ordered: bool,
}

impl Subscription {
    /// Refuses numbers that make no sense.
    pub(super) fn check(&self, max_in_flight: usize) -> Result<()> {
        if self.lease < Duration::from_millis(1) {
            return Err(Error::invalid("lease is at least a millisecond"));
        }
        if self.max_attempts == 0 {
            return Err(Error::invalid("max_attempts is at least 1"));
        }
        if !(1..=max_in_flight).contains(&self.max_in_flight) {
            return Err(Error::invalid(format!("max_in_flight is 1 to {max_in_flight}")));
        }
        Ok(())
    }

    /// The subscription `name` of `topic`, with the defaults.
    #[must_use]
    pub fn new(topic: &str, name: &str) -> Subscription {
        Subscription {
            topic: topic.into(),
            name: name.into(),
            start: Start::First,
            lease: LEASE,
            max_attempts: 5,
            max_in_flight: 1_000,
            ordered: false,
        }
    }
}

/// A message as an implementation of [`Queue`](super::Queue) delivers it; callers get a [`Delivery`](super::Delivery).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDelivery {
    /// What settles it.
    pub token: DeliveryToken,
    /// How often it has been delivered to this subscription, this time included.
    pub attempt: u32,
    /// When it was sent, by the wall clock of the queue.
    pub enqueued_at: WallTime,
    /// The message.
    pub message: Message,
}

/// The right to settle one delivery, until its lease ends. A token that has lost its lease settles nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryToken {
    /// The topic.
    pub topic: Arc<str>,
    /// The subscription.
    pub subscription: Arc<str>,
    /// The message's number.
    pub seq: u64,
    /// Tells this delivery from earlier ones of the same message.
    pub generation: u64,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is done, and will not be delivered to this subscription again.
    Ack,
    /// It is done, and so is everything with a lower number, delivered or not, due or not. Whoever holds one of these has
    /// lost the lease.
    AckThrough,
    /// It is to be delivered again after a while. When it has used up its attempts, it becomes a dead letter.
    Retry {
        /// How long to wait.
        after: Duration,
    },
    /// Its lease lasts this long from now; it stays unsettled.
    Extend {
        /// How long.
        by: Duration,
    },
    /// It goes to the dead-letter topic.
    DeadLetter {
        /// Why; kept in a header.
        reason: String,
    },
}

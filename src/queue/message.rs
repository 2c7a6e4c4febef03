use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
}

impl Message {
    /// A message with this payload.
    pub fn new(payload: impl Into<Bytes>) -> Message {
        Message {
            payload: payload.into(),
            key: None,
            headers: Vec::new(),
        }
    }

    /// Sets the key. The queue keeps it and does not look at it.
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
}

impl Receipt {
    /// A receipt for message number `seq`.
    #[must_use]
    pub fn new(seq: u64) -> Receipt {
        Receipt { seq }
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
    /// nothing new is delivered. Default: 1,000; from 1 to 65,536.
    pub max_in_flight: usize,
}

impl Subscription {
    /// The subscription `name` of `topic`, with the defaults.
    #[must_use]
    pub fn new(topic: &str, name: &str) -> Subscription {
        Subscription {
            topic: topic.into(),
            name: name.into(),
            start: Start::First,
            lease: Duration::from_secs(30),
            max_attempts: 5,
            max_in_flight: 1_000,
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

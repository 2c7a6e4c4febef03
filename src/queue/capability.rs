use super::{Error, Message, Priority, Result, Start, Subscription};
use std::fmt;

/// Something that not every queue can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Feature {
    /// What was sent and acknowledged survives the loss of power.
    Durable,
    /// The messages of one send are all there, or none is.
    AtomicBatches,
    /// [`Settle::Extend`](super::Settle::Extend).
    Extend,
    /// [`Settle::Retry`](super::Settle::Retry) waits before it delivers again.
    DelayedRetry,
    /// A dead letter's copy and its acknowledgement happen as one.
    AtomicDeadLetters,
    /// [`Message::deliver_in`](super::Message::deliver_in) and `deliver_at`.
    DelayedMessages,
    /// [`Message::ttl`](super::Message::ttl).
    TimeToLive,
    /// [`Message::priority`](super::Message::priority).
    Priorities,
    /// [`Subscription::ordered`](super::Subscription::ordered).
    OrderedKeys,
    /// [`Message::dedup_id`](super::Message::dedup_id).
    Deduplication,
    /// [`Settle::AckThrough`](super::Settle::AckThrough).
    AckThrough,
    /// [`Start::Seq`](super::Start::Seq) and [`Start::Time`](super::Start::Time).
    Replay,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::Durable => "durability",
            Feature::AtomicBatches => "atomic batches",
            Feature::Extend => "extended leases",
            Feature::DelayedRetry => "delayed retries",
            Feature::AtomicDeadLetters => "atomic dead letters",
            Feature::DelayedMessages => "delayed messages",
            Feature::TimeToLive => "messages with a time to live",
            Feature::Priorities => "priorities",
            Feature::OrderedKeys => "ordered keys",
            Feature::Deduplication => "deduplication",
            Feature::AckThrough => "acknowledging everything up to a message",
            Feature::Replay => "subscriptions from a number or a time",
        })
    }
}

const EVERY: [Feature; 12] = [
    Feature::Durable,
    Feature::AtomicBatches,
    Feature::Extend,
    Feature::DelayedRetry,
    Feature::AtomicDeadLetters,
    Feature::DelayedMessages,
    Feature::TimeToLive,
    Feature::Priorities,
    Feature::OrderedKeys,
    Feature::Deduplication,
    Feature::AckThrough,
    Feature::Replay,
];

/// What a queue can do. A block that needs more refuses when it is built.
///
/// ```
/// use outgrow::queue::{Capability, Feature};
/// let simple = Capability::none().with(Feature::Extend);
/// assert!(simple.has(Feature::Extend));
/// assert!(simple.require(Feature::Durable).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Capability(u32);

impl Capability {
    /// Send, receive, acknowledge.
    pub const fn none() -> Capability {
        Capability(0)
    }

    /// Everything there is in this release.
    pub const fn all() -> Capability {
        let (mut all, mut at) = (Capability::none(), 0);
        while at < EVERY.len() {
            all = all.with(EVERY[at]);
            at += 1;
        }
        all
    }

    /// This and `feature`.
    pub const fn with(self, feature: Feature) -> Capability {
        Capability(self.0 | 1 << feature as u32)
    }

    /// This without `feature`.
    pub const fn without(self, feature: Feature) -> Capability {
        Capability(self.0 & !(1 << feature as u32))
    }

    /// Whether `feature` is there.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u32 != 0
    }

    /// Asks for everything that a message needs, for an implementation to refuse what it cannot do.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first feature that is not there.
    pub fn require_for(self, message: &Message) -> Result<()> {
        let needs = [
            (Feature::DelayedMessages, message.deliver.is_some()),
            (Feature::TimeToLive, message.ttl.is_some()),
            (Feature::Priorities, message.priority != Priority::Normal),
            (Feature::Deduplication, message.dedup_id.is_some()),
        ];
        self.require_all(needs)
    }

    /// Asks for everything that a subscription needs, for an implementation to refuse what it cannot do.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first feature that is not there.
    pub fn require_to_subscribe(self, subscription: &Subscription) -> Result<()> {
        let replays = matches!(subscription.start, Start::Seq(_) | Start::Time(_));
        self.require_all([(Feature::OrderedKeys, subscription.ordered), (Feature::Replay, replays)])
    }

    fn require_all<const N: usize>(self, needs: [(Feature, bool); N]) -> Result<()> {
        let mut needed = needs.into_iter().filter(|(_, needed)| *needed);
        needed.try_for_each(|(feature, _)| self.require(feature))
    }

    /// Asks for a feature.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it is not there.
    pub fn require(self, feature: Feature) -> Result<()> {
        match self.has(feature) {
            true => Ok(()),
            false => Err(Error::Unsupported(feature)),
        }
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(EVERY.iter().filter(|feature| self.has(**feature)))
            .finish()
    }
}

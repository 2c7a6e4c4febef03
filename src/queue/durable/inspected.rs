//! What an inspection finds.

use crate::env::WallTime;
use crate::queue::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// How far an [inspection](super::DurableQueue::inspect) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectProgress {
    /// Bytes read so far. Goes back to the beginning when the queue moved on and everything is read anew.
    pub done: u64,
    /// Bytes to read, zeros that wait to be written over included.
    pub of: u64,
}

/// One topic, as its log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TopicView {
    /// Messages that some subscription has not settled; of a topic without subscriptions, all. Settled ones that a
    /// [`Retention`](super::Retention) keeps are left out, since that is a setting of the process and not in the log.
    pub messages: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The messages among its dead letters.
    pub dead_letters: usize,
    /// The subscriptions by name.
    pub subscriptions: BTreeMap<String, SubscriptionView>,
}

/// One subscription, as the log tells. Who holds which message is known to the process that has the queue open alone;
/// what was acknowledged in the last few milliseconds may not be in the log yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SubscriptionView {
    /// Messages not settled for good.
    pub backlog: usize,
    /// Those of them that have been delivered at least once: somebody has them, or they wait for a retry.
    pub tried: usize,
    /// Those that may not be delivered yet, as their senders wish.
    pub delayed: usize,
    /// The messages of the topic that some subscription has not settled, from the oldest on that this one has not.
    pub lag: usize,
    /// The number of the oldest that is not settled.
    pub oldest: Option<u64>,
    /// How long ago that was sent, up to a second more.
    pub oldest_age: Duration,
}

/// One file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentView {
    /// Its number, which in sixteen hexadecimal digits and with `.seg` behind it is the file's name.
    pub segment: u64,
    /// The number of the first entry that it was to hold, unless the part that says so is damaged.
    pub first: Option<u64>,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes of the file; what is not in use is zeros, which wait to be written over.
    pub file_bytes: u64,
    /// Places in it that are not as they were written.
    pub damaged: usize,
}

/// A place on disk that is not as it was written. Shown as `segment 1 bytes 0..512`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DamagedBytes {
    /// The segment.
    pub segment: u64,
    /// Which bytes of its file.
    pub bytes: Range<u32>,
    /// The numbers that were lost there; none where nothing was that counts.
    pub lost: Vec<Range<u64>>,
}

impl fmt::Display for DamagedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, bytes) = (self.segment, &self.bytes);
        write!(f, "segment {segment:x} bytes {}..{}", bytes.start, bytes.end)
    }
}

/// A message as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageView {
    /// Its number.
    pub seq: u64,
    /// Its topic.
    pub topic: String,
    /// When it was sent, by the wall clock of the queue.
    pub enqueued_at: WallTime,
    /// The message. When it may be delivered is an absolute time here.
    pub message: Message,
    /// The subscriptions that have not settled it, with how often it was delivered to each.
    pub open: Vec<(String, u32)>,
    /// Whether the queue still keeps it: some subscription has not settled it, or its topic has none.
    pub kept: bool,
}

use super::Latencies;
use crate::log::Gap;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// What a queue holds, and what it has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct QueueStats {
    /// Every topic that has messages or subscriptions.
    pub topics: BTreeMap<String, TopicStats>,
    /// Messages sent.
    pub sent: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries acknowledged.
    pub acked: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Dead letters that went back to where they came from.
    pub redriven: u64,
    /// Sends of a message that was there already, by its [id](super::Message::dedup_id).
    pub duplicates: u64,
    /// Ids forgotten before the end of their window, since
    /// [`dedup_ids`](super::DurableQueueBuilder::dedup_ids) was reached.
    pub forgotten_ids: u64,
    /// Messages that a limit took before every subscription had settled them.
    pub dropped: u64,
    /// Messages lost to damage.
    pub lost: u64,
    /// Messages written again at the end of the log, so that the segments that held them could be freed.
    pub rewritten: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Syncs of data.
    pub syncs: u64,
    /// How long each of them took on the device.
    pub sync_times: Latencies,
    /// How long sends took from the moment the log had them until they were durable: the wait for a sync that is under
    /// way, and one of their own.
    pub sends: Latencies,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TopicStats {
    /// Messages kept: those that some subscription has not settled, and for a while settled ones behind them.
    pub messages: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The subscriptions by name.
    pub subscriptions: BTreeMap<String, SubscriptionStats>,
}

/// One subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Messages not settled for good.
    pub backlog: usize,
    /// Those of them that can be delivered now, and what was sent behind such: a delayed message is counted here until those
    /// before it have been delivered.
    pub ready: usize,
    /// Those that are leased to a consumer.
    pub in_flight: usize,
    /// Those that wait for a retry, or to become dead letters.
    pub waiting: usize,
    /// Those that may not be delivered yet, as their senders wish.
    pub delayed: usize,
    /// Those that wait for another one of their key.
    pub blocked: usize,
    /// The messages that the topic keeps from the oldest that is not settled on.
    pub lag: usize,
    /// How long ago the oldest that is not settled was sent, up to a second more.
    pub oldest_age: Duration,
    /// Deliveries that were not the first of their message, since the queue was opened.
    pub redelivered: u64,
    /// Messages that were not worth delivering any more, since the queue was opened.
    pub expired: u64,
}

/// What opening a queue found. It reads what was written last; older messages are looked at when their turn comes, and
/// by [`DurableQueue::verify`](super::DurableQueue::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OpenReport {
    /// Messages kept.
    pub messages: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of a write that a crash cut short; nobody was told that they are there, and they do not count.
    pub torn_bytes: u64,
    /// What is lost to damage.
    pub lost: Vec<Lost>,
    /// Places on disk, as `segment 1 bytes 0..512`, that are not as they were written.
    pub damaged: Vec<String>,
    /// How many of these places were copied into `quarantine/` beside the segments, or why they could not be.
    pub quarantined: Result<usize, String>,
}

/// How far [`DurableQueue::verify`](super::DurableQueue::verify) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Entries read so far.
    pub done: u64,
    /// Entries to read.
    pub of: u64,
}

/// What [`DurableQueue::verify`](super::DurableQueue::verify) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VerifyReport {
    /// Entries that are as they were written: messages, acknowledgements and the rest of the log.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not.
    pub lost: Vec<Lost>,
}

/// Numbers that are lost to damage. Not all of them were messages: acknowledgements are numbered too, and a lost one
/// delivers its message again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Lost {
    /// Which.
    pub seqs: Range<u64>,
    /// How they were lost.
    pub why: String,
}

impl From<Gap> for Lost {
    fn from(gap: Gap) -> Lost {
        Lost {
            seqs: gap.range,
            why: gap.why.to_string(),
        }
    }
}

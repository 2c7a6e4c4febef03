use super::rewrite::Rule;
use crate::log::{Durability, OnDamage};
use crate::queue::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of a topic's or a subscription's name.
const MAX_NAME: usize = 200;

/// How long a topic keeps its messages. Where several limits are set, the first to be reached counts.
///
/// A message that a limit takes is taken from every subscription, in flight or not: whoever holds it loses the lease.
/// [`QueueStats::dropped`](crate::queue::QueueStats::dropped) counts those that somebody had not settled. Limits hold again
/// after a restart; messages that were dropped in the last moments before a crash may be delivered all the same.
///
/// # Space on disk
/// A message that is no longer kept frees its bytes with the segment of the log that holds it, the oldest segment first.
/// So that few messages which stay do not keep all that came after them, the oldest segments are *rewritten forward*:
/// when two of them or more together hold less than a quarter of messages that are kept, these are written once more at
/// the end of the log, and the segments are freed. A message keeps its number, time, attempts, order and everything else
/// through that; leases hold. What is not settled, what waits for its time and dead letters all count as kept, whatever
/// their size. The queue looks in the background, a tenth of a second after something was settled and when it was opened,
/// and writes about 64 MiB before it frees what they held; `max_bytes` does not stop it. So the log has about four times
/// the bytes of the messages kept at most, and two segments. A message found damaged keeps its segment.
/// [`QueueStats::rewritten`](crate::queue::QueueStats::rewritten) counts.
///
/// ```
/// use outgrow::queue::Retention;
/// use std::time::Duration;
/// // Whoever subscribes can go back a day, whatever others have acknowledged.
/// let day = Retention::all().max_age(Duration::from_secs(86_400));
/// assert_ne!(day, Retention::acknowledged());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    settled_too: bool,
    age: Option<Duration>,
    bytes: Option<u64>,
    messages: Option<usize>,
}

impl Retention {
    /// Keeps a message until every subscription has settled it: the default.
    pub fn acknowledged() -> Retention {
        Retention::default()
    }

    /// Keeps a message whether or not it is settled, until a limit takes it, so that a new subscription can begin with
    /// any [`Start`](crate::queue::Start). Without a limit it is kept for ever.
    pub fn all() -> Retention {
        Retention {
            settled_too: true,
            ..Retention::default()
        }
    }

    /// Drops what was sent longer ago than this, by the wall clock, up to two seconds late. Default: no limit.
    pub fn max_age(mut self, age: Duration) -> Retention {
        self.age = Some(age);
        self
    }

    /// Drops the oldest messages while the topic has more bytes than this, keys and headers included, but never the last
    /// one. Default: no limit.
    pub fn max_bytes(mut self, bytes: u64) -> Retention {
        self.bytes = Some(bytes);
        self
    }

    /// Drops the oldest messages while the topic has more of them than this; 0 is 1. Default: no limit.
    pub fn max_messages(mut self, messages: usize) -> Retention {
        self.messages = Some(messages.max(1));
        self
    }

    pub(super) fn keeps_settled(&self) -> bool {
        self.settled_too
    }

    /// Whether anything but being settled ends what is kept.
    pub(super) fn has_limits(&self) -> bool {
        self.age.is_some() || self.bytes.is_some() || self.messages.is_some()
    }

    pub(super) fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Whether a topic of so many messages and bytes has to drop its oldest one.
    pub(super) fn is_over(&self, messages: usize, bytes: u64) -> bool {
        messages > 1
            && (self.messages.is_some_and(|most| messages > most) || self.bytes.is_some_and(|most| bytes > most))
    }
}

/// What a send does while the log has reached [`max_bytes`](super::DurableQueueBuilder::max_bytes), or the disk has no
/// room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// It fails with [`Error::Full`].
    #[default]
    Refuse,
    /// It waits until there is room. Dropping the future is then as if it had not been called.
    Wait,
    /// It has the oldest messages of the whole queue dropped, by whole segments, as
    /// [`Retention`] would drop them, and waits for the room.
    DropOldest,
}

/// Everything that a queue is told when it is opened.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) segment_bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) cache_bytes: usize,
    pub(super) max_subscriptions: usize,
    pub(super) dedup_window: Duration,
    pub(super) dedup_ids: usize,
    pub(super) retention: Retention,
    pub(super) topics: BTreeMap<Arc<str>, Retention>,
    pub(super) on_full: OnFull,
    pub(super) durability: Durability,
    pub(super) ack_durability: Durability,
    pub(super) on_damage: OnDamage,
    pub(super) rewrite: Rule,
    /// How long after an acknowledgement the queue looks whether space can be freed.
    pub(super) tidy_after: Duration,
}

/// The smallest segment of the log.
const MIN_SEGMENT: u64 = 8 << 10;

impl Settings {
    pub(super) fn retention_of(&self, topic: &str) -> Retention {
        self.topics.get(topic).copied().unwrap_or(self.retention)
    }

    /// Refuses what cannot work, and fits the segments into the bound: space is freed by whole ones.
    pub(super) fn check(mut self) -> Result<Settings> {
        if self.max_bytes < 3 * MIN_SEGMENT {
            return Err(Error::invalid(format!("max_bytes is at least {}", 3 * MIN_SEGMENT)));
        }
        if self.max_subscriptions == 0 {
            return Err(Error::invalid("max_subscriptions is at least 1"));
        }
        self.segment_bytes = self.segment_bytes.min(self.max_bytes / 4).max(MIN_SEGMENT);
        Ok(self)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            segment_bytes: 64 << 20,
            max_bytes: 16 << 30,
            cache_bytes: 64 << 20,
            max_subscriptions: 10_000,
            dedup_window: Duration::from_secs(120),
            dedup_ids: 100_000,
            retention: Retention::acknowledged(),
            topics: BTreeMap::new(),
            on_full: OnFull::Refuse,
            durability: Durability::Disk,
            ack_durability: Durability::Os,
            on_damage: OnDamage::Serve,
            rewrite: Rule::default(),
            tidy_after: Duration::from_millis(100),
        }
    }
}

/// Refuses a name that is too long, or none.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        len => Err(Error::invalid(format!(
            "{what} has a name of 1 to {MAX_NAME} bytes, not {len}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn limits_leave_what_fits_and_never_nothing(
            lens in prop::collection::vec(0..100_u64, 1..40),
            most in prop::option::of(0..40_usize),
            room in prop::option::of(0..2_000_u64),
        ) {
            let mut retention = Retention::acknowledged();
            retention = most.map_or(retention, |most| retention.max_messages(most));
            retention = room.map_or(retention, |room| retention.max_bytes(room));
            let mut left = &lens[..];
            while retention.is_over(left.len(), left.iter().sum()) {
                left = &left[1..];
            }
            // The dumbest way: the longest end of the list that fits, or its last.
            let fits = |tail: &[u64]| {
                most.is_none_or(|most| tail.len() <= most.max(1)) && room.is_none_or(|room| tail.iter().sum::<u64>() <= room)
            };
            let wanted = (0..lens.len()).map(|from| &lens[from..]).find(|tail| fits(tail));
            prop_assert_eq!(left, wanted.unwrap_or(&lens[lens.len() - 1..]));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let tiny = Settings {
            max_bytes: 1_000,
            ..Settings::default()
        };
        assert!(matches!(tiny.check(), Err(Error::Invalid { .. })));
        let none = Settings {
            max_subscriptions: 0,
            ..Settings::default()
        };
        assert!(matches!(none.check(), Err(Error::Invalid { .. })));
        let small = Settings {
            max_bytes: 1 << 20,
            ..Settings::default()
        };
        assert_eq!(
            small.check().unwrap().segment_bytes,
            256 << 10,
            "so that some can be freed"
        );
    }
}

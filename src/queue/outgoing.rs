use super::dedup::{Id, IdHash};
use super::record::{due, encode_message, expires};
use super::standing::Stored;
use super::{Error, Message, Priority, Result};
use crate::env::WallTime;
use crate::hash::KeyedHash;
use crate::log::{Entry, Log};
use bytes::Bytes;
use std::sync::Arc;

/// The most bytes of a message, with its key, headers and topic. It leaves room in an entry of the log, 64 MiB, for what
/// a dead letter says more.
const MAX_MESSAGE: usize = (64 << 20) - (4 << 10);
/// From this size on a message may be more than a frame of the log holds, and is written ahead in pieces.
pub(super) const LARGE: usize = 512 << 10;
/// The most bytes of a message's id.
const MAX_ID: usize = 128;

/// Messages on their way into a topic.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) topic: Arc<str>,
    pub(super) sent: WallTime,
    pub(super) messages: Vec<Outgoing>,
}

impl Batch {
    /// What the log gets.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let entry = |message: &Outgoing| match &message.staged {
            Some(staged) => staged.clone(),
            None => message.entry.clone().into(),
        };
        self.messages.iter().map(entry).collect()
    }

    /// Writes large messages ahead, so that others go between their pieces. They are there only when their entries are.
    pub(super) async fn stage(&mut self, log: &Log) -> Result<()> {
        for message in self.messages.iter_mut().filter(|message| message.entry.len() >= LARGE) {
            message.staged = Some(log.stage(message.entry.clone()).await?);
        }
        Ok(())
    }

    /// Those of the messages that `fresh` picks.
    pub(super) fn only(&self, fresh: impl Fn(usize) -> bool) -> Batch {
        let messages = self.messages.iter().enumerate();
        let fresh = messages
            .filter(|(at, _)| fresh(*at))
            .map(|(_, message)| message.clone());
        Batch {
            topic: Arc::clone(&self.topic),
            sent: self.sent,
            messages: fresh.collect(),
        }
    }
}

/// A message's entry, and what the heart has to know of it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) entry: Bytes,
    staged: Option<Entry>,
    pub(super) id: Option<Id>,
    facts: Facts,
}

/// What the heart knows of a message besides its number and length.
#[derive(Clone, Copy, Debug)]
struct Facts {
    priority: Priority,
    due: u64,
    expires: u64,
    key: u64,
}

impl Facts {
    fn new(message: &Message, sent: WallTime, keys: &KeyedHash) -> Facts {
        Facts {
            priority: message.priority,
            due: due(message, sent).map_or(0, WallTime::as_millis),
            expires: expires(message, sent).map_or(0, WallTime::as_millis),
            key: message.key.as_ref().map_or(0, |key| keys.hash(key).max(1)),
        }
    }

    fn stored(self, seq: u64, len: u32) -> Stored {
        Stored {
            seq,
            len,
            priority: self.priority,
            due: self.due,
            expires: self.expires,
            key: self.key,
        }
    }
}

impl Outgoing {
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Invalid`].
    pub(super) fn new(
        topic: &str,
        sent: WallTime,
        message: &Message,
        (keys, ids): (&KeyedHash, &IdHash),
    ) -> Result<Outgoing> {
        let entry = encode_message(topic, sent, message);
        if entry.len() > MAX_MESSAGE {
            let (len, max) = (entry.len(), MAX_MESSAGE);
            return Err(Error::TooLarge { len, max });
        }
        let id = message.dedup_id.as_ref();
        if id.is_some_and(|id| !(1..=MAX_ID).contains(&id.len())) {
            return Err(Error::invalid(format!("a dedup id has 1 to {MAX_ID} bytes")));
        }
        Ok(Outgoing {
            entry,
            staged: None,
            id: id.map(|id| ids.id(topic, id)),
            facts: Facts::new(message, sent, keys),
        })
    }

    /// The same, of a message that is in the log already, or is a changed copy of one that is.
    pub(super) fn copy(topic: &str, sent: WallTime, message: &Message, (keys, ids): (&KeyedHash, &IdHash)) -> Outgoing {
        Outgoing {
            entry: encode_message(topic, sent, message),
            staged: None,
            id: message.dedup_id.as_ref().map(|id| ids.id(topic, id)),
            facts: Facts::new(message, sent, keys),
        }
    }

    pub(super) fn stored(&self, seq: u64) -> Stored {
        self.facts.stored(seq, self.entry.len() as u32)
    }
}

/// What the heart keeps of a message that the log holds as number `seq`, in an entry of `len` bytes.
pub(super) fn stored(seq: u64, len: u32, sent: WallTime, message: &Message, keys: &KeyedHash) -> Stored {
    Facts::new(message, sent, keys).stored(seq, len)
}

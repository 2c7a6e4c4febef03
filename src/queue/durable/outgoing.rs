use super::heart::dedup::{Id, IdHash};
use super::heart::standing::Stored;
use super::record::{due, encode_message, expires, put_message};
use crate::env::WallTime;
use crate::hash::KeyedHash;
use crate::log::{Entries, Entry, Given, Log};
use crate::queue::{Error, Message, Priority, Result};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// The most bytes of a message, with its key, headers and topic. It leaves room in an entry of the log, 64 MiB, for what
/// a dead letter says more.
const MAX_MESSAGE: usize = (64 << 20) - (4 << 10);
/// From this size on a message may be more than a frame of the log holds, and is written ahead in pieces.
pub(super) const LARGE: usize = 512 << 10;
/// The most bytes of a message's id.
const MAX_ID: usize = 128;

/// Messages on their way into a topic. Their entries lie one behind the other, so that few and many take as few
/// allocations.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) topic: Arc<str>,
    sent: WallTime,
    /// The entries, but for the large ones, which take no room here. Nothing, once nobody needs them.
    bytes: Bytes,
    /// Where each of them ends, but the last.
    ends: Vec<usize>,
    /// Where the last of them ends.
    end: usize,
    /// What few batches have.
    special: Option<Box<Special>>,
}

/// What is special about the messages of a batch.
#[derive(Clone, Debug, Default)]
struct Special {
    /// What the heart has to know of each; nothing, when nothing is asked of any delivery.
    facts: Vec<Facts>,
    /// The id of each; nothing, when none has one.
    ids: Vec<Option<Id>>,
    /// By their places among the messages.
    large: Vec<(usize, Large)>,
}

impl Special {
    fn if_any(self) -> Option<Box<Special>> {
        let any = !(self.facts.is_empty() && self.ids.is_empty() && self.large.is_empty());
        any.then(|| Box::new(self))
    }
}

/// A message of which more is to be written than a frame of the log may hold.
#[derive(Clone, Debug)]
struct Large {
    entry: Bytes,
    staged: Option<Entry>,
}

impl Batch {
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Invalid`].
    pub(super) fn new(
        topic: &str,
        sent: WallTime,
        messages: &[Message],
        hashes: (&KeyedHash, &IdHash),
    ) -> Result<Batch> {
        let batch = Batch::unchecked(topic, sent, messages, hashes);
        let longest = (0..batch.len()).map(|at| batch.len_of(at)).max();
        if let Some(len) = longest.filter(|len| *len > MAX_MESSAGE) {
            return Err(Error::TooLarge { len, max: MAX_MESSAGE });
        }
        let ids = messages.iter().filter_map(|message| message.dedup_id.as_ref());
        if ids.into_iter().any(|id| !(1..=MAX_ID).contains(&id.len())) {
            return Err(Error::invalid(format!("a dedup id has 1 to {MAX_ID} bytes")));
        }
        Ok(batch)
    }

    /// The same, of messages that are in the log already, or are changed copies of such.
    pub(super) fn unchecked(
        topic: &str,
        sent: WallTime,
        messages: &[Message],
        (keys, ids): (&KeyedHash, &IdHash),
    ) -> Batch {
        let most = messages.iter().map(|message| most_of(topic, message));
        let room = most.filter(|most| *most < LARGE).sum();
        let (mut bytes, mut special) = (Vec::with_capacity(room), Special::default());
        let mut ends = Vec::with_capacity(messages.len().saturating_sub(1));
        for (at, message) in messages.iter().enumerate() {
            if at > 0 {
                ends.push(bytes.len());
            }
            match most_of(topic, message) < LARGE {
                true => put_message(&mut bytes, topic, sent, message),
                false => {
                    let (entry, staged) = (encode_message(topic, sent, message), None);
                    special.large.push((at, Large { entry, staged }));
                }
            }
        }
        if !messages.iter().all(is_plain) {
            let facts = messages.iter().map(|message| Facts::new(message, sent, keys));
            special.facts = facts.collect();
        }
        if messages.iter().any(|message| message.dedup_id.is_some()) {
            let id = |message: &Message| message.dedup_id.as_ref().map(|id| ids.id(topic, id));
            special.ids = messages.iter().map(id).collect();
        }
        Batch {
            topic: topic.into(),
            sent,
            end: bytes.len(),
            bytes: bytes.into(),
            ends,
            special: special.if_any(),
        }
    }

    /// The batch, of which nothing is left here.
    pub(super) fn take(&mut self) -> Batch {
        let topic = Arc::clone(&self.topic);
        let rest = Batch {
            topic,
            sent: self.sent,
            bytes: Bytes::new(),
            ends: Vec::new(),
            end: 0,
            special: None,
        };
        std::mem::replace(self, rest)
    }

    /// Whether the entries are at hand.
    pub(super) fn has_entries(&self) -> bool {
        self.bytes.len() == self.end
    }

    /// Forgets the entries, which the log has now; what the heart has to know stays.
    pub(super) fn forget_entries(&mut self) {
        self.bytes = Bytes::new();
    }

    /// When it was sent.
    pub(super) fn sent(&self) -> WallTime {
        self.sent
    }

    /// How many messages it has.
    pub(super) fn len(&self) -> usize {
        match self.end == 0 && self.larges().is_empty() {
            true => 0,
            false => self.ends.len() + 1,
        }
    }

    /// Where the entry of a message lies that is not large.
    fn range(&self, at: usize) -> Range<usize> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends.get(at).copied().unwrap_or(self.end)
    }

    /// Whether any message is to be staged.
    pub(super) fn has_large(&self) -> bool {
        !self.larges().is_empty()
    }

    fn larges(&self) -> &[(usize, Large)] {
        self.special.as_ref().map_or(&[], |special| &special.large)
    }

    fn large(&self, at: usize) -> Option<&Large> {
        let large = self.larges().iter().find(|(of, _)| *of == at);
        large.map(|(_, large)| large)
    }

    /// Bytes of a message's entry.
    fn len_of(&self, at: usize) -> usize {
        self.large(at)
            .map_or_else(|| self.range(at).len(), |large| large.entry.len())
    }

    /// The entry of a message.
    pub(super) fn entry(&self, at: usize) -> Bytes {
        let large = self.large(at).map(|large| large.entry.clone());
        large.unwrap_or_else(|| self.bytes.slice(self.range(at)))
    }

    /// All entries in one piece, and where each of them ends but the last, unless one is large.
    pub(super) fn into_whole(self) -> std::result::Result<(Bytes, Vec<usize>), Batch> {
        match self.larges().is_empty() {
            true => Ok((self.bytes, self.ends)),
            false => Err(self),
        }
    }

    /// What the log gets.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let staged = |at| self.large(at).and_then(|large| large.staged.clone());
        let each = (0..self.len()).map(|at| staged(at).unwrap_or_else(|| self.entry(at).into()));
        each.collect()
    }

    /// Whether nothing is asked of any delivery.
    pub(super) fn is_plain(&self) -> bool {
        self.special.as_ref().is_none_or(|special| special.facts.is_empty())
    }

    /// What the heart keeps of a message that has number `seq`.
    pub(super) fn stored(&self, at: usize, seq: u64) -> Stored {
        let facts = self.special.as_ref().and_then(|special| special.facts.get(at));
        let facts = facts.copied().unwrap_or_default();
        facts.stored(seq, self.len_of(at) as u32)
    }

    /// The same of all of them, the first of which has number `first`.
    pub(super) fn all_stored(&self, first: u64) -> impl Iterator<Item = Stored> {
        (first..).zip(0..self.len()).map(|(seq, at)| self.stored(at, seq))
    }

    /// Whether it can be dealt with together with another.
    pub(super) fn goes_with(&self, other: &Batch) -> bool {
        self.topic == other.topic && self.is_plain() == other.is_plain()
    }

    /// What tells a message from its repetitions.
    pub(super) fn id(&self, at: usize) -> Option<Id> {
        self.special.as_ref()?.ids.get(at).copied().flatten()
    }

    /// The ids that there are, each with the place of its message.
    pub(super) fn ids(&self) -> impl Iterator<Item = (usize, Id)> {
        let ids = self.special.iter().flat_map(|special| special.ids.iter().enumerate());
        ids.filter_map(|(at, id)| Some((at, (*id)?)))
    }

    /// Writes large messages ahead, so that others go between their pieces. They are there only when their entries are.
    pub(super) async fn stage(&mut self, log: &Log) -> Result<()> {
        for (_, large) in self.special.iter_mut().flat_map(|special| &mut special.large) {
            large.staged = Some(log.stage(large.entry.clone()).await?);
        }
        Ok(())
    }

    /// Those of the messages that `fresh` picks.
    pub(super) fn only(&self, fresh: impl Fn(usize) -> bool) -> Batch {
        let picked: Vec<usize> = (0..self.len()).filter(|at| fresh(*at)).collect();
        let (mut bytes, mut ends, mut special) = (Vec::new(), Vec::new(), Special::default());
        for (to, from) in picked.iter().copied().enumerate() {
            if to > 0 {
                ends.push(bytes.len());
            }
            match self.large(from) {
                Some(of) => special.large.push((to, of.clone())),
                None => bytes.extend_from_slice(&self.bytes[self.range(from)]),
            }
        }
        if let Some(all) = &self.special {
            let picked = || picked.iter().copied();
            special.facts = picked().filter_map(|at| all.facts.get(at).copied()).collect();
            special.ids = picked().filter_map(|at| all.ids.get(at).copied()).collect();
        }
        Batch {
            topic: Arc::clone(&self.topic),
            sent: self.sent,
            end: bytes.len(),
            bytes: bytes.into(),
            ends,
            special: special.if_any(),
        }
    }
}

impl Entries for Batch {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Given<'_> {
        match self.large(index) {
            None => Given::from(&self.bytes[self.range(index)]),
            Some(Large {
                staged: Some(staged), ..
            }) => staged.into(),
            Some(large) => Given::from(&large.entry),
        }
    }
}

/// The most that a message's entry may take.
fn most_of(topic: &str, message: &Message) -> usize {
    let headers = message.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len() + 20);
    let parts = [&message.key, &message.dedup_id].into_iter().flatten();
    let parts = parts.map(|part| part.len() + 10);
    message.payload.len() + headers.sum::<usize>() + parts.sum::<usize>() + topic.len() + 64
}

/// Whether nothing is asked of a message's delivery.
fn is_plain(message: &Message) -> bool {
    let timed = message.deliver.is_some() || message.ttl.is_some();
    !timed && message.key.is_none() && message.priority == Priority::Normal
}

/// What the heart knows of a message besides its number and length.
#[derive(Clone, Copy, Debug, Default)]
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

/// What the heart keeps of a message that the log holds as number `seq`, in an entry of `len` bytes.
pub(super) fn stored(seq: u64, len: u32, sent: WallTime, message: &Message, keys: &KeyedHash) -> Stored {
    Facts::new(message, sent, keys).stored(seq, len)
}

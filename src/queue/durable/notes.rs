//! What opening wants to know of an entry without reading it: of a message everything but its headers and its payload,
//! of another record all of it. Of a copy it wants what it wants of the message, and where the copy lies.
//!
//! A note begins with a byte that says what it is:
//! - 0: nothing is noted, the entry is to be read.
//! - 1: a message of the topic of the message noted before it. The second byte of its entry; the entry's length; how many
//!   milliseconds after that one it was sent, folded so that small numbers stay small on either side of zero; and what the
//!   entry has of after how long it is due and over, its key and its id.
//! - 2: the same of a message of another topic, or the first one noted, with the topic after the second byte of the entry,
//!   and sent so many milliseconds after 1970.
//! - 3: a record, with its length before it.
//! - 4: a copy of a message: its number, and behind that a note of it that begins with 1 or 2.

use super::heading::Heading;
use super::heart::standing::Stored;
use super::outgoing::stored;
use super::record::{Record, priority};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::env::WallTime;
use crate::hash::KeyedHash;
use crate::log::{Noter, Notes};
use crate::queue::{DeliverAt, Message, Priority};
use bytes::Bytes;
use std::time::Duration;

/// What the log is to note for the queue.
pub(super) const NOTES: Notes = Notes {
    format: 1,
    noter: || Box::new(Writing::default()),
};

const READ: u8 = 0;
const SAME_TOPIC: u8 = 1;
const OTHER_TOPIC: u8 = 2;
const RECORD: u8 = 3;
const COPY: u8 = 4;

/// A message with a longer key is read instead, and so is a longer record.
const MAX_KEY: usize = 1 << 10;
const MAX_RECORD: usize = 64 << 10;

/// Makes notes.
#[derive(Default)]
struct Writing {
    /// Of the message noted last.
    topic: Vec<u8>,
    sent: u64,
    has_topic: bool,
}

impl Noter for Writing {
    fn note(&mut self, entry: Option<&[u8]>, out: &mut Vec<u8>) {
        let is_noted = entry.map(|entry| self.entry(entry, out));
        if !matches!(is_noted, Some(Ok(true))) {
            out.push(READ);
        }
    }
}

impl Writing {
    /// Notes an entry, unless it is better read.
    fn entry(&mut self, entry: &[u8], out: &mut Vec<u8>) -> Result<bool, Malformed> {
        let copied = Record::copied_in(entry)?;
        let message = copied.map_or(entry, |(_, message)| message);
        match Heading::of_entry(message)? {
            Some(head) if head.key.is_none_or(|key| key.len() <= MAX_KEY) => {
                if let Some((seq, _)) = copied {
                    out.push(COPY);
                    put_varint(out, seq);
                }
                self.message(message.len(), &head, out);
            }
            None if entry.len() <= MAX_RECORD => {
                out.push(RECORD);
                put_bytes(out, entry);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn message(&mut self, len: usize, head: &Heading<'_>, out: &mut Vec<u8>) {
        if self.has_topic && self.topic == head.topic {
            out.extend([SAME_TOPIC, head.flags]);
            put_varint(out, len as u64);
            put_varint(out, fold(head.sent.wrapping_sub(self.sent)));
        } else {
            out.extend([OTHER_TOPIC, head.flags]);
            put_bytes(out, head.topic);
            put_varint(out, len as u64);
            put_varint(out, head.sent);
            self.has_topic = true;
            self.topic.clear();
            self.topic.extend_from_slice(head.topic);
        }
        self.sent = head.sent;
        head.due.into_iter().for_each(|due| put_varint(out, due));
        head.ttl.into_iter().for_each(|ttl| put_varint(out, ttl));
        head.key.into_iter().for_each(|key| put_bytes(out, key));
        head.dedup_id.into_iter().for_each(|id| put_bytes(out, id));
    }
}

/// Small numbers of either sign as small numbers.
fn fold(difference: u64) -> u64 {
    (difference << 1) ^ (difference as i64 >> 63) as u64
}

fn unfold(folded: u64) -> u64 {
    (folded >> 1) ^ (folded & 1).wrapping_neg()
}

/// A number of at most two bytes, and what is behind it.
#[inline]
fn short(bytes: &[u8]) -> Option<(u32, &[u8])> {
    match bytes {
        [low, rest @ ..] if *low < 0x80 => Some(((*low).into(), rest)),
        [low, high, rest @ ..] if *high < 0x80 => Some((u32::from(*low & 0x7f) | u32::from(*high) << 7, rest)),
        _ => None,
    }
}

/// What is noted of one entry.
#[derive(Debug)]
pub(super) enum Note<'a> {
    /// It is to be read.
    Read,
    Message(Noted<'a>),
    /// A copy of the message of this number.
    Copy(u64, Noted<'a>),
    Record(Record),
}

/// A message without its headers and its payload.
#[derive(Debug)]
pub(super) struct Noted<'a> {
    pub(super) topic: &'a str,
    /// Bytes of the entry.
    len: u32,
    pub(super) sent: WallTime,
    head: Heading<'a>,
}

/// A message of which nothing was wished but a priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    len: u32,
    priority: Priority,
    pub(super) sent: WallTime,
}

impl Plain {
    /// What the heart keeps of it as number `seq`.
    pub(super) fn stored(self, seq: u64) -> Stored {
        Stored {
            seq,
            len: self.len,
            priority: self.priority,
            due: 0,
            expires: 0,
            key: 0,
        }
    }
}

/// Reads notes, from the first on.
pub(super) struct Reading<'a> {
    rest: &'a [u8],
    topic: &'a str,
    sent: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn new(notes: &'a [u8]) -> Reading<'a> {
        Reading {
            rest: notes,
            topic: "",
            sent: 0,
        }
    }

    /// The note of the next entry, if that is a plain message of the same topic as the one before it: most are, and there
    /// may be millions.
    #[inline]
    pub(super) fn next_plain(&mut self) -> Option<Plain> {
        let (&[kind, flags], rest) = self.rest.split_first_chunk()?;
        if kind != SAME_TOPIC || !Heading::is_plain(flags) {
            return None;
        }
        let (len, rest) = short(rest)?;
        let (sent, rest) = short(rest)?;
        self.rest = rest;
        self.sent = self.sent.wrapping_add(unfold(sent.into()));
        Some(Plain {
            len,
            priority: priority(flags),
            sent: WallTime::from_millis(self.sent),
        })
    }

    /// The note of the next entry.
    pub(super) fn next(&mut self) -> Result<Note<'a>, Malformed> {
        let mut input = Reader::new(self.rest);
        let note = match input.byte()? {
            READ => Note::Read,
            kind @ (SAME_TOPIC | OTHER_TOPIC) => Note::Message(self.message(kind, &mut input)?),
            COPY => Note::Copy(input.varint()?, self.copied(&mut input)?),
            RECORD => Note::Record(Record::decode(&Bytes::copy_from_slice(input.bytes()?))?),
            _ => return Err(Malformed("a note of an unknown kind")),
        };
        self.rest = input.rest();
        Ok(note)
    }

    fn copied(&mut self, input: &mut Reader<'a>) -> Result<Noted<'a>, Malformed> {
        match input.byte()? {
            kind @ (SAME_TOPIC | OTHER_TOPIC) => self.message(kind, input),
            _ => Err(Malformed("a note of a copy of something that is no message")),
        }
    }

    fn message(&mut self, kind: u8, input: &mut Reader<'a>) -> Result<Noted<'a>, Malformed> {
        let flags = input.byte()?;
        if kind == OTHER_TOPIC {
            let topic = std::str::from_utf8(input.bytes()?);
            self.topic = topic.map_err(|_| Malformed("a name that is not UTF-8"))?;
        }
        let len = u32::try_from(input.varint()?).map_err(|_| Malformed("a message longer than 4 GiB"))?;
        let sent = input.varint()?;
        self.sent = match kind {
            OTHER_TOPIC => sent,
            _ => self.sent.wrapping_add(unfold(sent)),
        };
        Ok(Noted {
            topic: self.topic,
            len,
            sent: WallTime::from_millis(self.sent),
            head: Heading::without_headers(flags, self.topic.as_bytes(), self.sent, input)?,
        })
    }
}

impl Noted<'_> {
    /// What the heart keeps of it as number `seq`.
    pub(super) fn stored(&self, seq: u64, keys: &KeyedHash) -> Stored {
        let head = &self.head;
        let after = |after: u64| DeliverAt::At(self.sent + Duration::from_millis(after));
        let message = Message {
            payload: Bytes::new(),
            key: head.key.map(Bytes::copy_from_slice),
            headers: Vec::new(),
            deliver: head.due.map(after),
            ttl: head.ttl.map(Duration::from_millis),
            priority: priority(head.flags),
            dedup_id: None,
        };
        stored(seq, self.len, self.sent, &message, keys)
    }

    pub(super) fn dedup_id(&self) -> Option<&[u8]> {
        self.head.dedup_id
    }
}

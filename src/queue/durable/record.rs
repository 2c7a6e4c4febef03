//! What the queue writes into its log, one record an entry.

use super::heart::dedup::{Id, Noted};
use super::runs::{Run, put_runs, runs};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::env::WallTime;
use crate::queue::{DeliverAt, Message, Priority};
use bytes::{Buf, Bytes};
use std::ops::Range;
use std::time::Duration;

/// A subscription's number, short because every acknowledgement carries it.
pub(super) type SubId = u32;

/// One entry of the log. What it says is true from its place in the log on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A message was sent. When it is delivered is an absolute time here.
    Message {
        topic: String,
        sent: WallTime,
        message: Message,
    },
    /// A subscription was made; it gets messages from number `from` on, or from its own.
    Subscribed {
        id: SubId,
        topic: String,
        name: String,
        from: Option<u64>,
    },
    /// Messages were delivered, each for the so-manieth time.
    Delivered { id: SubId, attempts: Vec<(u64, u32)> },
    /// Messages were acknowledged.
    Acked { id: SubId, seqs: Vec<u64> },
    /// Everything up to this number was acknowledged.
    AckedThrough { id: SubId, seq: u64 },
    /// Where a subscription stands, so that older records are no longer needed: of the messages whose numbers are in
    /// `part`, only those in `open` are not acknowledged. Each part is true by itself, at its place in the log; all of
    /// them together tell everything.
    Standing {
        id: SubId,
        topic: String,
        name: String,
        part: Range<u64>,
        open: Vec<Run>,
    },
    /// A limit of the topic took the messages before this number from every subscription.
    Dropped { topic: String, before: u64 },
    /// Messages left their topic for another.
    Moved { topic: String, seqs: Vec<u64> },
    /// Ids of messages that may be gone from the log, so that their repetitions are told all the same. They are hashed
    /// under `secret`, which is the same in every such record of a log.
    Ids { secret: (u64, u64), ids: Vec<Noted> },
    /// Message number `seq` once more, so that the segment that held it can be freed. It counts as open everywhere until
    /// the next record says more.
    Copy { seq: u64, entry: Bytes },
    /// What is open of messages whose copies are in the same frame: each with the subscriptions that have not settled it,
    /// and how often it was delivered to them.
    Copied {
        topic: String,
        messages: Vec<(u64, Vec<(SubId, u32)>)>,
    },
}

pub(super) const MESSAGE: u8 = 1;
const SUBSCRIBED: u8 = 2;
const DELIVERED: u8 = 3;
const ACKED: u8 = 4;
/// As it was written before it had parts, each message for itself.
const STANDING_WHOLE: u8 = 5;
const DROPPED: u8 = 6;
const MOVED: u8 = 7;
const IDS: u8 = 8;
const ACKED_THROUGH: u8 = 9;
const STANDING: u8 = 10;
const COPY: u8 = 11;
const COPIED: u8 = 12;

/// What of a message's parts is there, in its second byte. Two of the bits are its priority.
pub(super) const KEY: u8 = 1;
pub(super) const HEADERS: u8 = 1 << 1;
pub(super) const DUE: u8 = 1 << 2;
pub(super) const TTL: u8 = 1 << 3;
const PRIORITY_AT: u32 = 4;
pub(super) const DEDUP: u8 = 1 << 6;
pub(super) const UNKNOWN: u8 = 1 << 7;
const PRIORITIES: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Record::Message { topic, sent, message } => encode_message(topic, *sent, message),
            Record::Subscribed { id, topic, name, from } => {
                let mut out = vec![SUBSCRIBED];
                put_varint(&mut out, (*id).into());
                put_bytes(&mut out, topic.as_bytes());
                put_bytes(&mut out, name.as_bytes());
                // Numbers begin at 1.
                put_varint(&mut out, from.unwrap_or(0));
                out.into()
            }
            Record::Delivered { id, attempts } => {
                let mut out = vec![DELIVERED];
                put_varint(&mut out, (*id).into());
                put_attempts(&mut out, attempts);
                out.into()
            }
            Record::Acked { id, seqs } => {
                let mut out = vec![ACKED];
                put_varint(&mut out, (*id).into());
                put_seqs(&mut out, seqs);
                out.into()
            }
            Record::Standing {
                id,
                topic,
                name,
                part,
                open,
            } => {
                let mut out = vec![STANDING];
                put_varint(&mut out, (*id).into());
                put_bytes(&mut out, topic.as_bytes());
                put_bytes(&mut out, name.as_bytes());
                put_varint(&mut out, part.start);
                put_varint(&mut out, part.end);
                put_runs(&mut out, open);
                out.into()
            }
            Record::AckedThrough { id, seq } => {
                let mut out = vec![ACKED_THROUGH];
                put_varint(&mut out, (*id).into());
                put_varint(&mut out, *seq);
                out.into()
            }
            Record::Dropped { topic, before } => {
                let mut out = vec![DROPPED];
                put_bytes(&mut out, topic.as_bytes());
                put_varint(&mut out, *before);
                out.into()
            }
            Record::Moved { topic, seqs } => {
                let mut out = vec![MOVED];
                put_bytes(&mut out, topic.as_bytes());
                put_seqs(&mut out, seqs);
                out.into()
            }
            Record::Ids { secret, ids } => encode_ids(*secret, ids),
            Record::Copy { seq, entry } => encode_copy(*seq, entry),
            Record::Copied { topic, messages } => {
                let mut out = vec![COPIED];
                put_bytes(&mut out, topic.as_bytes());
                put_varint(&mut out, messages.len() as u64);
                for (seq, open) in messages {
                    put_varint(&mut out, *seq);
                    put_varint(&mut out, open.len() as u64);
                    for (id, attempts) in open {
                        put_varint(&mut out, (*id).into());
                        put_varint(&mut out, (*attempts).into());
                    }
                }
                out.into()
            }
        }
    }

    /// Refuses what nobody could have said at number `at` of the log: something of a message that is not before it.
    pub(super) fn check(&self, at: u64) -> Result<(), Malformed> {
        let newest = match self {
            Record::Message { .. } | Record::Subscribed { .. } | Record::Ids { .. } => None,
            Record::Delivered { attempts, .. } => attempts.iter().map(|(seq, _)| *seq).max(),
            Record::Acked { seqs, .. } | Record::Moved { seqs, .. } => seqs.iter().copied().max(),
            Record::AckedThrough { seq, .. } | Record::Copy { seq, .. } => Some(*seq),
            // Its part may end behind it: a subscription can begin with messages that are to come.
            Record::Standing { open, .. } => open.last().map(|run| run.end() - 1),
            Record::Dropped { before, .. } => before.checked_sub(1),
            Record::Copied { messages, .. } => messages.iter().map(|(seq, _)| *seq).max(),
        };
        match newest {
            Some(seq) if seq >= at => Err(Malformed("it tells of a message that is not before it")),
            _ => Ok(()),
        }
    }

    /// The message in the entry at number `at`, with its own number: it may be a copy.
    pub(super) fn message_in(at: u64, entry: &Bytes) -> Option<(u64, Bytes)> {
        match *entry.first()? {
            MESSAGE => Some((at, entry.clone())),
            COPY => {
                let (seq, message) = copy(&mut Reader::new(&entry[1..])).ok()?;
                Some((seq, entry.slice_ref(message)))
            }
            _ => None,
        }
    }

    /// If an entry is a copy, the number of the message, and its entry.
    pub(super) fn copied_in(entry: &[u8]) -> Result<Option<(u64, &[u8])>, Malformed> {
        match entry {
            [COPY, rest @ ..] => copy(&mut Reader::new(rest)).map(Some),
            _ => Ok(None),
        }
    }

    /// The topic of an entry that is a message.
    pub(super) fn topic_of(entry: &[u8]) -> Option<&[u8]> {
        let (&[kind, _flags], rest) = entry.split_first_chunk()?;
        let topic = Reader::new(rest).bytes().ok()?;
        (kind == MESSAGE).then_some(topic)
    }

    /// Reads an entry; payloads share its memory.
    pub(super) fn decode(entry: &Bytes) -> Result<Record, Malformed> {
        let mut input = Reader::new(entry);
        let record = match input.byte()? {
            MESSAGE => decode_message(&mut input, entry)?,
            SUBSCRIBED => Record::Subscribed {
                id: id(&mut input)?,
                topic: string(&mut input)?,
                name: string(&mut input)?,
                from: Some(input.varint()?).filter(|from| *from > 0),
            },
            DELIVERED => Record::Delivered {
                id: id(&mut input)?,
                attempts: attempts(&mut input)?,
            },
            ACKED => Record::Acked {
                id: id(&mut input)?,
                seqs: seqs(&mut input)?,
            },
            STANDING => Record::Standing {
                id: id(&mut input)?,
                topic: string(&mut input)?,
                name: string(&mut input)?,
                part: input.varint()?..input.varint()?,
                open: runs(&mut input)?,
            },
            STANDING_WHOLE => Record::Standing {
                id: id(&mut input)?,
                topic: string(&mut input)?,
                name: string(&mut input)?,
                part: 0..input.varint()?,
                open: Run::of(ascending(attempts(&mut input)?)?),
            },
            ACKED_THROUGH => Record::AckedThrough {
                id: id(&mut input)?,
                seq: seq(&mut input)?,
            },
            DROPPED => Record::Dropped {
                topic: string(&mut input)?,
                before: input.varint()?,
            },
            MOVED => Record::Moved {
                topic: string(&mut input)?,
                seqs: seqs(&mut input)?,
            },
            IDS => decode_ids(&mut input)?,
            COPY => {
                let (seq, message) = copy(&mut input)?;
                let entry = entry.slice_ref(message);
                Record::Copy { seq, entry }
            }
            COPIED => Record::Copied {
                topic: string(&mut input)?,
                messages: copied(&mut input)?,
            },
            _ => return Err(Malformed("a record of an unknown kind")),
        };
        match input.is_empty() {
            true => Ok(record),
            false => Err(Malformed("bytes behind a record")),
        }
    }
}

/// The entry of a message.
pub(super) fn encode_message(topic: &str, sent: WallTime, message: &Message) -> Bytes {
    let mut out = Vec::with_capacity(message.payload.len() + topic.len() + 32);
    put_message(&mut out, topic, sent, message);
    out.into()
}

/// Adds the entry of a message: 9 bytes and the topic's name beside a plain payload.
pub(super) fn put_message(out: &mut Vec<u8>, topic: &str, sent: WallTime, message: &Message) {
    let due = due(message, sent);
    let mut flags = (message.priority as u8) << PRIORITY_AT;
    let present = [
        (KEY, message.key.is_some()),
        (HEADERS, !message.headers.is_empty()),
        (DUE, due.is_some()),
        (TTL, message.ttl.is_some()),
        (DEDUP, message.dedup_id.is_some()),
    ];
    present
        .into_iter()
        .filter(|(_, there)| *there)
        .for_each(|(flag, _)| flags |= flag);
    out.extend([MESSAGE, flags]);
    put_bytes(out, topic.as_bytes());
    put_varint(out, sent.as_millis());
    if let Some(due) = due {
        put_varint(out, due.as_millis() - sent.as_millis());
    }
    if let Some(ttl) = message.ttl {
        put_varint(out, millis(ttl));
    }
    if let Some(key) = &message.key {
        put_bytes(out, key);
    }
    if !message.headers.is_empty() {
        put_varint(out, message.headers.len() as u64);
        for (name, value) in &message.headers {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value);
        }
    }
    if let Some(id) = &message.dedup_id {
        put_bytes(out, id);
    }
    out.extend_from_slice(&message.payload);
}

/// When a message that was sent at `sent` may be delivered, if that is later.
pub(super) fn due(message: &Message, sent: WallTime) -> Option<WallTime> {
    let due = match message.deliver? {
        DeliverAt::In(delay) => sent + Duration::from_millis(millis(delay)),
        DeliverAt::At(at) => at,
    };
    Some(due).filter(|due| *due > sent)
}

/// When a message that was sent at `sent` is no longer worth delivering.
pub(super) fn expires(message: &Message, sent: WallTime) -> Option<WallTime> {
    Some(sent + Duration::from_millis(millis(message.ttl?)))
}

/// Whole milliseconds, never fewer than were asked for.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// What the entry of a message says, its topic left aside.
#[inline]
pub(super) fn open_message(mut entry: Bytes) -> Result<(WallTime, Message), Malformed> {
    let mut input = Reader::new(&entry);
    let (sent, mut message) = match input.byte()? {
        MESSAGE => parts(&mut input, &entry).map(|(_topic, sent, message)| (sent, message))?,
        _ => return Err(Malformed("an entry that was a message is none")),
    };
    let rest = input.len();
    if rest > 0 {
        // What is left is the payload, without counting one more share of its memory.
        entry.advance(entry.len() - rest);
        message.payload = entry;
    }
    Ok((sent, message))
}

fn decode_message(input: &mut Reader<'_>, entry: &Bytes) -> Result<Record, Malformed> {
    let (topic, sent, mut message) = parts(input, entry)?;
    message.payload = entry.slice_ref(input.rest());
    let topic = String::from_utf8(topic.to_vec()).map_err(|_| Malformed("a name that is not UTF-8"))?;
    Ok(Record::Message { topic, sent, message })
}

/// Everything but the payload, which is what is left of the input.
#[inline]
fn parts<'a>(input: &mut Reader<'a>, entry: &Bytes) -> Result<(&'a [u8], WallTime, Message), Malformed> {
    let flags = input.byte()?;
    if flags & UNKNOWN != 0 {
        return Err(Malformed("a message with parts of an unknown kind"));
    }
    let has = |flag| flags & flag != 0;
    let topic = input.bytes()?;
    let sent = WallTime::from_millis(input.varint()?);
    let due = has(DUE).then(|| input.varint()).transpose()?;
    let ttl = has(TTL).then(|| input.varint()).transpose()?;
    let key = has(KEY).then(|| input.shared(entry)).transpose()?;
    let headers = if has(HEADERS) {
        headers(input, entry)?
    } else {
        Vec::new()
    };
    let dedup_id = has(DEDUP).then(|| input.shared(entry)).transpose()?;
    let message = Message {
        payload: Bytes::new(),
        key,
        headers,
        deliver: due.map(|after| DeliverAt::At(sent + Duration::from_millis(after))),
        ttl: ttl.map(Duration::from_millis),
        priority: priority(flags),
        dedup_id,
    };
    Ok((topic, sent, message))
}

fn headers(input: &mut Reader<'_>, entry: &Bytes) -> Result<Vec<(String, Bytes)>, Malformed> {
    let count = input.varint()?;
    let header = |_| Ok((string(input)?, input.shared(entry)?));
    (0..count).map(header).collect()
}

/// The priority in the second byte of a message's entry.
pub(super) fn priority(flags: u8) -> Priority {
    PRIORITIES[usize::from(flags >> PRIORITY_AT & 3)]
}

/// The entry of a copy: 11 bytes at most beside that of the message.
pub(super) fn encode_copy(seq: u64, entry: &Bytes) -> Bytes {
    let mut out = Vec::with_capacity(entry.len() + 11);
    out.push(COPY);
    put_varint(&mut out, seq);
    out.extend_from_slice(entry);
    out.into()
}

fn copy<'a>(input: &mut Reader<'a>) -> Result<(u64, &'a [u8]), Malformed> {
    let (seq, entry) = (seq(input)?, input.rest());
    match entry.first() {
        Some(&MESSAGE) => Ok((seq, entry)),
        _ => Err(Malformed("a copy of something that is no message")),
    }
}

type Copied = Vec<(u64, Vec<(SubId, u32)>)>;

fn copied(input: &mut Reader<'_>) -> Result<Copied, Malformed> {
    let count = input.varint()?;
    let message = |_| {
        let (seq, count) = (seq(input)?, input.varint()?);
        let open = (0..count).map(|_| Ok((id(input)?, number(input)?)));
        Ok((seq, open.collect::<Result<_, _>>()?))
    };
    (0..count).map(message).collect()
}

fn encode_ids((k0, k1): (u64, u64), ids: &[Noted]) -> Bytes {
    let mut out = Vec::with_capacity(ids.len() * 32 + 32);
    out.push(IDS);
    out.extend(k0.to_le_bytes());
    out.extend(k1.to_le_bytes());
    put_varint(&mut out, ids.len() as u64);
    for noted in ids {
        out.extend(noted.id.to_bytes());
        put_varint(&mut out, noted.seq);
        put_varint(&mut out, noted.sent.as_millis());
    }
    out.into()
}

fn decode_ids(input: &mut Reader<'_>) -> Result<Record, Malformed> {
    let secret = (word(input)?, word(input)?);
    let count = input.varint()?;
    let noted = |_| {
        Ok(Noted {
            id: Id::from_words(word(input)?, word(input)?),
            seq: input.varint()?,
            sent: WallTime::from_millis(input.varint()?),
        })
    };
    let ids = (0..count).map(noted).collect::<Result<_, _>>()?;
    Ok(Record::Ids { secret, ids })
}

fn word(input: &mut Reader<'_>) -> Result<u64, Malformed> {
    let mut word = [0; 8];
    for byte in &mut word {
        *byte = input.byte()?;
    }
    Ok(u64::from_le_bytes(word))
}

fn put_seqs(out: &mut Vec<u8>, seqs: &[u64]) {
    put_varint(out, seqs.len() as u64);
    seqs.iter().for_each(|seq| put_varint(out, *seq));
}

fn seqs(input: &mut Reader<'_>) -> Result<Vec<u64>, Malformed> {
    let count = input.varint()?;
    (0..count).map(|_| seq(input)).collect()
}

fn put_attempts(out: &mut Vec<u8>, attempts: &[(u64, u32)]) {
    put_varint(out, attempts.len() as u64);
    for (seq, attempt) in attempts {
        put_varint(out, *seq);
        put_varint(out, (*attempt).into());
    }
}

fn attempts(input: &mut Reader<'_>) -> Result<Vec<(u64, u32)>, Malformed> {
    let count = input.varint()?;
    (0..count).map(|_| Ok((seq(input)?, number(input)?))).collect()
}

fn ascending(attempts: Vec<(u64, u32)>) -> Result<Vec<(u64, u32)>, Malformed> {
    let is_sound = attempts.is_sorted_by(|(one, _), (next, _)| one < next);
    is_sound
        .then_some(attempts)
        .ok_or(Malformed("open messages out of order"))
}

fn id(input: &mut Reader<'_>) -> Result<SubId, Malformed> {
    match number(input)? {
        0 => Err(Malformed("a subscription without a number")),
        id => Ok(id),
    }
}

/// The number of a message. There is always one behind it.
fn seq(input: &mut Reader<'_>) -> Result<u64, Malformed> {
    match input.varint()? {
        u64::MAX => Err(Malformed("a message of a number that none has")),
        seq => Ok(seq),
    }
}

/// There is always one behind it.
pub(super) fn number(input: &mut Reader<'_>) -> Result<u32, Malformed> {
    let number = u32::try_from(input.varint()?).ok();
    let number = number.filter(|number| *number < u32::MAX);
    number.ok_or(Malformed("a number longer than 32 bits, or the last of these"))
}

fn string(input: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = input.bytes()?.to_vec();
    String::from_utf8(bytes).map_err(|_| Malformed("a name that is not UTF-8"))
}

#[cfg(test)]
mod tests;

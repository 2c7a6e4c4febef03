//! What the queue writes into its log, one record an entry.

use super::Message;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use bytes::Bytes;

/// A subscription's number, short because every acknowledgement carries it.
pub(super) type SubId = u32;

/// One entry of the log. What it says is true from its place in the log on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A message was sent.
    Message { topic: String, message: Message },
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
    /// Where a subscription stands, so that older records are no longer needed: before `cursor` only `open` messages
    /// are not acknowledged.
    Standing {
        id: SubId,
        topic: String,
        name: String,
        cursor: u64,
        open: Vec<(u64, u32)>,
    },
}

const MESSAGE: u8 = 1;
const SUBSCRIBED: u8 = 2;
const DELIVERED: u8 = 3;
const ACKED: u8 = 4;
const STANDING: u8 = 5;

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Record::Message { topic, message } => encode_message(topic, message),
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
                put_varint(&mut out, seqs.len() as u64);
                seqs.iter().for_each(|seq| put_varint(&mut out, *seq));
                out.into()
            }
            Record::Standing {
                id,
                topic,
                name,
                cursor,
                open,
            } => {
                let mut out = vec![STANDING];
                put_varint(&mut out, (*id).into());
                put_bytes(&mut out, topic.as_bytes());
                put_bytes(&mut out, name.as_bytes());
                put_varint(&mut out, *cursor);
                put_attempts(&mut out, open);
                out.into()
            }
        }
    }

    /// Whether an entry is a message.
    pub(super) fn is_message(entry: &Bytes) -> bool {
        entry.first() == Some(&MESSAGE)
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
            ACKED => {
                let id = id(&mut input)?;
                let count = input.varint()?;
                let seqs = (0..count).map(|_| input.varint()).collect::<Result<_, _>>()?;
                Record::Acked { id, seqs }
            }
            STANDING => Record::Standing {
                id: id(&mut input)?,
                topic: string(&mut input)?,
                name: string(&mut input)?,
                cursor: input.varint()?,
                open: attempts(&mut input)?,
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
pub(super) fn encode_message(topic: &str, message: &Message) -> Bytes {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum();
    let key = message.key.as_ref().map_or(0, Bytes::len);
    let mut out = Vec::with_capacity(message.payload.len() + headers + key + topic.len() + 24);
    out.push(MESSAGE);
    put_bytes(&mut out, topic.as_bytes());
    match &message.key {
        None => out.push(0),
        Some(key) => {
            out.push(1);
            put_bytes(&mut out, key);
        }
    }
    put_varint(&mut out, message.headers.len() as u64);
    for (name, value) in &message.headers {
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, value);
    }
    put_bytes(&mut out, &message.payload);
    out.into()
}

fn decode_message(input: &mut Reader<'_>, entry: &Bytes) -> Result<Record, Malformed> {
    let topic = string(input)?;
    let key = match input.byte()? {
        0 => None,
        1 => Some(input.shared(entry)?),
        _ => return Err(Malformed("a message that is neither with nor without a key")),
    };
    let count = input.varint()?;
    let header = |_| Ok((string(input)?, input.shared(entry)?));
    let headers = (0..count).map(header).collect::<Result<_, _>>()?;
    let payload = input.shared(entry)?;
    let message = Message {
        payload,
        key,
        headers,
        ..Message::default()
    };
    Ok(Record::Message { topic, message })
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
    (0..count).map(|_| Ok((input.varint()?, number(input)?))).collect()
}

fn id(input: &mut Reader<'_>) -> Result<SubId, Malformed> {
    number(input)
}

fn number(input: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(input.varint()?).map_err(|_| Malformed("a number longer than 32 bits"))
}

fn string(input: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = input.bytes()?.to_vec();
    String::from_utf8(bytes).map_err(|_| Malformed("a name that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let message = Message::new("payload").key("k").header("a", "1").header("", "");
        vec![
            Record::Message {
                topic: "mail".into(),
                message,
            },
            Record::Message {
                topic: "t".into(),
                message: Message::new(""),
            },
            Record::Subscribed {
                id: 7,
                topic: "mail".into(),
                name: "mailer".into(),
                from: Some(300),
            },
            Record::Subscribed {
                id: 8,
                topic: "mail".into(),
                name: String::new(),
                from: None,
            },
            Record::Delivered {
                id: 1,
                attempts: vec![(1, 1), (1 << 40, 3)],
            },
            Record::Acked {
                id: u32::MAX,
                seqs: vec![5, u64::MAX],
            },
            Record::Standing {
                id: 0,
                topic: "mail".into(),
                name: "ä".into(),
                cursor: 9,
                open: vec![(3, 0), (4, 2)],
            },
        ]
    }

    #[test]
    fn records_round_trip_and_no_prefix_passes() {
        for record in samples() {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Ok(record));
            for len in 0..bytes.len() {
                assert!(Record::decode(&bytes.slice(..len)).is_err());
            }
        }
    }

    #[test]
    fn nonsense_is_refused_without_allocating_for_it() {
        // A count of 2^63 acknowledgements, none of them there.
        let mut many = vec![ACKED, 1];
        put_varint(&mut many, 1 << 63);
        for bytes in [&[][..], &[0], &[9, 1], &[MESSAGE, 1, b'x', 2], &many] {
            assert!(Record::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}

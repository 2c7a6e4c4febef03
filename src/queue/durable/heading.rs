use super::record::{DEDUP, DUE, HEADERS, KEY, MESSAGE, TTL, UNKNOWN};
use crate::codec::{Malformed, Reader};

/// What the entry of a message says besides its headers and its payload.
#[derive(Debug)]
pub(super) struct Heading<'a> {
    /// The second byte of the entry.
    pub(super) flags: u8,
    pub(super) topic: &'a [u8],
    /// In milliseconds since 1970.
    pub(super) sent: u64,
    /// How many milliseconds after that it may be delivered.
    pub(super) due: Option<u64>,
    /// How many milliseconds after that it is over.
    pub(super) ttl: Option<u64>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) dedup_id: Option<&'a [u8]>,
}

/// Whether a message's headers stand where they are in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Headers {
    AsFlagged,
    LeftOut,
}

impl<'a> Heading<'a> {
    /// Reads it from an entry, if that is a message.
    pub(super) fn of_entry(entry: &'a [u8]) -> Result<Option<Heading<'a>>, Malformed> {
        let mut input = Reader::new(entry);
        if input.byte()? != MESSAGE {
            return Ok(None);
        }
        let flags = input.byte()?;
        let topic = input.bytes()?;
        let sent = input.varint()?;
        Heading::rest(flags, topic, sent, &mut input, Headers::AsFlagged).map(Some)
    }

    /// Reads what follows these parts where the headers are left out.
    pub(super) fn without_headers(
        flags: u8,
        topic: &'a [u8],
        sent: u64,
        input: &mut Reader<'a>,
    ) -> Result<Heading<'a>, Malformed> {
        Heading::rest(flags, topic, sent, input, Headers::LeftOut)
    }

    fn rest(
        flags: u8,
        topic: &'a [u8],
        sent: u64,
        input: &mut Reader<'a>,
        headers: Headers,
    ) -> Result<Heading<'a>, Malformed> {
        if flags & UNKNOWN != 0 {
            return Err(Malformed("a message with parts of an unknown kind"));
        }
        let has = |flag| flags & flag != 0;
        let due = has(DUE).then(|| input.varint()).transpose()?;
        let ttl = has(TTL).then(|| input.varint()).transpose()?;
        let key = has(KEY).then(|| input.bytes()).transpose()?;
        if has(HEADERS) && headers == Headers::AsFlagged {
            for _ in 0..input.varint()? {
                input.bytes()?;
                input.bytes()?;
            }
        }
        let dedup_id = has(DEDUP).then(|| input.bytes()).transpose()?;
        Ok(Heading {
            flags,
            topic,
            sent,
            due,
            ttl,
            key,
            dedup_id,
        })
    }

    /// Whether nothing was wished of a message with this second byte but a priority.
    pub(super) fn is_plain(flags: u8) -> bool {
        flags & (UNKNOWN | DUE | TTL | KEY | DEDUP) == 0
    }
}

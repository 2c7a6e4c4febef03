//! The bytes of a message: `OI`, the version, the checksum of what follows, then sender, number, kind and content.

use super::{Message, Notice, Origin};
use crate::codec::{self, Malformed, Reader};
use crate::env::Tick;
use bytes::Bytes;

const MAGIC: &[u8; 2] = b"OI";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1 + size_of::<u32>();

const KEYS: u8 = 1;
const TAG: u8 = 2;
const EVERYTHING: u8 = 3;
const HEARTBEAT: u8 = 4;
const GOODBYE: u8 = 5;

pub(super) fn encode(message: &Message) -> Bytes {
    let mut out = vec![0; HEADER];
    out[..2].copy_from_slice(MAGIC);
    out[2] = VERSION;
    codec::put_varint(&mut out, message.origin.0);
    codec::put_varint(&mut out, message.number);
    match &message.notice {
        Notice::Keys(keys) => {
            out.push(KEYS);
            codec::put_varint(&mut out, keys.len() as u64);
            keys.iter().for_each(|key| codec::put_bytes(&mut out, key));
        }
        Notice::Tag(tag) => {
            out.push(TAG);
            codec::put_bytes(&mut out, tag);
        }
        Notice::Everything => out.push(EVERYTHING),
        Notice::Heartbeat { at } => {
            out.push(HEARTBEAT);
            codec::put_varint(&mut out, at.as_nanos());
        }
        Notice::Goodbye => out.push(GOODBYE),
    }
    let sum = crc32c::crc32c(&out[HEADER..]);
    out[3..HEADER].copy_from_slice(&sum.to_le_bytes());
    out.into()
}

pub(super) fn decode(bytes: &Bytes) -> Result<Message, Malformed> {
    let (header, body) = bytes
        .split_at_checked(HEADER)
        .ok_or(Malformed("a message shorter than its header"))?;
    if !header.starts_with(MAGIC) {
        return Err(Malformed("no invalidation message"));
    }
    if header[2] != VERSION {
        return Err(Malformed("an invalidation message of another version"));
    }
    if header[3..] != crc32c::crc32c(body).to_le_bytes() {
        return Err(Malformed("an invalidation message whose checksum is wrong"));
    }
    let mut reader = Reader::new(body);
    let (origin, number) = (Origin(reader.varint()?), reader.varint()?);
    let notice = match reader.byte()? {
        KEYS => {
            let count = reader.varint()?;
            // A key takes a byte at least, so a count that is wrong cannot ask for much memory.
            let mut keys = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(body.len()));
            for _ in 0..count {
                keys.push(reader.shared(bytes)?);
            }
            Notice::Keys(keys)
        }
        TAG => Notice::Tag(reader.shared(bytes)?),
        EVERYTHING => Notice::Everything,
        HEARTBEAT => Notice::Heartbeat {
            at: Tick::from_nanos(reader.varint()?),
        },
        GOODBYE => Notice::Goodbye,
        _ => return Err(Malformed("an invalidation message of an unknown kind")),
    };
    if !reader.is_empty() {
        return Err(Malformed("bytes after an invalidation message"));
    }
    Ok(Message { origin, number, notice })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let notice = prop_oneof![
            prop::collection::vec(bytes(), 0..6).prop_map(Notice::Keys),
            bytes().prop_map(Notice::Tag),
            Just(Notice::Everything),
            any::<u64>().prop_map(|at| Notice::Heartbeat {
                at: Tick::from_nanos(at)
            }),
            Just(Notice::Goodbye),
        ];
        (any::<u64>(), any::<u64>(), notice)
            .prop_map(|(origin, number, notice)| Message::new(Origin(origin), number, notice))
    }

    proptest! {
        #[test]
        fn bytes_round_trip_and_nothing_else_passes(
            message in message(), at in any::<prop::sample::Index>(), flip in 1_u8.., more in any::<u8>(),
        ) {
            let bytes = encode(&message);
            prop_assert_eq!(decode(&bytes).unwrap(), message);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes.slice(..at)).is_err(), "cut at {}", at);
            let mut flipped = bytes.to_vec();
            flipped[at] ^= flip;
            prop_assert!(decode(&flipped.into()).is_err(), "flipped at {}", at);
            let longer: Bytes = [&bytes[..], &[more]].concat().into();
            prop_assert!(decode(&longer).is_err());
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _nothing = decode(&Bytes::from(body.clone()));
            // The same under a checksum that fits, which leads past the header.
            let mut whole = [&MAGIC[..], &[VERSION], &crc32c::crc32c(&body).to_le_bytes()].concat();
            whole.extend(body);
            let _nothing = decode(&whole.into());
        }
    }
}

//! The bytes of a cache's snapshot, whatever cache it was: what is written, and how little is believed when it is read.
//!
//! ```text
//! snapshot = magic (8 bytes)  version (u32)  part, part, ..
//! part     = length of body (u32)  checksum (u32)  body = kind (1 byte) and
//!   head     0, first    when it was written (varint, ms since 1970)  schema
//!   entries  1, many     entry, entry, ..                             hottest first
//!   end      2, last     how many entries there were (varint)
//! entry    = marks (1 byte)  [time to live left]  [idle time left  idle period]  weight  key  value  [tags]
//! ```
//!
//! Fixed numbers are little endian, all others varints, in milliseconds where they are times; strings come after their
//! length, tags after their number. A checksum is the CRC-32C of everything before it, other checksums left out, and of
//! its own part's length and body: so a part that is missing, doubled or out of its place is noticed at the next one.
//! A part is about 256 KiB; an entry larger than that has one for itself.

mod codec;
mod error;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod hooks;
#[cfg(feature = "postcard")]
mod postcard;
mod read;
#[cfg(test)]
mod tests;
mod write;

#[cfg(feature = "postcard")]
pub use self::postcard::PostcardCodec;
pub use codec::{BytesCodec, Encode, SnapshotCodec};
pub use error::SnapshotError;
pub(crate) use read::SnapshotReader;
pub(crate) use write::SnapshotWriter;

use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::env::WallTime;

/// What a snapshot keeps of an entry. All times are in milliseconds, as of the moment it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedEntry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) weight: u64,
    /// What is left of its time to live; `None` is for ever.
    pub(crate) ttl_ms: Option<u64>,
    /// When it ends unless asked for; `None` is never.
    pub(crate) idle: Option<SavedIdle>,
    /// At most [`MAX_TAGS`].
    pub(crate) tags: Vec<&'a str>,
}

/// The idle time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedIdle {
    /// What was left of it.
    pub(crate) left_ms: u64,
    /// What it begins with anew when the entry is asked for.
    pub(crate) period_ms: u64,
}

impl<'a> SavedEntry<'a> {
    /// The entry with the time taken off that the snapshot has lain, unless it ended meanwhile: see [`remaining`].
    pub(crate) fn aged(mut self, written: WallTime, now: WallTime) -> Option<SavedEntry<'a>> {
        if let Some(ttl) = &mut self.ttl_ms {
            *ttl = remaining(written, now, *ttl)?;
        }
        if let Some(idle) = &mut self.idle {
            idle.left_ms = remaining(written, now, idle.left_ms)?;
        }
        Some(self)
    }

    /// No entry like this one takes more bytes.
    fn most_bytes(&self) -> usize {
        let tags = self.tags.iter().map(|tag| MAX_VARINT + tag.len());
        1 + 7 * MAX_VARINT + self.key.len() + self.value.len() + tags.sum::<usize>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mark = |mark, set| if set { mark } else { 0 };
        out.push(
            mark(HAS_TTL, self.ttl_ms.is_some())
                | mark(HAS_IDLE, self.idle.is_some())
                | mark(HAS_TAGS, !self.tags.is_empty()),
        );
        if let Some(ttl) = self.ttl_ms {
            put_varint(out, ttl);
        }
        if let Some(idle) = self.idle {
            put_varint(out, idle.left_ms);
            put_varint(out, idle.period_ms);
        }
        put_varint(out, self.weight);
        put_bytes(out, self.key);
        put_bytes(out, self.value);
        if !self.tags.is_empty() {
            put_varint(out, self.tags.len() as u64);
        }
        for tag in &self.tags {
            put_bytes(out, tag.as_bytes());
        }
    }

    fn decode(fields: &mut Reader<'a>) -> Result<SavedEntry<'a>, Malformed> {
        let marks = fields.byte()?;
        if marks & !(HAS_TTL | HAS_IDLE | HAS_TAGS) != 0 {
            return Err(Malformed("an entry is marked by what this version does not know"));
        }
        let ttl_ms = (marks & HAS_TTL != 0).then(|| fields.varint()).transpose()?;
        let idle = (marks & HAS_IDLE != 0).then(|| SavedIdle::decode(fields)).transpose()?;
        Ok(SavedEntry {
            ttl_ms,
            idle,
            weight: fields.varint()?,
            key: fields.bytes()?,
            value: fields.bytes()?,
            tags: if marks & HAS_TAGS == 0 {
                Vec::new()
            } else {
                tags(fields)?
            },
        })
    }
}

impl SavedIdle {
    fn decode(fields: &mut Reader<'_>) -> Result<SavedIdle, Malformed> {
        Ok(SavedIdle {
            left_ms: fields.varint()?,
            period_ms: fields.varint()?,
        })
    }
}

/// The vector grows with the tags that are there, whatever their number claims.
fn tags<'a>(fields: &mut Reader<'a>) -> Result<Vec<&'a str>, Malformed> {
    let many = fields.varint()?;
    if many == 0 || many > MAX_TAGS as u64 {
        return Err(Malformed(
            "an entry has more tags than may be, or is marked for having none",
        ));
    }
    let tag = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed("a tag is not text"));
    (0..many).map(|_| tag(fields.bytes()?)).collect()
}

/// What is left at `now` of a time of which `left_ms` were left when the snapshot was written; `None` if nothing.
///
/// The time that it has lain is taken off. If the wall clock was set back, that cannot be known and nothing is taken
/// off, so that what is left never grows; if it was set forward, entries end early, and a cache may always do that.
pub(crate) fn remaining(written: WallTime, now: WallTime, left_ms: u64) -> Option<u64> {
    let lain_ms = now.as_millis().saturating_sub(written.as_millis());
    left_ms.checked_sub(lain_ms).filter(|left| *left > 0)
}

/// What one snapshot may hold in one entry: its key, value, tags and a few bytes about them.
pub(crate) const MAX_ENTRY: usize = 256 << 20;
/// How many tags of one entry a snapshot may hold.
pub(crate) const MAX_TAGS: usize = 65_535;

const MAGIC: [u8; 8] = *b"oGcache\0";
const VERSION: u32 = 1;
/// A part's length and checksum.
const PART_HEAD: usize = 8;
/// A part of entries is written when the next entry would take it past this.
const PART_LEN: usize = 256 << 10;
/// No part is longer.
const MAX_PART: usize = MAX_ENTRY + 1;
const MAX_SCHEMA: usize = 64 << 10;
const MAX_VARINT: usize = 10;

const HEAD: u8 = 0;
const ENTRIES: u8 = 1;
const END: u8 = 2;

const HAS_TTL: u8 = 1;
const HAS_IDLE: u8 = 2;
const HAS_TAGS: u8 = 4;

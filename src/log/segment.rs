//! The file of one segment: its name, its header, and how a place in the log is written.

use std::fmt;

/// Bytes of the header: two equal copies, a sector each, so that no single damaged sector hides a segment.
pub(super) const HEADER_LEN: u32 = 2 * COPY_LEN as u32;
const COPY_LEN: usize = 512;
const CRC_AT: usize = COPY_LEN - 4;
const MAGIC: [u8; 8] = *b"outgrow\0";

/// A place in the log: a segment and a byte in it. Places grow with time, also where sequence numbers went back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
}

impl Place {
    pub(super) const MAX: Place = Place {
        segment: u64::MAX,
        offset: u32::MAX,
    };

    pub(super) fn new(segment: u64, offset: u32) -> Place {
        Place { segment, offset }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {:x} offset {}", self.segment, self.offset)
    }
}

/// What a segment says about itself, written and synced before it takes its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its number; the file's name says it too.
    pub(super) id: u64,
    /// Part of the seed of every checksum inside: nobody who writes an entry can guess bytes that pass for a frame.
    pub(super) salt: u64,
    /// The sequence number of the first entry it takes. What earlier segments hold from here on is void: that is
    /// how the log is truncated.
    pub(super) base: u64,
    /// The oldest sequence number kept when it was made; what is older is void: that is how the log is reset.
    pub(super) floor: u64,
    /// Where the log ended, all of it durable, when this segment was made. What earlier segments hold behind that place
    /// is void: that is how a torn tail is cut off.
    pub(super) prev: Place,
    /// The base of the segment of that place, so that no damage to its header brings back what it voided.
    pub(super) prev_base: u64,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; COPY_LEN];
        copy[..8].copy_from_slice(&MAGIC);
        let fields = [
            VERSION,
            self.id,
            self.salt,
            self.base,
            self.floor,
            self.prev.segment,
            self.prev.offset.into(),
            self.prev_base,
        ];
        for (field, bytes) in fields.iter().zip(copy[8..].chunks_exact_mut(8)) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c::crc32c(&copy[..CRC_AT]);
        copy[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        copy.repeat(2)
    }

    /// The header of segment `id` from its file's bytes, by the first copy that is sound, and whether both are.
    pub(super) fn decode(id: u64, bytes: &[u8]) -> Option<(Header, bool)> {
        let mut sound = bytes.chunks_exact(COPY_LEN).take(2).map(|copy| decode_copy(id, copy));
        let (first, second) = (sound.next().flatten(), sound.next().flatten());
        Some((first.or(second)?, first.is_some() && second.is_some()))
    }
}

/// The format that a segment says it has, if that is not this one.
pub(super) fn other_version(bytes: &[u8]) -> Option<u64> {
    let mut sound = bytes.chunks_exact(COPY_LEN).take(2).filter(|copy| is_sound(copy));
    Some(field(sound.next()?, 0)).filter(|version| *version != VERSION)
}

fn is_sound(copy: &[u8]) -> bool {
    copy[..8] == MAGIC && copy[CRC_AT..] == crc32c::crc32c(&copy[..CRC_AT]).to_le_bytes()
}

fn field(copy: &[u8], n: usize) -> u64 {
    u64::from_le_bytes(copy[8 + 8 * n..16 + 8 * n].try_into().expect("eight bytes"))
}

fn decode_copy(id: u64, copy: &[u8]) -> Option<Header> {
    if !is_sound(copy) {
        return None;
    }
    let field = |n| field(copy, n);
    let header = Header {
        id: field(1),
        salt: field(2),
        base: field(3),
        floor: field(4),
        prev: Place::new(field(5), u32::try_from(field(6)).ok()?),
        prev_base: field(7),
    };
    (field(0) == VERSION && header.id == id).then_some(header)
}

/// The format, which `FORMAT.md` beside this file describes.
const VERSION: u64 = 1;

/// The name of the file of segment `id`.
pub(super) fn file_name(id: u64) -> String {
    format!("{id:016x}.seg")
}

/// The segment that a file name stands for, if any.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?;
    (file_name(id) == name).then_some(id)
}

/// The name of the file that tells in short what segment `id` holds.
pub(super) fn summary_name(id: u64) -> String {
    format!("{id:016x}.summary")
}

/// The name of a file that waits to become a segment.
pub(super) fn spare_name(number: u64) -> String {
    format!("{number:016x}.spare")
}

/// Whether a file waits to become a segment.
pub(super) fn is_spare(name: &str) -> bool {
    let number = name
        .strip_suffix(".spare")
        .map(|number| u64::from_str_radix(number, 16));
    matches!(number, Some(Ok(number)) if spare_name(number) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_any_one_flipped_bit() {
        let header = Header {
            id: 7,
            salt: 0x1234_5678_9abc_def0,
            base: 42,
            floor: 3,
            prev: Place::new(6, 4096),
            prev_base: 40,
        };
        let image = header.encode();
        assert_eq!(image.len(), HEADER_LEN as usize);
        assert_eq!(Header::decode(7, &image), Some((header, true)));
        assert_eq!(Header::decode(8, &image), None, "a misplaced file");
        for bit in 0..image.len() * 8 {
            let mut flipped = image.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(7, &flipped), Some((header, false)), "bit {bit}");
        }
        for len in 0..COPY_LEN {
            assert_eq!(Header::decode(7, &image[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let header = Header {
            id: 1,
            salt: 2,
            base: 1,
            floor: 1,
            prev: Place::default(),
            prev_base: 1,
        };
        let mut image = header.encode();
        assert_eq!(other_version(&image), None);
        image[8] ^= 1;
        assert_eq!(
            other_version(&image),
            None,
            "one copy is damaged, the other is this version's"
        );
        image.truncate(COPY_LEN);
        assert_eq!(other_version(&image), None, "damaged");
        let crc = crc32c::crc32c(&image[..CRC_AT]).to_le_bytes();
        image[CRC_AT..].copy_from_slice(&crc);
        assert_eq!(other_version(&image), Some(VERSION ^ 1));
    }

    #[test]
    fn names_round_trip_and_others_are_ignored() {
        assert_eq!(parse_name(&file_name(0xabc)), Some(0xabc));
        for name in [
            "",
            "1.seg",
            "0000000000000ABC.seg",
            "000000000000000a.tmp",
            "+00000000000000a.seg",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}

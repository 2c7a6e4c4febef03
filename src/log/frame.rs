//! The bytes of one frame: what one append leaves in a segment.
//!
//! ```text
//!  0 magic and format  4   checksum of bytes 8 to 40
//!  8 length            4   in bytes, without the padding to a multiple of 8
//! 12 entries           4
//! 16 first sequence number        8
//! 24 durable segment, offset  8 + 4   the log was durable up to there when this was built
//! 36 checksum of the table
//! 40 table: length and checksum of each entry, 8 bytes each
//!    the entries
//! ```
//! Checksums are CRC-32C, seeded by the segment's salt and number and the frame's offset, so a stale or misplaced frame
//! does not pass. One bad entry costs that entry; a bad head or table costs the frame.

use super::segment::Place;
use bytes::Bytes;
use std::ops::Range;

/// The most bytes of one frame.
pub(super) const MAX_FRAME: usize = 1 << 20;
/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Bytes of a frame without entries.
pub(super) const HEAD: usize = 40;
/// What each entry takes beside its own bytes.
const PER_ENTRY: usize = 8;
const MAGIC: [u8; 4] = *b"oGf\0";

/// The fixed part of a frame, which passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) count: u32,
    pub(super) first_seq: u64,
    pub(super) durable: Place,
    table_crc: u32,
}

/// What checksums of the frame at `place` start from.
pub(super) fn seed(salt: u64, place: Place) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &place.segment.to_le_bytes());
    crc32c::crc32c_append(crc, &place.offset.to_le_bytes())
}

/// How long the frame of these entries is, without padding.
pub(super) fn frame_len(entries: &[Bytes]) -> usize {
    HEAD + entries.iter().map(|entry| PER_ENTRY + entry.len()).sum::<usize>()
}

/// `len` with its padding.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// Writes a frame, padding included. `entries` have been found to fit.
pub(super) fn encode(out: &mut Vec<u8>, seed: u32, first_seq: u64, durable: Place, entries: &[Bytes]) {
    let start = out.len();
    let len = frame_len(entries);
    debug_assert!(len <= MAX_FRAME);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&first_seq.to_le_bytes());
    out.extend_from_slice(&durable.segment.to_le_bytes());
    out.extend_from_slice(&durable.offset.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let table = out.len();
    for entry in entries {
        out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c_append(seed, entry).to_le_bytes());
    }
    let crc = crc32c::crc32c_append(seed, &out[table..]);
    out[start + 36..table].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &out[start + 8..table]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    for entry in entries {
        out.extend_from_slice(entry);
    }
    out.resize(start + padded(len), 0);
}

/// The head of the frame that `bytes` begin with, or `None` if there is no sound one. The rest of the frame may still be
/// damaged, or missing from the end of `bytes`.
pub(super) fn decode_head(bytes: &[u8], seed: u32) -> Option<Head> {
    let fixed = bytes.get(..HEAD)?;
    if fixed[..4] != MAGIC || crc32c::crc32c_append(seed, &fixed[8..]) != u32_at(fixed, 4) {
        return None;
    }
    let head = Head {
        len: u32_at(fixed, 8),
        count: u32_at(fixed, 12),
        first_seq: u64_at(fixed, 16),
        durable: Place::new(u64_at(fixed, 24), u32_at(fixed, 32)),
        table_crc: u32_at(fixed, 36),
    };
    // What follows holds for every frame ever written; it keeps sums elsewhere from overflowing on one that was not.
    let len = head.len as usize;
    let table_fits = (head.count as usize) <= MAX_FRAME / PER_ENTRY && HEAD + head.count as usize * PER_ENTRY <= len;
    let sane = len <= MAX_FRAME && table_fits && head.first_seq.checked_add(head.count.into()).is_some();
    sane.then_some(head)
}

/// Where each entry of a frame lies in `bytes`, or `None` for one that is damaged or cut off.
pub(super) fn entries(bytes: &[u8], seed: u32, head: Head) -> impl Iterator<Item = Option<Range<usize>>> {
    let mut at = HEAD + head.count as usize * PER_ENTRY;
    let table = bytes
        .get(HEAD..at)
        .filter(|table| crc32c::crc32c_append(seed, table) == head.table_crc);
    (0..head.count as usize).map(move |n| {
        let row = &table?[n * PER_ENTRY..];
        let range = at..at + u32_at(row, 0) as usize;
        at = range.end;
        let entry = bytes.get(range.clone())?;
        (crc32c::crc32c_append(seed, entry) == u32_at(row, 4)).then_some(range)
    })
}

/// Whether the padding behind a frame is as it was written.
pub(super) fn padding_is_zero(bytes: &[u8], head: Head) -> bool {
    let len = head.len as usize;
    bytes
        .get(len..padded(len))
        .is_none_or(|padding| padding.iter().all(|&byte| byte == 0))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        segment: 3,
        offset: 1024,
    };

    fn sample() -> (Vec<u8>, Vec<Bytes>, u32) {
        let entries = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        let seed = seed(99, PLACE);
        let mut out = Vec::new();
        encode(&mut out, seed, 10, Place::new(2, 8), &entries);
        (out, entries, seed)
    }

    #[test]
    fn a_frame_round_trips() {
        let (bytes, written, seed) = sample();
        let head = decode_head(&bytes, seed).unwrap();
        assert_eq!(bytes.len(), padded(frame_len(&written)));
        assert_eq!((head.first_seq, head.count, head.durable), (10, 3, Place::new(2, 8)));
        let read: Vec<_> = entries(&bytes, seed, head)
            .map(|range| &bytes[range.unwrap()])
            .collect();
        assert_eq!(read, written);
        assert!(padding_is_zero(&bytes, head));
    }

    #[test]
    fn a_frame_elsewhere_does_not_pass() {
        let (bytes, ..) = sample();
        for place in [Place::new(3, 1032), Place::new(4, 1024)] {
            assert_eq!(decode_head(&bytes, seed(99, place)), None);
        }
        assert_eq!(decode_head(&bytes, seed(98, PLACE)), None);
    }

    #[test]
    fn a_flipped_bit_costs_one_entry_or_the_frame_and_is_seen() {
        let (bytes, written, seed) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Some(head) = decode_head(&flipped, seed) else {
                assert!(bit / 8 < HEAD);
                continue;
            };
            let read: Vec<_> = entries(&flipped, seed, head).collect();
            let lost = read.iter().filter(|range| range.is_none()).count();
            let expected = if bit / 8 < HEAD + 3 * PER_ENTRY { 3 } else { 1 };
            assert_eq!(
                lost + usize::from(!padding_is_zero(&flipped, head)),
                expected,
                "bit {bit}"
            );
            for (range, entry) in read.into_iter().zip(&written) {
                assert!(
                    range.is_none_or(|range| flipped[range] == entry[..]),
                    "wrong bytes, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn any_prefix_is_refused_or_says_what_is_missing() {
        let (bytes, _, seed) = sample();
        for len in 0..bytes.len() {
            if let Some(head) = decode_head(&bytes[..len], seed) {
                let whole = entries(&bytes[..len], seed, head).all(|entry| entry.is_some());
                assert_eq!(whole, len >= head.len as usize, "cut to {len}");
            }
        }
    }
}

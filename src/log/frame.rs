//! The bytes of one frame: what one append, some small ones, or one piece of a large entry leave in a segment.
//!
//! `FORMAT.md` beside this file is the format in full. One bad entry costs that entry; a bad head or table costs the
//! frame.

use super::entry::{Entries, Given};
use super::segment::Place;
use bytes::Bytes;
use std::ops::Range;

/// The most bytes of one frame.
pub(super) const MAX_FRAME: usize = 1 << 20;
/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Bytes of a frame without entries, which is a mark.
pub(super) const HEAD: usize = 40;
/// What each entry takes beside its own bytes.
pub(super) const ROW: usize = 8;
const MAGIC: [u8; 4] = *b"oGf1";
/// In the length of a row: the entry lies elsewhere in pieces, and its bytes here say where.
const IN_PIECES: u32 = 1 << 31;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Entries with numbers; without any it is a mark.
    Entries,
    /// A piece of an entry, which has no number of its own.
    Piece,
}

/// The fixed part of a frame, which passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) kind: Kind,
    pub(super) rows: u32,
    /// The number of the first entry; where there are none, that of the next entry in the log.
    pub(super) first_seq: u64,
    pub(super) durable: Place,
    table_crc: u32,
}

impl Head {
    /// How many numbers it covers.
    pub(super) fn count(&self) -> u32 {
        match self.kind {
            Kind::Entries => self.rows,
            Kind::Piece => 0,
        }
    }
}

/// An entry, or a piece of one, as it lies in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) range: Range<usize>,
    /// Whether the bytes are those of the entry, or say where its pieces are.
    pub(super) in_pieces: bool,
}

/// What checksums of the frame at `place` start from.
pub(super) fn seed(salt: u64, place: Place) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &place.segment.to_le_bytes());
    crc32c::crc32c_append(crc, &place.offset.to_le_bytes())
}

/// `len` with its padding.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// Writes a frame of entries, padding included. They have been found to fit.
pub(super) fn encode<E>(out: &mut Vec<u8>, seed: u32, first_seq: u64, durable: Place, entries: &E)
where
    E: Entries + ?Sized,
{
    let start = out.len();
    out.resize(start + HEAD, 0);
    entries.each().for_each(|entry| put_row(out, seed, entry));
    put_head(&mut out[start..], seed, first_seq, durable, Kind::Entries);
    entries.each().for_each(|entry| out.extend_from_slice(entry.bytes));
    finish(out, start);
}

/// Writes a frame without entries, which says how far the log is durable.
pub(super) fn encode_mark(out: &mut Vec<u8>, seed: u32, next_seq: u64, durable: Place) {
    let nothing: &[Bytes] = &[];
    encode(out, seed, next_seq, durable, nothing);
}

/// Writes a frame that holds a piece of an entry.
pub(super) fn encode_piece(out: &mut Vec<u8>, seed: u32, next_seq: u64, durable: Place, piece: &[u8]) {
    let start = out.len();
    out.resize(start + HEAD, 0);
    put_row(out, seed, piece.into());
    put_head(&mut out[start..], seed, next_seq, durable, Kind::Piece);
    out.extend_from_slice(piece);
    finish(out, start);
}

/// The rows and the entries of a frame to which more may come.
#[derive(Debug, Default)]
pub(super) struct Filling {
    table: Vec<u8>,
    entries: Vec<u8>,
}

impl Filling {
    pub(super) fn add(&mut self, seed: u32, entry: Given<'_>) {
        put_row(&mut self.table, seed, entry);
        self.entries.extend_from_slice(entry.bytes);
    }

    /// How many entries it has.
    pub(super) fn rows(&self) -> usize {
        self.table.len() / ROW
    }

    /// How long the frame is, without padding.
    pub(super) fn len(&self) -> usize {
        HEAD + self.table.len() + self.entries.len()
    }

    /// Writes the frame, padding included, and begins anew.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>, seed: u32, first_seq: u64, durable: Place) {
        let start = out.len();
        out.reserve(padded(self.len()));
        out.resize(start + HEAD, 0);
        out.append(&mut self.table);
        put_head(&mut out[start..], seed, first_seq, durable, Kind::Entries);
        out.append(&mut self.entries);
        finish(out, start);
    }
}

/// Writes the row of an entry, which says how long it is and what its checksum is.
fn put_row(table: &mut Vec<u8>, seed: u32, entry: Given<'_>) {
    let flag = if entry.is_in_pieces() { IN_PIECES } else { 0 };
    let (len, crc) = (entry.bytes.len() as u32 | flag, crc32c::crc32c(entry.bytes) ^ seed);
    table.extend_from_slice(&(u64::from(len) | u64::from(crc) << 32).to_le_bytes());
}

/// Fills in the head of a frame of which only the table is there.
fn put_head(frame: &mut [u8], seed: u32, first_seq: u64, durable: Place, kind: Kind) {
    let (head, table) = frame.split_at_mut(HEAD);
    let (rows, _) = table.as_chunks::<ROW>();
    let len_of = |row: &[u8; ROW]| u32_at(row, 0) & !IN_PIECES;
    let len = HEAD + table.len() + rows.iter().map(|row| len_of(row) as usize).sum::<usize>();
    debug_assert!(len <= MAX_FRAME);
    let count = rows.len() as u32;
    head[..4].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(count | u32::from(kind == Kind::Piece) << 24).to_le_bytes());
    head[16..24].copy_from_slice(&first_seq.to_le_bytes());
    head[24..32].copy_from_slice(&durable.segment.to_le_bytes());
    head[32..36].copy_from_slice(&durable.offset.to_le_bytes());
    head[36..40].copy_from_slice(&crc32c::crc32c_append(seed, table).to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &head[8..]);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Adds the padding of the frame that begins at `start`.
fn finish(out: &mut Vec<u8>, start: usize) {
    out.resize(start + padded(out.len() - start), 0);
}

/// Puts sound checksums into whatever `bytes` say, of the head, the table and the first row.
#[cfg(feature = "sim")]
pub(super) fn seal(bytes: &mut [u8], seed: u32) {
    if bytes.len() < HEAD {
        return;
    }
    bytes[..4].copy_from_slice(&MAGIC);
    let table = HEAD + (u32_at(bytes, 12) & 0xff_ffff) as usize * ROW;
    if let Some(row) = bytes.get(HEAD..table).filter(|table| !table.is_empty()) {
        let len = u32_at(row, 0) & !IN_PIECES;
        if let Some(entry) = bytes.get(table..table + len as usize) {
            let crc = crc32c::crc32c(entry) ^ seed;
            bytes[HEAD + 4..HEAD + ROW].copy_from_slice(&crc.to_le_bytes());
        }
    }
    if let Some(table) = bytes.get(HEAD..table) {
        let crc = crc32c::crc32c_append(seed, table);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(seed, &bytes[8..HEAD]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The head of the frame that `bytes` begin with, or `None` if there is no sound one. The rest of the frame may still be
/// damaged, or missing from the end of `bytes`.
pub(super) fn decode_head(bytes: &[u8], seed: u32) -> Option<Head> {
    let fixed = bytes.get(..HEAD)?;
    if fixed[..4] != MAGIC || crc32c::crc32c_append(seed, &fixed[8..]) != u32_at(fixed, 4) {
        return None;
    }
    known_head(fixed)
}

/// The same of a frame that is known to be sound, without a look at its checksum.
pub(super) fn known_head(bytes: &[u8]) -> Option<Head> {
    let fixed = bytes.get(..HEAD)?;
    let (rows, kind) = (u32_at(fixed, 12) & 0xff_ffff, fixed[15]);
    let head = Head {
        len: u32_at(fixed, 8),
        kind: match kind {
            0 => Kind::Entries,
            1 => Kind::Piece,
            _ => return None,
        },
        rows,
        first_seq: u64_at(fixed, 16),
        durable: Place::new(u64_at(fixed, 24), u32_at(fixed, 32)),
        table_crc: u32_at(fixed, 36),
    };
    // What follows holds for every frame ever written; it keeps sums elsewhere from overflowing on one that was not.
    let len = head.len as usize;
    let table_fits = (rows as usize) <= MAX_FRAME / ROW && HEAD + rows as usize * ROW <= len;
    let sane = len <= MAX_FRAME && table_fits && head.first_seq.checked_add(rows.into()).is_some();
    sane.then_some(head)
}

/// Where each entry of a frame lies in `bytes`, or `None` for one that is damaged or cut off.
pub(super) fn rows(bytes: &[u8], seed: u32, head: Head) -> impl Iterator<Item = Option<Row>> {
    let mut table = table(bytes, seed, head);
    (0..head.rows).map(move |_| {
        let (row, crc) = table.as_mut()?.next()?;
        let entry = bytes.get(row.range.clone())?;
        (crc32c::crc32c(entry) == crc).then_some(row)
    })
}

/// Where each entry of a frame lies and what its checksum is, by the table in `bytes`, which need not have the rest; `None`
/// when the table is damaged or cut off.
pub(super) fn table(bytes: &[u8], seed: u32, head: Head) -> Option<impl Iterator<Item = (Row, u32)>> {
    let table = bytes.get(HEAD..HEAD + head.rows as usize * ROW)?;
    let is_sound = crc32c::crc32c_append(seed, table) == head.table_crc;
    is_sound.then(|| table_rows(table).map(move |(row, crc)| (row, crc ^ seed)))
}

/// Where each entry of a frame lies that is known to be sound, without a look at its checksums.
pub(super) fn known_rows(bytes: &[u8], head: Head) -> impl Iterator<Item = Row> {
    let table = bytes.get(HEAD..HEAD + head.rows as usize * ROW).unwrap_or_default();
    table_rows(table).map(|(row, _)| row)
}

/// What a table says: of each row where it lies, and the checksum as it is written.
fn table_rows(table: &[u8]) -> impl Iterator<Item = (Row, u32)> {
    let mut at = HEAD + table.len();
    table.chunks_exact(ROW).map(move |row| {
        let len = u32_at(row, 0);
        let range = at..at + (len & !IN_PIECES) as usize;
        at = range.end;
        let in_pieces = len & IN_PIECES != 0;
        (Row { range, in_pieces }, u32_at(row, 4))
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
        encode(&mut out, seed, 10, Place::new(2, 8), &entries[..]);
        (out, entries, seed)
    }

    #[test]
    fn a_frame_round_trips() {
        let (bytes, written, seed) = sample();
        let head = decode_head(&bytes, seed).unwrap();
        let len = HEAD + written.iter().map(|entry| ROW + entry.len()).sum::<usize>();
        assert_eq!(bytes.len(), padded(len));
        assert_eq!((head.first_seq, head.count(), head.durable), (10, 3, Place::new(2, 8)));
        let read: Vec<_> = rows(&bytes, seed, head)
            .map(|range| &bytes[range.unwrap().range])
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
            let read: Vec<_> = rows(&flipped, seed, head).collect();
            let lost = read.iter().filter(|range| range.is_none()).count();
            let expected = if bit / 8 < HEAD + 3 * ROW { 3 } else { 1 };
            assert_eq!(
                lost + usize::from(!padding_is_zero(&flipped, head)),
                expected,
                "bit {bit}"
            );
            for (range, entry) in read.into_iter().zip(&written) {
                assert!(
                    range.is_none_or(|row| flipped[row.range] == entry[..] && !row.in_pieces),
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
                let whole = rows(&bytes[..len], seed, head).all(|entry| entry.is_some());
                assert_eq!(whole, len >= head.len as usize, "cut to {len}");
            }
        }
    }
}

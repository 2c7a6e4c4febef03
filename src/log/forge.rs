//! Segments put together as a fuzz target likes, with sound checksums: what a decoder meets when no checksum helps it.

use super::entry::{Entry, Hold, Piece};
use super::frame;
use super::hooks::judge;
use super::index;
use super::segment::{Header, Place};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A segment to be forged. Places are a segment, from 1 on, and one of its frames, from 0 on.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "as the fields of a header, which FORMAT.md describes")]
pub struct ForgedSegment {
    pub base: u64,
    pub floor: u64,
    pub prev: (u64, usize),
    pub prev_base: u64,
    pub frames: Vec<ForgedFrame>,
}

/// A frame to be forged.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "as the fields of a frame, which FORMAT.md describes")]
pub struct ForgedFrame {
    pub first: u64,
    pub durable: (u64, usize),
    pub what: ForgedRows,
}

/// What a forged frame holds.
#[derive(Clone, Debug)]
pub enum ForgedRows {
    /// Entries; none is a mark.
    Entries(Vec<Vec<u8>>),
    /// An entry whose pieces are in these places, of so many bytes each.
    InPieces(Vec<((u64, usize), u32)>),
    /// A piece of one.
    Piece(Vec<u8>),
    /// Bytes that are no frame.
    Raw(Vec<u8>),
}

impl Default for ForgedRows {
    fn default() -> ForgedRows {
        ForgedRows::Entries(Vec::new())
    }
}

/// Writes segments, numbered from 1.
#[must_use]
pub fn forge(segments: &[ForgedSegment]) -> Vec<Vec<u8>> {
    let mut offsets: Vec<Vec<u32>> = Vec::new();
    let mut all = Vec::new();
    for (id, segment) in (1..).zip(segments) {
        let place = |offsets: &[Vec<u32>], (of, nth): (u64, usize)| {
            let known = of.checked_sub(1).and_then(|at| offsets.get(at as usize)?.get(nth));
            Place::new(of, known.copied().unwrap_or(nth as u32 * frame::ALIGN as u32))
        };
        offsets.push(Vec::new());
        let header = Header {
            id,
            salt: id * 77,
            base: segment.base,
            floor: segment.floor,
            prev: place(&offsets, segment.prev),
            prev_base: segment.prev_base,
        };
        let mut bytes = header.encode();
        for forged in &segment.frames {
            let at = Place::new(id, bytes.len() as u32);
            let seed = frame::seed(header.salt, at);
            let durable = place(&offsets, forged.durable);
            match &forged.what {
                ForgedRows::Entries(entries) => {
                    let entries: Vec<_> = entries.iter().map(|entry| Bytes::copy_from_slice(entry)).collect();
                    frame::encode(&mut bytes, seed, forged.first, durable, &entries[..]);
                }
                ForgedRows::InPieces(pieces) => {
                    let piece = |&(at, len)| Piece {
                        place: place(&offsets, at),
                        len,
                    };
                    let pieces: Vec<_> = pieces.iter().map(piece).collect();
                    let entry = Entry::in_pieces_at(&pieces, Arc::new(Hold::new(1)));
                    frame::encode(&mut bytes, seed, forged.first, durable, &[entry][..]);
                }
                ForgedRows::Piece(piece) => frame::encode_piece(&mut bytes, seed, forged.first, durable, piece),
                ForgedRows::Raw(raw) => {
                    bytes.extend_from_slice(raw);
                    bytes.resize(frame::padded(bytes.len()), 0);
                }
            }
            offsets.last_mut().expect("it was just pushed").push(at.offset);
        }
        all.push(bytes);
    }
    all
}

/// What recovery makes of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The numbers that it keeps.
    pub range: Range<u64>,
    /// Numbers that frames cover, and those that none does, in order.
    pub pieces: Vec<(Range<u64>, bool)>,
    /// Numbers that it reports as lost.
    pub gaps: Vec<Range<u64>>,
    /// Segments, and which of their bytes it reports as damaged.
    pub damaged: Vec<(u64, Range<u32>)>,
    /// Bytes that it cuts off.
    pub torn: u64,
}

/// Judges these segments, numbered from 1.
#[must_use]
pub fn judged(segments: &[&[u8]]) -> Judged {
    let found = judge(segments);
    let pieces = found.index.walk(found.index.range()).map(|piece| match piece {
        index::Piece::Frame(at) => (at.first_seq..at.end(), true),
        index::Piece::Hole(from, to) => (from..to, false),
    });
    Judged {
        range: found.index.range(),
        pieces: pieces.collect(),
        gaps: found.gaps.iter().map(|gap| gap.range.clone()).collect(),
        damaged: found
            .damage
            .iter()
            .map(|damage| (damage.segment, damage.bytes.clone()))
            .collect(),
        torn: found.torn,
    }
}

/// Where the rows of a frame lie that has these bytes and, whatever they say, sound checksums.
#[must_use]
pub fn rows(bytes: &[u8]) -> Option<Vec<Range<usize>>> {
    let seed = 9;
    let mut bytes = bytes.to_vec();
    frame::seal(&mut bytes, seed);
    let head = frame::decode_head(&bytes, seed)?;
    let rows = frame::rows(&bytes, seed, head).flatten().map(|row| row.range);
    Some(rows.collect())
}

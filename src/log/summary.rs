//! What a segment holds, in short, so that opening need not read the segment: where its frames lie, and of each entry
//! what the log's owner wants to know of it. `FORMAT.md` beside this file describes the file.
//!
//! A summary repeats what the segment says and is never needed: one that is missing, damaged or of another segment is
//! made again from the segment. It says of a segment's beginning that it is on disk, so it is made only of what has been
//! synced or was read from the device. What is damaged later is found by whoever reads it.

use super::entry;
use super::frame::{self, HEAD, Head, Kind, MAX_FRAME};
use super::index::FrameAt;
use super::segment::{HEADER_LEN, Header, Place};
use bytes::Bytes;
use std::fmt;

/// What the owner of a log wants to be told of each entry when it opens the log next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    /// Names what the notes mean; notes under another name are made anew.
    pub(crate) format: u32,
    /// What makes them, from the first entry of a segment on or from any other.
    pub(crate) noter: fn() -> Box<dyn Noter>,
}

/// Makes notes of entries, one after the other. They are told apart by whoever reads them.
pub(crate) trait Noter: Send + Sync {
    /// Adds the note of the next entry, of which nothing is at hand when it lies in pieces.
    fn note(&mut self, entry: Option<&[u8]>, out: &mut Vec<u8>);
}

/// A summary as it was read, found to be whole and of its segment.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) segment: u64,
    /// What it tells of ends here, and everything before that is on disk.
    end: u32,
    /// Bytes of the segment without the zeros at its end, when it was made.
    pub(super) used: u32,
    /// The number of its first entry.
    pub(super) first: u64,
    /// The number after its last entry.
    pub(super) next: u64,
    frames: Bytes,
    long: Bytes,
    pub(super) notes: Bytes,
}

/// A frame in a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Entries(FrameAt),
    Piece(Place),
    Mark,
}

impl Summary {
    /// Reads the summary of the segment with this header; nothing, if it is not that or not as it was written.
    pub(super) fn decode(bytes: &Bytes, header: &Header, notes: Option<Notes>) -> Option<Summary> {
        let (told, crc) = bytes.split_last_chunk::<4>()?;
        if bytes.len() < HEADING + 4 || told[..8] != MAGIC || crc32c::crc32c(told) != u32::from_le_bytes(*crc) {
            return None;
        }
        let word = |n: usize| u64::from_le_bytes(told[8 + 8 * n..][..8].try_into().expect("eight bytes"));
        let half = |n: usize| u32::from_le_bytes(told[40 + 4 * n..][..4].try_into().expect("four bytes"));
        if [word(0), word(1), word(2)] != [header.id, header.salt, header.base] || half(5) != format(notes) {
            return None;
        }
        let frames_end = HEADING.checked_add(usize::try_from(half(2)).ok()?.checked_mul(LISTED)?)?;
        let long_end = frames_end.checked_add(usize::try_from(half(3)).ok()?)?;
        let notes_end = long_end.checked_add(usize::try_from(half(4)).ok()?)?;
        if notes_end != told.len() {
            return None;
        }
        let summary = Summary {
            segment: header.id,
            end: half(0),
            used: half(1),
            first: header.base,
            next: word(3),
            frames: bytes.slice(HEADING..frames_end),
            long: bytes.slice(frames_end..long_end),
            notes: bytes.slice(long_end..notes_end),
        };
        summary.agrees().then_some(summary)
    }

    /// Whether its parts fit each other.
    fn agrees(&self) -> bool {
        let (mut at, mut next) = (u64::from(HEADER_LEN), self.first);
        for (len, rows, kind) in self.listed() {
            let fits = kind <= PIECE && (HEAD..=MAX_FRAME).contains(&(len as usize));
            let Some(after) = next
                .checked_add(if kind == ENTRIES { rows.into() } else { 0 })
                .filter(|_| fits)
            else {
                return false;
            };
            next = after;
            at += frame::padded(len as usize) as u64;
        }
        at == u64::from(self.end) && next == self.next && self.end <= self.used && self.long_list().is_some()
    }

    fn listed(&self) -> impl Iterator<Item = (u32, u32, u8)> {
        let (frames, _) = self.frames.as_chunks::<LISTED>();
        frames.iter().map(|[a, b, c, d, e, f, g, kind]| {
            let len = u32::from_le_bytes([*a, *b, *c, *d]);
            (len, u32::from_le_bytes([*e, *f, *g, 0]), *kind)
        })
    }

    /// What it tells of ends here, and everything before that is on disk.
    pub(super) fn end(&self) -> Place {
        Place::new(self.segment, self.end)
    }

    pub(super) fn frame_count(&self) -> usize {
        self.frames.len() / LISTED
    }

    /// The frames of the segment, in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = Listed> {
        let (segment, mut offset, mut next) = (self.segment, HEADER_LEN, self.first);
        self.listed().map(move |(len, rows, kind)| {
            let place = Place::new(segment, offset);
            offset += frame::padded(len as usize) as u32;
            match (kind, rows) {
                (ENTRIES, 0) => Listed::Mark,
                (ENTRIES, count) => {
                    let first_seq = next;
                    next += u64::from(count);
                    Listed::Entries(FrameAt {
                        first_seq,
                        place,
                        count,
                        len,
                    })
                }
                _ => Listed::Piece(place),
            }
        })
    }

    /// The entries in pieces, and where those are.
    pub(super) fn long(&self) -> Vec<(u64, Vec<Place>)> {
        self.long_list().unwrap_or_default()
    }

    fn long_list(&self) -> Option<Vec<(u64, Vec<Place>)>> {
        let mut rest = &self.long[..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (seq, after) = rest.split_first_chunk::<8>()?;
            let (count, after) = after.split_first_chunk::<4>()?;
            let len = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(PLACE)?;
            let (places, after) = after.split_at_checked(len)?;
            let (places, _) = places.as_chunks::<PLACE>();
            all.push((u64::from_le_bytes(*seq), places.iter().map(decode_place).collect()));
            rest = after;
        }
        Some(all)
    }
}

/// Gathers the summary of a segment while that grows.
pub(super) struct Summarizer {
    header: Header,
    /// What it tells of ends here.
    end: u32,
    /// The same of the file that there is; 0 if there is none.
    written: u32,
    next: u64,
    frames: Vec<u8>,
    long: Vec<u8>,
    notes: Vec<u8>,
    format: u32,
    noter: Option<Box<dyn Noter>>,
    /// How long the summary may get.
    most: usize,
    /// Whether there will be none.
    given_up: bool,
}

impl Summarizer {
    /// For a segment of `len` bytes that has no frame yet.
    pub(super) fn new(header: Header, len: u64, notes: Option<Notes>) -> Summarizer {
        Summarizer {
            header,
            end: HEADER_LEN,
            written: 0,
            next: header.base,
            frames: Vec::new(),
            long: Vec::new(),
            notes: Vec::new(),
            format: format(notes),
            noter: notes.map(|notes| (notes.noter)()),
            most: (usize::try_from(len).unwrap_or(usize::MAX) / PART).max(LEAST),
            given_up: false,
        }
    }

    /// Goes on from a summary.
    pub(super) fn resume(header: Header, len: u64, notes: Option<Notes>, summary: &Summary) -> Summarizer {
        Summarizer {
            end: summary.end,
            written: summary.end,
            next: summary.next,
            frames: summary.frames.to_vec(),
            long: summary.long.to_vec(),
            notes: summary.notes.to_vec(),
            ..Summarizer::new(header, len, notes)
        }
    }

    pub(super) fn segment(&self) -> u64 {
        self.header.id
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Takes the next frames of the segment, which are sound. What does not look so ends the summary.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.given_up {
            match self.frame(bytes) {
                Some(len) => bytes = &bytes[len..],
                None => self.give_up(),
            }
        }
    }

    /// Tells of the frame that these bytes begin with, and says how long it is with its padding.
    fn frame(&mut self, bytes: &[u8]) -> Option<usize> {
        let head = frame::known_head(bytes).filter(|head| head.first_seq == self.next)?;
        let len = frame::padded(head.len as usize);
        let frame = bytes.get(..len)?;
        self.frames.extend_from_slice(&head.len.to_le_bytes());
        let kind = if head.kind == Kind::Piece { PIECE } else { ENTRIES };
        self.frames
            .extend_from_slice(&(head.rows | u32::from(kind) << 24).to_le_bytes());
        if head.kind == Kind::Entries {
            self.entries(frame, head)?;
        }
        self.end += len as u32;
        (self.frames.len() + self.long.len() + self.notes.len() <= self.most).then_some(len)
    }

    fn entries(&mut self, frame: &[u8], head: Head) -> Option<()> {
        for row in frame::known_rows(frame, head) {
            let entry = frame.get(row.range)?;
            if row.in_pieces {
                let pieces = entry::pieces(entry)?;
                self.long.extend_from_slice(&self.next.to_le_bytes());
                self.long.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
                for piece in pieces {
                    self.long.extend_from_slice(&piece.place.segment.to_le_bytes());
                    self.long.extend_from_slice(&piece.place.offset.to_le_bytes());
                }
            }
            if let Some(noter) = &mut self.noter {
                noter.note((!row.in_pieces).then_some(entry), &mut self.notes);
            }
            self.next += 1;
        }
        Some(())
    }

    fn give_up(&mut self) {
        self.given_up = true;
        (self.frames, self.long, self.notes) = (Vec::new(), Vec::new(), Vec::new());
    }

    /// Whether it tells of everything in the segment before `end`.
    pub(super) fn tells_up_to(&self, end: Place) -> bool {
        !self.given_up && Place::new(self.header.id, self.end) == end
    }

    /// Whether the file that there is says the same.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.end
    }

    /// The bytes of the file, for a segment of which `used` bytes are not zeros at its end.
    pub(super) fn encode(&self, used: u32) -> Vec<u8> {
        let len = HEADING + self.frames.len() + self.long.len() + self.notes.len() + 4;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&MAGIC);
        for word in [self.header.id, self.header.salt, self.header.base, self.next] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let frames = (self.frames.len() / LISTED) as u32;
        let (long, notes) = (self.long.len() as u32, self.notes.len() as u32);
        for half in [self.end, used.max(self.end), frames, long, notes, self.format] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        out.extend_from_slice(&self.frames);
        out.extend_from_slice(&self.long);
        out.extend_from_slice(&self.notes);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

impl fmt::Debug for Summarizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summarizer")
            .field("segment", &self.header.id)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

fn decode_place(bytes: &[u8; PLACE]) -> Place {
    let (segment, offset) = bytes.split_at(8);
    Place::new(
        u64::from_le_bytes(segment.try_into().expect("eight bytes")),
        u32::from_le_bytes(offset.try_into().expect("four bytes")),
    )
}

fn format(notes: Option<Notes>) -> u32 {
    notes.map_or(0, |notes| notes.format)
}

const MAGIC: [u8; 8] = *b"oGsumm1\0";
/// Bytes before the lists.
const HEADING: usize = 64;
/// Bytes of a frame in the list.
const LISTED: usize = 8;
/// Bytes of a place.
const PLACE: usize = 12;
const ENTRIES: u8 = 0;
const PIECE: u8 = 1;
/// A summary longer than this part of its segment would save too little to be kept in memory, but any may have so many
/// bytes.
const PART: usize = 4;
const LEAST: usize = 4 << 10;

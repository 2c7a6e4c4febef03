//! What is appended: an entry's bytes, or where its pieces lie.

use super::frame::{HEAD, MAX_FRAME, ROW};
use super::segment::Place;
use crate::sync::{AtomicU64, Ordering};
use bytes::Bytes;
use std::sync::Arc;

/// The longest entry.
pub(super) const MAX_ENTRY: usize = 64 << 20;
/// The longest entry that lies in one frame, alone.
pub(super) const MAX_WHOLE: usize = MAX_FRAME - HEAD - ROW;
/// How long the pieces of a longer one are: what others wait for a piece is a write of this.
pub(super) const PIECE: usize = 256 << 10;
/// Bytes that say where one piece is.
const REFERENCE: usize = 16;

/// Something to append: any bytes, or what [`Log::stage`](super::Log::stage) has written ahead.
#[derive(Clone, Debug)]
pub(crate) struct Entry(Stored);

#[derive(Clone, Debug)]
enum Stored {
    Whole(Bytes),
    Pieces { list: Bytes, hold: Arc<Hold> },
}

/// Keeps the pieces of an entry from being released while it may still be appended.
#[derive(Debug)]
pub(crate) struct Hold {
    /// The oldest segment that holds a piece; `GONE` when the log was reset, or has failed, since.
    oldest: AtomicU64,
}

const GONE: u64 = u64::MAX;

impl Hold {
    pub(super) fn new(oldest: u64) -> Hold {
        Hold {
            oldest: AtomicU64::new(oldest),
        }
    }

    pub(super) fn lose(&self) {
        self.oldest.store(GONE, Ordering::Relaxed);
    }

    /// The oldest segment that holds a piece, if they are there.
    pub(super) fn oldest(&self) -> Option<u64> {
        Some(self.oldest.load(Ordering::Relaxed)).filter(|oldest| *oldest != GONE)
    }
}

/// Where a piece lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) place: Place,
    /// Bytes of the entry in it.
    pub(super) len: u32,
}

/// Entries that are appended as one.
pub(crate) trait Entries {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them.
    fn at(&self, index: usize) -> Given<'_>;

    /// Each of them.
    fn each(&self) -> impl Iterator<Item = Given<'_>> {
        (0..self.count()).map(|index| self.at(index))
    }
}

/// One entry to append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// The bytes that go into the frame.
    pub(crate) bytes: &'a [u8],
    /// What keeps its pieces, if it is in pieces.
    hold: Option<&'a Arc<Hold>>,
}

impl<'a> Given<'a> {
    /// The oldest segment that holds a piece of it, if it is in pieces: nothing, when they are not there any more.
    pub(super) fn oldest(&self) -> Option<Option<u64>> {
        self.hold.map(|hold| hold.oldest())
    }

    pub(super) fn is_in_pieces(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether it is too long for one frame, and has to be cut into pieces.
    pub(super) fn is_long(&self) -> bool {
        self.hold.is_none() && self.bytes.len() > MAX_WHOLE
    }

    /// The same, kept.
    pub(super) fn to_entry(self) -> Entry {
        let bytes = Bytes::copy_from_slice(self.bytes);
        Entry(match self.hold {
            None => Stored::Whole(bytes),
            Some(hold) => Stored::Pieces {
                list: bytes,
                hold: Arc::clone(hold),
            },
        })
    }
}

impl<'a> From<&'a [u8]> for Given<'a> {
    fn from(bytes: &'a [u8]) -> Given<'a> {
        Given { bytes, hold: None }
    }
}

impl<'a> From<&'a Bytes> for Given<'a> {
    fn from(bytes: &'a Bytes) -> Given<'a> {
        Given::from(&bytes[..])
    }
}

impl<'a> From<&'a Entry> for Given<'a> {
    fn from(entry: &'a Entry) -> Given<'a> {
        match &entry.0 {
            Stored::Whole(bytes) => bytes.into(),
            Stored::Pieces { list, hold } => Given {
                bytes: list,
                hold: Some(hold),
            },
        }
    }
}

impl<T> Entries for [T]
where
    for<'a> &'a T: Into<Given<'a>>,
{
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Given<'_> {
        (&self[index]).into()
    }
}

impl From<Bytes> for Entry {
    fn from(bytes: Bytes) -> Entry {
        Entry(Stored::Whole(bytes))
    }
}

impl Entry {
    /// An entry whose pieces have been written.
    pub(super) fn in_pieces_at(pieces: &[Piece], hold: Arc<Hold>) -> Entry {
        let mut list = Vec::with_capacity(pieces.len() * REFERENCE);
        for piece in pieces {
            list.extend_from_slice(&piece.place.segment.to_le_bytes());
            list.extend_from_slice(&piece.place.offset.to_le_bytes());
            list.extend_from_slice(&piece.len.to_le_bytes());
        }
        let list = list.into();
        Entry(Stored::Pieces { list, hold })
    }
}

/// Bytes of the list that stands for an entry of `len` bytes.
pub(super) fn list_len(len: usize) -> usize {
    len.div_ceil(PIECE) * REFERENCE
}

/// Reads a list of pieces, or `None` when it is none.
pub(super) fn pieces(list: &[u8]) -> Option<Vec<Piece>> {
    let references = list.chunks_exact(REFERENCE);
    if !references.remainder().is_empty() {
        return None;
    }
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let pieces = references.map(|bytes| Piece {
        place: Place::new(
            u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")),
            u32_at(bytes, 8),
        ),
        len: u32_at(bytes, 12),
    });
    let pieces: Vec<_> = pieces.collect();
    let whole: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    (whole <= MAX_ENTRY as u64).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pieces_round_trips_and_others_are_refused() {
        let all = [
            Piece {
                place: Place::new(3, 1024),
                len: 77,
            },
            Piece {
                place: Place::new(4, 8),
                len: 1,
            },
        ];
        let entry = Entry::in_pieces_at(&all, Arc::new(Hold::new(3)));
        let given = Given::from(&entry);
        assert_eq!(pieces(given.bytes).unwrap(), all);
        assert_eq!(given.oldest(), Some(Some(3)));
        assert_eq!(given.bytes.len(), 2 * REFERENCE);
        assert_eq!(pieces(&given.bytes[1..]), None);
        let long = [Piece {
            place: Place::new(1, 1),
            len: u32::MAX,
        }];
        let long = Entry::in_pieces_at(&long, Arc::new(Hold::new(3)));
        assert_eq!(pieces(Given::from(&long).bytes), None);
    }
}

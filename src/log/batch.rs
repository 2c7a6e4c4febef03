//! What waits to be written, already in the bytes in which it will lie on disk.
//!
//! Frames are built when they are appended, while the disk is busy with those before them; so their places, and the
//! salts of segments that do not exist yet, are decided here.

use super::entry::Appended;
use super::frame::{self, HEAD};
use super::group::Group;
use super::index::FrameAt;
use super::segment::{HEADER_LEN, Place};
use super::spare::Spare;
use std::sync::Arc;

/// Where the next frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) segment: u64,
    pub(super) salt: u64,
    pub(super) offset: u32,
    /// Where the segment is full.
    pub(super) limit: u32,
}

/// A segment that is to be made before the frames that go into it.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub(super) id: u64,
    pub(super) salt: u64,
    /// The number of the first entry that it takes.
    pub(super) base: u64,
    /// The file that becomes it; without one, one of `len` bytes is made.
    pub(super) spare: Option<Spare>,
    pub(super) len: u32,
    /// Whether it takes what may use the reserve, so that it says nothing about the disk.
    pub(super) reserved: bool,
}

/// Frames that lie one behind the other in one segment.
#[derive(Debug)]
pub(super) struct Part {
    /// The segment, when it is to be made first.
    pub(super) new: Option<NewSegment>,
    pub(super) start: Place,
    pub(super) salt: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: Vec<FrameAt>,
    /// Whether the bytes begin with room for a mark, and the number that follows it.
    pub(super) mark: Option<u64>,
}

/// Frames that are written, and perhaps synced, together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) group: Arc<Group>,
    pub(super) parts: Vec<Part>,
    /// Whether somebody waits for the disk, and not only for the kernel.
    pub(super) sync: bool,
    /// Bytes in it.
    pub(super) len: usize,
}

impl Cursor {
    /// Whether a frame of `len` bytes may follow. An empty segment takes any one; a mark always finds room.
    pub(super) fn fits(&self, len: usize) -> bool {
        let end = self.offset as usize + frame::padded(len) + HEAD;
        self.offset == HEADER_LEN || end <= self.limit as usize
    }

    pub(super) fn place(&self) -> Place {
        Place::new(self.segment, self.offset)
    }
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            group: Arc::new(Group::new()),
            parts: Vec::new(),
            sync: false,
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Begins a part at the cursor, if the last one does not end there. `witness` leaves room for a mark, which is filled
    /// in when it is known how far the log is durable.
    pub(super) fn begin(
        &mut self,
        cursor: &mut Cursor,
        new: Option<NewSegment>,
        next: u64,
        mut bytes: Vec<u8>,
        witness: bool,
    ) {
        let start = cursor.place();
        if witness {
            bytes.resize(HEAD, 0);
            cursor.offset += HEAD as u32;
            self.len += HEAD;
        }
        self.parts.push(Part {
            new,
            start,
            salt: cursor.salt,
            bytes,
            frames: Vec::new(),
            mark: witness.then_some(next),
        });
    }

    /// Adds a frame of entries, which was found to fit.
    pub(super) fn entries(&mut self, cursor: &mut Cursor, first_seq: u64, durable: Place, entries: &[impl Appended]) {
        let (place, part) = (cursor.place(), self.parts.last_mut().expect("a part has begun"));
        let before = part.bytes.len();
        frame::encode(
            &mut part.bytes,
            frame::seed(cursor.salt, place),
            first_seq,
            durable,
            entries,
        );
        let added = part.bytes.len() - before;
        part.frames.push(FrameAt {
            first_seq,
            place,
            count: entries.len() as u32,
            len: frame::frame_len(entries) as u32,
        });
        cursor.offset += added as u32;
        self.len += added;
    }

    /// Adds a piece, which was found to fit, and says where it is.
    pub(super) fn piece(&mut self, cursor: &mut Cursor, next: u64, durable: Place, piece: &[u8]) -> Place {
        let (place, part) = (cursor.place(), self.parts.last_mut().expect("a part has begun"));
        let before = part.bytes.len();
        frame::encode_piece(&mut part.bytes, frame::seed(cursor.salt, place), next, durable, piece);
        let added = part.bytes.len() - before;
        cursor.offset += added as u32;
        self.len += added;
        place
    }
}

impl Part {
    /// Where its bytes end.
    pub(super) fn end(&self) -> u32 {
        self.start.offset + self.bytes.len() as u32
    }

    /// Fills in the mark at its beginning: the log is durable up to there.
    pub(super) fn witness(&mut self, durable: Place) {
        if let Some(next) = self.mark {
            let mut mark = Vec::with_capacity(HEAD);
            frame::encode_mark(&mut mark, frame::seed(self.salt, self.start), next, durable);
            self.bytes[..HEAD].copy_from_slice(&mark);
        }
    }
}

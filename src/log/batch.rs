//! What waits to be written, already in the bytes in which it will lie on disk.
//!
//! Frames are built when they are appended, while the disk is busy with those before them; so their places, and the
//! salts of segments that do not exist yet, are decided here.

use super::entry::Entries;
use super::frame::{self, Filling, HEAD};
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
    pub(super) buffer: Buffer,
    pub(super) frames: Vec<FrameAt>,
    open: Option<Open>,
    /// Whether the bytes begin with room for a mark, and the number that follows it.
    pub(super) mark: Option<u64>,
}

/// The frame that is being filled.
#[derive(Clone, Copy, Debug)]
struct Open {
    place: Place,
    seed: u32,
    first_seq: u64,
    durable: Place,
}

/// What a part is built in.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Its frames, but for the one that is being filled.
    pub(super) bytes: Vec<u8>,
    filling: Filling,
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
    /// Appends in it.
    pub(super) appends: u64,
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
            appends: 0,
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
        mut buffer: Buffer,
        witness: bool,
    ) {
        if let Some(last) = self.parts.last_mut() {
            last.close();
        }
        let start = cursor.place();
        if witness {
            buffer.bytes.resize(HEAD, 0);
            cursor.offset += HEAD as u32;
            self.len += HEAD;
        }
        self.parts.push(Part {
            new,
            start,
            salt: cursor.salt,
            buffer,
            frames: Vec::new(),
            open: None,
            mark: witness.then_some(next),
        });
    }

    /// Adds entries, which were found to fit: to the frame that is being filled, or as a frame of `len` bytes.
    pub(super) fn entries<E>(
        &mut self,
        cursor: &mut Cursor,
        first_seq: u64,
        durable: Place,
        (entries, len): (&E, usize),
    ) where
        E: Entries + ?Sized,
    {
        let part = self.parts.last_mut().expect("a part has begun");
        let more = len - HEAD;
        if more > FILLED / 2 || part.buffer.filling.len() + more > FILLED {
            part.close();
        }
        let before = cursor.offset;
        if more > FILLED / 2 {
            let place = cursor.place();
            let seed = frame::seed(cursor.salt, place);
            frame::encode(&mut part.buffer.bytes, seed, first_seq, durable, entries);
            part.frames.push(FrameAt {
                first_seq,
                place,
                count: entries.count() as u32,
                len: len as u32,
            });
            cursor.offset += frame::padded(len) as u32;
        } else {
            let open = *part.open.get_or_insert_with(|| Open {
                place: cursor.place(),
                seed: frame::seed(cursor.salt, cursor.place()),
                first_seq,
                durable,
            });
            let filling = &mut part.buffer.filling;
            entries.each().for_each(|entry| filling.add(open.seed, entry));
            cursor.offset = open.place.offset + frame::padded(filling.len()) as u32;
        }
        self.len += (cursor.offset - before) as usize;
        self.appends += 1;
    }

    /// Adds a piece, which was found to fit, and says where it is.
    pub(super) fn piece(&mut self, cursor: &mut Cursor, next: u64, durable: Place, piece: &[u8]) -> Place {
        let (place, part) = (cursor.place(), self.parts.last_mut().expect("a part has begun"));
        part.close();
        let (bytes, seed) = (&mut part.buffer.bytes, frame::seed(cursor.salt, place));
        let before = bytes.len();
        frame::encode_piece(bytes, seed, next, durable, piece);
        let added = bytes.len() - before;
        cursor.offset += added as u32;
        self.len += added;
        place
    }
}

impl Part {
    /// Nothing more goes into the frame that is being filled.
    pub(super) fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let Buffer { bytes, filling } = &mut self.buffer;
        self.frames.push(FrameAt {
            first_seq: open.first_seq,
            place: open.place,
            count: filling.rows() as u32,
            len: filling.len() as u32,
        });
        filling.encode(bytes, open.seed, open.first_seq, open.durable);
    }

    /// Its bytes, when it is closed.
    pub(super) fn bytes(&self) -> &[u8] {
        debug_assert!(self.open.is_none());
        &self.buffer.bytes
    }

    /// Where its bytes end.
    pub(super) fn end(&self) -> u32 {
        self.start.offset + self.bytes().len() as u32
    }

    /// The same, as a place.
    pub(super) fn end_place(&self) -> Place {
        Place::new(self.start.segment, self.end())
    }

    /// Fills in the mark at its beginning: the log is durable up to there.
    pub(super) fn witness(&mut self, durable: Place) {
        if let Some(next) = self.mark {
            let mut mark = Vec::with_capacity(HEAD);
            frame::encode_mark(&mut mark, frame::seed(self.salt, self.start), next, durable);
            self.buffer.bytes[..HEAD].copy_from_slice(&mark);
        }
    }
}

impl Buffer {
    /// Empties it, to be used again.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The most bytes that it has held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Small appends share a frame up to so many bytes: a page or four, since a frame is read as a whole, and lost as a whole
/// when its head is damaged.
const FILLED: usize = 16 << 10;

//! Appending: entries get their numbers and their places at once, and wait in the bytes of their frames.

use super::batch::{Cursor, NewSegment};
use super::entry::{Entries, Entry, Given, Hold, MAX_ENTRY, PIECE, Piece, list_len};
use super::frame::{self, HEAD, MAX_FRAME, ROW};
use super::group::{End, Group};
use super::segment::HEADER_LEN;
use super::shared::{Job, Shared, State};
use super::wait::Wait;
use super::{Durability, LogError, LogOptions};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How entries are appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) durability: Durability,
    /// Whether they may use the room that is kept for what frees room.
    pub(super) reserved: bool,
    /// The number that the first of them must have, if any.
    pub(super) at: Option<u64>,
}

/// An append on its way to the disk: ready when it is as durable as asked for, or failed. It is written when it is first
/// polled, waited for or dropped, or earlier together with another. Dropping it does not undo it.
#[must_use = "entries are durable only when this is ready"]
pub(crate) struct Append {
    seqs: Range<u64>,
    wait: Wait,
}

impl Append {
    /// The numbers of its entries.
    pub(crate) fn seqs(&self) -> Range<u64> {
        self.seqs.clone()
    }

    /// Blocks this thread until it is as durable as asked for.
    #[cfg(test)]
    pub(crate) fn wait(self) -> Result<(), LogError> {
        crate::env::wait(self.here())
    }

    /// The same for a task that may block its thread, which [`may_work_here`](crate::env::may_work_here) tells: when nobody writes, it does, and
    /// no other thread is woken.
    ///
    /// # Cancel safety
    /// Dropped while it writes, it poisons the log.
    pub(crate) async fn here(mut self) -> Result<(), LogError> {
        self.wait.here().await
    }
}

impl Future for Append {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.wait).poll(cx)
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("seqs", &self.seqs)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Appends entries, unless their numbers would not be those asked for.
    pub(super) fn append<E>(self: &Arc<Self>, entries: &E, how: How) -> Result<Option<Append>, LogError>
    where
        E: Entries + ?Sized,
    {
        let size = Size::of(entries)?;
        let mut state = self.state.lock();
        state.check_open()?;
        let seqs = state.next..state.next + entries.count() as u64;
        if how.at.is_some_and(|at| at != seqs.start) {
            return Ok(None);
        }
        if seqs.is_empty() {
            return Ok(Some(self.appended(&seqs, Arc::new(Group::ended(End::Whole)))));
        }
        state.check_room(size.whole, how.reserved, &self.options)?;
        state.check_pieces(entries)?;
        let group = match size.is_long {
            true => {
                let cut = |entry: Given<'_>| match entry.is_long() {
                    true => state.cut(entry.bytes, how.reserved, &self.options),
                    false => entry.to_entry(),
                };
                let entries: Vec<_> = entries.each().map(cut).collect();
                state.put(&entries[..], size.in_frame, how, &self.options)
            }
            false => state.put(entries, size.in_frame, how, &self.options),
        };
        Ok(Some(self.appended(&seqs, group)))
    }

    fn appended(self: &Arc<Self>, seqs: &Range<u64>, group: Arc<Group>) -> Append {
        Append {
            seqs: seqs.clone(),
            wait: Wait::new(self, group, seqs.end),
        }
    }
}

/// What entries take.
struct Size {
    is_long: bool,
    /// With the pieces of those that are cut.
    whole: usize,
    /// In the frame that has their numbers.
    in_frame: usize,
}

impl Size {
    fn of(entries: &(impl Entries + ?Sized)) -> Result<Size, LogError> {
        let mut size = Size {
            is_long: false,
            whole: HEAD,
            in_frame: HEAD,
        };
        for entry in entries.each() {
            let len = entry.bytes.len();
            check_len(len, MAX_ENTRY)?;
            size.whole += ROW + len;
            let is_long = entry.is_long();
            size.in_frame += ROW + if is_long { list_len(len) } else { len };
            size.is_long |= is_long;
        }
        check_len(size.in_frame, MAX_FRAME)?;
        Ok(size)
    }
}

fn check_len(len: usize, max: usize) -> Result<(), LogError> {
    match len > max {
        true => Err(LogError::TooLarge { len, max }),
        false => Ok(()),
    }
}

impl State {
    /// What may use the reserve does not go behind what may not, and is about to learn whether the disk is still full: it
    /// would fail with it.
    pub(super) fn check_room(&self, len: usize, reserved: bool, options: &LogOptions) -> Result<(), LogError> {
        let limit = options.buffer_bytes;
        match self.has_room(len, limit) && !(reserved && self.spares.probing) {
            true => Ok(()),
            false => Err(LogError::Busy { len, limit }),
        }
    }

    /// Entries in pieces need them to be there.
    fn check_pieces(&self, entries: &(impl Entries + ?Sized)) -> Result<(), LogError> {
        match entries.each().any(|entry| entry.oldest() == Some(None)) {
            true => Err(self.gone()),
            false => Ok(()),
        }
    }

    /// Pieces that were written ahead are not there any more.
    pub(super) fn gone(&self) -> LogError {
        LogError::Gone {
            oldest: self.index.range().start,
        }
    }

    /// Gives entries their numbers, and puts their frame, of `len` bytes, into the batch.
    fn put<E>(&mut self, entries: &E, len: usize, how: How, options: &LogOptions) -> Arc<Group>
    where
        E: Entries + ?Sized,
    {
        self.make_room(len, how.reserved, options);
        let State {
            batch,
            cursor,
            durable,
            next,
            held,
            ..
        } = self;
        let cursor = cursor.as_mut().expect("a segment has room");
        let (before, segment) = (batch.len, cursor.segment);
        batch.entries(cursor, *next, *durable, (entries, len));
        batch.sync |= how.durability == Durability::Disk;
        self.waiting += batch.len - before;
        for (seq, entry) in (*next..).zip(entries.each()) {
            if let Some(oldest) = entry.oldest().flatten() {
                held.insert((seq, segment), oldest);
            }
        }
        *next += entries.count() as u64;
        Arc::clone(&batch.group)
    }

    /// Puts the pieces of an entry into the batch.
    fn cut(&mut self, bytes: &[u8], reserved: bool, options: &LogOptions) -> Entry {
        let pieces: Vec<_> = bytes
            .chunks(PIECE)
            .map(|piece| self.put_piece(piece, reserved, options))
            .collect();
        let oldest = pieces.first().map_or(0, |piece| piece.place.segment);
        Entry::in_pieces_at(&pieces, Arc::new(Hold::new(oldest)))
    }

    /// Puts a piece into the batch.
    pub(super) fn put_piece(&mut self, bytes: &[u8], reserved: bool, options: &LogOptions) -> Piece {
        self.make_room(HEAD + ROW + bytes.len(), reserved, options);
        let State {
            batch,
            cursor,
            durable,
            next,
            ..
        } = self;
        let cursor = cursor.as_mut().expect("a segment has room");
        let before = batch.len;
        let place = batch.piece(cursor, *next, *durable, bytes);
        self.waiting += batch.len - before;
        Piece {
            place,
            len: bytes.len() as u32,
        }
    }

    /// Sees to it that the batch may take a frame of `len` bytes: that there is a segment, and that it has room.
    fn make_room(&mut self, len: usize, reserved: bool, options: &LogOptions) {
        // Behind what is being written now comes a mark, which is filled in when that is durable: else these frames could
        // vouch only for what was durable before.
        let first = self.batch.is_empty();
        let witness = first && self.writer.is_none();
        let with_mark = if witness { frame::padded(len) + HEAD } else { len };
        // On a full disk the room that is left is for what frees room; anything else needs a new segment, if it can be had.
        let probes = self.spares.full && !reserved && !self.spares.probing;
        self.spares.probing |= probes;
        let fits = !probes && self.cursor.is_some_and(|cursor| cursor.fits(with_mark));
        if fits && !first {
            return;
        }
        let new = (!fits).then(|| {
            if let Some(full) = self.cursor.filter(|_| !probes) {
                self.spares.grow(full.limit, options);
            }
            self.new_segment(self.next, reserved)
        });
        let witness = witness && fits;
        self.begin_part(new, witness);
    }

    fn begin_part(&mut self, new: Option<NewSegment>, witness: bool) {
        let buffer = std::mem::take(&mut self.buffer);
        let cursor = self.cursor.as_mut().expect("a segment has room");
        let before = self.batch.len;
        self.batch.begin(cursor, new, self.next, buffer, witness);
        self.waiting += self.batch.len - before;
    }

    /// A segment for what comes next, which begins at number `base`. The cursor goes there.
    pub(super) fn new_segment(&mut self, base: u64, reserved: bool) -> NewSegment {
        self.last_id += 1;
        let (spare, len) = self.spares.take(reserved);
        let new = NewSegment {
            id: self.last_id,
            salt: self.rng.next_u64(),
            base,
            spare,
            len,
            reserved,
        };
        self.cursor = Some(Cursor {
            segment: new.id,
            salt: new.salt,
            offset: HEADER_LEN,
            limit: len,
        });
        new
    }

    /// A job that vouches for what was written last, when nothing else is to be written.
    pub(super) fn mark(&mut self) -> Option<Job> {
        self.unmarked = false;
        if self.has_jobs() || self.cursor.is_none() {
            return None;
        }
        self.begin_part(None, true);
        self.job()
    }
}

use super::entry;
use super::frame::{self, HEAD, MAX_FRAME, ROW, Row};
use super::index::{FrameAt, Index, Piece};
use super::recovery::Damage;
use super::segment::Place;
use super::shared::{Held, Phase, Segment, State};
use super::{Gap, Item, Log, LogError, Why};
use crate::env::read_exact_at;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;

/// How much a [`Reader`] reads ahead.
const READ_AHEAD: usize = 256 << 10;

/// Reads a log in order; made by [`Log::reader`].
#[derive(Debug)]
pub(crate) struct Reader {
    log: Log,
    next: u64,
    ahead: VecDeque<Item>,
}

impl Reader {
    pub(super) fn new(log: Log, from: u64) -> Reader {
        let ahead = VecDeque::new();
        Reader { log, next: from, ahead }
    }

    /// The next durable item, or `None` at the durable end.
    ///
    /// # Errors
    /// As for [`Log::read`]; the next call tries the same again.
    ///
    /// # Cancel safety
    /// Dropping it loses no item.
    pub(crate) async fn next(&mut self) -> Result<Option<Item>, LogError> {
        if self.ahead.is_empty() {
            self.ahead = self.log.read(self.next..u64::MAX, READ_AHEAD).await?.into();
        }
        let item = self.ahead.pop_front();
        if let Some(item) = &item {
            self.next = item.end();
        }
        Ok(item)
    }
}

impl Item {
    /// The number after it.
    pub(crate) fn end(&self) -> u64 {
        match self {
            Item::Record { seq, .. } => seq + 1,
            Item::Gap(gap) => gap.range.end,
        }
    }
}

/// What to read, decided under the lock.
pub(super) struct Plan {
    pub(super) wanted: Range<u64>,
    /// The only numbers that are wanted, in order; all of the range where there are none.
    pub(super) only: Vec<u64>,
    pub(super) steps: Vec<Step>,
    /// The segments that hold pieces of entries.
    pub(super) pieces: BTreeMap<u64, Segment>,
}

pub(super) enum Step {
    Hole(Range<u64>),
    /// Frames that lie one behind the other.
    Run {
        segment: Segment,
        frames: Vec<FrameAt>,
    },
    /// A few entries of a long frame.
    Some {
        segment: Segment,
        at: FrameAt,
        seqs: Vec<u64>,
    },
}

/// Plans a read, or nothing when nothing is there.
pub(super) fn plan(state: &State, wanted: Range<u64>, max_bytes: usize) -> Result<Option<Plan>, LogError> {
    check(state, wanted.start)?;
    Ok(plan_of(&state.index, &state.segments, &state.held, wanted, max_bytes))
}

/// Whether number `first` can be read; returns where what can ends.
pub(super) fn check(state: &State, first: u64) -> Result<u64, LogError> {
    if state.phase == Phase::Closed {
        return Err(LogError::Closed);
    }
    let range = state.index.range();
    if first < range.start {
        return Err(LogError::Gone { oldest: range.start });
    }
    Ok(range.end)
}

/// The same of what is not in a log that is open.
pub(super) fn plan_of(
    index: &Index,
    segments: &BTreeMap<u64, Segment>,
    held: &Held,
    wanted: Range<u64>,
    max_bytes: usize,
) -> Option<Plan> {
    let mut steps = Vec::new();
    let mut pieces = BTreeMap::new();
    let mut bytes = 0;
    for piece in index.walk(wanted.clone()) {
        if bytes >= max_bytes.max(1) {
            break;
        }
        match piece {
            // A hole costs nothing to read, but something came of it.
            Piece::Hole(start, end) => steps.push(Step::Hole(start..end)),
            Piece::Frame(at) => {
                if bytes > 0 && bytes + at.len as usize > max_bytes {
                    break;
                }
                bytes += at.len as usize;
                if put_pieces(segments, held, at, &mut pieces) {
                    // It is not known how long the entry is; one is enough.
                    bytes = bytes.max(max_bytes);
                }
                put_run(segments, at, &mut steps);
            }
        }
    }
    (!steps.is_empty()).then_some(Plan {
        wanted,
        only: Vec::new(),
        steps,
        pieces,
    })
}

/// Adds the segments with the pieces of what a frame has in pieces; whether it has any.
pub(super) fn put_pieces(
    segments: &BTreeMap<u64, Segment>,
    held: &Held,
    at: FrameAt,
    pieces: &mut BTreeMap<u64, Segment>,
) -> bool {
    let held = held.range((at.first_seq, 0)..(at.end(), 0));
    let oldest = held.map(|(_, oldest)| *oldest).min();
    let between = oldest.map(|oldest| segments.range(oldest..=at.place.segment));
    let between = between.into_iter().flatten();
    pieces.extend(between.map(|(id, segment)| (*id, segment.clone())));
    oldest.is_some()
}

/// Adds a frame that is read as a whole, together with those before it where it lies behind them.
pub(super) fn put_run(segments: &BTreeMap<u64, Segment>, at: FrameAt, steps: &mut Vec<Step>) {
    match steps.last_mut() {
        Some(Step::Run { frames, .. }) if follows(frames, at) => frames.push(at),
        _ => steps.push(Step::Run {
            segment: segments[&at.place.segment].clone(),
            frames: vec![at],
        }),
    }
}

/// Whether `next` lies behind `frames` with nothing but marks between.
fn follows(frames: &[FrameAt], next: FrameAt) -> bool {
    let (first, last) = (frames[0].place, frames[frames.len() - 1]);
    let between = u64::from(next.place.offset).checked_sub(u64::from(last.place.offset) + u64::from(last.len));
    let whole = next.place.offset.saturating_sub(first.offset) as usize + next.len as usize;
    first.segment == next.place.segment && between.is_some_and(|gap| gap < 4096) && whole <= 4 * MAX_FRAME
}

/// How many bytes frames take that lie one behind the other.
pub(super) fn len_of(frames: &[FrameAt]) -> usize {
    let (first, last) = (frames[0], frames[frames.len() - 1]);
    (last.place.offset - first.place.offset + last.len) as usize
}

/// Where in these bytes one of the frames is.
pub(super) fn within(frames: &[FrameAt], at: FrameAt) -> Range<usize> {
    let start = (at.place.offset - frames[0].place.offset) as usize;
    start..start + at.len as usize
}

/// What a plan has read.
pub(super) struct Read {
    pub(super) items: Vec<Item>,
    /// Entries found damaged.
    pub(super) damaged: u64,
    /// The frames that hold them.
    pub(super) bad: Vec<(Segment, Damage)>,
}

impl Plan {
    /// Reads it. Blocks its thread.
    pub(super) async fn run(self) -> io::Result<Read> {
        let mut out = Output::new(self.wanted, self.only, self.pieces);
        for step in self.steps {
            match step {
                Step::Hole(range) => out.gap(range, Why::Frame),
                Step::Run { segment, frames } => out.run(&segment, &frames).await?,
                Step::Some { segment, at, seqs } => out.some(&segment, at, &seqs).await?,
            }
        }
        Ok(Read {
            items: out.items,
            damaged: out.damaged,
            bad: out.bad,
        })
    }
}

pub(super) struct Output {
    wanted: Range<u64>,
    only: Vec<u64>,
    pub(super) items: Vec<Item>,
    pub(super) damaged: u64,
    bad: Vec<(Segment, Damage)>,
    pieces: BTreeMap<u64, Segment>,
}

impl Output {
    pub(super) fn new(wanted: Range<u64>, only: Vec<u64>, pieces: BTreeMap<u64, Segment>) -> Output {
        Output {
            wanted,
            only,
            items: Vec::new(),
            damaged: 0,
            bad: Vec::new(),
            pieces,
        }
    }

    pub(super) async fn run(&mut self, segment: &Segment, frames: &[FrameAt]) -> io::Result<()> {
        let whole = read(segment, frames[0].place.offset, len_of(frames) as u32).await?;
        for at in frames {
            let bytes = whole.slice(within(frames, *at));
            if let Some(rows) = sound_rows(segment.salt, *at, &bytes) {
                self.put_rows(*at, &bytes, rows).await?;
                continue;
            }
            // Ask the device once more before calling anything lost.
            segment.file.drop_cache().await?;
            let bytes = read(segment, at.place.offset, at.len).await?;
            let rows = rows(segment.salt, *at, &bytes);
            if rows.as_ref().is_none_or(|rows| rows.iter().any(Option::is_none)) {
                self.bad(segment, at.place, at.len);
            }
            match rows {
                Some(rows) => self.put_rows(*at, &bytes, rows).await?,
                None => {
                    self.gap(at.first_seq..at.end(), Why::Frame);
                    self.damaged += u64::from(at.count);
                }
            }
        }
        Ok(())
    }

    /// Puts out what the rows of a frame hold.
    async fn put_rows(&mut self, at: FrameAt, bytes: &Bytes, rows: Vec<Option<Row>>) -> io::Result<()> {
        for (seq, row) in (at.first_seq..).zip(rows) {
            if self.wants(seq) {
                let found = row.map(|row| (bytes.slice(row.range), row.in_pieces));
                self.put(seq, found).await?;
            }
        }
        Ok(())
    }

    fn wants(&self, seq: u64) -> bool {
        self.wanted.contains(&seq) && (self.only.is_empty() || self.only.binary_search(&seq).is_ok())
    }

    /// Puts out an entry, or where its pieces are, unless it is damaged.
    pub(super) async fn put(&mut self, seq: u64, found: Option<(Bytes, bool)>) -> io::Result<()> {
        let entry = match found {
            Some((list, true)) => self.long(&list).await?,
            Some((bytes, false)) => Some(bytes),
            None => None,
        };
        match entry {
            Some(bytes) => self.items.push(Item::Record { seq, bytes }),
            None => {
                self.gap(seq..seq + 1, Why::Entry);
                self.damaged += 1;
            }
        }
        Ok(())
    }

    /// An entry in pieces, or `None` when one is damaged.
    async fn long(&mut self, list: &[u8]) -> io::Result<Option<Bytes>> {
        let Some(pieces) = entry::pieces(list) else {
            return Ok(None);
        };
        let mut whole = Vec::with_capacity(pieces.iter().map(|piece| piece.len as usize).sum());
        for piece in pieces {
            let Some(segment) = self.pieces.get(&piece.place.segment) else {
                return Ok(None);
            };
            let len = piece.len as usize;
            if len > MAX_FRAME - HEAD - ROW {
                return Ok(None);
            }
            let frame_len = (HEAD + ROW + len) as u32;
            let mut bytes = read(segment, piece.place.offset, frame_len).await?;
            if !put_piece(segment.salt, piece, &bytes, &mut whole) {
                segment.file.drop_cache().await?;
                bytes = read(segment, piece.place.offset, frame_len).await?;
                if !put_piece(segment.salt, piece, &bytes, &mut whole) {
                    let segment = segment.clone();
                    self.bad(&segment, piece.place, frame_len);
                    return Ok(None);
                }
            }
        }
        Ok(Some(whole.into()))
    }

    /// A frame is not as it was written.
    fn bad(&mut self, segment: &Segment, place: Place, len: u32) {
        let bytes = place.offset..place.offset + len;
        let damage = Damage {
            segment: place.segment,
            bytes,
        };
        self.bad.push((segment.clone(), damage));
    }

    pub(super) fn gap(&mut self, range: Range<u64>, why: Why) {
        let range = range.start.max(self.wanted.start)..range.end.min(self.wanted.end);
        if !range.is_empty() {
            self.items.push(Item::Gap(Gap { range, why }));
        }
    }
}

/// The rows of the frame, each with its entry if that is sound, or `None` when nothing of it can be told.
fn rows(salt: u64, at: FrameAt, bytes: &[u8]) -> Option<Vec<Option<Row>>> {
    let seed = frame::seed(salt, at.place);
    let head = frame::decode_head(bytes, seed).filter(|head| at.is_of(head))?;
    Some(frame::rows(bytes, seed, head).take(at.count as usize).collect())
}

fn sound_rows(salt: u64, at: FrameAt, bytes: &[u8]) -> Option<Vec<Option<Row>>> {
    rows(salt, at, bytes).filter(|rows| rows.iter().all(Option::is_some))
}

/// Adds a piece to an entry, unless it is damaged.
fn put_piece(salt: u64, piece: entry::Piece, bytes: &[u8], whole: &mut Vec<u8>) -> bool {
    let seed = frame::seed(salt, piece.place);
    let head = frame::decode_head(bytes, seed).filter(|head| head.kind == frame::Kind::Piece);
    let row = head.and_then(|head| frame::rows(bytes, seed, head).next().flatten());
    let sound = row.filter(|row| row.range.len() == piece.len as usize);
    whole.extend_from_slice(sound.as_ref().map_or(&[], |row| &bytes[row.range.clone()]));
    sound.is_some()
}

pub(super) async fn read(segment: &Segment, offset: u32, len: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; len as usize];
    read_into(segment, offset, &mut bytes).await?;
    Ok(bytes.into())
}

/// What is cut off stays as it is, and fails its checksum.
pub(super) async fn read_into(segment: &Segment, offset: u32, bytes: &mut [u8]) -> io::Result<()> {
    match read_exact_at(&*segment.file, bytes, offset.into()).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        result => result,
    }
}

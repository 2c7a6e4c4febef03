use super::frame::{self, MAX_FRAME};
use super::index::{FrameAt, Piece};
use super::segment::Place;
use super::shared::{Phase, Segment, State};
use super::{Gap, Item, Log, LogError, Why};
use crate::env::read_exact_at;
use bytes::Bytes;
use std::collections::VecDeque;
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
    wanted: Range<u64>,
    steps: Vec<Step>,
}

enum Step {
    Hole(Range<u64>),
    /// Frames that lie one behind the other.
    Run {
        segment: Segment,
        frames: Vec<FrameAt>,
    },
}

/// Plans a read, or nothing when nothing is there.
pub(super) fn plan(state: &State, wanted: Range<u64>, max_bytes: usize) -> Result<Option<Plan>, LogError> {
    if state.phase == Phase::Closed {
        return Err(LogError::Closed);
    }
    let range = state.index.range();
    if wanted.start < range.start {
        return Err(LogError::Gone { oldest: range.start });
    }
    let mut steps = Vec::new();
    let mut bytes = 0;
    for piece in state.index.walk(wanted.clone()) {
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
                match steps.last_mut() {
                    Some(Step::Run { frames, .. }) if follows(frames, at) => frames.push(at),
                    _ => steps.push(Step::Run {
                        segment: state.segments[&at.place.segment].clone(),
                        frames: vec![at],
                    }),
                }
            }
        }
    }
    Ok((!steps.is_empty()).then_some(Plan { wanted, steps }))
}

/// Whether `next` lies behind `frames` with nothing but marks between.
fn follows(frames: &[FrameAt], next: FrameAt) -> bool {
    let (first, last) = (frames[0].place, frames[frames.len() - 1]);
    let between = u64::from(next.place.offset).checked_sub(u64::from(last.place.offset) + u64::from(last.len));
    let whole = next.place.offset.saturating_sub(first.offset) as usize + next.len as usize;
    first.segment == next.place.segment && between.is_some_and(|gap| gap < 4096) && whole <= 4 * MAX_FRAME
}

impl Plan {
    /// Reads it; also how many entries were found damaged. Blocks its thread.
    pub(super) async fn run(self) -> io::Result<(Vec<Item>, u64)> {
        let mut out = Output {
            wanted: self.wanted,
            items: Vec::new(),
            damaged: 0,
        };
        for step in self.steps {
            match step {
                Step::Hole(range) => out.gap(range, Why::Frame),
                Step::Run { segment, frames } => out.run(&segment, &frames).await?,
            }
        }
        Ok((out.items, out.damaged))
    }
}

struct Output {
    wanted: Range<u64>,
    items: Vec<Item>,
    damaged: u64,
}

impl Output {
    async fn run(&mut self, segment: &Segment, frames: &[FrameAt]) -> io::Result<()> {
        let start = frames[0].place.offset;
        let last = frames[frames.len() - 1];
        let whole = read(segment, start, (last.place.offset - start) + last.len).await?;
        for at in frames {
            let offset = (at.place.offset - start) as usize;
            let bytes = whole.slice(offset..offset + at.len as usize);
            let Err(_) = self.frame(segment.salt, *at, &bytes, false) else {
                continue;
            };
            // Ask the device once more before calling anything lost.
            segment.file.drop_cache().await?;
            let bytes = read(segment, at.place.offset, at.len).await?;
            if self.frame(segment.salt, *at, &bytes, true).is_err() {
                self.gap(at.first_seq..at.end(), Why::Frame);
                self.damaged += u64::from(at.count);
            }
        }
        Ok(())
    }

    /// Puts out what the frame holds, or fails when part of it is damaged; with `accept`, only when nothing of it can be
    /// told.
    fn frame(&mut self, salt: u64, at: FrameAt, bytes: &Bytes, accept: bool) -> Result<(), Damaged> {
        let seed = frame::seed(salt, Place::new(at.place.segment, at.place.offset));
        let head = frame::decode_head(bytes, seed).filter(|head| head.first_seq == at.first_seq && head.len == at.len);
        let head = head.ok_or(Damaged)?;
        let entries: Vec<_> = frame::entries(bytes, seed, head).take(at.count as usize).collect();
        if !accept && entries.iter().any(Option::is_none) {
            return Err(Damaged);
        }
        for (seq, entry) in (at.first_seq..).zip(entries) {
            match entry {
                Some(range) if self.wanted.contains(&seq) => {
                    let bytes = bytes.slice(range);
                    self.items.push(Item::Record { seq, bytes });
                }
                Some(_) => {}
                None => {
                    self.gap(seq..seq + 1, Why::Entry);
                    self.damaged += 1;
                }
            }
        }
        Ok(())
    }

    fn gap(&mut self, range: Range<u64>, why: Why) {
        let range = range.start.max(self.wanted.start)..range.end.min(self.wanted.end);
        if !range.is_empty() {
            self.items.push(Item::Gap(Gap { range, why }));
        }
    }
}

struct Damaged;

async fn read(segment: &Segment, offset: u32, len: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; len as usize];
    match read_exact_at(&*segment.file, &mut bytes, offset.into()).await {
        // What is cut off reads as zeros, and fails its checksum.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
        result => result?,
    }
    Ok(bytes.into())
}

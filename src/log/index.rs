//! Where every live entry lies: what recovery finds and the committer extends.

use super::frame::Head;
use super::segment::Place;
use std::collections::VecDeque;
use std::ops::Range;

/// One frame of the log. 32 bytes of memory each; a frame is one append, or some small ones that were written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameAt {
    pub(super) first_seq: u64,
    pub(super) place: Place,
    /// Live entries; a truncation may leave fewer than the frame has.
    pub(super) count: u32,
    /// Bytes without padding.
    pub(super) len: u32,
}

impl FrameAt {
    pub(super) fn end(&self) -> u64 {
        self.first_seq + u64::from(self.count)
    }

    /// Whether this is the head of the frame.
    pub(super) fn is_of(&self, head: &Head) -> bool {
        head.first_seq == self.first_seq && head.len == self.len
    }
}

/// The live frames in order, and the sequence numbers that they cover. A number inside the range that no frame covers
/// was lost to damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    frames: VecDeque<FrameAt>,
    first: u64,
    next: u64,
}

/// A piece of a walk through the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A frame with at least one wanted entry.
    Frame(FrameAt),
    /// Numbers that no frame covers, from the first to before the second.
    Hole(u64, u64),
}

impl Index {
    /// Nothing yet; the next entry is number `next`.
    pub(super) fn starting_at(next: u64) -> Index {
        Index {
            frames: VecDeque::new(),
            first: next,
            next,
        }
    }

    /// The numbers kept: the oldest to before the next.
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.next
    }

    /// Makes room for more frames.
    pub(super) fn reserve(&mut self, frames: usize) {
        self.frames.reserve(frames);
    }

    /// Takes the next frame. One that begins behind the end leaves a hole, one that begins before it voids what it
    /// overlaps.
    pub(super) fn push(&mut self, frame: FrameAt) {
        if frame.first_seq < self.next {
            self.truncate(frame.first_seq);
        }
        self.next = frame.end();
        if frame.count > 0 {
            self.frames.push_back(frame);
        }
    }

    /// Extends the range to before `next`, leaving a hole.
    pub(super) fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Voids everything from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        while let Some(last) = self.frames.back_mut() {
            if last.first_seq >= next {
                self.frames.pop_back();
                continue;
            }
            let live = u32::try_from(next - last.first_seq).unwrap_or(u32::MAX);
            last.count = last.count.min(live);
            break;
        }
        self.next = self.next.min(next);
        self.first = self.first.min(next);
    }

    /// Forgets everything before `floor`; a number past the end moves the end there.
    pub(super) fn forget_before(&mut self, floor: u64) {
        while self.frames.front().is_some_and(|frame| frame.end() <= floor) {
            self.frames.pop_front();
        }
        self.first = self.first.max(floor);
        self.next = self.next.max(floor);
    }

    /// The first segment that holds an entry from `seq` on, or `None` if no frame does.
    pub(super) fn segment_of(&self, seq: u64) -> Option<u64> {
        let frame = self.frames.get(self.position(seq))?;
        Some(frame.place.segment)
    }

    /// The numbers that are covered by frames of one segment, from the first to the last, within what is kept.
    pub(super) fn of_segment(&self, segment: u64) -> Option<Range<u64>> {
        let start = self.frames.partition_point(|frame| frame.place.segment < segment);
        let end = self.frames.partition_point(|frame| frame.place.segment <= segment);
        let (first, last) = (self.frames.get(start)?, self.frames.get(end.checked_sub(1)?)?);
        (start < end).then(|| first.first_seq.max(self.first)..last.end().min(self.next))
    }

    /// Forgets the segments before `segment`, whose first entry was to be number `base`.
    pub(super) fn drop_segments_before(&mut self, segment: u64, base: u64) {
        while self.frames.front().is_some_and(|frame| frame.place.segment < segment) {
            self.frames.pop_front();
        }
        self.first = self.first.max(base);
    }

    /// Walks the wanted numbers in order.
    pub(super) fn walk(&self, wanted: Range<u64>) -> impl Iterator<Item = Piece> {
        let (mut at, end) = (wanted.start.max(self.first), wanted.end.min(self.next));
        let mut frames = self.frames.range(self.position(at)..).copied().peekable();
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let piece = match frames.next_if(|frame| frame.first_seq <= at) {
                Some(frame) => {
                    at = frame.end();
                    Piece::Frame(frame)
                }
                None => {
                    let start = at;
                    at = frames.peek().map_or(end, |frame| frame.first_seq.min(end));
                    Piece::Hole(start, at)
                }
            };
            Some(piece)
        })
    }

    /// The frame that has number `seq`, which is within what is kept, if any does.
    pub(super) fn find(&self, seq: u64) -> Option<FrameAt> {
        let frame = self.frames.get(self.position(seq))?;
        (frame.first_seq <= seq).then_some(*frame)
    }

    /// The index of the first frame that ends after `seq`.
    fn position(&self, seq: u64) -> usize {
        self.frames.partition_point(|frame| frame.end() <= seq)
    }
}

//! What a log holds, judged from the bytes of its segments alone.
//!
//! A bad frame is damage only if something written later says that the log was durable past it; then it costs what it
//! held and everything else is kept. Without such a witness nobody was told that it is there: it is a torn tail, and the
//! log ends before it. A frame names the place up to which the log was durable when it was built, and a segment's header
//! names the place where the log ended when the segment was made; both are witnesses.
//!
//! Zeros from somewhere to the end of a segment are what was made ahead and not written over: the log ends cleanly before
//! them, and they count for nothing.
//!
//! Whole frames are tried at every multiple of eight bytes behind a bad one, so one bad header costs one frame.

use super::entry;
use super::frame::{self, ALIGN, Head, MAX_FRAME};
use super::index::{FrameAt, Index, Piece};
use super::segment::{HEADER_LEN, Header, Place};
use super::{Gap, Why};
use crate::mutant::{Mutant, planted};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Collects the segments of one log, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    elements: Vec<Element>,
    /// Number and length of each, without the zeros at its end.
    segments: Vec<(u64, u32)>,
}

/// Bytes that are not as they were written, with no torn tail to explain them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The segment's number, which names its file in hexadecimal.
    pub(crate) segment: u64,
    /// Which bytes of the file.
    pub(crate) bytes: Range<u32>,
}

/// What the segments hold.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// Where the next frame goes, if it may follow in the newest segment; else it needs a new one.
    pub(super) tail: Option<Place>,
    /// The end of what counts; a new segment's header names it.
    pub(super) end: Place,
    pub(super) gaps: Vec<Gap>,
    pub(super) damage: Vec<Damage>,
    /// Bytes behind the end, which a crash left half-written.
    pub(super) torn: u64,
    /// The headers that are sound and count.
    pub(super) headers: Vec<Header>,
    /// Number and length of each segment, without the zeros at its end.
    pub(super) used: Vec<(u64, u32)>,
    /// For each entry in pieces, by its number and its segment: the oldest segment that holds one.
    pub(super) held: BTreeMap<(u64, u64), u64>,
}

/// What the walk over the elements has learned so far.
#[derive(Default)]
struct Seen {
    /// The oldest segment.
    oldest: u64,
    /// Entries whose pieces have been released.
    released: Vec<u64>,
    floor: u64,
    bad_entries: Vec<u64>,
    /// The sound pieces of entries.
    pieces: BTreeSet<Place>,
    /// Whether a segment was unreadable.
    hidden: bool,
}

/// Something found in a segment.
#[derive(Debug)]
struct Element {
    place: Place,
    /// Bytes of it that are not as they were written.
    damaged: Option<Range<u32>>,
    /// Whether something later says that the log was durable past its beginning.
    witnessed: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Header(Header),
    Frame {
        head: Head,
        /// Whether part of what it holds is damaged.
        torn: bool,
        /// Sequence numbers of damaged entries.
        bad: Vec<u64>,
        /// Sequence numbers of entries in pieces, and where those are.
        long: Vec<(u64, Vec<Place>)>,
    },
    /// No frame.
    Bad,
    /// A segment with frames, but without a sound header, so that none can be told from chance.
    Unreadable,
}

impl Element {
    /// The place up to which this says that the log was durable.
    fn durable(&self) -> Place {
        match &self.kind {
            Kind::Header(header) => header.prev,
            Kind::Frame { head, .. } => head.durable,
            Kind::Bad | Kind::Unreadable => Place::default(),
        }
    }

    /// Whether the log ends here unless it is known to have been durable.
    fn tears(&self) -> bool {
        match &self.kind {
            Kind::Frame { torn, .. } => *torn,
            Kind::Bad => true,
            Kind::Header(_) | Kind::Unreadable => false,
        }
    }
}

impl Recovery {
    /// Reads the next segment, and says whether all of it is as it was written.
    pub(super) fn segment(&mut self, id: u64, bytes: &[u8]) -> bool {
        let len = used(bytes);
        self.segments.push((id, len as u32));
        let before = self.elements.len();
        match Header::decode(id, bytes) {
            Some((header, both)) => {
                let damaged = (!both).then_some(0..HEADER_LEN);
                self.push(Place::new(id, 0), damaged, Kind::Header(header));
                let end = self.frames(header, bytes, len);
                self.segments.last_mut().expect("it was just pushed").1 = end;
            }
            // Frames follow only a synced header. Without any, the segment was never finished.
            None if len > HEADER_LEN as usize => self.push(Place::new(id, 0), Some(0..len as u32), Kind::Unreadable),
            None => return false,
        }
        self.elements[before..].iter().all(|element| element.damaged.is_none())
    }

    /// Forgets the segment that was read last.
    pub(super) fn undo(&mut self) {
        if let Some((id, _)) = self.segments.pop() {
            self.elements.retain(|element| element.place.segment != id);
        }
    }

    /// Finds the frames of a segment, of which `used` bytes are not zeros at its end, and says where they end.
    fn frames(&mut self, header: Header, bytes: &[u8], used: usize) -> u32 {
        let mut at = HEADER_LEN as usize;
        let mut bad_from = None;
        while at < used {
            let place = Place::new(header.id, at as u32);
            let seed = frame::seed(header.salt, place);
            let rest = &bytes[at..bytes.len().min(at + MAX_FRAME)];
            if let Some(head) = frame::decode_head(rest, seed) {
                self.bad(bad_from.take(), place.offset);
                self.frame(place, head, rest, seed);
                at += frame::padded(head.len as usize);
            } else {
                bad_from.get_or_insert(place);
                at += ALIGN;
            }
        }
        // The last one may end in zeros of its own.
        let end = at.min(bytes.len()).max(used) as u32;
        self.bad(bad_from, end);
        end
    }

    fn frame(&mut self, place: Place, head: Head, rest: &[u8], seed: u32) {
        let (mut torn, mut bad, mut long) = (false, Vec::new(), Vec::new());
        for (row, seq) in frame::rows(rest, seed, head).zip(head.first_seq..) {
            let pieces = match row {
                Some(row) if row.in_pieces => entry::pieces(&rest[row.range]),
                Some(_) => continue,
                None => {
                    torn = true;
                    None
                }
            };
            match pieces {
                Some(pieces) => long.push((seq, pieces.iter().map(|piece| piece.place).collect())),
                None if head.kind == frame::Kind::Entries => bad.push(seq),
                None => {}
            }
        }
        let sound = !torn && frame::padding_is_zero(rest, head);
        let damaged = (!sound).then(|| place.offset..place.offset + frame::padded(head.len as usize) as u32);
        self.push(place, damaged, Kind::Frame { head, torn, bad, long });
    }

    fn bad(&mut self, from: Option<Place>, end: u32) {
        if let Some(place) = from {
            self.push(place, Some(place.offset..end), Kind::Bad);
        }
    }

    fn push(&mut self, place: Place, damaged: Option<Range<u32>>, kind: Kind) {
        self.elements.push(Element {
            place,
            damaged,
            witnessed: false,
            kind,
        });
    }

    /// Judges what was read.
    pub(super) fn finish(mut self) -> Recovered {
        let cut = self.drop_void();
        let mut recovered = Recovered {
            index: Index::starting_at(1),
            tail: None,
            end: Place::default(),
            gaps: Vec::new(),
            damage: Vec::new(),
            torn: 0,
            headers: Vec::new(),
            used: Vec::new(),
            held: BTreeMap::new(),
        };
        let mut seen = Seen {
            oldest: self.segments.first().map_or(0, |(id, _)| *id),
            ..Seen::default()
        };
        for element in &self.elements {
            recovered.take(element, &mut seen);
        }
        recovered.index.forget_before(seen.floor);
        let live = recovered.index.range();
        let released = seen.released.iter().filter(|&seq| live.contains(seq)).max();
        recovered.index.forget_before(released.map_or(0, |seq| seq + 1));
        recovered.find_gaps(&seen.bad_entries);
        recovered.find_end(cut, &self.elements, &self.segments);
        let live = recovered.index.range();
        recovered.held.retain(|(seq, _), _| live.contains(seq));
        recovered.used = self.segments;
        recovered
    }

    /// Drops what a later header says does not count, and the torn tail, whose place it returns.
    fn drop_void(&mut self) -> Option<Place> {
        let mut limit = Place::MAX;
        let mut durable = Place::default();
        let mut cut = Place::MAX;
        let mut live = Vec::with_capacity(self.elements.len());
        while let Some(mut element) = self.elements.pop() {
            if element.place >= limit {
                continue;
            }
            element.witnessed = durable > element.place || planted(Mutant::ForgetTornTail);
            if element.tears() && !element.witnessed {
                cut = element.place;
            }
            durable = durable.max(element.durable());
            if let Kind::Header(header) = &element.kind {
                limit = header.prev;
            }
            live.push(element);
        }
        self.elements
            .extend(live.into_iter().rev().filter(|element| element.place < cut));
        (cut < Place::MAX).then_some(cut)
    }
}

impl Recovered {
    fn take(&mut self, element: &Element, seen: &mut Seen) {
        let oldest = seen.oldest;
        let Seen {
            oldest: _,
            released,
            floor,
            bad_entries,
            pieces,
            hidden,
        } = seen;
        let explained = matches!(element.kind, Kind::Header(_) | Kind::Frame { .. }) && !element.witnessed;
        if let Some(bytes) = element.damaged.clone().filter(|_| !explained) {
            let segment = element.place.segment;
            self.damage.push(Damage { segment, bytes });
        }
        match &element.kind {
            Kind::Header(header) => {
                drop(self.held.split_off(&(header.base, 0)));
                let follows = self.headers.iter().any(|seen| seen.id == header.prev.segment);
                if !follows && !self.headers.is_empty() {
                    self.index.truncate(header.prev_base);
                }
                if self.headers.is_empty() {
                    // Older entries have been released, unless an unreadable segment is where they may have been.
                    self.index = Index::starting_at(if *hidden { header.floor } else { header.base });
                }
                self.index.truncate(header.base);
                self.index.skip_to(header.base);
                *floor = (*floor).max(header.floor);
                self.headers.push(*header);
            }
            Kind::Frame { head, torn, bad, long } => {
                self.index.push(FrameAt {
                    first_seq: head.first_seq,
                    place: element.place,
                    count: head.count(),
                    len: head.len,
                });
                bad_entries.retain(|&seq| seq < head.first_seq);
                bad_entries.extend(bad);
                released.retain(|&seq| seq < head.first_seq);
                drop(self.held.split_off(&(head.first_seq, 0)));
                if head.kind == frame::Kind::Piece && !torn {
                    pieces.insert(element.place);
                }
                for (seq, places) in long {
                    if places.iter().any(|place| place.segment < oldest) {
                        // Its pieces were released, and with them everything up to it.
                        released.push(*seq);
                        continue;
                    }
                    if !places.iter().all(|place| pieces.contains(place)) {
                        bad_entries.push(*seq);
                    }
                    let first = places.iter().min().map_or(element.place.segment, |place| place.segment);
                    self.held.insert((*seq, element.place.segment), first);
                }
            }
            Kind::Bad => {}
            Kind::Unreadable => *hidden = true,
        }
    }

    fn find_gaps(&mut self, bad_entries: &[u64]) {
        let range = self.index.range();
        let holes = self.index.walk(range.clone()).filter_map(|piece| match piece {
            Piece::Hole(start, end) => Some(Gap::new(start..end, Why::Frame)),
            Piece::Frame(_) => None,
        });
        let bad = bad_entries.iter().filter(|&seq| range.contains(seq));
        self.gaps = holes
            .chain(bad.map(|&seq| Gap::new(seq..seq + 1, Why::Entry)))
            .collect();
        self.gaps.sort_by_key(|gap| gap.range.start);
    }

    fn find_end(&mut self, cut: Option<Place>, elements: &[Element], segments: &[(u64, u32)]) {
        let len_of = |segment: u64| {
            segments
                .iter()
                .find(|(id, _)| *id == segment)
                .map_or(0, |&(_, len)| len)
        };
        let Some(last) = elements.last() else { return };
        self.end = cut.unwrap_or_else(|| Place::new(last.place.segment, len_of(last.place.segment)));
        if cut.is_some() {
            let behind = segments.iter().filter(|(id, _)| *id >= self.end.segment);
            let behind: u64 = behind.map(|(_, len)| u64::from(*len)).sum();
            self.torn = behind - u64::from(self.end.offset);
        }
        // A header of which only one copy is sound was perhaps never finished. The next one takes its place, and says
        // what it said: where the log ended before it, too.
        if let Kind::Header(header) = &last.kind
            && last.damaged.is_some()
            && cut.is_none()
        {
            self.end = header.prev;
        }
        // A frame may follow only where nothing else can have been.
        let is_newest = segments.last().is_some_and(|(id, _)| *id == self.end.segment);
        let is_aligned = self.end.offset >= HEADER_LEN && self.end.offset.is_multiple_of(ALIGN as u32);
        let is_whole = !matches!(last.kind, Kind::Unreadable);
        if cut.is_none() && is_newest && is_aligned && is_whole {
            self.tail = Some(self.end);
        }
    }
}

/// How many bytes there are up to the last that is not zero.
pub(super) fn used(bytes: &[u8]) -> usize {
    let mut end = bytes.len().min(u32::MAX as usize);
    // Most of it is compared a block at a time.
    while end >= ZEROS.len() && bytes[end - ZEROS.len()..end] == ZEROS {
        end -= ZEROS.len();
    }
    bytes[..end]
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

static ZEROS: [u8; 4096] = [0; 4096];

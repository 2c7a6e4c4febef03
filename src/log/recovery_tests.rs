//! The judgement over byte images: every torn tail, every flipped bit, and what headers say.

use super::Why;
use super::entry;
use super::frame;
use super::index::Piece;
use super::recovery::{Recovered, Recovery};
use super::segment::{HEADER_LEN, Header, Place};
use bytes::Bytes;
use std::sync::Arc;

/// The files of a log, written by the rules of the committer.
#[derive(Clone, Default)]
struct Files {
    segments: Vec<(Header, Vec<u8>)>,
    durable: Place,
    /// Zeros behind each.
    zeros: usize,
}

impl Files {
    /// A log with one segment that is to hold entries from 1 on.
    fn new() -> Files {
        let mut files = Files::default();
        files.roll(1, 1);
        files
    }

    fn roll(&mut self, base: u64, floor: u64) {
        let id = self.segments.last().map_or(1, |(header, _)| header.id + 1);
        let header = Header {
            id,
            salt: id * 77,
            base,
            floor,
            prev: self.durable,
            prev_base: self.segments.last().map_or(u64::MAX, |(header, _)| header.base),
        };
        self.segments.push((header, header.encode()));
        self.durable = Place::new(id, HEADER_LEN);
    }

    /// A frame that is written but not synced.
    fn write(&mut self, first_seq: u64, entries: &[&str]) {
        let (header, bytes) = self.segments.last_mut().unwrap();
        let seed = frame::seed(header.salt, Place::new(header.id, bytes.len() as u32));
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| Bytes::copy_from_slice(entry.as_bytes()))
            .collect();
        frame::encode(bytes, seed, first_seq, self.durable, &entries[..]);
    }

    fn sync(&mut self) {
        let (header, bytes) = self.segments.last().unwrap();
        self.durable = Place::new(header.id, bytes.len() as u32);
    }

    fn append(&mut self, first_seq: u64, entries: &[&str]) {
        self.write(first_seq, entries);
        self.sync();
    }

    fn mark(&mut self, next: u64) {
        self.append(next, &[]);
    }

    fn last(&mut self) -> &mut Vec<u8> {
        &mut self.segments.last_mut().unwrap().1
    }

    fn recover(&self) -> Recovered {
        let mut recovery = Recovery::default();
        for (header, bytes) in &self.segments {
            let mut bytes = bytes.clone();
            bytes.resize(bytes.len() + self.zeros, 0);
            recovery.segment(header.id, &bytes);
        }
        recovery.finish()
    }

    /// Every live entry that is sound, as a reader would find it.
    fn contents(&self, found: &Recovered) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        for piece in found.index.walk(found.index.range()) {
            let Piece::Frame(at) = piece else { continue };
            let (header, bytes) = self
                .segments
                .iter()
                .find(|(header, _)| header.id == at.place.segment)
                .unwrap();
            let bytes = &bytes[at.place.offset as usize..];
            let seed = frame::seed(header.salt, at.place);
            let head = frame::decode_head(bytes, seed).unwrap();
            for (seq, range) in (at.first_seq..at.end()).zip(frame::rows(bytes, seed, head)) {
                all.extend(range.map(|row| (seq, String::from_utf8(bytes[row.range].to_vec()).unwrap())));
            }
        }
        all
    }
}

fn list(from: u64, entries: &[&str]) -> Vec<(u64, String)> {
    (from..).zip(entries.iter().map(ToString::to_string)).collect()
}

/// Two segments, three groups, closed properly.
fn sample() -> Files {
    let mut files = Files::new();
    files.append(1, &["a", "bb"]);
    files.append(3, &["ccc"]);
    files.roll(4, 1);
    files.append(4, &["dddd", "", "f"]);
    files.mark(7);
    files
}

#[test]
fn a_whole_log_is_found_whole() {
    let files = sample();
    let found = files.recover();
    assert_eq!(files.contents(&found), list(1, &["a", "bb", "ccc", "dddd", "", "f"]));
    assert_eq!(found.index.range(), 1..7);
    assert_eq!((found.torn, found.gaps.len(), found.damage.len()), (0, 0, 0));
    assert_eq!(found.tail, Some(files.durable));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_stays_off() {
    for zeros in [0, 3_000] {
        torn_at_any_byte(zeros);
    }
}

fn torn_at_any_byte(zeros: usize) {
    let mut files = Files::new();
    files.zeros = zeros;
    let mut ends = vec![HEADER_LEN as usize];
    let words = ["a", "bb", "ccc", "dddd"];
    for (seq, word) in (1..).zip(&words) {
        files.append(seq, &[word]);
        ends.push(files.last().len());
    }
    let whole = files.last().clone();
    for len in 0..=whole.len() {
        *files.last() = whole[..len].to_vec();
        let found = files.recover();
        let kept = ends
            .iter()
            .filter(|end| frame_end(**end, len))
            .count()
            .saturating_sub(1);
        assert_eq!(files.contents(&found), list(1, &words[..kept]), "cut to {len}");
        assert!(
            found.gaps.is_empty() && found.damage.is_empty(),
            "cut to {len}: {found:?}"
        );

        // What is appended next goes into a new segment, and the leftovers stay dead.
        let mut again = files.clone();
        again.durable = found.end;
        let next = found.index.range().end;
        again.roll(next, 1);
        again.append(next, &["next"]);
        let found = again.recover();
        let mut expected = list(1, &words[..kept]);
        expected.push((next, "next".into()));
        assert_eq!(again.contents(&found), expected, "cut to {len}");
        assert!(
            found.gaps.is_empty() && found.damage.is_empty(),
            "cut to {len}: {found:?}"
        );
    }
}

/// Whether a frame that ends at `end`, padding included, is whole in `len` bytes. The words above have one to four bytes,
/// so the padding is never longer than seven, and a frame without it is still whole.
fn frame_end(end: usize, len: usize) -> bool {
    let padding = match end {
        end if end == HEADER_LEN as usize => 0,
        _ => 8 - (end - HEADER_LEN as usize) / 56 % 8,
    };
    len + padding >= end
}

#[test]
fn any_subset_of_unsynced_sectors_is_a_torn_tail() {
    let mut files = Files::new();
    files.append(1, &["safe"]);
    let synced = files.last().len();
    let long = "x".repeat(900);
    for seq in 2..6 {
        files.write(seq, &[&long]);
    }
    let whole = files.last().clone();
    let sectors = whole.len().div_ceil(512) - synced / 512;
    for lost in 0..1_u32 << sectors {
        let bytes = files.last();
        bytes.clone_from(&whole);
        for sector in (0..sectors).filter(|sector| lost >> sector & 1 == 1) {
            let from = (synced / 512 + sector) * 512;
            let end = bytes.len().min(from + 512);
            bytes[from.max(synced)..end].fill(0);
        }
        let found = files.recover();
        let kept = files.contents(&found);
        assert_eq!(kept[0], (1, "safe".into()));
        assert!(
            kept.iter()
                .skip(1)
                .zip(2..)
                .all(|(entry, seq)| *entry == (seq, long.clone()))
        );
        assert_eq!(
            found.index.range().end,
            kept.len() as u64 + 1,
            "a prefix, without holes"
        );
        assert!(found.gaps.is_empty() && found.damage.is_empty());
        assert_eq!(lost == 0, kept.len() == 5);
    }
}

#[test]
fn any_flipped_bit_costs_one_frame_at_most_and_is_reported() {
    for zeros in [0, 3_000] {
        flipped_anywhere(zeros);
    }
}

fn flipped_anywhere(zeros: usize) {
    let mut files = sample();
    files.zeros = zeros;
    let intact = files.contents(&files.recover());
    for segment in 0..files.segments.len() {
        for bit in 0..files.segments[segment].1.len() * 8 {
            let mut files = files.clone();
            files.segments[segment].1[bit / 8] ^= 1 << (bit % 8);
            let found = files.recover();
            let kept = files.contents(&found);
            assert!(
                kept.iter().all(|entry| intact.contains(entry)),
                "wrong bytes: segment {segment} bit {bit}"
            );
            let lost: Vec<u64> = intact
                .iter()
                .filter(|entry| !kept.contains(entry))
                .map(|(seq, _)| *seq)
                .collect();
            let told: Vec<u64> = found.gaps.iter().flat_map(|gap| gap.range.clone()).collect();
            assert_eq!(lost, told, "segment {segment} bit {bit}");
            let frames = [
                vec![],
                vec![1],
                vec![2],
                vec![1, 2],
                vec![3],
                vec![4],
                vec![6],
                vec![4, 5, 6],
            ];
            assert!(frames.contains(&lost), "one frame: {lost:?}");
            assert!(
                !found.damage.is_empty() || found.torn > 0,
                "silent: segment {segment} bit {bit}"
            );
        }
    }
}

#[test]
fn a_bad_entry_costs_itself_and_a_bad_head_its_frame() {
    let mut files = sample();
    let first = HEADER_LEN as usize;
    files.segments[0].1[first + frame::HEAD + 16] ^= 1;
    let found = files.recover();
    assert_eq!((found.gaps[0].range.clone(), found.gaps[0].why), (1..2, Why::Entry));
    files.segments[0].1[first] ^= 1;
    let found = files.recover();
    assert_eq!((found.gaps[0].range.clone(), found.gaps[0].why), (1..3, Why::Frame));
    assert_eq!(files.contents(&found).len(), 4);
}

#[test]
fn the_last_frame_is_damage_only_once_something_vouches_for_it() {
    let mut files = Files::new();
    files.append(1, &["a"]);
    files.append(2, &["b"]);
    let last = files.last().len() - 8;
    files.last()[last] ^= 1;
    let found = files.recover();
    assert_eq!((found.index.range(), found.gaps.len()), (1..2, 0));
    assert!(found.torn > 0 && found.tail.is_none());

    files.mark(3);
    let found = files.recover();
    assert_eq!((found.index.range(), found.torn), (1..3, 0));
    assert_eq!((found.gaps[0].range.clone(), found.gaps[0].why), (2..3, Why::Entry));
}

#[test]
fn a_lost_segment_is_a_gap_and_an_unfinished_one_is_nothing() {
    let mut files = sample();
    files.roll(7, 1);
    files.append(7, &["g"]);
    let mut lost = files.clone();
    lost.segments.remove(1);
    let found = lost.recover();
    assert_eq!((found.gaps[0].range.clone(), found.gaps[0].why), (4..7, Why::Frame));
    assert_eq!(found.gaps.len(), 1);

    let mut unreadable = files.clone();
    unreadable.segments[1].1[..HEADER_LEN as usize].fill(0xff);
    let found = unreadable.recover();
    assert_eq!(found.gaps[0].range.clone(), 4..7);
    assert_eq!((found.damage[0].segment, found.damage[0].bytes.start), (2, 0));

    let mut unreadable = files.clone();
    unreadable.segments[0].1[..HEADER_LEN as usize].fill(0xff);
    assert_eq!(unreadable.recover().gaps[0].range.clone(), 1..4);

    files.roll(8, 1);
    for len in 0..=HEADER_LEN as usize {
        files.last().truncate(HEADER_LEN as usize - len);
        let found = files.recover();
        assert_eq!(found.index.range(), 1..8);
        assert!(found.gaps.is_empty() && found.damage.is_empty() && found.torn == 0);
        assert_eq!(found.tail.is_some(), len == 0, "cut by {len}");
    }
}

#[test]
fn what_a_half_written_header_voids_stays_void() {
    let mut files = Files::new();
    files.append(1, &["a"]);
    let cut = files.durable;
    // A group is torn in its first frame; the second one is whole.
    files.write(2, &["torn"]);
    files.last()[cut.offset as usize] ^= 1;
    files.write(3, &["whole"]);
    let found = files.recover();
    assert_eq!((found.index.range(), found.end), (1..2, cut));
    // The next life begins a segment at the end that was found, and a crash leaves half of its header.
    files.durable = found.end;
    files.roll(2, 1);
    files.last().truncate(700);
    // So does the one after.
    for _ in 0..2 {
        let found = files.recover();
        assert_eq!((found.index.range(), found.tail, found.damage.len()), (1..2, None, 0));
        files.durable = found.end;
        files.roll(2, 1);
        files.append(2, &["b"]);
        files.mark(3);
        let found = files.recover();
        assert_eq!(files.contents(&found), list(1, &["a", "b"]));
        assert_eq!((found.gaps.len(), found.damage), (0, Vec::new()));
        files.last().truncate(600);
    }
}

#[test]
fn headers_truncate_and_reset() {
    let mut files = sample();
    files.roll(3, 1);
    let found = files.recover();
    assert_eq!(files.contents(&found), list(1, &["a", "bb"]));
    assert_eq!((found.index.range(), found.gaps.len()), (1..3, 0));
    files.append(3, &["C"]);
    files.roll(100, 100);
    assert_eq!(files.recover().index.range(), 100..100);
    files.append(100, &["z"]);
    let found = files.recover();
    assert_eq!(files.contents(&found), list(100, &["z"]));
    assert_eq!(found.gaps.len(), 0);
}

#[test]
fn a_lost_header_brings_nothing_back_that_it_voided() {
    let mut files = Files::new();
    files.append(1, &["a", "old", "old"]);
    files.roll(2, 1);
    files.append(2, &["new"]);
    files.roll(3, 1);
    files.append(3, &["c"]);
    files.mark(4);
    files.segments[1].1[..HEADER_LEN as usize].fill(0xff);
    let found = files.recover();
    let kept = [(1, "a".to_owned()), (3, "c".to_owned())];
    assert_eq!(files.contents(&found), kept);
    assert_eq!((found.index.range(), found.gaps[0].range.clone()), (1..4, 2..3));
}

#[test]
fn damage_in_what_was_truncated_is_no_gap() {
    let mut files = sample();
    files.roll(2, 1);
    files.append(2, &["B"]);
    // The second frame, of entry 3, which is void.
    let second = HEADER_LEN as usize + frame::padded(frame::HEAD + 16 + 3);
    files.segments[0].1[second] ^= 1;
    let found = files.recover();
    assert_eq!(files.contents(&found), list(1, &["a", "B"]));
    assert_eq!((found.gaps.len(), found.damage.len()), (0, 1));
}

#[test]
fn zeros_behind_the_tail_are_a_clean_end_and_anything_else_is_not() {
    let mut files = sample();
    files.zeros = 5_000;
    let found = files.recover();
    assert_eq!((found.tail, found.torn), (Some(files.durable), 0));
    assert_eq!(
        found.used,
        [(1, files.segments[0].1.len() as u32), (2, files.durable.offset)]
    );
    for at in [0, 7, 8, 1_000, 4_990] {
        let mut files = files.clone();
        let tail = files.last().len();
        files.last().resize(tail + at, 0);
        files.last().push(1);
        let found = files.recover();
        assert_eq!(found.tail, None, "{at}");
        assert_eq!(
            (found.index.range(), found.torn),
            (1..7, (at as u64 + 1).next_multiple_of(8))
        );
        assert!(found.damage.is_empty() && found.gaps.is_empty());
    }
}

/// A log with an entry in two pieces, other entries between them, and the places of the pieces.
fn in_pieces() -> (Files, [Place; 2]) {
    let mut files = Files::new();
    let first = files.piece(1, b"PIECE 1 ");
    files.append(1, &["between"]);
    files.roll(2, 1);
    let second = files.piece(2, b"and 2");
    let list = [(first, 8), (second, 5)].map(|(place, len)| entry::Piece { place, len });
    let long = entry::Entry::in_pieces_at(&list, Arc::new(entry::Hold::new(1)));
    let (header, bytes) = files.segments.last_mut().unwrap();
    let seed = frame::seed(header.salt, Place::new(header.id, bytes.len() as u32));
    frame::encode(
        bytes,
        seed,
        2,
        files.durable,
        &[Bytes::from_static(b"with").into(), long][..],
    );
    files.sync();
    files.append(4, &["after"]);
    files.mark(5);
    (files, [first, second])
}

impl Files {
    fn piece(&mut self, next: u64, piece: &[u8]) -> Place {
        let (header, bytes) = self.segments.last_mut().unwrap();
        let place = Place::new(header.id, bytes.len() as u32);
        frame::encode_piece(bytes, frame::seed(header.salt, place), next, self.durable, piece);
        self.sync();
        place
    }
}

#[test]
fn an_entry_in_pieces_is_there_when_its_list_is() {
    let (files, pieces) = in_pieces();
    let found = files.recover();
    assert_eq!(
        (found.index.range(), found.gaps.len(), found.damage.len()),
        (1..5, 0, 0)
    );
    assert_eq!(found.held, [((3, 2), 1)].into());
    // Cut before the list is whole: as if it was never sent. The entry between is there.
    let list = pieces[1].offset as usize + frame::padded(frame::HEAD + frame::ROW + 5);
    for len in HEADER_LEN as usize..list + frame::HEAD {
        let mut files = files.clone();
        files.last().truncate(len);
        let found = files.recover();
        assert_eq!(
            (found.index.range(), found.gaps.len(), found.damage.len()),
            (1..2, 0, 0),
            "cut to {len}"
        );
        assert!(found.held.is_empty());
    }
    // The first piece released: the log begins behind the entry.
    let mut released = files.clone();
    released.segments.remove(0);
    let found = released.recover();
    assert_eq!((found.index.range(), found.gaps.len()), (4..5, 0));
}

#[test]
fn a_flipped_bit_in_a_piece_costs_the_entry_and_nothing_else() {
    let (files, pieces) = in_pieces();
    for piece in pieces {
        let segment = piece.segment as usize - 1;
        let len = frame::HEAD + frame::ROW + if segment == 0 { 8 } else { 5 };
        for bit in 0..len * 8 {
            let mut files = files.clone();
            files.segments[segment].1[piece.offset as usize + bit / 8] ^= 1 << (bit % 8);
            let found = files.recover();
            let told: Vec<u64> = found.gaps.iter().flat_map(|gap| gap.range.clone()).collect();
            assert_eq!((told, found.damage.len()), (vec![3], 1), "{piece} bit {bit}");
            assert_eq!(found.index.range(), 1..5);
        }
    }
}

//! Opening by summaries: whatever has become of them, it finds what reading every segment finds.

use super::frame::{self, ALIGN};
use super::recovery::Recovery;
use super::segment::{HEADER_LEN, Header, Place};
use super::summary::{Listed, Noter, Notes, Summarizer, Summary};
use super::tests::{SMALL, TempDir, append, open_with};
use super::{Durability, Item, Log, LogOptions, OpenReport, Source};
use crate::env::Env;
use bytes::Bytes;
use futures::executor::block_on;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Notes of each entry its length and its first byte; of one in pieces, nothing but that.
struct Firsts;

impl Noter for Firsts {
    fn note(&mut self, entry: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend((entry.map_or(u32::MAX, |entry| entry.len() as u32)).to_le_bytes());
        out.push(entry.and_then(|entry| entry.first().copied()).unwrap_or(0));
    }
}

const FIRSTS: Notes = Notes {
    format: 77,
    noter: || Box::new(Firsts),
};
const NOTE: usize = 5;

fn open(dir: &Path) -> (Log, OpenReport) {
    block_on(Log::open_noting(&Env::system(), dir, SMALL, Some(FIRSTS))).unwrap()
}

/// Everything that opening finds, and then reading; and what was recalled is right.
fn all(dir: &Path) -> (OpenReport, Vec<Item>) {
    let (log, mut report) = open(dir);
    let items = items(&log);
    check_recalled(&log, &items);
    block_on(log.close());
    // A torn tail that was cut off long ago, and is not read any more, may or may not count.
    report.bytes = 0;
    (report, items)
}

fn items(log: &Log) -> Vec<Item> {
    let mut reader = log.reader(log.range().start);
    std::iter::from_fn(|| block_on(reader.next()).unwrap()).collect()
}

fn check_recalled(log: &Log, items: &[Item]) {
    let mut at = log.range().start;
    for part in log.recall() {
        assert_eq!(part.seqs.start, at, "nothing is left out");
        at = part.seqs.end;
        let Some((first, notes)) = part.noted else { continue };
        for seq in part.seqs {
            let note = &notes[(seq - first) as usize * NOTE..][..NOTE];
            let entry = items.iter().find_map(|item| match item {
                Item::Record { seq: of, bytes } if *of == seq => Some(bytes),
                _ => None,
            });
            // Damage that was done since is found by reading.
            let Some(entry) = entry else { continue };
            let mut right = Vec::new();
            let is_long = note[..4] == u32::MAX.to_le_bytes();
            Firsts.note((!is_long).then_some(entry), &mut right);
            assert_eq!(note, right, "entry {seq}");
        }
    }
    assert_eq!(at, log.range().end);
}

/// Changes files behind the log's back.
#[allow(clippy::disallowed_methods, reason = "the log must not know")]
mod files {
    use std::fs;
    use std::path::{Path, PathBuf};

    pub(super) fn copy(from: &Path, to: &Path) {
        drop(fs::remove_dir_all(to));
        fs::create_dir_all(to).unwrap();
        for path in list(from, "") {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    pub(super) fn list(dir: &Path, end: &str) -> Vec<PathBuf> {
        let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.is_file() && path.to_string_lossy().ends_with(end))
            .collect();
        paths.sort();
        paths
    }

    pub(super) fn read(path: &Path) -> Vec<u8> {
        fs::read(path).unwrap()
    }

    pub(super) fn write(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn remove(path: &Path) {
        fs::remove_file(path).unwrap();
    }
}

fn remove_summaries(dir: &Path) {
    files::list(dir, ".summary").iter().for_each(|path| files::remove(path));
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<usize>),
    Long(usize),
    Truncate(usize),
    Release(usize),
    Reset(u64),
    /// Closes and opens again.
    Reopen,
    /// The same, with a tail that a crash has torn.
    Tear(usize),
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec(0..900_usize, 1..5).prop_map(Op::Append),
        1 => (1_048_600..1_400_000_usize).prop_map(Op::Long),
        2 => (0..100_usize).prop_map(Op::Truncate),
        2 => (0..100_usize).prop_map(Op::Release),
        1 => (1..500_u64).prop_map(Op::Reset),
        2 => Just(Op::Reopen),
        2 => (1..200_usize).prop_map(Op::Tear),
        1 => Just(Op::Forget),
    ]
}

/// A number of the log, so many hundredths from its beginning.
fn number(log: &Log, hundredths: usize) -> u64 {
    let range = log.range();
    range.start + (range.end - range.start) * hundredths as u64 / 100
}

/// Puts half a frame, by its looks, behind what is in the newest segment.
fn tear(dir: &Path, len: usize) {
    let Some(path) = files::list(dir, ".seg").pop() else {
        return;
    };
    let mut bytes = files::read(&path);
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let start = used.next_multiple_of(ALIGN);
    bytes.resize(bytes.len().max(start + len), 0);
    bytes[start..start + len].fill(b'?');
    files::write(&path, &bytes);
}

fn run(dir: &Path, ops: &[Op]) {
    let (mut log, _) = open(dir);
    for op in ops {
        let append = |entries: Vec<Bytes>| block_on(log.append_with(&entries[..], Durability::Disk).unwrap()).unwrap();
        match op {
            Op::Append(lens) => append(lens.iter().map(|len| Bytes::from(vec![*len as u8; *len])).collect()),
            Op::Long(len) => append(vec![Bytes::from(vec![b'l'; *len])]),
            Op::Truncate(at) => block_on(log.truncate_after(number(&log, *at))).unwrap(),
            Op::Release(at) => block_on(log.release_before(number(&log, *at))).unwrap(),
            Op::Reset(next) => block_on(log.reset(*next)).unwrap(),
            Op::Reopen | Op::Tear(_) | Op::Forget => {
                block_on(log.close());
                match op {
                    Op::Tear(len) => tear(dir, *len),
                    Op::Forget => remove_summaries(dir),
                    _ => {}
                }
                log = open(dir).0;
            }
        }
    }
    block_on(log.close());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn summaries_change_nothing_of_what_is_found(ops in prop::collection::vec(op(), 1..40), cut in 0..400_usize) {
        let (dir, copy) = (TempDir::new("summaries"), TempDir::new("summaries-copy"));
        run(&dir.0, &ops);
        let with = |change: &dyn Fn(&Path)| {
            files::copy(&dir.0, &copy.0);
            change(&copy.0);
            all(&copy.0)
        };
        let right = with(&remove_summaries);
        prop_assert!(right.0.gaps.is_empty() && right.0.damage.is_empty(), "{:?}", right.0);
        prop_assert_eq!(&with(&|_| {}), &right);
        // They were made again, and the log can be opened by them.
        let again = all(&copy.0);
        prop_assert_eq!(&again, &right);
        let cut_short = with(&|dir| {
            for path in files::list(dir, ".summary") {
                let bytes = files::read(&path);
                files::write(&path, &bytes[..cut.min(bytes.len() - 1)]);
            }
        });
        prop_assert_eq!(&cut_short, &right);
        let swapped = with(&|dir| {
            let paths = files::list(dir, ".summary");
            let bytes: Vec<_> = paths.iter().map(|path| files::read(path)).collect();
            for (path, other) in paths.iter().zip(bytes.iter().cycle().skip(1)) {
                files::write(path, other);
            }
        });
        prop_assert_eq!(&swapped, &right);
    }
}

/// A log of several segments, closed, and where its first segment ends.
fn closed(name: &str) -> TempDir {
    let dir = TempDir::new(name);
    let (log, _) = open(&dir.0);
    for n in 0..40_u8 {
        append(&log, &[&format!("{n:03}").repeat(200), "and a short one"]);
    }
    block_on(log.close());
    dir
}

#[test]
fn a_summary_with_any_byte_changed_is_made_again() {
    let (dir, copy) = (closed("bytes"), TempDir::new("bytes-copy"));
    let right = all(&dir.0);
    let paths = files::list(&dir.0, ".summary");
    assert!(paths.len() > 3, "each segment has one: {paths:?}");
    files::copy(&dir.0, &copy.0);
    let path = copy.0.join(paths[1].file_name().unwrap());
    let bytes = files::read(&path);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        files::write(&path, &changed);
        assert_eq!(all(&copy.0), right, "byte {at}");
        assert_eq!(files::read(&path), bytes, "byte {at}: it is as it was");
    }
}

#[test]
fn damage_in_a_full_segment_is_found_by_whoever_reads_it() {
    let dir = closed("later");
    let paths = files::list(&dir.0, ".seg");
    let mut bytes = files::read(&paths[1]);
    let at = bytes.windows(3).position(|bytes| bytes == b"and").unwrap();
    bytes[at] ^= 4;
    files::write(&paths[1], &bytes);
    let (report, items) = all(&dir.0);
    assert!(
        report.damage.is_empty() && report.gaps.is_empty(),
        "nobody has read it: {report:?}"
    );
    let gaps: Vec<_> = items.iter().filter(|item| matches!(item, Item::Gap(_))).collect();
    let [Item::Gap(gap)] = &gaps[..] else {
        panic!("{gaps:?}")
    };
    assert_eq!(gap.range.end - gap.range.start, 1);

    let strict = LogOptions {
        on_damage: super::OnDamage::Refuse,
        ..SMALL
    };
    let refused = block_on(Log::open_noting(&Env::system(), &dir.0, strict, Some(FIRSTS))).unwrap_err();
    assert!(
        matches!(refused, super::LogError::Damaged { entries: 1, .. }),
        "{refused}"
    );
    let (log, _) = open(&dir.0);
    let verified = block_on(log.verify(Source::Device, |_| ())).unwrap();
    assert_eq!((verified.entries, verified.lost.len()), (79, 1));
    block_on(log.close());

    // Without the summary it is found at once, and none is made that would hide it.
    let summary = paths[1].with_extension("summary");
    files::remove(&summary);
    let kept = files::list(&dir.0.join("quarantine"), ".bytes");
    assert_eq!(kept.len(), 1, "by whoever read it");
    let (report, again) = all(&dir.0);
    assert_eq!(
        (report.damage.len(), report.gaps.len(), report.quarantine),
        (1, 1, Ok(0))
    );
    assert_eq!(again, items);
    assert!(!summary.exists());
}

#[test]
fn damage_to_what_was_written_last_is_found_at_once() {
    let dir = closed("last");
    let path = files::list(&dir.0, ".seg").pop().unwrap();
    let mut bytes = files::read(&path);
    let at = bytes.windows(3).position(|bytes| bytes == b"and").unwrap();
    bytes[at] ^= 4;
    files::write(&path, &bytes);
    let (report, _) = all(&dir.0);
    assert_eq!((report.damage.len(), report.gaps.len()), (1, 1), "{report:?}");
}

#[test]
fn notes_of_another_kind_are_not_believed() {
    let dir = closed("kinds");
    let (log, report) = open_with(&dir, SMALL);
    assert_eq!(report.range, 1..81);
    let recalled = log.recall();
    assert!(recalled.iter().all(|part| part.noted.is_none()), "it wants no notes");
    block_on(log.close());
    let (log, _) = open(&dir.0);
    let noted: u64 = log
        .recall()
        .iter()
        .filter(|part| part.noted.is_some())
        .map(|part| part.seqs.end - part.seqs.start)
        .sum();
    assert_eq!(noted, 80, "they are made again");
    block_on(log.close());
}

#[test]
fn the_summary_of_an_earlier_end_is_gone_on_with() {
    let dir = closed("earlier");
    let old: Vec<_> = files::list(&dir.0, ".summary")
        .iter()
        .map(|path| (path.clone(), files::read(path)))
        .collect();
    let (log, _) = open(&dir.0);
    for _ in 0..3 {
        append(&log, &["one more", &"x".repeat(3_000)]);
    }
    block_on(log.close());
    let right = all(&dir.0);
    // As if the process had died before it wrote any since.
    remove_summaries(&dir.0);
    old.iter().for_each(|(path, bytes)| files::write(path, bytes));
    assert_eq!(all(&dir.0), right);
    assert_eq!(all(&dir.0), right);
}

fn header(id: u64) -> Header {
    Header {
        id,
        salt: id * 1_000_003,
        base: 5,
        floor: 1,
        prev: Place::default(),
        prev_base: 1,
    }
}

/// Frames of a segment, one behind the other, and where each begins.
fn frames(header: &Header, appends: &[Vec<usize>]) -> (Vec<u8>, Vec<u32>) {
    let (mut bytes, mut offsets, mut next) = (Vec::new(), Vec::new(), header.base);
    for lens in appends {
        let place = Place::new(header.id, HEADER_LEN + bytes.len() as u32);
        offsets.push(place.offset);
        let entries: Vec<_> = lens.iter().map(|len| Bytes::from(vec![b'e'; *len])).collect();
        frame::encode(&mut bytes, frame::seed(header.salt, place), next, place, &entries[..]);
        next += entries.len() as u64;
    }
    (bytes, offsets)
}

proptest! {
    #[test]
    fn a_summary_tells_of_every_frame_and_is_refused_when_anything_is_changed(
        appends in prop::collection::vec(prop::collection::vec(0..50_usize, 0..4), 0..20),
        split in 0..20_usize,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let header = header(9);
        let (bytes, offsets) = frames(&header, &appends);
        let len = 1 << 20;
        // Gathered in two goes, with a life in between.
        let middle = offsets.get(split).map_or(bytes.len(), |offset| (offset - HEADER_LEN) as usize);
        let mut first = Summarizer::new(header, len, Some(FIRSTS));
        first.add(&bytes[..middle]);
        let half = Summary::decode(&Bytes::from(first.encode(0)), &header, Some(FIRSTS)).unwrap();
        let mut whole = Summarizer::resume(header, len, Some(FIRSTS), &half);
        prop_assert!(whole.is_written());
        whole.add(&bytes[middle..]);
        let end = HEADER_LEN + bytes.len() as u32;
        prop_assert!(whole.tells_up_to(Place::new(9, end)));
        let encoded = Bytes::from(whole.encode(end + 64));
        let read = Summary::decode(&encoded, &header, Some(FIRSTS)).unwrap();
        prop_assert_eq!((read.end(), read.used), (Place::new(9, end), end + 64));
        let (mut next, mut listed) = (header.base, read.frames());
        for (lens, offset) in appends.iter().zip(&offsets) {
            match listed.next().unwrap() {
                Listed::Entries(at) => {
                    prop_assert_eq!((at.first_seq, at.place.offset, at.count), (next, *offset, lens.len() as u32));
                }
                other => prop_assert!(other == Listed::Mark && lens.is_empty()),
            }
            next += lens.len() as u64;
        }
        prop_assert!(listed.next().is_none());
        prop_assert_eq!((read.next, read.notes.len() as u64), (next, (next - header.base) * NOTE as u64));

        let refused = |bytes: Vec<u8>, of: &Header| Summary::decode(&Bytes::from(bytes), of, Some(FIRSTS)).is_none();
        let mut flipped = encoded.to_vec();
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        prop_assert!(refused(flipped, &header), "byte {}", at);
        prop_assert!(refused(encoded[..at].to_vec(), &header));
        prop_assert!(refused(encoded.to_vec(), &self::header(8)), "it is of another segment");
        let other_life = Header { salt: 3, ..header };
        prop_assert!(refused(encoded.to_vec(), &other_life), "it is of another file of this number");
    }
}

#[test]
fn frames_that_do_not_follow_each_other_have_no_summary() {
    let header = header(2);
    let (bytes, _) = frames(&header, &[vec![3], vec![4]]);
    let skipped = &bytes[bytes.len() / 2..];
    let mut summary = Summarizer::new(header, 1 << 20, None);
    summary.add(skipped);
    assert!(!summary.tells_up_to(Place::new(2, HEADER_LEN + skipped.len() as u32)));
}

#[test]
fn a_summary_as_long_as_its_segment_is_given_up() {
    let header = header(2);
    let (bytes, _) = frames(&header, &vec![vec![0]; 2_000]);
    let mut summary = Summarizer::new(header, bytes.len() as u64, Some(FIRSTS));
    summary.add(&bytes);
    assert!(!summary.tells_up_to(Place::new(2, HEADER_LEN + bytes.len() as u32)));
}

#[test]
fn a_summary_that_a_later_header_contradicts_is_told() {
    let first = header(1);
    let (bytes, offsets) = frames(&first, &[vec![3], vec![4]]);
    let mut summary = Summarizer::new(first, 1 << 20, None);
    summary.add(&bytes);
    let summary = Summary::decode(&Bytes::from(summary.encode(0)), &first, None).unwrap();
    for (end, contradicts) in [(summary.end(), false), (Place::new(1, offsets[1]), true)] {
        let mut recovery = Recovery::default();
        recovery.summarized(first, Arc::new(summary.clone()));
        let next = Header {
            id: 2,
            prev: end,
            base: 7,
            ..first
        };
        recovery.segment(2, &next.encode());
        assert_eq!(recovery.finish().contradicted, contradicts, "{end}");
    }
}

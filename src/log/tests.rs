//! The log on the real disk: what each call promises, one at a time.

use super::{Item, Log, LogError, LogOptions, OnDamage, OpenReport, Source};
use crate::env::Env;
use bytes::Bytes;
use futures::executor::block_on;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A directory that goes when the test ends.
pub(super) struct TempDir(pub(super) PathBuf);

impl TempDir {
    pub(super) fn new(name: &str) -> TempDir {
        let unique = Env::system().rng(name).next_u64();
        TempDir(std::env::temp_dir().join(format!("outgrow-log-{name}-{unique:x}")))
    }
}

impl Drop for TempDir {
    #[allow(clippy::disallowed_methods, reason = "the test cleans up in the real world")]
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(super) const SMALL: LogOptions = LogOptions {
    segment_bytes: 8 << 10,
    buffer_bytes: 64 << 10,
    on_damage: OnDamage::Serve,
};

pub(super) fn open_with(dir: &TempDir, options: LogOptions) -> (Log, OpenReport) {
    block_on(Log::open(&Env::system(), &dir.0, options)).unwrap()
}

fn open(dir: &Path) -> (Log, OpenReport) {
    block_on(Log::open(&Env::system(), dir, SMALL)).unwrap()
}

pub(super) fn append(log: &Log, entries: &[&str]) -> Range<u64> {
    let entries = entries.iter().map(|entry| Bytes::copy_from_slice(entry.as_bytes()));
    let append = log.append(&entries.collect::<Vec<_>>()).unwrap();
    let seqs = append.seqs();
    block_on(append).unwrap();
    seqs
}

fn contents(log: &Log) -> Vec<(u64, String)> {
    let mut reader = log.reader(log.range().start);
    let next = || block_on(reader.next()).unwrap();
    std::iter::from_fn(next)
        .map(|item| match item {
            Item::Record { seq, bytes } => (seq, String::from_utf8(bytes.to_vec()).unwrap()),
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect()
}

fn list(from: u64, entries: &[&str]) -> Vec<(u64, String)> {
    (from..).zip(entries.iter().map(ToString::to_string)).collect()
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let dir = TempDir::new("reopen");
    let (log, report) = open(&dir.0);
    assert_eq!((report.range, report.segments), (1..1, 0));
    assert_eq!(append(&log, &["a", "b"]), 1..3);
    assert_eq!(append(&log, &["c"]), 3..4);
    assert_eq!(log.range(), 1..4);
    assert_eq!(log.durable(), 4);
    assert_eq!(contents(&log), list(1, &["a", "b", "c"]));
    block_on(log.close());
    assert_eq!(log.append(&[Bytes::new()]).unwrap_err(), LogError::Closed);

    let (log, report) = open(&dir.0);
    assert_eq!((report.range.clone(), report.torn), (1..4, 0));
    assert!(report.gaps.is_empty() && report.damage.is_empty(), "{report:?}");
    assert_eq!(append(&log, &["d"]), 4..5);
    assert_eq!(contents(&log), list(1, &["a", "b", "c", "d"]));
}

#[test]
fn the_directory_is_taken_once() {
    let dir = TempDir::new("lock");
    let (log, _) = open(&dir.0);
    let again = block_on(Log::open(&Env::system(), &dir.0, SMALL));
    assert_eq!(again.unwrap_err(), LogError::Locked);
    block_on(log.close());
    open(&dir.0);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test changes a file behind the log's back")]
fn a_log_of_another_release_is_refused_and_left_alone() {
    let dir = TempDir::new("version");
    let (log, _) = open(&dir.0);
    append(&log, &["a"]);
    block_on(log.close());
    let path = dir.0.join("0000000000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    for copy in bytes.chunks_exact_mut(512).take(2) {
        copy[8] = 77;
        let crc = crc32c::crc32c(&copy[..508]);
        copy[508..].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(&path, &bytes).unwrap();
    let refused = block_on(Log::open(&Env::system(), &dir.0, SMALL)).unwrap_err();
    assert_eq!(refused, LogError::Version { found: 77, segment: 1 });
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn segments_follow_each_other_and_are_released_whole() {
    let dir = TempDir::new("segments");
    let (log, _) = open(&dir.0);
    let entry = "x".repeat(1000);
    for _ in 0..50 {
        append(&log, &[&entry]);
    }
    let before = log.stats();
    assert!(before.segments > 5, "{before:?}");
    block_on(log.release_before(30)).unwrap();
    let first = log.range().start;
    assert!((20..=30).contains(&first), "{first}");
    assert!(log.stats().segments < before.segments && log.stats().bytes < before.bytes);
    assert_eq!(
        block_on(log.read(1..5, 10)).unwrap_err(),
        LogError::Gone { oldest: first }
    );
    assert_eq!(contents(&log).len() as u64, 51 - first);
    block_on(log.close());
    let (log, report) = open(&dir.0);
    assert_eq!(report.range, first..51);
    assert!(report.gaps.is_empty());
    block_on(log.release_before(u64::MAX)).unwrap();
    assert_eq!(log.stats().segments, 1);
}

#[test]
fn a_truncated_tail_stays_away() {
    let dir = TempDir::new("truncate");
    let (log, _) = open(&dir.0);
    append(&log, &["a", "b", "c"]);
    append(&log, &["d"]);
    block_on(log.truncate_after(2)).unwrap();
    assert_eq!(log.range(), 1..3);
    assert_eq!(contents(&log), list(1, &["a", "b"]));
    block_on(log.close());
    let (log, _) = open(&dir.0);
    assert_eq!(contents(&log), list(1, &["a", "b"]));
    assert_eq!(append(&log, &["C"]), 3..4);
    block_on(log.truncate_after(9)).unwrap();
    block_on(log.close());
    let (log, report) = open(&dir.0);
    assert_eq!(contents(&log), list(1, &["a", "b", "C"]));
    assert!(report.gaps.is_empty() && report.damage.is_empty(), "{report:?}");
}

#[test]
fn a_reset_log_goes_on_where_it_is_told() {
    let dir = TempDir::new("reset");
    let (log, _) = open(&dir.0);
    append(&log, &["a", "b", "c"]);
    for next in [100, 7] {
        block_on(log.reset(next)).unwrap();
        assert_eq!(log.range(), next..next);
        assert_eq!(append(&log, &["z"]), next..next + 1);
        assert_eq!(contents(&log), list(next, &["z"]));
        assert_eq!(log.stats().segments, 1);
    }
    block_on(log.close());
    let (log, report) = open(&dir.0);
    assert_eq!((report.range, report.gaps), (7..8, vec![]));
    assert_eq!(contents(&log), list(7, &["z"]));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test changes a file behind the log's back")]
fn damage_is_kept_in_quarantine_and_refused_where_asked() {
    let dir = TempDir::new("damage");
    let (log, _) = open(&dir.0);
    for word in ["one word", "two words", "three words"] {
        append(&log, &[word]);
    }
    block_on(log.close());
    let path = dir.0.join("0000000000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|bytes| bytes == b"two words").unwrap();
    bytes[at] = b'X';
    std::fs::write(&path, &bytes).unwrap();

    let strict = LogOptions {
        on_damage: OnDamage::Refuse,
        ..SMALL
    };
    let refused = block_on(Log::open(&Env::system(), &dir.0, strict)).unwrap_err();
    assert!(matches!(refused, LogError::Damaged { entries: 1, .. }), "{refused}");
    assert!(!dir.0.join("quarantine").exists() && std::fs::read(&path).unwrap() == bytes);

    for copies in [1, 0] {
        let (log, report) = open_with(&dir, SMALL);
        assert_eq!((report.gaps.len(), report.quarantine), (1, Ok(copies)));
        let [damage] = &report.damage[..] else {
            panic!("one range")
        };
        let name = format!("quarantine/0000000000000001-{:08x}.bytes", damage.bytes.start);
        let held = std::fs::read(dir.0.join(name)).unwrap();
        assert_eq!(held, bytes[damage.bytes.start as usize..damage.bytes.end as usize]);
        let verified = block_on(log.verify(Source::Device, |_| ())).unwrap();
        assert_eq!((verified.entries, verified.lost), (2, report.gaps));
        block_on(log.close());
    }
}

#[test]
fn freed_segments_are_used_again() {
    let dir = TempDir::new("again");
    let (log, _) = open(&dir.0);
    let entry = "x".repeat(1000);
    for n in 1..=300 {
        append(&log, &[&entry]);
        if n % 20 == 0 {
            block_on(log.release_before(n)).unwrap();
        }
    }
    // Longer than it takes until what was written last is vouched for.
    block_on(Env::system().sleep(std::time::Duration::from_millis(50)));
    let stats = log.stats();
    block_on(log.close());
    let disk = Env::system().disk().clone();
    let names = block_on(disk.list(&dir.0)).unwrap();
    let spares = names.iter().filter(|name| name.ends_with(".spare")).count();
    let summaries = names.iter().filter(|name| name.ends_with(".summary")).count();
    assert!(
        spares <= 2 && summaries == stats.segments && names.len() == spares + summaries + stats.segments,
        "{names:?}"
    );
    let (log, report) = open(&dir.0);
    assert!(
        report.range.end == 301 && report.gaps.is_empty() && report.damage.is_empty(),
        "{report:?}"
    );
    assert_eq!(contents(&log).last(), Some(&(300, entry)));
}

#[test]
fn entries_that_are_read_together_are_one_buffer() {
    let dir = TempDir::new("shared");
    let (log, _) = open(&dir.0);
    let entry = "x".repeat(1_000);
    append(&log, &[&entry, &entry]);
    let items = block_on(log.read(1..3, 1 << 20)).unwrap();
    let [Item::Record { bytes: one, .. }, Item::Record { bytes: next, .. }] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!(one.as_ptr().addr() + one.len(), next.as_ptr().addr());
    block_on(log.close());
}

/// What the first release with this format wrote: entries of one frame and of two pieces, a mark, three segments, and a
/// crash in a frame.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the test puts files there behind the log's back"
)]
fn the_log_of_format_1_is_read() {
    let dir = TempDir::new("fixture");
    std::fs::create_dir_all(&dir.0).unwrap();
    for (id, bytes) in (1..).zip([
        &include_bytes!("../../tests/data/log.v1/0000000000000001.seg")[..],
        &include_bytes!("../../tests/data/log.v1/0000000000000002.seg")[..],
        &include_bytes!("../../tests/data/log.v1/0000000000000003.seg")[..],
    ]) {
        std::fs::write(dir.0.join(format!("{id:016x}.seg")), bytes).unwrap();
    }
    let (log, report) = open(&dir.0);
    assert_eq!((report.range.clone(), report.torn > 0), (3..24, true), "{report:?}");
    assert!(report.gaps.is_empty() && report.damage.is_empty(), "{report:?}");
    let expected: Vec<_> = (3..24)
        .map(|seq| match seq {
            20 => (seq, "in pieces, ".repeat(300)),
            _ => (seq, format!("entry {seq} {}", "x".repeat(600))),
        })
        .collect();
    assert_eq!(contents(&log), expected);
    assert_eq!(append(&log, &["and on"]), 24..25);
}

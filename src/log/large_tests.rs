//! Entries of more than a frame, levels of durability, and the caller's own commit, on the real disk.

use super::tests::{TempDir, append, open_with};
use super::{Durability, Item, Log, LogError, LogOptions, Source};
use crate::env::{Env, wait};
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join;

fn long(len: usize) -> Bytes {
    (0..len).map(|n| ((n * 31) >> 7) as u8).collect::<Vec<_>>().into()
}

fn read(log: &Log) -> Vec<(u64, Bytes)> {
    let mut reader = log.reader(log.range().start);
    std::iter::from_fn(|| block_on(reader.next()).unwrap())
        .map(|item| match item {
            Item::Record { seq, bytes } => (seq, bytes),
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect()
}

const LARGE: LogOptions = LogOptions {
    segment_bytes: 4 << 20,
    buffer_bytes: 16 << 20,
    ..super::tests::SMALL
};

#[test]
fn an_entry_of_many_frames_is_one_entry() {
    let dir = TempDir::new("long");
    let (log, _) = open_with(&dir, LARGE);
    let whole = long(9 << 20);
    append(&log, &["before"]);
    let entries = vec![Bytes::from_static(b"with"), whole.clone()];
    let sent = log.append(&entries).unwrap();
    assert_eq!(sent.seqs(), 2..4);
    sent.wait().unwrap();
    append(&log, &["after"]);
    let expected = vec![
        (1, Bytes::from_static(b"before")),
        (2, Bytes::from_static(b"with")),
        (3, whole),
        (4, Bytes::from_static(b"after")),
    ];
    assert_eq!(read(&log), expected);
    // The segments of its pieces are kept as long as it is.
    block_on(log.release_before(3)).unwrap();
    let expected = &expected[log.range().start as usize - 1..];
    assert!(expected.len() >= 2 && log.stats().segments > 3);
    assert_eq!(read(&log), expected);
    block_on(log.close());
    let (log, report) = open_with(&dir, LARGE);
    assert!(
        report.gaps.is_empty() && report.damage.is_empty() && report.torn == 0,
        "{report:?}"
    );
    assert_eq!(read(&log), expected);
    let verified = block_on(log.verify(Source::Device, |_| ())).unwrap();
    assert_eq!((verified.entries as usize, verified.lost.len()), (expected.len(), 0));
    // They go with it.
    let last = log.append(&[long(5 << 20)]).unwrap();
    let seq = last.seqs().start;
    last.wait().unwrap();
    block_on(log.release_before(seq)).unwrap();
    assert!(log.range().start >= 4);
    assert_eq!(read(&log).last(), Some(&(seq, long(5 << 20))));

    let len = (64 << 20) + 1;
    let refused = log.append(&[Bytes::from(vec![0; len])]).unwrap_err();
    assert_eq!(refused, LogError::TooLarge { len, max: 64 << 20 });
}

#[test]
fn what_is_staged_lets_others_pass_and_is_there_when_it_is_appended() {
    let dir = TempDir::new("stage");
    let (log, _) = open_with(&dir, LARGE);
    let whole = long(5 << 20);
    let others = async {
        for n in 0..10 {
            log.append(&[Bytes::from(format!("small {n}"))]).unwrap().await.unwrap();
        }
    };
    let (staged, ()) = block_on(join(log.stage(whole.clone()), others));
    let staged = staged.unwrap();
    assert_eq!(log.range(), 1..11, "it has no number yet");
    // What was appended before may go, its pieces may not.
    block_on(log.release_before(11)).unwrap();
    let sent = log.append_with(&[staged.clone()][..], Durability::Disk).unwrap();
    assert_eq!(sent.seqs(), 11..12);
    block_on(sent).unwrap();
    assert_eq!(read(&log).last(), Some(&(11, whole.clone())));
    block_on(log.close());

    let (log, report) = open_with(&dir, LARGE);
    assert!(report.gaps.is_empty() && report.damage.is_empty(), "{report:?}");
    assert_eq!(read(&log).last(), Some(&(11, whole.clone())));
    // Pieces that were never appended are nothing.
    drop(block_on(log.stage(whole.clone())).unwrap());
    append(&log, &["next"]);
    assert_eq!(read(&log).last(), Some(&(12, Bytes::from_static(b"next"))));
    // A reset takes pieces along.
    let staged = block_on(log.stage(whole)).unwrap();
    block_on(log.reset(50)).unwrap();
    let refused = log.append_with(&[staged][..], Durability::Disk).unwrap_err();
    assert_eq!(refused, LogError::Gone { oldest: 50 });
}

#[test]
fn an_append_for_the_kernel_needs_no_sync_and_gets_one_soon() {
    let dir = TempDir::new("os");
    let (log, _) = open_with(&dir, LARGE);
    append(&log, &["first"]);
    let before = log.stats().syncs;
    for n in 0..50 {
        let entry = [Bytes::from(format!("quick {n}"))];
        log.append_with(&entry[..], Durability::Os).unwrap().wait().unwrap();
    }
    // A slow machine may sync once per tenth of a second meanwhile.
    assert!(log.stats().syncs < before + 40);
    assert_eq!(log.durable(), 52);
    while log.stats().syncs == before {
        wait(Env::system().sleep(std::time::Duration::from_millis(5)));
    }
    assert_eq!(read(&log).len(), 51);
    block_on(log.close());
    let (log, report) = open_with(&dir, LARGE);
    assert_eq!((read(&log).len(), report.torn), (51, 0));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
fn threads_commit_for_themselves_and_for_each_other() {
    let dir = TempDir::new("threads");
    let (log, _) = open_with(&dir, LARGE);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..200 {
                    let sent = log.append(&[Bytes::from(format!("{thread} {n}"))]).unwrap();
                    match n % 4 {
                        0 => block_on(sent).unwrap(),
                        1 => drop(sent),
                        _ => sent.wait().unwrap(),
                    }
                }
            });
        }
    });
    block_on(log.append(&[Bytes::new()]).unwrap()).unwrap();
    let all = read(&log);
    assert_eq!(all.len(), 1601);
    for thread in 0..8 {
        let mine: Vec<_> = all
            .iter()
            .filter(|(_, bytes)| bytes.starts_with(format!("{thread} ").as_bytes()))
            .collect();
        let expected: Vec<_> = (0..200).map(|n| format!("{thread} {n}")).collect();
        assert!(
            mine.iter()
                .map(|(_, bytes)| &bytes[..])
                .eq(expected.iter().map(String::as_bytes))
        );
    }
    let stats = log.stats();
    assert!(stats.syncs < stats.appends, "{stats:?}");
}

#[test]
fn an_append_that_nobody_waits_for_is_written_all_the_same() {
    let dir = TempDir::new("dropped");
    let (log, _) = open_with(&dir, LARGE);
    drop(log.append(&[Bytes::from_static(b"x")]).unwrap());
    while log.durable() < 2 {
        wait(Env::system().sleep(std::time::Duration::from_millis(1)));
    }
    drop(log);
}

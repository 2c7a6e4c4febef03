//! Picked entries are those that reading everything gives, also where something is damaged.

use crate::log::frame::ROW;
use crate::log::tests::{TempDir, open_with};
use crate::log::{Gap, Item, Log, LogOptions, OnDamage, Why};
use bytes::Bytes;
use futures::executor::block_on;
use proptest::prelude::*;

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 64 << 10,
    buffer_bytes: 1 << 20,
    on_damage: OnDamage::Serve,
};

/// Appends of entries of these lengths, each filled with its number; returns what was appended.
fn filled(log: &Log, appends: &[Vec<usize>]) -> Vec<Bytes> {
    let mut all = Vec::new();
    for lens in appends {
        let number = |n: usize| (all.len() + n + 1) as u32;
        let entry = |(n, len): (usize, &usize)| Bytes::from(number(n).to_le_bytes().repeat(*len));
        let entries: Vec<Bytes> = lens.iter().enumerate().map(entry).collect();
        block_on(log.append(&entries).unwrap()).unwrap();
        all.extend(entries);
    }
    all
}

fn appends() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let few = prop::collection::vec(0..40_usize, 0..6);
    let many = prop::collection::vec(0..200_usize, 30..60);
    prop::collection::vec(prop_oneof![few, many], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_picked_is_what_was_appended(
        appends in appends(),
        picks in prop::collection::vec(prop::collection::btree_set(0..700_u64, 1..40), 1..5),
        first in 0..60_u64,
    ) {
        let dir = TempDir::new("pick");
        let (log, _) = open_with(&dir, OPTIONS);
        let all = filled(&log, &appends);
        block_on(log.release_before(first)).unwrap();
        let range = log.range();
        for pick in picks {
            let seqs: Vec<u64> = pick.into_iter().collect();
            let read = block_on(log.read_some(&seqs));
            if seqs[0] < range.start {
                prop_assert!(read.is_err(), "{seqs:?} of {range:?}");
                continue;
            }
            let there = seqs.iter().copied().filter(|seq| range.contains(seq));
            let expected: Vec<Item> = there.map(|seq| Item::Record { seq, bytes: all[seq as usize - 1].clone() }).collect();
            prop_assert_eq!(read.unwrap(), expected);
        }
        prop_assert_eq!(log.stats().damaged, 0);
        block_on(log.close());
    }
}

/// Flips a bit where `pattern` is in a segment, `before` bytes ahead of it.
#[allow(clippy::disallowed_methods, reason = "the test damages a file in the real world")]
fn flip(dir: &TempDir, pattern: &[u8], before: usize) {
    let files = std::fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.is_file()) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(pattern.len()).position(|some| some == pattern) {
            bytes[at - before] ^= 4;
            return std::fs::write(path, bytes).unwrap();
        }
    }
    panic!("it is in none of the files");
}

#[test]
fn a_damaged_entry_is_a_gap_and_those_beside_it_are_not() {
    let dir = TempDir::new("pick-damaged");
    let (log, _) = open_with(&dir, OPTIONS);
    let all = filled(&log, &[vec![100; 50]]);
    flip(&dir, &all[20], 0);
    let record = |seq: u64| Item::Record {
        seq,
        bytes: all[seq as usize - 1].clone(),
    };
    let gap = |range, why| Item::Gap(Gap { range, why });
    let pick = |seqs: &[u64]| block_on(log.read_some(seqs)).unwrap();
    assert_eq!(pick(&[5, 20, 22, 50]), [5, 20, 22, 50].map(record));
    assert_eq!(log.stats().damaged, 0);
    assert_eq!(pick(&[5, 21, 40]), [record(5), gap(21..22, Why::Entry), record(40)]);
    assert_eq!(log.stats().damaged, 1);
    // The table lies right before the first entry, and the head before that.
    flip(&dir, &all[0], 3);
    assert_eq!(pick(&[5, 40]), [gap(5..6, Why::Entry), gap(40..41, Why::Entry)]);
    flip(&dir, &all[0], 50 * ROW + 9);
    assert_eq!(pick(&[5, 40]), [gap(5..41, Why::Frame)], "whatever could be picked");
    block_on(log.close());
}

#[test]
fn an_entry_in_pieces_is_picked_whole() {
    let dir = TempDir::new("pick-pieces");
    let options = LogOptions {
        segment_bytes: 4 << 20,
        buffer_bytes: 8 << 20,
        ..OPTIONS
    };
    let (log, _) = open_with(&dir, options);
    let all = filled(&log, &[vec![100; 50], vec![600 << 10], vec![100; 50]]);
    let expected = [7_u64, 51, 90].map(|seq| Item::Record {
        seq,
        bytes: all[seq as usize - 1].clone(),
    });
    assert_eq!(block_on(log.read_some(&[7, 51, 90])).unwrap(), expected);
    block_on(log.close());
}

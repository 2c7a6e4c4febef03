//! Engines: records in order, pages, snapshots.

use crate::env::WallTime;
use crate::store::{Change, Changed, Engine, Entry, Error, Position, Record, Result, Scan, Version};
use bytes::Bytes;
use std::time::Duration;

/// Takes the engines that `make` makes, one for each case, through the contract of [`Engine`].
///
/// # Panics
/// When the engine breaks the contract.
pub fn engine<E: Engine>(make: impl Fn() -> E) {
    an_engine_begins_empty(&make());
    records_are_applied_in_order(&make());
    what_was_applied_is_not_applied_again(&make());
    older_epochs_and_gaps_are_refused(&make());
    scans_agree_with_a_list(&make());
    snapshots_do_not_move(&make());
    a_snapshot_replaces_everything(&make(), &make());
    versions_only_rise(&make());
    purges_free_what_has_expired(&make());
}

fn an_engine_begins_empty(engine: &impl Engine) {
    assert_eq!((engine.applied(), engine.version()), (Position::START, Version(0)));
    assert_eq!(engine.get(b"a").expect("a get works"), None);
    assert_eq!(all(engine), []);
}

fn records_are_applied_in_order(engine: &impl Engine) {
    let record = [
        set("a", entry("1", 5)),
        set("a", entry("2", 5)),
        set("b", entry("1", 5)),
        removed("b", 5),
    ];
    apply(engine, at(1, 1), record);
    assert_eq!(all(engine), [("a".into(), entry("2", 5))]);
    assert_eq!((engine.applied(), engine.version()), (at(1, 1), Version(5)));
    apply(engine, at(1, 2), [removed("a", 6), set("", entry("empty", 6))]);
    assert_eq!(engine.get(b"a").expect("a get works"), None);
    assert_eq!(engine.get(b"").expect("a get works"), Some(entry("empty", 6)));
    apply(engine, at(1, 3), []);
    assert_eq!((engine.applied(), engine.version()), (at(1, 3), Version(6)));
}

fn what_was_applied_is_not_applied_again(engine: &impl Engine) {
    apply(engine, at(1, 1), [set("a", entry("1", 1))]);
    apply(engine, at(1, 2), [set("a", entry("2", 2))]);
    for seq in [1, 2] {
        apply(engine, at(1, seq), [set("a", entry("again", 9))]);
        assert_eq!(all(engine), [("a".into(), entry("2", 2))]);
        assert_eq!((engine.applied(), engine.version()), (at(1, 2), Version(2)));
    }
}

fn older_epochs_and_gaps_are_refused(engine: &impl Engine) {
    apply(engine, at(1, 1), [set("a", entry("1", 1))]);
    apply(engine, at(3, 2), [set("a", entry("2", 2))]);
    let intruder = Record::new(vec![set("a", entry("intruder", 9))]);
    for position in [at(1, 2), at(1, 3), at(2, 3)] {
        let answer = engine.apply(position, &intruder);
        assert!(
            matches!(answer, Err(Error::Fenced { mine, current: 3 }) if mine == position.epoch),
            "{position} after 3.2 answered {answer:?}"
        );
    }
    // A newer epoch that rewrites what was applied is no repetition: the engine has what that epoch does not.
    for position in [at(3, 4), at(4, 4), at(4, 2), at(4, 1)] {
        let answer = engine.apply(position, &intruder);
        assert!(
            matches!(answer, Err(Error::Invalid { .. })),
            "{position} after 3.2 answered {answer:?}"
        );
    }
    assert_eq!(all(engine), [("a".into(), entry("2", 2))]);
    assert_eq!((engine.applied(), engine.version()), (at(3, 2), Version(2)));
    apply(engine, at(4, 3), [removed("a", 3)]);
    assert_eq!(engine.applied(), at(4, 3));
}

fn scans_agree_with_a_list(engine: &impl Engine) {
    let keys = ["", "a", "a\0", "ab", "b", "c"];
    let changes = keys.iter().rev().map(|key| set(key, entry(key, 1)));
    engine
        .apply(at(1, 1), &Record::new(changes.collect()))
        .expect("a record is applied");
    let ranges = [
        Scan::all(),
        Scan::prefix("a"),
        Scan::range(Bytes::from("a\0")..Bytes::from("b")),
        Scan::range(Bytes::from("b")..Bytes::from("a")),
        Scan::range(..=Bytes::from("b")),
    ];
    for range in ranges {
        let expected: Vec<_> = keys
            .iter()
            .filter(|key| range.contains(key.as_bytes()))
            .copied()
            .collect();
        let backwards: Vec<_> = expected.iter().rev().copied().collect();
        for (walk, expected) in [(range.clone(), expected), (range.reverse(), backwards)] {
            for (limit, page) in [(usize::MAX, 1_000), (usize::MAX, 2), (2, 1_000), (0, 1)] {
                let walk = walk.clone().limit(limit).page(page);
                let found = engine.scan(&walk).expect("a scan works");
                let found: Vec<_> = found.iter().map(|(key, _)| &key[..]).collect();
                let expected: Vec<_> = expected
                    .iter()
                    .take(limit.min(page))
                    .map(|key| key.as_bytes())
                    .collect();
                assert_eq!(found, expected, "{walk:?}");
            }
        }
    }
}

fn snapshots_do_not_move(engine: &impl Engine) {
    apply(
        engine,
        at(1, 1),
        [
            set("a", entry("1", 1)),
            set("b", entry("1", 1)),
            set("c", expiring("1", 1, 5)),
        ],
    );
    let before = all(engine);
    let snapshot = engine.snapshot().expect("a snapshot works");
    apply(
        engine,
        at(1, 2),
        [set("a", entry("2", 2)), removed("b", 2), set("d", entry("2", 2))],
    );
    engine.purge(WallTime::from_millis(9), 10).expect("a purge works");
    assert_eq!((snapshot.at, snapshot.version), (at(1, 1), Version(1)));
    assert_eq!(snapshot.entries.collect::<Vec<_>>(), before);
}

fn a_snapshot_replaces_everything(from: &impl Engine, to: &impl Engine) {
    apply(
        from,
        at(2, 1),
        [set("a", entry("1", 7)), set("b", expiring("1", 8, 5)), removed("c", 9)],
    );
    apply(to, at(1, 1), [set("c", entry("1", 1)), set("b", expiring("1", 1, 3))]);
    to.install(from.snapshot().expect("a snapshot works"))
        .expect("a snapshot is installed");
    assert_eq!(all(to), all(from));
    assert_eq!((to.applied(), to.version()), (at(2, 1), Version(9)));
    assert_eq!(
        to.purge(WallTime::from_millis(4), 10).expect("a purge works"),
        0,
        "an old expiry was left behind"
    );
    assert_eq!(to.purge(WallTime::from_millis(5), 10).expect("a purge works"), 1);
    apply(to, at(2, 2), [removed("a", 10)]);
    assert_eq!(all(to), []);
}

fn versions_only_rise(engine: &impl Engine) {
    apply(engine, at(1, 1), [set("a", entry("imported", 100)), removed("b", 40)]);
    assert_eq!(engine.version(), Version(100));
    apply(engine, at(1, 2), [removed("a", 3)]);
    assert_eq!(engine.version(), Version(100), "an old version turned the count back");
    apply(engine, at(1, 3), [removed("never there", 101)]);
    assert_eq!(engine.version(), Version(101), "a removal has a version too");
}

fn purges_free_what_has_expired(engine: &impl Engine) {
    let start = WallTime::from_millis(1_000);
    let changes = (0..5).map(|i| set(&format!("k{i}"), expiring("1", 1, 1_000 + i)));
    engine
        .apply(at(1, 1), &Record::new(changes.collect()))
        .expect("a record is applied");
    // Rewritten to live on, for ever or longer, and removed: none of these may be freed at its first time.
    apply(
        engine,
        at(1, 2),
        [
            set("k0", entry("2", 2)),
            set("k1", expiring("2", 2, 9_000)),
            removed("k2", 2),
        ],
    );
    let purge = |after, max| {
        engine
            .purge(start + Duration::from_millis(after), max)
            .expect("a purge works")
    };
    assert_eq!(purge(2, 10), 0);
    assert_eq!(
        all(engine).len(),
        4,
        "an engine gives what it holds, and hides nothing itself"
    );
    assert_eq!((purge(4, 1), purge(4, 10), purge(4, 10)), (1, 1, 0));
    let left = all(engine);
    assert_eq!(
        left,
        [("k0".into(), entry("2", 2)), ("k1".into(), expiring("2", 2, 9_000))]
    );
    assert_eq!(engine.applied(), at(1, 2), "a purge is no record");
}

fn all(engine: &impl Engine) -> Vec<(Bytes, Entry)> {
    let entries = engine.scan(&Scan::all()).expect("a scan works");
    for (key, entry) in &entries {
        assert_eq!(
            engine.get(key).expect("a get works").as_ref(),
            Some(entry),
            "get and scan agree"
        );
    }
    entries
}

fn apply<const N: usize>(engine: &impl Engine, at: Position, changes: [Change; N]) {
    let applied: Result<()> = engine.apply(at, &Record::new(changes.into()));
    applied.expect("a record is applied");
}

fn at(epoch: u64, seq: u64) -> Position {
    Position::new(epoch, seq)
}

fn entry(value: &str, version: u64) -> Entry {
    Entry {
        value: value.to_owned().into(),
        version: Version(version),
        expires: None,
    }
}

fn expiring(value: &str, version: u64, at: u64) -> Entry {
    Entry {
        expires: Some(WallTime::from_millis(at)),
        ..entry(value, version)
    }
}

fn set(key: &str, entry: Entry) -> Change {
    Change {
        key: key.to_owned().into(),
        to: Changed::Set(entry),
    }
}

fn removed(key: &str, version: u64) -> Change {
    Change {
        key: key.to_owned().into(),
        to: Changed::Removed(Version(version)),
    }
}

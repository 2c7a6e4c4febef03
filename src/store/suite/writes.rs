//! Writes: versions, tokens, batches, expectations, imports, cursors.

use super::{Make, commit, is_invalid, put, read, refuses, scan, text, version};
use crate::store::{Batch, BoxStore, Entry, Error, Expect, Feature, Position, Scan, Store, StoreExt, Version};
use futures::future::{join_all, select};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// For each key: what is over many stores has no one count.
pub(super) async fn versions_rise(store: &BoxStore) {
    for key in ["a", "b"] {
        let mut newest = Version::default();
        for round in 0..5 {
            for value in ["x", "y"] {
                let written = put(store, key, value).await.version;
                assert!(written > newest, "round {round}: {written} after {newest}");
                assert_eq!(version(read(store, key.as_bytes()).await.as_ref()), Some(written));
                newest = written;
            }
            let removed = store.delete(key).await.expect("a delete works").version;
            assert!(removed > newest, "a delete has a version too: {removed} after {newest}");
            newest = removed;
        }
    }
}

pub(super) async fn tokens_rise(store: &BoxStore) {
    let first = put(store, "a", "1").await.at;
    let second = put(store, "a", "2").await.at;
    if !store.capability().has(Feature::Tokens) {
        assert!(
            first.is_empty() && second.is_empty(),
            "tokens are not declared but given"
        );
        return;
    }
    assert!(!first.is_empty(), "tokens are declared but empty");
    for (log, position) in first.iter() {
        assert!(
            second.position(log) > Some(position),
            "{second} does not come after {first}"
        );
    }
}

pub(super) async fn batches_are_atomic(store: &BoxStore) {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let batch = || keys.iter().fold(Batch::new(), |batch, key| batch.put(*key, "1"));
    let answer = store.commit(batch()).await;
    let mut there = Vec::new();
    for key in keys {
        there.extend(read(store, key.as_bytes()).await);
    }
    match answer {
        Ok(receipt) => {
            assert_eq!(there.len(), keys.len());
            assert!(there.iter().all(|entry| entry.version == receipt.version), "{there:?}");
        }
        // A store that is atomic within parts of its keys may still refuse what crosses them.
        Err(Error::Unsupported(Feature::AtomicBatches)) if !store.capability().has(Feature::AtomicBatches) => {
            assert_eq!(there, [], "a refused batch wrote");
            return;
        }
        Err(error) => panic!("a batch of {} puts: {error}", keys.len()),
    }
    // The last operation cannot be carried out, so none may be.
    if store.capability().has(Feature::Counters) {
        put(store, "text", "no number").await;
        let answer = store.commit(batch().put("new", "1").delete("a").add("text", 1)).await;
        assert!(answer.is_err());
        assert_eq!(read(store, b"new").await, None);
        assert!(read(store, b"a").await.is_some());
    }
}

pub(super) async fn operations_happen_in_order(store: &BoxStore) {
    if !store.capability().has(Feature::AtomicBatches) {
        return;
    }
    let batch = Batch::new()
        .put("twice", "1")
        .put("twice", "2")
        .put("gone", "1")
        .delete("gone")
        .delete("back")
        .put("back", "1");
    commit(store, batch).await;
    assert_eq!(text(store, b"twice").await.as_deref(), Some("2"));
    assert_eq!(read(store, b"gone").await, None);
    assert_eq!(text(store, b"back").await.as_deref(), Some("1"));
}

pub(super) async fn expectations_hold_or_nothing_happens(store: &BoxStore) {
    let expect = |expect| Batch::new().expect("a", expect).put("a", "new");
    if !store.capability().has(Feature::Expectations) {
        return refuses(store, Feature::Expectations, "a", expect(Expect::Absent)).await;
    }
    let conflict = async |expectation: Expect| {
        let before = read(store, b"a").await;
        match store.commit(expect(expectation)).await {
            Err(Error::Conflict { key, current }) => {
                assert_eq!((&key[..], current), (&b"a"[..], version(before.as_ref())));
            }
            other => panic!("{expectation:?} of a key at {before:?} answered {other:?}"),
        }
        assert_eq!(read(store, b"a").await, before, "a batch in conflict wrote");
    };
    conflict(Expect::Present).await;
    conflict(Expect::At(Version(1))).await;
    let first = commit(store, expect(Expect::Absent)).await.version;
    conflict(Expect::Absent).await;
    conflict(Expect::At(first.next())).await;
    let second = commit(store, expect(Expect::At(first))).await.version;
    conflict(Expect::At(first)).await;
    commit(store, expect(Expect::Present)).await;
    conflict(Expect::At(second)).await;
    // A key that comes back is not the one that was there.
    store.delete("a").await.expect("a delete works");
    conflict(Expect::At(second)).await;
    let third = commit(store, expect(Expect::Absent)).await.version;
    assert!(third > second);
    // All expectations are met before the first write, and no write happens if one fails.
    let own = Batch::new()
        .expect("own", Expect::Absent)
        .put("own", "1")
        .expect("own", Expect::Absent);
    commit(store, own).await;
    if store.capability().has(Feature::AtomicBatches) {
        let batch = Batch::new().put("b", "1").expect("a", Expect::Absent).put("c", "1");
        assert!(store.commit(batch).await.is_err());
        assert_eq!((read(store, b"b").await, read(store, b"c").await), (None, None));
    }
}

pub(super) async fn one_of_many_wins(store: &BoxStore) {
    if !store.capability().has(Feature::Expectations) {
        return;
    }
    let tries = (0..16).map(|i: i32| store.put_if("lock", i.to_string(), Expect::Absent));
    let answers = join_all(tries).await;
    let winners: Vec<_> = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.is_ok())
        .collect();
    let [(winner, _)] = winners[..] else {
        panic!("of 16 who take what must be absent, these did: {winners:?}")
    };
    assert_eq!(text(store, b"lock").await, Some(winner.to_string()));
}

pub(super) async fn imports_keep_their_age(store: &BoxStore) {
    let old = Entry {
        value: "old".into(),
        version: Version(1),
        expires: None,
    };
    if !store.capability().has(Feature::Import) {
        return refuses(store, Feature::Import, "a", Batch::new().import("a", old)).await;
    }
    for _ in 0..3 {
        put(store, "a", "1").await;
    }
    let newest = put(store, "a", "1").await.version;
    let young = Entry {
        version: Version(newest.0 + 1_000),
        ..old.clone()
    };
    commit(store, Batch::new().import("old", old.clone())).await;
    assert_eq!(read(store, b"old").await, Some(old));
    let after_old = put(store, "a", "1").await.version;
    assert!(
        after_old > newest,
        "{after_old} after {newest}: an old entry turned the count back"
    );
    commit(store, Batch::new().import("a", young.clone())).await;
    assert_eq!(
        read(store, b"a").await.as_ref(),
        Some(&young),
        "an import replaces what is there"
    );
    // Whether or not the entry is still there, no later version may be one that another store has given already.
    store.delete("a").await.expect("a delete works");
    let later = put(store, "a", "1").await.version;
    assert!(later > young.version, "{later} after an import of {}", young.version);
    if store.capability().has(Feature::Expectations) {
        commit(
            store,
            Batch::new().expect("old", Expect::At(Version(1))).put("old", "new"),
        )
        .await;
    }
    let impossible = Entry {
        version: Version(u64::MAX),
        ..young
    };
    let answer = store.commit(Batch::new().import("a", impossible)).await;
    assert!(is_invalid(&answer), "a version without successors answered {answer:?}");
}

pub(super) async fn cursors_move_with_their_batch(store: &BoxStore) {
    let batch = |seq| Batch::new().put("a", "1").cursor("view", Position::new(2, seq));
    if !store.capability().has(Feature::Cursors) {
        refuses(store, Feature::Cursors, "a", batch(7)).await;
        let answer = store.cursor("view").await;
        return assert!(
            matches!(answer, Err(Error::Unsupported(Feature::Cursors))),
            "{answer:?}"
        );
    }
    let cursor = async |name| store.cursor(name).await.expect("a cursor can be read");
    assert_eq!(cursor("view").await, None);
    commit(store, batch(7)).await;
    assert_eq!(cursor("view").await, Some(Position::new(2, 7)));
    assert_eq!(cursor("other").await, None);
    commit(
        store,
        Batch::new()
            .cursor("view", Position::new(2, 4))
            .cursor("other", Position::START),
    )
    .await;
    assert_eq!(cursor("view").await, Some(Position::new(2, 4)), "a cursor may go back");
    assert_eq!(cursor("other").await, Some(Position::START));
    if store.capability().has(Feature::Expectations) {
        let answer = store.commit(batch(9).expect("a", Expect::Absent)).await;
        assert!(answer.is_err());
        assert_eq!(
            cursor("view").await,
            Some(Position::new(2, 4)),
            "a cursor moved without its batch"
        );
    }
    if store.capability().has(Feature::Scans) {
        for walk in [Scan::all(), Scan::all().reverse(), Scan::all().page(1)] {
            let keys: Vec<_> = scan(store, walk).await.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, ["a"], "cursors show in a scan");
        }
    }
}

pub(super) async fn reserved_keys_are_refused(store: &BoxStore) {
    const KEY: &str = "\0outgrow/cursor/view";
    let entry = Entry {
        value: "1.1".into(),
        version: Version(1),
        expires: None,
    };
    let can = |feature| store.capability().has(feature);
    let mut batches = vec![Batch::new().put(KEY, "1.1"), Batch::new().delete(KEY)];
    batches.extend(can(Feature::Counters).then(|| Batch::new().add(KEY, 1)));
    batches.extend(can(Feature::Import).then(|| Batch::new().import(KEY, entry)));
    batches.extend(can(Feature::Expectations).then(|| Batch::new().expect(KEY, Expect::Absent)));
    for batch in batches {
        let answer = store.commit(batch.clone()).await;
        assert!(is_invalid(&answer), "{batch:?} answered {answer:?}");
    }
    if can(Feature::Cursors) {
        assert_eq!(store.cursor("view").await.expect("a cursor can be read"), None);
    }
}

/// Drops a commit at its first poll, at its second, and so on, each over a fresh store.
pub(super) async fn dropped_commits_are_whole(make: &Make<'_>) {
    for polls in 1.. {
        let store = make().await.store;
        put(&store, "a", "old").await;
        let batch = Batch::new().put("a", "new");
        let whole = store.capability().has(Feature::AtomicBatches);
        let batch = if whole { batch.put("b", "new") } else { batch };
        let dropped = {
            let mut left = polls;
            let stop = poll_fn(move |_| {
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            matches!(
                select(pin!(store.commit(batch)), stop).await,
                futures::future::Either::Right(_)
            )
        };
        let before = text(&store, b"a").await;
        put(&store, "c", "1").await;
        let mut a = read(&store, b"a").await.expect("the key was there before");
        let b = read(&store, b"b").await;
        if b.is_some() {
            // The commit may have happened between the two reads.
            a = read(&store, b"a").await.expect("the key was there before");
        }
        if before.as_deref() == Some("new") {
            assert_eq!(a.value, "new", "after {polls} polls: what was read is gone");
        }
        assert!(a.value == "new" || a.value == "old", "after {polls} polls: {a:?}");
        assert!(dropped || a.value == "new", "an acknowledged commit is not there");
        if whole {
            assert_eq!(a.value == "new", b.is_some(), "after {polls} polls: half a batch");
        }
        if !dropped {
            return;
        }
    }
}

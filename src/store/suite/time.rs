//! Time: what expires is gone for every way to see it.

use super::{Subject, commit, put, read, refuses, scan, text};
use crate::store::{Batch, BoxStore, Expect, Feature, Scan, Store, StoreExt};
use bytes::Bytes;
use std::time::Duration;

/// How long the short-lived values live. Engines with coarse clocks still tell it from nothing.
const LIFE: Duration = Duration::from_secs(1);
/// How long the others live: no case waits for that.
const LONG: Duration = Duration::from_secs(3600);

async fn expire(subject: &Subject<BoxStore>) {
    subject.advance(LIFE + LIFE / 10).await;
}

pub(super) async fn values_expire(subject: &Subject<BoxStore>) {
    let store = &subject.store;
    let batch = Batch::new().put_for("short", "1", LIFE);
    if !store.capability().has(Feature::Ttl) {
        return refuses(store, Feature::Ttl, "short", batch).await;
    }
    commit(store, batch).await;
    store.put_for("long", "1", LONG).await.expect("a put for a time works");
    let [short, long] = [read(store, b"short").await, read(store, b"long").await].map(|entry| entry.expect("it lives"));
    let later = long.expires.expect("it expires") - short.expires.expect("it expires");
    assert!(later.abs_diff(LONG - LIFE) < LIFE, "the lives differ by {later:?}");
    // Every write says anew how long the value lives.
    store
        .put_for("for ever", "1", LIFE)
        .await
        .expect("a put for a time works");
    put(store, "for ever", "2").await;
    store
        .put_for("longer", "1", LIFE)
        .await
        .expect("a put for a time works");
    store
        .put_for("longer", "2", LONG)
        .await
        .expect("a put for a time works");
    put(store, "shorter", "1").await;
    store
        .put_for("shorter", "2", LIFE)
        .await
        .expect("a put for a time works");

    expire(subject).await;

    let keys = ["for ever", "long", "longer", "short", "shorter"].map(Bytes::from);
    let found = store.get_many(&keys).await.expect("a read of many works");
    let there: Vec<_> = found.iter().map(Option::is_some).collect();
    assert_eq!(there, [true, true, true, false, false]);
    assert_eq!(
        (read(store, b"short").await, read(store, b"shorter").await),
        (None, None)
    );
    assert_eq!(read(store, b"for ever").await.and_then(|entry| entry.expires), None);
    if store.capability().has(Feature::Scans) {
        for walk in [Scan::all(), Scan::all().page(1), Scan::all().limit(3)] {
            let keys: Vec<_> = scan(store, walk).await.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, ["for ever", "long", "longer"]);
        }
    }
}

pub(super) async fn what_expires_makes_room(subject: &Subject<BoxStore>) {
    let store = &subject.store;
    if !store.capability().has(Feature::Ttl) {
        return;
    }
    let first = store
        .put_for("a", "1", LIFE)
        .await
        .expect("a put for a time works")
        .version;
    expire(subject).await;
    if store.capability().has(Feature::Expectations) {
        for expect in [Expect::Present, Expect::At(first)] {
            let answer = store.put_if("a", "2", expect).await;
            assert!(answer.is_err(), "{expect:?} of what has expired answered {answer:?}");
        }
        store
            .put_if("a", "2", Expect::Absent)
            .await
            .expect("what has expired is absent");
    } else {
        put(store, "a", "2").await;
    }
    let again = read(store, b"a").await.expect("it was just put");
    assert!(again.version > first, "{} after {first}", again.version);
    // What was there before must not take the new value with it.
    expire(subject).await;
    assert_eq!(text(store, b"a").await.as_deref(), Some("2"));
}

pub(super) async fn counters_keep_their_expiry(subject: &Subject<BoxStore>) {
    let store = &subject.store;
    if ![Feature::Ttl, Feature::Counters]
        .iter()
        .all(|feature| store.capability().has(*feature))
    {
        return;
    }
    store.put_for("n", "5", LIFE).await.expect("a put for a time works");
    let expires = read(store, b"n").await.and_then(|entry| entry.expires);
    store.add("n", 1).await.expect("an add works");
    let entry = read(store, b"n").await.expect("it lives");
    assert_eq!((&entry.value[..], entry.expires), (&b"6"[..], expires));
    expire(subject).await;
    store.add("n", 1).await.expect("an add works");
    let entry = read(store, b"n").await.expect("it began anew");
    assert_eq!((&entry.value[..], entry.expires), (&b"1"[..], None));
}

pub(super) async fn imports_expire(subject: &Subject<BoxStore>) {
    let store = &subject.store;
    if ![Feature::Ttl, Feature::Import]
        .iter()
        .all(|feature| store.capability().has(*feature))
    {
        return;
    }
    store.put_for("a", "1", LIFE).await.expect("a put for a time works");
    let entry = read(store, b"a").await.expect("it lives");
    commit(store, Batch::new().import("b", entry.clone())).await;
    assert_eq!(read(store, b"b").await.as_ref(), Some(&entry));
    expire(subject).await;
    assert_eq!(read(store, b"b").await, None);
    commit(store, Batch::new().import("c", entry)).await;
    assert_eq!(read(store, b"c").await, None, "an import brought the dead back");
}

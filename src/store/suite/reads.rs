//! Reads: one key, many, and ranges.

use super::{put, read, scan, text};
use crate::store::{Batch, BoxStore, Error, Feature, Scan, Store, StoreExt};
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use std::ops::Bound;

pub(super) async fn what_is_written_is_read(store: &BoxStore) {
    assert_eq!(read(store, b"a").await, None);
    let first = put(store, "a", "1").await;
    let entry = read(store, b"a").await.expect("what was put is there");
    assert_eq!(
        (&entry.value[..], entry.version, entry.expires),
        (&b"1"[..], first.version, None)
    );
    put(store, "a", "2").await;
    assert_eq!(text(store, b"a").await.as_deref(), Some("2"));
    store.delete("a").await.expect("a delete works");
    assert_eq!(read(store, b"a").await, None);
    store.delete("a").await.expect("so does one of a key that is not there");
    put(store, "a", "").await;
    assert_eq!(
        text(store, b"a").await.as_deref(),
        Some(""),
        "an empty value is a value"
    );
    let nothing = store.commit(Batch::new()).await;
    nothing.expect("a batch of nothing commits");
}

pub(super) async fn many_come_in_order(store: &BoxStore) {
    put(store, "a", "1").await;
    put(store, "c", "3").await;
    let keys = ["c", "b", "a", "c"].map(Bytes::from);
    let found = store.get_many(&keys).await.expect("a read of many works");
    let values: Vec<_> = found
        .iter()
        .map(|entry| entry.as_ref().map(|entry| &entry.value[..]))
        .collect();
    assert_eq!(values, [Some(&b"3"[..]), None, Some(&b"1"[..]), Some(&b"3"[..])]);
    for (key, entry) in keys.iter().zip(found) {
        assert_eq!(read(store, key).await, entry, "get and get_many agree");
    }
    assert_eq!(store.get_many(&[]).await.expect("so does a read of none"), []);
}

pub(super) async fn any_bytes_are_kept(store: &BoxStore) {
    let every: Bytes = (0..=u8::MAX).collect();
    let long = Bytes::from(vec![7; 1 << 16]);
    let keys = [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\0outgrow"),
        every.clone(),
    ];
    for value in [every, long] {
        for key in &keys {
            store
                .put(key.clone(), value.clone())
                .await
                .expect("any bytes can be put");
        }
        for key in &keys {
            let entry = read(store, key).await;
            assert_eq!(
                entry.map(|entry| entry.value),
                Some(value.clone()),
                "at the key {key:?}"
            );
        }
    }
}

pub(super) async fn scans_agree_with_a_list(store: &BoxStore) {
    if !store.capability().has(Feature::Scans) {
        let answer = store.scan(Scan::all()).next().await;
        assert!(
            matches!(answer, Some(Err(Error::Unsupported(Feature::Scans)))),
            "{answer:?}"
        );
        return;
    }
    let mut keys: Vec<Bytes> = vec![Bytes::new()];
    keys.extend(["a", "a\0", "ab", "b", "c/1", "c/2", "c0"].map(Bytes::from));
    keys.push(vec![u8::MAX; 2].into());
    for key in keys.iter().rev() {
        store.put(key.clone(), key.clone()).await.expect("a put works");
    }
    put(store, "between", "1").await;
    store.delete("between").await.expect("a delete works");

    let mut bounds = vec![Bound::Unbounded];
    for key in [
        Bytes::new(),
        "a".into(),
        "aa".into(),
        "c/2".into(),
        vec![u8::MAX; 2].into(),
    ] {
        bounds.extend([Bound::Included(key.clone()), Bound::Excluded(key)]);
    }
    let mut ranges = vec![Scan::prefix("c/"), Scan::prefix(""), Scan::prefix(vec![u8::MAX])];
    for from in &bounds {
        ranges.extend(bounds.iter().map(|to| Scan::range((from.clone(), to.clone()))));
    }
    for range in ranges {
        let expected: Vec<_> = keys.iter().filter(|key| range.contains(key)).cloned().collect();
        let backwards: Vec<_> = expected.iter().rev().cloned().collect();
        for (walk, expected) in [(range.clone(), expected), (range.reverse(), backwards)] {
            for (limit, page) in [
                (usize::MAX, 1_000),
                (usize::MAX, 1),
                (usize::MAX, 3),
                (2, 1_000),
                (4, 3),
                (0, 1),
            ] {
                let walk = walk.clone().limit(limit).page(page);
                let found = scan(store, walk.clone()).await;
                let found: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
                assert_eq!(found, expected[..limit.min(expected.len())], "{walk:?}");
            }
        }
    }
    for (key, entry) in scan(store, Scan::all()).await {
        assert_eq!(read(store, &key).await, Some(entry), "get and scan agree");
    }
}

pub(super) async fn a_scan_that_writes_cross_goes_on(store: &BoxStore) {
    if !store.capability().has(Feature::Scans) {
        return;
    }
    let key = |i: u32| Bytes::from(format!("k{i:02}"));
    for i in 0..20 {
        store.put(key(i), "old").await.expect("a put works");
    }
    // The scan is half-way when keys before, at and after its place change; pages promise no more than an order
    // without repeats, and whatever nobody touched.
    let mut entries = store.scan(Scan::all().page(3));
    let mut seen = Vec::new();
    while let Some((found, _)) = entries.try_next().await.expect("a scan works") {
        if found == key(9) {
            for i in [0, 9, 10, 15] {
                store.delete(key(i)).await.expect("a delete works");
            }
            store.put("k055", "new").await.expect("a put works");
        }
        seen.push(found);
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "a scan repeats or goes back: {seen:?}");
    for i in (1..20).filter(|i| ![9, 10, 15].contains(i)) {
        assert!(seen.contains(&key(i)), "the scan missed {:?} of {seen:?}", key(i));
    }
}

//! Counters: sums, nonsense, and adds at the same time.

use super::{commit, is_invalid, put, read, refuses, text};
use crate::store::{Batch, BoxStore, Feature, Store, StoreExt};
use futures::future::try_join_all;

pub(super) async fn counters_count(store: &BoxStore) {
    if !store.capability().has(Feature::Counters) {
        return refuses(store, Feature::Counters, "n", Batch::new().add("n", 1)).await;
    }
    let receipt = store.add("n", 5).await.expect("an add works");
    let entry = read(store, b"n").await.expect("a counter begins at zero");
    assert_eq!((&entry.value[..], entry.version), (&b"5"[..], receipt.version));
    store.add("n", -7).await.expect("an add works");
    assert_eq!(text(store, b"n").await.as_deref(), Some("-2"));
    put(store, "n", "40").await;
    store.add("n", 2).await.expect("a number that was put is a counter");
    assert_eq!(text(store, b"n").await.as_deref(), Some("42"));
    store.delete("n").await.expect("a delete works");
    store.add("n", i64::MIN).await.expect("an add works");
    assert_eq!(text(store, b"n").await, Some(i64::MIN.to_string()));
    if store.capability().has(Feature::AtomicBatches) {
        let batch = Batch::new()
            .add("m", 1)
            .add("m", 2)
            .put("m", "10")
            .add("m", 3)
            .add("k", 4);
        commit(store, batch).await;
        assert_eq!(text(store, b"m").await.as_deref(), Some("13"));
        assert_eq!(text(store, b"k").await.as_deref(), Some("4"));
    }
}

pub(super) async fn nonsense_is_refused(store: &BoxStore) {
    if !store.capability().has(Feature::Counters) {
        return;
    }
    for value in ["", "x", "1.5", "9223372036854775808"] {
        put(store, "n", value).await;
        let answer = store.add("n", 1).await;
        assert!(is_invalid(&answer), "an add to {value:?} answered {answer:?}");
        assert_eq!(text(store, b"n").await.as_deref(), Some(value));
    }
    for (value, delta) in [("9223372036854775807", 1), ("-9223372036854775808", -1)] {
        put(store, "n", value).await;
        let answer = store.add("n", delta).await;
        assert!(is_invalid(&answer), "{value} + {delta} answered {answer:?}");
        assert_eq!(text(store, b"n").await.as_deref(), Some(value));
    }
}

pub(super) async fn concurrent_adds_all_count(store: &BoxStore) {
    if !store.capability().has(Feature::Counters) {
        return;
    }
    let receipts = try_join_all((1..=32).map(|n| store.add("n", n))).await;
    let mut versions: Vec<_> = receipts
        .expect("adds work")
        .iter()
        .map(|receipt| receipt.version)
        .collect();
    versions.sort_unstable();
    assert!(
        versions.is_sorted_by(|a, b| a < b),
        "two commits share a version: {versions:?}"
    );
    assert_eq!(text(store, b"n").await.as_deref(), Some("528"));
}

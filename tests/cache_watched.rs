//! What those hear who watch a cache: its metrics and its spans. A program of its own, since a span is looked for by the
//! listeners of all tests of a program at once.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/recorder.rs"]
mod recorder;

use outgrow::cache::{BytesCodec, Cache, InsertOptions};
use recorder::Kept;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

#[test]
fn metrics_are_the_statistics() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(10).build().unwrap();
    for key in 0..15 {
        cache.insert(key, key);
    }
    cache.insert(14, 0);
    cache.invalidate(&14);
    cache.insert_with(1, 1, InsertOptions::new().ttl(Duration::ZERO));
    for key in 0..15 {
        cache.get(&key);
    }
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || cache.publish_metrics("users"));
    let values = kept.values.lock().unwrap();
    let value = |name: &str| {
        values
            .get(name)
            .unwrap_or_else(|| panic!("{name} of {values:?}"))
            .load(Ordering::Relaxed)
    };
    let stats = cache.stats();
    assert!(stats.evictions > 0 && stats.replacements > 0 && stats.invalidations > 0 && stats.rejections > 0);
    for (name, expected) in [
        ("cache.hits cache.name=users", stats.hits),
        ("cache.misses cache.name=users", stats.misses),
        ("cache.inserts cache.name=users", stats.inserts),
        ("cache.removals cache.name=users cause=evicted", stats.evictions),
        ("cache.removals cache.name=users cause=replaced", stats.replacements),
        ("cache.removals cache.name=users cause=invalidated", stats.invalidations),
        ("cache.removals cache.name=users cause=rejected", stats.rejections),
        ("cache.removals cache.name=users cause=expired", 0),
        ("cache.entries cache.name=users", (stats.entries as f64).to_bits()),
        ("cache.entries.limit cache.name=users", 10_f64.to_bits()),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert!(
        !values.keys().any(|name| name.starts_with("cache.weight.limit")),
        "there is none"
    );
    let described = kept.described.lock().unwrap();
    let names = values.keys().map(|name| name.split(' ').next().unwrap());
    for name in names {
        assert!(described.contains_key(name), "{name} is described");
    }
}

/// Notes the spans of this crate: how each began, what it recorded, and that it was closed.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<String>>>);

impl Visit for Noted {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{}={value:?}", field.name()));
    }
}

impl Subscriber for Noted {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("outgrow")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().unwrap().push(span.metadata().name().to_owned());
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn try_close(&self, _: Id) -> bool {
        self.0.lock().unwrap().push("closed".to_owned());
        true
    }
}

#[test]
fn what_takes_long_is_a_span_and_a_hit_is_none() {
    let noted = Noted::default();
    let take = || std::mem::take(&mut *noted.0.lock().unwrap()).join(" ");
    tracing::subscriber::with_default(noted.clone(), || {
        let cache: Cache<u32, u32> = Cache::builder().build().unwrap();
        cache.insert(1, 1);
        assert_eq!(cache.get(&1), Some(1));
        assert_eq!(take(), "");
        let load = cache.get_or_load(&2, |key| async move { Ok::<_, ()>(key) });
        assert_eq!(futures::executor::block_on(load).unwrap(), 2);
        assert_eq!(take(), "cache.load closed");
        let mut file = Vec::new();
        cache.save(&mut file, &BytesCodec).unwrap();
        assert_eq!(take(), "cache.save entries=2 closed");
        cache.resize(1).unwrap();
        assert_eq!(take(), "cache.resize limit=1 closed");
        cache.clear();
        cache.restore(&file[..], &BytesCodec).unwrap();
        assert_eq!(take(), "cache.restore entries=1 closed");
    });
}

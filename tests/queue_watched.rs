//! What those hear who watch a queue: its metrics and its spans. A program of its own, since a span is looked for by the
//! listeners of all tests of a program at once.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/recorder.rs"]
mod recorder;

use bytes::Bytes;
use outgrow::env::Env;
use outgrow::queue::{Backoff, DurableQueue, Job, Message, Worker, WorkerCounts, WorkerProgress};
use outgrow::sim::World;
use recorder::Kept;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

/// One test after the other: a span that is met for the first time while another test listens to nothing may be taken for
/// one that nobody wants.
static TURN: Mutex<()> = Mutex::new(());

async fn open(env: &Env) -> DurableQueue {
    DurableQueue::builder().env(env.clone()).open("q").await.unwrap()
}

/// Handles what there is until so many are done or dead.
async fn work(env: &Env, queue: &DurableQueue, ended: u64) -> (WorkerCounts, WorkerProgress) {
    let jobs = queue.topic("t").subscribe("s").max_attempts(2);
    let jobs = jobs
        .backoff(Backoff::fixed(Duration::from_millis(1)))
        .build()
        .await
        .unwrap();
    let worker = Worker::new(jobs);
    let progress = worker.progress();
    let stop = async {
        while progress.counts().done + progress.counts().dead < ended {
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    let handler = async |job: Job<Bytes>| match job.starts_with(b"bad") {
        true => Err("bad"),
        false => Ok(()),
    };
    (worker.run(handler, stop).await.unwrap(), progress.clone())
}

#[test]
fn metrics_are_the_statistics() {
    let _turn = TURN.lock();
    let world = World::new(1);
    let env = world.env();
    let (stats, counts) = world.run(async {
        let queue = open(&env).await;
        queue.topic("t").send_all(["a", "bad", "c"]).await.unwrap();
        let (counts, progress) = work(&env, &queue, 3).await;
        assert_eq!(counts, progress.counts());
        queue
            .topic("t")
            .send(Message::new("f").deliver_in(Duration::from_secs(60)))
            .await
            .unwrap();
        queue.topic("t").send_all(["d", "e"]).await.unwrap();
        let mut jobs = queue.topic("t").subscribe("s").build().await.unwrap();
        let held = jobs.next().await.unwrap().unwrap();
        env.sleep(Duration::from_secs(5)).await;
        let stats = queue.stats();
        drop(held);
        (stats, counts)
    });
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || {
        stats.publish_metrics("jobs");
        counts.publish_metrics("mailer");
    });
    let values = kept.values.lock().unwrap();
    let value = |name: &str| {
        let value = values.get(name).unwrap_or_else(|| panic!("{name} of {values:?}"));
        value.load(Ordering::Relaxed)
    };
    for (name, expected) in [
        ("queue.sent", 6),
        ("queue.delivered", 5),
        ("queue.acked", 2),
        ("queue.dead", 1),
        ("queue.lost", 0),
        ("queue.redriven", 0),
        ("queue.dropped", 0),
        ("queue.duplicates", 0),
    ] {
        assert_eq!(value(&format!("{name} queue.name=jobs")), expected, "{name}");
    }
    assert!(value("queue.syncs queue.name=jobs") > 0);
    assert_eq!(value("queue.bytes queue.name=jobs"), (stats.bytes as f64).to_bits());
    let one = |name: &str, labels: &str| f64::from_bits(value(&format!("{name} queue.name=jobs {labels}"))) as u64;
    assert_eq!(one("queue.backlog", "topic=t subscription=s"), 3);
    assert_eq!(one("queue.ready", "topic=t subscription=s"), 1);
    assert_eq!(one("queue.in_flight", "topic=t subscription=s"), 1);
    assert_eq!(one("queue.waiting", "topic=t subscription=s"), 0);
    assert_eq!(one("queue.delayed", "topic=t subscription=s"), 1);
    assert_eq!(one("queue.blocked", "topic=t subscription=s"), 0);
    assert_eq!(one("queue.lag", "topic=t subscription=s"), 3);
    assert_eq!(one("queue.oldest_age", "topic=t subscription=s"), 5);
    let count = |name: &str| value(&format!("{name} queue.name=jobs topic=t subscription=s"));
    assert_eq!((count("queue.redelivered"), count("queue.expired")), (1, 0));
    assert_eq!(one("queue.topic.messages", "topic=t.dead"), 1);
    assert_eq!(stats.sync_times.count(), stats.syncs);
    for (name, times) in [
        ("queue.sync.seconds", &stats.sync_times),
        ("queue.send.seconds", &stats.sends),
    ] {
        for (label, share) in [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("1", 1.0)] {
            let seconds = f64::from_bits(value(&format!("{name} queue.name=jobs quantile={label}")));
            assert!(seconds > 0.0, "{name} {label}");
            assert_eq!(seconds, times.quantile(share).as_secs_f64(), "{name} {label}");
        }
    }
    for (name, expected) in [
        ("done", 2),
        ("retried", 1),
        ("dead", 1),
        ("lost", 0),
        ("returned", 0),
        ("panicked", 0),
    ] {
        assert_eq!(
            value(&format!("queue.worker.{name} worker.name=mailer")),
            expected,
            "{name}"
        );
    }
    let described = kept.described.lock().unwrap();
    for name in values.keys().map(|name| name.split(' ').next().unwrap()) {
        assert!(described.contains_key(name), "{name} is described");
    }
}

/// Notes the spans of this crate with their fields, and its events.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Noted {
    fn note(&self, name: &str, record: impl FnOnce(&mut Fields)) {
        let mut fields = Fields(name.to_owned());
        record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
}

impl Subscriber for Noted {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("outgrow::queue")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(span.metadata().name(), |fields| span.record(fields));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.note("event", |fields| event.record(fields));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn sends_settlements_and_handlers_are_spans() {
    let _turn = TURN.lock();
    let noted = Noted::default();
    tracing::subscriber::with_default(noted.clone(), || {
        let world = World::new(2);
        let env = world.env();
        world.run(async {
            let queue = open(&env).await;
            queue.topic("t").send_all(["bad", "c"]).await.unwrap();
            work(&env, &queue, 2).await;
        });
    });
    let noted = noted.0.lock().unwrap();
    let has = |start: &str, parts: &[&str]| {
        let found = |line: &&String| line.starts_with(start) && parts.iter().all(|part| line.contains(part));
        noted.iter().filter(found).count()
    };
    assert_eq!(has("queue.send ", &["topic=\"t\"", "messages=2"]), 1, "{noted:#?}");
    assert!(
        has("queue.receive", &["topic=\"t\"", "subscription=\"s\""]) >= 3,
        "{noted:#?}"
    );
    assert_eq!(
        has("queue.handle", &["topic=\"t\"", "subscription=\"s\"", "seq="]),
        3,
        "{noted:#?}"
    );
    assert_eq!(has("queue.handle", &["attempt=2"]), 1, "{noted:#?}");
    for how in ["ack", "retry", "dead_letter"] {
        assert_eq!(has("queue.settle", &[&format!("how=\"{how}\"")]), 1, "{noted:#?}");
    }
    assert_eq!(has("event", &["an attempt failed", "reason=\"bad\""]), 2, "{noted:#?}");
}

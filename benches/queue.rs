//! How many sends a second are on disk, from one producer and from many, and what does a receive with its
//! acknowledgement cost? Peer: okaywal, a log with group commit, whose entries are the sends.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_methods, reason = "producers are real threads")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use futures::future::join_all;
use outgrow::env::Env;
use outgrow::queue::{Delivery, DurableQueue, Queue, Subscription};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[cfg(peers)]
type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

const PAYLOAD: [u8; 100] = [b'x'; 100];

/// A directory on the disk that holds the target folder, which a machine's `/tmp` may not be.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let unique = Env::system().rng(name).next_u64();
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-queue-{name}-{unique:x}"));
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The time that `threads` take to call `send` so many times together.
fn together(threads: u64, calls: u64, send: impl Fn() + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let share = calls / threads + u64::from(thread < calls % threads);
            let send = &send;
            scope.spawn(move || (0..share).for_each(|_| send()));
        }
    });
    start.elapsed()
}

fn open(dir: &Dir) -> DurableQueue {
    block_on(DurableQueue::open(&dir.0)).expect("a fresh directory")
}

/// Durable sends of 100 bytes, each waited for, from blocking threads.
fn sends(criterion: &mut Criterion) {
    for producers in [1, 64] {
        let mut group = criterion.benchmark_group(format!("queue/send_{producers}"));
        group.throughput(Throughput::Elements(1));
        let dir = Dir::new("send");
        let queue = open(&dir);
        let topic = queue.topic("t");
        group.bench_function("ours", |b| {
            b.iter_custom(|calls| {
                together(producers, calls, || {
                    block_on(topic.send(&PAYLOAD[..])).expect("the disk takes it");
                })
            });
        });
        #[cfg(peers)]
        peers::okaywal(&mut group, producers);
    }
}

/// Durable sends of 100 bytes, each waited for, from 512 tasks on one thread.
fn tasks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/send_512_tasks");
    group.throughput(Throughput::Elements(1));
    let dir = Dir::new("tasks");
    let queue = open(&dir);
    let topic = queue.topic("t");
    group.bench_function("ours", |b| {
        b.iter_custom(|calls| {
            let start = Instant::now();
            let task = |n: u64| {
                let topic = topic.clone();
                async move {
                    for _ in 0..calls / 512 + u64::from(n < calls % 512) {
                        topic.send(&PAYLOAD[..]).await.expect("the disk takes it");
                    }
                }
            };
            block_on(join_all((0..512).map(task)));
            start.elapsed()
        });
    });
}

/// Receiving and acknowledging durably, a hundred messages at a time.
fn receives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/receive_ack_100");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ours", |b| {
        b.iter_custom(|calls| {
            let dir = Dir::new("receive");
            let queue = open(&dir);
            block_on(async {
                let from = Subscription::new("t", "s");
                queue.subscribe(&from).await.expect("it subscribes");
                fill(&queue, calls).await;
                let start = Instant::now();
                let mut left = calls;
                while left > 0 {
                    let some = queue
                        .receive(&from, 100, Duration::from_secs(1))
                        .await
                        .expect("it receives");
                    left -= some.len() as u64;
                    let acks = some.into_iter().map(|raw| Delivery::new(queue.clone(), raw).ack());
                    assert!(join_all(acks).await.iter().all(Result::is_ok));
                }
                start.elapsed()
            })
        });
    });
}

async fn fill(queue: &DurableQueue, messages: u64) {
    let mut left = messages;
    while left > 0 {
        let some = left.min(1_000);
        let batch = (0..some).map(|_| &PAYLOAD[..]);
        queue.topic("t").send_all(batch).await.expect("the disk takes it");
        left -= some;
    }
}

#[cfg(peers)]
mod peers {
    use super::{Dir, Group, PAYLOAD, together};
    use okaywal::{LogVoid, WriteAheadLog};

    pub(crate) fn okaywal(group: &mut Group<'_>, producers: u64) {
        let dir = Dir::new("okaywal");
        let log = WriteAheadLog::recover(&dir.0, LogVoid).expect("a fresh directory");
        group.bench_function("okaywal", |b| {
            b.iter_custom(|calls| {
                together(producers, calls, || {
                    let mut entry = log.begin_entry().expect("the disk takes it");
                    entry.write_chunk(&PAYLOAD).expect("the disk takes it");
                    entry.commit().expect("the disk takes it");
                })
            });
        });
        log.shutdown().expect("nobody else has it");
    }
}

criterion_group!(benches, sends, tasks, receives);
criterion_main!(benches);

//! The durable queue as the workloads use it.

use super::measure::{Figures, percentile};
use super::{Keep, Produce};
use futures::executor::block_on;
use futures::future::{join, join_all};
use outgrow::env::Env;
use outgrow::queue::{BlockingTopic, Delivery, Durability, DurableQueue, Message, Queue, Subscription, Topic};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// When a send returns, and an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// When it is on disk.
    Disk,
    /// When the kernel has it.
    Os,
}

/// A queue in `dir` whose sends and acknowledgements are of this level, or why there is none.
pub(crate) fn open(dir: &Path, level: Level) -> Result<DurableQueue, String> {
    let durability = match level {
        Level::Disk => Durability::Disk,
        Level::Os => Durability::Os,
    };
    let builder = DurableQueue::builder()
        .durability(durability)
        .ack_durability(durability);
    block_on(builder.open(dir)).map_err(|error| error.to_string())
}

/// Sends from a plain thread.
fn send_now(topic: &Topic<DurableQueue>, messages: impl IntoIterator<Item = Message>) {
    let topic = BlockingTopic::new(topic.clone());
    topic.send_all(messages).expect("the disk takes it");
}

/// Reads and checks everything, from what the system has in memory: how long it took.
pub(crate) fn verify_cached(queue: &DurableQueue) -> Duration {
    let start = Instant::now();
    let found = block_on(queue.verify_cached(|_| ())).expect("it can be read");
    assert!(found.lost.is_empty(), "{found:?}");
    start.elapsed()
}

/// The same from the device.
pub(crate) fn verify(queue: &DurableQueue) -> Duration {
    let start = Instant::now();
    let found = block_on(queue.verify(|_| ())).expect("it can be read");
    assert!(found.lost.is_empty(), "{found:?}");
    start.elapsed()
}

pub(crate) fn keep(dir: &Path, level: Level) -> Result<Box<dyn Keep>, String> {
    let queue = open(&dir.join("ours"), level)?;
    Ok(Box::new(Ours(queue)))
}

struct Ours(DurableQueue);

impl Keep for Ours {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self.0.topic("t"))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        block_on(self.0.close());
    }
}

impl Produce for Topic<DurableQueue> {
    fn one(&mut self, payload: &'static [u8]) {
        send_now(self, [Message::new(payload)]);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        send_now(self, std::iter::repeat_n(Message::new(payload), count));
    }
}

/// How many calls of a task pass until it looks at the clock: two looks would be a tenth of what a send costs.
const LOOK_EVERY: u64 = 16;

/// What many tasks that send share.
struct Together {
    start: Instant,
    span: Duration,
    over: AtomicBool,
    sent: AtomicU64,
}

impl Together {
    fn new(span: Duration) -> Together {
        Together {
            start: Instant::now(),
            span,
            over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        }
    }

    /// Sends one message after the other until the time is over; how long some of them took.
    async fn task(&self, topic: Topic<DurableQueue>, payload: &'static [u8]) -> Vec<Duration> {
        let mut calls = Vec::new();
        let mut sent = 0_u64;
        while !self.over.load(Relaxed) {
            let looked = sent.is_multiple_of(LOOK_EVERY).then(Instant::now);
            topic.send(payload).await.expect("the disk takes it");
            sent += 1;
            if let Some(looked) = looked {
                let now = Instant::now();
                calls.push(now - looked);
                if now - self.start > self.span {
                    self.over.store(true, Relaxed);
                }
            }
        }
        self.sent.fetch_add(sent, Relaxed);
        calls
    }

    fn figures(&self, calls: impl IntoIterator<Item = Vec<Duration>>) -> Figures {
        let took = self.start.elapsed();
        let calls = calls.into_iter().flatten().collect();
        Figures::new(self.sent.load(Relaxed), took, calls)
    }
}

/// Sends from so many futures that one thread polls.
pub(crate) fn futures(queue: &DurableQueue, count: usize, payload: &'static [u8], span: Duration) -> Figures {
    let topic = queue.topic("t");
    let together = Together::new(span);
    let calls = block_on(join_all((0..count).map(|_| together.task(topic.clone(), payload))));
    together.figures(calls)
}

/// Sends from so many tasks of a tokio runtime of two threads.
pub(crate) fn tokio_tasks(queue: &DurableQueue, count: usize, payload: &'static [u8], span: Duration) -> Figures {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("threads can be started");
    let topic = queue.topic("t");
    let together = std::sync::Arc::new(Together::new(span));
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (together, topic) = (std::sync::Arc::clone(&together), topic.clone());
            runtime.spawn(async move { together.task(topic, payload).await })
        })
        .collect();
    let calls = runtime.block_on(join_all(tasks));
    together.figures(calls.into_iter().map(|calls| calls.expect("a task ends")))
}

/// The subscription that receives what the workloads send.
pub(crate) fn subscription(queue: &DurableQueue, topic: &str) -> Subscription {
    let mut from = Subscription::new(topic, "s");
    from.max_in_flight = 65_536;
    from.lease = Duration::from_secs(600);
    block_on(queue.subscribe(&from)).expect("it subscribes");
    from
}

/// Sends so many messages, about half a mebibyte at a time.
pub(crate) fn fill(queue: &DurableQueue, topic: &str, payload: &'static [u8], messages: usize) {
    let topic = queue.topic(topic);
    let batch = (512 << 10) / (payload.len() + 64);
    let mut left = messages;
    while left > 0 {
        let some = left.min(batch);
        send_now(&topic, std::iter::repeat_n(Message::new(payload), some));
        left -= some;
    }
}

/// Receives and acknowledges `messages` that are there, by so many consumers that one thread polls, each `prefetch` at a
/// time, whose acknowledgements are waited for together.
pub(crate) fn receive(
    queue: &DurableQueue,
    from: &Subscription,
    messages: usize,
    consumers: usize,
    prefetch: usize,
) -> Figures {
    let left = AtomicU64::new(messages as u64);
    let consumer = async || {
        let mut calls = Vec::new();
        while left.load(Relaxed) > 0 {
            let start = Instant::now();
            let some = queue.receive(from, prefetch, Duration::from_millis(50)).await;
            let some = some.expect("it receives");
            if some.is_empty() {
                continue;
            }
            left.fetch_sub(some.len() as u64, Relaxed);
            let acks = some.into_iter().map(|raw| Delivery::new(queue.clone(), raw).ack());
            assert!(join_all(acks).await.iter().all(Result::is_ok), "an ack is taken");
            calls.push(start.elapsed());
        }
        calls
    };
    let start = Instant::now();
    let calls = block_on(join_all((0..consumers).map(|_| consumer())));
    let took = start.elapsed();
    Figures::new(messages as u64, took, calls.into_iter().flatten().collect())
}

/// How long it takes from before a send of an idle queue until a consumer on another thread has the message.
pub(crate) fn idle(queue: &DurableQueue, payload: &'static [u8], times: usize, pause: Duration) -> Duration {
    let from = subscription(queue, "t");
    let topic = queue.topic("t");
    let (arrived, arrivals) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let from = &from;
        scope.spawn(move || {
            for _ in 0..times {
                let got = block_on(queue.receive(from, 1, Duration::from_secs(10))).expect("it receives");
                let now = Instant::now();
                let raw = got.into_iter().next().expect("one was sent");
                arrived.send(now).expect("the other side waits");
                block_on(Delivery::new(queue.clone(), raw).ack()).expect("an ack is taken");
            }
        });
        let mut times: Vec<Duration> = (0..times)
            .map(|_| {
                std::thread::sleep(pause);
                let start = Instant::now();
                send_now(&topic, [Message::new(payload)]);
                arrivals.recv().expect("it arrives") - start
            })
            .collect();
        times.sort_unstable();
        percentile(&times, 50)
    })
}

/// Sends so many messages from eight threads, a hundred at a time, as `make` makes them; how many a second.
pub(crate) fn send_made(queue: &DurableQueue, messages: usize, make: impl Fn() -> Message + Sync) -> f64 {
    const THREADS: usize = 8;
    const BATCH: usize = 100;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let topic = queue.topic("t");
                for _ in 0..messages / THREADS / BATCH {
                    send_now(&topic, (0..BATCH).map(|_| make()));
                }
            });
        }
    });
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Receives `messages` that carry in their first eight bytes when they are due, in milliseconds since 1970: by how much
/// each came late, sorted. What has been received is acknowledged while the next is received.
///
/// # Errors
/// When one came before its time.
pub(crate) fn lateness(queue: &DurableQueue, from: &Subscription, messages: usize) -> Result<Vec<Duration>, String> {
    let mut late = Vec::with_capacity(messages);
    let mut received = Vec::new();
    while late.len() < messages {
        let acks = received.drain(..).map(|raw| Delivery::new(queue.clone(), raw).ack());
        let next = async {
            let some = queue.receive(from, 1_000, Duration::from_secs(10)).await;
            (some.expect("it receives"), Env::system().wall().as_millis())
        };
        let (acked, (some, now)) = block_on(join(join_all(acks), next));
        assert!(acked.iter().all(Result::is_ok), "an ack is taken");
        if some.is_empty() {
            return Err(format!("only {} of {messages} came", late.len()));
        }
        for raw in &some {
            let due = raw.message.payload.first_chunk().expect("it says when it is due");
            let due = u64::from_le_bytes(*due);
            let by = now.checked_sub(due).ok_or("a message came before its time")?;
            late.push(Duration::from_millis(by));
        }
        received = some;
    }
    late.sort_unstable();
    Ok(late)
}

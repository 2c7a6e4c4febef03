//! Threads that send for a while, and what came of it.

use super::Keep;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How many threads send, how many messages at a time, and what each says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) producers: usize,
    pub(crate) batch: usize,
    pub(crate) payload: &'static [u8],
}

/// Messages a second, and how long a call took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Figures {
    /// Of `messages` in a time, and how long some of their calls took.
    ///
    /// # Panics
    /// When no call was timed.
    pub(crate) fn new(messages: u64, took: Duration, mut calls: Vec<Duration>) -> Figures {
        assert!(!calls.is_empty(), "nothing was sent in the time");
        calls.sort_unstable();
        Figures {
            rate: messages as f64 / took.as_secs_f64(),
            p50: percentile(&calls, 50),
            p99: percentile(&calls, 99),
        }
    }
}

/// The time that `percent` of the sorted `times` do not exceed.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100);
    times[rank.max(1) - 1]
}

/// Has the load's threads send for `span`, after a fifth of it to get warm.
pub(crate) fn threads(keep: &dyn Keep, load: Load, span: Duration) -> Figures {
    let barrier = Barrier::new(load.producers);
    let (calls, took): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = (0..load.producers)
            .map(|_| scope.spawn(move || thread(keep, load, span, barrier)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a producer ends"));
        joined.unzip()
    });
    let calls: Vec<Duration> = calls.into_iter().flatten().collect();
    let took = took.into_iter().max().unwrap_or_default();
    Figures::new((calls.len() * load.batch) as u64, took, calls)
}

/// How long each of its calls took, and all of them.
fn thread(keep: &dyn Keep, load: Load, span: Duration, barrier: &Barrier) -> (Vec<Duration>, Duration) {
    let mut producer = keep.producer();
    let mut send = || match load.batch {
        1 => producer.one(load.payload),
        count => producer.batch(load.payload, count),
    };
    let warm = Instant::now();
    while warm.elapsed() < span / 5 {
        send();
    }
    barrier.wait();
    let mut calls = Vec::with_capacity(1 << 16);
    let start = Instant::now();
    let mut last = start;
    while last - start < span {
        send();
        let now = Instant::now();
        calls.push(now - last);
        last = now;
    }
    (calls, last - start)
}

//! How near to the disk's own speed does the durable queue send and deliver, beside logs, databases, queues and servers?
//!
//! Every round runs each workload with each of its contenders once, `raw` (`pwrite` and `fdatasync` on a zero-filled file)
//! among them, so that a slow spell of the machine meets them all. Figures are the medians of the rounds; a ratio is the
//! median of each round's own. `OUTGROW_ROUNDS` says how many rounds (3), `OUTGROW_QUICK=1` makes them short, and the
//! first argument picks workloads by a part of their names; `./bench.sh` sets all three.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(clippy::disallowed_methods, reason = "it acts as the outside world")]

mod queues;

use outgrow::env::{Env, WallTime};
use outgrow::queue::{Message, Queue};
use queues::measure::{Figures, Load, percentile, threads};
use queues::ours::{self, Level};
use queues::place::Dir;
use queues::results::{P50, P99, RATE, Results, Target, micros, print_targets};
use queues::{Contender, OURS, OURS_OS, RAW, embedded, raw, servers, unsynced, words};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SMALL: &[u8] = &[b'x'; 100];
const LARGE: &[u8] = &[b'x'; 1 << 10];
const HUGE: &[u8] = &[b'x'; 1 << 20];

/// A name, and what measures it in one round.
type Workload = (&'static str, fn(&mut Bench));

const WORKLOADS: [Workload; 16] = [
    ("one_100", |bench| bench.synced("one_100", 1, SMALL)),
    ("one_1k", |bench| bench.synced("one_1k", 1, LARGE)),
    ("many_100", |bench| bench.many("many_100")),
    ("tasks_100", |bench| bench.tasks("tasks_100", SMALL)),
    ("tasks_1k", |bench| bench.tasks("tasks_1k", LARGE)),
    ("batches_100", |bench| bench.batches("batches_100", SMALL)),
    ("batches_1k", |bench| bench.batches("batches_1k", LARGE)),
    ("receive_100", |bench| bench.receive("receive_100", 1, 100)),
    ("receive_4x100", |bench| bench.receive("receive_4x100", 4, 100)),
    ("receive_64", |bench| bench.receive("receive_64", 64, 1)),
    ("os_one", |bench| bench.os("os_one", 1)),
    ("os_batches", |bench| bench.os("os_batches", 100)),
    ("idle", Bench::idle),
    ("reopen", Bench::reopen),
    ("memory", Bench::memory),
    ("delayed", Bench::delayed),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [role, what, messages] = &words[..]
        && role == MEMORY
    {
        return memory_of(what, messages.parse().expect("a number of messages"));
    }
    let (rounds, quick, filter) = (words::rounds(), words::quick(), words::filter(&words));
    let mut bench = Bench {
        results: Results::default(),
        round: 0,
        quick,
        span: Duration::from_millis(if quick { 250 } else { 700 }),
        kept: None,
    };
    let load = load();
    for round in 0..rounds {
        bench.round = round;
        for (name, run) in WORKLOADS.iter().filter(|(name, _)| name.contains(filter)) {
            eprintln!("{name}, round {} of {rounds}", round + 1);
            run(&mut bench);
        }
    }
    let kind = if quick { "short rounds" } else { "rounds" };
    println!(
        "medians of {rounds} {kind}; {} messages where it says many\n",
        bench.many_messages()
    );
    bench.results.print();
    if let Some(load) = load {
        println!("* the load of this machine was {load} when it began: near or above 1, others slow all of it down");
    }
    print_targets(&targets(&bench.results));
}

struct Bench {
    results: Results,
    round: usize,
    quick: bool,
    /// How long a contender sends.
    span: Duration,
    /// What `reopen` opens, filled in the first round.
    kept: Option<Dir>,
}

impl Bench {
    /// A million, or a tenth of it.
    fn many_messages(&self) -> usize {
        if self.quick { 100_000 } else { 1_000_000 }
    }

    fn send(&mut self, workload: &'static str, contenders: &[Contender], load: Load) {
        for (who, open) in contenders {
            let dir = Dir::new(who);
            match open(dir.path()) {
                Ok(keep) => {
                    let figures = threads(&*keep, load, self.span);
                    self.results.add_figures(self.round, (workload, who), figures);
                }
                Err(why) => self.results.skip(&format!("{who} in {workload}"), &why),
            }
        }
    }

    /// Each message synced before the next, from so many threads.
    fn synced(&mut self, workload: &'static str, producers: usize, payload: &'static [u8]) {
        let contenders: Vec<_> = [RAW, OURS].into_iter().chain(embedded()).collect();
        let load = Load {
            producers,
            batch: 1,
            payload,
        };
        self.send(workload, &contenders, load);
    }

    /// 64 threads, each message synced before its thread's next. The disk by itself has one.
    fn many(&mut self, workload: &'static str) {
        self.raw(workload, SMALL);
        let contenders: Vec<_> = [OURS].into_iter().chain(embedded()).chain(servers()).collect();
        let load = Load {
            producers: 64,
            batch: 1,
            payload: SMALL,
        };
        self.send(workload, &contenders, load);
    }

    fn raw(&mut self, workload: &'static str, payload: &'static [u8]) {
        let load = Load {
            producers: 1,
            batch: 1,
            payload,
        };
        self.send(workload, &[RAW], load);
    }

    /// 512 async producers, each message synced before its producer's next.
    fn tasks(&mut self, workload: &'static str, payload: &'static [u8]) {
        type Run = fn(&outgrow::queue::DurableQueue, usize, &'static [u8], Duration) -> Figures;
        self.raw(workload, payload);
        let ways: [(&str, Run); 2] = [("ours", ours::futures), ("ours_tokio", ours::tokio_tasks)];
        for (who, run) in ways {
            let dir = Dir::new(who);
            let queue = ours::open(dir.path(), Level::Disk).expect("a fresh directory");
            run(&queue, 512, payload, self.span / 5);
            let figures = run(&queue, 512, payload, self.span);
            self.results.add_figures(self.round, (workload, who), figures);
        }
    }

    /// Batches of 100 from 8 threads; the disk by itself has one that writes a mebibyte at a time.
    fn batches(&mut self, workload: &'static str, payload: &'static [u8]) {
        self.raw(workload, HUGE);
        let contenders: Vec<_> = [OURS].into_iter().chain(embedded()).collect();
        let load = Load {
            producers: 8,
            batch: 100,
            payload,
        };
        self.send(workload, &contenders, load);
    }

    /// Receiving what is there, and acknowledging it durably.
    fn receive(&mut self, workload: &'static str, consumers: usize, prefetch: usize) {
        let messages = match (self.quick, prefetch) {
            (false, 1) | (true, _) => 100_000,
            (false, _) => 400_000,
        };
        let dir = Dir::new(workload);
        let queue = ours::open(dir.path(), Level::Disk).expect("a fresh directory");
        let from = ours::subscription(&queue, "t");
        ours::fill(&queue, "t", SMALL, messages);
        let figures = ours::receive(&queue, &from, messages, consumers, prefetch);
        self.results.add_figures(self.round, (workload, "ours"), figures);
    }

    /// One producer whose messages the kernel has before a send returns.
    fn os(&mut self, workload: &'static str, batch: usize) {
        let contenders: Vec<_> = [OURS_OS].into_iter().chain(unsynced()).collect();
        let load = Load {
            producers: 1,
            batch,
            payload: SMALL,
        };
        self.send(workload, &contenders, load);
    }

    /// From a send to a waiting consumer, with a pause before each; and the same pause before each raw sync, since a
    /// machine that has been idle takes longer.
    fn idle(&mut self) {
        let (times, pause) = (if self.quick { 60 } else { 200 }, Duration::from_millis(2));
        let dir = Dir::new("idle-raw");
        let keep = RAW.1(dir.path()).expect("a fresh directory");
        let mut producer = keep.producer();
        let mut raw: Vec<Duration> = (0..times)
            .map(|_| {
                std::thread::sleep(pause);
                let start = Instant::now();
                producer.one(SMALL);
                start.elapsed()
            })
            .collect();
        raw.sort_unstable();
        self.results
            .add(self.round, ("idle", "raw"), P50, micros(percentile(&raw, 50)));
        let dir = Dir::new("idle");
        let queue = ours::open(dir.path(), Level::Disk).expect("a fresh directory");
        let half = ours::idle(&queue, SMALL, times, pause);
        self.results.add(self.round, ("idle", "ours"), P50, micros(half));
    }

    /// Opening many messages of 1 KiB that nobody has acknowledged, with the page cache warm.
    fn reopen(&mut self) {
        let messages = self.many_messages();
        let dir = self.kept.get_or_insert_with(|| {
            let dir = Dir::new("reopen");
            let queue = ours::open(dir.path(), Level::Disk).expect("a fresh directory");
            ours::subscription(&queue, "t");
            ours::fill(&queue, "t", LARGE, messages);
            futures::executor::block_on(queue.close());
            dir
        });
        read_all(dir);
        let start = Instant::now();
        let queue = ours::open(dir.path(), Level::Disk).expect("it opens again");
        let took = start.elapsed();
        assert!(queue.opened().lost.is_empty(), "{:?}", queue.opened());
        let from = ours::subscription(&queue, "t");
        let first = futures::executor::block_on(queue.receive(&from, 1, Duration::from_secs(1)));
        assert_eq!(first.expect("it receives").len(), 1, "what was there is there");
        let (cached, verified) = (ours::verify_cached(&queue), ours::verify(&queue));
        futures::executor::block_on(queue.close());
        let who = ("reopen", "ours");
        self.results.add(self.round, who, OPEN, millis(took));
        self.results.add(self.round, who, CACHED, millis(cached));
        self.results.add(self.round, who, VERIFY, millis(verified));
        let raw = raw::read_from_device(dir.path());
        self.results.add(self.round, ("reopen", "raw"), VERIFY, millis(raw));
    }

    /// Bytes of memory for each of a million messages in flight, and delayed; once, since it does not vary.
    fn memory(&mut self) {
        if self.round > 0 {
            return;
        }
        for what in [IN_FLIGHT, DELAYED] {
            let messages = 1_000_000_usize;
            let me = std::env::current_exe().expect("it runs");
            let child = Command::new(me)
                .args([MEMORY, what, &messages.to_string()])
                .stderr(Stdio::inherit())
                .output()
                .expect("it runs again");
            assert!(child.status.success(), "{}", child.status);
            let bytes = String::from_utf8_lossy(&child.stdout);
            let bytes: f64 = bytes.trim().parse().expect("a number of bytes");
            self.results.add(self.round, ("memory", "ours"), what, bytes);
        }
    }

    /// Sending many messages that are delayed for an hour, beside as many that are not; and how late those come that are
    /// due within a few seconds.
    fn delayed(&mut self) {
        let messages = self.many_messages();
        let hour = Duration::from_secs(3_600);
        for (who, delay) in [("undelayed", None), ("ours", Some(hour))] {
            let dir = Dir::new("delayed");
            let queue = ours::open(dir.path(), Level::Disk).expect("a fresh directory");
            ours::subscription(&queue, "t");
            let rate = ours::send_made(&queue, messages, || match delay {
                Some(delay) => Message::new(SMALL).deliver_in(delay),
                None => Message::new(SMALL),
            });
            self.results.add(self.round, ("delayed", who), RATE, rate);
        }
        match lateness(messages) {
            Ok(late) => {
                let late = millis(percentile(&late, 99));
                self.results.add(self.round, ("delayed", "ours"), LATE, late);
            }
            Err(why) => self.results.skip("lateness of delayed messages", &why),
        }
    }
}

/// How late many messages come, whose times are spread over as long as it takes to receive them at 100,000 a second.
fn lateness(messages: usize) -> Result<Vec<Duration>, String> {
    let dir = Dir::new("lateness");
    let queue = ours::open(dir.path(), Level::Disk)?;
    let from = ours::subscription(&queue, "t");
    // Sent at 200,000 a second at the least, all are there before the first is due.
    let lead = Duration::from_micros(5 * messages as u64).max(Duration::from_secs(1));
    let first = Env::system().wall().as_millis() + lead.as_millis() as u64;
    let number = AtomicU64::new(0);
    ours::send_made(&queue, messages, || {
        // Not in the order of their times: steps of a prime number visit every place once.
        let place = number.fetch_add(1, Relaxed).wrapping_mul(7_919) % messages as u64;
        let due = first + place / 100;
        let mut payload = SMALL.to_vec();
        payload[..8].copy_from_slice(&due.to_le_bytes());
        Message::new(payload).deliver_at(WallTime::from_millis(due))
    });
    ours::lateness(&queue, &from, messages)
}

const OPEN: &str = "open";
const CACHED: &str = "cached";
const VERIFY: &str = "verify";
const LATE: &str = "late";
const IN_FLIGHT: &str = "in_flight";
const DELAYED: &str = "delayed";
/// The first word of the program that measures its own memory.
const MEMORY: &str = "memory-of";

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Reads every file of a directory, so that the kernel has it in memory.
fn read_all(dir: &Dir) {
    for entry in std::fs::read_dir(dir.path()).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_file() {
            let mut file = std::fs::File::open(path).expect("it is ours");
            std::io::copy(&mut file, &mut std::io::sink()).expect("it can be read");
        }
    }
}

/// Prints by how many bytes a message the process grows while messages of 100 bytes wait in flight, or delayed.
fn memory_of(what: &str, messages: usize) {
    const TOPICS: usize = 20;
    let dir = Dir::new("memory");
    let queue = ours::open(dir.path(), Level::Disk).expect("a fresh directory");
    let names: Vec<String> = (0..TOPICS).map(|topic| format!("t{topic}")).collect();
    let subscriptions: Vec<_> = names.iter().map(|name| ours::subscription(&queue, name)).collect();
    // The cache of recent messages is full before, and it has a bound of its own.
    ours::subscription(&queue, "warm");
    ours::fill(&queue, "warm", LARGE, 100_000);
    let before = resident();
    for (name, from) in names.iter().zip(&subscriptions) {
        let each = messages / TOPICS;
        if what == IN_FLIGHT {
            ours::fill(&queue, name, SMALL, each);
            let mut taken = 0;
            while taken < each {
                let some = queue.receive(from, 1_000, Duration::from_secs(1));
                let some = futures::executor::block_on(some).expect("it receives");
                assert!(!some.is_empty(), "all that was sent can be received");
                taken += some.len();
            }
        } else {
            let topic = queue.topic(name);
            let hour = Duration::from_secs(3_600);
            for _ in 0..each / 100 {
                let batch = (0..100).map(|_| Message::new(SMALL).deliver_in(hour));
                futures::executor::block_on(topic.send_all(batch)).expect("the disk takes it");
            }
        }
    }
    println!("{:.1}", (resident() - before) / messages as f64);
}

/// How many programs wanted a processor in the last minute, where the system says.
fn load() -> Option<String> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    load.split(' ').next().map(str::to_owned)
}

/// Bytes of memory that this process has, files that it maps aside.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<f64>().ok()).expect("a number of KiB") * 1024.0
}

/// What the queue is to reach.
fn targets(results: &Results) -> Vec<Target> {
    let over = |one, other| results.paired(one, other, |one, other| one / other);
    let rate_over = |workload, who| over(((workload, "ours"), RATE), ((workload, who), RATE));
    let in_raw = |workload| over(((workload, "ours"), P50), ((workload, "raw"), P50));
    let raw_syncs = |workload| over(((workload, "ours"), P99), ((workload, "raw"), P50));
    let over_best = |workload| {
        results
            .peers(workload)
            .filter_map(|who| rate_over(workload, who))
            .reduce(f64::min)
    };
    let ours = |workload, what| results.median((workload, "ours"), what);
    let at_most = |what, measured, must, goal| Target {
        what,
        measured,
        must,
        goal,
        less_is_better: true,
    };
    let at_least = |what, measured, must, goal| Target {
        what,
        measured,
        must,
        goal,
        less_is_better: false,
    };
    // A write of raw is a mebibyte.
    let share = over(((("batches_1k"), "ours"), RATE), (("batches_1k", "raw"), RATE)).map(|ratio| ratio / 1024.0);
    let idle = results.paired((("idle", "ours"), P50), (("idle", "raw"), P50), |ours, raw| ours - raw);
    let verified = over((("reopen", "ours"), VERIFY), (("reopen", "raw"), VERIFY));
    let delayed = over((("delayed", "ours"), RATE), (("delayed", "undelayed"), RATE));
    vec![
        at_most("one producer, 100 B: p50 over raw", in_raw("one_100"), Some(1.3), 1.15),
        at_most("one producer, 1 KiB: p50 over raw", in_raw("one_1k"), Some(1.3), 1.15),
        at_least(
            "one producer, 100 B: rate over the best peer",
            over_best("one_100"),
            Some(0.95),
            1.0,
        ),
        at_least(
            "one producer, 1 KiB: rate over the best peer",
            over_best("one_1k"),
            Some(0.95),
            1.0,
        ),
        at_least(
            "64 producers: rate over raft_engine",
            rate_over("many_100", "raft_engine"),
            Some(1.2),
            1.5,
        ),
        at_least(
            "64 producers: rate over okaywal",
            rate_over("many_100", "okaywal"),
            Some(2.0),
            2.5,
        ),
        at_least(
            "64 producers: rate over redb",
            rate_over("many_100", "redb"),
            Some(15.0),
            20.0,
        ),
        at_least(
            "64 producers: rate over fjall",
            rate_over("many_100", "fjall"),
            Some(15.0),
            20.0,
        ),
        at_least(
            "64 producers: rate over sqlite",
            rate_over("many_100", "sqlite"),
            Some(15.0),
            20.0,
        ),
        at_least(
            "64 producers: rate over redis",
            rate_over("many_100", "redis"),
            Some(2.5),
            3.0,
        ),
        at_least(
            "64 producers: rate over jetstream",
            rate_over("many_100", "jetstream"),
            Some(25.0),
            30.0,
        ),
        at_most("64 producers: p99 in raw syncs", raw_syncs("many_100"), None, 8.0),
        at_least(
            "512 tasks, 100 B: messages/s",
            ours("tasks_100", RATE),
            Some(1.0e6),
            1.2e6,
        ),
        at_least(
            "512 tasks, 1 KiB: messages/s",
            ours("tasks_1k", RATE),
            Some(0.7e6),
            0.85e6,
        ),
        at_most("512 tasks, 100 B: p99 in raw syncs", raw_syncs("tasks_100"), None, 9.0),
        at_most("512 tasks, 1 KiB: p99 in raw syncs", raw_syncs("tasks_1k"), None, 9.0),
        at_least(
            "batches of 100, 100 B: messages/s",
            ours("batches_100", RATE),
            Some(1.6e6),
            2.0e6,
        ),
        at_least("batches of 100, 1 KiB: share of raw bandwidth", share, Some(0.36), 0.45),
        at_least(
            "receive and ack, prefetch 100, one consumer: messages/s",
            ours("receive_100", RATE),
            Some(500e3),
            700e3,
        ),
        at_least(
            "receive and ack, prefetch 100, four consumers: messages/s",
            ours("receive_4x100", RATE),
            Some(500e3),
            700e3,
        ),
        at_least(
            "receive and ack, 64 one by one: messages/s",
            ours("receive_64", RATE),
            None,
            120e3,
        ),
        at_least(
            "level Os, one by one: rate over yaque",
            rate_over("os_one", "yaque"),
            Some(0.9),
            1.0,
        ),
        at_least(
            "level Os, batches of 100: rate over yaque",
            rate_over("os_batches", "yaque"),
            Some(0.9),
            1.0,
        ),
        at_most("idle, send to delivery: p50 less raw, us", idle, Some(100.0), 50.0),
        at_most(
            "reopen of many 1 KiB messages, ms",
            ours("reopen", OPEN),
            Some(100.0),
            60.0,
        ),
        at_most("their full verification, ms", ours("reopen", CACHED), None, 600.0),
        at_most("the same from the device, over raw reads", verified, None, 1.2),
        at_most(
            "bytes for each message in flight",
            ours("memory", IN_FLIGHT),
            Some(96.0),
            64.0,
        ),
        at_most(
            "bytes for each delayed message",
            ours("memory", DELAYED),
            Some(96.0),
            64.0,
        ),
        at_least("many delayed: rate over undelayed", delayed, Some(0.5), 0.5),
        at_most("many delayed: lateness p99, ms", ours("delayed", LATE), Some(10.0), 5.0),
    ]
}

//! The durable queue in simulated worlds: producers and consumers, faults of every kind, a machine that crashes at any
//! await and any disk operation. The oracle is the one that Jepsen uses for queues: of what was attempted, acknowledged
//! and delivered, nothing acknowledged is lost and nothing is delivered that was not sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::needless_pass_by_value, reason = "what is told to the ledger is handed over")]

#[path = "../support/mod.rs"]
mod support;

mod ledger;
mod life;

use ledger::{Allowed, Counts, Ledger};
use life::{LIMITED, Life, SUBSCRIPTIONS};
use outgrow::env::Rng;
use outgrow::hooks::rewrite_often;
use outgrow::queue::{Durability, DurableQueue, OnFull, Retention};
use outgrow::sim::{DiskOp, FaultKind, Faults, Inject, Machine, Trace, World, each_seed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often one queue is opened and ended in one world.
const LIVES: u64 = 8;
/// Of so many seeds, one has a disk that flips bits; there the oracle allows what the queue reports as lost.
const ROTTEN: u64 = 4;

struct Run {
    machine: Machine,
    rng: Rng,
    faults: Faults,
    segment_bytes: u64,
    cache_bytes: usize,
    acks: Durability,
    /// Sends wait for room, or the oldest messages are dropped for it.
    full: Option<OnFull>,
    /// Some messages have more than a mebibyte.
    large: bool,
    /// Dead letters are sent again at any time.
    redrives: bool,
    /// Messages are written again whenever their segment is full.
    rewrites: bool,
    ledger: Arc<Mutex<Ledger>>,
}

impl Run {
    fn new(world: &World) -> Run {
        let mut rng = world.rng("run");
        let rate = [0.0, 0.5, 1.0, 2.0][rng.index(4)];
        let rotten = world.seed() % ROTTEN == 1;
        let faults = Faults {
            read_error: 0.002 * rate,
            write_error: 0.003 * rate,
            no_space: 0.01 * rate,
            short_read: 0.02 * rate,
            short_write: 0.02 * rate,
            sync_error: 0.004 * rate,
            bit_flip: if rotten { 0.02 } else { 0.0 },
            stall: 0.01,
            stall_for: Duration::from_millis(1 + rng.below(100)),
        };
        let acks = [Durability::Os, Durability::Disk][rng.index(2)];
        let full = [None, None, Some(OnFull::Wait), Some(OnFull::DropOldest)][rng.index(4)];
        let allowed = Allowed::new(rotten, acks, full == Some(OnFull::DropOldest));
        Run {
            machine: world.machine("node"),
            faults,
            segment_bytes: (8 << 10) << rng.below(3),
            cache_bytes: rng.index(20_000),
            acks,
            full,
            large: rng.chance(0.2),
            redrives: rng.chance(0.2),
            rewrites: rng.chance(0.75),
            ledger: Arc::new(Mutex::new(Ledger::new(allowed))),
            rng,
        }
    }

    async fn open(&self) -> Option<Life> {
        let mut queue = DurableQueue::builder()
            .env(self.machine.env())
            .segment_bytes(self.segment_bytes)
            .cache_bytes(self.cache_bytes)
            .ack_durability(self.acks)
            .dedup_window(Duration::from_secs(3_600))
            .topic_retention(LIMITED.0, Retention::acknowledged().max_messages(10));
        if let Some(full) = self.full {
            queue = queue.max_bytes(60_000).on_full(full);
        }
        if self.rewrites {
            queue = rewrite_often(queue);
        }
        let queue = queue.open("data/queue").await.ok()?;
        self.ledger.lock().unwrap().opened(queue.opened());
        Some(Life {
            queue,
            env: self.machine.env(),
            ledger: Arc::clone(&self.ledger),
            large: self.large,
        })
    }

    /// One life of the queue, which ends by chance.
    async fn live(&mut self, number: u64) {
        let _back = self.skew();
        self.rot();
        if self.rng.chance(0.2) {
            // About as many as there are of them before it is open.
            let op = DiskOp::ALL[self.rng.index(DiskOp::ALL.len())];
            let end = self.end();
            self.machine.inject(op, self.rng.below(12), end);
        }
        let Some(life) = self.open().await else {
            return self.machine.kill();
        };
        if !life.subscribe_all().await {
            self.ledger
                .lock()
                .unwrap()
                .took(&life.queue.stats(), &life.queue.lost());
            return self.machine.kill();
        }
        if self.rng.chance(0.5) {
            let end = self.end();
            self.order(end);
        }
        if self.rng.chance(0.3) {
            let fault = [Inject::Fail, Inject::Short][self.rng.index(2)];
            self.order(fault);
        }
        if self.rng.chance(0.2) {
            self.machine.inject(DiskOp::Write, self.rng.below(60), Inject::NoSpace);
        }
        for producer in 0..1 + self.rng.below(4) {
            let name = number * 10 + producer;
            life.spawn(|life| life.produce(name));
        }
        for subscription in SUBSCRIPTIONS {
            for _ in 0..1 + self.rng.below(2) {
                life.spawn(|life| life.consume(subscription));
            }
        }
        if self.redrives {
            life.spawn(Life::redrive);
        }
        self.some_time().await;
        if self.rng.chance(0.3) {
            let back = self.skew();
            self.ledger.lock().unwrap().set_back(back);
            self.some_time().await;
        }
        match self.rng.below(4) {
            0 => self.machine.kill(),
            1 => life.queue.close().await,
            _ => self.machine.crash(),
        }
        self.ledger
            .lock()
            .unwrap()
            .took(&life.queue.stats(), &life.queue.lost());
        self.machine.kill();
    }

    async fn some_time(&mut self) {
        let time = Duration::from_micros(self.rng.below(60_000));
        self.machine.env().sleep(time).await;
    }

    /// Lets the wall clock jump, and says how far back.
    fn skew(&mut self) -> Duration {
        let millis = self.rng.below(20_000) as i64 - 10_000;
        self.machine.skew_wall(millis);
        Duration::from_millis(millis.min(0).unsigned_abs())
    }

    /// Flips a bit of what lies on the disk, where the disk does such things.
    fn rot(&mut self) {
        let files = self.machine.files();
        if self.faults.bit_flip == 0.0 || files.is_empty() || self.rng.chance(0.7) {
            return;
        }
        let name = &files[self.rng.index(files.len())];
        let bytes = self.machine.read_file(name).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        self.machine
            .flip_bit(name, self.rng.below(used + 1) * 8 + self.rng.below(8));
    }

    fn end(&mut self) -> Inject {
        match self.rng.chance(0.7) {
            true => Inject::Crash,
            false => Inject::Kill,
        }
    }

    /// Has something happen at an operation while the queue is used.
    fn order(&mut self, what: Inject) {
        // Each kind with about how many of it a life has.
        let (op, many) = [
            (DiskOp::Write, 60),
            (DiskOp::Sync, 60),
            (DiskOp::Read, 60),
            (DiskOp::SyncDir, 6),
            (DiskOp::Create, 6),
            (DiskOp::SetLen, 6),
            (DiskOp::Rename, 6),
            (DiskOp::Remove, 6),
        ][self.rng.index(8)];
        self.machine.inject(op, self.rng.below(many), what);
    }

    /// Faults stop, but for crashes still on order; then everything that is left must come.
    async fn heal(&mut self) {
        self.machine.set_faults(Faults::default());
        for _ in 0..=LIVES {
            self.machine.kill();
            let Some(life) = self.open().await else { continue };
            let healed = life.subscribe_all().await && life.drain_all(&mut self.rng).await;
            self.ledger
                .lock()
                .unwrap()
                .took(&life.queue.stats(), &life.queue.lost());
            if healed {
                return;
            }
        }
        panic!("the queue does not heal");
    }
}

fn simulate(world: &World) -> Counts {
    let panics = support::panics();
    let mut run = Run::new(world);
    world.run(async {
        run.machine.set_faults(run.faults);
        for number in 0..LIVES {
            run.live(number).await;
        }
        run.heal().await;
    });
    assert_eq!(support::panics(), panics, "a task has panicked");
    let ledger = run.ledger.lock().unwrap();
    ledger.finish();
    ledger.counts
}

fn trace_of(seed: u64) -> Trace {
    let world = World::new(seed);
    world.record(true);
    simulate(&world);
    world.trace()
}

#[test]
fn a_seed_is_one_history() {
    let first = trace_of(2);
    assert!(first.events > 1_000, "{} events", first.events);
    assert_eq!(first, trace_of(2));
    assert_ne!(first.digest, trace_of(3).digest);
}

#[test]
fn nothing_acknowledged_is_lost() {
    let mut worlds = 0;
    let mut total = [0; 9];
    let faults = each_seed(support::SEEDS, |world| {
        let counts = simulate(world);
        let [
            duplicates,
            delayed,
            ordered,
            through,
            redriven,
            dropped,
            set_back,
            large,
            rewritten,
        ] = &mut total;
        *duplicates += counts.duplicates;
        *delayed += counts.delayed;
        *ordered += counts.ordered;
        *through += counts.through;
        *redriven += counts.redriven;
        *dropped += counts.dropped;
        *set_back += counts.set_back;
        *large += counts.large;
        *rewritten += counts.rewritten;
        worlds += 1;
    });
    support::report("queue simulation", "seeds", worlds);
    let names = [
        "repetitions",
        "delayed",
        "in order",
        "acknowledged through",
        "redriven",
        "dropped",
        "clocks set back",
        "in pieces",
        "written again",
    ];
    for (name, count) in names.into_iter().zip(total) {
        support::report("queue simulation", name, count);
        assert!(
            count * 10 >= worlds || worlds < 100,
            "{name}: {count} in {worlds} seeds"
        );
    }
    for (kind, count) in faults.iter() {
        support::report("queue simulation", kind.name(), count);
        // A hundred of each kind in a thousand seeds; fewer seeds have to keep pace.
        assert!(
            count * 10 >= worlds || worlds < 100,
            "{kind} occurred {count} times in {worlds} seeds"
        );
    }
    assert!(faults.get(FaultKind::Crash) + faults.get(FaultKind::Kill) >= worlds);
}

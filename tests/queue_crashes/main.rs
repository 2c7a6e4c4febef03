//! One run of the queue, recorded once, and then ended by a power cut at each of its disk operations in turn: at every
//! write and every sync, and wherever a name or a length changes. What was not synced is then lost, kept or torn, as the
//! seed says, and the queue is opened again and emptied under the eyes of the simulation's ledger: nothing acknowledged is
//! lost, nothing comes that was not sent, the order of each key is kept, and each dead letter is there once.
//!
//! `./test.sh --long` does the same to more runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::needless_pass_by_value, reason = "what is told to the ledger is handed over")]

#[allow(dead_code, reason = "the simulation has more use for it")]
#[path = "../sim_queue/ledger.rs"]
mod ledger;
#[allow(dead_code, reason = "the simulation has more use for it")]
#[path = "../sim_queue/life.rs"]
mod life;
#[path = "../support/mod.rs"]
mod support;

use futures::channel::oneshot;
use ledger::{Allowed, Ledger};
use life::{LIMITED, Life, SUBSCRIPTIONS};
use outgrow::env::Rng;
use outgrow::queue::{Durability, DurableQueue, Retention};
use outgrow::sim::{DiskOp, FaultKind, Inject, Machine, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Sends and receives of the run, of one to four messages each.
const OPERATIONS: u32 = 500;
/// The kinds of operation at which the power is cut.
const ENDS: [DiskOp; 7] = [
    DiskOp::Write,
    DiskOp::Sync,
    DiskOp::SetLen,
    DiskOp::Create,
    DiskOp::Rename,
    DiskOp::Remove,
    DiskOp::SyncDir,
];
/// Runs with `OUTGROW_LONG`; otherwise it is one.
const LONG: u64 = 10;

/// A run, and the point where it ends: the operation of a kind, counted from 0.
#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    acks: Durability,
    end: Option<(DiskOp, u64)>,
}

struct Run {
    case: Case,
    world: World,
    machine: Machine,
    ledger: Arc<Mutex<Ledger>>,
}

impl Run {
    fn new(case: Case) -> Run {
        let world = World::new(case.seed);
        let machine = world.machine("node");
        let allowed = Allowed::new(false, case.acks, false);
        let ledger = Arc::new(Mutex::new(Ledger::new(allowed)));
        Run {
            case,
            world,
            machine,
            ledger,
        }
    }

    /// Opens the queue; none if the machine dies meanwhile.
    async fn open(&self) -> Option<Life> {
        let env = self.machine.env();
        let queue = DurableQueue::builder()
            .env(env.clone())
            .segment_bytes(8 << 10)
            .cache_bytes(4 << 10)
            .ack_durability(self.case.acks)
            .topic_retention(LIMITED.0, Retention::acknowledged().max_messages(10));
        let queue = queue.open("data/queue").await.ok()?;
        self.ledger.lock().unwrap().opened(queue.opened());
        let ledger = Arc::clone(&self.ledger);
        Some(Life {
            queue,
            env,
            ledger,
            large: false,
        })
    }

    /// Does the run, up to the point where it ends.
    async fn live(&self) {
        if let Some((op, nth)) = self.case.end {
            self.machine.inject(op, nth, Inject::Crash);
        }
        let Some(life) = self.open().await else { return };
        let rng = self.world.rng("script");
        let (told, ended) = oneshot::channel();
        life.spawn(|life| async move {
            script(&life, rng).await;
            life.queue.close().await;
            // Nobody listens any more if the power went at the very end.
            let _sent = told.send(());
        });
        // It is ready too when the machine dies and the script with it.
        let whole = ended.await.is_ok();
        assert_eq!(whole, self.case.end.is_none(), "the run ends where it has to");
    }

    /// Opens the queue again, after a second power cut if `again` says where, and takes what is left.
    async fn heal(&self, again: Option<(DiskOp, u64)>) {
        let mut rng = self.world.rng("heal");
        if let Some((op, nth)) = again {
            self.machine.inject(op, nth, Inject::Crash);
        }
        for _ in 0..3 {
            let Some(life) = self.open().await else { continue };
            if life.subscribe_all().await && life.drain_all(&mut rng).await {
                return;
            }
        }
        panic!("the queue does not heal");
    }
}

/// The operations of the run, one after the other.
async fn script(life: &Life, mut rng: Rng) {
    assert!(life.subscribe_all().await, "no disk fails but at the end");
    let mut before = None;
    for _ in 0..OPERATIONS {
        match rng.below(10) {
            0..5 => assert!(life.send_some(&mut rng, &mut before).await),
            n => assert!(life.receive_some(SUBSCRIPTIONS[n as usize % 4], &mut rng).await),
        }
        // Now and then the log is idle for so long that it vouches for what it wrote last.
        if rng.chance(0.05) {
            life.env.sleep(Duration::from_millis(rng.below(20))).await;
        }
    }
}

/// Does a case; says how many operations of each kind it had.
fn check(case: Case) -> [u64; ENDS.len()] {
    let panics = support::panics();
    let run = Run::new(case);
    run.world.run(run.live());
    let crashed = u64::from(case.end.is_some());
    assert_eq!(run.world.faults().get(FaultKind::Crash), crashed);
    let ops = ENDS.map(|op| run.machine.ops(op));
    // Every third comes down again while it opens, at each of its first operations in turn.
    let again = case.end.filter(|(_, nth)| nth.is_multiple_of(3));
    let again = again.map(|(_, nth)| ([DiskOp::Write, DiskOp::Sync][nth as usize / 3 % 2], nth / 6 % 12));
    run.world.run(run.heal(again));
    assert_eq!(support::panics(), panics, "a task has panicked");
    run.ledger.lock().unwrap().finish();
    ops
}

/// Ends runs at each of their points.
fn end_everywhere(acks: Durability) {
    let runs = if support::long() { LONG } else { 1 };
    for seed in 0..runs {
        let ops = check(Case { seed, acks, end: None });
        let [writes, syncs, ..] = ops;
        assert!(writes > 300 && syncs > 200, "{writes} writes and {syncs} syncs");
        let points = ENDS
            .into_iter()
            .zip(ops)
            .flat_map(|(op, many)| (0..many).map(move |nth| (op, nth)));
        for end in points {
            let case = Case {
                seed,
                acks,
                end: Some(end),
            };
            let checked = catch_unwind(AssertUnwindSafe(|| check(case)));
            assert!(checked.is_ok(), "this was {case:?}");
        }
        support::report("queue ended at each operation", "power cuts", ops.iter().sum());
    }
}

#[test]
fn nothing_is_lost_wherever_the_power_goes() {
    end_everywhere(Durability::Disk);
}

#[test]
fn nothing_is_lost_where_acknowledgements_may_be() {
    end_everywhere(Durability::Os);
}

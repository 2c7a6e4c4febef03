//! The promises of `ReplicatedStore` on simulated machines that crash, stall, forget and lie, with messages that come late
//! or never: no write that a majority acknowledged is lost, no session goes back in time, no two primaries of one opened
//! store acknowledge at once, nor any two where a majority has to, and when the faults stop, all nodes agree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod clients;
mod cluster;
mod oracle;

use cluster::Cluster;
use outgrow::sim::{FaultCounts, Trace, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

const REPORT: &str = "replicated store, simulated";

/// Runs one seed to its end, and checks everything there is to check.
fn run(seed: u64) -> (Trace, FaultCounts, oracle::Counts) {
    let world = World::new(seed);
    let cluster = Cluster::new(&world);
    let counts = world.run(cluster.clone().play());
    (world.trace(), world.faults(), counts)
}

#[test]
fn promises_hold_whatever_fails() {
    let mut faults = FaultCounts::default();
    let mut counts = oracle::Counts::default();
    let seeds = support::seeds(support::SEEDS);
    let run_seeds = seeds.end - seeds.start;
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok((_, more, these)) => {
                faults += more;
                counts += these;
            }
            Err(panic) => {
                let line = support::replay("sim_replica", "promises_hold_whatever_fails", seed);
                eprintln!("seed {seed} failed; run it again with\n  {line}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    support::report_faults(REPORT, run_seeds, &faults);
    for (name, count) in counts.named() {
        support::report(REPORT, name, count);
    }
    println!("{run_seeds} seeds: {counts:?}; {faults}");
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [3, 4] {
        let (first, second) = (run(seed).0, run(seed).0);
        assert!(first.events > 1_000, "{first}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(5).0.digest, run(6).0.digest);
}

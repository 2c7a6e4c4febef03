//! Holds the simulator of the example `tail_latency` to what queueing theory says, and the policies to their goals.
#![allow(dead_code, reason = "`main.rs`, which uses it all, is not here")]

#[path = "../examples/tail_latency/cli.rs"]
mod cli;
#[path = "../examples/tail_latency/clock.rs"]
mod clock;
#[path = "../examples/tail_latency/contestants.rs"]
mod contestants;
#[path = "../examples/tail_latency/figures.rs"]
mod figures;
#[path = "../examples/tail_latency/goals.rs"]
mod goals;
#[path = "../examples/tail_latency/gray.rs"]
mod gray;
#[path = "../examples/tail_latency/ideal.rs"]
mod ideal;
#[path = "../examples/tail_latency/queues.rs"]
mod queues;
#[path = "../examples/tail_latency/report.rs"]
mod report;
#[path = "../examples/tail_latency/scenario.rs"]
mod scenario;
#[path = "../examples/tail_latency/world.rs"]
mod world;

use cli::{Command, Options};
use queues::Comparison;

const MEAN: f64 = 10.0;
const LOAD: f64 = 0.8;

fn options(args: &str) -> Options {
    match cli::parse(args.split_whitespace().map(str::to_owned)) {
        Ok(Command::Run(options)) => options,
        other => panic!("{args}: {other:?}"),
    }
}

fn compare(args: &str) -> Comparison {
    let options = options(args);
    queues::compare(&options.scenarios[0], &options.policies, options.seeds)
}

fn assert_near(measured: f64, theory: f64, tolerance: f64) {
    let off = measured / theory - 1.0;
    assert!(
        off.abs() < tolerance,
        "{measured:.2} ms measured, {theory:.2} ms in theory"
    );
}

/// The mean time in a system of `servers` with one queue (Erlang, 1917).
fn erlang_c(servers: u32) -> f64 {
    let offered = LOAD * f64::from(servers);
    // Erlang B by its recursion, and C from B.
    let blocked = (1..=servers).fold(1.0, |b, k| offered * b / (f64::from(k) + offered * b));
    let waits = blocked / (1.0 - LOAD * (1.0 - blocked));
    MEAN + waits * MEAN / (f64::from(servers) * (1.0 - LOAD))
}

#[test]
fn one_queue_waits_as_long_as_erlang_says() {
    assert_near(erlang_c(1), MEAN / (1.0 - LOAD), 1e-9);
    assert_near(
        compare("--scenario A --policy random --requests 400000 --seeds 1")
            .central
            .mean,
        erlang_c(100),
        0.01,
    );
}

#[test]
fn random_choice_makes_each_server_a_queue_of_its_own() {
    let measured = compare("--scenario A --policy random --requests 400000 --seeds 3").rows[0]
        .figures
        .mean;
    assert_near(measured, MEAN / (1.0 - LOAD), 0.05);
}

#[test]
fn two_choices_are_as_good_as_the_supermarket_model_says() {
    // Mitzenmacher, 2001: the sum of load^(2^i - 2), in service times, for infinitely many servers.
    let theory = MEAN * (1..10).map(|i| LOAD.powi(2_i32.pow(i) - 2)).sum::<f64>();
    let measured = compare("--scenario A --policy power-of-two --requests 400000 --seeds 1").rows[0]
        .figures
        .mean;
    assert_near(measured, theory, 0.03);
}

#[test]
fn one_client_that_counts_knows_all_there_is_to_know_of_equal_servers() {
    // Two simulators: events around a real pool, and a recursion over departures.
    let comparison = compare("--scenario A --policy least-request --requests 200000 --seeds 1");
    let (pool, known) = (comparison.rows[0].figures, comparison.shortest);
    assert_near(pool.mean, known.mean, 0.005);
    assert_near(pool.p99, known.p99, 0.01);
}

#[test]
fn a_round_trip_is_added_once() {
    let blind = compare("--scenario A2 --policy least-request --requests 20000 --seeds 1");
    let informed = compare("--scenario A2r --policy least-request --requests 20000 --seeds 1");
    assert!((informed.central.mean - blind.central.mean - 1.0).abs() < 1e-6);
    assert_near(informed.rows[0].figures.mean - 1.0, blind.rows[0].figures.mean, 0.05);
}

#[test]
fn a_seed_decides_every_byte() {
    let tables = || {
        let options = options("--scenario A2p3,E,errors4 --policy power-of-two,adaptive --seeds 2 --requests 5000");
        report::tables(&options).collect::<Vec<_>>()
    };
    assert_eq!(tables(), tables());
}

#[test]
fn a_document_has_what_the_tables_have() {
    let options = options("--scenario A,hang --policy random --requests 2000 --seeds 1 --json");
    let document = report::json(&options);
    assert_eq!(document[0]["rows"][0]["policy"], "random");
    assert!(document[0]["rows"][0]["ratio"].as_f64() > Some(1.0));
    assert!(document[1]["rows"][0]["alone"]["later"].as_f64() > Some(0.5));
}

fn missed(policy: &str) -> Vec<String> {
    goals::missed(contestants::find(policy).expect("a policy of that name"), 120_000, 1)
}

#[test]
fn the_adaptive_policy_reaches_the_goals() {
    assert_eq!(missed("adaptive"), [""; 0]);
}

#[test]
fn the_goals_tell_a_policy_that_is_drawn_to_fast_errors_and_blind_to_other_clients() {
    let missed = missed("least-request").join("\n");
    assert!(missed.contains("errors: ") && missed.contains("A2r: "), "{missed}");
    assert!(!missed.contains("A: "), "{missed}");
}

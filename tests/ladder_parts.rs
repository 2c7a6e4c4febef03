//! Runs the unit tests inside the ladder example's modules. (With `test = true` the example itself could, but cargo
//! would then no longer build the program that `ladder_cli` starts.)
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "it is the outside world here: it reads and writes real files"
)]
#![allow(dead_code, unused_imports, reason = "`main.rs`, which uses it all, is not here")]

#[path = "../examples/zero_to_millions/access_log.rs"]
mod access_log;
#[path = "../examples/zero_to_millions/cli.rs"]
mod cli;
#[path = "../examples/zero_to_millions/climb/mod.rs"]
mod climb;
#[path = "../examples/zero_to_millions/collect.rs"]
mod collect;
#[path = "../examples/zero_to_millions/figures.rs"]
mod figures;
#[path = "../examples/zero_to_millions/generated.rs"]
mod generated;
#[path = "../examples/zero_to_millions/hardware.rs"]
mod hardware;
#[path = "../examples/zero_to_millions/inputs.rs"]
mod inputs;
#[path = "../examples/zero_to_millions/line.rs"]
mod line;
#[path = "../examples/zero_to_millions/progress.rs"]
mod progress;
#[path = "../examples/zero_to_millions/report/mod.rs"]
mod report;
#[path = "../examples/zero_to_millions/summary.rs"]
mod summary;
mod support;
#[path = "../examples/zero_to_millions/traffic.rs"]
mod traffic;
#[path = "../examples/zero_to_millions/visits.rs"]
mod visits;

use access_log::Count;
use std::path::Path;
use std::time::Duration;
use summary::LogSummary;

fn summary(log: &Path) -> LogSummary {
    let mut collector = collect::Collector::default();
    let count = access_log::read(log, &mut collector).expect("a log that can be used");
    let visits = collector.visits(Duration::from_secs(300)).expect("a log with requests");
    LogSummary::new(count, &visits, &hardware::Hardware::built_in(), false)
}

fn small(name: &str) -> LogSummary {
    summary(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name))
}

#[test]
fn common_log() {
    let log = small("common.log");
    assert_eq!((log.count.lines, log.count.common, log.count.malformed), (6, 6, 0));
    // The second host's zone is two hours ahead, so all is within 15 minutes; the first host comes back after a pause.
    assert_eq!(
        (log.span_s, log.hosts, log.visits, log.one_request_visits),
        (900.0, 2, 3, 1)
    );
    assert_eq!((log.write_share, log.dynamic_share), (1.0 / 6.0, 5.0 / 6.0));
    // Pauses of 1, 8 and 4 s.
    assert_eq!(log.median_gap_s, 4.0);
}

#[test]
fn combined_log() {
    let log = small("combined.log");
    assert_eq!((log.count.lines, log.count.combined, log.count.malformed), (4, 4, 0));
    // Over midnight and the end of the year, and two hosts in different zones.
    assert_eq!((log.span_s, log.visits, log.logged_error_share), (7.0, 2, 0.25));
}

#[test]
fn epa_log_over_the_end_of_a_month() {
    let log = small("epa.log");
    assert_eq!((log.count.lines, log.count.epa, log.count.malformed), (5, 5, 0));
    assert_eq!((log.span_s, log.visits, log.urls), (45.0, 2, 5));
}

#[test]
fn dirty_log() {
    let log = small("dirty.log");
    let want = Count {
        lines: 11,
        malformed: 6,
        skipped: 0,
        common: 2,
        combined: 1,
        epa: 2,
    };
    assert_eq!((log.count, log.requests), (want, 5));
}

#[test]
fn the_epa_log_of_1995() {
    let Some(traces) = support::need("traces") else { return };
    let log = summary(&traces.join("epa-http.log.gz"));
    assert_eq!(
        (log.count.lines, log.count.malformed, log.count.epa),
        (47_748, 21, 47_727)
    );
    assert_eq!((log.visits, log.hosts), (4_098, 2_333));
    let rate = log.requests_per_second_per_user;
    assert!((rate - 0.055).abs() < 0.001, "{rate} requests a second and user online");
}

#[test]
fn a_combined_log_of_2015() {
    let Some(traces) = support::need("traces") else { return };
    let log = summary(&traces.join("elastic-apache-2015.log.gz"));
    assert_eq!(
        (log.count.lines, log.count.malformed, log.count.combined),
        (10_000, 0, 10_000)
    );
    assert_eq!((log.hosts, log.visits), (1_753, 3_052));
}

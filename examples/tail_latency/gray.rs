//! The policies when a server goes wrong without going away.

use crate::contestants::{Contestant, Run};
use crate::figures::{Figures, median};
use crate::scenario::{Arrivals, SECOND, Scenario};
use crate::world::Sent;
use serde::Serialize;
use std::fmt::Write as _;

/// What a scenario came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Incident {
    pub(crate) scenario: &'static str,
    title: &'static str,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) policy: &'static str,
    pub(crate) alone: Shares,
    pub(crate) ejecting: Shares,
    /// Failures at the bad server until it is ejected, or until it is well if it never is, with four requests in flight.
    pub(crate) failures: f64,
    /// The 99th percentile of all requests while the server is bad, and none is ejected.
    pub(crate) p99: f64,
}

/// What the bad server got, in shares of a server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Shares {
    pub(crate) first_second: f64,
    /// From 2 to 7 s after it went wrong.
    pub(crate) later: f64,
    /// From 3 to 8 s after it was well again.
    pub(crate) afterwards: f64,
}

/// Runs the policies with as many seeds, and takes the median of each figure.
pub(crate) fn compare(scenario: &Scenario, policies: &[Contestant], seeds: u64) -> Incident {
    let row = |&(policy, run): &Contestant| {
        let outcomes = |ejection| {
            (1..=seeds)
                .map(|seed| run(scenario, seed, ejection).sent)
                .collect::<Vec<_>>()
        };
        let (alone, ejecting) = (outcomes(false), outcomes(true));
        Row {
            policy,
            alone: shares(scenario, &alone),
            ejecting: shares(scenario, &ejecting),
            failures: median((1..=seeds).map(|seed| failures(scenario, run, seed))),
            p99: median(alone.iter().map(|sent| tail(scenario, sent))),
        }
    };
    Incident {
        scenario: scenario.name,
        title: scenario.title,
        rows: policies.iter().map(row).collect(),
    }
}

fn onset(scenario: &Scenario) -> (u64, u64) {
    let fault = scenario.fault.expect("a scenario with a fault");
    (fault.from, fault.until)
}

fn shares(scenario: &Scenario, runs: &[Vec<Sent>]) -> Shares {
    let (from, until) = onset(scenario);
    let share = |from: u64, until: u64| {
        median(runs.iter().map(|sent| {
            let during = sent.iter().filter(|sent| (from..until).contains(&sent.at));
            let (all, bad) = during.fold((0, 0), |(all, bad), sent| (all + 1, bad + u32::from(sent.server == 0)));
            f64::from(bad) / f64::from(all) * scenario.speeds.len() as f64
        }))
    };
    Shares {
        first_second: share(from, from + SECOND),
        later: share(from + 2 * SECOND, from + 7 * SECOND),
        afterwards: share(until + 3 * SECOND, until + 8 * SECOND),
    }
}

fn failures(scenario: &Scenario, run: Run, seed: u64) -> f64 {
    let closed = Scenario {
        arrivals: Arrivals::Closed(4),
        requests: 10_000,
        ..scenario.clone()
    };
    let outcome = run(&closed, seed, true);
    let (from, until) = onset(scenario);
    let until = outcome.ejected.unwrap_or(until);
    let failed = |sent: &&Sent| sent.failed && sent.server == 0 && sent.at >= from && sent.at + sent.latency <= until;
    outcome.sent.iter().filter(failed).count() as f64
}

fn tail(scenario: &Scenario, sent: &[Sent]) -> f64 {
    let (from, until) = onset(scenario);
    let during = sent.iter().filter(|sent| (from..until).contains(&sent.at));
    Figures::of(during.map(|sent| sent.latency).collect()).p99
}

impl Incident {
    pub(crate) fn table(&self) -> String {
        let mut out = format!("{}: {}\n", self.scenario, self.title);
        out.push_str("                  without ejection           with ejection               failures\n");
        out.push_str("  policy          1st s   2-7 s  afterwards  1st s   2-7 s  afterwards  until out      p99\n");
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = write!(out, "  {:<15}", row.policy);
            for shares in [row.alone, row.ejecting] {
                let _ = write!(
                    out,
                    " {:>5.2} {:>7.3} {:>11.2} ",
                    shares.first_second, shares.later, shares.afterwards
                );
            }
            let _ = writeln!(out, " {:>9.0} {:>8.1}", row.failures, row.p99);
        }
        out
    }
}

//! What the default policy has to reach.

use crate::contestants::Contestant;
use crate::scenario::{self, Scenario};
use crate::{gray, queues};

/// The 99th percentile over the ideal's, at most, by scenario.
const TAILS: &[(&str, f64)] = &[
    ("A", 1.10),
    ("C", 1.15),
    ("E", 1.15),
    ("D1", 1.10),
    ("F", 1.10),
    ("A2", 2.0),
    ("A2r", 1.5),
    ("A2p1", 1.5),
    ("A2p3", 1.5),
    ("C2r", 1.5),
];

/// Gray failures, in which the bad server gets less than [`SHARE`] of a share a second or two after it went wrong.
const GRAY: &[&str] = &["slow", "hang", "errors"];
const SHARE: f64 = 0.05;

/// And at least so much of a share some seconds after it is well again.
const AGAIN: f64 = 0.1;

/// Failures until it is ejected, at most, with four requests in flight.
const FAILURES: f64 = 10.0;

/// The goals that a policy misses in runs of so many requests and seeds, a line each.
pub(crate) fn missed(policy: Contestant, requests: usize, seeds: u64) -> Vec<String> {
    let mut missed = Vec::new();
    for &(name, most) in TAILS {
        let scenario = Scenario {
            requests,
            ..scenario::find(name).expect("a scenario of the goals exists")
        };
        let ratio = queues::compare(&scenario, &[policy], seeds).rows[0].ratio;
        if ratio > most {
            missed.push(format!("{name}: p99 is {ratio:.2} of the ideal, more than {most}"));
        }
    }
    for name in GRAY {
        let scenario = scenario::find(name).expect("a scenario of the goals exists");
        let row = gray::compare(&scenario, &[policy], seeds).rows[0];
        for (how, shares) in [("", row.alone), (" with ejection", row.ejecting)] {
            if shares.later > SHARE {
                missed.push(format!(
                    "{name}{how}: {:.3} of a share, more than {SHARE}",
                    shares.later
                ));
            }
        }
        if row.alone.afterwards < AGAIN {
            missed.push(format!(
                "{name}: {:.3} of a share when it is well again, less than {AGAIN}",
                row.alone.afterwards
            ));
        }
        if row.failures > FAILURES {
            missed.push(format!(
                "{name}: {} failures until ejection, more than {FAILURES}",
                row.failures
            ));
        }
    }
    missed
}

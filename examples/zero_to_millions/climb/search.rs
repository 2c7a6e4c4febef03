//! The most users that a rung carries: by doubling, then by bisection.

use super::Result;
use super::plan::{PARTS, Plan, divided};
use super::probe::{Measured, Setup, probe};
use super::sizing::Demand;
use crate::report::CurvePoint;
use std::sync::Arc;

/// No search goes further.
const CEILING: u64 = 1 << 30;
/// How close the answer is to the first load that fails.
const CLOSE: f64 = 1.03;

/// What a search found.
pub(super) struct Found {
    pub(super) users: u64,
    pub(super) best: Measured,
    pub(super) curve: Vec<CurvePoint>,
    /// Whether the search ended at its own ceiling.
    pub(super) at_ceiling: bool,
    pub(super) notes: Vec<String>,
}

/// Searches for the most users on `plan`.
pub(super) fn search(setup: &Arc<Setup>, plan: &Plan, demand: &Demand) -> Result<Found> {
    let guess = plan.guess(demand, &setup.hardware);
    // So that the requests of a probe last long enough to mean something.
    let wanted = setup.shortest.as_secs_f64() * guess / setup.requests as f64;
    let small = divided(plan, &setup.hardware, wanted);
    let mut seen: Vec<Measured> = Vec::new();
    let mut passes = |users: u64| -> Result<bool> {
        let measured = probe(setup, &small, users)?;
        let passed = measured.passed;
        seen.push(measured);
        Ok(passed)
    };
    let unit = u64::from(small.part);
    let start = (guess / setup.visits.rate_per_user() / 2.0) as u64;
    let (mut good, mut bad) = bracket(start.clamp(unit, CEILING), unit, &mut passes)?;
    while bad != u64::MAX && bad as f64 > good.max(1) as f64 * CLOSE && bad - good > unit {
        let middle = good.midpoint(bad);
        if passes(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    seen.sort_by_key(|measured| measured.point.users);
    let curve = seen.iter().map(|measured| measured.point).collect();
    // Where not even one user is carried, the row shows how that one fares.
    let best = seen
        .into_iter()
        .rfind(|measured| measured.point.users <= good.max(unit))
        .expect("broken invariant: the search probed the load that it returns");
    let notes = match small.part {
        1 => Vec::new(),
        _ => vec![check_part(setup, plan, &small, good)?],
    };
    Ok(Found {
        users: good,
        best,
        curve,
        at_ceiling: bad == u64::MAX,
        notes,
    })
}

/// Doubles (or, when the start fails, halves) until one load passes and its double fails. Returns both; 0 passes always,
/// and [`u64::MAX`] stands for what was never reached.
fn bracket(start: u64, least: u64, passes: &mut impl FnMut(u64) -> Result<bool>) -> Result<(u64, u64)> {
    let mut users = start;
    if passes(users)? {
        while users < CEILING {
            let next = users * 2;
            if !passes(next)? {
                return Ok((users, next));
            }
            users = next;
        }
        return Ok((users, u64::MAX));
    }
    while users / 2 >= least {
        let next = users / 2;
        if passes(next)? {
            return Ok((next, users));
        }
        users = next;
    }
    Ok((0, users))
}

/// Probes machines of the next larger part 5 % below and above what the `small` ones carry.
fn check_part(setup: &Arc<Setup>, plan: &Plan, small: &Plan, users: u64) -> Result<String> {
    let larger = PARTS
        .into_iter()
        .filter(|part| *part < small.part)
        .filter_map(|part| plan.divided(part, &setup.hardware))
        .next_back()
        .expect("broken invariant: every plan can be divided by one");
    let below = probe(setup, &larger, users / 20 * 19)?.passed;
    let above = probe(setup, &larger, users / 20 * 21)?.passed;
    let verdict = |passed| if passed { "pass" } else { "fail" };
    let held = match (below, above) {
        (true, false) => "so the scale does not matter",
        (true, true) => "so the small machines show it too low",
        (false, _) => "so the small machines show it too high",
    };
    Ok(format!(
        "Measured with machines and users divided by {}; checked with both divided by {}: 5 % fewer users {}, 5 % more {}, {held}.",
        small.part,
        larger.part,
        verdict(below),
        verdict(above),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bracketed(limit: u64, start: u64) -> (u64, u64) {
        bracket(start, 1, &mut |users| Ok(users <= limit)).expect("no probe fails to run")
    }

    #[test]
    fn a_bracket_is_found_from_either_side() {
        assert_eq!(bracketed(1_000, 100), (800, 1_600));
        assert_eq!(bracketed(1_000, 5_000), (625, 1_250));
        assert_eq!(bracketed(0, 8), (0, 1));
        assert_eq!(bracketed(u64::MAX, 1 << 28), (1 << 30, u64::MAX));
    }
}

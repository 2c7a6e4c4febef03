//! The most users that a rung carries: by doubling, then by bisection.

use super::plan::Plan;
use super::probe::{Measured, Setup, probe};
use super::sizing::Demand;
use super::{BoxError, Result};
use crate::report::CurvePoint;
use std::sync::Arc;

/// No search goes further.
const CEILING: u64 = 1 << 30;
/// How close the answer is to the first load that fails.
const CLOSE: f64 = 1.03;
/// The most that machines and users are divided by.
const MOST_DIVIDED: u32 = 16;

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
    let scale = scale_for(setup, plan, guess);
    let small = plan.divided(scale).unwrap_or_else(|| plan.clone());
    let mut seen: Vec<(u64, Measured)> = Vec::new();
    let mut passes = |users: u64| -> Result<bool> {
        let mut measured = probe(setup, &small, users, scale)?;
        measured.point.users = users;
        let passed = measured.passed;
        seen.push((users, measured));
        Ok(passed)
    };
    let unit = u64::from(scale);
    let start = (guess / setup.visits.rate_per_user() / 4.0) as u64;
    let (mut good, mut bad) = bracket(start.clamp(unit, CEILING), unit, &mut passes)?;
    while bad != u64::MAX && bad as f64 > good.max(1) as f64 * CLOSE && bad - good > unit {
        let middle = good.midpoint(bad);
        if passes(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    seen.sort_by_key(|(users, _)| *users);
    let mut notes = Vec::new();
    let curve = seen.iter().map(|(_, measured)| measured.point).collect();
    // Where not even one user is carried, the row shows how that one fares.
    let best = seen
        .into_iter()
        .rfind(|(users, _)| *users <= good.max(unit))
        .map(|(_, measured)| measured);
    let best = best.expect("broken invariant: the search probed the load that it returns");
    if scale > 1 {
        notes.push(check_scale(setup, plan, good, scale)?);
    }
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

/// By how much machines and users are divided, so that the requests of a probe last long enough to mean something.
fn scale_for(setup: &Setup, plan: &Plan, requests_per_second: f64) -> u32 {
    let lasts = setup.requests as f64 / requests_per_second;
    let wanted = (setup.shortest.as_secs_f64() / lasts).ceil();
    let fits = |scale: &u32| plan.divided(*scale).is_some();
    (1..=MOST_DIVIDED)
        .filter(fits)
        .find(|scale| f64::from(*scale) >= wanted)
        .or((1..=MOST_DIVIDED).rfind(fits))
        .unwrap_or(1)
}

/// Probes the undivided rung 5 % below and above what the divided one carries.
fn check_scale(setup: &Arc<Setup>, plan: &Plan, users: u64, scale: u32) -> Result<String> {
    let verdict = |users: u64| {
        Ok::<_, BoxError>(if probe(setup, plan, users, 1)?.passed {
            "passes"
        } else {
            "fails"
        })
    };
    let below = verdict(users / 20 * 19)?;
    let above = verdict(users / 20 * 21)?;
    Ok(format!(
        "measured with a {scale}th of machines and users; checked undivided: 5 % fewer users {below}, 5 % more {above}"
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

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
/// How close short probes come.
const ROUGH: f64 = 1.08;
/// How far the first long probe is from the second; the factor is squared from one to the next.
const STRIDE: f64 = 1.058;

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
///
/// Short probes find about where the limit is, by doubling and a rough bisection. Long ones then close in on it from
/// there, since a queue that grows slowly takes time to show.
pub(super) fn search(setup: &Arc<Setup>, plan: &Plan, demand: &Demand) -> Result<Found> {
    let guess = plan.guess(demand, &setup.hardware);
    // So that the requests of a probe last long enough to mean something.
    let wanted = setup.shortest.as_secs_f64() * guess / setup.requests as f64;
    let small = divided(plan, &setup.hardware, wanted);
    let unit = u64::from(small.part);
    let start = (guess / setup.visits.rate_per_user() / 4.0) as u64;

    let short = Arc::new(setup.shortened(8, setup.shortest / 2));
    let mut looks = Probes::new(&short, &small);
    let rough = looks.bracket(start.clamp(unit, CEILING), |factor| factor, 2.0)?;
    let rough = looks.bisect(rough, ROUGH)?;

    let mut probes = Probes::new(setup, &small);
    let close = probes.bracket(rough.good.max(unit), |factor| factor * factor, STRIDE)?;
    let Bracket { good, bad } = probes.bisect(close, CLOSE)?;

    // Where not even one user is carried, the row shows how that one fares.
    let most = good.max(unit);
    let mut seen = probes.seen;
    let below = |measured: &Measured| measured.point.users * 10 < most * 8;
    seen.extend(looks.seen.into_iter().filter(below));
    seen.sort_by_key(|measured| measured.point.users);
    let curve = seen.iter().map(|measured| measured.point).collect();
    let best = seen.into_iter().rfind(|measured| measured.point.users <= most);
    let notes = match small.part {
        1 => Vec::new(),
        _ => vec![check_part(setup, plan, &small, good)?],
    };
    Ok(Found {
        users: good,
        best: best.expect("broken invariant: the search probed the load that it returns"),
        curve,
        at_ceiling: bad == u64::MAX,
        notes,
    })
}

/// A load that passes and one that fails. 0 passes always, and [`u64::MAX`] stands for what was never reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bracket {
    good: u64,
    bad: u64,
}

/// Probes of one length.
struct Probes<F> {
    probe: F,
    /// The least number of users, and the least difference.
    unit: u64,
    seen: Vec<Measured>,
}

impl<'a> Probes<Box<dyn Fn(u64) -> Result<Measured> + 'a>> {
    fn new(setup: &'a Arc<Setup>, plan: &'a Plan) -> Self {
        Probes {
            probe: Box::new(|users| probe(setup, plan, users)),
            unit: u64::from(plan.part),
            seen: Vec::new(),
        }
    }
}

impl<F: Fn(u64) -> Result<Measured>> Probes<F> {
    fn passes(&mut self, users: u64) -> Result<bool> {
        let measured = (self.probe)(users)?;
        let passed = measured.passed;
        self.seen.push(measured);
        Ok(passed)
    }

    /// Goes up by this factor (or, when the start fails, down) until one load passes and the next fails.
    /// The factor of each step follows from that of the one before.
    fn bracket(&mut self, start: u64, next_factor: fn(f64) -> f64, mut factor: f64) -> Result<Bracket> {
        let mut users = start;
        if self.passes(users)? {
            while users < CEILING {
                let next = ((users as f64 * factor) as u64).clamp(users + self.unit, CEILING.max(users + self.unit));
                if !self.passes(next)? {
                    return Ok(Bracket { good: users, bad: next });
                }
                users = next;
                factor = next_factor(factor);
            }
            return Ok(Bracket {
                good: users,
                bad: u64::MAX,
            });
        }
        while users > self.unit {
            let next = ((users as f64 / factor) as u64).clamp(self.unit, users - 1);
            if self.passes(next)? {
                return Ok(Bracket { good: next, bad: users });
            }
            users = next;
            factor = next_factor(factor);
        }
        Ok(Bracket { good: 0, bad: users })
    }

    /// Halves the bracket until its ends are within this factor.
    fn bisect(&mut self, bracket: Bracket, factor: f64) -> Result<Bracket> {
        let Bracket { mut good, mut bad } = bracket;
        while bad != u64::MAX && bad as f64 > good.max(1) as f64 * factor && bad - good > self.unit {
            let middle = good.midpoint(bad);
            if self.passes(middle)? {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Ok(Bracket { good, bad })
    }
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

    /// What a rung that carries `limit` users is found to carry.
    fn found(limit: u64, start: u64) -> Bracket {
        let mut probes = Probes {
            probe: |users| Ok(Measured::verdict(users, users <= limit)),
            unit: 1,
            seen: Vec::new(),
        };
        let rough = probes
            .bracket(start, |factor| factor, 2.0)
            .expect("no probe fails to run");
        probes.bisect(rough, CLOSE).expect("no probe fails to run")
    }

    #[test]
    fn the_limit_is_found_from_either_side() {
        for start in [1, 100, 999, 1_000, 1_001, 5_000, 1 << 29] {
            let Bracket { good, bad } = found(1_000, start);
            assert!(good <= 1_000 && bad > 1_000, "{good} to {bad} from {start}");
            assert!(bad as f64 <= good as f64 * CLOSE, "{good} to {bad} from {start}");
        }
        assert_eq!(found(0, 8), Bracket { good: 0, bad: 1 });
        assert_eq!(
            found(u64::MAX, 1 << 28),
            Bracket {
                good: CEILING,
                bad: u64::MAX
            }
        );
    }
}

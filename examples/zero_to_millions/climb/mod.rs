//! Climbing the ladder: each rung's real blocks on modelled machines in virtual time, loaded until they give.

mod cluster;
mod database;
mod drill;
mod jobs;
mod outage;
mod plan;
mod probe;
mod regions;
mod rows;
mod search;
mod service;
mod sizing;
mod station;
mod sticky;

use crate::hardware::Hardware;
use crate::inputs::Inputs;
use crate::progress::Progress;
use crate::report::{Busy, Limit, RungReport, Saturated, Sensitivity, Varied};
use parking_lot::Mutex;
use plan::{Plan, Rung};
use probe::Setup;
use rows::Rows;
use search::{Found, search};
use sizing::{Demand, Sizes};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A block that failed where nothing was killed.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = BoxError> = std::result::Result<T, E>;

/// A resource that is busy for this share of the time is what limits a rung.
const SATURATED: f64 = 0.8;
/// Resources whose utilisation differs by less are named together.
const ALIKE: f64 = 0.02;
/// How many times shorter the probes are for a look, or for many searches.
const QUICK: u32 = 20;
/// How long they last at least.
const QUICK_LASTS: Duration = Duration::from_secs(1);

/// The rungs that were asked for.
fn rungs(inputs: &Inputs) -> Vec<Rung> {
    let asked = |rung: &Rung| inputs.options.rung.as_ref().is_none_or(|id| id == rung.id());
    Rung::ALL.into_iter().filter(asked).collect()
}

/// How many steps of progress a run makes.
pub(crate) fn steps(inputs: &Inputs) -> u64 {
    let cases = if inputs.options.sensitivity {
        inputs.hardware.figures().count()
    } else {
        0
    };
    (rungs(inputs).len() * (1 + cases)) as u64
}

/// Climbs every rung, or the one that was asked for.
///
/// # Errors
/// When a block fails where nothing was killed.
pub(crate) fn climb(inputs: &Inputs, progress: &Progress) -> Result<Vec<RungReport>> {
    let rungs = rungs(inputs);
    let setup = Arc::new(setup(inputs, inputs.hardware.clone()));
    let mut reports = in_parallel(&rungs, |rung| {
        progress.doing(rung.name());
        let report = report(&setup, *rung, true);
        progress.step();
        report
    })?;
    for i in 0..reports.len() {
        reports[i].relieves = relieves(&reports, rungs[i], &reports[i]);
    }
    Ok(reports)
}

/// Varies each modelled figure by a quarter either way, and searches each rung anew, with shorter probes.
///
/// # Errors
/// When a block fails where nothing was killed.
pub(crate) fn sensitivity(inputs: &Inputs, progress: &Progress) -> Result<Vec<Sensitivity>> {
    let rungs = rungs(inputs);
    let figures = inputs.hardware.figures();
    let cases = figures.flat_map(|figure| rungs.iter().map(|rung| (figure.name.clone(), *rung)));
    let cases: Vec<(String, Rung)> = cases.collect();
    in_parallel(&cases, |(figure, rung)| {
        progress.doing(figure);
        let varied = |factor: f64| {
            let Some(hardware) = inputs.hardware.scaled(figure, factor) else {
                return Ok(None);
            };
            let value = hardware
                .figures()
                .find(|f| f.name == *figure)
                .map_or(f64::NAN, |f| f.value);
            let setup = setup(inputs, hardware).shortened(QUICK, QUICK_LASTS);
            let report = report(&Arc::new(setup), *rung, false)?;
            Ok::<_, BoxError>(Some(Varied {
                value,
                users: report.users,
            }))
        };
        let case = Sensitivity {
            figure: figure.clone(),
            rung: rung.id().to_owned(),
            lower: varied(0.75)?,
            higher: varied(1.25)?,
        };
        progress.step();
        Ok(case)
    })
}

/// Does `work` for each item on all cores; the results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(items.len());
    let results: Mutex<Vec<(usize, Result<R>)>> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            // The highest rungs take longest, so they go first.
            scope.spawn(|| {
                while let Ok(after) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) {
                    let result = work(&items[after - 1]);
                    results.lock().push((after - 1, result));
                }
            });
        }
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(item, _)| *item);
    results.into_iter().map(|(_, result)| result).collect()
}

fn setup(inputs: &Inputs, hardware: Hardware) -> Setup {
    let visits = Arc::clone(&inputs.visits);
    let dynamic = visits.urls().iter().map(|url| hardware.is_dynamic(url)).collect();
    let rows = Arc::new(Rows::new(&hardware));
    let setup = Setup {
        visits,
        hardware: Arc::new(hardware),
        rows,
        dynamic,
        slo: inputs.options.slo,
        timeout: inputs.options.timeout,
        seed: inputs.options.seed,
        requests: 200_000,
        warm_up: 20_000,
        shortest: Duration::from_secs(5),
    };
    match inputs.options.quick {
        true => setup.shortened(QUICK, QUICK_LASTS),
        false => setup,
    }
}

impl Setup {
    /// The same with probes of a `part`-th of the requests, which still last as long as this: a load that is a little
    /// too high shows only when the line has grown for a while.
    fn shortened(&self, part: u32, shortest: Duration) -> Setup {
        Setup {
            requests: self.requests / part as usize,
            warm_up: self.warm_up / part as usize,
            shortest,
            ..self.clone()
        }
    }
}

fn report(setup: &Arc<Setup>, rung: Rung, with_drill: bool) -> Result<RungReport> {
    let demand = Demand::new(&setup.visits, &setup.hardware);
    let plan = Plan::new(rung, &Sizes::new(&demand, &setup.hardware));
    let setup = &match plan.regions {
        1 => Arc::clone(setup),
        // The more machines there are that hear of each change, the longer it takes to simulate a request.
        _ => Arc::new(setup.shortened(2, setup.shortest)),
    };
    let Found {
        users,
        best,
        curve,
        at_ceiling,
        notes,
    } = search(setup, &plan, &demand)?;
    let notes = regions::told(&plan, &setup.hardware)?
        .into_iter()
        .chain(notes)
        .collect();
    let drill = if with_drill && users > 0 {
        Some(drill::drill(setup, &plan, users)?)
    } else {
        None
    };
    Ok(RungReport {
        id: rung.id().to_owned(),
        name: rung.name().to_owned(),
        machines: plan.machines(),
        price: plan.price(&setup.hardware),
        users,
        requests_per_second: best.point.requests_per_second,
        p50_ms: best.point.p50_ms,
        p99_ms: best.point.p99_ms,
        p999_ms: best.point.p999_ms,
        error_rate: best.point.error_rate,
        hit_ratio: best.hit_ratio,
        saturated: saturated(best.busy, at_ceiling),
        curve,
        drill,
        parts: plan.parts(),
        relieves: String::new(),
        notes,
    })
}

fn saturated(mut busy: Vec<Busy>, at_ceiling: bool) -> Saturated {
    busy.sort_by(|a, b| b.utilisation.total_cmp(&a.utilisation));
    let most = busy.first().map_or(0.0, |busiest| busiest.utilisation);
    busy.retain(|other| most - other.utilisation <= ALIKE);
    let limit = match (at_ceiling, most >= SATURATED) {
        (true, _) => Limit::Ceiling,
        (false, true) => Limit::Capacity,
        (false, false) => Limit::Latency,
    };
    Saturated { limit, resources: busy }
}

/// What a rung adds, and whether that was what the rung below lacked and made a difference.
fn relieves(reports: &[RungReport], rung: Rung, report: &RungReport) -> String {
    let (adds, relieved) = rung.adds();
    let Some(below) = rung
        .below()
        .and_then(|below| reports.iter().find(|report| report.id == below.id()))
    else {
        return format!("Adds {adds}.");
    };
    let lacked = &below.saturated.resources;
    let fits = lacked.iter().any(|busy| relieved.contains(&&*busy.name));
    let names = lacked.iter().map(|busy| &*busy.name).collect::<Vec<_>>().join(" and ");
    let factor = report.users as f64 / below.users.max(1) as f64;
    let verdict = match (fits, factor >= 1.05) {
        (true, true) => format!("relieves the {names} of \"{}\"", below.name),
        (true, false) => format!(
            "is meant to relieve the {names} of \"{}\", and buys nothing here",
            below.name
        ),
        (false, true) => format!("does not add to the {names} of \"{}\", yet carries more", below.name),
        (false, false) => format!("buys nothing: what \"{}\" lacks is its {names}", below.name),
    };
    format!("Adds {adds}: {verdict} ({factor:.2} times the users).")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::collect;

    /// The plan of the data centres on the built-in hardware, for visits of a few requests.
    pub(super) fn data_centres() -> (Plan, Hardware) {
        let hardware = Hardware::built_in();
        let visits = collect::tests::collect(&[("a", 0, "/"), ("a", 5, "/logo.gif"), ("b", 2, "/a")]);
        let sizes = Sizes::new(&Demand::new(&visits, &hardware), &hardware);
        (Plan::new(Rung::DataCentres, &sizes), hardware)
    }

    #[test]
    fn each_rung_has_more_machines_than_the_one_it_stands_on() {
        let hardware = Hardware::built_in();
        let visits = collect::tests::collect(&[("a", 0, "/"), ("a", 5, "/logo.gif"), ("b", 2, "/a")]);
        let sizes = Sizes::new(&Demand::new(&visits, &hardware), &hardware);
        for rung in Rung::ALL {
            let (plan, below) = (Plan::new(rung, &sizes), rung.below());
            let below = below.map_or(0.0, |below| Plan::new(below, &sizes).price(&hardware));
            let price = plan.price(&hardware);
            // A cache costs nothing: it is a part of each web machine.
            assert!(price > below || rung == Rung::Cache && price == below, "{}", rung.id());
        }
        let (plan, _) = data_centres();
        assert_eq!((plan.regions, plan.shards, plan.nodes), (3, 3, 3));
        assert!(plan.parts().starts_with("3 regions, each with "), "{}", plan.parts());
    }
}

//! What the climb found, as plain data, and its three forms: the table, JSON, and one HTML page.

mod chart;
mod html;
pub(crate) mod json;
mod numbers;
mod pictures;
#[cfg(test)]
pub(crate) mod sample;
mod table;
mod text;

pub(crate) use html::html;
pub(crate) use json::json;
pub(crate) use text::{after, before};

use crate::figures::Figure;
use crate::inputs::Inputs;
use crate::summary::LogSummary;
use numbers::thousands;
use serde::Serialize;

/// The version of the JSON's shape; raised when a field changes its meaning or goes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Everything that is printed. It holds no wall-clock time, so that one seed gives the same report byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// What was asked for.
    pub(crate) inputs: InputSummary,
    /// What the log (or the generated workload) holds.
    pub(crate) log: LogSummary,
    /// Which requests are dynamic.
    pub(crate) dynamic: DynamicRule,
    /// Every modelled figure with its reason.
    pub(crate) assumptions: Vec<Figure>,
    /// The rungs, from the lowest up.
    pub(crate) rungs: Vec<RungReport>,
    /// With `--users`: which rung carries them.
    pub(crate) answer: Option<String>,
    /// With `--sensitivity`: what each figure does to the users of each rung.
    pub(crate) sensitivity: Vec<Sensitivity>,
}

/// Which requests are dynamic, and why these.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DynamicRule {
    pub(crate) rule: String,
    pub(crate) why: String,
}

/// The command line's choices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct InputSummary {
    /// The log as named on the command line; absent when the workload is generated.
    pub(crate) log: Option<String>,
    /// The hardware file as named on the command line; absent for the built-in one.
    pub(crate) hardware: Option<String>,
    pub(crate) seed: u64,
    pub(crate) session_gap_s: u64,
    pub(crate) slo_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) users: Option<u64>,
    pub(crate) rung: Option<String>,
    pub(crate) quick: bool,
    pub(crate) sensitivity: bool,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RungReport {
    /// What `--rung` calls it.
    pub(crate) id: String,
    /// What the table calls it.
    pub(crate) name: String,
    /// How many machines it has.
    pub(crate) machines: u32,
    /// US dollars a month.
    #[serde(serialize_with = "json::milli")]
    pub(crate) price: f64,
    /// The most users online that it carries within the objective.
    pub(crate) users: u64,
    /// What they make.
    #[serde(serialize_with = "json::milli")]
    pub(crate) requests_per_second: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) p50_ms: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) p99_ms: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) p999_ms: f64,
    /// The share of requests that failed, timed out or were refused.
    #[serde(serialize_with = "json::micro")]
    pub(crate) error_rate: f64,
    /// The share of cache lookups that hit; absent where there is no cache.
    #[serde(serialize_with = "json::opt_micro")]
    pub(crate) hit_ratio: Option<f64>,
    /// What gives first.
    pub(crate) saturated: Saturated,
    /// Each probed load, by rising users.
    pub(crate) curve: Vec<CurvePoint>,
    /// What happens when a part of it is killed; absent when the drill was not run.
    pub(crate) drill: Option<Drill>,
    /// How many of each kind of machine, for instance `2 web, 1 database`.
    #[serde(skip)]
    pub(crate) parts: String,
    /// What the rung adds, and whether that relieved what the row before named.
    #[serde(skip)]
    pub(crate) relieves: String,
    /// What else a reader should know, such as the scale that it was measured at.
    #[serde(skip)]
    pub(crate) notes: Vec<String>,
}

/// What keeps a rung from carrying more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Saturated {
    pub(crate) limit: Limit,
    /// The busiest resources, the busiest first: those within two points of it.
    pub(crate) resources: Vec<Busy>,
}

/// Why the search for more users ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Limit {
    /// A resource is busy at least 80 % of the time.
    Capacity,
    /// The objective is missed though nothing is that busy.
    Latency,
    /// The search stopped at its own ceiling: the rung carries at least this many.
    Ceiling,
}

/// How busy a resource is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Busy {
    /// For instance `web cpu` or `database disk`.
    pub(crate) name: String,
    /// The mean share of the time that it is at work, 0 to 1.
    #[serde(serialize_with = "json::micro")]
    pub(crate) utilisation: f64,
}

/// One probed load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct CurvePoint {
    pub(crate) users: u64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) requests_per_second: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) p50_ms: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) p99_ms: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) p999_ms: f64,
    #[serde(serialize_with = "json::micro")]
    pub(crate) error_rate: f64,
}

/// A part is killed at 60 % of the load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Drill {
    /// By how much machines and users were divided for it.
    pub(crate) part: u32,
    /// What happened to what.
    pub(crate) killed: String,
    /// Whether the rung went on answering.
    pub(crate) survived: bool,
    pub(crate) failed_requests: u64,
    pub(crate) lost_acknowledged_writes: u64,
    /// Visits whose user was thrown out.
    pub(crate) lost_visits: u64,
    /// From the kill until p99 is back under the objective; absent when it never was.
    #[serde(serialize_with = "json::opt_milli")]
    pub(crate) recovery_ms: Option<f64>,
    /// From the loss of a region until its users were answered by another; absent where no region is lost, and where
    /// nobody answered them.
    #[serde(serialize_with = "json::opt_milli")]
    pub(crate) rerouted_ms: Option<f64>,
    /// What the users of each region saw; none where there is but one.
    pub(crate) regions: Vec<RegionDrill>,
    /// What happened, in a sentence.
    pub(crate) note: String,
    /// The drill in equal steps of time.
    pub(crate) timeline: Vec<DrillPoint>,
}

/// What the users saw in a drill for whom one region is the nearest. A failed request counts as one that took the whole
/// time limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RegionDrill {
    pub(crate) region: String,
    /// Before the kill.
    #[serde(serialize_with = "json::opt_milli")]
    pub(crate) p99_before_ms: Option<f64>,
    /// From then until every shard took writes again.
    #[serde(serialize_with = "json::opt_milli")]
    pub(crate) p99_during_ms: Option<f64>,
    /// After that, with one region less.
    #[serde(serialize_with = "json::opt_milli")]
    pub(crate) p99_after_ms: Option<f64>,
    /// Requests since the kill that failed.
    pub(crate) failed: u64,
    /// All requests since the kill.
    pub(crate) requests: u64,
}

/// One step of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct DrillPoint {
    /// Since the kill; negative before it.
    pub(crate) at_ms: i64,
    /// Of the requests that were answered; absent when none was.
    #[serde(serialize_with = "json::opt_milli")]
    pub(crate) p99_ms: Option<f64>,
    /// Failed requests in this step.
    pub(crate) failed: u64,
    /// All requests in this step.
    pub(crate) requests: u64,
}

/// What one figure does to one rung.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Sensitivity {
    /// The figure's name.
    pub(crate) figure: String,
    /// The rung's id.
    pub(crate) rung: String,
    /// The figure a quarter lower (whole things: at least one), and the users then; absent where its bounds forbid it.
    pub(crate) lower: Option<Varied>,
    /// The figure a quarter higher, and the users then.
    pub(crate) higher: Option<Varied>,
}

/// The users of a rung under a changed figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Varied {
    pub(crate) value: f64,
    pub(crate) users: u64,
}

impl Report {
    /// The report of a climb on `inputs`.
    pub(crate) fn new(inputs: &Inputs, rungs: Vec<RungReport>, sensitivity: Vec<Sensitivity>) -> Report {
        let (rule, why) = inputs.hardware.dynamic_rule();
        Report {
            schema_version: SCHEMA_VERSION,
            inputs: inputs.summary(),
            log: inputs.log.clone(),
            dynamic: DynamicRule {
                rule,
                why: why.to_owned(),
            },
            assumptions: inputs.hardware.figures().cloned().collect(),
            answer: inputs.options.users.map(|users| answer(&rungs, users)),
            rungs,
            sensitivity,
        }
    }
}

impl RungReport {
    /// Users per machine, rounded down.
    pub(crate) fn users_per_machine(&self) -> u64 {
        self.users / u64::from(self.machines.max(1))
    }
}

/// Which of `rungs` is the first that carries `users`.
fn answer(rungs: &[RungReport], users: u64) -> String {
    let wanted = thousands(users);
    let most = rungs.iter().max_by_key(|rung| rung.users);
    match (rungs.iter().find(|rung| rung.users >= users), most) {
        (Some(rung), _) => format!(
            "{wanted} users online: \"{}\" is the first rung that carries them ({}; ${} a month).",
            rung.name,
            rung.parts,
            thousands(rung.price.round() as u64)
        ),
        (None, Some(most)) => format!(
            "{wanted} users online: no rung carries them; the limit is {}, with \"{}\".",
            most.users_found(),
            most.name
        ),
        (None, None) => format!("{wanted} users online: no rung was measured."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_first_rung_that_is_enough() {
        let rungs = sample::rungs();
        assert!(answer(&rungs, 30_000).contains("\"Replication\" is the first rung"));
        assert!(answer(&rungs, 5_000_000).contains("the limit is at least 4,000,000, with \"Sharding\""));
        assert!(answer(&[], 1).contains("no rung was measured"));
    }
}

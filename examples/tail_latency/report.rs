//! What is printed.

use crate::cli::Options;
use crate::scenario::Scenario;
use crate::{gray, queues};
use serde::Serialize;

#[derive(Serialize)]
#[serde(untagged)]
enum Result {
    Queues(queues::Comparison),
    Gray(gray::Incident),
}

fn run(options: &Options, scenario: &Scenario) -> Result {
    match scenario.fault {
        None => Result::Queues(queues::compare(scenario, &options.policies, options.seeds)),
        Some(_) => Result::Gray(gray::compare(scenario, &options.policies, options.seeds)),
    }
}

/// A table for each scenario, as soon as it is there.
pub(crate) fn tables(options: &Options) -> impl Iterator<Item = String> {
    options.scenarios.iter().map(|scenario| match run(options, scenario) {
        Result::Queues(comparison) => comparison.table(),
        Result::Gray(incident) => incident.table(),
    })
}

/// All of it in one document.
pub(crate) fn json(options: &Options) -> serde_json::Value {
    options
        .scenarios
        .iter()
        .map(|scenario| serde_json::json!(run(options, scenario)))
        .collect()
}

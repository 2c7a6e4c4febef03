//! The command line.

use crate::contestants::{CONTESTANTS, Contestant, find};
use crate::scenario::{self, Scenario};
use thiserror::Error;

/// What the user asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Options),
    /// Print [`HELP`].
    Help,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) policies: Vec<Contestant>,
    pub(crate) seeds: u64,
    pub(crate) json: bool,
}

/// A command line that cannot be obeyed.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UsageError {
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} {1}: want a number from 1 on")]
    Number(&'static str, String),
    #[error("there is no scenario {0}")]
    Scenario(String),
    #[error("there is no policy {0}")]
    Policy(String),
}

pub(crate) const HELP: &str = "\
How long do requests take under each balancing policy, beside the best that is possible?

usage: tail_latency [--scenario NAME,...] [--policy NAME,...] [--seeds N] [--requests N] [--quick] [--json]

Simulates clients and servers in virtual time around the library's own pool, and prints a table for each scenario, in
milliseconds. The ideal is one queue before all servers, or, where that does better, joining the shortest of all queues
with everything known. `--help` ends with the names.

  --scenario NAME,...  only these
  --policy NAME,...    only these
  --seeds N            takes the median of so many runs [default: 5]
  --requests N         in each run, where no server goes wrong [default: 400000]
  --quick              one run of 40000 requests
  --json               prints one JSON document instead of tables
  -h, --help           prints this

scenarios:
";

/// The help text with the names that exist.
pub(crate) fn help() -> String {
    let scenarios = scenario::all()
        .into_iter()
        .map(|s| format!("  {:<9} {}\n", s.name, s.title))
        .collect::<String>();
    let policies = CONTESTANTS
        .iter()
        .map(|(name, _)| format!("  {name}\n"))
        .collect::<String>();
    format!("{HELP}{scenarios}\npolicies:\n{policies}")
}

/// Understands the arguments, without the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let (mut scenarios, mut policies) = (scenario::all(), CONTESTANTS.to_vec());
    let (mut seeds, mut requests, mut json) = (5, 400_000, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = |option| args.next().ok_or(UsageError::NoValue(option));
        match &*arg {
            "-h" | "--help" => return Ok(Command::Help),
            "--scenario" => {
                let named = |name: &str| scenario::find(name).ok_or_else(|| UsageError::Scenario(name.to_owned()));
                scenarios = value("--scenario")?.split(',').map(named).collect::<Result<_, _>>()?;
            }
            "--policy" => {
                let named = |name: &str| find(name).ok_or_else(|| UsageError::Policy(name.to_owned()));
                policies = value("--policy")?.split(',').map(named).collect::<Result<_, _>>()?;
            }
            "--seeds" => seeds = number("--seeds", value("--seeds")?)?,
            "--requests" => requests = number("--requests", value("--requests")?)? as usize,
            "--quick" => (seeds, requests) = (1, 40_000),
            "--json" => json = true,
            _ => return Err(UsageError::Unknown(arg)),
        }
    }
    for scenario in scenarios.iter_mut().filter(|scenario| scenario.fault.is_none()) {
        scenario.requests = requests;
    }
    Ok(Command::Run(Options {
        scenarios,
        policies,
        seeds,
        json,
    }))
}

fn number(option: &'static str, text: String) -> Result<u64, UsageError> {
    match text.parse::<u32>() {
        Ok(number @ 1..) => Ok(number.into()),
        _ => Err(UsageError::Number(option, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &str) -> Result<Command, UsageError> {
        parse(args.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_in_any_order() {
        let Ok(Command::Run(options)) = parsed("--seeds 2 --scenario hang,A --json --policy random --requests 7")
        else {
            panic!("it is well formed");
        };
        let scenarios: Vec<_> = options.scenarios.iter().map(|s| (s.name, s.requests)).collect();
        assert_eq!(scenarios, [("hang", 40_000), ("A", 7)]);
        assert_eq!(
            (options.seeds, options.json, options.policies[0].0),
            (2, true, "random")
        );
        assert!(matches!(
            parsed("--seeds x --help"),
            Err(UsageError::Number("--seeds", _))
        ));
        assert!(matches!(parsed("--quick --help"), Ok(Command::Help)));
        assert!(help().contains("  A2p3 ") && help().contains("  random\n"));
    }

    #[test]
    fn what_cannot_be_obeyed() {
        let error = |args: &str| parsed(args).err().map(|error| error.to_string());
        assert_eq!(error("--seed 1"), Some("unknown option --seed".to_owned()));
        assert_eq!(error("--seeds"), Some("--seeds needs a value".to_owned()));
        assert_eq!(
            error("--requests 0"),
            Some("--requests 0: want a number from 1 on".to_owned())
        );
        assert_eq!(error("--scenario Z"), Some("there is no scenario Z".to_owned()));
        assert_eq!(error("--policy A"), Some("there is no policy A".to_owned()));
    }
}

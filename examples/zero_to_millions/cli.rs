//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Climb the ladder.
    Run(Options),
    /// Print [`HELP`].
    Help,
}

/// The choices of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The access log; without one the workload is generated.
    pub(crate) log: Option<PathBuf>,
    /// A host that is silent for longer starts a new visit.
    pub(crate) session_gap: Duration,
    /// Name the first rung that carries so many users online.
    pub(crate) users: Option<u64>,
    /// Vary each modelled figure.
    pub(crate) sensitivity: bool,
    /// The objective for p99.
    pub(crate) slo: Duration,
    /// A request that takes longer has failed.
    pub(crate) timeout: Duration,
    /// Replaces the built-in hardware figures.
    pub(crate) hardware: Option<PathBuf>,
    /// Decides every random choice.
    pub(crate) seed: u64,
    /// Climb this rung only.
    pub(crate) rung: Option<String>,
    /// Where the JSON goes.
    pub(crate) json: Option<PathBuf>,
    /// Where the HTML page goes.
    pub(crate) html: PathBuf,
    /// Shorter probes: a look, not a measurement.
    pub(crate) quick: bool,
}

/// A command line that cannot be obeyed.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum UsageError {
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("{0} is not an option (a log is named by --log FILE)")]
    Stray(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} takes no value")]
    Value(&'static str),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{option} {value}: {want}")]
    Bad {
        option: &'static str,
        value: String,
        want: String,
    },
    #[error("--timeout-ms must not be below --slo-ms: no answer could be within the objective and in time")]
    TimeoutBelowSlo,
}

/// Reads the arguments, without the program's name.
///
/// # Errors
/// When they cannot be obeyed; see [`UsageError`].
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut given: Vec<(&'static str, Option<OsString>)> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (name, mut value) = split(&arg);
        if name == "--help" || name == "-h" {
            return Ok(Command::Help);
        }
        let Some(&(option, takes_value)) = OPTIONS.iter().find(|(option, _)| *option == name) else {
            return Err(match name.starts_with('-') {
                true => UsageError::Unknown(name),
                false => UsageError::Stray(name),
            });
        };
        match (takes_value, &value) {
            (true, None) => value = Some(args.next().ok_or(UsageError::NoValue(option))?),
            (false, Some(_)) => return Err(UsageError::Value(option)),
            _ => {}
        }
        if given.iter().any(|(before, _)| *before == option) {
            return Err(UsageError::Twice(option));
        }
        given.push((option, value));
    }
    Given(given).options().map(Command::Run)
}

/// The options that were given, each once.
struct Given(Vec<(&'static str, Option<OsString>)>);

impl Given {
    fn options(mut self) -> Result<Options, UsageError> {
        let options = Options {
            log: self.path("--log")?,
            session_gap: Duration::from_secs(self.number("--session-gap", 1..=86_400)?.unwrap_or(300)),
            users: self.number("--users", 1..=u64::MAX)?,
            sensitivity: self.flag("--sensitivity"),
            slo: Duration::from_millis(self.number("--slo-ms", 1..=600_000)?.unwrap_or(250)),
            timeout: Duration::from_millis(self.number("--timeout-ms", 1..=600_000)?.unwrap_or(2_000)),
            hardware: self.path("--hardware")?,
            seed: self.number("--seed", 0..=u64::MAX)?.unwrap_or(1),
            rung: self.rung()?,
            json: self.path("--json")?,
            html: self
                .path("--html")?
                .unwrap_or_else(|| PathBuf::from("target/zero_to_millions.html")),
            quick: self.flag("--quick"),
        };
        if options.timeout < options.slo {
            return Err(UsageError::TimeoutBelowSlo);
        }
        Ok(options)
    }

    fn take(&mut self, option: &'static str) -> Option<Option<OsString>> {
        let at = self.0.iter().position(|(name, _)| *name == option)?;
        Some(self.0.swap_remove(at).1)
    }

    fn flag(&mut self, option: &'static str) -> bool {
        self.take(option).is_some()
    }

    fn path(&mut self, option: &'static str) -> Result<Option<PathBuf>, UsageError> {
        match self.take(option).flatten() {
            Some(path) if path.is_empty() => Err(UsageError::NoValue(option)),
            path => Ok(path.map(PathBuf::from)),
        }
    }

    fn number(
        &mut self,
        option: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, UsageError> {
        let Some(value) = self.take(option).flatten() else {
            return Ok(None);
        };
        let number = value.to_str().and_then(|text| text.parse().ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(UsageError::Bad {
                option,
                value: value.to_string_lossy().into_owned(),
                want: format!("must be a whole number from {} to {}", range.start(), range.end()),
            }),
        }
    }

    fn rung(&mut self) -> Result<Option<String>, UsageError> {
        let Some(value) = self.take("--rung").flatten() else {
            return Ok(None);
        };
        let value = value.to_string_lossy().into_owned();
        if RUNGS.contains(&value.as_str()) {
            return Ok(Some(value));
        }
        Err(UsageError::Bad {
            option: "--rung",
            value,
            want: format!("must be one of {}", RUNGS.join(", ")),
        })
    }
}

/// Splits `--name=value`.
fn split(arg: &OsStr) -> (String, Option<OsString>) {
    let text = arg.to_string_lossy();
    match (arg.to_str(), text.split_once('=')) {
        (Some(_), Some((name, value))) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
        _ => (text.into_owned(), None),
    }
}

/// What `--rung` may name, from the lowest rung up.
pub(crate) const RUNGS: [&str; 10] = [
    "single",
    "single-x2",
    "single-x4",
    "database",
    "balancer",
    "replication",
    "cache",
    "queue",
    "sharding",
    "data-centres",
];

/// Each option, and whether it takes a value.
const OPTIONS: [(&str, bool); 12] = [
    ("--log", true),
    ("--session-gap", true),
    ("--users", true),
    ("--sensitivity", false),
    ("--slo-ms", true),
    ("--timeout-ms", true),
    ("--hardware", true),
    ("--seed", true),
    ("--rung", true),
    ("--json", true),
    ("--html", true),
    ("--quick", false),
];

/// The answer to `--help`.
pub(crate) const HELP: &str = "\
How many users online does each rung of the scaling ladder carry, and what gives first? Real blocks of this crate run in
virtual time over modelled machines, under traffic replayed from an access log.

Usage: zero_to_millions [--log FILE] [options]

  --log FILE          access log, plain or gzip: Common, Combined or EPA format (default: a generated workload)
  --session-gap S     a host silent for longer starts a new visit (300)
  --users N           name the first rung that carries N users online
  --slo-ms MS         the objective for p99 (250)
  --timeout-ms MS     a request that takes longer has failed (2000)
  --hardware FILE     replaces the built-in hardware.toml
  --sensitivity       vary each modelled figure by 25 % either way (slow)
  --rung ID           climb one rung only: single, single-x2, single-x4, database, balancer, replication, cache, queue,
                      sharding or data-centres
  --seed N            decides every random choice (1)
  --quick             shorter probes: a look, not a measurement
  --json FILE         write the result as JSON
  --html FILE         write the result as a page (target/zero_to_millions.html)
  --help              print this

Exit status: 0 done, 1 the input cannot be used or the output not written, 2 the command line is wrong.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &str) -> Result<Options, UsageError> {
        match parse(args.split_whitespace().map(OsString::from))? {
            Command::Run(options) => Ok(options),
            Command::Help => panic!("no help was asked for"),
        }
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let defaults = options("").expect("no option is needed");
        assert_eq!(defaults.session_gap, Duration::from_secs(300));
        assert_eq!((defaults.slo, defaults.seed), (Duration::from_millis(250), 1));
        assert_eq!(defaults.html, PathBuf::from("target/zero_to_millions.html"));
        assert_eq!((defaults.log, defaults.json, defaults.users), (None, None, None));
        for (option, _) in OPTIONS {
            assert!(HELP.contains(&format!("\n  {option} ")), "{option}");
        }
        assert!(RUNGS.iter().all(|rung| HELP.contains(rung)));
    }

    #[test]
    fn every_option_is_heard() {
        let all = "--log a.log --session-gap=60 --users 7 --sensitivity --slo-ms 10 --timeout-ms 20 --hardware h.toml \
                   --seed 0 --rung cache --json=j=1 --html h.html --quick";
        let want = Options {
            log: Some("a.log".into()),
            session_gap: Duration::from_secs(60),
            users: Some(7),
            sensitivity: true,
            slo: Duration::from_millis(10),
            timeout: Duration::from_millis(20),
            hardware: Some("h.toml".into()),
            seed: 0,
            rung: Some("cache".into()),
            json: Some("j=1".into()),
            html: "h.html".into(),
            quick: true,
        };
        assert_eq!(options(all), Ok(want));
        assert_eq!(parse(["--quick".into(), "-h".into()]), Ok(Command::Help));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_name() {
        for (args, want) in [
            ("--lgo a", "unknown option --lgo"),
            ("a.log", "a.log is not an option (a log is named by --log FILE)"),
            ("--log", "--log needs a value"),
            ("--log=", "--log needs a value"),
            ("--quick=yes", "--quick takes no value"),
            ("--seed 1 --seed 2", "--seed is given twice"),
            (
                "--seed -1",
                "--seed -1: must be a whole number from 0 to 18446744073709551615",
            ),
            (
                "--session-gap 0",
                "--session-gap 0: must be a whole number from 1 to 86400",
            ),
            (
                "--users many",
                "--users many: must be a whole number from 1 to 18446744073709551615",
            ),
            (
                "--slo-ms 250.5",
                "--slo-ms 250.5: must be a whole number from 1 to 600000",
            ),
            (
                "--slo-ms 3000",
                "--timeout-ms must not be below --slo-ms: no answer could be within the objective and in time",
            ),
        ] {
            assert_eq!(options(args).map_err(|e| e.to_string()), Err(want.to_owned()), "{args}");
        }
        let error = options("--rung moon").map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.starts_with("--rung moon: must be one of single, ")));
    }

    #[test]
    fn paths_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let path = OsString::from_vec(b"\xff.log".to_vec());
        let Ok(Command::Run(options)) = parse(["--log".into(), path.clone()]) else {
            panic!("a path of any bytes is fine");
        };
        assert_eq!(options.log, Some(path.into()));
    }
}

//! Everything that a climb needs, loaded and checked.

use crate::access_log::{self, LogError};
use crate::cli::Options;
use crate::collect::Collector;
use crate::figures::HardwareError;
use crate::generated;
use crate::hardware::Hardware;
use crate::report::InputSummary;
use crate::summary::LogSummary;
use crate::visits::Visits;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// What a climb runs on.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(crate) options: Options,
    pub(crate) visits: Arc<Visits>,
    pub(crate) log: LogSummary,
    pub(crate) hardware: Hardware,
}

/// An input that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum InputError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{}: {why}", path.display())]
    Hardware { path: PathBuf, why: HardwareError },
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
}

impl Inputs {
    /// Loads what the options name.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub(crate) fn load(options: Options) -> Result<Inputs, InputError> {
        let hardware = match &options.hardware {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|why| InputError::Io {
                    path: path.clone(),
                    why,
                })?;
                Hardware::parse(&text).map_err(|why| InputError::Hardware {
                    path: path.clone(),
                    why,
                })?
            }
            None => Hardware::built_in(),
        };
        let mut collector = Collector::default();
        let count = match &options.log {
            Some(path) => access_log::read(path, &mut collector)?,
            None => generated::fill(&mut collector, options.seed),
        };
        let visits = collector
            .visits(options.session_gap)
            .expect("broken invariant: a log without requests is refused when it is read");
        let log = LogSummary::new(count, &visits, &hardware, options.log.is_none());
        Ok(Inputs {
            options,
            visits: Arc::new(visits),
            log,
            hardware,
        })
    }

    /// The choices, for the report.
    pub(crate) fn summary(&self) -> InputSummary {
        let options = &self.options;
        let name = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        InputSummary {
            log: name(&options.log),
            hardware: name(&options.hardware),
            seed: options.seed,
            session_gap_s: options.session_gap.as_secs(),
            slo_ms: options.slo.as_millis() as u64,
            timeout_ms: options.timeout.as_millis() as u64,
            users: options.users,
            rung: options.rung.clone(),
            quick: options.quick,
            sensitivity: options.sensitivity,
        }
    }
}

//! How many users does each rung of the scaling ladder carry, and what gives first?
//!
//! `cargo run --release --example zero_to_millions -- --log access.log` replays the visits of an access log against
//! modelled machines that run the real blocks of this crate in virtual time; `--help` tells the rest.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "it is the outside world here: it reads and writes real files"
)]

mod access_log;
mod cli;
mod climb;
mod collect;
mod figures;
mod generated;
mod hardware;
mod inputs;
mod line;
mod output;
mod progress;
mod report;
mod summary;
mod traffic;
mod visits;

use cli::{Command, Options};
use inputs::Inputs;
use progress::Progress;
use report::Report;
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            output::say(cli::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}; --help tells more");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn Error + Send + Sync>> {
    let inputs = Inputs::load(options)?;
    let options = &inputs.options;
    for path in options.json.iter().chain([&options.html]) {
        output::prepare(path)?;
    }
    output::say(&report::before(&Report::new(&inputs, Vec::new(), Vec::new())));
    let progress = Progress::new(climb::steps(&inputs));
    let rungs = climb::climb(&inputs, &progress)?;
    let sensitivity = if options.sensitivity {
        climb::sensitivity(&inputs, &progress)?
    } else {
        Vec::new()
    };
    progress.finish();
    let report = Report::new(&inputs, rungs, sensitivity);
    output::say(&report::after(&report));
    if let Some(path) = &options.json {
        output::write(path, &report::json(&report))?;
    }
    Ok(output::write(&options.html, &report::html(&report))?)
}

//! How long do requests take under each balancing policy, beside the best that is possible?
//!
//! `cargo run --release --example tail_latency` prints a table for each scenario; `--help` tells the rest.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod cli;
mod clock;
mod contestants;
mod figures;
#[allow(dead_code, reason = "for the tests")]
mod goals;
mod gray;
mod ideal;
mod queues;
mod report;
mod scenario;
mod world;

use cli::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => print!("{}", cli::help()),
        Ok(Command::Run(options)) if options.json => println!("{}", report::json(&options)),
        Ok(Command::Run(options)) => report::tables(&options).for_each(|table| println!("{table}")),
        Err(error) => {
            eprintln!("error: {error}; --help tells more");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

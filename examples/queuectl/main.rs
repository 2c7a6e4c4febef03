//! Looks after the directory of a durable queue, on a live or a dead one.
//!
//! `cargo run --example queuectl -- DIR {status|peek|verify|dump|redrive|repair}`; `--help` tells the rest, and without
//! arguments it shows all of it on a queue made for that.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "it is the outside world here: it looks at real files and at who has them open"
)]

mod cli;
mod demo;
mod holder;
mod look;
mod mend;
mod progress;
mod text;

use cli::{Command, Request};
use futures::executor::block_on;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Sound,
    Damaged,
}

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os().skip(1)) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("error: {error}; --help tells more");
            return ExitCode::from(2);
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match request {
        Request::Help => write!(out, "{}", cli::HELP)
            .map(|()| Outcome::Sound)
            .map_err(Error::from),
        Request::Demo => demo::run(&mut out).map(|()| Outcome::Sound),
        Request::Run(dir, command) => block_on(run(&dir, &command, &mut out)),
    };
    let done = done.and_then(|outcome| Ok(out.flush().map(|()| outcome)?));
    match done {
        Ok(Outcome::Sound) => ExitCode::SUCCESS,
        Ok(Outcome::Damaged) => ExitCode::from(1),
        // A reader who has gone away (`| head`) has seen enough.
        Err(error) if is_gone(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            drop(out.flush());
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

fn is_gone(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let json = error
        .downcast_ref::<serde_json::Error>()
        .and_then(serde_json::Error::io_error_kind);
    io.or(json) == Some(io::ErrorKind::BrokenPipe)
}

async fn run(dir: &Path, command: &Command, out: &mut impl Write) -> Result<Outcome> {
    match command {
        Command::Status => look::status(dir, out).await,
        Command::Peek {
            topic,
            subscription,
            count,
        } => look::peek(dir, topic, subscription.as_deref(), *count, out).await,
        Command::Verify => look::verify(dir, out).await,
        Command::Dump { topic, settled_too } => look::dump(dir, topic.as_deref(), *settled_too, out).await,
        Command::Redrive {
            topic,
            subscription,
            max,
        } => mend::redrive(dir, topic, subscription.as_deref(), *max, out).await,
        Command::Repair => mend::repair(dir, out).await,
    }
}

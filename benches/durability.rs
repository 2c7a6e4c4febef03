//! What do the durable queue and its peers lose, and what do they say, when things go wrong?
//!
//! Each store is run by a process of its own, which tells its parent of every message that it was told is safe; then
//! something happens to the process, the machine, the disk or the file, and another process reads what is there. `lost`
//! counts messages that were acknowledged and are not there, `WRONG` such that are not as they were sent. Stores sync
//! before they return, except those that cannot (`yaque`). What needs root, loop devices or strace is skipped where they
//! are missing, and says so. The first argument picks stores by a part of their names; `OUTGROW_QUICK=1` kills less often.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(clippy::disallowed_methods, reason = "it acts as the outside world")]

mod faults;
#[path = "queues/place.rs"]
mod place;
#[allow(dead_code, reason = "it has no rounds")]
#[path = "queues/words.rs"]
mod words;

use faults::child::{self, Job};
use faults::columns::{APART, COLUMNS, is_root};
use faults::drivers;
use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

/// The word that says that it runs in a mount namespace of its own already.
const INSIDE: &str = "inside";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = &words[..]
        && (role == "write" || role == "read")
    {
        be_a_child(role, rest);
        return ExitCode::SUCCESS;
    }
    if words.first().is_none_or(|word| word != INSIDE) && is_root() && apart() {
        let me = std::env::current_exe().expect("it runs");
        let status = Command::new(APART[0])
            .args(&APART[1..])
            .arg(me)
            .arg(INSIDE)
            .args(words)
            .status();
        let succeeded = status.expect("it could be run a moment ago").success();
        return if succeeded {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let words: Vec<String> = words.into_iter().filter(|word| word != INSIDE).collect();
    print_matrix(words::filter(&words));
    ExitCode::SUCCESS
}

/// Whether a program can be run in a mount namespace of its own.
fn apart() -> bool {
    let tried = Command::new(APART[0]).args(&APART[1..]).arg("true").output();
    tried.is_ok_and(|output| output.status.success())
}

fn be_a_child(role: &str, words: &[String]) {
    let [name, dir, port, numbers @ ..] = words else {
        panic!("a child is told what to do: {words:?}")
    };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().expect("a number")).collect();
    let [first, count, size] = numbers[..] else {
        panic!("a child is told how much to do: {numbers:?}")
    };
    let kinds = drivers::all();
    let kind = kinds
        .iter()
        .find(|kind| kind.name == name)
        .expect("a store that there is");
    let port = port.parse().expect("a port");
    let size = size as usize;
    match role {
        "read" => child::read(kind, dir.as_ref(), port),
        _ => child::write(kind, dir.as_ref(), port, Job { first, count, size }),
    }
}

fn print_matrix(filter: &str) {
    let quick = words::quick();
    let heads: Vec<&str> = COLUMNS.iter().map(|(head, _)| *head).collect();
    println!("| store | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(COLUMNS.len()));
    let mut skipped = BTreeSet::new();
    for kind in drivers::all().iter().filter(|kind| kind.name.contains(filter)) {
        let cells = COLUMNS.iter().map(|(head, run)| {
            eprintln!("{}: {head}", kind.name);
            run(kind, quick).unwrap_or_else(|why| {
                skipped.insert(format!("* skipped: {head}: {why}"));
                "skipped".to_owned()
            })
        });
        let cells: Vec<String> = cells.collect();
        println!("| {} | {} |", kind.name, cells.join(" | "));
    }
    skipped.iter().for_each(|line| println!("{line}"));
}

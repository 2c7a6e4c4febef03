//! The last test program of a run (they run in the order of their names): prints the seeds, crashes and faults that
//! simulations counted, and which tests were skipped because this machine lacks something. It has no test harness,
//! since that would hide its output.
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]
#![allow(clippy::print_stdout, reason = "printing is its purpose")]

mod support;

use std::path::Path;
use support::record::{Run, summary};

fn main() {
    // A harness that only wants to know which tests there are gets none.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let run = Run::current();
    let text = summary(&run.records());
    run.finish();
    // `./test.sh` prints this once more, at its own end.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("summary.txt");
    std::fs::write(copy, &text).expect("a target folder that can be written");
    println!("\n{text}");
}

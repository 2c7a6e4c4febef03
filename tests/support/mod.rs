//! What the test programs share: how many seeds to run, what this machine lacks, and counts for the report that
//! `zz_skipped` prints last.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

pub(crate) mod counting;
pub(crate) mod record;

use self::record::{Record, Run};
use outgrow::sim::FaultCounts;
use std::cell::Cell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Seeds of a simulation in plain `cargo test`; `./test.sh` runs 1,000 and `./test.sh --long` 10,000.
pub(crate) const SEEDS: u64 = 200;

/// The seeds that a simulation has to run: `0..default`, unless `OUTGROW_SEEDS` says how many (`1000`), or
/// `OUTGROW_SEED` which one (`17`), which is how a failing one is run again. `outgrow::sim::each_seed` does the same.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    choose_seeds(
        default,
        variable("OUTGROW_SEED").as_deref(),
        variable("OUTGROW_SEEDS").as_deref(),
    )
}

/// The line that runs one seed of a test program again, for the message of its failure.
pub(crate) fn replay(program: &str, test: &str, seed: u64) -> String {
    format!("OUTGROW_SEED={seed} cargo test --all-features --test {program} {test}")
}

/// Whether the proofs that take long were asked for (`./test.sh --long`).
pub(crate) fn long() -> bool {
    variable("OUTGROW_LONG").is_some()
}

/// How often this thread has panicked since it first asked. A task that panics ends alone, and only its owner is told; a
/// simulation, whose tasks all run on one thread, has to fail all the same.
pub(crate) fn panics() -> u64 {
    thread_local!(static PANICS: Cell<u64> = const { Cell::new(0) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.get()
}

/// Where `what` is, or `None` when this machine lacks it, which is recorded and printed last: a test then returns.
///
/// `what` is a folder of the shared data (`traces`, `vectors`, `geo`) or a program on the search path
/// (`redis-server`).
///
/// # Panics
/// When it is absent and `OUTGROW_REQUIRE=1`, unless `OUTGROW_LACKS` names it as what cannot be had.
#[track_caller]
pub(crate) fn need(what: &str) -> Option<PathBuf> {
    let found = find(what);
    if found.is_none() {
        let caller = std::panic::Location::caller();
        let test = std::thread::current().name().unwrap_or("main").to_owned();
        skip(what, &format!("{test} ({}:{})", caller.file(), caller.line()));
    }
    found
}

/// Records that this process may not do `what` here, as a container may not mount: the test then returns. Unlike an absent
/// program that is no failure when everything is asked for, since nobody can install it.
#[track_caller]
pub(crate) fn may_not(what: &str) {
    let caller = std::panic::Location::caller();
    let test = std::thread::current().name().unwrap_or("main").to_owned();
    Run::current().add(&Record::Skip {
        what: format!("permission to {what}"),
        test: format!("{test} ({}:{})", caller.file(), caller.line()),
    });
}

/// Adds `value` to the count `key` of the report `name`; for example the faults that a simulation injected, by kind.
pub(crate) fn report(name: &str, key: &str, value: u64) {
    Run::current().add(&Record::Count {
        name: name.to_owned(),
        key: key.to_owned(),
        value,
    });
}

/// Adds the `seeds` that a simulation ran, and the faults injected in them by kind, to the report `name`.
pub(crate) fn report_faults(name: &str, seeds: u64, faults: &FaultCounts) {
    report(name, "seeds", seeds);
    for (kind, count) in faults.iter() {
        report(name, &kind.to_string(), count);
    }
}

/// The folder of shared data: `OUTGROW_SHARED`, else `shared` beside the package.
pub(crate) fn shared() -> PathBuf {
    variable("OUTGROW_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    )
}

fn find(what: &str) -> Option<PathBuf> {
    match what {
        "traces" | "vectors" | "geo" => Some(shared().join(what)).filter(|path| path.is_dir()),
        program => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file()),
    }
}

fn skip(what: &str, test: &str) {
    let lacks = variable("OUTGROW_LACKS").unwrap_or_default();
    assert!(
        variable("OUTGROW_REQUIRE").as_deref() != Some("1") || lacks.split(' ').any(|lacked| lacked == what),
        "`{what}` is not on this machine, and OUTGROW_REQUIRE=1 asks for everything"
    );
    Run::current().add(&Record::Skip {
        what: what.to_owned(),
        test: test.to_owned(),
    });
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn choose_seeds(default: u64, one: Option<&str>, count: Option<&str>) -> Range<u64> {
    let number = |name: &str, text: &str| match text.parse::<u64>() {
        Ok(number) => number,
        Err(_) => panic!("{name} is {text:?}, which is not a number"),
    };
    match (one, count) {
        (Some(one), _) => {
            let seed = number("OUTGROW_SEED", one);
            seed..seed + 1
        }
        (None, Some(count)) => 0..number("OUTGROW_SEEDS", count),
        (None, None) => 0..default,
    }
}

//! The helper that tests lean on keeps its word.
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::record::{Record, Run, summary};
use support::{choose_seeds, need, replay};

#[test]
fn seeds_are_a_count_or_one_of_them() {
    assert_eq!(choose_seeds(200, None, None), 0..200);
    assert_eq!(choose_seeds(200, None, Some("1000")), 0..1000);
    assert_eq!(choose_seeds(200, Some("17"), Some("1000")), 17..18);
    assert_eq!(
        replay("sim_queue", "f", 17),
        "OUTGROW_SEED=17 cargo test --all-features --test sim_queue f"
    );
}

#[test]
#[should_panic(expected = "OUTGROW_SEEDS is \"many\", which is not a number")]
fn seeds_that_are_no_number_are_refused() {
    choose_seeds(200, None, Some("many"));
}

#[test]
fn a_run_keeps_its_own_records_and_clears_those_of_dead_ones() {
    let folder = folder("runs");
    let mine = Run::of(&folder, std::process::id());
    // No process has this id: Linux stops at 2^22.
    let dead = Run::of(&folder, u32::MAX);
    let (skip, count) = (skip("traces", "climbs"), count("queue", "crashes", 3));
    dead.add(&skip);
    mine.add(&count);
    assert_eq!(mine.records(), [count], "an earlier run's skip is not this one's");
    assert_eq!(dead.records(), [skip]);
    mine.finish();
    assert_eq!(mine.records(), []);
    assert_eq!(dead.records(), [], "nobody is left to read it");
}

#[test]
fn a_summary_adds_counts_up_and_names_each_skip_once() {
    let records = [
        count("queue", "crashes", 3),
        count("queue", "crashes", 4),
        skip("traces", "climbs"),
        skip("traces", "climbs"),
    ];
    let text = summary(&records);
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed, "queue: crashes 7 skipped, for want of `traces`: climbs");
    assert_eq!(summary(&[]), "skipped: nothing\n");
}

/// Run as a child by the next test, under other variables. On its own it skips nothing.
#[test]
fn child_needs_traces() {
    if std::env::var_os("OUTGROW_TEST_CHILD").is_some() {
        let _: Option<PathBuf> = need("traces");
        assert!(need("no-such-program").is_none());
    }
}

#[test]
fn absence_is_a_recorded_skip_or_with_require_a_failure() {
    let run = |require: &str, shared: &Path| {
        Command::new(std::env::current_exe().expect("a path"))
            .args(["child_needs_traces", "--exact"])
            .env("OUTGROW_TEST_CHILD", "1")
            .env("OUTGROW_REQUIRE", require)
            .env("OUTGROW_SHARED", shared)
            .output()
            .expect("our own program starts")
    };
    let (nothing, with_traces) = (folder("nothing"), folder("shared"));
    std::fs::create_dir_all(with_traces.join("traces")).expect("a target folder that can be written");
    assert!(run("", &nothing).status.success(), "a skip passes");
    // The child was started by this process, so its records are those of the run with our id.
    let children = Run::of(Path::new(env!("CARGO_TARGET_TMPDIR")), std::process::id());
    let text = summary(&children.records());
    assert!(
        text.contains("`traces`") && text.contains("child_needs_traces (tests/support_works.rs:"),
        "{text}"
    );
    children.finish();
    assert!(run("", &with_traces).status.success(), "what is there is found");
    let text = summary(&children.records());
    assert!(
        !text.contains("`traces`") && text.contains("`no-such-program`"),
        "{text}"
    );
    children.finish();
    let failed = run("1", &nothing);
    assert!(!failed.status.success(), "OUTGROW_REQUIRE=1 refuses a skip");
    let output = String::from_utf8_lossy(&failed.stdout).into_owned() + &String::from_utf8_lossy(&failed.stderr);
    assert!(output.contains("`traces` is not on this machine"), "{output}");
}

fn skip(what: &str, test: &str) -> Record {
    Record::Skip {
        what: what.to_owned(),
        test: test.to_owned(),
    }
}

fn count(name: &str, key: &str, value: u64) -> Record {
    Record::Count {
        name: name.to_owned(),
        key: key.to_owned(),
        value,
    }
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("support_works").join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("our own folder");
    }
    std::fs::create_dir_all(&path).expect("a target folder that can be written");
    path
}

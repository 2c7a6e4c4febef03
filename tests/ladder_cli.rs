//! The ladder as a program: exit codes, the one line on standard error, and what it reads out of small logs.
#![allow(
    clippy::disallowed_methods,
    reason = "the test is the outside world: it writes files and starts the program"
)]

#[path = "support/example.rs"]
mod example;

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A folder of its own for each test, removed when the test passes.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("outgrow-ladder-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn run(args: &[&str]) -> Output {
    example::run("zero_to_millions", args)
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// Fails with `code` and exactly one line on standard error, which holds `words`; prints nothing else.
#[track_caller]
fn assert_refused(args: &[&str], code: i32, words: &str) {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert_eq!(
        (error.lines().count(), output.stdout.len()),
        (1, 0),
        "{args:?}: {error}"
    );
    assert!(
        error.starts_with("error: ") && error.contains(words),
        "{args:?}: {error}"
    );
}

#[test]
fn a_wrong_command_line_is_refused_with_2() {
    assert_refused(&["--lgo", "x"], 2, "unknown option --lgo");
    assert_refused(&["access.log"], 2, "access.log is not an option");
    assert_refused(&["--log"], 2, "--log needs a value");
    assert_refused(&["--seed", "one"], 2, "--seed one: must be a whole number");
    assert_refused(&["--users", "0"], 2, "--users 0: must be");
    assert_refused(&["--rung", "moon"], 2, "--rung moon: must be one of single");
    assert_refused(&["--slo-ms", "5000"], 2, "--timeout-ms must not be below --slo-ms");
}

#[test]
fn a_short_climb_runs_the_real_blocks_and_a_seed_repeats_it() {
    let folder = Folder::new("climb");
    let climb = |name: &str| {
        let (json, html) = (
            folder.0.join(format!("{name}.json")),
            folder.0.join(format!("{name}.html")),
        );
        let (json_path, html_path) = (json.to_string_lossy(), html.to_string_lossy());
        let output = run(&[
            "--quick", "--rung", "balancer", "--users", "10000", "--json", &json_path, "--html", &html_path,
        ]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), &*error), (Some(0), ""));
        let read = |path| std::fs::read_to_string(path).expect("the program wrote it");
        (
            String::from_utf8(output.stdout).expect("the table is text"),
            read(json),
            read(html),
        )
    };
    let (text, json, html) = climb("one");
    assert!(text.contains("this is a GENERATED workload"), "{text}");
    assert!(
        text.contains("10,000 users online: \"load balancer\" is the first rung"),
        "{text}"
    );
    let report: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
    let rung = &report["rungs"][0];
    assert_eq!(rung["id"], "balancer");
    assert!(rung["users"].as_u64().is_some_and(|users| users > 10_000), "{rung}");
    assert!(
        rung["p99_ms"].as_f64().is_some_and(|ms| ms > 1.0 && ms <= 250.0),
        "{rung}"
    );
    assert_eq!(rung["saturated"]["resources"][0]["name"], "database cpu", "{rung}");
    assert_eq!(
        (&rung["drill"]["survived"], &rung["drill"]["lost_acknowledged_writes"]),
        (&true.into(), &0.into())
    );
    assert!(
        rung["drill"]["lost_visits"].as_u64().is_some_and(|lost| lost > 0),
        "{rung}"
    );
    assert!(html.contains("<svg"));
    let again = climb("two");
    assert_eq!((text, json, html), again);
}

/// The built-in hardware with one core a machine that takes 20 times as long for everything: the rungs are the same, and
/// so few users are too many that a search through them is short.
fn slow_hardware() -> String {
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/zero_to_millions/hardware.toml");
    let text = std::fs::read_to_string(built_in).expect("a file of the package");
    let slow = |line: &str| {
        let Some((key, rest)) = line.split_once("{ value = ") else {
            return line.to_owned();
        };
        let (value, why) = rest.split_once(',').expect("a reason follows each value");
        match (key.contains("cpu_ms"), key.starts_with("cores ")) {
            (true, _) => format!(
                "{key}{{ value = {}, {why}",
                value.parse::<f64>().expect("a number") * 20.0
            ),
            (_, true) => format!("{key}{{ value = 1, {why}"),
            _ => line.to_owned(),
        }
    };
    let lines: Vec<String> = text.lines().map(slow).collect();
    lines.join("\n")
}

#[test]
fn a_lost_region_loses_no_write_and_its_users_are_answered_by_the_others() {
    let folder = Folder::new("regions");
    let hardware = folder.file("slow.toml", slow_hardware().as_bytes());
    let climb = |name: &str| {
        let [json, html] = ["json", "html"].map(|kind| folder.0.join(format!("{name}.{kind}")));
        let [hardware_path, json_path, html_path] = [&hardware, &json, &html].map(|path| path.to_string_lossy());
        let output = run(&[
            "--quick",
            "--rung",
            "data-centres",
            "--slo-ms",
            "1000",
            "--hardware",
            &hardware_path,
            "--json",
            &json_path,
            "--html",
            &html_path,
        ]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), &*error), (Some(0), ""));
        let read = |path| std::fs::read_to_string(path).expect("the program wrote it");
        let text = String::from_utf8(output.stdout).expect("the table is text");
        (text, read(json), read(html))
    };
    let (text, json, html) = climb("one");
    let report: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
    let (rung, drill) = (&report["rungs"][0], &report["rungs"][0]["drill"]);
    assert_eq!(
        (&rung["id"], &rung["name"]),
        (&"data-centres".into(), &"data centres".into())
    );
    assert!(rung["users"].as_u64().is_some_and(|users| users > 1_000), "{rung}");
    assert_eq!(
        (&drill["survived"], &drill["lost_acknowledged_writes"]),
        (&true.into(), &0.into())
    );
    // Three missed checks of a third of a second, and until the next request.
    let rerouted = drill["rerouted_ms"].as_f64().expect("others answered its users");
    assert!((300.0..1_500.0).contains(&rerouted), "{rerouted}");
    let regions = drill["regions"].as_array().expect("an array");
    let number = |region: usize, key: &str| regions[region][key].as_f64().expect("a number");
    assert_eq!(regions[0]["region"], "Dublin");
    assert!(
        number(0, "failed") > 0.0 && number(0, "failed") > number(2, "failed"),
        "{drill}"
    );
    for region in 0..3 {
        assert!(number(region, "requests") > number(region, "failed") * 2.0, "{drill}");
        assert!(
            number(region, "p99_during_ms") >= number(region, "p99_before_ms"),
            "{drill}"
        );
        assert!(number(region, "p99_after_ms") < number(0, "p99_during_ms"), "{drill}");
    }
    assert!(text.contains("Its users were answered elsewhere after"), "{text}");
    assert!(text.contains("3 regions, each with "), "{text}");
    assert_eq!(html.matches("<svg").count(), 2);
    assert_eq!((text, json, html), climb("two"));
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--session-gap"));
}

#[test]
fn a_log_that_cannot_be_used_is_refused_with_1() {
    let folder = Folder::new("unusable");
    let refused = |path: &Path, words| assert_refused(&["--log", &path.to_string_lossy()], 1, words);
    refused(&folder.0.join("absent.log"), "absent.log: no such file");
    refused(&folder.0, "is a directory");
    refused(&folder.file("empty.log", b""), "empty.log: the file is empty");
    refused(&folder.file("empty.gz", &gzip(b"")), "empty.gz: the file is empty");
    refused(&folder.file("prose.log", b"one\ntwo\n"), "none of its 2 lines");
    let whole = gzip(&std::fs::read(data("common.log")).expect("a file of the package"));
    refused(
        &folder.file("half.gz", &whole[..whole.len() / 2]),
        "half.gz: the gzip data ends in the middle",
    );
    let mut damaged = whole.clone();
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 0xff;
    refused(
        &folder.file("damaged.gz", &damaged),
        "damaged.gz: the gzip data is damaged",
    );
}

#[test]
fn bad_hardware_is_refused_by_name_with_1() {
    let folder = Folder::new("hardware");
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/zero_to_millions/hardware.toml");
    let text = std::fs::read_to_string(built_in).expect("a file of the package");
    let refused = |name: &str, text: &str, words| {
        let path = folder.file(name, text.as_bytes());
        assert_refused(
            &["--log", &data("epa.log"), "--hardware", &path.to_string_lossy()],
            1,
            words,
        );
    };
    refused(
        "missing.toml",
        &text.replacen("row_skew ", "row_skwe ", 1),
        "missing.toml: `workload.row_skew` is missing",
    );
    refused(
        "range.toml",
        &text.replacen("{ value = 0.9,", "{ value = -1,", 1),
        "`workload.row_skew` = -1: must be from 0 to 3",
    );
    refused(
        "type.toml",
        &text.replacen("{ value = 0.9,", "{ value = true,", 1),
        "`workload.row_skew` must be a number, not boolean true",
    );
    refused("syntax.toml", "[workload", "syntax.toml: not TOML: ");
    let absent = folder.0.join("absent.toml");
    assert_refused(&["--hardware", &absent.to_string_lossy()], 1, "absent.toml: ");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_the_climb() {
    let folder = Folder::new("output");
    let file = folder.file("file", b"");
    let below_a_file = file.join("page.html");
    let log = data("epa.log");
    assert_refused(
        &["--log", &log, "--html", &below_a_file.to_string_lossy()],
        1,
        "page.html: ",
    );
    let html = folder.0.join("page.html");
    let args = [
        "--log",
        &log,
        "--html",
        &html.to_string_lossy(),
        "--json",
        &folder.0.to_string_lossy(),
    ];
    assert_refused(&args, 1, "directory");
}

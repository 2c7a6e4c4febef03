//! Records that outlive the test program that made them, kept per run of `cargo test`.
//!
//! A passing test's output is hidden, and each test program is a process of its own; so they append lines to one file,
//! which the last program reads. The file carries the process id of the `cargo` that started them all: what an earlier
//! run left behind is never taken for this one's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One thing that a test program says to whoever reads the end of the run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `test` was not run, for want of `what`.
    Skip { what: String, test: String },
    /// `value` more of `key`, in the report called `name`.
    Count { name: String, key: String, value: u64 },
}

impl Record {
    fn to_line(&self) -> String {
        let clean = |text: &str| text.replace(['\t', '\n'], " ");
        match self {
            Record::Skip { what, test } => format!("skip\t{}\t{}\n", clean(what), clean(test)),
            Record::Count { name, key, value } => format!("count\t{}\t{}\t{value}\n", clean(name), clean(key)),
        }
    }

    fn from_line(line: &str) -> Option<Record> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["skip", what, test] => Some(Record::Skip {
                what: what.to_owned(),
                test: test.to_owned(),
            }),
            ["count", name, key, value] => Some(Record::Count {
                name: name.to_owned(),
                key: key.to_owned(),
                value: value.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// The records of one run of `cargo test`.
#[derive(Debug)]
pub(crate) struct Run {
    folder: PathBuf,
    id: u32,
}

impl Run {
    /// The run that this process belongs to: that of the process which started it.
    pub(crate) fn current() -> Run {
        Run::of(
            Path::new(env!("CARGO_TARGET_TMPDIR")),
            std::os::unix::process::parent_id(),
        )
    }

    /// The run with this id, whose records are kept in `folder`.
    pub(crate) fn of(folder: &Path, id: u32) -> Run {
        Run {
            folder: folder.to_owned(),
            id,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{PREFIX}{}", self.id))
    }

    /// Appends `record`, whole even when other processes append at the same time.
    pub(crate) fn add(&self, record: &Record) {
        fs::create_dir_all(&self.folder).expect("a target folder that can be written");
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path())
            .and_then(|mut file| file.write_all(record.to_line().as_bytes()))
            .expect("a target folder that can be written");
    }

    /// All records so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().filter_map(Record::from_line).collect()
    }

    /// Removes this run's records, and those of runs whose `cargo` is gone.
    pub(crate) fn finish(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            if id == self.id.to_string() || !Path::new("/proc").join(id).exists() {
                // Another run that ends now may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

const PREFIX: &str = "outgrow-run-";

/// What the last test program prints: the counts of each report, then what was skipped.
pub(crate) fn summary(records: &[Record]) -> String {
    let mut counts: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in records {
        match record {
            Record::Skip { what, test } => {
                skipped.entry(what).or_default().insert(test);
            }
            Record::Count { name, key, value } => {
                *counts.entry(name).or_default().entry(key).or_default() += value;
            }
        }
    }
    let mut text = String::new();
    for (name, counts) in counts {
        let _ = writeln!(text, "{name}:");
        for (key, value) in counts {
            let _ = writeln!(text, "  {key:<40} {value:>12}");
        }
    }
    if skipped.is_empty() {
        text.push_str("skipped: nothing\n");
    }
    for (what, tests) in skipped {
        let _ = writeln!(text, "skipped, for want of `{what}`:");
        for test in tests {
            let _ = writeln!(text, "  {test}");
        }
    }
    text
}

//! What a child said, and what that means.

use super::child::{DONE, OPENED, WAITS};
use super::process::{Process, Said};
use std::collections::BTreeSet;

/// How listening came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It waits, or has done everything.
    Waits,
    /// There was enough to hear.
    Enough,
    /// The process ended.
    Ended,
    /// It says nothing more.
    Silent,
}

/// What a child that writes has said.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) acked: BTreeSet<u64>,
    pub(super) opened: bool,
    /// Why it could not open the store.
    pub(super) refused: Option<String>,
    /// Why the first send that failed did.
    pub(super) failed: Option<String>,
    /// How many sends were taken after that.
    pub(super) acked_after: usize,
    /// Whether the oldest message could be taken away after that.
    pub(super) removed: Option<bool>,
}

impl Written {
    /// Listens until it waits, has gone, or has said enough.
    pub(super) fn listen(&mut self, process: &mut Process, enough: impl Fn(&Written) -> bool) -> End {
        loop {
            match process.next() {
                Said::Line(line) if line == WAITS => return End::Waits,
                Said::Line(line) => self.note(&line),
                Said::Ended => return End::Ended,
                Said::Silent => return End::Silent,
            }
            if enough(self) {
                return End::Enough;
            }
        }
    }

    /// The messages that have to be there: all that were acknowledged, less the one that was taken away, or may have been.
    pub(super) fn safe(&self) -> BTreeSet<u64> {
        let removed = usize::from(self.removed.is_some());
        self.acked.iter().copied().skip(removed).collect()
    }

    fn note(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "acked" => {
                self.acked.insert(rest.parse().expect("a child says numbers"));
                self.acked_after += usize::from(self.failed.is_some());
            }
            "failed" if self.failed.is_none() => {
                let why = rest.split_once(' ').map_or(rest, |(_, why)| why);
                self.failed = Some(why.to_owned());
            }
            "removed" => self.removed = Some(true),
            "kept" => self.removed = Some(false),
            "refused" => self.refused = Some(rest.to_owned()),
            OPENED => self.opened = true,
            _ => {}
        }
    }
}

/// What a child that reads has said.
#[derive(Debug)]
pub(super) struct Contents {
    has: BTreeSet<u64>,
    wrong: usize,
    reports: Vec<String>,
    end: End,
}

impl Contents {
    pub(super) fn listen(process: &mut Process) -> Contents {
        let mut contents = Contents {
            has: BTreeSet::new(),
            wrong: 0,
            reports: Vec::new(),
            end: End::Waits,
        };
        loop {
            match process.next() {
                Said::Line(line) if line == DONE => return contents,
                Said::Line(line) => contents.note(&line),
                Said::Ended => contents.end = End::Ended,
                Said::Silent => contents.end = End::Silent,
            }
            if contents.end != End::Waits {
                return contents;
            }
        }
    }

    fn note(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "has" => _ = self.has.insert(rest.parse().expect("a child says numbers")),
            "wrong" => self.wrong += 1,
            _ => self.reports.push(rest.to_owned()),
        }
    }

    /// What became of messages that have to be there.
    pub(super) fn verdict(&self, acked: &BTreeSet<u64>) -> String {
        let lost: Vec<u64> = acked.difference(&self.has).copied().collect();
        let mut said = match (&lost[..], acked.len()) {
            ([], _) => "0 lost".to_owned(),
            ([only], _) => format!("1 lost ({only})"),
            ([first, .., last], all) if last - first == lost.len() as u64 - 1 => {
                format!("{} of {all} lost ({first} to {last})", lost.len())
            }
            (lost, all) => format!("{} of {all} lost", lost.len()),
        };
        if self.wrong > 0 {
            said += &format!(", {} WRONG", self.wrong);
        }
        match self.end {
            End::Ended => said += ", its reader dies",
            End::Silent => said += ", its reader hangs",
            End::Waits | End::Enough => {}
        }
        match (self.reports.first(), lost.is_empty() && self.wrong == 0) {
            (Some(report), _) => said += &format!(", reported: {}", short(report)),
            (None, false) if self.end == End::Waits => said += ", NOT reported",
            (None, _) => {}
        }
        said
    }
}

/// The beginning of what a store says, in a form that a cell of a table can hold.
pub(super) fn short(words: &str) -> String {
    const MOST: usize = 48;
    let words = words.replace('|', "/");
    match words.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}..", &words[..end]),
        None => words,
    }
}

//! What was measured, round by round, and the tables of it.

use super::measure::Figures;
use std::time::Duration;

/// Where a figure belongs: a workload, and who did it.
type Who = (&'static str, &'static str);

/// Every figure by workload, contender and what it is, in the order in which they came first.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: Vec<Cell>,
    /// Who could not run, and why.
    skipped: Vec<(String, String)>,
}

#[derive(Debug)]
struct Cell {
    who: Who,
    what: &'static str,
    /// With the round that it was measured in.
    values: Vec<(usize, f64)>,
}

impl Results {
    pub(crate) fn add(&mut self, round: usize, who: Who, what: &'static str, value: f64) {
        let known = self.cells.iter_mut().find(|cell| cell.who == who && cell.what == what);
        match known {
            Some(cell) => cell.values.push((round, value)),
            None => self.cells.push(Cell {
                who,
                what,
                values: vec![(round, value)],
            }),
        }
    }

    /// Messages a second, and microseconds.
    pub(crate) fn add_figures(&mut self, round: usize, who: Who, figures: Figures) {
        self.add(round, who, RATE, figures.rate);
        self.add(round, who, P50, micros(figures.p50));
        self.add(round, who, P99, micros(figures.p99));
    }

    pub(crate) fn skip(&mut self, who: &str, why: &str) {
        let skipped = (who.to_owned(), why.to_owned());
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }

    fn values(&self, who: Who, what: &str) -> &[(usize, f64)] {
        let cell = self.cells.iter().find(|cell| cell.who == who && cell.what == what);
        cell.map_or(&[], |cell| &cell.values)
    }

    /// The median of the rounds.
    pub(crate) fn median(&self, who: Who, what: &str) -> Option<f64> {
        median(self.values(who, what).iter().map(|(_, value)| *value).collect())
    }

    /// The median of what `combine` makes of two figures of each round: both met the same spell of the machine.
    pub(crate) fn paired(
        &self,
        (one, what): (Who, &str),
        (other, other_what): (Who, &str),
        combine: impl Fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let others = self.values(other, other_what);
        let pairs = self.values(one, what).iter().filter_map(|(round, value)| {
            let (_, other) = others.iter().find(|(known, _)| known == round)?;
            Some(combine(*value, *other))
        });
        median(pairs.collect())
    }

    /// Everyone but `ours` and `raw` who sent in a workload.
    pub(crate) fn peers(&self, workload: &str) -> impl Iterator<Item = &'static str> {
        let rates = self
            .cells
            .iter()
            .filter(move |cell| cell.what == RATE && cell.who.0 == workload);
        rates
            .map(|cell| cell.who.1)
            .filter(|who| !matches!(*who, "ours" | "raw"))
    }

    /// Prints a row for each contender of each workload.
    pub(crate) fn print(&self) {
        println!("| workload | who | messages/s | spread | p50 us | p99 us | ours over it |");
        println!("|---|---|---|---|---|---|---|");
        let mut printed: Vec<Who> = Vec::new();
        for cell in self.cells.iter().filter(|cell| matches!(cell.what, RATE | P50)) {
            if !printed.contains(&cell.who) {
                printed.push(cell.who);
                self.print_row(cell);
            }
        }
        for (who, why) in &self.skipped {
            println!("* skipped: {who}: {why}");
        }
    }

    fn print_row(&self, cell: &Cell) {
        let who = cell.who;
        let text = |what| {
            self.median(who, what)
                .map_or(String::new(), |value| format!("{value:.0}"))
        };
        let values = || cell.values.iter().map(|(_, value)| *value);
        let (most, least) = (values().fold(f64::MIN, f64::max), values().fold(f64::MAX, f64::min));
        let spread = (most - least) * 100.0 / median(values().collect()).unwrap_or(f64::NAN);
        let ours = ((who.0, "ours"), RATE);
        let ratio = match who.1 {
            "ours" => None,
            _ => self.paired(ours, (who, RATE), |ours, theirs| ours / theirs),
        };
        println!(
            "| {} | {} | {} | {spread:.0}% | {} | {} | {} |",
            who.0,
            who.1,
            text(RATE),
            text(P50),
            text(P99),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
        );
    }
}

/// Messages a second.
pub(crate) const RATE: &str = "rate";
/// Half of the calls took at most this many microseconds.
pub(crate) const P50: &str = "p50";
/// 99 of a hundred calls took at most this many microseconds.
pub(crate) const P99: &str = "p99";

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(f64::midpoint(values[last / 2], values[last.div_ceil(2)]))
}

/// Something to be reached.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) measured: Option<f64>,
    /// Below what (or above, if less is better) it falls short; not everything has such a bound.
    pub(crate) must: Option<f64>,
    pub(crate) goal: f64,
    pub(crate) less_is_better: bool,
}

impl Target {
    fn verdict(&self) -> &'static str {
        let reached = |bound: f64| match (self.measured, self.less_is_better) {
            (None, _) => false,
            (Some(measured), true) => measured <= bound,
            (Some(measured), false) => measured >= bound,
        };
        match (self.measured, self.must) {
            (None, _) => "not measured",
            _ if reached(self.goal) => "goal",
            (_, Some(must)) if reached(must) => "must",
            (_, Some(_)) => "SHORT",
            (_, None) => "short of the goal",
        }
    }
}

/// Prints what was to be reached beside what was.
pub(crate) fn print_targets(targets: &[Target]) {
    println!("\n| to be reached | measured | must | goal | reached |\n|---|---|---|---|---|");
    for target in targets {
        let sign = if target.less_is_better { "<= " } else { ">= " };
        println!(
            "| {} | {} | {} | {sign}{} | {} |",
            target.what,
            target.measured.map_or("-".to_owned(), round),
            target.must.map_or(String::new(), |must| format!("{sign}{must}")),
            target.goal,
            target.verdict(),
        );
    }
}

fn round(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

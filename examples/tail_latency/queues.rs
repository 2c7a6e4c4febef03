//! The policies beside the ideal, with every server well.

use crate::contestants::Contestant;
use crate::figures::Figures;
use crate::ideal;
use crate::scenario::Scenario;
use serde::Serialize;
use std::fmt::Write as _;

/// What a scenario came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) scenario: &'static str,
    title: &'static str,
    pub(crate) central: Figures,
    /// With full knowledge of queues and speeds.
    pub(crate) shortest: Figures,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) policy: &'static str,
    pub(crate) figures: Figures,
    /// The 99th percentile over that of the ideal.
    pub(crate) ratio: f64,
    /// The requests of the server that got fewest and of the one that got most, over a server's share.
    shares: (f64, f64),
}

/// Runs the policies with as many seeds, and takes the median of each figure.
pub(crate) fn compare(scenario: &Scenario, policies: &[Contestant], seeds: u64) -> Comparison {
    let medians = |run: &dyn Fn(u64) -> Vec<u64>| {
        Figures::median(&(1..=seeds).map(|seed| Figures::of(run(seed))).collect::<Vec<_>>())
    };
    let central = medians(&|seed| ideal::central(scenario, seed));
    let shortest = medians(&|seed| ideal::shortest_expected_delay(scenario, seed));
    let row = |&(policy, run): &Contestant| {
        let shares = std::cell::Cell::new((0.0, 0.0));
        let figures = medians(&|seed| {
            let sent = run(scenario, seed, true).sent;
            shares.set(extremes(sent.iter().map(|sent| sent.server), scenario.speeds.len()));
            sent.into_iter().map(|sent| sent.latency).collect()
        });
        Row {
            policy,
            figures,
            ratio: figures.p99 / central.p99.min(shortest.p99),
            shares: shares.get(),
        }
    };
    let rows = policies.iter().map(row).collect();
    Comparison {
        scenario: scenario.name,
        title: scenario.title,
        central,
        shortest,
        rows,
    }
}

fn extremes(servers: impl Iterator<Item = usize>, n: usize) -> (f64, f64) {
    let mut counts = vec![0_u64; n];
    servers.for_each(|server| counts[server] += 1);
    let fair = counts.iter().sum::<u64>() as f64 / n as f64;
    let share = |count: Option<&u64>| count.map_or(0.0, |count| *count as f64 / fair);
    (share(counts.iter().min()), share(counts.iter().max()))
}

impl Comparison {
    pub(crate) fn table(&self) -> String {
        let mut out = format!("{}: {}\n", self.scenario, self.title);
        out.push_str("  policy              mean      p50      p99     p999  p99/ideal  least and most of a share\n");
        let ideal = self.central.p99.min(self.shortest.p99);
        for (name, figures) in [("(central queue)", self.central), ("(all known)", self.shortest)] {
            line(&mut out, name, &figures, figures.p99 / ideal);
            out.push('\n');
        }
        for row in &self.rows {
            line(&mut out, row.policy, &row.figures, row.ratio);
            // Writing to a string cannot fail.
            let _ = writeln!(out, "  {:.2} {:.2}", row.shares.0, row.shares.1);
        }
        out
    }
}

fn line(out: &mut String, name: &str, figures: &Figures, ratio: f64) {
    let Figures { mean, p50, p99, p999 } = figures;
    let _ = write!(
        out,
        "  {name:<15} {mean:>8.1} {p50:>8.1} {p99:>8.1} {p999:>8.1} {ratio:>10.2}"
    );
}

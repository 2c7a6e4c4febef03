//! The table on the terminal.

use super::numbers::{millis, percent, thousands};
use super::{Limit, RungReport, Saturated};

/// The rungs as aligned columns.
pub(crate) fn table(rungs: &[RungReport]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    rows.extend(rungs.iter().map(|rung| {
        vec![
            rung.name.clone(),
            rung.machines.to_string(),
            rung.users_found(),
            thousands(rung.requests_per_second.round() as u64),
            millis(rung.p50_ms),
            millis(rung.p99_ms),
            millis(rung.p999_ms),
            percent(rung.error_rate),
            rung.hit_ratio.map_or_else(|| "-".to_owned(), percent),
            rung.saturated.to_string(),
            format!("${}", thousands(rung.price.round() as u64)),
            thousands(rung.users_per_machine()),
        ]
    }));
    columns(&rows, &[0, 9])
}

impl RungReport {
    /// The users, as found: the search may have ended at its ceiling.
    pub(crate) fn users_found(&self) -> String {
        match self.saturated.limit {
            Limit::Ceiling => format!("at least {}", thousands(self.users)),
            Limit::Capacity | Limit::Latency => thousands(self.users),
        }
    }
}

impl std::fmt::Display for Saturated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let busy: Vec<String> = self
            .resources
            .iter()
            .map(|busy| format!("{} {}", busy.name, percent(busy.utilisation)))
            .collect();
        let busy = match busy.as_slice() {
            [] => "nothing measured".to_owned(),
            some => some.join(", "),
        };
        match self.limit {
            Limit::Capacity => f.write_str(&busy),
            Limit::Latency => write!(f, "latency, not capacity ({busy})"),
            Limit::Ceiling => write!(f, "nothing yet ({busy})"),
        }
    }
}

/// Rows as columns two blanks apart; all but the `left` ones are flush right. The first row is a header.
pub(crate) fn columns(rows: &[Vec<String>], left: &[usize]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if left.contains(&column) {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            out.push_str(&rule.join("  "));
            out.push('\n');
        }
    }
    out
}

const HEADER: [&str; 12] = [
    "rung",
    "machines",
    "users",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "errors",
    "hits",
    "saturated",
    "a month",
    "users/machine",
];

#[cfg(test)]
mod tests {
    use crate::report::sample;

    #[test]
    fn the_table_is_aligned_and_complete() {
        let table = super::table(&sample::rungs());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2 + sample::rungs().len());
        let at = |word: &str| lines[0].find(word).expect("a column") + word.len();
        let column = |line: &str, word: &str| line[..at(word)].rsplit("  ").next().map(str::to_owned);
        assert_eq!(column(lines[2], "machines").as_deref(), Some("1"));
        assert!(lines[2].starts_with("Single server "));
        assert!(table.contains("latency, not capacity (web cpu 61 %)"), "{table}");
        assert!(table.contains("web cpu 96 %, database cpu 95 %"), "{table}");
        assert!(table.contains("at least 4,000,000"), "{table}");
        assert!(lines.iter().all(|line| *line == line.trim_end()));
    }
}

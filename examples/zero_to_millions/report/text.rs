//! What surrounds the table on the terminal: the log and the assumptions above it, reasons and drills below.

use super::numbers::{millis, percent, plain, thousands};
use super::table::{columns, table};
use super::{Drill, Report, Sensitivity, Varied};
use crate::summary::LogSummary;
use std::fmt::{Result, Write};

/// What is printed before the climb.
pub(crate) fn before(report: &Report) -> String {
    filled(|out| {
        let inputs = &report.inputs;
        log(out, &report.log, inputs.log.as_deref())?;
        writeln!(
            out,
            "Objective: p99 at most {} ms and errors under 0.1 %; an answer after {} ms is an error. Seed {}.{}\n",
            thousands(inputs.slo_ms),
            thousands(inputs.timeout_ms),
            inputs.seed,
            if inputs.quick { " Quick: shorter probes." } else { "" }
        )?;
        let file = inputs.hardware.as_deref().unwrap_or("the built-in hardware.toml");
        writeln!(out, "Assumed, since the log does not tell ({file}):")?;
        let rule = format!("Dynamic requests are {}: {}.", report.dynamic.rule, report.dynamic.why);
        writeln!(out, "{}\n", wrapped(&rule))?;
        let mut rows = vec![["figure", "value", "why"].map(str::to_owned).to_vec()];
        rows.extend(
            report
                .assumptions
                .iter()
                .map(|f| vec![f.name.clone(), plain(f.value), f.why.clone()]),
        );
        writeln!(out, "{}", columns(&rows, &[0, 2]))
    })
}

/// What is printed after the climb.
pub(crate) fn after(report: &Report) -> String {
    filled(|out| {
        if !report.rungs.is_empty() {
            writeln!(out, "{}", table(&report.rungs))?;
        }
        for rung in &report.rungs {
            writeln!(out, "{} ({}). {}", rung.name, rung.parts, rung.relieves)?;
            for note in &rung.notes {
                writeln!(out, "    {note}")?;
            }
            if let Some(drill) = &rung.drill {
                writeln!(out, "    {}", drill_line(drill))?;
                if let Some(regions) = regions_line(drill) {
                    writeln!(out, "    {regions}")?;
                }
            }
        }
        if !report.sensitivity.is_empty() {
            writeln!(out, "\n{}", sensitivity(&report.sensitivity))?;
        }
        if let Some(answer) = &report.answer {
            writeln!(out, "\n{answer}")?;
        }
        Ok(())
    })
}

fn log(out: &mut String, log: &LogSummary, name: Option<&str>) -> Result {
    match name {
        Some(name) => {
            let formats = [
                ("Common", log.count.common),
                ("Combined", log.count.combined),
                ("EPA", log.count.epa),
            ];
            let found = formats.iter().filter(|(_, lines)| *lines > 0);
            let found: Vec<String> = found
                .map(|(name, lines)| format!("{} {name}", thousands(*lines)))
                .collect();
            writeln!(
                out,
                "{name}: {} lines ({}), {} malformed.",
                thousands(log.count.lines),
                found.join(", "),
                thousands(log.count.malformed)
            )?;
        }
        None => writeln!(
            out,
            "No --log: this is a GENERATED workload of {} requests.",
            thousands(log.requests)
        )?,
    }
    if log.count.skipped > 0 {
        writeln!(out, "Only its first {} requests are replayed.", thousands(log.requests))?;
    }
    writeln!(
        out,
        "{} visits of {:.1} requests by {} clients over {:.1} hours to {} URLs; {} of a single request.",
        thousands(log.visits),
        log.requests_per_visit,
        thousands(log.hosts),
        log.span_s / 3600.0,
        thousands(log.urls),
        thousands(log.one_request_visits)
    )?;
    writeln!(
        out,
        "A user is online for {:.0} s on average (the median gap is {} s) and makes {:.4} requests a second.",
        log.mean_online_s,
        plain(log.median_gap_s),
        log.requests_per_second_per_user
    )?;
    writeln!(
        out,
        "{} of the requests are dynamic, {} write, {} were answered with an error in the log; {:.1} KiB an answer.",
        percent(log.dynamic_share),
        percent(log.write_share),
        percent(log.logged_error_share),
        log.mean_bytes / 1024.0
    )
}

/// A drill in one line.
pub(super) fn drill_line(drill: &Drill) -> String {
    let recovery = match drill.recovery_ms {
        Some(ms) => format!("p99 back under the objective after {} ms", millis(ms)),
        None => "p99 not back under the objective while the drill lasted".to_owned(),
    };
    let divided = match drill.part {
        1 => String::new(),
        part => format!(", machines and users divided by {part}"),
    };
    let after = drill.timeline.iter().filter(|point| point.at_ms >= 0);
    format!(
        "Drill at 60 % of that load{divided}: {}. {}: {} of {} requests failed, {} lost acknowledged writes, {} lost \
         visits; {recovery}. {}",
        drill.killed,
        if drill.survived {
            "It went on"
        } else {
            "It did not survive"
        },
        thousands(drill.failed_requests),
        thousands(after.map(|point| point.requests).sum()),
        thousands(drill.lost_acknowledged_writes),
        thousands(drill.lost_visits),
        drill.note
    )
}

/// What the users of each region saw of the loss of one, in one line.
pub(super) fn regions_line(drill: &Drill) -> Option<String> {
    if drill.regions.is_empty() {
        return None;
    }
    let rerouted = match drill.rerouted_ms {
        Some(ms) => format!("Its users were answered elsewhere after {} ms", millis(ms)),
        None => "Nobody else answered its users".to_owned(),
    };
    let p99 = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), millis);
    let regions = drill.regions.iter().map(|region| {
        format!(
            "{} {} / {} / {} ms, {} of {} failed",
            region.region,
            p99(region.p99_before_ms),
            p99(region.p99_during_ms),
            p99(region.p99_after_ms),
            thousands(region.failed),
            thousands(region.requests)
        )
    });
    Some(format!(
        "{rerouted}. p99 of each region's users before it / until all took writes again / after that: {}.",
        regions.collect::<Vec<_>>().join("; ")
    ))
}

fn sensitivity(rows: &[Sensitivity]) -> String {
    let varied = |varied: &Option<Varied>| match varied {
        Some(Varied { value, users }) => [plain(*value), thousands(*users)],
        None => ["-".to_owned(), "-".to_owned()],
    };
    let mut cells = vec![
        ["rung", "figure", "lower", "users then", "higher", "users then"]
            .map(str::to_owned)
            .to_vec(),
    ];
    cells.extend(rows.iter().map(|row| {
        let (lower, higher) = (varied(&row.lower), varied(&row.higher));
        [
            vec![row.rung.clone(), row.figure.clone()],
            lower.to_vec(),
            higher.to_vec(),
        ]
        .concat()
    }));
    columns(&cells, &[0, 1])
}

/// Words in lines of at most 120 characters.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 {
            let fits = width + 1 + length <= 120;
            out.push(if fits { ' ' } else { '\n' });
            width = if fits { width + 1 } else { 0 };
        }
        out.push_str(word);
        width += length;
    }
    out
}

fn filled(fill: impl FnOnce(&mut String) -> Result) -> String {
    let mut out = String::new();
    fill(&mut out).expect("broken invariant: writing to a string cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use crate::report::sample;

    #[test]
    fn long_text_is_wrapped_between_words() {
        let text = "seven77 ".repeat(40);
        let wrapped = super::wrapped(text.trim());
        assert_eq!(wrapped.replace('\n', " "), text.trim());
        assert_eq!(wrapped.lines().map(str::len).collect::<Vec<_>>(), [119, 119, 79]);
    }

    #[test]
    fn the_text_says_what_it_must() {
        let mut report = sample::report();
        let before = super::before(&report);
        assert!(
            before.starts_with("access.log: 47,748 lines (47,727 EPA), 21 malformed.\n"),
            "{before}"
        );
        assert!(
            before.contains("web.cores") && before.contains("a common size of general-purpose machine"),
            "{before}"
        );
        let after = super::after(&report);
        assert!(
            after.contains("    Drill at 60 % of that load: the primary loses power. It did not survive: 12 of ")
                && after.contains(" requests failed, 0 lost acknowledged writes"),
            "{after}"
        );
        assert!(
            after.ends_with(
                "the first rung that carries them (1 balancer, 20 web, 3 databases, 2 caches; $1,950 a month).\n"
            ),
            "{after}"
        );
        assert!(
            after.contains(
                "    Its users were answered elsewhere after 1,002 ms. p99 of each region's users before it / until all took \
                 writes again / after that: Dublin 61.2 / 2,000 / - ms, 1,200 of 41,000 failed; Virginia "
            ),
            "{after}"
        );
        report.inputs.log = None;
        assert!(super::before(&report).starts_with("No --log: this is a GENERATED workload"));
    }
}

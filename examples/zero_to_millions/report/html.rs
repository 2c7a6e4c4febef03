//! The report as one HTML page that needs nothing else: style and charts are inside it.

use super::chart::escape;
use super::numbers::{decimals, millis, percent, plain, thousands};
use super::pictures::{curves, drills, sensitivity};
use super::{Report, RungReport};
use std::fmt::{Result, Write};

/// The report as a page.
pub(crate) fn html(report: &Report) -> String {
    let mut out = String::new();
    page(&mut out, report).expect("broken invariant: writing to a string cannot fail");
    out
}

fn page(out: &mut String, report: &Report) -> Result {
    write!(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    write!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    )?;
    write!(
        out,
        "<title>Zero to millions</title><style>{}</style></head><body><main>",
        include_str!("page.css")
    )?;
    head(out, report)?;
    if !report.rungs.is_empty() {
        ladder(out, &report.rungs)?;
        curves(out, report)?;
        drills(out, report)?;
    }
    if !report.sensitivity.is_empty() {
        sensitivity(out, report)?;
    }
    assumptions(out, report)?;
    out.push_str("</main></body></html>\n");
    Ok(())
}

fn head(out: &mut String, report: &Report) -> Result {
    let (inputs, log) = (&report.inputs, &report.log);
    out.push_str("<header><h1>Zero to millions</h1>");
    write!(
        out,
        "<p>How many users online each rung of the ladder carries with p99 at most {} ms and errors under 0.1 %, and what \
         gives first. Seed {}{}.</p>",
        thousands(inputs.slo_ms),
        inputs.seed,
        if inputs.quick { ", quick probes" } else { "" }
    )?;
    if let Some(answer) = &report.answer {
        write!(out, "<p class=\"answer\">{}</p>", escape(answer))?;
    }
    let source = match &inputs.log {
        Some(name) => format!(
            "{}: {} lines, {} malformed",
            escape(name),
            thousands(log.count.lines),
            log.count.malformed
        ),
        None => "a <strong>generated</strong> workload, not a log".to_owned(),
    };
    write!(out, "<p>Replayed: {source}.</p><dl class=\"tiles\">")?;
    for (name, value) in [
        ("visits", thousands(log.visits)),
        ("requests", thousands(log.requests)),
        ("requests a visit", format!("{:.1}", log.requests_per_visit)),
        ("seconds online, mean", format!("{:.0}", log.mean_online_s)),
        (
            "requests/s per user online",
            format!("{:.3}", log.requests_per_second_per_user),
        ),
        ("dynamic", percent(log.dynamic_share)),
        ("an answer", format!("{} KiB", decimals(log.mean_bytes / 1024.0, 2))),
    ] {
        write!(out, "<div><dd>{value}</dd><dt>{name}</dt></div>")?;
    }
    out.push_str("</dl></header>");
    Ok(())
}

fn ladder(out: &mut String, rungs: &[RungReport]) -> Result {
    out.push_str("<section><h2>The ladder</h2><div class=\"wide\"><table class=\"ladder\"><thead><tr>");
    for name in [
        "rung",
        "users online",
        "requests/s",
        "p50",
        "p99",
        "p99.9",
        "errors",
        "hits",
        "saturated",
        "machines",
        "a month",
        "users/machine",
    ] {
        let class = if name == "saturated" { " class=\"text\"" } else { "" };
        write!(out, "<th{class}>{name}</th>")?;
    }
    out.push_str("</tr></thead><tbody>");
    let most = rungs.iter().map(|rung| rung.users).max().unwrap_or(1).max(1) as f64;
    for rung in rungs {
        let bar = (rung.users as f64 / most).sqrt() * 100.0;
        write!(
            out,
            "<tr><td><strong>{}</strong><br><small>{}</small></td>",
            escape(&rung.name),
            escape(&rung.parts)
        )?;
        write!(
            out,
            "<td class=\"bar\"><span style=\"width:{bar:.1}%\"></span><b>{}</b></td>",
            rung.users_found()
        )?;
        for cell in [
            thousands(rung.requests_per_second.round() as u64),
            millis(rung.p50_ms),
            millis(rung.p99_ms),
            millis(rung.p999_ms),
            percent(rung.error_rate),
            rung.hit_ratio.map_or_else(|| "–".to_owned(), percent),
        ] {
            write!(out, "<td>{cell}</td>")?;
        }
        write!(out, "<td class=\"text\">{}</td>", escape(&rung.saturated.to_string()))?;
        let price = thousands(rung.price.round() as u64);
        write!(
            out,
            "<td>{}</td><td>${price}</td><td>{}</td></tr>",
            rung.machines,
            thousands(rung.users_per_machine())
        )?;
    }
    out.push_str(
        "</tbody></table></div><p class=\"hint\">Times in milliseconds. Bars grow with the square root.</p><ol>",
    );
    for rung in rungs {
        write!(
            out,
            "<li><strong>{}.</strong> {}",
            escape(&rung.name),
            escape(&rung.relieves)
        )?;
        for note in &rung.notes {
            write!(out, "<br><small>{}</small>", escape(note))?;
        }
        out.push_str("</li>");
    }
    out.push_str("</ol></section>");
    Ok(())
}

fn assumptions(out: &mut String, report: &Report) -> Result {
    let file = report
        .inputs
        .hardware
        .as_deref()
        .unwrap_or("the built-in hardware.toml");
    write!(
        out,
        "<section><h2>Assumptions</h2><p>What the log does not tell, from {}.</p>",
        escape(file)
    )?;
    let (rule, why) = (escape(&report.dynamic.rule), escape(&report.dynamic.why));
    write!(
        out,
        "<p>Dynamic requests are {rule}: {why}.</p><div class=\"wide\"><table class=\"figures\"><tbody>"
    )?;
    let section = |name: &str| name.split_once('.').map_or("", |(section, _)| section).to_owned();
    for group in report.assumptions.chunk_by(|a, b| section(&a.name) == section(&b.name)) {
        write!(
            out,
            "<tr><th colspan=\"3\">{}</th></tr>",
            escape(&section(&group[0].name))
        )?;
        for figure in group {
            let name = figure.name.split_once('.').map_or(figure.name.as_str(), |(_, key)| key);
            let (name, why) = (escape(name), escape(&figure.why));
            write!(
                out,
                "<tr><td>{name}</td><td>{}</td><td class=\"text\">{why}</td></tr>",
                plain(figure.value)
            )?;
        }
    }
    out.push_str("</tbody></table></div></section>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::report::sample;

    #[test]
    fn the_page_needs_nothing_else_and_shows_every_part() {
        let mut report = sample::report();
        report.inputs.log = Some("<script>.log".into());
        let page = super::html(&report);
        for outside in ["http:", "https:", "src=", "<link", "@import", "url(", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(
            page.contains("Dublin 61.2 / 2,000 / - ms"),
            "what each region's users saw of its loss"
        );
        // A curve and a drill for each rung.
        assert_eq!(page.matches("<svg").count(), 2 * report.rungs.len());
        assert_eq!(page.matches("class=\"tornado\"").count(), report.rungs.len());
        assert!(
            report
                .assumptions
                .iter()
                .all(|figure| page.contains(&super::escape(&figure.why)))
        );
        for tag in ["section", "table", "figure", "svg", "g", "tr", "div", "p", "li"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_page_without_rungs_shows_the_log_and_the_assumptions() {
        let mut report = sample::report();
        report.rungs.clear();
        report.sensitivity.clear();
        let page = super::html(&report);
        assert!(page.contains("Assumptions") && !page.contains("The ladder") && !page.contains("NaN"));
    }

    /// For looking at the page: `OUTGROW_PAGE=FILE cargo test --test ladder_parts`.
    #[test]
    fn the_page_can_be_written_for_a_look() {
        if let Some(path) = std::env::var_os("OUTGROW_PAGE") {
            std::fs::write(path, super::html(&sample::report())).expect("a path that can be written");
        }
    }
}

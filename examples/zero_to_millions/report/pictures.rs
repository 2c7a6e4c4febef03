//! The parts of the page that show something: curves, drills, and what figures matter.

use super::chart::{Axis, Chart, Series, Shape, escape};
use super::numbers::{millis, percent, plain, thousands};
use super::text::{drill_line, regions_line};
use super::{CurvePoint, Drill, Report, RungReport, Sensitivity, Varied};
use std::fmt::{Result, Write};

/// The load and latency curve of every rung.
pub(super) fn curves(out: &mut String, report: &Report) -> Result {
    out.push_str("<section><h2>Latency under load</h2><p class=\"hint\">Users online to the right, milliseconds up, both \
        logarithmic. <i class=\"key p50\"></i>p50 <i class=\"key p99\"></i>p99 <i class=\"key p999\"></i>p99.9</p><div class=\"grid\">");
    let points = || report.rungs.iter().flat_map(|rung| &rung.curve);
    let latencies = bounds(
        points().flat_map(|point| [point.p50_ms, point.p999_ms]),
        report.inputs.slo_ms as f64,
    );
    for rung in &report.rungs {
        let users = rung.curve.iter().map(|point| point.users as f64);
        let series = |class: &str, pick: fn(&CurvePoint) -> f64| Series {
            class: format!("line {class}"),
            shape: Shape::Line,
            points: rung
                .curve
                .iter()
                .map(|point| (point.users as f64, Some(pick(point)), told(point)))
                .collect(),
        };
        let chart = Chart {
            width: 360.0,
            height: 230.0,
            x: Axis::log("users online", bounds(users, rung.users as f64)),
            y: Axis::log("ms", latencies),
            series: vec![
                series("p999", |p| p.p999_ms),
                series("p99", |p| p.p99_ms),
                series("p50", |p| p.p50_ms),
            ],
            level: Some((report.inputs.slo_ms as f64, format!("{} ms", report.inputs.slo_ms))),
            moment: Some((rung.users as f64, String::new())),
        };
        figure(out, &rung.name, &format!("{} users", rung.users_found()), &chart.svg())?;
    }
    out.push_str("</div></section>");
    Ok(())
}

fn told(point: &CurvePoint) -> String {
    format!(
        "{} users, {} requests/s: p50 {} ms, p99 {} ms, p99.9 {} ms, errors {}",
        thousands(point.users),
        thousands(point.requests_per_second.round() as u64),
        millis(point.p50_ms),
        millis(point.p99_ms),
        millis(point.p999_ms),
        percent(point.error_rate)
    )
}

/// What each drill did, over time.
pub(super) fn drills(out: &mut String, report: &Report) -> Result {
    let drilled: Vec<(&RungReport, &Drill)> = report
        .rungs
        .iter()
        .filter_map(|rung| Some((rung, rung.drill.as_ref()?)))
        .collect();
    if drilled.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>Drills</h2><p class=\"hint\">At 60 % of the load, one part is killed. \
        <i class=\"key p99\"></i>p99, in milliseconds <i class=\"key failed\"></i>share of requests that failed</p><div class=\"grid\">");
    for (rung, drill) in drilled {
        let answer = if drill.survived { "survived" } else { "did not survive" };
        let svg = if drill.timeline.is_empty() {
            String::new()
        } else {
            timeline(drill, report.inputs.slo_ms as f64)
        };
        let lines = [Some(drill_line(drill)), regions_line(drill)];
        let lines = lines.into_iter().flatten();
        let lines: String = lines
            .map(|line| format!("<p><small>{}</small></p>", escape(&line)))
            .collect();
        figure(out, &rung.name, answer, &format!("{svg}{lines}"))?;
    }
    out.push_str("</div></section>");
    Ok(())
}

fn timeline(drill: &Drill, slo_ms: f64) -> String {
    let second = |at_ms: i64| at_ms as f64 / 1000.0;
    let times = || drill.timeline.iter().map(|point| second(point.at_ms));
    let latencies = bounds(drill.timeline.iter().filter_map(|point| point.p99_ms), slo_ms);
    // Failures share the picture: no bar at none failed, a full one at all failed.
    let (low, high) = latencies;
    let height = |share: f64| low * (high / low).powf(share);
    let failed = drill.timeline.iter().map(|point| {
        let share = point.failed as f64 / point.requests.max(1) as f64;
        let told = format!(
            "{} s: {} of {} failed",
            second(point.at_ms),
            point.failed,
            point.requests
        );
        (second(point.at_ms), (point.failed > 0).then(|| height(share)), told)
    });
    let p99 = drill.timeline.iter().map(|point| {
        let told = point
            .p99_ms
            .map(|p99| format!("{} s: p99 {} ms", second(point.at_ms), millis(p99)));
        (second(point.at_ms), point.p99_ms, told.unwrap_or_default())
    });
    let series = |class: &str, shape, points| Series {
        class: class.to_owned(),
        shape,
        points,
    };
    let chart = Chart {
        width: 360.0,
        height: 210.0,
        x: Axis::linear(
            "seconds since the kill",
            (times().fold(0.0, f64::min), times().fold(0.0, f64::max)),
        ),
        y: Axis::log("ms", latencies),
        series: vec![
            series("bars failed", Shape::Bars, failed.collect()),
            series("line p99", Shape::Line, p99.collect()),
        ],
        level: Some((slo_ms, format!("{slo_ms} ms"))),
        moment: Some((0.0, "kill".to_owned())),
    };
    chart.svg()
}

/// The rungs' figures by their effect, the strongest first.
pub(super) fn sensitivity(out: &mut String, report: &Report) -> Result {
    write!(
        out,
        "<section><h2>Sensitivity</h2><p class=\"hint\">Users when one figure changes by 25 % (whole things by at least one): \
         <i class=\"key lower\"></i>lower <i class=\"key higher\"></i>higher. At most the {SHOWN} strongest of each rung, and only those of at least 1 %.</p><div class=\"grid\">"
    )?;
    for rung in &report.rungs {
        let change = |varied: &Option<Varied>| varied.map(|v| v.users as f64 / rung.users.max(1) as f64 - 1.0);
        let strength = |row: &Sensitivity| {
            let size = |varied| change(varied).map_or(0.0, f64::abs);
            size(&row.lower).max(size(&row.higher))
        };
        let mut rows: Vec<&Sensitivity> = report.sensitivity.iter().filter(|row| row.rung == rung.id).collect();
        rows.retain(|row| strength(row) >= 0.01);
        rows.sort_by(|a, b| {
            strength(b)
                .total_cmp(&strength(a))
                .then_with(|| a.figure.cmp(&b.figure))
        });
        rows.truncate(SHOWN);
        let Some(most) = rows.first().map(|row| strength(row)) else {
            continue;
        };
        let mut table = String::from("<table class=\"tornado\"><tbody>");
        for row in rows {
            let name = escape(&row.figure);
            write!(table, "<tr><td title=\"{name}\">{name}</td><td class=\"swing\">")?;
            for (class, varied) in [("lower", &row.lower), ("higher", &row.higher)] {
                let (Some(change), Some(varied)) = (change(varied), varied) else {
                    continue;
                };
                let width = (change.abs() / most).min(1.0) * 50.0;
                let left = if change < 0.0 { 50.0 - width } else { 50.0 };
                let told = format!("{}: {} users", plain(varied.value), thousands(varied.users));
                write!(
                    table,
                    "<span class=\"{class}\" style=\"left:{left:.1}%;width:{width:.1}%\" title=\"{told}\"></span>"
                )?;
            }
            let signed = |varied| change(varied).map_or_else(|| "–".to_owned(), |c| format!("{:+.0} %", c * 100.0));
            write!(
                table,
                "</td><td>{}</td><td>{}</td></tr>",
                signed(&row.lower),
                signed(&row.higher)
            )?;
        }
        table.push_str("</tbody></table>");
        figure(out, &rung.name, "", &table)?;
    }
    out.push_str("</div></section>");
    Ok(())
}

fn figure(out: &mut String, name: &str, aside: &str, body: &str) -> Result {
    let (name, aside) = (escape(name), escape(aside));
    write!(
        out,
        "<figure><figcaption><strong>{name}</strong><span>{aside}</span></figcaption>{body}</figure>"
    )
}

/// A logarithmic axis that holds all of `values` and `also`, with some air.
fn bounds(values: impl Iterator<Item = f64>, also: f64) -> (f64, f64) {
    let held = values.chain([also]).filter(|value| *value > 0.0 && value.is_finite());
    let (low, high) = held.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low <= high {
        (low / 1.2, high * 1.2)
    } else {
        (0.1, 10.0)
    }
}

const SHOWN: usize = 12;

//! Hit ratios as a picture: a chart for each trace with the size of the cache on the x axis, and a line for each policy.

use std::fmt::Write;

/// One trace's figures.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// Sizes in percent of the trace's keys, ascending.
    pub(crate) sizes: Vec<f64>,
    /// For each policy, the hit ratio in percent at each size.
    pub(crate) lines: Vec<(String, Vec<f64>)>,
}

/// The charts as an SVG document, three in a row.
pub(crate) fn svg(charts: &[Chart]) -> String {
    let columns = charts.len().clamp(1, 3);
    let (width, height) = (
        columns as f64 * CELL.0,
        charts.len().div_ceil(columns) as f64 * CELL.1 + LEGEND,
    );
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="11">"#
    );
    let _ = writeln!(out, r#"<rect width="{width}" height="{height}" fill="white"/>"#);
    if let Some(first) = charts.first() {
        legend(&mut out, first);
    }
    for (number, chart) in charts.iter().enumerate() {
        let (x, y) = (
            (number % columns) as f64 * CELL.0,
            (number / columns) as f64 * CELL.1 + LEGEND,
        );
        let _ = writeln!(out, r#"<g transform="translate({x} {y})">"#);
        draw(&mut out, chart);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, chart: &Chart) {
    for (number, (name, _)) in chart.lines.iter().enumerate() {
        let x = MARGIN + number as f64 * 105.0;
        let colour = COLOURS[number % COLOURS.len()];
        let _ = writeln!(out, r#"<path d="M{x} 18h18" stroke="{colour}" stroke-width="2"/>"#);
        let _ = writeln!(out, r#"<text x="{}" y="22">{}</text>"#, x + 23.0, escaped(name));
    }
}

fn draw(out: &mut String, chart: &Chart) {
    let (inner_width, inner_height) = (CELL.0 - 2.0 * MARGIN, CELL.1 - 2.0 * MARGIN);
    let most = chart
        .lines
        .iter()
        .flat_map(|(_, line)| line)
        .fold(1.0, |most: f64, ratio| most.max(*ratio));
    let top = (most / 20.0).ceil() * 20.0;
    let (first, last) = (
        chart.sizes.first().copied().unwrap_or(1.0),
        chart.sizes.last().copied().unwrap_or(1.0),
    );
    let span = (last / first).ln();
    let x = |size: f64| MARGIN + inner_width * if span > 0.0 { (size / first).ln() / span } else { 0.5 };
    let y = |ratio: f64| MARGIN + inner_height * (1.0 - ratio / top);
    let _ = writeln!(
        out,
        r#"<text x="{MARGIN}" y="{}" font-weight="bold">{}</text>"#,
        MARGIN - 10.0,
        escaped(&chart.title)
    );
    for step in 0..=4 {
        let ratio = top * f64::from(step) / 4.0;
        let at = y(ratio);
        let _ = writeln!(out, r##"<path d="M{MARGIN} {at:.1}h{inner_width}" stroke="#ddd"/>"##);
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{ratio:.0}</text>"#,
            MARGIN - 5.0,
            at + 4.0
        );
    }
    for size in &chart.sizes {
        let at = x(*size);
        let _ = writeln!(
            out,
            r#"<text x="{at:.1}" y="{}" text-anchor="middle">{size}</text>"#,
            CELL.1 - MARGIN + 15.0
        );
    }
    let _ = writeln!(
        out,
        r##"<text x="{}" y="{}" text-anchor="middle" fill="#555">size, % of keys</text>"##,
        CELL.0 / 2.0,
        CELL.1 - MARGIN + 30.0
    );
    for (number, (name, line)) in chart.lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = chart
            .sizes
            .iter()
            .zip(line)
            .map(|(size, ratio)| format!("{:.1},{:.1}", x(*size), y(*ratio)))
            .collect();
        let dashes = if number == 0 { r#" stroke-dasharray="4 3""# } else { "" };
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}><title>{}</title></polyline>"#,
            points.join(" "),
            escaped(name)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Width and height of a chart.
const CELL: (f64, f64) = (340.0, 250.0);
/// Height of the line that names the colours.
const LEGEND: f64 = 30.0;
const MARGIN: f64 = 40.0;
/// The optimum, then the policies; told apart by those who see red and green alike too.
const COLOURS: [&str; 6] = ["#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#999999"];

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(title: &str, sizes: &[f64]) -> Chart {
        Chart {
            title: title.to_owned(),
            sizes: sizes.to_vec(),
            lines: [("optimum", 2.0), ("lru", 1.0)]
                .map(|(name, by)| (name.to_owned(), sizes.iter().map(|size| size * by).collect()))
                .to_vec(),
        }
    }

    #[test]
    fn a_line_for_each_policy_in_a_chart_for_each_trace() {
        let charts: Vec<Chart> = ["a", "b", "c", "d"].map(|title| chart(title, &[1.0, 5.0, 20.0])).into();
        let svg = svg(&charts);
        assert_eq!(svg.matches("<polyline").count(), 8);
        assert_eq!(svg.matches("size, % of keys").count(), 4);
        assert!(svg.contains(r#"viewBox="0 0 1020 530""#), "two rows of three");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn points_lie_in_the_frame() {
        for sizes in [&[5.0][..], &[0.5, 50.0]] {
            let svg = svg(&[chart("a", sizes)]);
            let points = svg
                .split("points=\"")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap());
            for point in points.flat_map(|points| points.split(' ')) {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!(
                    (MARGIN..=CELL.0 - MARGIN).contains(&x) && (MARGIN..=CELL.1 - MARGIN).contains(&y),
                    "{point}"
                );
            }
        }
    }

    #[test]
    fn a_name_cannot_break_it() {
        assert!(svg(&[chart("<a&b>", &[1.0])]).contains("&lt;a&amp;b&gt;"));
    }
}

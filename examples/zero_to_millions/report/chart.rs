//! A small chart as inline SVG: lines and bars over two axes. Colours and type come from the page's style.

use super::numbers::short;
use std::fmt::Write;

/// A chart to draw. Values outside an axis are clipped to it.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) x: Axis<'a>,
    pub(crate) y: Axis<'a>,
    pub(crate) series: Vec<Series>,
    /// A horizontal line with its label, such as the objective.
    pub(crate) level: Option<(f64, String)>,
    /// A vertical line with its label, such as the moment of a kill.
    pub(crate) moment: Option<(f64, String)>,
}

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis<'a> {
    pub(crate) label: &'a str,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) log: bool,
}

impl<'a> Axis<'a> {
    /// An axis of which each step is as long as the last.
    pub(crate) fn linear(label: &'a str, (from, to): (f64, f64)) -> Axis<'a> {
        let log = false;
        Axis { label, from, to, log }
    }

    /// An axis of which each step is as many times the last.
    pub(crate) fn log(label: &'a str, (from, to): (f64, f64)) -> Axis<'a> {
        let log = true;
        Axis { label, from, to, log }
    }
}

/// Points to draw.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// A style class.
    pub(crate) class: String,
    pub(crate) shape: Shape,
    /// With what a reader sees who points at it. A missing y interrupts the line.
    pub(crate) points: Vec<(f64, Option<f64>, String)>,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Line,
    /// Up from the x axis.
    Bars,
}

impl Chart<'_> {
    /// The chart as an `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let mut out = String::new();
        let (w, h) = (self.width, self.height);
        self.draw(&mut out, w, h)
            .expect("broken invariant: writing to a string cannot fail");
        out
    }

    fn draw(&self, out: &mut String, w: f64, h: f64) -> std::fmt::Result {
        let (x_name, y_name) = (escape(self.x.label), escape(self.y.label));
        write!(
            out,
            r#"<svg viewBox="0 0 {w} {h}" role="img" aria-label="{y_name} over {x_name}">"#
        )?;
        self.grid(out)?;
        if let Some((value, label)) = &self.level {
            let y = self.y_at(*value);
            let (from, to) = (LEFT, w - RIGHT);
            write!(
                out,
                r#"<line class="level" x1="{from}" x2="{to}" y1="{y:.1}" y2="{y:.1}"/>"#
            )?;
            let y = y - 4.0;
            write!(
                out,
                r#"<text class="note" x="{:.1}" y="{y:.1}">{}</text>"#,
                LEFT + 4.0,
                escape(label)
            )?;
        }
        if let Some((value, label)) = &self.moment {
            let x = self.x_at(*value);
            let (from, to) = (TOP, h - BOTTOM);
            write!(
                out,
                r#"<line class="moment" x1="{x:.1}" x2="{x:.1}" y1="{from}" y2="{to}"/>"#
            )?;
            write!(
                out,
                r#"<text class="note" x="{:.1}" y="{:.1}">{}</text>"#,
                x + 4.0,
                TOP + 8.0,
                escape(label)
            )?;
        }
        for series in &self.series {
            match series.shape {
                Shape::Line => self.line(out, series)?,
                Shape::Bars => self.bars(out, series)?,
            }
        }
        out.push_str("</svg>");
        Ok(())
    }

    fn grid(&self, out: &mut String) -> std::fmt::Result {
        let (bottom, right) = (self.height - BOTTOM, self.width - RIGHT);
        for tick in self.y.ticks((self.height / 45.0) as usize) {
            let y = self.y_at(tick);
            write!(
                out,
                r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#
            )?;
            let text = short(tick);
            write!(
                out,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                LEFT - 6.0,
                y + 3.5
            )?;
        }
        for tick in self.x.ticks((self.width / 70.0) as usize) {
            let x = self.x_at(tick);
            write!(
                out,
                r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{:.1}"/>"#,
                bottom + 4.0
            )?;
            let text = short(tick);
            write!(
                out,
                r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                bottom + 15.0
            )?;
        }
        write!(
            out,
            r#"<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#
        )?;
        write!(
            out,
            r#"<text class="name" x="{right}" y="{:.1}" text-anchor="end">{}</text>"#,
            self.height - 3.0,
            escape(self.x.label)
        )?;
        write!(
            out,
            r#"<text class="name" x="4" y="10">{}</text>"#,
            escape(self.y.label)
        )
    }

    fn line(&self, out: &mut String, series: &Series) -> std::fmt::Result {
        let mut path = String::new();
        let mut dots = String::new();
        let mut command = 'M';
        for (x, y, told) in &series.points {
            let Some(y) = y else {
                command = 'M';
                continue;
            };
            let (x, y) = (self.x_at(*x), self.y_at(*y));
            write!(path, "{command}{x:.1} {y:.1}")?;
            write!(
                dots,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5"><title>{}</title></circle>"#,
                escape(told)
            )?;
            command = 'L';
        }
        write!(out, r#"<g class="{}"><path d="{path}"/>{dots}"#, series.class)?;
        out.push_str("</g>");
        Ok(())
    }

    fn bars(&self, out: &mut String, series: &Series) -> std::fmt::Result {
        let width = (self.width - LEFT - RIGHT) / series.points.len().max(1) as f64 * 0.8;
        write!(out, r#"<g class="{}">"#, series.class)?;
        for (x, y, told) in &series.points {
            let top = self.y_at(y.unwrap_or(self.y.from));
            let (x, height) = (self.x_at(*x) - width / 2.0, self.height - BOTTOM - top);
            if height > 0.0 {
                write!(
                    out,
                    r#"<rect x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"><title>{}</title></rect>"#,
                    escape(told)
                )?;
            }
        }
        out.push_str("</g>");
        Ok(())
    }

    fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (self.width - LEFT - RIGHT)
    }

    fn y_at(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.share(value) * (self.height - TOP - BOTTOM)
    }
}

impl Axis<'_> {
    /// Where a value lies on the axis, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let scale = |value: f64| {
            if self.log {
                value.max(f64::MIN_POSITIVE).ln()
            } else {
                value
            }
        };
        let length = scale(self.to) - scale(self.from);
        if length > 0.0 {
            ((scale(value) - scale(self.from)) / length).clamp(0.0, 1.0)
        } else {
            0.5
        }
    }

    /// Round values within the axis, at most about `most`.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        let inside = |tick: &f64| (self.from * 0.999..=self.to * 1.001).contains(tick);
        if !self.log {
            let step = round_up((self.to - self.from) / most as f64);
            let (first, last) = ((self.from / step).ceil() as i64, (self.to / step).floor() as i64);
            return (first..=last).take(MOST_TICKS).map(|n| n as f64 * step).collect();
        }
        let (low, high) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
        let on =
            |per_decade: &'static [f64]| (low..=high).flat_map(|e| per_decade.iter().map(move |m| m * 10_f64.powi(e)));
        let all: Vec<f64> = on(&[1.0, 2.0, 5.0]).filter(inside).collect();
        let decades: Vec<f64> = on(&[1.0]).filter(inside).collect();
        match (all.len() <= most, decades.len()) {
            (true, _) => all,
            (false, 0..=1) => all.into_iter().step_by(2).collect(),
            (false, n) => decades.into_iter().step_by(n.div_ceil(most)).collect(),
        }
    }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_up(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= step * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// Text made safe for HTML and its attributes.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 34.0;
const MOST_TICKS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(from: f64, to: f64, log: bool) -> Axis<'static> {
        let label = "x";
        Axis { label, from, to, log }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(axis(0.0, 103.0, false).ticks(5), [0.0, 50.0, 100.0]);
        assert_eq!(axis(-2.0, 9.0, false).ticks(6), [-2.0, 0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(axis(1.0, 1e6, true).ticks(4), [1.0, 100.0, 1e4, 1e6]);
        assert_eq!(axis(30.0, 600.0, true).ticks(6), [50.0, 100.0, 200.0, 500.0]);
        assert!(axis(0.0, 0.0, false).ticks(5).len() <= MOST_TICKS);
    }

    #[test]
    fn a_chart_clips_gaps_and_escapes() {
        let point = |x, y| (x, y, "<&\">".to_owned());
        let chart = Chart {
            width: 200.0,
            height: 100.0,
            x: axis(0.0, 10.0, false),
            y: axis(1.0, 100.0, true),
            series: vec![Series {
                class: "a".into(),
                shape: Shape::Line,
                points: vec![point(0.0, Some(10.0)), point(5.0, None), point(20.0, Some(1e9))],
            }],
            level: None,
            moment: None,
        };
        let svg = chart.svg();
        // Half way up on a log axis; then a gap; then the far corner.
        assert!(svg.contains("M46.0 43.0M186.0 20.0"), "{svg}");
        assert!(svg.contains("&lt;&amp;&quot;&gt;") && !svg.contains("<&"));
    }
}

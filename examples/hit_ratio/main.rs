//! How often does each eviction policy hit on recorded requests, beside the best that is possible?
//!
//! `cargo run --release --example hit_ratio -- FILE...` prints a table and draws a picture; `--help` tells the rest.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "it is the outside world here: it reads and writes real files"
)]

mod belady;
mod cli;
mod picture;
mod policies;
mod trace;

use cli::{Command, Options};
use picture::Chart;
use policies::POLICIES;
use std::error::Error;
use std::process::ExitCode;
use trace::Trace;

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}; --help tells more");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error + Send + Sync>> {
    // All are read before anything is printed: a bad name shows at once, not after minutes.
    let traces = options
        .traces
        .iter()
        .map(|path| Trace::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let mut charts = Vec::new();
    for trace in &traces {
        let chart = measure(trace, &options.sizes)?;
        println!("{}", table(trace, &chart));
        charts.push(chart);
    }
    let svg = &options.svg;
    std::fs::write(svg, picture::svg(&charts)).map_err(|error| format!("{}: {error}", svg.display()))?;
    println!("drawn in {}", svg.display());
    Ok(())
}

fn measure(trace: &Trace, sizes: &[f64]) -> Result<Chart, Box<dyn Error + Send + Sync>> {
    let optimum = |size: &f64| {
        policies::percent(
            belady::hits(&trace.keys, trace.distinct, trace.entries(*size)),
            &trace.keys,
        )
    };
    let mut lines = vec![("optimum".to_owned(), sizes.iter().map(optimum).collect())];
    for (name, cache) in POLICIES {
        let ratio = |size: &f64| Ok(policies::ratio(&trace.keys, &cache(trace.entries(*size))?));
        let ratios: Result<Vec<f64>, outgrow::cache::Error> = sizes.iter().map(ratio).collect();
        lines.push((name.to_owned(), ratios?));
    }
    Ok(Chart {
        title: trace.name.clone(),
        sizes: sizes.to_vec(),
        lines,
    })
}

fn table(trace: &Trace, chart: &Chart) -> String {
    let mut out = format!(
        "{}: {} requests for {} keys; hits in percent\n",
        trace.name,
        trace.keys.len(),
        trace.distinct
    );
    out.push_str("  size %   entries");
    for (name, _) in &chart.lines {
        out.push_str(&format!(" {name:>9}"));
    }
    for (number, size) in chart.sizes.iter().enumerate() {
        out.push_str(&format!("\n{size:>8} {:>9}", trace.entries(*size)));
        for (_, ratios) in &chart.lines {
            out.push_str(&format!(" {:>9.2}", ratios[number]));
        }
    }
    out.push('\n');
    out
}

//! How far a long look is: a bar where somebody watches, plain lines elsewhere; both on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Plain lines are this far apart, in percent.
const STEP: u64 = 10;

pub(crate) enum Bar {
    Drawn(ProgressBar),
    Lines { doing: &'static str, next: u64 },
    Silent,
}

impl Bar {
    /// A bar; where nobody watches, lines if `told`.
    pub(crate) fn new(doing: &'static str, told: bool) -> Bar {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(doing);
            return Bar::Drawn(bar);
        }
        match told {
            true => Bar::Lines { doing, next: STEP },
            false => Bar::Silent,
        }
    }

    pub(crate) fn at(&mut self, done: u64, of: u64) {
        match self {
            Bar::Drawn(bar) => {
                bar.set_length(of);
                bar.set_position(done);
            }
            Bar::Lines { doing, next } => {
                let percent = done * 100 / of.max(1);
                if percent >= *next {
                    eprintln!("{doing}: {percent} %");
                    *next = percent - percent % STEP + STEP;
                }
            }
            Bar::Silent => {}
        }
    }

    pub(crate) fn end(&self) {
        if let Bar::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }
}

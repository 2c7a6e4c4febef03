//! Percentiles and medians.

use serde::Serialize;

/// How long requests took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Figures {
    /// Those of the latencies, in nanoseconds, without the first tenth, in which queues have yet to grow.
    pub(crate) fn of(mut latencies: Vec<u64>) -> Figures {
        let latencies = latencies.split_off(latencies.len() / 10);
        let sum: u64 = latencies.iter().sum();
        let mean = sum as f64 / latencies.len() as f64 / 1e6;
        let mut sorted = latencies;
        sorted.sort_unstable();
        let at = |part: f64| sorted[(sorted.len() as f64 * part) as usize] as f64 / 1e6;
        Figures {
            mean,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        }
    }

    /// The median of each figure.
    pub(crate) fn median(all: &[Figures]) -> Figures {
        let of = |figure: fn(&Figures) -> f64| median(all.iter().map(figure));
        Figures {
            mean: of(|f| f.mean),
            p50: of(|f| f.p50),
            p99: of(|f| f.p99),
            p999: of(|f| f.p999),
        }
    }
}

/// The middle of the values, the upper of two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_leave_out_the_first_tenth() {
        let first = std::iter::repeat_n(1_000_000_000, 100);
        let figures = Figures::of(first.chain((1..=900).map(|ms| ms * 1_000_000)).collect());
        assert_eq!((figures.p50, figures.p99, figures.p999), (451.0, 892.0, 900.0));
        assert_eq!(figures.mean, 450.5);
    }

    #[test]
    fn medians_go_figure_by_figure() {
        let figures = |p50, p99| Figures {
            mean: 0.0,
            p50,
            p99,
            p999: 0.0,
        };
        let median = Figures::median(&[figures(1.0, 30.0), figures(3.0, 10.0), figures(2.0, 20.0)]);
        assert_eq!((median.p50, median.p99), (2.0, 20.0));
    }
}

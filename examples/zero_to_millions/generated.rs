//! A workload for when there is no log: visits to a made-up site over one day.

use crate::access_log::{Count, Request, Sink};
use outgrow::env::Rng;

/// Fills `sink` with a day of requests that follow from `seed`.
///
/// Visits start as a Poisson process whose rate follows the hours of the day, lowest at 4 and highest at 16. A visit
/// looks at a geometric number of pages with exponential pauses between them, and each page brings a few of the site's
/// pictures within two seconds. Pages and pictures are drawn by Zipf's law, as web requests are (Breslau et al., 1999);
/// each has one size, drawn from a log-normal distribution.
pub(crate) fn fill(sink: &mut impl Sink, seed: u64) -> Count {
    let mut rng = Rng::seeded(seed).fork("generated workload");
    let site = Site::new(&mut rng);
    let mut count = Count::default();
    let mut start = 0.0;
    while let Some(next) = next_visit(start, &mut rng) {
        start = next;
        let host = format!("user-{}", rng.below(CLIENTS));
        site.visit(start, &mut rng, |at, target, writes, bytes| {
            count.lines += 1;
            let request = Request {
                second: at as i64,
                host: host.as_bytes(),
                target: target.as_bytes(),
                writes,
                status: 200,
                bytes,
            };
            count.skipped += u64::from(!sink.take(request));
        });
    }
    count
}

/// When the next visit starts, in seconds of the day: a process at the highest rate, thinned to the hour's.
fn next_visit(mut at: f64, rng: &mut Rng) -> Option<f64> {
    loop {
        at += rng.exponential(DAY / (VISITS * (1.0 + SWING)));
        if at >= DAY {
            return None;
        }
        let from_peak = (at / DAY - 16.0 / 24.0) * std::f64::consts::TAU;
        if rng.chance((1.0 + SWING * from_peak.cos()) / (1.0 + SWING)) {
            return Some(at);
        }
    }
}

struct Site {
    pages: Popular,
    pictures: Popular,
}

impl Site {
    fn new(rng: &mut Rng) -> Site {
        Site {
            pages: Popular::new(10_000, 0.8, 12_000.0, rng),
            pictures: Popular::new(1_000, 1.0, 8_000.0, rng),
        }
    }

    fn visit(&self, mut at: f64, rng: &mut Rng, mut send: impl FnMut(f64, &str, bool, u64)) {
        loop {
            let (page, bytes) = self.pages.draw(rng);
            send(at, &format!("/page/{page}"), rng.chance(WRITE_SHARE), bytes);
            for _ in 0..rng.below(2 * PICTURES_PER_PAGE + 1) {
                let (picture, bytes) = self.pictures.draw(rng);
                send(at + 2.0 * rng.unit(), &format!("/picture/{picture}.png"), false, bytes);
            }
            if rng.chance(1.0 / PAGES_PER_VISIT) {
                return;
            }
            at += rng.exponential(PAUSE);
        }
    }
}

/// Things of falling popularity, each with a size.
struct Popular {
    /// The share of draws up to each rank: rank k (from 1) has a weight of 1 / k^skew.
    up_to: Vec<f64>,
    bytes: Vec<u64>,
}

impl Popular {
    fn new(ranks: u32, skew: f64, median_bytes: f64, rng: &mut Rng) -> Popular {
        let mut sum = 0.0;
        let mut up_to = Vec::new();
        for rank in 1..=ranks {
            sum += f64::from(rank).powf(-skew);
            up_to.push(sum);
        }
        up_to.iter_mut().for_each(|share| *share /= sum);
        Popular {
            bytes: up_to.iter().map(|_| log_normal(median_bytes, rng)).collect(),
            up_to,
        }
    }

    fn draw(&self, rng: &mut Rng) -> (usize, u64) {
        let point = rng.unit();
        let rank = self
            .up_to
            .partition_point(|&share| share <= point)
            .min(self.up_to.len() - 1);
        (rank, self.bytes[rank])
    }
}

/// A size around `median`, two thirds within a factor of three of it (Box and Muller, 1958).
fn log_normal(median: f64, rng: &mut Rng) -> u64 {
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    let normal = radius * (rng.unit() * std::f64::consts::TAU).cos();
    (median * 3.0_f64.powf(normal)) as u64
}

const DAY: f64 = 86_400.0;
/// Visits in the day, which make some 100,000 requests: enough that the seed hardly matters.
const VISITS: f64 = 5_000.0;
/// How far the busiest hour is above the mean, and the quietest below.
const SWING: f64 = 0.7;
const CLIENTS: u64 = 100_000;
const PAGES_PER_VISIT: f64 = 5.0;
const PICTURES_PER_PAGE: u64 = 3;
/// The mean pause between pages, in seconds.
const PAUSE: f64 = 40.0;
/// The share of pages whose request writes.
const WRITE_SHARE: f64 = 0.03;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Collector;
    use crate::visits::Visits;
    use std::time::Duration;

    fn visits(seed: u64) -> (Count, Visits) {
        let mut collector = Collector::default();
        let count = fill(&mut collector, seed);
        (
            count,
            collector.visits(Duration::from_secs(300)).expect("a day is not empty"),
        )
    }

    #[test]
    fn a_seed_decides_everything_and_hardly_matters() {
        let (count, one) = visits(1);
        assert_eq!(count.lines, one.all_steps().len() as u64);
        assert_eq!(one.all_steps(), visits(1).1.all_steps());
        let (_, two) = visits(2);
        assert_ne!(one.all_steps(), two.all_steps());
        assert!((one.rate_per_user() / two.rate_per_user() - 1.0).abs() < 0.05);
    }

    #[test]
    fn it_looks_like_a_site() {
        let (_, visits) = visits(1);
        let hits = |url: &[u8]| {
            visits
                .all_steps()
                .iter()
                .filter(|step| visits.url(step.url) == url)
                .count() as f64
        };
        // Ranks 1 and 4 of a Zipf law with exponent 0.8.
        let ratio = hits(b"/page/0") / hits(b"/page/3");
        assert!((2.4..3.8).contains(&ratio), "{ratio}");
        let mut rng = Rng::seeded(1);
        let mut starts = Vec::new();
        let mut at = 0.0;
        while let Some(next) = next_visit(at, &mut rng) {
            at = next;
            starts.push(at / 3600.0);
        }
        let within = |from: f64| starts.iter().filter(|hour| (from..from + 2.0).contains(hour)).count();
        assert!(
            within(15.0) > 4 * within(3.0),
            "{} in the afternoon, {} at night",
            within(15.0),
            within(3.0)
        );
    }
}

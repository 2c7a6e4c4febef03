//! Sorts the requests of a log into visits.
#![allow(
    clippy::disallowed_types,
    reason = "the maps here have a fixed key, and nothing goes through them in order"
)]

use crate::access_log::{Request, Sink};
use crate::visits::{Replayable, Step, Visits};
use outgrow::hash::KeyedHash;
use std::collections::HashMap;
use std::time::Duration;

/// Collects requests in any order and sorts them into [`Visits`].
#[derive(Debug, Default)]
pub(crate) struct Collector {
    requests: Vec<Collected>,
    hosts: Interner,
    urls: Interner,
}

#[derive(Clone, Copy, Debug)]
struct Collected {
    second: i64,
    host: u32,
    url: u32,
    bytes: u32,
    status: u16,
    writes: bool,
}

impl Sink for Collector {
    fn take(&mut self, request: Request<'_>) -> bool {
        if self.requests.len() >= MAX_REQUESTS {
            return false;
        }
        self.requests.push(Collected {
            second: request.second,
            host: self.hosts.intern(request.host),
            url: self.urls.intern(request.target),
            bytes: u32::try_from(request.bytes).unwrap_or(u32::MAX),
            status: request.status,
            writes: request.writes,
        });
        true
    }
}

impl Collector {
    /// The visits in what was collected; `None` when nothing was.
    pub(crate) fn visits(self, session_gap: Duration) -> Option<Visits> {
        let Collector {
            mut requests,
            hosts,
            urls,
        } = self;
        // Stable: requests of one second stay in the order of the log.
        requests.sort_by_key(|request| (request.host, request.second));
        let first = requests.iter().map(|request| request.second).min()?;
        let last = requests.iter().map(|request| request.second).max()?;
        let mut steps = Vec::with_capacity(requests.len());
        for visit in split(&requests, session_gap) {
            append(&mut steps, visit);
        }
        Some(Visits::new(Replayable {
            steps,
            tail_ms: median_gap_ms(&requests, session_gap),
            urls: urls.strings,
            hosts: hosts.strings.len(),
            span: Duration::from_secs(last.abs_diff(first)),
        }))
    }
}

/// Appends a visit. The log's times are whole seconds; requests of one second are spread evenly over it, in their order,
/// instead of falling on one instant.
fn append(steps: &mut Vec<Step>, visit: &[Collected]) {
    let start = visit[0].second;
    for second in visit.chunk_by(|a, b| a.second == b.second) {
        let base = second[0].second.abs_diff(start) * 1000;
        for (i, request) in second.iter().enumerate() {
            steps.push(Step {
                offset_ms: (base + (i * 1000 / second.len()) as u64) as u32,
                url: request.url,
                bytes: request.bytes,
                status: request.status,
                writes: request.writes,
                last: false,
            });
        }
    }
    if let Some(step) = steps.last_mut() {
        step.last = true;
    }
}

/// Cuts sorted requests into visits. One that lasts over 49 days is cut too, so that offsets fit 32 bits.
fn split(requests: &[Collected], session_gap: Duration) -> impl Iterator<Item = &[Collected]> {
    let mut rest = requests;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let inside = |pair: &[Collected]| {
            same_visit(&pair[0], &pair[1], session_gap) && pair[1].second.abs_diff(first.second) < MAX_VISIT_SECONDS
        };
        let end = 1 + rest.windows(2).take_while(|pair| inside(pair)).count();
        let (visit, after) = rest.split_at(end);
        rest = after;
        Some(visit)
    })
}

fn same_visit(a: &Collected, b: &Collected, session_gap: Duration) -> bool {
    a.host == b.host && b.second.abs_diff(a.second) <= session_gap.as_secs()
}

/// The median pause inside visits; at least one second, the resolution of a log, so that a visit of one request counts.
fn median_gap_ms(requests: &[Collected], session_gap: Duration) -> u32 {
    let pairs = requests
        .windows(2)
        .filter(|pair| same_visit(&pair[0], &pair[1], session_gap));
    let mut gaps: Vec<u32> = pairs
        .map(|pair| pair[1].second.abs_diff(pair[0].second) as u32)
        .collect();
    gaps.sort_unstable();
    let median = match gaps.len() {
        0 => 0,
        n if n.is_multiple_of(2) => (u64::from(gaps[n / 2 - 1]) + u64::from(gaps[n / 2])) * 500,
        n => u64::from(gaps[n / 2]) * 1000,
    };
    (median.min(MAX_GAP_MS) as u32).max(1000)
}

/// Gives each distinct string a number.
#[derive(Debug, Default)]
struct Interner {
    numbers: HashMap<Box<[u8]>, u32, KeyedHash>,
    strings: Vec<Box<[u8]>>,
}

impl Interner {
    fn intern(&mut self, string: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(string) {
            return number;
        }
        let number = self.strings.len() as u32;
        self.numbers.insert(string.into(), number);
        self.strings.push(string.into());
        number
    }
}

/// 24 bytes each while collecting and 16 after; a log of more is counted, and its first part replayed.
const MAX_REQUESTS: usize = 10_000_000;
const MAX_VISIT_SECONDS: u64 = 48 * 86_400;
const MAX_GAP_MS: u64 = 86_400_000;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn collect(requests: &[(&str, i64, &str)]) -> Visits {
        let mut collector = Collector::default();
        for &(host, second, target) in requests {
            let request = Request {
                second,
                host: host.as_bytes(),
                target: target.as_bytes(),
                writes: false,
                status: 200,
                bytes: 5_000_000_000,
            };
            assert!(collector.take(request));
        }
        collector.visits(Duration::from_secs(300)).expect("requests were given")
    }

    #[test]
    fn a_gap_ends_a_visit_and_the_median_gap_is_its_tail() {
        let visits = collect(&[
            ("a", 0, "/"),
            ("b", 5, "/"),
            ("a", 300, "/x"),
            ("a", 304, "/x"),
            ("a", 310, "/"),
            ("a", 611, "/"),
        ]);
        // Gaps inside visits are 300, 4 and 6 s.
        assert_eq!(visits.median_gap(), Duration::from_secs(6));
        assert_eq!((visits.len(), visits.one_request_visits(), visits.hosts()), (3, 2, 2));
        let online: Vec<u64> = (0..3).map(|visit| visits.online(visit).as_secs()).collect();
        assert_eq!(online, [316, 6, 6]);
        assert!((visits.rate_per_user() - 6.0 / 328.0).abs() < 1e-12);
        assert_eq!(visits.longest_pause(), Duration::from_secs(300));
        assert_eq!((visits.urls().len(), visits.url(1)), (2, &b"/x"[..]));
        assert_eq!(visits.span(), Duration::from_secs(611));
        assert_eq!(visits.steps(0)[0].bytes, u32::MAX);
    }

    #[test]
    fn requests_of_one_second_spread_over_it_in_order() {
        let visits = collect(&[
            ("a", 7, "/1"),
            ("a", 9, "/3"),
            ("a", 7, "/2"),
            ("a", 9, "/4"),
            ("a", 9, "/5"),
        ]);
        let steps: Vec<_> = visits
            .steps(0)
            .iter()
            .map(|s| (s.offset_ms, visits.url(s.url), s.last))
            .collect();
        let want: [(u32, &[u8], bool); 5] = [
            (0, b"/1", false),
            (500, b"/2", false),
            (2000, b"/3", false),
            (2333, b"/4", false),
            (2666, b"/5", true),
        ];
        assert_eq!(steps, want);
    }

    #[test]
    fn a_lonely_request_is_online_for_a_second() {
        let visits = collect(&[("a", 7, "/")]);
        assert_eq!(visits.online(0), Duration::from_secs(1));
        assert_eq!(
            Collector::default().visits(Duration::from_secs(1)).map(|v| v.len()),
            None
        );
    }

    #[test]
    fn a_visit_of_months_is_cut() {
        let requests: Vec<_> = (0..60 * 288).map(|i| ("robot", i * 300, "/")).collect();
        let visits = collect(&requests);
        assert_eq!(visits.len(), 2);
        assert!(visits.steps(0).is_sorted_by_key(|step| step.offset_ms));
    }
}

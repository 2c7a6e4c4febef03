//! What a log holds, in numbers, for the lines above the table.

use crate::access_log::Count;
use crate::hardware::Hardware;
use crate::report::json;
use crate::visits::Visits;
use serde::Serialize;

/// The log in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LogSummary {
    /// Whether the workload was generated instead of read.
    pub(crate) generated: bool,
    /// Lines by fate and format.
    #[serde(flatten)]
    pub(crate) count: Count,
    /// Requests that are replayed.
    pub(crate) requests: u64,
    pub(crate) visits: u64,
    pub(crate) one_request_visits: u64,
    pub(crate) hosts: u64,
    pub(crate) urls: u64,
    /// From the first request to the last.
    #[serde(serialize_with = "json::milli")]
    pub(crate) span_s: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) median_gap_s: f64,
    /// How long a user stays online, on average.
    #[serde(serialize_with = "json::milli")]
    pub(crate) mean_online_s: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) requests_per_visit: f64,
    #[serde(serialize_with = "json::micro")]
    pub(crate) requests_per_second_per_user: f64,
    /// The share of requests that a page is rendered for.
    #[serde(serialize_with = "json::micro")]
    pub(crate) dynamic_share: f64,
    /// The share of requests whose method writes.
    #[serde(serialize_with = "json::micro")]
    pub(crate) write_share: f64,
    /// The share of requests that the log answers with 4xx or 5xx; replayed, and no failure of ours.
    #[serde(serialize_with = "json::micro")]
    pub(crate) logged_error_share: f64,
    #[serde(serialize_with = "json::milli")]
    pub(crate) mean_bytes: f64,
}

impl LogSummary {
    /// Counts what `visits` holds.
    pub(crate) fn new(count: Count, visits: &Visits, hardware: &Hardware, generated: bool) -> LogSummary {
        let steps = visits.all_steps();
        let requests = steps.len() as f64;
        let dynamic: Vec<bool> = visits.urls().iter().map(|url| hardware.is_dynamic(url)).collect();
        let share = |n: usize| n as f64 / requests;
        LogSummary {
            generated,
            count,
            requests: steps.len() as u64,
            visits: visits.len() as u64,
            one_request_visits: visits.one_request_visits() as u64,
            hosts: visits.hosts() as u64,
            urls: visits.urls().len() as u64,
            span_s: visits.span().as_secs_f64(),
            median_gap_s: visits.median_gap().as_secs_f64(),
            mean_online_s: visits.mean_online().as_secs_f64(),
            requests_per_visit: requests / visits.len() as f64,
            requests_per_second_per_user: visits.rate_per_user(),
            dynamic_share: share(steps.iter().filter(|step| dynamic[step.url as usize]).count()),
            write_share: share(steps.iter().filter(|step| step.writes).count()),
            logged_error_share: share(steps.iter().filter(|step| step.status >= 400).count()),
            mean_bytes: steps.iter().map(|step| f64::from(step.bytes)).sum::<f64>() / requests,
        }
    }
}

use crate::balance::ServerLoad;
use http::HeaderMap;
use std::time::Duration;

/// Where a server says how loaded it is, in the text or JSON form of ORCA (Open Request Cost Aggregation).
const HEADER: &str = "endpoint-load-metrics";

/// Reads what servers say of their load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoadReader {
    /// Requests that a server works on at once, for those that tell their utilization only.
    pub(super) concurrency: Option<f32>,
}

impl LoadReader {
    /// The load that headers or trailers tell, if they do.
    pub(super) fn read(self, headers: &HeaderMap) -> Option<ServerLoad> {
        let value = headers.get(HEADER)?.to_str().ok()?;
        let (form, rest) = value.split_once(' ')?;
        let mut said = Said::default();
        match form {
            "TEXT" => text(rest).for_each(|(name, value)| said.take(name, value)),
            "JSON" => json(rest, |name, value| said.take(name, value)),
            _ => return None,
        }
        let utilized = || Some(said.application.or(said.cpu)? * self.concurrency?);
        let load = ServerLoad::new(said.in_flight.or_else(utilized)?);
        Some(match said.latency_ms {
            Some(millis) => load.latency(Duration::try_from_secs_f32(millis / 1e3).ok()?),
            None => load,
        })
    }
}

#[derive(Default)]
struct Said {
    in_flight: Option<f32>,
    latency_ms: Option<f32>,
    application: Option<f32>,
    cpu: Option<f32>,
}

impl Said {
    fn take(&mut self, name: &str, value: &str) {
        let place = match name.strip_prefix("named_metrics.").unwrap_or(name) {
            "in_flight" => &mut self.in_flight,
            "latency_ms" => &mut self.latency_ms,
            "application_utilization" => &mut self.application,
            "cpu_utilization" => &mut self.cpu,
            _ => return,
        };
        *place = value
            .parse()
            .ok()
            .filter(|value: &f32| value.is_finite() && *value >= 0.0);
    }
}

/// `name=value, name=value`.
fn text(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim()))
}

/// Every number that has a name, at whatever depth.
fn json<'t>(text: &'t str, mut found: impl FnMut(&'t str, &'t str)) {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('"') {
        let Some((name, after)) = after.split_once('"') else {
            return;
        };
        rest = after;
        let Some(value) = after.trim_start().strip_prefix(':') else {
            continue;
        };
        let value = value.trim_start();
        let end = value.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E'));
        found(name, &value[..end.unwrap_or(value.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str, concurrency: Option<f32>) -> Option<ServerLoad> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, value.parse().unwrap());
        LoadReader { concurrency }.read(&headers)
    }

    #[test]
    fn text_and_json_tell_the_same() {
        let load = ServerLoad::new(12.0).latency(Duration::from_millis(8));
        let text = "TEXT cpu_utilization=0.5, named_metrics.in_flight=12,named_metrics.latency_ms = 8.0";
        assert_eq!(read(text, None), Some(load));
        let json = r#"JSON {"cpu_utilization": 0.5, "named_metrics": {"in_flight":1.2e1, "latency_ms" : 8}}"#;
        assert_eq!(read(json, None), Some(load));
    }

    #[test]
    fn a_utilization_is_worth_what_the_server_can_do_at_once() {
        let text = "TEXT cpu_utilization=0.5,application_utilization=0.25";
        assert_eq!(read(text, Some(64.0)), Some(ServerLoad::new(16.0)));
        assert_eq!(
            read("TEXT cpu_utilization=0.5", Some(64.0)),
            Some(ServerLoad::new(32.0))
        );
        assert_eq!(read(text, None), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_report() {
        for value in [
            "",
            "TEXT",
            "TEXT ",
            "TEXT in_flight",
            "TEXT in_flight=x",
            "TEXT in_flight=NaN",
            "TEXT in_flight=inf",
            "TEXT in_flight=-1",
            "in_flight=1",
            "BIN abcd",
            "JSON",
            "JSON {",
            "JSON {\"",
            "JSON {\"in_flight\"",
            "JSON {\"in_flight\":",
            "JSON {\"in_flight\":\"1\"}",
            "JSON {\"in_flight\":{}}",
        ] {
            assert_eq!(read(value, Some(1.0)), None, "{value:?}");
        }
        assert_eq!(LoadReader::default().read(&HeaderMap::new()), None);
    }
}

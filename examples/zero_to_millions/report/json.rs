//! The report as JSON.

use super::Report;
use serde::Serializer;

/// The report as indented JSON with a newline at its end.
pub(crate) fn json(report: &Report) -> String {
    let mut text =
        serde_json::to_string_pretty(report).expect("broken invariant: a report has string keys and plain values only");
    text.push('\n');
    text
}

/// Three digits behind the point, for times and rates.
pub(crate) fn milli<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((number * 1e3).round() / 1e3)
}

/// Six digits behind the point, for shares.
pub(crate) fn micro<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((number * 1e6).round() / 1e6)
}

/// Like [`milli`], where there may be none.
pub(crate) fn opt_milli<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => milli(number, serializer),
        None => serializer.serialize_none(),
    }
}

/// Like [`micro`], where there may be none.
pub(crate) fn opt_micro<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => micro(number, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use crate::report::sample;
    use serde_json::Value;

    #[test]
    fn the_shape_is_the_promised_one() {
        let json: Value = serde_json::from_str(&super::json(&sample::report())).expect("valid JSON");
        assert_eq!(json["schema_version"], 1);
        for key in ["lines", "malformed", "visits", "generated"] {
            assert!(!json["log"][key].is_null(), "{key}");
        }
        let rungs = json["rungs"].as_array().expect("an array");
        let keys: Vec<&String> = rungs[0].as_object().expect("an object").keys().collect();
        let mut want = [
            "id",
            "name",
            "machines",
            "price",
            "users",
            "requests_per_second",
            "p50_ms",
            "p99_ms",
            "p999_ms",
            "error_rate",
            "hit_ratio",
            "saturated",
            "curve",
            "drill",
        ];
        want.sort_unstable();
        assert_eq!(keys, want);
        assert_eq!(rungs[0]["hit_ratio"], Value::Null);
        assert_eq!(rungs[0]["p50_ms"], 4.123);
        assert_eq!(rungs[0]["saturated"]["limit"], "capacity");
        assert_eq!(rungs[0]["drill"]["rerouted_ms"], Value::Null);
        let region = &rungs[8]["drill"]["regions"][0];
        assert_eq!(
            (&region["region"], &region["p99_before_ms"]),
            (&"Dublin".into(), &61.25.into())
        );
        assert_eq!(region["p99_after_ms"], Value::Null);
    }
}

//! A made-up report for tests of the report's forms.

use super::{
    Busy, CurvePoint, Drill, DrillPoint, DynamicRule, InputSummary, Limit, RegionDrill, Report, RungReport,
    SCHEMA_VERSION, Saturated, Sensitivity, Varied,
};
use crate::access_log::Count;
use crate::hardware::Hardware;
use crate::summary::LogSummary;

pub(crate) fn report() -> Report {
    let hardware = Hardware::built_in();
    let rungs = rungs();
    let (rule, why) = hardware.dynamic_rule();
    Report {
        schema_version: SCHEMA_VERSION,
        inputs: InputSummary {
            log: Some("access.log".into()),
            hardware: None,
            seed: 1,
            session_gap_s: 300,
            slo_ms: 250,
            timeout_ms: 2_000,
            users: Some(100_000),
            rung: None,
            quick: false,
            sensitivity: true,
        },
        log: log(),
        dynamic: DynamicRule {
            rule,
            why: why.to_owned(),
        },
        answer: Some(super::answer(&rungs, 100_000)),
        sensitivity: sensitivity(&hardware, &rungs),
        assumptions: hardware.figures().cloned().collect(),
        rungs,
    }
}

fn log() -> LogSummary {
    LogSummary {
        generated: false,
        count: Count {
            lines: 47_748,
            malformed: 21,
            epa: 47_727,
            ..Count::default()
        },
        requests: 47_727,
        visits: 4_098,
        one_request_visits: 624,
        hosts: 2_333,
        urls: 6_557,
        span_s: 86_382.0,
        median_gap_s: 4.0,
        mean_online_s: 214.13,
        requests_per_visit: 11.65,
        requests_per_second_per_user: 0.0544,
        dynamic_share: 0.502,
        write_share: 0.034,
        logged_error_share: 0.025,
        mean_bytes: 6_534.3,
    }
}

pub(crate) fn rungs() -> Vec<RungReport> {
    let capacity = |busy: &[(&str, f64)]| saturated(Limit::Capacity, busy);
    vec![
        rung(
            "single",
            "Single server",
            1,
            "1 database",
            6_400,
            None,
            capacity(&[("server cpu", 0.93)]),
        ),
        rung(
            "single-x2",
            "... doubled",
            1,
            "1 database of twice the size",
            12_900,
            None,
            capacity(&[("server cpu", 0.94)]),
        ),
        rung(
            "single-x4",
            "... quadrupled",
            1,
            "1 database of 4 times the size",
            26_300,
            None,
            saturated(Limit::Latency, &[("web cpu", 0.61)]),
        ),
        rung(
            "database",
            "Separate database",
            2,
            "2 web, 1 database",
            10_100,
            None,
            capacity(&[("web cpu", 0.96), ("database cpu", 0.95)]),
        ),
        rung(
            "balancer",
            "Load balancer",
            6,
            "1 balancer, 4 web, 1 database",
            21_000,
            None,
            capacity(&[("database cpu", 0.95)]),
        ),
        rung(
            "replication",
            "Replication",
            12,
            "1 balancer, 8 web, 3 databases",
            58_000,
            None,
            capacity(&[("web cpu", 0.96)]),
        ),
        rung(
            "cache",
            "Cache",
            26,
            "1 balancer, 20 web, 3 databases, 2 caches",
            210_000,
            Some(0.874),
            capacity(&[("primary cpu", 0.91)]),
        ),
        rung(
            "queue",
            "Message queue",
            34,
            "1 balancer, 27 web, 3 databases, 2 caches, 1 queue",
            330_000,
            Some(0.881),
            capacity(&[("primary disk", 0.97)]),
        ),
        rung(
            "sharding",
            "Sharding",
            240,
            "4 balancers, 200 web, 24 databases, 10 caches, 2 queues",
            4_000_000,
            Some(0.9),
            saturated(Limit::Ceiling, &[("web cpu", 0.7)]),
        ),
    ]
}

fn rung(
    id: &str,
    name: &str,
    machines: u32,
    parts: &str,
    users: u64,
    hits: Option<f64>,
    saturated: Saturated,
) -> RungReport {
    RungReport {
        id: id.into(),
        name: name.into(),
        machines,
        price: if id == "database" {
            230.0
        } else {
            f64::from(machines) * 75.0
        },
        users,
        requests_per_second: users as f64 * 0.0544,
        p50_ms: 4.12345,
        p99_ms: 231.0,
        p999_ms: 612.0,
        error_rate: 0.0002,
        hit_ratio: hits,
        saturated,
        curve: (1..=12).map(|i| point(users, f64::from(i) / 10.0)).collect(),
        drill: Some(drill(id)),
        parts: parts.into(),
        relieves: "It relieves the server's processor: web work moves to a machine of its own.".into(),
        notes: vec![
            "Measured at a tenth: users and machines divided by 10; at a twentieth the result differs by 1.3 %.".into(),
        ],
    }
}

fn saturated(limit: Limit, busy: &[(&str, f64)]) -> Saturated {
    let busy = busy.iter().map(|&(name, utilisation)| Busy {
        name: name.into(),
        utilisation,
    });
    Saturated {
        limit,
        resources: busy.collect(),
    }
}

fn point(users: u64, share: f64) -> CurvePoint {
    let wait = 4.0 / (1.0 - share.min(0.995));
    CurvePoint {
        users: (users as f64 * share) as u64,
        requests_per_second: users as f64 * share * 0.0544,
        p50_ms: wait,
        p99_ms: wait * 9.0,
        p999_ms: wait * 17.0,
        error_rate: if share > 1.0 { 0.08 } else { 0.0 },
    }
}

fn drill(id: &str) -> Drill {
    let dead = id.starts_with("single");
    let step = |i: i64| {
        let down = dead && i >= 0 || (0..6).contains(&i);
        DrillPoint {
            at_ms: i * 500,
            p99_ms: (!down).then_some(if (6..12).contains(&i) {
                900.0 / (i - 5) as f64
            } else {
                41.0
            }),
            failed: if down { 120 } else { 0 },
            requests: 200,
        }
    };
    Drill {
        part: 1,
        killed: "the primary loses power".into(),
        survived: !dead,
        failed_requests: 12,
        lost_acknowledged_writes: 0,
        lost_visits: 3,
        recovery_ms: (!dead).then_some(4_500.0),
        rerouted_ms: (id == "sharding").then_some(1_002.0),
        regions: regions(id),
        note: "The most caught-up replica was promoted.".into(),
        timeline: (-10..40).map(step).collect(),
    }
}

fn regions(id: &str) -> Vec<RegionDrill> {
    let region = |name: &str, failed| RegionDrill {
        region: name.into(),
        p99_before_ms: Some(61.25),
        p99_during_ms: Some(2_000.0),
        p99_after_ms: None,
        failed,
        requests: 41_000,
    };
    match id {
        "sharding" => vec![region("Dublin", 1_200), region("Virginia", 7)],
        _ => Vec::new(),
    }
}

fn sensitivity(hardware: &Hardware, rungs: &[RungReport]) -> Vec<Sensitivity> {
    let mut rows = Vec::new();
    for (rung, figure) in rungs
        .iter()
        .flat_map(|rung| hardware.figures().map(move |figure| (rung, figure)))
    {
        let effect = match figure.name.as_str() {
            "web.render_cpu_ms" => -0.18,
            "workload.reads_per_dynamic" => -0.11,
            "web.cores" => 0.42,
            name => name.len() as f64 / 1000.0 - 0.02,
        };
        let varied = |factor: f64, effect: f64| {
            Some(Varied {
                value: figure.value * factor,
                users: (rung.users as f64 * (1.0 + effect)) as u64,
            })
        };
        rows.push(Sensitivity {
            figure: figure.name.clone(),
            rung: rung.id.clone(),
            lower: varied(0.75, -effect),
            higher: varied(1.25, effect),
        });
    }
    rows
}

//! What others publish: tables that ours has to equal.

#![allow(clippy::disallowed_methods, reason = "the files of a test are real")]

use crate::support::need;
use outgrow::balance::{Balancer, Endpoint, EndpointId, Load, Maglev, Member, Request};
use outgrow::env::{Rng, Tick};
use serde_json::Value;
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

fn numbers(value: &Value) -> Vec<u64> {
    let all = value.as_array().into_iter().flatten();
    all.map(|n| n.as_u64().expect("a number")).collect()
}

/// The table of Envoy's own test, and where it looks next when a host is excluded.
#[test]
fn a_maglev_table_is_envoys() {
    let Some(vectors) = need("vectors") else { return };
    let text = std::fs::read_to_string(vectors.join("maglev.json")).unwrap();
    let envoy = &serde_json::from_str::<Value>(&text).unwrap()["envoy"];
    let case = &envoy["cases"][0];
    let keys: Vec<&str> = case["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    let members: Vec<Member> = keys.iter().map(|key| Member::from(&Endpoint::new(*key))).collect();
    let slots = case["M"].as_u64().unwrap() as u32;
    let maglev = || Maglev::with_slots(slots).unwrap();
    let table = maglev().hash(xxh64).table(&members);
    let ours: Vec<u64> = table.iter().map(|&i| u64::from(i)).collect();
    assert_eq!(ours, numbers(&case["table"]));

    let retry = &envoy["retry"]["case"];
    let hash = retry["hash"].as_u64().unwrap();
    let policy = maglev().hash(move |_, _| hash);
    let loads: Vec<Arc<Load>> = members
        .iter()
        .map(|member| Arc::new(Load::new(member.id().clone())))
        .collect();
    let pick = |avoided: &[&str]| {
        let avoided: Vec<EndpointId> = avoided.iter().map(|id| EndpointId::from(*id)).collect();
        let request = Request::new().key(b"any").avoid(&avoided);
        policy
            .pick(&table, &loads, &request, Tick::ZERO, &mut Rng::seeded(1))
            .map(|i| i as u64)
    };
    let first = retry["first"].as_u64();
    assert_eq!(pick(&[]), first);
    let second = pick(&[keys[first.unwrap() as usize]]);
    assert_eq!(second, retry["if_1_excluded"].as_u64());
    let third = pick(&[keys[first.unwrap() as usize], keys[second.unwrap() as usize]]);
    assert_eq!(third, retry["all_excluded_after_2"].as_u64());
}

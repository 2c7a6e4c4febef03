//! What others publish: tables that ours has to equal.

#![allow(clippy::disallowed_methods, reason = "the files of a test are real")]

use crate::support::need;
use md5::{Digest, Md5};
use outgrow::balance::{Balancer, Endpoint, EndpointId, Load, Maglev, Member, Request, Ring};
use outgrow::env::{Rng, Tick};
use serde_json::Value;
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

fn numbers(value: &Value) -> Vec<u64> {
    let all = value.as_array().into_iter().flatten();
    all.map(|n| n.as_u64().expect("a number")).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    let all = value.as_array().into_iter().flatten();
    all.map(|s| s.as_str().expect("a string")).collect()
}

fn members<'a>(weighted: impl IntoIterator<Item = (&'a str, u32)>) -> Vec<Member> {
    let all = weighted.into_iter();
    all.map(|(id, weight)| Member::from(&Endpoint::new(id).weight(weight)))
        .collect()
}

fn loads(members: &[Member]) -> Vec<Arc<Load>> {
    members
        .iter()
        .map(|member| Arc::new(Load::new(member.id().clone())))
        .collect()
}

/// Where `ring` sends each key.
fn owners(ring: &Ring, members: &[Member], keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u64> {
    let (table, loads, mut rng) = (ring.table(members), loads(members), Rng::seeded(1));
    let mut owner = |key: &[u8]| ring.pick(&table, &loads, &Request::new().key(key), Tick::ZERO, &mut rng);
    keys.into_iter()
        .map(|key| owner(key.as_ref()).unwrap() as u64)
        .collect()
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The points and the owners that libmemcached prints.
#[test]
fn a_ketama_ring_is_libmemcacheds() {
    let Some(vectors) = need("vectors") else { return };
    let text = std::fs::read_to_string(vectors.join("ketama.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let set = &file["set"];
    let weights = numbers(&set["weights"]);
    let members = members(
        strings(&set["servers"])
            .into_iter()
            .zip(weights.iter().map(|w| *w as u32)),
    );
    let ring = Ring::ketama(md5);

    let table = ring.table(&members);
    assert_eq!(table.points().count(), 160 * members.len());
    let first = file["first_points_for_3_servers"].as_array().unwrap();
    assert_eq!(first.len(), 20);
    for (point, want) in table.points().zip(first) {
        assert_eq!(
            (Some(point.0 >> 32), Some(&**members[point.1].id())),
            (want[0].as_u64(), want[1].as_str())
        );
    }
    let keys = strings(&file["keys"]);
    assert_eq!(keys.len(), 30);
    assert_eq!(owners(&ring, &members, keys), numbers(&set["expect"]));
}

/// libmemcached's rule for uneven weights, worked out in whole numbers where single precision makes no difference.
#[test]
fn ketama_points_follow_the_weights() {
    let points = |weights: &[u32]| {
        let names = ["a", "b", "c", "d"];
        let table = Ring::ketama(md5).table(&members(names.into_iter().zip(weights.iter().copied())));
        let mut points = vec![0; weights.len()];
        table.points().for_each(|(_, owner)| points[owner] += 1);
        points
    };
    // floor(weight / total * 40 * servers) digests of four points.
    assert_eq!(points(&[1, 3]), [80, 240]);
    assert_eq!(points(&[1, 2, 4]), [17 * 4, 34 * 4, 68 * 4]);
    assert_eq!(points(&[1000, 1000, 1]), [59 * 4, 59 * 4, 0]);
}

/// The owners that pingora-ketama 0.9.1 prints for the same servers and weights; its own test holds it against nginx.
#[test]
fn an_nginx_ring_is_pingoras() {
    let keys = || (0..40).map(|i| format!("key:{i}"));
    let even = members([("127.0.0.1:7777", 1), ("127.0.0.1:7778", 1)]);
    let want = [
        0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1,
        0, 1, 1,
    ];
    assert_eq!(owners(&Ring::nginx(crc32), &even, keys()), want);

    let uneven = [
        ("10.0.0.1:80", 1),
        ("10.0.0.2:80", 2),
        ("10.0.0.3:8080", 1),
        ("192.168.7.9:80", 3),
    ];
    let want = [
        2, 0, 1, 3, 3, 3, 0, 1, 3, 1, 2, 3, 1, 3, 3, 3, 0, 2, 3, 1, 1, 0, 0, 3, 3, 2, 3, 3, 0, 1, 1, 3, 1, 2, 0, 3, 3,
        3, 3, 0,
    ];
    assert_eq!(owners(&Ring::nginx(crc32), &members(uneven), keys()), want);
}

/// The table of Envoy's own test, and where it looks next when a host is excluded.
#[test]
fn a_maglev_table_is_envoys() {
    let Some(vectors) = need("vectors") else { return };
    let text = std::fs::read_to_string(vectors.join("maglev.json")).unwrap();
    let envoy = &serde_json::from_str::<Value>(&text).unwrap()["envoy"];
    let case = &envoy["cases"][0];
    let keys = strings(&case["keys"]);
    let members = members(keys.iter().map(|key| (*key, 1)));
    let slots = case["M"].as_u64().unwrap() as u32;
    let maglev = || Maglev::with_slots(slots).unwrap();
    let table = maglev().hash(xxh64).table(&members);
    let ours: Vec<u64> = table.slots().map(|i| i as u64).collect();
    assert_eq!(ours, numbers(&case["table"]));

    let retry = &envoy["retry"]["case"];
    let hash = retry["hash"].as_u64().unwrap();
    let policy = maglev().hash(move |_, _| hash);
    let loads = loads(&members);
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

//! What a route allocates. A program of its own, since a thread may free, and so queue, what another replaced.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

#[path = "balance/clock.rs"]
#[allow(dead_code, reason = "time stands still here")]
mod clock;
mod support;

use outgrow::geo::{Centre, Client, Continent, GeoIpDatabase, GeoRouter, GeoRouterBuilder, IpNet, Overrides, Position};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;
use support::counting::{Counting, asked};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Thirty centres, a third of them down, one shifted, with rules of every kind.
fn builder() -> GeoRouterBuilder {
    let centre = |i: u32| {
        let position = Position::new(f64::from(i * 37 % 120) - 60.0, f64::from(i) * 12.0 - 180.0).unwrap();
        Centre::new(format!("c{i}"), position).capacity(100 + i)
    };
    let rules = (0..=255_u8).fold(Overrides::new(), |rules, i| {
        rules.subnet(IpNet::new([10, i, 0, 0].into(), 16).unwrap(), format!("c{}", i % 30))
    });
    let rules = rules
        .country("JP".parse().unwrap(), "c3")
        .continent(Continent::Africa, "c4");
    GeoRouter::builder()
        .centres((0..30).map(centre))
        .overrides(rules)
        .env(clock::ManualClock::default().env(1))
}

fn break_some(router: &GeoRouter) {
    for i in (0..30).step_by(3) {
        assert!(router.set_health(&format!("c{i}"), false));
    }
    assert!(router.shift("c1", 0.5));
    let net: IpNet = "11.0.0.0/8".parse().unwrap();
    for id in ["c1", "c2", "c4"] {
        assert!(router.observe(net, id, Duration::from_millis(10)));
        assert!(router.observe("group", id, Duration::from_millis(10)));
    }
}

fn allocations(router: &GeoRouter, addresses: &[IpAddr]) -> u64 {
    let tried = ["c1".into(), "c2".into()];
    let run = |rounds: usize| {
        for i in 0..rounds {
            let key = i.to_be_bytes();
            let here = Position::new((i % 120) as f64 - 60.0, (i % 360) as f64 - 180.0).unwrap();
            let client = Client::new().ip(addresses[i % addresses.len()]);
            let client = [
                client,
                client.key(&key).position(here),
                client.avoid(&tried),
                client.group("group"),
                Client::new(),
                Client::new().position(here),
            ][i % 6];
            drop(black_box(router.route(&client).unwrap()));
            drop(black_box(router.nearest(&client, 1 + i % 8).unwrap()));
        }
    };
    // The first route registers the thread, and some later ones free the snapshots from before the last change.
    run(1_000);
    asked(|| run(20_000))
}

#[test]
fn a_route_allocates_nothing() {
    assert_eq!(asked(|| drop(black_box(Box::new(1)))), 1, "the counter counts");
    let addresses: Vec<IpAddr> = (0..=255_u8).map(|i| [i % 13 + 1, i, 7, 1].into()).collect();
    let router = builder().build().unwrap();
    assert_eq!(allocations(&router, &addresses), 0);
    break_some(&router);
    assert_eq!(allocations(&router, &addresses), 0);
}

#[test]
fn a_route_by_a_database_allocates_nothing() {
    let Some(folder) = support::need("geo") else { return };
    let path = folder.join("GeoIP2-City-Test.mmdb");
    let reader = maxminddb::Reader::open_readfile(&path).unwrap();
    let networks = reader.networks(Default::default()).unwrap();
    let addresses: Vec<IpAddr> = networks.map(|found| found.unwrap().network().unwrap().ip()).collect();
    let database = GeoIpDatabase::from_bytes(std::fs::read(path).unwrap()).unwrap();
    let router = builder().locator(database).build().unwrap();
    assert_eq!(allocations(&router, &addresses), 0);
    break_some(&router);
    assert_eq!(allocations(&router, &addresses), 0);
}

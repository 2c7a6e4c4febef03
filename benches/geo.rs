//! What does a route cost, by address with its lookup, and does it grow with the centres? Peer: maxminddb's lookup alone.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_methods, reason = "benches act as the outside world")]

use criterion::{Criterion, criterion_group, criterion_main};
use outgrow::geo::{Centre, Client, GeoRouter, Overrides, Position};
use std::hint::black_box;

/// Centres on a spiral from pole to pole, which covers the Earth evenly.
fn centres(count: u32) -> Vec<Centre> {
    let centre = |i: u32| {
        let z = 1.0 - (2.0 * f64::from(i) + 1.0) / f64::from(count);
        let turn = (f64::from(i) * 137.508) % 360.0 - 180.0;
        let position = Position::new(z.asin().to_degrees(), turn).expect("on the Earth");
        Centre::new(format!("c{i}"), position).capacity(1_000)
    };
    (0..count).map(centre).collect()
}

fn router(count: u32) -> GeoRouter {
    GeoRouter::builder()
        .centres(centres(count))
        .build()
        .expect("no overrides")
}

/// Routes clients in turn, without a lookup.
fn routes<'a>(criterion: &mut Criterion, name: &str, router: &GeoRouter, clients: &[Client<'a>]) {
    let mut turn = clients.iter().cycle();
    criterion.benchmark_group(name).bench_function("ours", |b| {
        b.iter(|| {
            let client = turn.next().expect("it never ends");
            router.route(black_box(client)).expect("there are centres")
        });
    });
}

fn positions(criterion: &mut Criterion) {
    let at = |i: u32| Position::new(f64::from(i % 120) - 60.0, f64::from(i * 7 % 360) - 180.0).expect("on the Earth");
    let keys: Vec<[u8; 4]> = (0..997_u32).map(u32::to_be_bytes).collect();
    let clients: Vec<Client<'_>> = (0..)
        .zip(&keys)
        .map(|(i, key)| Client::new().key(key).position(at(i)))
        .collect();
    for count in [3, 30, 243] {
        let router = router(count);
        routes(criterion, &format!("geo/by_position/{count}"), &router, &clients);
        // A third is down, so a third of the clients are spread over the others.
        for i in (0..count).step_by(3) {
            assert!(router.set_health(&format!("c{i}"), false));
        }
        routes(criterion, &format!("geo/spilled/{count}"), &router, &clients);
    }
    let router = router(30);
    let mut turn = clients.iter().cycle();
    criterion
        .benchmark_group("geo/nearest_3/30")
        .bench_function("ours", |b| {
            b.iter(|| {
                let client = turn.next().expect("it never ends");
                router.nearest(black_box(client), 3).expect("there are centres")
            });
        });
}

fn overrides(criterion: &mut Criterion) {
    let net = |i: u32| {
        format!("{}.{}.{}.0/24", i % 200, i / 200 % 250, i * 7 % 250)
            .parse()
            .expect("a network")
    };
    let rules = (0..10_000).fold(Overrides::new(), |rules, i| {
        rules.subnet(net(i), format!("c{}", i % 30))
    });
    let builder = GeoRouter::builder().centres(centres(30)).overrides(rules);
    let router = builder.build().expect("they name what is there");
    let clients: Vec<_> = (0..997_u32)
        .map(|i| Client::new().ip([(i % 200) as u8, (i / 200) as u8, (i * 7 % 250) as u8, 1]))
        .collect();
    routes(criterion, "geo/by_subnet_of_10000/30", &router, &clients);
}

#[cfg(feature = "geoip")]
fn addresses(criterion: &mut Criterion) {
    use maxminddb::{Reader, geoip2};
    use outgrow::geo::{GeoIpDatabase, Locator};

    let shared =
        std::env::var("OUTGROW_SHARED").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into());
    let Ok(bytes) = std::fs::read(format!("{shared}/geo/GeoIP2-City-Test.mmdb")) else {
        return; // This machine lacks it, and there is nothing to measure with.
    };
    let database = GeoIpDatabase::from_bytes(bytes.clone()).expect("a database");
    let reader = Reader::from_source(bytes).expect("a database");
    let networks = reader.networks(Default::default()).expect("a tree");
    let addresses: Vec<_> = networks
        .map(|found| found.and_then(|found| found.network()).expect("a network").ip())
        .collect();
    let builder = GeoRouter::builder().centres(centres(30)).locator(database.clone());
    let router = builder.build().expect("no overrides");
    let mut turn = addresses.iter().cycle();
    let mut next = || *turn.next().expect("it never ends");

    let mut group = criterion.benchmark_group("geo/by_address/30");
    group.bench_function("ours", |b| {
        b.iter(|| {
            router
                .route(&Client::new().ip(black_box(next())))
                .expect("there are centres")
        });
    });
    group.bench_function("the locator alone", |b| b.iter(|| database.locate(black_box(next()))));
    group.bench_function("maxminddb, a whole record", |b| {
        b.iter(|| {
            let found = reader.lookup(black_box(next())).expect("a tree");
            black_box(found.decode::<geoip2::City<'_>>().expect("a record").is_some())
        });
    });
}

#[cfg(not(feature = "geoip"))]
fn addresses(_: &mut Criterion) {}

criterion_group!(benches, addresses, positions, overrides);
criterion_main!(benches);

//! Addresses, by the test databases of MaxMind, whose own reader is the judge.

use crate::places::{at, goes};
use crate::support::need;
use futures::executor::block_on;
use maxminddb::{Reader, geoip2};
use outgrow::env::Env;
use outgrow::geo::{
    Centre, Client, Continent, Error, Fallback, GeoIpDatabase, GeoRouter, Location, Locator, Overrides, Position,
    Reason,
};
use std::net::IpAddr;
use std::path::PathBuf;

fn path(name: &str) -> Option<PathBuf> {
    need("geo").map(|folder| folder.join(name))
}

fn open(path: &PathBuf) -> GeoIpDatabase {
    block_on(GeoIpDatabase::open(path, &Env::system())).unwrap()
}

/// Every network of a database: an address of it, the length of its prefix, and its whole record.
fn networks(reader: &Reader<Vec<u8>>) -> Vec<(IpAddr, u8, geoip2::City<'_>)> {
    let networks = reader.networks(Default::default()).unwrap();
    let one = |found: maxminddb::LookupResult<'_, Vec<u8>>| (found.network().unwrap(), found.offset());
    let found: Vec<_> = networks.map(|found| one(found.unwrap())).collect();
    let record = |ip| reader.lookup(ip).unwrap().decode().unwrap().unwrap();
    found
        .into_iter()
        .map(|(net, _)| (net.ip(), net.prefix(), record(net.ip())))
        .collect()
}

/// What a whole record says, read another way than the router does.
fn expected(record: &geoip2::City<'_>) -> Location {
    let mut location = Location::default();
    if let (Some(latitude), Some(longitude)) = (record.location.latitude, record.location.longitude) {
        location.position = Some(at(latitude, longitude));
    }
    let country = record.country.iso_code.or(record.registered_country.iso_code);
    location.country = country.map(|code| code.parse().unwrap());
    location.continent = record.continent.code.map(|code| code.parse().unwrap());
    location
}

#[test]
fn every_network_is_where_its_record_says() {
    for (name, all, placed) in [
        ("GeoIP2-City-Test.mmdb", 250, 248),
        ("GeoIP2-Country-Test.mmdb", 200, 0),
    ] {
        let Some(path) = path(name) else { return };
        let (database, reader) = (open(&path), Reader::open_readfile(&path).unwrap());
        let networks = networks(&reader);
        let mut positions = 0;
        for (ip, prefix, record) in &networks {
            let found = database.locate(*ip);
            let mut expected = expected(record);
            expected.prefix = Some(*prefix);
            assert_eq!(found, expected, "{ip}/{prefix}");
            positions += usize::from(found.position.is_some());
        }
        assert!(networks.len() >= all, "{name} has {} networks", networks.len());
        assert!(positions >= placed, "{name} has {positions} positions");
        assert!(networks.iter().any(|(ip, ..)| database.locate(*ip).country.is_some()));
        assert_eq!(database.unreadable(), 0);
    }
}

/// Every network goes to the centre that is nearest by the haversine, and the scope is such that its ends do too.
#[test]
fn every_network_is_routed_to_the_nearest_centre() {
    let Some(path) = path("GeoIP2-City-Test.mmdb") else {
        return;
    };
    let centres = [
        ("eu", 50.1, 8.7),
        ("us", 39.0, -77.5),
        ("jp", 35.7, 139.7),
        ("br", -23.5, -46.6),
        ("au", -33.9, 151.2),
    ];
    let position = |(_, lat, lon): &(&str, f64, f64)| at(*lat, *lon);
    let router = GeoRouter::builder()
        .centres(centres.iter().map(|centre| Centre::new(centre.0, position(centre))))
        .locator(open(&path))
        .fallback(Fallback::Centre("au".into()))
        .build()
        .unwrap();
    let reader = Reader::open_readfile(&path).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (ip, prefix, record) in networks(&reader) {
        let (expected, why) = match expected(&record).position {
            Some(client) => {
                let distance = |centre: &&(&str, f64, f64)| client.kilometres_to(position(centre));
                let nearest = centres.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
                (nearest.unwrap().0, Reason::Nearest)
            }
            None => ("au", Reason::Fallback),
        };
        let route = router.route(&Client::new().ip(ip)).unwrap();
        assert_eq!((&**route.id(), route.reason()), (expected, why), "{ip}/{prefix}");
        assert_eq!(route.scope(), Some(prefix), "{ip}");
        seen.insert(expected);
    }
    assert!(seen.len() >= 4, "the networks are all over the world: {seen:?}");
}

#[test]
fn in_whatever_guise_an_address_comes() {
    let Some(path) = path("GeoIP2-City-Test.mmdb") else {
        return;
    };
    let [gb, us] = [Centre::new("gb", at(51.5, -0.1)), Centre::new("us", at(39.0, -77.5))];
    let builder = GeoRouter::builder().centres([us, gb]).locator(open(&path));
    let router = builder.fallback(Fallback::Centre("us".into())).build().unwrap();
    let goes = |ip: &str| goes(&router, &Client::new().ip(ip.parse::<IpAddr>().unwrap()));
    for ip in ["2.125.160.217", "::ffff:2.125.160.217"] {
        assert_eq!(goes(ip), ("gb".into(), Reason::Nearest), "{ip}");
    }
    for ip in [
        "10.0.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "203.0.113.9",
        "::ffff:10.0.0.1",
    ] {
        assert_eq!(goes(ip), ("us".into(), Reason::Fallback), "{ip}");
    }
    // What a client says of itself goes before what its address says.
    let client = Client::new().ip([2, 125, 160, 217]).position(at(38.0, -78.0));
    assert_eq!(&**router.route(&client).unwrap().id(), "us");
}

#[test]
fn a_country_database_serves_rules_for_countries_and_continents() {
    let Some(path) = path("GeoIP2-Country-Test.mmdb") else {
        return;
    };
    let rules = Overrides::new()
        .country("GB".parse().unwrap(), "gb")
        .continent(Continent::Asia, "jp");
    let router = GeoRouter::builder()
        .centres(
            [("gb", 51.5, -0.1), ("jp", 35.7, 139.7), ("us", 39.0, -77.5)].map(|(id, a, b)| Centre::new(id, at(a, b))),
        )
        .overrides(rules)
        .fallback(Fallback::Centre("us".into()))
        .build()
        .unwrap();
    let reader = Reader::open_readfile(&path).unwrap();
    let networks = networks(&reader);
    let (ip, ..) = networks[0];
    assert_eq!(
        goes(&router, &Client::new().ip(ip)).1,
        Reason::Fallback,
        "there is no locator yet"
    );
    router.set_locator(open(&path));
    let mut counts = [0; 3];
    for (ip, prefix, record) in &networks {
        let known = expected(record);
        let expected = match (known.country, known.continent) {
            (Some(country), _) if country.code() == "GB" => (0, "gb", Reason::Country),
            (_, Some(Continent::Asia)) => (1, "jp", Reason::Continent),
            _ => (2, "us", Reason::Fallback),
        };
        counts[expected.0] += 1;
        let found = goes(&router, &Client::new().ip(*ip));
        assert_eq!((&*found.0, found.1), (expected.1, expected.2), "{ip}/{prefix}");
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn what_is_no_database_of_places_is_refused_with_what_to_do() {
    let missing = block_on(GeoIpDatabase::open("/nowhere/at-all.mmdb", &Env::system())).unwrap_err();
    assert!(matches!(&missing, Error::UnreadableDatabase { .. }));
    assert!(
        missing.to_string().contains("/nowhere/at-all.mmdb cannot be read"),
        "{missing}"
    );
    for bytes in [&b""[..], b"not a database", &[0; 4096]] {
        let bad = GeoIpDatabase::from_bytes(bytes).unwrap_err();
        assert!(
            matches!(&bad, Error::BadDatabase { .. }) && bad.to_string().contains("fetch"),
            "{bad}"
        );
    }
    let Some(path) = path("GeoIP2-City-Test.mmdb") else {
        return;
    };
    #[allow(clippy::disallowed_methods, reason = "tests act as the outside world")]
    let whole = std::fs::read(path).unwrap();
    // Its type, which is in the metadata at the end, spoilt.
    let at = whole.windows(11).rposition(|bytes| bytes == b"GeoIP2-City").unwrap();
    let mut other = whole.clone();
    other[at..at + 11].copy_from_slice(b"GeoIP2-ISPs");
    let wrong = GeoIpDatabase::from_bytes(other).unwrap_err();
    assert!(
        matches!(&wrong, Error::WrongDatabase { kind } if kind == "GeoIP2-ISPs"),
        "{wrong}"
    );
}

/// A database with damage anywhere is refused, or answers, but never panics or gives a place that is none.
#[test]
fn damage_is_an_error_or_an_answer() {
    let Some(path) = path("GeoIP2-City-Test.mmdb") else {
        return;
    };
    #[allow(clippy::disallowed_methods, reason = "tests act as the outside world")]
    let whole = std::fs::read(path).unwrap();
    let (mut refused, mut unreadable) = (0, 0);
    for at in (0..whole.len()).step_by(37) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        match GeoIpDatabase::from_bytes(bytes) {
            Err(_) => refused += 1,
            Ok(database) => {
                for ip in [
                    [2, 125, 160, 217],
                    [81, 2, 69, 142],
                    [89, 160, 20, 128],
                    [216, 160, 83, 57],
                ] {
                    if let Some(position) = database.locate(ip.into()).position {
                        assert!(Position::new(position.latitude(), position.longitude()).is_ok());
                    }
                }
                unreadable += database.unreadable();
            }
        }
    }
    assert!(
        refused > 0 && unreadable > 0,
        "{refused} refused, {unreadable} lookups that met damage"
    );
}

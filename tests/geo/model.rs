//! Against the dumbest thing that is right: all rules in a list, all distances by the haversine.

use crate::places::at;
use outgrow::geo::{Centre, Client, Continent, Country, GeoRouter, IpNet, MOST_ROUTES, Overrides, Position, Reason};
use proptest::prelude::*;
use std::net::IpAddr;

#[derive(Clone, Debug)]
enum Rule {
    Subnet(IpNet),
    Country(Country),
    Continent(Continent),
}

const CONTINENTS: [Continent; 3] = [Continent::Europe, Continent::Asia, Continent::Oceania];

fn country() -> impl Strategy<Value = Country> {
    prop::sample::select(vec!["DE", "FR", "JP", "AU"]).prop_map(|code| code.parse().unwrap())
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..4_u8, 0..4_u8, any::<u8>()).prop_map(|(a, b, c)| IpAddr::from([10, a, b, c]));
    let v6 = (0..4_u16, 0..4_u16).prop_map(|(a, b)| IpAddr::from([0x2001, 0xdb8, a, b, 0, 0, 0, 1]));
    prop_oneof![v4, v6]
}

fn rule() -> impl Strategy<Value = Rule> {
    let subnet = (address(), 0..=128_u8).prop_map(|(ip, prefix)| {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        Rule::Subnet(IpNet::new(ip, prefix % (bits + 1)).unwrap())
    });
    let continent = prop::sample::select(CONTINENTS.to_vec()).prop_map(Rule::Continent);
    prop_oneof![3 => subnet, 1 => country().prop_map(Rule::Country), 1 => continent]
}

#[derive(Clone, Debug)]
struct Asks {
    ip: Option<IpAddr>,
    position: Position,
    country: Option<Country>,
    continent: Option<Continent>,
}

fn asks() -> impl Strategy<Value = Asks> {
    let continent = prop::option::of(prop::sample::select(CONTINENTS.to_vec()));
    (
        prop::option::of(address()),
        -90.0..=90.0_f64,
        -180.0..=180.0_f64,
        prop::option::of(country()),
        continent,
    )
        .prop_map(|(ip, lat, lon, country, continent)| Asks {
            ip,
            position: at(lat, lon),
            country,
            continent,
        })
}

fn slow(centres: &[(f64, f64, i8)], rules: &[(Rule, usize)], asks: &Asks) -> (usize, Reason) {
    let subnets = rules
        .iter()
        .enumerate()
        .filter_map(|(order, (rule, centre))| match rule {
            Rule::Subnet(net) if asks.ip.is_some_and(|ip| net.contains(&ip)) => {
                Some((net.prefix_len(), order, *centre))
            }
            _ => None,
        });
    if let Some((.., centre)) = subnets.max() {
        return (centre, Reason::Subnet);
    }
    let last = |applies: &dyn Fn(&Rule) -> bool| rules.iter().rev().find(|(rule, _)| applies(rule)).map(|(_, at)| *at);
    if let Some(centre) = last(&|rule| matches!(rule, Rule::Country(of) if Some(*of) == asks.country)) {
        return (centre, Reason::Country);
    }
    if let Some(centre) = last(&|rule| matches!(rule, Rule::Continent(of) if Some(*of) == asks.continent)) {
        return (centre, Reason::Continent);
    }
    let distance = |(lat, lon, bias): &(f64, f64, i8)| {
        let bias = f64::from(*bias) / 100.0;
        let distance = asks.position.kilometres_to(at(*lat, *lon));
        if bias >= 0.0 {
            distance * (1.0 - bias)
        } else {
            distance / (1.0 + bias)
        }
    };
    let nearest = (0..centres.len()).min_by(|a, b| distance(&centres[*a]).total_cmp(&distance(&centres[*b])));
    (nearest.unwrap(), Reason::Nearest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn rules_and_distances_decide_as_in_a_list(
        centres in prop::collection::vec((-90.0..=90.0_f64, -180.0..=180.0_f64, -99..=99_i8), 1..12),
        rules in prop::collection::vec((rule(), any::<prop::sample::Index>()), 0..12),
        clients in prop::collection::vec(asks(), 1..20),
    ) {
        let rules: Vec<_> = rules.into_iter().map(|(rule, at)| (rule, at.index(centres.len()))).collect();
        let id = |i: usize| format!("c{i}");
        let overrides = rules.iter().fold(Overrides::new(), |all, (rule, centre)| match rule {
            Rule::Subnet(net) => all.subnet(*net, id(*centre)),
            Rule::Country(of) => all.country(*of, id(*centre)),
            Rule::Continent(of) => all.continent(*of, id(*centre)),
        });
        let centre = |(i, (lat, lon, bias)): (usize, &(f64, f64, i8))| Centre::new(id(i), at(*lat, *lon)).bias(*bias);
        let builder = GeoRouter::builder().centres(centres.iter().enumerate().map(centre)).overrides(overrides);
        let router = builder.build().unwrap();
        for asks in clients {
            let mut client = Client::new().position(asks.position);
            client.ip = asks.ip;
            client.country = asks.country;
            client.continent = asks.continent;
            let route = router.route(&client).unwrap();
            let (expected, why) = slow(&centres, &rules, &asks);
            prop_assert_eq!((route.id().to_string(), route.reason()), (id(expected), why));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_nearest_few_are_the_first_of_all_in_order(
        centres in prop::collection::vec((-90.0..=90.0_f64, -180.0..=180.0_f64, -99..=99_i8, prop::bool::weighted(0.8)), 1..30),
        biased in any::<bool>(),
        here in (-90.0..=90.0_f64, -180.0..=180.0_f64),
        most in 1..=MOST_ROUTES,
    ) {
        prop_assume!(centres.iter().any(|(.., up)| *up));
        let bias = |bias: i8| if biased { bias } else { 0 };
        let centre = |(i, (lat, lon, by, _)): (usize, &(f64, f64, i8, bool))| {
            Centre::new(format!("c{i}"), at(*lat, *lon)).bias(bias(*by)).target(i)
        };
        let router = GeoRouter::builder().centres(centres.iter().enumerate().map(centre)).build().unwrap();
        for (i, (.., up)) in centres.iter().enumerate() {
            router.set_health(&format!("c{i}"), *up);
        }
        let here = at(here.0, here.1);
        let client = Client::new().position(here).key(b"k");
        let found: Vec<usize> = router.nearest(&client, most).unwrap().into_iter().map(|route| route.target).collect();
        prop_assert_eq!(found[0], router.route(&client).unwrap().target);
        let distance = |i: &usize| {
            let (lat, lon, by, _) = centres[*i];
            let by = f64::from(bias(by)) / 100.0;
            let distance = here.kilometres_to(at(lat, lon));
            if by >= 0.0 { distance * (1.0 - by) } else { distance / (1.0 + by) }
        };
        let mut others: Vec<usize> = (0..centres.len()).filter(|i| centres[*i].3 && *i != found[0]).collect();
        others.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        others.truncate(most - 1);
        prop_assert_eq!(&found[1..], others);
    }
}

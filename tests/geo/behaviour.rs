use crate::places::{at, census, equator, goes, is_share};
use outgrow::balance::{Endpoint, EndpointId, Pool, PowerOfTwo};
use outgrow::geo::{
    AllDown, Centre, Client, Continent, Error, Fallback, GeoRouter, Location, Overrides, Position, Reason,
};
use std::net::IpAddr;

fn router(centres: impl IntoIterator<Item = Centre>) -> GeoRouter {
    GeoRouter::builder().centres(centres).build().unwrap()
}

#[test]
fn the_worked_example_of_the_bias() {
    // From 0 east: A is 150 km away and B 100 km on the other side.
    let km = |km: f64| km / at(0.0, 0.0).kilometres_to(at(0.0, 1.0));
    let a = Centre::new("a", at(0.0, km(150.0)));
    let b = Centre::new("b", at(0.0, -km(100.0)));
    let client = Client::new().position(at(0.0, 0.0));
    let nearest = |a: &Centre, b: &Centre| goes(&router([a.clone(), b.clone()]), &client).0;
    assert_eq!(nearest(&a, &b), "b");
    assert_eq!(nearest(&a.clone().bias(50), &b), "a", "75 km");
    assert_eq!(nearest(&a.clone().bias(33), &b), "b", "100.5 km");
    assert_eq!(nearest(&a.clone().bias(34), &b), "a", "99 km");
    assert_eq!(nearest(&a, &b.clone().bias(-33)), "b", "149.3 km");
    assert_eq!(nearest(&a, &b.clone().bias(-34)), "a", "151.5 km");
    assert_eq!(
        nearest(&a.clone().bias(i8::MAX), &b.clone().bias(99)),
        "b",
        "both at most 99"
    );
}

#[test]
fn the_most_specific_override_wins() {
    let [eu, ch, office, lan, us] = equator([("eu", 0.0), ("ch", 1.0), ("office", 2.0), ("lan", 3.0), ("us", -90.0)]);
    let rules = Overrides::new()
        .continent(Continent::Europe, "eu")
        .country("CH".parse().unwrap(), "ch")
        .subnet("10.0.0.0/8".parse().unwrap(), "office")
        .subnet("10.1.0.0/16".parse().unwrap(), "lan");
    let router = GeoRouter::builder()
        .centres([eu, ch, office, lan, us])
        .overrides(rules)
        .build()
        .unwrap();
    let client = Client::new().position(at(0.0, -90.0));
    assert_eq!(goes(&router, &client), ("us".into(), Reason::Nearest));
    let client = client.continent(Continent::Europe);
    assert_eq!(goes(&router, &client), ("eu".into(), Reason::Continent));
    let client = client.country("CH".parse().unwrap());
    assert_eq!(goes(&router, &client), ("ch".into(), Reason::Country));
    assert_eq!(
        goes(&router, &client.ip([10, 2, 3, 4])),
        ("office".into(), Reason::Subnet)
    );
    assert_eq!(goes(&router, &client.ip([10, 1, 3, 4])), ("lan".into(), Reason::Subnet));
    let mapped: IpAddr = "::ffff:10.1.3.4".parse().unwrap();
    assert_eq!(goes(&router, &client.ip(mapped)), ("lan".into(), Reason::Subnet));

    // Live: replaced as a whole, and refused as a whole.
    let unknown = Overrides::new().country("CH".parse().unwrap(), "moon");
    assert!(matches!(router.set_overrides(unknown), Err(Error::NoSuchCentre { id }) if &*id == "moon"));
    assert_eq!(goes(&router, &client).0, "ch");
    router
        .set_overrides(Overrides::new().continent(Continent::Europe, "lan"))
        .unwrap();
    assert_eq!(
        goes(&router, &client.ip([10, 1, 3, 4])),
        ("lan".into(), Reason::Continent)
    );
    // One whose centre has left waits for its return.
    assert!(router.remove("lan"));
    assert_eq!(
        (goes(&router, &client).0, router.status().idle_overrides),
        ("us".into(), 1)
    );
    router.add(Centre::new("lan", at(0.0, 3.0)));
    assert_eq!(
        (goes(&router, &client).0, router.status().idle_overrides),
        ("lan".into(), 0)
    );
}

#[test]
fn the_scope_is_what_the_decision_depends_on() {
    let [eu, us] = equator([("eu", 0.0), ("us", -90.0)]);
    let rules = Overrides::new().subnet("10.1.0.0/16".parse().unwrap(), "us");
    let located = |ip: IpAddr| {
        let mut location = Location::default();
        location.position = Some(at(0.0, 1.0));
        location.prefix = Some(if ip.is_ipv4() { 12 } else { 32 });
        location
    };
    let builder = GeoRouter::builder().centres([eu, us]).overrides(rules).locator(located);
    let router = builder.build().unwrap();
    let scope = |ip: &str| {
        let route = router.route(&Client::new().ip(ip.parse::<IpAddr>().unwrap())).unwrap();
        (route.id().to_string(), route.scope())
    };
    assert_eq!(scope("10.1.2.3"), ("us".into(), Some(16)));
    assert_eq!(scope("::ffff:10.1.2.3"), ("us".into(), Some(16)));
    assert_eq!(scope("10.0.2.3"), ("eu".into(), Some(16)), "the override is near");
    assert_eq!(scope("192.0.2.1"), ("eu".into(), Some(12)), "the locator says so");
    assert_eq!(scope("2001:db8::1"), ("eu".into(), Some(32)));
    assert_eq!(router.route(&Client::new()).unwrap().scope(), None);
    // Where a share is shifted, the neighbours of an address go together.
    router.shift("eu", 0.5);
    assert_eq!(scope("192.0.2.1").1, Some(24));
    assert_eq!(scope("192.0.2.1").0, scope("192.0.2.254").0);
    assert_eq!(scope("2001:db8::1").1, Some(56));
    let keyed = Client::new().ip([192, 0, 2, 1]).key(b"k");
    assert_eq!(router.route(&keyed).unwrap().scope(), Some(32));
}

#[test]
fn a_shift_keeps_who_was_there_and_comes_back() {
    let router = router(equator([("eu", 0.0), ("us", -90.0), ("as", 90.0)]));
    let client = Client::new().position(at(0.0, 1.0));
    let at_home = |share: f64| {
        router.shift("eu", share);
        let stays = |key: &u32| goes(&router, &client.key(&key.to_be_bytes())).1 == Reason::Nearest;
        (0..10_000_u32).filter(stays).collect::<Vec<_>>()
    };
    let (tenth, half, all) = (at_home(0.1), at_home(0.5), at_home(1.0));
    assert!(is_share(tenth.len() as u32, 10_000, 0.1), "{}", tenth.len());
    assert!(is_share(half.len() as u32, 10_000, 0.5), "{}", half.len());
    assert!(
        tenth.iter().all(|key| half.contains(key)),
        "a share that grows keeps those it had"
    );
    assert_eq!((all.len(), at_home(0.5)), (10_000, half));
    router.shift("eu", 0.1);
    let gone = goes(
        &router,
        &client.key(&(0..).find(|key| !tenth.contains(key)).unwrap().to_be_bytes()),
    );
    assert_eq!(gone.1, Reason::Shifted);
    // Drained, then back.
    assert!(router.drain("eu"));
    assert_eq!(census(&router, 1_000, client)[0], 0);
    assert!(router.enable("eu"));
    assert_eq!(census(&router, 1_000, client)[0], 1_000);
    assert!(!router.shift("moon", 0.5) && !router.drain("moon") && !router.enable("moon"));
}

#[test]
fn without_a_key_the_network_decides_and_without_an_address_chance() {
    let router = router(equator([("eu", 0.0), ("us", -90.0)]));
    router.shift("eu", 0.5);
    let here = Client::new().position(at(0.0, 1.0));
    for net in 0..=255 {
        let found = [1, 77, 254].map(|host| goes(&router, &here.ip([192, 0, net, host])));
        assert!(found.iter().all(|one| *one == found[0]), "{net}: {found:?}");
    }
    let nets = (0..=255_u8).filter(|net| goes(&router, &here.ip([192, 0, *net, 1])).0 == "eu");
    assert!(is_share(nets.count() as u32, 256, 0.5));
    let chance = (0..10_000).filter(|_| goes(&router, &here).0 == "eu").count();
    assert!(is_share(chance as u32, 10_000, 0.5), "{chance}");
}

#[test]
fn who_is_not_found_falls_back_by_the_stated_rule() {
    let centres = || {
        equator([("eu", 0.0), ("us", -90.0)]).map(|centre| {
            let weight = if &**centre.id() == "us" { 3 } else { 1 };
            centre.weight(weight)
        })
    };
    let builder = || {
        GeoRouter::builder()
            .centres(centres())
            .locator(|_: IpAddr| Location::default())
    };
    let private = Client::new().ip([192, 168, 0, 1]);

    let router = builder().build().unwrap();
    let counts = census(&router, 10_000, private);
    assert!(is_share(counts[0], 10_000, 0.25), "the weights divide: {counts:?}");
    assert_eq!(goes(&router, &private).1, Reason::Fallback);
    assert_eq!(goes(&router, &private), goes(&router, &private));
    assert_eq!(router.status().unlocated, 10_003);

    let router = builder().fallback(Fallback::Position(at(0.0, -80.0))).build().unwrap();
    assert_eq!(goes(&router, &private), ("us".into(), Reason::Fallback));
    let router = builder().fallback(Fallback::Centre("eu".into())).build().unwrap();
    assert_eq!(goes(&router, &private), ("eu".into(), Reason::Fallback));
    assert_eq!(
        goes(&router, &private.position(at(0.0, -80.0))),
        ("us".into(), Reason::Nearest)
    );
    let missing = builder().fallback(Fallback::Centre("moon".into())).build();
    assert!(matches!(missing, Err(Error::NoSuchCentre { id }) if &*id == "moon"));
}

#[test]
fn weights_divide_the_clients_of_one_place() {
    let here = |id| Centre::new(id, at(50.0, 8.0));
    let router = router([
        here("old").weight(9),
        here("new"),
        Centre::new("us", at(39.0, -77.0)).weight(90),
    ]);
    let counts = census(&router, 10_000, Client::new().position(at(51.0, 9.0)));
    assert!(is_share(counts[1], 10_000, 0.1) && counts[2] == 0, "{counts:?}");
}

#[test]
fn all_down_is_all_up_or_an_error() {
    let centres = || equator([("eu", 0.0), ("us", -90.0)]);
    let client = Client::new().position(at(0.0, 1.0));
    let open = router(centres());
    let refusing = GeoRouter::builder()
        .centres(centres())
        .all_down(AllDown::Refuse)
        .build()
        .unwrap();
    for router in [&open, &refusing] {
        router.set_health("eu", false);
        assert_eq!(goes(router, &client), ("us".into(), Reason::Spilled));
        assert!(!router.status().all_down);
        router.set_health("us", false);
        assert!(router.status().all_down);
    }
    assert_eq!(goes(&open, &client), ("eu".into(), Reason::Nearest));
    assert!(matches!(refusing.route(&client), Err(Error::AllDown)));
    assert!(matches!(refusing.nearest(&client, 2), Err(Error::AllDown)));
    assert_eq!(refusing.status().refused, 2);
    // A drain is what someone wants, so nothing goes there even then.
    open.drain("eu");
    assert_eq!(goes(&open, &client), ("us".into(), Reason::Shifted));
    open.drain("us");
    assert!(matches!(open.route(&client), Err(Error::NoCentres)));
    assert!(matches!(router([]).route(&client), Err(Error::NoCentres)));
    refusing.set_health("us", true);
    assert_eq!(goes(&refusing, &client).0, "us");
}

#[test]
fn a_centre_of_weight_0_is_drained() {
    let [eu, us] = equator([("eu", 0.0), ("us", -90.0)]);
    let router = router([eu.clone().weight(0), us]);
    let client = Client::new().position(at(0.0, 1.0));
    assert_eq!(goes(&router, &client), ("us".into(), Reason::Shifted));
    router.add(eu);
    assert_eq!(goes(&router, &client), ("eu".into(), Reason::Nearest));
}

#[test]
fn the_nearest_few_are_in_order_and_can_take_requests() {
    let places = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let centre = |i: usize| Centre::new(places[i], at(0.0, 10.0 * i as f64)).target(i);
    let router = GeoRouter::builder().centres((0..10).map(centre)).build().unwrap();
    let ids = |client: &Client<'_>, most| {
        let routes = router.nearest(client, most).unwrap();
        assert_eq!(routes.len(), routes.iter().count());
        assert_eq!(routes.first().id(), routes.iter().next().unwrap().id());
        routes
            .into_iter()
            .map(|route| route.id().to_string())
            .collect::<String>()
    };
    let client = Client::new().position(at(0.0, 34.0));
    assert_eq!(ids(&client, 0), "d");
    assert_eq!(ids(&client, 1), "d");
    assert_eq!(ids(&client, 3), "dec");
    assert_eq!(ids(&client, 99), "decfbgah");
    router.set_health("e", false);
    router.drain("c");
    let tried = ["b".into(), "f".into()];
    assert_eq!(ids(&client.avoid(&tried), 4), "dgah");
    let first = router.nearest(&client, 3).unwrap().first().clone();
    assert_eq!((first.target, first.reason()), (3, Reason::Nearest));
    // Where nobody knows where the client is, near is what is near to the centre that it goes to.
    let unknown = Client::new().key(b"k");
    let home = router.route(&unknown).unwrap().position;
    let distances = router
        .nearest(&unknown, 5)
        .unwrap()
        .into_iter()
        .map(|r| r.position.kilometres_to(home));
    assert!(distances.is_sorted());
    router.update([centre(0)]);
    assert_eq!(ids(&client, 8), "a");
}

#[test]
fn what_was_tried_is_avoided_as_long_as_there_is_another() {
    let router = router(equator([("a", 0.0), ("b", 10.0), ("c", 20.0)]));
    let client = Client::new().position(at(0.0, 1.0)).key(b"k");
    let mut tried: Vec<EndpointId> = Vec::new();
    for expected in ["a", "b", "c"] {
        let (id, reason) = goes(&router, &client.avoid(&tried));
        assert_eq!(id, expected);
        assert_eq!(reason == Reason::Avoided, expected != "a");
        tried.push(id.as_str().into());
    }
    assert_eq!(goes(&router, &client.avoid(&tried)), ("a".into(), Reason::Nearest));
    router.set_health("a", false);
    assert_eq!(goes(&router, &client.avoid(&tried[..2])), ("c".into(), Reason::Spilled));
    let other = goes(&router, &client);
    assert_eq!(goes(&router, &client.avoid(&tried)), other);
}

#[test]
fn a_pool_tells_its_centre_health_and_capacity() {
    let pool = |ids: [&str; 2]| {
        Pool::builder(PowerOfTwo::default())
            .endpoints(ids.map(Endpoint::new))
            .build()
    };
    let centre = |id, longitude: f64| Centre::new(id, at(0.0, longitude)).capacity(100);
    let router = GeoRouter::builder()
        .centres([
            centre("eu", 0.0).target(pool(["e1", "e2"])),
            centre("us", -90.0).target(pool(["u1", "u2"])),
        ])
        .build()
        .unwrap();
    let client = Client::new().position(at(0.0, 1.0));
    let eu = router.route(&client).unwrap().target.clone();
    let report = || {
        assert!(router.report_pool("eu", &eu.status()));
        let status = router.status().centres.swap_remove(0);
        (status.healthy, status.capacity)
    };
    assert_eq!(report(), (true, Some(100.0)));
    eu.drain("e1");
    assert_eq!(report(), (true, Some(50.0)));
    eu.drain("e2");
    assert_eq!(report(), (false, Some(0.0)));
    assert_eq!(goes(&router, &client), ("us".into(), Reason::Spilled));
    eu.enable("e1");
    eu.enable("e2");
    assert_eq!(report(), (true, Some(100.0)));
    assert_eq!(goes(&router, &client), ("eu".into(), Reason::Nearest));
    assert!(!router.report_pool("moon", &eu.status()));
}

#[test]
fn what_belongs_to_an_id_stays_with_it() {
    let [a, b, c] = equator([("a", 0.0), ("b", 10.0), ("c", 20.0)]);
    let router = router([a.clone(), b.clone(), c.clone()]);
    router.set_health("a", false);
    router.shift("b", 0.5);
    router.set_demand("c", 7.0);
    let here = Client::new().position(at(0.0, 20.0));
    goes(&router, &here);
    router.update([c.clone().weight(5), a.clone(), a.clone().weight(2), b]);
    let status = router.status().centres;
    let ids: Vec<_> = status.iter().map(|s| (&*s.id, s.weight, s.healthy, s.share)).collect();
    assert_eq!(ids, [("c", 5, true, 1.0), ("a", 2, false, 1.0), ("b", 1, true, 0.5)]);
    assert_eq!((status[0].demand, status[0].routed), (7.0, 1));
    assert!(router.remove("c") && !router.remove("c"));
    router.add(c);
    let status = router.status().centres.pop().unwrap();
    assert_eq!((status.demand, status.routed), (0.0, 0), "another of the same name");
    assert!(!router.set_health("moon", true) && !router.set_demand("moon", None));
}

#[test]
fn errors_say_what_to_do() {
    let text = |error: Error| error.to_string();
    assert!(text(Error::NoCentres).contains("add one"));
    assert!(text(Position::new(91.0, 0.0).unwrap_err()).contains("within 90 and 180"));
    assert!(text("X1".parse::<outgrow::geo::Country>().unwrap_err()).contains("\"X1\" is no code of a country"));
}

#[test]
fn a_status_is_serialised() {
    let router = router(equator([("eu", 0.0)]));
    let status = serde_json::to_value(router.status()).unwrap();
    assert_eq!(status["centres"][0]["id"], "eu");
    assert_eq!(status["centres"][0]["position"]["latitude"], 0.0);
    assert_eq!(status["all_down"], false);
}

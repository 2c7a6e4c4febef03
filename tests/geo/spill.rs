//! A centre is lost, or asked for too much: who moves, where to, and who does not.

use crate::clock::ManualClock;
use crate::places::{at, census, equator, goes, is_share};
use outgrow::geo::{Centre, Client, GeoRouter, Reason};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn planned<T: Send + Sync>(router: &GeoRouter<T>) -> Vec<f64> {
    router.status().centres.iter().map(|centre| centre.planned).collect()
}

#[test]
fn a_lost_centre_is_spread_by_the_room_of_the_others() {
    // 120 requests a second are lost, where the nearest has room for 50 and the next ones for 150 and 300.
    let centres = equator([("lost", 0.0), ("near", 5.0), ("next", 6.0), ("far", 7.0)]);
    let capacities = [200, 100, 200, 400];
    let centres = centres
        .into_iter()
        .zip(capacities)
        .map(|(centre, capacity)| centre.capacity(capacity));
    let router = GeoRouter::builder()
        .centres(centres)
        .reach(f64::INFINITY)
        .build()
        .unwrap();
    for (id, demand) in [("lost", 120.0), ("near", 50.0), ("next", 50.0), ("far", 100.0)] {
        router.set_demand(id, demand);
    }
    router.set_health("lost", false);
    assert_eq!(
        planned(&router).iter().map(|load| load.round()).collect::<Vec<_>>(),
        [0.0, 62.0, 86.0, 172.0]
    );
    let counts = census(&router, 20_000, Client::new().position(at(0.0, -1.0)));
    for (count, share) in counts.iter().zip([0.0, 0.1, 0.3, 0.6]) {
        assert!(is_share(*count, 20_000, share), "{counts:?}");
    }
    // Who belongs to another stays there.
    for (longitude, id) in [(5.0, "near"), (6.0, "next"), (7.0, "far")] {
        let there = Client::new().position(at(0.0, longitude)).key(b"k");
        assert_eq!(goes(&router, &there), (id.into(), Reason::Nearest));
    }
}

#[test]
fn when_a_second_one_is_lost_only_its_share_moves_on() {
    let centres = equator([("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0), ("e", 4.0)]);
    let router = GeoRouter::builder()
        .centres(centres)
        .reach(f64::INFINITY)
        .build()
        .unwrap();
    let client = Client::new().position(at(0.0, -1.0));
    let homes = || {
        let of = |key: u32| goes(&router, &client.key(&key.to_be_bytes())).0;
        (0..5_000).map(of).collect::<Vec<_>>()
    };
    router.set_health("a", false);
    let before = homes();
    router.set_health("c", false);
    let after = homes();
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert!(
        moved.clone().all(|(before, _)| before == "c"),
        "only what went to the lost one moves"
    );
    assert_eq!(moved.count(), before.iter().filter(|id| *id == "c").count());
    router.set_health("c", true);
    assert_eq!(homes(), before, "and comes back");
}

#[test]
fn demand_is_measured_and_an_overload_spills_over() {
    let clock = ManualClock::default();
    let centres = equator([("busy", 0.0), ("idle", 5.0)]).map(|centre| centre.capacity(100));
    let router = GeoRouter::builder().centres(centres).env(clock.env(1)).build().unwrap();
    let here = Client::new().position(at(0.0, 0.0));
    // 150 requests a second where 100 fit.
    let second = |spilled: &mut BTreeMap<u32, bool>| {
        for key in 0..150_u32 {
            let (_, reason) = goes(&router, &here.key(&key.to_be_bytes()));
            spilled.insert(key, reason == Reason::Spilled);
        }
        clock.advance(Duration::from_secs(1));
    };
    let (mut first, mut later) = (BTreeMap::new(), BTreeMap::new());
    second(&mut first);
    assert!(first.values().all(|spilled| !spilled), "nothing is known yet");
    (0..5).for_each(|_| second(&mut later));
    let spilled = later.values().filter(|spilled| **spilled).count();
    assert!(is_share(spilled as u32, 150, 1.0 / 3.0), "{spilled}");
    let status = router.status().centres;
    assert!((149.0..151.0).contains(&status[0].demand), "{status:?}");
    assert!(
        (99.0..101.0).contains(&status[0].planned) && (49.0..51.0).contains(&status[1].planned),
        "{status:?}"
    );
    // The same ones, second after second: nobody flaps.
    let mut last = BTreeMap::new();
    second(&mut last);
    assert_eq!(last, later);
    // When it calms down, all come home.
    for _ in 0..60 {
        goes(&router, &here);
        clock.advance(Duration::from_secs(1));
    }
    second(&mut last);
    assert!(last.values().all(|spilled| !spilled));
}

#[test]
fn a_small_change_of_demand_moves_nobody() {
    let clock = ManualClock::default();
    let centres = equator([("lost", 0.0), ("b", 5.0), ("c", 6.0)]).map(|centre| centre.capacity(1_000));
    let router = GeoRouter::builder().centres(centres).env(clock.env(1)).build().unwrap();
    let route = |position: f64, keys: std::ops::Range<u32>| {
        let client = Client::new().position(at(0.0, position));
        keys.map(|key| goes(&router, &client.key(&key.to_be_bytes())).0)
            .collect::<Vec<_>>()
    };
    router.set_health("lost", false);
    let mut seen = Vec::new();
    for second in 0..30 {
        let noise = second * 7 % 11;
        seen.push(route(0.0, 0..100));
        route(5.0, 0..95 + noise);
        route(6.0, 0..100 - noise);
        clock.advance(Duration::from_secs(1));
    }
    // The first measurement takes the place of the guess; after it nothing moves.
    assert!(seen[3..].iter().all(|homes| *homes == seen[3]));
}

fn centres() -> impl Strategy<Value = Vec<(f64, f64, u32, f64, bool)>> {
    let centre = (
        -60.0..60.0_f64,
        -180.0..180.0_f64,
        1..1_000_u32,
        0.0..500.0_f64,
        prop::bool::weighted(0.7),
    );
    prop::collection::vec(centre, 2..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// From outside, for whole clients: what is lost is spread, nothing overflows, and who is well stays.
    #[test]
    fn nothing_overflows_while_there_is_room(places in centres(), reach in 50.0..5_000.0_f64) {
        let ids: Vec<String> = (0..places.len()).map(|i| format!("c{i}")).collect();
        let centres = places.iter().zip(&ids).map(|((lat, lon, capacity, ..), id)| {
            Centre::new(id.as_str(), at(*lat, *lon)).capacity(*capacity)
        });
        let router = GeoRouter::builder().centres(centres).reach(reach).build().unwrap();
        let before: Vec<_> = (0..100_u32).map(|key| {
            let position = at(f64::from(key % 10) * 12.0 - 60.0, f64::from(key) * 3.6 - 180.0);
            goes(&router, &Client::new().position(position).key(&key.to_be_bytes())).0
        }).collect();
        for ((.., demand, up), id) in places.iter().zip(&ids) {
            router.set_demand(id, *demand);
            router.set_health(id, *up);
        }
        prop_assume!(places.iter().any(|(.., up)| *up));
        let status = router.status();
        let asked: f64 = places.iter().map(|(.., demand, _)| demand).sum();
        let planned: f64 = status.centres.iter().map(|centre| centre.planned).sum();
        prop_assert!((asked - planned).abs() < 1e-6 * asked.max(1.0), "{asked} {planned}");
        let most_room = status.centres.iter().filter(|c| c.healthy).map(|c| c.capacity.unwrap() - c.planned);
        let most_room = most_room.fold(0.0, f64::max);
        for centre in &status.centres {
            prop_assert!(centre.healthy || centre.planned == 0.0);
            prop_assert!(centre.planned <= centre.capacity.unwrap() + 1e-2 || most_room < 1e-2, "{:?}", status);
        }
        for (key, home) in before.iter().enumerate() {
            let key = key as u32;
            let position = at(f64::from(key % 10) * 12.0 - 60.0, f64::from(key) * 3.6 - 180.0);
            let client_key = key.to_be_bytes();
            let route = router.route(&Client::new().position(position).key(&client_key)).unwrap();
            prop_assert_eq!(&**route.home(), home.as_str());
            let place = ids.iter().position(|id| id == home).unwrap();
            let (_, _, capacity, demand, up) = places[place];
            if up && demand <= f64::from(capacity) {
                prop_assert_eq!(&**route.id(), home.as_str(), "it is well");
            }
            let to = ids.iter().position(|id| *id == **route.id()).unwrap();
            prop_assert!(places[to].4, "routed to a centre that is down");
        }
    }
}

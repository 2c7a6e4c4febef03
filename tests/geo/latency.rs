use crate::clock::ManualClock;
use crate::places::{at, equator, goes};
use outgrow::geo::{Client, GeoRouter, Group, IpNet, Reason};
use std::time::Duration;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_longest_subnet_with_latencies_and_a_named_group_decide() {
    let router = GeoRouter::builder()
        .centres(equator([("eu", 0.0), ("us", -90.0), ("as", 90.0)]))
        .build()
        .unwrap();
    let here = Client::new().position(at(0.0, 1.0));
    for (group, fastest) in [
        (Group::from(net("198.51.0.0/16")), "us"),
        (net("198.51.100.0/24").into(), "as"),
        ("satellite".into(), "us"),
    ] {
        for id in ["eu", "us", "as"] {
            assert!(router.observe(group.clone(), id, ms(if id == fastest { 20 } else { 80 })));
        }
    }
    assert!(!router.observe("satellite", "moon", ms(1)));
    let by_latency = |id: &str| (id.to_owned(), Reason::Latency);
    assert_eq!(goes(&router, &here.ip([198, 51, 7, 1])), by_latency("us"));
    assert_eq!(goes(&router, &here.ip([198, 51, 100, 1])), by_latency("as"));
    assert_eq!(
        goes(&router, &here.ip([198, 51, 100, 1]).group("satellite")),
        by_latency("us")
    );
    assert_eq!(goes(&router, &here.ip([198, 52, 0, 1])).0, "eu");
    assert_eq!(
        router.route(&here.ip([198, 51, 7, 1])).unwrap().scope(),
        Some(18),
        "100 begins with 01, 7 with 00"
    );
    // One of which nobody knows where it is, too.
    assert_eq!(goes(&router, &Client::new().group("satellite")), by_latency("us"));
    // Down is down.
    router.set_health("us", false);
    let (id, reason) = goes(&router, &here.group("satellite"));
    assert!(id != "us" && reason == Reason::Spilled);
}

#[test]
fn noise_moves_nobody_and_what_is_old_is_forgotten() {
    let clock = ManualClock::default();
    let router = GeoRouter::builder()
        .centres(equator([("eu", 0.0), ("us", -90.0)]))
        .latency_age(Duration::from_secs(60))
        .env(clock.env(1))
        .build()
        .unwrap();
    let client = Client::new().position(at(0.0, 1.0)).group("g");
    router.observe("g", "us", ms(10));
    assert_eq!(goes(&router, &client).0, "eu", "nothing is known of the nearest");
    for (eu, us) in [(100, 95), (95, 100), (102, 94)] {
        router.observe("g", "eu", ms(eu));
        router.observe("g", "us", ms(us * 9 / 10 + 10));
    }
    // The averages: 100 or so, and 10 at first, so the other is still much faster.
    assert_eq!(goes(&router, &client), ("us".into(), Reason::Latency));
    (0..100).for_each(|_| assert!(router.observe("g", "us", ms(96))));
    assert_eq!(goes(&router, &client), ("eu".into(), Reason::Nearest));
    (0..100).for_each(|_| assert!(router.observe("g", "us", ms(50))));
    assert_eq!(goes(&router, &client), ("us".into(), Reason::Latency));
    clock.advance(Duration::from_secs(62));
    assert_eq!(goes(&router, &client), ("eu".into(), Reason::Nearest));
}

#[test]
fn groups_are_bounded() {
    let clock = ManualClock::default();
    let builder = GeoRouter::builder()
        .centres(equator([("eu", 0.0), ("us", -90.0)]))
        .groups(10);
    let router = builder.env(clock.env(1)).build().unwrap();
    let group = |i: u8| Group::from(IpNet::new([192, 0, i, 0].into(), 24).unwrap());
    for i in 0..=255 {
        router.observe(group(i), "eu", ms(80));
        router.observe(group(i), "us", ms(20));
    }
    let status = router.status();
    assert_eq!((status.groups, status.groups_evicted), (10, 246));
    // New ones count within a second.
    clock.advance(Duration::from_secs(2));
    let here = Client::new().position(at(0.0, 1.0));
    goes(&router, &here);
    let by_latency = (0..=255_u8).filter(|i| goes(&router, &here.ip([192, 0, *i, 1])).1 == Reason::Latency);
    assert_eq!(by_latency.collect::<Vec<_>>(), (246..=255).collect::<Vec<u8>>());
}

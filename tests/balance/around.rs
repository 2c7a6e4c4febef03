//! What the pool does around a policy: zones, priorities, limits, health, slow start, pauses, ejection by comparison.

use crate::clock::ManualClock;
use futures::FutureExt;
use outgrow::balance::{
    Endpoint, EndpointState, Failure, FailurePercentage, Lease, LeastRequest, OutlierEjection, Panic, PickError, Pool,
    PowerOfTwo, Request, RoundRobin, ServerLoad, SlowOutlier, SmoothWeighted, Subset, SuccessRate, WeightedRandom,
    ZoneRouting,
};
use outgrow::env::Tick;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const ANY: Request<'static> = Request::new();

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn rules() -> OutlierEjection {
    OutlierEjection::default().max_ejection_jitter(Duration::ZERO)
}

fn state<B: outgrow::balance::Balancer>(pool: &Pool<B>, id: &str) -> EndpointState {
    let status = pool.status().endpoints;
    status.iter().find(|endpoint| &*endpoint.id == id).unwrap().state
}

/// How many of `n` requests that end at once each endpoint gets.
fn shares<B: outgrow::balance::Balancer>(pool: &Pool<B>, n: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..n {
        let lease = pool.pick(&ANY).unwrap();
        *shares.entry(lease.id().to_string()).or_default() += 1;
        lease.succeed();
    }
    shares
}

#[test]
fn requests_go_to_the_next_priority_as_far_as_the_first_is_out() {
    let first = (0..10).map(|i| Endpoint::new(format!("a{i}")));
    let second = (0..10).map(|i| Endpoint::new(format!("b{i}")).priority(1));
    let pool = Pool::builder(WeightedRandom::default())
        .endpoints(first.chain(second))
        .env(ManualClock::default().env(1))
        .build();
    let to_first = || {
        let shares = shares(&pool, 10_000);
        shares
            .iter()
            .filter(|(id, _)| id.starts_with('a'))
            .map(|(_, n)| n)
            .sum::<u32>()
    };
    assert_eq!(to_first(), 10_000);
    for i in 0..5 {
        assert!(pool.set_health(&format!("a{i}"), false));
    }
    // Five of ten, times 1.4: 70 %, give or take five deviations.
    assert!((6_770..7_230).contains(&to_first()), "{}", to_first());
    for i in 5..10 {
        pool.set_health(&format!("a{i}"), false);
    }
    assert_eq!(to_first(), 0);
    for i in 0..8 {
        pool.set_health(&format!("a{i}"), true);
    }
    assert_eq!(to_first(), 10_000, "eight of ten carry everything");
}

#[test]
fn checks_decide_and_panic_is_a_choice() {
    let pool = |panic| {
        let pool = Pool::builder(RoundRobin::default())
            .endpoints(["a", "b", "c", "d"].map(Endpoint::new))
            .panic(panic)
            .env(ManualClock::default().env(1))
            .build();
        for id in ["a", "b", "c"] {
            assert!(pool.set_health(id, false));
        }
        pool
    };
    let used = |pool: &Pool<RoundRobin>| shares(pool, 100).len();
    let never = pool(Panic::Never);
    assert_eq!((used(&never), state(&never, "a")), (1, EndpointState::Unhealthy));
    never.set_health("d", false);
    assert_eq!(
        never.pick(&ANY).unwrap_err(),
        PickError::AllEjected { returns_in: None }
    );
    never.set_health("b", true);
    assert_eq!(used(&never), 1);
    assert_eq!(used(&pool(Panic::RouteAll { below_percent: 50 })), 4);
    assert_eq!(used(&pool(Panic::RouteAll { below_percent: 25 })), 1);
    let refuses = pool(Panic::Refuse { below_percent: 50 });
    assert_eq!(
        refuses.pick(&ANY).unwrap_err(),
        PickError::AllEjected { returns_in: None }
    );
    refuses.set_health("a", true);
    assert_eq!(used(&refuses), 2);
    assert!(!refuses.set_health("z", true));
}

#[test]
fn limits_pass_over_the_full_and_say_when_all_are() {
    let pool = Pool::builder(LeastRequest::default())
        .endpoints([
            Endpoint::new("a").max_in_flight(1),
            Endpoint::new("b"),
            Endpoint::new("c"),
        ])
        .max_in_flight_per_endpoint(2)
        .env(ManualClock::default().env(1))
        .build();
    let mut held: Vec<Lease<_>> = (0..5).map(|_| pool.pick(&ANY).unwrap()).collect();
    assert_eq!(pool.pick(&ANY).unwrap_err(), PickError::Saturated);
    let of = |id: &str| held.iter().filter(|lease| &**lease.id() == id).count();
    assert_eq!(["a", "b", "c"].map(of), [1, 2, 2]);
    held.pop().unwrap().succeed();
    assert!(pool.pick(&ANY).is_ok());

    let whole = Pool::builder(RoundRobin::default())
        .endpoints(["a", "b"].map(Endpoint::new))
        .max_in_flight(3)
        .build();
    let held: Vec<Lease<_>> = (0..3).map(|_| whole.pick(&ANY).unwrap()).collect();
    assert_eq!(whole.pick(&ANY).unwrap_err(), PickError::Saturated);
    drop(held);
    assert!(whole.pick(&ANY).is_ok());
    assert_eq!(whole.status().refused, 1);
}

#[test]
fn a_full_endpoint_is_no_reason_to_go_to_one_that_was_tried() {
    let pool = Pool::builder(LeastRequest::default())
        .endpoints(["a", "b", "c"].map(Endpoint::new))
        .max_in_flight_per_endpoint(1)
        .build();
    let first = pool.pick(&ANY).unwrap();
    let tried = [first.id().clone()];
    first.succeed();
    let others: Vec<Lease<_>> = (0..2)
        .map(|_| pool.pick(&Request::new().avoid(&tried)).unwrap())
        .collect();
    assert!(others.iter().all(|lease| *lease.id() != tried[0]));
    let last = pool.pick(&Request::new().avoid(&tried)).unwrap();
    assert_eq!(*last.id(), tried[0], "there is no other");
}

#[test]
fn a_request_after_its_deadline_is_refused() {
    let clock = ManualClock::default();
    let pool = Pool::builder(RoundRobin::default())
        .endpoints([Endpoint::new("a")])
        .env(clock.env(1))
        .build();
    let request = Request::new().deadline(Tick::ZERO + secs(2));
    clock.advance(secs(1));
    assert!(pool.pick(&request).is_ok());
    clock.advance(secs(1));
    assert_eq!(pool.pick(&request).unwrap_err(), PickError::Expired);
}

#[test]
fn one_that_asks_to_be_left_alone_is() {
    let clock = ManualClock::default();
    let pool = Pool::builder(RoundRobin::default())
        .endpoints(["a", "b", "c"].map(Endpoint::new))
        .outliers(rules().max_ejection_time(secs(60)))
        .env(clock.env(1))
        .build();
    let pause = |time| loop {
        let lease = pool.pick(&ANY).unwrap();
        if &**lease.id() == "b" {
            return lease.backoff(time);
        }
    };
    pause(secs(5));
    assert_eq!(shares(&pool, 100).len(), 2);
    assert_eq!(state(&pool, "b"), EndpointState::Ejected);
    clock.advance(secs(5));
    assert_eq!(shares(&pool, 99)["b"], 33);
    pause(Duration::MAX);
    clock.advance(secs(60));
    assert_eq!(shares(&pool, 99)["b"], 33, "the longest ejection is the longest pause");
    let status = pool.status();
    assert_eq!(
        (
            status.ejections,
            status.endpoints[1].failed,
            status.endpoints[1].cancelled
        ),
        (0, 0, 2)
    );
}

#[test]
fn who_joins_others_is_let_in_slowly() {
    let clock = ManualClock::default();
    let pool = Pool::builder(SmoothWeighted::default())
        .endpoints([Endpoint::new("a"), Endpoint::new("b")])
        .slow_start(secs(90))
        .outliers(rules().consecutive_failures(1))
        .env(clock.env(1))
        .build();
    assert_eq!(shares(&pool, 200)["b"], 100, "the first have nobody to be spared by");
    pool.add(Endpoint::new("c"));
    // 10 of 210, then 20 of 220, and so on.
    assert_eq!(shares(&pool, 210)["c"], 10);
    clock.advance(secs(10));
    assert_eq!(shares(&pool, 220)["c"], 20);
    clock.advance(secs(79));
    assert_eq!(shares(&pool, 290)["c"], 90);
    clock.advance(secs(1));
    assert_eq!(shares(&pool, 300)["c"], 100);
    // Whoever comes back from an ejection, too.
    while pool.status().ejections == 0 {
        let lease = pool.pick(&ANY).unwrap();
        if &**lease.id() == "a" {
            lease.fail(Failure::Other);
        } else {
            lease.succeed();
        }
    }
    clock.advance(secs(30));
    assert_eq!(shares(&pool, 210)["a"], 10);
}

#[test]
fn a_pool_that_is_drained_waits_for_its_last_lease() {
    let pool = Pool::builder(RoundRobin::default())
        .endpoints(["a", "b"].map(Endpoint::new))
        .build();
    let leases: Vec<Lease<_>> = (0..4).map(|_| pool.pick(&ANY).unwrap()).collect();
    pool.drain("a");
    let (of_a, of_b): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| &**lease.id() == "a");
    let mut drained = Box::pin(pool.drained("a"));
    assert_eq!(drained.as_mut().now_or_never(), None);
    of_b.into_iter().for_each(Lease::succeed);
    pool.remove("a");
    let mut of_a = of_a.into_iter();
    of_a.next().unwrap().fail(Failure::Timeout);
    assert_eq!(drained.as_mut().now_or_never(), None);
    drop(of_a);
    assert_eq!(drained.now_or_never(), Some(true));
    assert_eq!(pool.drained("b").now_or_never(), Some(true));
    assert_eq!(pool.drained("z").now_or_never(), Some(false));
}

/// Requests come and go, so many at once, and each lease goes on as long as its zone says.
fn zoned(local: u32, elsewhere: u32, at_once: usize, slow: u64) -> u32 {
    let endpoint = |zone: &str, i| Endpoint::new(format!("{zone}{i}")).zone(zone);
    let near = (0..local).map(|i| endpoint("a", i));
    let far = (0..elsewhere).map(|i| endpoint(["b", "c"][i as usize % 2], i));
    let pool = Pool::builder(PowerOfTwo::default())
        .zones(ZoneRouting::local("a"))
        .endpoints(near.chain(far))
        .env(ManualClock::default().env(1))
        .build();
    let mut held: Vec<(u64, Lease<_>)> = Vec::new();
    let (mut stayed, mut all) = (0, 0);
    for now in 0..20_000 {
        held.retain_mut(|(until, _)| *until > now);
        if held.len() < at_once {
            let lease = pool.pick(&ANY).unwrap();
            let near = lease.id().starts_with('a');
            stayed += u32::from(near);
            all += 1;
            held.push((now + if near { slow } else { 20 }, lease));
        }
    }
    stayed * 100 / all
}

#[test]
fn a_zone_keeps_what_it_can_carry() {
    assert!(zoned(10, 20, 20, 20) > 90, "it has enough: {}", zoned(10, 20, 20, 20));
    let few = zoned(1, 20, 20, 20);
    assert!(few < 30, "one endpoint of 21 cannot carry everything: {few}");
    let slow = zoned(10, 20, 100, 2_000);
    assert!(slow < 30, "those of the zone are slow: {slow}");
    let report = Pool::builder(RoundRobin::default())
        .zones(ZoneRouting::by_request())
        .endpoints([Endpoint::new("a").zone("a"), Endpoint::new("b").zone("b")])
        .build();
    let ours = report.pick(&Request::new().zone("a")).unwrap();
    assert_eq!(&**ours.id(), "a");
    ours.report_load(ServerLoad::new(10.0));
    let second = report.pick(&Request::new().zone("a")).unwrap();
    assert_eq!(&**second.id(), "b", "it says that it is busy with others' requests");
}

#[test]
fn a_retry_leaves_a_zone_and_a_priority_whose_endpoints_were_tried() {
    let pool = Pool::builder(RoundRobin::default())
        .zones(ZoneRouting::local("a"))
        .endpoints([
            Endpoint::new("1").zone("a"),
            Endpoint::new("2").zone("b"),
            Endpoint::new("3").priority(1),
        ])
        .build();
    let mut tried = Vec::new();
    for want in ["1", "2", "3"] {
        let lease = pool.pick(&Request::new().avoid(&tried)).unwrap();
        assert_eq!(&**lease.id(), want);
        tried.push(lease.id().clone());
    }
    assert!(pool.pick(&Request::new().avoid(&tried)).is_ok());
}

/// Ten endpoints, of which `bad` fails so many of ten requests and takes so long; what happens in 30 s.
fn compare(rules: OutlierEjection, fails: u64, latency: Duration) -> EndpointState {
    let clock = ManualClock::default();
    let pool = Pool::builder(RoundRobin::default())
        .endpoints((0..10).map(|i| Endpoint::new(i.to_string())))
        .outliers(rules.consecutive_failures(1_000))
        .env(clock.env(1))
        .build();
    for i in 0..3_000 {
        let lease = pool.pick(&ANY).unwrap();
        clock.advance(Duration::from_millis(10));
        let bad = &**lease.id() == "3";
        if bad {
            clock.advance(latency);
        }
        if bad && i / 10 % 10 < fails {
            lease.fail(Failure::Response);
        } else {
            lease.succeed();
        }
        if state(&pool, "3") == EndpointState::Ejected {
            return EndpointState::Ejected;
        }
    }
    EndpointState::Active
}

#[test]
fn endpoints_are_compared_once_an_interval() {
    use EndpointState::{Active, Ejected};
    let none = Duration::ZERO;
    let success = rules().success_rate(SuccessRate::default());
    assert_eq!(compare(success.clone(), 5, none), Ejected);
    assert_eq!(compare(success, 0, none), Active);
    assert_eq!(compare(rules(), 9, none), Active, "no rule is on but that of rows");
    let percentage = rules().failure_percentage(FailurePercentage::default());
    assert_eq!(compare(percentage.clone(), 9, none), Ejected);
    assert_eq!(compare(percentage, 8, none), Active);
    let slow = rules().latency(SlowOutlier::default());
    assert_eq!(compare(slow.clone(), 0, Duration::from_millis(25)), Ejected);
    assert_eq!(compare(slow, 0, Duration::from_millis(15)), Active);
}

#[test]
fn a_picker_sees_every_change() {
    let clock = ManualClock::default();
    let pool = Pool::builder(RoundRobin::default())
        .endpoints(["a", "b"].map(Endpoint::new))
        .outliers(rules().consecutive_failures(1))
        .env(clock.env(1))
        .build();
    let mut picker = pool.picker();
    let lease = picker.pick(&ANY).unwrap();
    let out = lease.id().clone();
    lease.fail(Failure::Connect);
    assert!((0..10).all(|_| *picker.choose(&ANY).unwrap().id() != out));
    clock.advance(secs(30));
    assert!((0..10).any(|_| *picker.choose(&ANY).unwrap().id() == out));
    pool.update([]);
    assert_eq!(picker.choose(&ANY).unwrap_err(), PickError::NoEndpoints);
    assert_eq!(picker.pick(&ANY).unwrap_err(), PickError::NoEndpoints);
    let kept = picker.clone();
    drop((pool, picker));
    assert!(kept.clone().pick(&ANY).is_err());
}

#[test]
fn a_subset_follows_the_membership() {
    let pool = Pool::builder(RoundRobin::default())
        .subset(Subset::new(3).client(1, 4))
        .endpoints((0..12).map(|i| Endpoint::new(i.to_string())))
        .build();
    let before = shares(&pool, 99);
    assert!(before.len() == 3 && before.values().all(|&n| n == 33));
    let one = before.keys().next().unwrap();
    pool.drain(one);
    let after = shares(&pool, 99);
    assert!(after.len() == 3 && !after.contains_key(one));
    assert!(after.keys().filter(|id| before.contains_key(*id)).count() >= 1);
    pool.enable(one);
    assert_eq!(shares(&pool, 99), before);
}

proptest! {
    /// A request goes to its zone if that has an idle endpoint, whatever else is there.
    #[test]
    fn an_idle_zone_keeps_its_requests(zones in prop::collection::vec(0..4_u8, 1..20), mine in 0..4_u8) {
        let pool = Pool::builder(PowerOfTwo::default())
            .zones(ZoneRouting::local(mine.to_string()))
            .endpoints(zones.iter().enumerate().map(|(i, zone)| Endpoint::new(format!("{zone}/{i}")).zone(zone.to_string())))
            .build();
        let lease = pool.pick(&ANY).unwrap();
        let there = zones.contains(&mine);
        prop_assert_eq!(lease.id().starts_with(&mine.to_string()), there);
    }
}

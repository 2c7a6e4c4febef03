use crate::clock::ManualClock;
use outgrow::balance::{
    Balancer, Completion, Endpoint, EndpointState, EndpointStatus, Failure, Lease, LeastRequest, Load, Maglev, Member,
    Outcome, OutlierEjection, PeakEwma, PickError, Pool, PowerOfTwo, Prequal, Request, Ring, RoundRobin,
    SmoothWeighted, Sticky, Timing, WeightedRandom,
};
use outgrow::env::{Rng, Tick};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ANY: Request<'static> = Request::new();

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn fail<B: Balancer>(lease: Lease<B>) {
    lease.fail(Failure::Other);
}

fn rules() -> OutlierEjection {
    OutlierEjection::default().max_ejection_jitter(Duration::ZERO)
}

fn endpoints(n: usize) -> Vec<Endpoint> {
    (0..n).map(|i| Endpoint::new(format!("e{i}"))).collect()
}

fn pool<B: Balancer>(policy: B, n: usize, rules: OutlierEjection) -> (Pool<B>, ManualClock) {
    let clock = ManualClock::default();
    let pool = Pool::builder(policy)
        .endpoints(endpoints(n))
        .outliers(rules)
        .env(clock.env(1))
        .build();
    (pool, clock)
}

fn find<B: Balancer, T: Send + Sync + 'static>(pool: &Pool<B, T>, id: &str) -> EndpointStatus {
    let status = pool.status().endpoints;
    status
        .into_iter()
        .find(|e| &*e.id == id)
        .unwrap_or_else(|| panic!("{id} is in the pool"))
}

/// Picks `n` times, ends each lease at once by `good`, and counts what `id` got.
fn share<B: Balancer>(pool: &Pool<B>, n: u32, id: &str, good: bool) -> u32 {
    let mut share = 0;
    for _ in 0..n {
        let lease = pool.pick(&ANY).unwrap();
        let mine = &**lease.id() == id;
        share += u32::from(mine);
        if good || !mine {
            lease.succeed();
        } else {
            lease.fail(Failure::Other);
        }
    }
    share
}

/// One endpoint answers every request with an error at once.
fn black_hole<B: Balancer>(policy: B) {
    let (pool, clock) = pool(policy, 10, rules());
    assert_eq!(
        share(&pool, 1_000, "e3", false),
        5,
        "it is out after five failures in a row"
    );
    assert_eq!(find(&pool, "e3").state, EndpointState::Ejected);
    assert_eq!(find(&pool, "e3").returns_in, Some(secs(30)));

    clock.advance(secs(30) - Duration::from_nanos(1));
    assert_eq!(share(&pool, 1_000, "e3", false), 0);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(share(&pool, 1_000, "e3", false), 5, "it is back, and goes again");
    assert_eq!(find(&pool, "e3").returns_in, Some(secs(60)), "for longer");

    clock.advance(secs(60));
    assert!(share(&pool, 1_000, "e3", true) > 50, "it is back for good");
    assert_eq!(find(&pool, "e3").state, EndpointState::Active);
    assert_eq!((find(&pool, "e3").ejections, pool.status().ejections), (2, 2));
}

#[test]
fn an_endpoint_that_fails_at_once_is_out_until_its_time_is_over() {
    black_hole(RoundRobin::default());
    black_hole(SmoothWeighted::default());
    black_hole(LeastRequest::default());
    black_hole(PowerOfTwo::default());
    black_hole(Prequal::default());
    black_hole(WeightedRandom::default());
    black_hole(Maglev::default());
    black_hole(Ring::default());
    black_hole(Sticky::new(RoundRobin::default()));
}

/// How an endpoint is bad.
#[derive(Clone, Copy)]
enum Bad {
    Hangs,
    FailsAtOnce,
    Slow,
}

/// Twenty endpoints, none of which is ever ejected, get 1,000 requests a second that take 10 ms; from the second second to the
/// sixth one is bad. Gives its requests in each second, of a fair share of 50.
fn with_one_bad<B: Balancer>(policy: B, bad: Bad, seconds: usize) -> Vec<u32> {
    let clock = ManualClock::default();
    let pool = Pool::builder(policy)
        .endpoints(endpoints(20))
        .outliers(None)
        .env(clock.env(1))
        .build();
    let mut rng = Rng::seeded(1);
    // When each request ends, in microseconds, and how.
    let mut ends: BTreeMap<(u64, u64), (Lease<B>, bool)> = BTreeMap::new();
    let mut shares = vec![0; seconds];
    for request in 0..1_000 * seconds as u64 {
        let now = request * 1_000;
        while let Some(next) = ends.first_entry().filter(|next| next.key().0 <= now) {
            let ((at, _), (lease, good)) = next.remove_entry();
            clock.advance(Duration::from_micros(at).saturating_sub(clock.peek() - Tick::ZERO));
            if good { lease.succeed() } else { fail(lease) }
        }
        clock.advance(Duration::from_micros(now).saturating_sub(clock.peek() - Tick::ZERO));
        let lease = pool.pick(&ANY).unwrap();
        let mine = &**lease.id() == "e3";
        shares[request as usize / 1_000] += u32::from(mine);
        let usual = (rng.exponential(10_000.0) as u64).max(1);
        let (takes, good) = match bad {
            _ if !mine || !(1_000..6_000).contains(&request) => (usual, true),
            Bad::Hangs => (1_000_000, false),
            Bad::FailsAtOnce => (100, false),
            Bad::Slow => (20 * usual, true),
        };
        ends.insert((now + takes, request), (lease, good));
    }
    shares
}

#[test]
fn who_learns_from_outcomes_leaves_a_bad_endpoint_alone_and_comes_back() {
    for bad in [Bad::Hangs, Bad::FailsAtOnce, Bad::Slow] {
        for policy in [PeakEwma::default(), PeakEwma::default().sampled()] {
            let shares = with_one_bad(policy, bad, 100);
            assert!(shares[0] > 20, "{shares:?}");
            // Below 5 % of the fair share within a second.
            assert!(shares[2..6].iter().all(|&share| share <= 2), "{shares:?}");
            assert!(shares[90..].iter().sum::<u32>() > 250, "{shares:?}");
        }
    }
    // Without reports it chooses as power of two does, and still does not fall for the idleness of what fails.
    let shares = with_one_bad(Prequal::default(), Bad::FailsAtOnce, 30);
    assert!(
        shares[1] <= 7 && shares[2..6].iter().all(|&share| share <= 2),
        "{shares:?}"
    );
    assert!(shares[20..].iter().sum::<u32>() > 250, "{shares:?}");
}

#[test]
fn the_maximum_of_ejected_endpoints_holds() {
    let (pool, _) = pool(RoundRobin::default(), 5, rules().max_ejection_percent(40));
    for _ in 0..1_000 {
        pool.pick(&ANY).unwrap().fail(Failure::Other);
    }
    let out = |e: &&EndpointStatus| e.state == EndpointState::Ejected;
    assert_eq!(pool.status().endpoints.iter().filter(out).count(), 2);
}

#[test]
fn the_only_endpoint_stays_unless_all_may_go() {
    let (pool, _) = pool(RoundRobin::default(), 1, rules());
    for _ in 0..100 {
        pool.pick(&ANY).unwrap().fail(Failure::Other);
    }
}

#[test]
fn with_all_ejected_a_pick_says_when_to_come_back() {
    let once = rules().consecutive_failures(1).max_ejection_percent(100);
    let (pool, clock) = pool(RoundRobin::default(), 2, once);
    pool.pick(&ANY).unwrap().fail(Failure::Other);
    clock.advance(secs(10));
    pool.pick(&ANY).unwrap().fail(Failure::Other);
    let refused = pool.pick(&ANY).unwrap_err();
    assert_eq!(
        refused,
        PickError::AllEjected {
            returns_in: Some(secs(20))
        }
    );
    clock.advance(secs(20));
    assert!(pool.pick(&ANY).is_ok());
    assert_eq!(pool.status().refused, 1);
}

#[test]
fn without_rules_nobody_is_ejected() {
    let pool = Pool::builder(RoundRobin::default())
        .endpoints(endpoints(2))
        .outliers(None)
        .build();
    for _ in 0..1_000 {
        pool.pick(&ANY).unwrap().fail(Failure::Other);
    }
    assert_eq!(pool.status().ejections, 0);
}

#[test]
fn cancelled_requests_leave_no_trace_but_a_count() {
    let (pool, _) = pool(RoundRobin::default(), 2, rules());
    for _ in 0..100 {
        drop(pool.pick(&ANY).unwrap());
    }
    let status = pool.status();
    assert_eq!(status.ejections, 0);
    assert!(status.endpoints.iter().all(|e| e.in_flight == 0 && e.cancelled == 50));
}

#[test]
fn a_failure_from_before_the_ejection_is_not_held_against_the_endpoint_after_its_return() {
    let (pool, clock) = pool(RoundRobin::default(), 2, rules().consecutive_failures(2));
    let leases: Vec<_> = (0..20).map(|_| pool.pick(&ANY).unwrap()).collect();
    let (bad, good): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| &**lease.id() == "e0");
    good.into_iter().for_each(Lease::succeed);
    let mut bad = bad.into_iter();
    bad.by_ref().take(2).for_each(fail);
    assert_eq!(find(&pool, "e0").state, EndpointState::Ejected);
    bad.by_ref().take(3).for_each(fail);
    clock.advance(secs(30));
    bad.for_each(fail);
    assert_eq!(find(&pool, "e0").state, EndpointState::Active);
    assert_eq!((find(&pool, "e0").failed, find(&pool, "e0").ejections), (10, 1));
}

#[test]
fn an_empty_or_drained_pool_says_so() {
    let pool = Pool::builder(PowerOfTwo::default()).build();
    assert_eq!(pool.pick(&ANY).unwrap_err(), PickError::NoEndpoints);
    pool.update([Endpoint::new("a"), Endpoint::new("b").weight(0)]);
    assert_eq!(&**pool.pick(&ANY).unwrap().id(), "a");
    assert!(pool.drain("a"));
    assert_eq!(pool.pick(&ANY).unwrap_err(), PickError::NoEndpoints);
    assert!(pool.enable("a"));
    assert!(pool.pick(&ANY).is_ok());
    assert!(pool.remove("a"));
    assert!(!pool.remove("a") && !pool.drain("a") && !pool.enable("a"));
    assert_eq!(pool.pick(&ANY).unwrap_err(), PickError::NoEndpoints);
}

#[test]
fn what_belongs_to_an_id_survives_every_change_that_keeps_it() {
    let once = rules().consecutive_failures(1);
    let clock = ManualClock::default();
    let pool = Pool::builder(RoundRobin::default())
        .endpoints(["a", "b", "c", "d"].map(|id| Endpoint::new(id).target(1)))
        .outliers(once)
        .env(clock.env(1))
        .build();
    let mut leases: Vec<_> = (0..4).map(|_| pool.pick(&ANY).unwrap()).collect();
    leases.sort_by(|x, y| x.id().cmp(y.id()));
    let [a, b, c, d] = leases
        .try_into()
        .unwrap_or_else(|_| panic!("round robin picks each once"));
    a.fail(Failure::Other);
    pool.drain("b");

    pool.update(["c", "b", "a"].map(|id| Endpoint::new(id).weight(7).target(2)));
    let status = pool.status().endpoints;
    let seen: Vec<_> = status
        .iter()
        .map(|e| (&*e.id, e.weight, e.state, e.in_flight))
        .collect();
    use EndpointState::{Active, Draining, Ejected};
    assert_eq!(seen, [("c", 7, Active, 1), ("b", 7, Draining, 1), ("a", 7, Ejected, 0)]);
    assert_eq!(
        (c.target, pool.pick(&ANY).unwrap().target),
        (1, 2),
        "a lease keeps the target that it was given"
    );

    pool.add(Endpoint::new("d").target(3));
    assert_eq!(find(&pool, "d").in_flight, 0, "one that left and came back is another");
    b.succeed();
    d.succeed();
    drop(pool);
    c.fail(Failure::Other); // A lease may outlive its pool.
}

#[test]
fn an_enabled_endpoint_starts_afresh() {
    let (pool, _) = pool(RoundRobin::default(), 3, rules());
    share(&pool, 100, "e1", false);
    assert_eq!(find(&pool, "e1").state, EndpointState::Ejected);
    pool.enable("e1");
    assert_eq!(
        share(&pool, 12, "e1", false),
        4,
        "four failures more are not five in a row"
    );
    assert_eq!(find(&pool, "e1").state, EndpointState::Active);
}

#[test]
fn a_bound_counts_what_is_in_flight_and_no_more() {
    fn check<B: Balancer>(policy: B) {
        let pool = Pool::builder(policy)
            .endpoints(endpoints(3))
            .max_in_flight_per_endpoint(2)
            .build();
        let request = Request::new().key("hot");
        let home = pool.pick(&request).unwrap().id().clone();
        for _ in 0..20 {
            // Fills the pool by whatever way a pick can go, and ends all in every way.
            let leases: Vec<_> = (0..6).map(|_| pool.pick(&request).unwrap()).collect();
            assert_eq!(pool.pick(&request).unwrap_err(), PickError::Saturated);
            for (i, lease) in leases.into_iter().enumerate() {
                match i {
                    0 => fail(lease),
                    1 | 2 => drop(lease),
                    _ => lease.succeed(),
                }
            }
            // With one in flight the bound is one each, and with one more counted it would be two.
            let first = pool.pick(&request).unwrap();
            let second = pool.pick(&request).unwrap();
            assert_eq!(*first.id(), home);
            assert_ne!(*second.id(), home);
            first.succeed();
            second.succeed();
        }
    }
    check(Ring::default().bounded_load(1.5));
    check(Maglev::default().bounded_load(1.5));
}

#[test]
fn the_same_seed_makes_the_same_picks() {
    let picks = |seed| -> Vec<_> {
        let env = ManualClock::default().env(seed);
        let pool = Pool::builder(PowerOfTwo::default())
            .endpoints(endpoints(50))
            .env(env)
            .build();
        (0..100).map(|_| pool.pick(&ANY).unwrap().id().clone()).collect()
    };
    assert_eq!(picks(1), picks(1));
    assert_ne!(picks(1), picks(2));
}

#[test]
fn a_policy_without_need_of_latency_reads_no_clock() {
    let (pool, clock) = pool(PowerOfTwo::default(), 10, rules());
    let before = clock.readings();
    for _ in 0..100 {
        pool.pick(&ANY).unwrap().succeed();
        drop(pool.pick(&ANY).unwrap());
    }
    assert_eq!(clock.readings(), before);
}

/// Answers with whatever it is told to, and writes down what it hears.
#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script {
    answer: AtomicU64,
    heard: Mutex<Vec<Completion>>,
}

impl Balancer for Scripted {
    type Table = ();

    fn table(&self, members: &[Member]) {
        assert!(members.iter().all(|member| member.weight > 0));
    }

    fn pick(&self, (): &(), _: &[Arc<Load>], _: &Request<'_>, _: Tick, _: &mut Rng) -> Option<usize> {
        usize::try_from(self.0.answer.load(Relaxed)).ok().filter(|&i| i < 100)
    }

    fn finish(&self, load: &Load, done: &Completion) {
        assert_eq!(load.in_flight(), 0);
        load.cell().fetch_add(1, Relaxed);
        self.0.heard.lock().unwrap().push(*done);
    }

    fn timing(&self) -> Timing {
        Timing::Always
    }
}

#[test]
fn a_policy_of_ones_own_hears_of_outcome_and_latency_and_may_refuse() {
    let policy = Scripted::default();
    let (pool, clock) = pool(policy.clone(), 2, rules());
    let lease = pool.pick(&ANY).unwrap();
    clock.advance(secs(3));
    lease.fail(Failure::Other);
    drop(pool.pick(&ANY).unwrap());
    let at = clock.env(1).stopwatch();
    let heard = [
        Completion::new(Outcome::Failure(Failure::Other), Some(secs(3)), Some(at)),
        Completion::new(Outcome::Cancelled, Some(secs(0)), Some(at)),
    ];
    assert_eq!(*policy.0.heard.lock().unwrap(), heard);

    for nowhere in [2, 99, 100] {
        policy.0.answer.store(nowhere, Relaxed);
        assert_eq!(pool.pick(&ANY).unwrap_err(), PickError::Refused);
    }
    assert_eq!(pool.status().refused, 3);
}

#[test]
fn the_status_can_be_printed() {
    let (pool, _) = pool(RoundRobin::default(), 1, rules());
    let json = serde_json::to_value(pool.status()).unwrap();
    assert_eq!(json["endpoints"][0]["id"], "e0");
    assert_eq!(json["endpoints"][0]["state"], "Active");
}

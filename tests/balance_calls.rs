//! Calls through a pool in virtual time: what is tried again, where, when, how often, and what is left behind.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

use outgrow::balance::{
    Attempt, Balancer, CallError, Caller, Cause, Endpoint, EndpointStatus, Failure, Hedge, Load, Member, Outcome,
    OutlierEjection, PickError, Pool, PowerOfTwo, Request, Retry, RetryBudget,
};
use outgrow::env::{Env, Rng, Tick};
use outgrow::sim::{World, drop_at_every_poll};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Answers(Duration),
    Fails(Duration),
    Refuses,
    Hangs,
}
use Server::{Answers, Fails, Hangs, Refuses};

/// Takes the first endpoint that was not tried.
struct First;

impl Balancer for First {
    type Table = ();

    fn table(&self, _: &[Member]) {}

    fn pick(&self, (): &(), loads: &[Arc<Load>], request: &Request<'_>, _: Tick, _: &mut Rng) -> Option<usize> {
        Some(loads.iter().position(|load| !request.avoids(load)).unwrap_or(0))
    }
}

type InOrder = Caller<First, Server>;

/// A caller of servers called a, b, c and so on, the first first.
fn caller(world: &World, servers: &[Server]) -> InOrder {
    let endpoints = ('a'..)
        .zip(servers)
        .map(|(id, server)| Endpoint::new(id.to_string()).target(*server));
    let pool = Pool::builder(First).endpoints(endpoints).env(world.env());
    pool.outliers(None).build().caller()
}

/// Sends to a server; the answer is its name.
async fn send(env: Env, attempt: Attempt<First, Server>) -> Result<String, Failure> {
    match attempt.target {
        Answers(delay) => env.sleep(delay).await,
        Fails(delay) => {
            env.sleep(delay).await;
            return Err(Failure::Response);
        }
        Refuses => return Err(Failure::Connect),
        Hangs => env.sleep(Duration::MAX).await,
    }
    Ok(attempt.id().to_string())
}

fn judge<R>(answer: &Result<R, Failure>) -> Outcome {
    answer
        .as_ref()
        .map_or_else(|failure| Outcome::Failure(*failure), |_| Outcome::Success)
}

async fn call(caller: &InOrder, env: &Env, request: &Request<'_>) -> Result<String, CallError<Failure>> {
    caller.call(request, judge, |attempt| send(env.clone(), attempt)).await
}

/// One call, and how long it took.
fn once(world: &World, caller: &InOrder, request: &Request<'_>) -> (Result<String, CallError<Failure>>, Duration) {
    let (env, start) = (world.env(), world.now());
    let answer = world.run(call(caller, &env, request));
    (answer, world.now() - start)
}

fn status(caller: &InOrder, id: &str) -> EndpointStatus {
    let endpoints = caller.pool().status().endpoints;
    endpoints.into_iter().find(|endpoint| &*endpoint.id == id).unwrap()
}

/// Succeeded, failed, cancelled, in flight.
fn counts(caller: &InOrder, id: &str) -> (u64, u64, u64, u32) {
    let of = status(caller, id);
    (of.succeeded, of.failed, of.cancelled, of.in_flight)
}

fn failed(attempts: u32, cause: Cause<Failure>) -> Result<String, (u32, Cause<Failure>)> {
    Err((attempts, cause))
}

fn plain(answer: Result<String, CallError<Failure>>) -> Result<String, (u32, Cause<Failure>)> {
    answer.map_err(|error| (error.attempts, error.cause))
}

#[test]
fn a_retry_goes_to_an_endpoint_that_was_not_tried() {
    for servers in [
        [Fails(ms(1)), Fails(ms(1)), Answers(ms(1))],
        [Refuses, Refuses, Answers(ms(3))],
    ] {
        let world = World::new(1);
        let caller = caller(&world, &servers)
            .retry(Retry::Always)
            .backoff(Duration::ZERO, Duration::ZERO);
        for _ in 0..30 {
            let (answer, took) = once(&world, &caller, &Request::new());
            assert_eq!(answer.as_deref(), Ok("c"));
            assert!(took <= ms(3), "{took:?}");
        }
        let c = counts(&caller, "c");
        assert_eq!(c, (30, 0, 0, 0));
    }
}

#[test]
fn what_the_request_avoids_counts_as_tried() {
    let world = World::new(1);
    let caller = caller(&world, &[Answers(ms(1)), Refuses, Answers(ms(1))]);
    let avoided = ["a".into()];
    let (answer, _) = once(&world, &caller, &Request::new().avoid(&avoided));
    assert_eq!(answer.as_deref(), Ok("c"));
    assert_eq!(
        (counts(&caller, "a"), counts(&caller, "b")),
        ((0, 0, 0, 0), (0, 1, 0, 0))
    );
}

#[test]
fn what_may_have_happened_is_not_asked_for_twice() {
    let world = World::new(1);
    let careful = caller(&world, &[Fails(ms(1)), Fails(ms(1))]);
    let (answer, _) = once(&world, &careful, &Request::new());
    assert_eq!(plain(answer), failed(1, Cause::Failed(Failure::Response)));
    let timed = caller(&world, &[Hangs, Hangs]).attempt_timeout(ms(50));
    let (answer, took) = once(&world, &timed, &Request::new());
    assert_eq!((plain(answer), took), (failed(1, Cause::Timeout), ms(50)));
    let (answer, _) = once(&world, &careful.clone().retry(Retry::Always), &Request::new());
    assert_eq!(plain(answer), failed(3, Cause::Failed(Failure::Response)));
}

#[test]
fn the_last_answer_is_returned_even_if_it_is_bad() {
    let world = World::new(1);
    let caller = caller(&world, &[Answers(ms(1)), Answers(ms(1))]).retry(Retry::Always);
    let env = world.env();
    let bad = |_: &Result<String, Failure>| Outcome::Backoff(ms(1));
    let answer = world.run(caller.call(&Request::new(), bad, |attempt| send(env.clone(), attempt)));
    assert!(answer.is_ok());
    let not_mine = |_: &Result<String, Failure>| Outcome::Cancelled;
    let refuses = self::caller(&world, &[Refuses]);
    let answer = world.run(refuses.call(&Request::new(), not_mine, |attempt| send(env.clone(), attempt)));
    assert_eq!(plain(answer), failed(1, Cause::Failed(Failure::Connect)));
}

#[test]
fn a_time_limit_is_a_failure_of_the_endpoint_and_ejects_it() {
    let world = World::new(1);
    let endpoints = [("a", Hangs), ("b", Answers(ms(1)))].map(|(id, server)| Endpoint::new(id).target(server));
    let caller = Pool::builder(First)
        .endpoints(endpoints)
        .outliers(OutlierEjection::default().consecutive_failures(3))
        .env(world.env())
        .build()
        .caller()
        .retry(Retry::Always)
        .attempt_timeout(ms(100));
    let slow = (0..20)
        .filter(|_| once(&world, &caller, &Request::new()).1 > ms(99))
        .count();
    assert_eq!(slow, 3);
    assert_eq!(status(&caller, "a").ejections, 1);
    assert_eq!(
        (counts(&caller, "a"), counts(&caller, "b")),
        ((0, 3, 0, 0), (20, 0, 0, 0))
    );
}

#[test]
fn the_deadline_ends_the_call_whatever_it_waits_for() {
    let world = World::new(1);
    let soon = |world: &World| Request::new().deadline(world.now() + ms(250));

    let hanging = caller(&world, &[Hangs, Hangs, Hangs, Hangs])
        .retry(Retry::Always)
        .attempts(10)
        .attempt_timeout(ms(100));
    let (answer, took) = once(&world, &hanging, &soon(&world));
    assert_eq!((plain(answer), took), (failed(3, Cause::Timeout), ms(250)));
    let cancelled: u64 = ["a", "b", "c", "d"].map(|id| counts(&hanging, id).2).iter().sum();
    assert_eq!(cancelled, 1, "the third had half of its time");

    let first = caller(&world, &[Hangs]);
    let (answer, took) = once(&world, &first, &soon(&world));
    assert_eq!((plain(answer), took), (failed(1, Cause::Timeout), ms(250)));
    assert_eq!(
        counts(&first, "a"),
        (0, 1, 0, 0),
        "the first attempt had all the time there was"
    );

    let full = caller(&world, &[Answers(ms(1))]).attempts(1_000);
    full.pool().add(Endpoint::new("a").max_in_flight(0).target(Hangs));
    let (answer, took) = once(&world, &full, &soon(&world));
    assert_eq!(plain(answer), failed(0, Cause::Pick(PickError::Saturated)));
    assert!(took < ms(250), "{took:?}");

    let (answer, took) = once(&world, &first, &Request::new().deadline(Tick::ZERO));
    assert_eq!(
        (plain(answer), took),
        (failed(0, Cause::Pick(PickError::Expired)), Duration::ZERO)
    );
}

#[test]
fn a_full_pool_is_waited_for() {
    let world = World::new(3);
    let caller = caller(&world, &[Answers(ms(40))]).attempts(50).backoff(ms(5), ms(20));
    caller
        .pool()
        .add(Endpoint::new("a").max_in_flight(1).target(Answers(ms(40))));
    let (env, done) = (world.env(), Arc::new(AtomicU32::new(0)));
    for _ in 0..4 {
        let (caller, env, done) = (caller.clone(), env.clone(), Arc::clone(&done));
        let one = async move { done.fetch_add(u32::from(call(&caller, &env, &Request::new()).await.is_ok()), Relaxed) };
        world.env().spawn(one).detach();
    }
    world.run_for(SECOND);
    assert_eq!(done.load(Relaxed), 4);
    assert!(caller.pool().status().refused > 3, "they were refused and came again");
}

#[test]
fn nobody_being_well_is_waited_for_and_nobody_being_there_is_not() {
    let world = World::new(1);
    let caller = Pool::builder(First)
        .endpoints([Endpoint::new("a").target(Answers(ms(1)))])
        .outliers(OutlierEjection::default().max_ejection_percent(100))
        .env(world.env())
        .build()
        .caller();
    caller.pool().pick(&Request::new()).unwrap().backoff(ms(700));
    let (answer, took) = once(&world, &caller, &Request::new());
    assert_eq!(answer.as_deref(), Ok("a"));
    assert!((ms(700)..ms(720)).contains(&took), "{took:?}");

    caller.pool().drain("a");
    let (answer, took) = once(&world, &caller, &Request::new());
    assert_eq!(
        (plain(answer), took),
        (failed(0, Cause::Pick(PickError::NoEndpoints)), Duration::ZERO)
    );
}

#[test]
fn retries_keep_to_the_budget() {
    let world = World::new(1);
    let budget = RetryBudget::default().percent(20).min_per_second(1);
    let sent = |caller: &InOrder| {
        (0..1_000)
            .map(|_| once(&world, caller, &Request::new()).0.unwrap_err().attempts)
            .sum()
    };
    let caller = caller(&world, &[Fails(ms(5)), Fails(ms(5))])
        .retry(Retry::Always)
        .attempts(5)
        .backoff(Duration::ZERO, Duration::ZERO)
        .budget(budget);
    let sent: u32 = sent(&caller);
    // 20 % of 1,000 in some 6 s of virtual time, and 10 for a ttl.
    assert!((1_200..=1_210).contains(&sent), "{sent}");
}

#[test]
fn a_slow_first_answer_is_hedged_and_the_loser_is_no_failure() {
    let world = World::new(1);
    let caller = caller(&world, &[Hangs, Answers(ms(5)), Hangs])
        .retry(Retry::Always)
        .hedge(Hedge::after(ms(20)));
    let (answer, took) = once(&world, &caller, &Request::new());
    assert_eq!((answer.as_deref(), took), (Ok("b"), ms(25)));
    assert_eq!(
        (counts(&caller, "a"), counts(&caller, "b")),
        ((0, 0, 1, 0), (1, 0, 0, 0))
    );
    assert!(["a", "b", "c"].iter().all(|id| counts(&caller, id).3 == 0));

    let careful = caller.clone().retry(Retry::Connect).attempt_timeout(ms(100));
    let (answer, took) = once(&world, &careful, &Request::new());
    assert_eq!(
        (plain(answer), took),
        (failed(1, Cause::Timeout), ms(100)),
        "it went to a, and nowhere else"
    );
}

#[test]
fn several_hedges_wait_in_turn_and_all_count_as_sent() {
    let world = World::new(1);
    let caller = caller(&world, &[Hangs; 5])
        .retry(Retry::Always)
        .attempts(1)
        .attempt_timeout(SECOND);
    let (answer, took) = once(
        &world,
        &caller.clone().hedge(Hedge::after(ms(100)).max(2)),
        &Request::new(),
    );
    assert_eq!(
        (plain(answer), took),
        (failed(3, Cause::Timeout), SECOND + ms(200)),
        "the last began at 200 ms"
    );
    let (answer, _) = once(&world, &caller.hedge(Hedge::after(ms(100)).max(0)), &Request::new());
    assert_eq!(plain(answer), failed(1, Cause::Timeout));
}

#[test]
fn a_failed_first_does_not_end_its_hedge() {
    let world = World::new(1);
    let caller = caller(&world, &[Fails(ms(30)), Answers(ms(50))])
        .retry(Retry::Always)
        .hedge(Hedge::after(ms(10)));
    let (answer, took) = once(&world, &caller, &Request::new());
    assert_eq!((answer.as_deref(), took), (Ok("b"), ms(60)));
}

#[test]
fn without_another_endpoint_there_is_no_hedge_and_nothing_is_paid() {
    let world = World::new(1);
    let budget = RetryBudget::default();
    let caller = caller(&world, &[Answers(ms(50))])
        .retry(Retry::Always)
        .hedge(Hedge::after(ms(10)))
        .budget(budget.clone());
    let before = budget.left(world.now());
    let (answer, took) = once(&world, &caller, &Request::new());
    assert_eq!((answer.as_deref(), took), (Ok("a"), ms(50)));
    assert_eq!(budget.left(world.now()), before);
}

#[test]
fn hedges_keep_to_the_budget() {
    let world = World::new(1);
    let budget = RetryBudget::default().percent(10).min_per_second(0);
    let caller = caller(&world, &[Answers(ms(10)); 4])
        .retry(Retry::Always)
        .hedge(Hedge::after(ms(1)))
        .budget(budget);
    for _ in 0..500 {
        assert!(once(&world, &caller, &Request::new()).0.is_ok());
    }
    let cancelled: u64 = ["a", "b", "c", "d"].map(|id| counts(&caller, id).2).iter().sum();
    assert!((45..=50).contains(&cancelled), "{cancelled} hedges");
}

/// A minute of 200 requests a second to servers of which each answers one request in fifty a hundred times slower.
/// Returns hedges per thousand requests, and the 99th percentile.
fn tail(seed: u64, hedge: Option<Hedge>) -> (u64, Duration) {
    let world = World::new(seed);
    let env = world.env();
    let endpoints = (0..10).map(|i| Endpoint::new(format!("s{i}")).target(()));
    let pool = Pool::builder(PowerOfTwo::default())
        .endpoints(endpoints)
        .outliers(None)
        .env(env.clone())
        .build();
    let mut caller = pool.caller().retry(Retry::Always);
    if let Some(hedge) = hedge {
        caller = caller.hedge(hedge);
    }
    let (hedges, took) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let mut rng = world.rng("clients");
    world.run(async {
        while env.now() < Tick::ZERO + 60 * SECOND {
            env.sleep(Duration::from_secs_f64(rng.exponential(0.005))).await;
            let (caller, env) = (caller.clone(), env.clone());
            let (hedges, took, work) = (Arc::clone(&hedges), Arc::clone(&took), Mutex::new(rng.fork("work")));
            let one = async move {
                let start = env.now();
                let send = |attempt: Attempt<PowerOfTwo>| {
                    hedges.fetch_add(u64::from(attempt.is_hedge()), Relaxed);
                    let mut rng = work.lock().unwrap();
                    let slow = if rng.chance(0.02) { 100.0 } else { 1.0 };
                    let time = Duration::from_secs_f64(rng.exponential(0.005) * slow);
                    let env = env.clone();
                    async move {
                        env.sleep(time).await;
                        Ok::<_, Failure>(())
                    }
                };
                caller.call(&Request::new(), judge, send).await.unwrap();
                took.lock().unwrap().push(env.now() - start);
            };
            world.env().spawn(one).detach();
        }
        env.sleep(20 * SECOND).await;
    });
    assert!(pool.status().endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
    let mut took = took.lock().unwrap();
    took.sort_unstable();
    (
        hedges.load(Relaxed) * 1_000 / took.len() as u64,
        took[took.len() * 99 / 100],
    )
}

#[test]
fn hedging_after_a_percentile_cuts_the_tail_and_stays_at_its_share() {
    for seed in 0..3 {
        let (none, without) = tail(seed, None);
        let (hedges, with) = tail(seed, Some(Hedge::after_percentile(95.0)));
        assert_eq!(none, 0);
        // The percentile is rounded up by an eighth at most, so a little less than 5 %. It must not creep up to the
        // budget's 20 %, as it would if the time of the winner counted.
        assert!((30..=60).contains(&hedges), "{hedges} per thousand");
        assert!(with * 4 < without, "{with:?} with and {without:?} without");
        assert_eq!(
            (hedges, with),
            tail(seed, Some(Hedge::after_percentile(95.0))),
            "one seed is one run"
        );
    }
}

#[test]
fn a_call_dropped_anywhere_leaves_nothing_in_flight() {
    let polls = drop_at_every_poll(7, |world, cut| async move {
        let caller = caller(
            &world,
            &[Fails(ms(30)), Hangs, Fails(ms(5)), Answers(ms(40)), Answers(ms(40))],
        )
        .retry(Retry::Always)
        .attempt_timeout(ms(90))
        .hedge(Hedge::after(ms(20)));
        caller
            .pool()
            .add(Endpoint::new("e").max_in_flight(0).target(Answers(ms(40))));
        let env = world.env();
        let answer = cut.run(call(&caller, &env, &Request::new())).await;
        let endpoints = caller.pool().status().endpoints;
        assert!(
            endpoints.iter().all(|endpoint| endpoint.in_flight == 0),
            "{endpoints:?}"
        );
        if let Some(answer) = answer {
            assert_eq!(answer.as_deref(), Ok("d"));
        }
    });
    assert!(polls > 3, "{polls}");
}

#[test]
fn without_a_runtime_calls_work_too() {
    let pool = Pool::builder(PowerOfTwo::default())
        .endpoints(["a", "b"].map(Endpoint::new))
        .env(Env::system())
        .build();
    let caller = pool.caller().attempt_timeout(ms(20)).retry(Retry::Always).attempts(2);
    let hang = |_: Attempt<PowerOfTwo>| std::future::pending::<std::io::Result<()>>();
    let judge = |_: &std::io::Result<()>| Outcome::Success;
    let error = futures::executor::block_on(caller.call(&Request::new(), judge, hang)).unwrap_err();
    assert_eq!(error.to_string(), "there was no answer in time (requests sent: 2)");
    assert!(pool.status().endpoints.iter().all(|endpoint| endpoint.failed == 1));
}

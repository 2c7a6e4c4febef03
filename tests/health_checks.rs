//! Active checks: in virtual time, where servers die, hang and come back by chance, and over real TCP connections.
#![allow(clippy::disallowed_methods, reason = "the test acts as the outside world")]
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

use futures::FutureExt;
use outgrow::balance::{CheckStatus, Endpoint, EndpointState, NeedsSpawner, Pool, Request, RoundRobin, TcpCheck};
use outgrow::env::{Env, Tick};
use outgrow::sim::{Trace, World};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a server takes a check.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Well,
    Fails,
    Hangs,
    Panics,
}

/// Servers that are checked, and what was seen of the checks.
#[derive(Default)]
struct Fleet {
    servers: BTreeMap<String, Server>,
    begun: Vec<(Tick, String)>,
    running: usize,
    most_at_once: usize,
}

#[derive(Clone)]
struct Seen {
    env: Env,
    fleet: Arc<Mutex<Fleet>>,
}

impl Seen {
    fn new(env: &Env) -> Seen {
        let env = env.clone();
        let fleet = Arc::default();
        Seen { env, fleet }
    }

    fn set(&self, id: &str, server: Server) {
        self.fleet.lock().unwrap().servers.insert(id.to_owned(), server);
    }

    /// When checks of this server began.
    fn begun(&self, id: &str) -> Vec<Tick> {
        let fleet = self.fleet.lock().unwrap();
        fleet
            .begun
            .iter()
            .filter(|(_, of)| of == id)
            .map(|(at, _)| *at)
            .collect()
    }

    /// One check, which takes 10 ms.
    async fn check(self, id: String) -> Result<(), &'static str> {
        let server = {
            let mut fleet = self.fleet.lock().unwrap();
            fleet.begun.push((self.env.now(), id.clone()));
            fleet.running += 1;
            fleet.most_at_once = fleet.most_at_once.max(fleet.running);
            fleet.servers.get(&id).copied().unwrap_or(Server::Well)
        };
        let _running = Running(&self.fleet);
        self.env.sleep(Duration::from_millis(10)).await;
        match server {
            Server::Well => Ok(()),
            Server::Fails => Err("status 503"),
            Server::Hangs => std::future::pending().await,
            Server::Panics => panic!("a check of the test's that panics"),
        }
    }
}

struct Running<'a>(&'a Mutex<Fleet>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().running -= 1;
    }
}

type Servers = Pool<RoundRobin>;

fn pool(env: &Env, ids: &str) -> Servers {
    let endpoints = ids.split_whitespace().map(Endpoint::new);
    Pool::builder(RoundRobin::default())
        .endpoints(endpoints)
        .env(env.clone())
        .build()
}

/// A world, servers that are well, and a pool of them that is checked each second.
fn checked(seed: u64, ids: &str) -> (World, Seen, Servers) {
    let world = World::new(seed);
    let env = world.env();
    let (seen, pool) = (Seen::new(&env), pool(&env, ids));
    env.spawn(checks(&pool, &seen)).detach();
    (world, seen, pool)
}

fn checks(pool: &Servers, seen: &Seen) -> impl Future<Output = ()> + Send + 'static {
    let seen = seen.clone();
    let check = move |endpoint: &Endpoint| seen.clone().check(endpoint.id().to_string());
    pool.check(check).interval(secs(1)).jitter(0.0)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn check_of(pool: &Servers, id: &str) -> Option<CheckStatus> {
    let status = pool.status();
    status.endpoints.into_iter().find(|e| *e.id == *id).unwrap().check
}

fn state_of(pool: &Servers, id: &str) -> EndpointState {
    let status = pool.status();
    status.endpoints.iter().find(|e| *e.id == *id).unwrap().state
}

fn is_out(pool: &Servers, id: &str) -> bool {
    state_of(pool, id) == EndpointState::Unhealthy
}

#[test]
fn three_failures_put_out_and_two_passes_let_in() {
    let (world, seen, pool) = checked(1, "a b");
    world.run_for(millis(500));
    assert!(check_of(&pool, "a").unwrap().healthy);
    seen.set("a", Server::Fails);
    world.run_for(secs(2)); // checks at 1.01 and 2.02 s
    assert!(!is_out(&pool, "a"));
    world.run_for(secs(1));
    assert!(is_out(&pool, "a"));
    for _ in 0..4 {
        assert_eq!(&**pool.pick(&Request::new()).unwrap().id(), "b");
    }
    let a = check_of(&pool, "a").unwrap();
    assert_eq!(
        (a.passed, a.failed, a.last_error.as_deref()),
        (1, 3, Some("status 503"))
    );
    assert!(a.age < millis(500), "{a:?}");

    seen.set("a", Server::Well);
    world.run_for(secs(1));
    assert!(is_out(&pool, "a"));
    world.run_for(secs(1));
    assert!(!is_out(&pool, "a"));
    assert_eq!(check_of(&pool, "a").unwrap().last_error.as_deref(), Some("status 503"));
}

#[test]
fn one_that_hangs_or_panics_has_failed_and_the_others_are_checked_on() {
    let (world, seen, pool) = checked(2, "hangs panics well");
    seen.set("hangs", Server::Hangs);
    seen.set("panics", Server::Panics);
    world.run_for(secs(30));
    assert!(is_out(&pool, "hangs") && is_out(&pool, "panics"));
    let hung = check_of(&pool, "hangs").unwrap();
    assert_eq!(
        (hung.failed, hung.last_error.as_deref()),
        (10, Some("no answer within 2s"))
    );
    assert_eq!(
        check_of(&pool, "panics").unwrap().last_error.as_deref(),
        Some("the check panicked")
    );
    assert_eq!(check_of(&pool, "well").unwrap().passed, 30);
}

#[test]
fn the_first_check_decides_and_comes_at_once() {
    let (world, seen, pool) = checked(3, "a");
    world.run_for(millis(1_234));
    seen.set("dead", Server::Fails);
    pool.update(["a", "dead", "new"].map(Endpoint::new));
    let joined = world.now();
    assert!(!is_out(&pool, "dead"), "who was not checked is taken to be well");
    world.run_for(millis(20));
    assert!(is_out(&pool, "dead") && !is_out(&pool, "new"));
    assert_eq!([seen.begun("dead"), seen.begun("new")], [[joined], [joined]]);
}

#[test]
fn an_endpoint_that_comes_back_is_another_one() {
    let (world, seen, pool) = checked(4, "a b");
    seen.set("a", Server::Fails);
    world.run_for(secs(5));
    assert!(is_out(&pool, "a"));
    pool.remove("a");
    world.run_for(secs(3));
    let last = seen.begun("a").len();
    seen.set("a", Server::Well);
    pool.add(Endpoint::new("a"));
    assert_eq!(check_of(&pool, "a"), None);
    world.run_for(millis(20));
    assert_eq!(seen.begun("a").len(), last + 1, "it was not checked while it was away");
    assert!(!is_out(&pool, "a"));
    assert_eq!(
        check_of(&pool, "a").map(|check| (check.passed, check.failed)),
        Some((1, 0))
    );
}

#[test]
fn a_check_that_began_before_its_endpoint_left_has_no_say() {
    let (world, seen, pool) = checked(5, "a b");
    seen.set("a", Server::Fails);
    world.run_for(millis(5)); // the first check is running
    assert_eq!(seen.begun("a").len(), 1);
    pool.remove("a");
    pool.add(Endpoint::new("a"));
    // The list is made anew only when the future is polled, so to it nobody has left: the name is what counts.
    world.run_for(millis(1));
    pool.remove("a");
    world.run_for(millis(1));
    seen.set("a", Server::Well);
    pool.add(Endpoint::new("a"));
    world.run_for(millis(100));
    assert!(!is_out(&pool, "a"));
    assert_eq!(
        check_of(&pool, "a").map(|check| (check.passed, check.failed)),
        Some((1, 0))
    );
}

#[test]
fn no_more_than_the_limit_run_at_once_and_none_is_forgotten() {
    let world = World::new(6);
    let env = world.env();
    let seen = Seen::new(&env);
    let ids: Vec<String> = (0..100).map(|i| format!("s{i}")).collect();
    for id in &ids {
        seen.set(id, Server::Hangs);
    }
    let pool = pool(&env, &ids.join(" "));
    let for_check = seen.clone();
    let check = move |endpoint: &Endpoint| for_check.clone().check(endpoint.id().to_string());
    env.spawn(pool.check(check).timeout(secs(1)).at_once(7)).detach();
    // A round takes 100 / 7 timeouts.
    world.run_for(secs(16));
    assert!(ids.iter().all(|id| is_out(&pool, id)));
    world.run_for(secs(100));
    assert_eq!(seen.fleet.lock().unwrap().most_at_once, 7);
    let counts: Vec<_> = ids.iter().map(|id| seen.begun(id).len()).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(
        *least >= 7 && most - least <= 1,
        "everyone's turn comes: {least} to {most}"
    );
}

#[test]
fn the_unhealthy_and_the_drained_are_checked_too_the_former_as_often_as_asked() {
    let world = World::new(7);
    let env = world.env();
    let (seen, pool) = (Seen::new(&env), pool(&env, "a b c"));
    let for_check = seen.clone();
    let check = move |endpoint: &Endpoint| for_check.clone().check(endpoint.id().to_string());
    env.spawn(pool.check(check).interval(secs(10)).unhealthy_interval(secs(1)))
        .detach();
    seen.set("a", Server::Fails);
    pool.drain("b");
    world.run_for(secs(100));
    let [a, b, c] = ["a", "b", "c"].map(|id| seen.begun(id).len());
    assert!((90..=112).contains(&a), "{a}");
    assert!((9..=12).contains(&b) && (9..=12).contains(&c), "{b} and {c}");
    // Ten seconds, a tenth more or less by chance.
    let gaps: Vec<_> = seen.begun("c").windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.iter().all(|gap| (millis(9_000)..=millis(11_010)).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "{gaps:?}");
}

#[test]
fn it_ends_with_the_pool_and_drops_what_runs() {
    let world = World::new(8);
    let env = world.env();
    let (seen, pool) = (Seen::new(&env), pool(&env, "a"));
    seen.set("a", Server::Hangs);
    let mut task = env.spawn(checks(&pool, &seen));
    world.run_for(millis(500));
    assert!((&mut task).now_or_never().is_none());
    assert_eq!(seen.fleet.lock().unwrap().running, 1);
    drop(pool);
    world.run(task).unwrap();
    assert_eq!(world.now(), Tick::ZERO + millis(500), "at once");
    assert_eq!(seen.fleet.lock().unwrap().running, 0);
}

#[test]
fn who_is_checked_no_more_is_let_back_in() {
    let world = World::new(9);
    let env = world.env();
    let (seen, pool) = (Seen::new(&env), pool(&env, "a b"));
    seen.set("a", Server::Fails);
    let mut run = Box::pin(checks(&pool, &seen));
    world.run(async {
        futures::future::select(&mut run, env.sleep(secs(5))).await;
    });
    assert!(is_out(&pool, "a"));

    // Another one takes over: there is no moment between the two in which the endpoint is in.
    let second = env.spawn(checks(&pool, &seen));
    world.run(async {
        let mut over = Box::pin(futures::future::select(&mut run, env.sleep(secs(5))));
        loop {
            assert!(is_out(&pool, "a"));
            if futures::poll!(&mut over).is_ready() {
                break;
            }
            env.sleep(millis(1)).await;
        }
    });
    assert!(world.now() < Tick::ZERO + secs(6), "the first has ended");
    assert!(is_out(&pool, "a"));
    drop((run, second));
    // Now the checks end with their runtime, and nobody would find out that it is well.
    world.machine("main").kill();
    assert_eq!(state_of(&pool, "a"), EndpointState::Active);
    assert_eq!(check_of(&pool, "a"), None);
}

#[test]
fn it_is_spawned_on_the_users_runtime_or_not_at_all() {
    let pool = pool(&Env::system(), "a");
    let refused = pool.check(|_: &Endpoint| async { Ok::<_, String>(()) }).spawn();
    assert_eq!(refused.err(), Some(NeedsSpawner));
}

/// A minute and a half of servers that change by chance, and as many endpoints that come and go.
fn storm(seed: u64) -> Trace {
    let ids: Vec<String> = (0..8).map(|i| format!("s{i}")).collect();
    let (world, seen, pool) = checked(seed, &ids.join(" "));
    let env = world.env();
    let mut rng = world.rng("storm");
    world.run(async {
        for _ in 0..200 {
            env.sleep(Duration::from_secs_f64(rng.exponential(0.4))).await;
            let id = &*ids[rng.index(ids.len())];
            match rng.index(7) {
                0 => drop(pool.remove(id)),
                1 | 2 => pool.add(Endpoint::new(id)),
                n => seen.set(id, [Server::Well, Server::Well, Server::Fails, Server::Hangs][n - 3]),
            }
        }
        // From now on nothing changes: three failures, each after a timeout, or two passes decide.
        env.sleep(secs(10)).await;
    });
    let status = pool.status();
    for endpoint in &status.endpoints {
        let server = seen.fleet.lock().unwrap().servers.get(&*endpoint.id).copied();
        let well = server.is_none_or(|server| server == Server::Well);
        let check = endpoint.check.as_ref().unwrap();
        assert_eq!(
            (check.healthy, endpoint.state == EndpointState::Active),
            (well, well),
            "{endpoint:?}"
        );
        assert!(check.age <= millis(3_100), "{endpoint:?}");
    }
    world.note(format!("{status:?}"));
    world.trace()
}

#[test]
fn after_any_storm_the_pool_knows_who_is_well() {
    for seed in 0..30 {
        storm(seed);
    }
}

#[test]
fn one_seed_is_one_run() {
    assert_eq!(storm(1), storm(1));
    assert_ne!(storm(1), storm(2));
}

#[test]
fn a_listener_that_closes_is_out_and_one_that_opens_is_in() {
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (stays, goes) = (listen(), listen());
    let [stays_at, goes_at] = [&stays, &goes].map(|listener| listener.local_addr().unwrap());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = Pool::builder(RoundRobin::default())
            .endpoints([stays_at, goes_at].map(Endpoint::from))
            .env(Env::tokio().unwrap())
            .build();
        let check = TcpCheck::to(|endpoint: &Endpoint<SocketAddr>| endpoint.target);
        pool.check(check).interval(millis(20)).spawn().unwrap().detach();
        let states = || pool.status().endpoints.iter().map(|e| e.state).collect::<Vec<_>>();
        let passed = || {
            pool.status()
                .endpoints
                .iter()
                .all(|e| e.check.as_ref().is_some_and(|c| c.passed >= 3))
        };
        until("both are checked", passed).await;
        assert_eq!(states(), [EndpointState::Active; 2]);
        drop(goes);
        until("one is out", || {
            states() == [EndpointState::Active, EndpointState::Unhealthy]
        })
        .await;
        let error = pool.status().endpoints[1].check.clone().unwrap().last_error.unwrap();
        assert!(error.contains("refused"), "{error}");
        let _back = TcpListener::bind(goes_at).unwrap();
        until("it is back", || states() == [EndpointState::Active; 2]).await;

        pool.add(Endpoint::new("nobody.invalid:80").target(SocketAddr::from(([127, 0, 0, 1], 1))));
        until("who never was there is out", || {
            states()[2..] == [EndpointState::Unhealthy]
        })
        .await;
    });
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < secs(30), "waited in vain until {what}");
        tokio::time::sleep(millis(5)).await;
    }
}

#[test]
fn a_tcp_check_outside_tokio_fails_and_says_why() {
    let world = World::new(10);
    let env = world.env();
    let pool = pool(&env, "127.0.0.1:9");
    env.spawn(pool.check(TcpCheck::by_id())).detach();
    world.run_for(secs(1));
    let check = check_of(&pool, "127.0.0.1:9").unwrap();
    assert!(check.last_error.unwrap().contains("tokio"));
}

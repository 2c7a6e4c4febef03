//! Endpoints from a real name server on loopback, in real time: what its answers become, and what happens when they
//! change, run out, or do not come.
#![allow(clippy::disallowed_methods, reason = "the test acts as the outside world")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod server;

use futures::StreamExt;
use outgrow::balance::discover::{DiscoveryError, DiscoveryState, DnsSource, Families, OnEmpty, Refresh};
use outgrow::balance::{Endpoint, Pool, RoundRobin};
use server::{A, AAAA, Answer, SRV, Server, address, cname, srv};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

type Addresses = Pool<RoundRobin, SocketAddr>;

/// Runs `test` on a tokio runtime of its own.
fn on_tokio<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// A source that asks `server`, waits for no more than a fifth of a second, and does not wait long to ask again.
fn ask(server: &Server, source: DnsSource) -> DnsSource {
    let refresh = Refresh::default().floor(Duration::from_millis(100)).jitter(0.0);
    let refresh = refresh
        .backoff(Duration::from_millis(100))
        .max_backoff(Duration::from_millis(200));
    source
        .servers([server.address()])
        .timeout(Duration::from_millis(200))
        .refresh(refresh)
}

fn follow(source: DnsSource) -> Addresses {
    let pool = Pool::builder(RoundRobin::default()).build();
    pool.follow(source.stream().unwrap()).spawn().unwrap().detach();
    pool
}

fn addresses(pool: &Addresses) -> Vec<String> {
    pool.status().endpoints.iter().map(|e| e.id.to_string()).collect()
}

/// Waits until `check` holds, for as long as a busy machine may take.
async fn until(what: &str, check: impl Fn() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The first set of a source.
async fn first(source: DnsSource) -> Result<Vec<Endpoint<SocketAddr>>, DiscoveryError> {
    let mut sets = Box::pin(source.stream()?);
    sets.next().await.expect("a source never ends")
}

#[test]
fn a_name_is_asked_again_when_its_time_to_live_is_over() {
    let server = Server::start();
    let name = "api.example.org.";
    server.say(
        name,
        A,
        Answer::Records(vec![address("127.0.0.2", 1), address("127.0.0.1", 1)]),
    );
    on_tokio(async {
        let pool = follow(ask(&server, DnsSource::host(name, 80)));
        until("both are there", || {
            addresses(&pool) == ["127.0.0.1:80", "127.0.0.2:80"]
        })
        .await;
        // In another order they are the same set.
        server.say(
            name,
            A,
            Answer::Records(vec![address("127.0.0.1", 1), address("127.0.0.2", 1)]),
        );
        until("it has asked four times", || server.asked(name, A).len() >= 4).await;
        assert_eq!(pool.status().discovery.unwrap().sets, 1);

        server.say(
            name,
            A,
            Answer::Records(vec![address("127.0.0.3", 1), address("127.0.0.1", 600)]),
        );
        until("the change is seen", || {
            addresses(&pool) == ["127.0.0.1:80", "127.0.0.3:80"]
        })
        .await;
        let asked = server.asked(name, A);
        let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(950)), "{gaps:?}");
        assert!(
            server.asked(name, AAAA).is_empty(),
            "nobody asks for what is not wanted"
        );
    });
}

#[test]
fn a_silent_server_leaves_the_last_good_set_and_its_return_is_seen() {
    let server = Server::start();
    let name = "api.example.org.";
    server.say(name, A, Answer::Records(vec![address("127.0.0.1", 1)]));
    on_tokio(async {
        let pool = follow(ask(&server, DnsSource::host(name, 80)));
        until("it is there", || addresses(&pool) == ["127.0.0.1:80"]).await;
        server.be_silent(true);
        until("the silence is told", || pool.status().discovery.unwrap().failures >= 3).await;
        let status = pool.status().discovery.unwrap();
        assert_eq!(status.state, DiscoveryState::Failing);
        let error = status.last_error.unwrap();
        assert!(error.starts_with("api.example.org. A: "), "{error}");
        assert!(status.age.unwrap() > status.in_state);
        assert_eq!(addresses(&pool), ["127.0.0.1:80"]);

        server.say(name, A, Answer::Fails);
        server.be_silent(false);
        until("the refusal is told", || {
            pool.status()
                .discovery
                .unwrap()
                .last_error
                .unwrap()
                .to_lowercase()
                .contains("server failure")
        })
        .await;
        assert_eq!(addresses(&pool), ["127.0.0.1:80"]);

        server.say(name, A, Answer::Records(vec![address("127.0.0.2", 1)]));
        until("the change is seen", || addresses(&pool) == ["127.0.0.2:80"]).await;
        assert_eq!(pool.status().discovery.unwrap().state, DiscoveryState::Current);
    });
}

#[test]
fn a_name_that_is_gone_is_an_empty_set() {
    let server = Server::start();
    let name = "api.example.org.";
    for gone in [Answer::NoName(1), Answer::Nothing(1)] {
        for (choice, left) in [(OnEmpty::Keep, 1), (OnEmpty::Apply, 0)] {
            server.say(name, A, Answer::Records(vec![address("127.0.0.1", 1)]));
            on_tokio(async {
                let pool: Addresses = Pool::builder(RoundRobin::default()).build();
                let sets = ask(&server, DnsSource::host(name, 80)).stream().unwrap();
                pool.follow(sets).on_empty(choice).spawn().unwrap().detach();
                until("it is there", || addresses(&pool).len() == 1).await;
                server.say(name, A, gone.clone());
                let status = || pool.status().discovery.unwrap();
                until("it is gone", || status().empty_kept == 1 || status().sets == 2).await;
                assert_eq!(addresses(&pool).len(), left);
                assert_eq!(status().failures, 0, "an answer is no failure");
            });
        }
    }
}

#[test]
fn the_least_time_to_live_on_the_way_counts() {
    let server = Server::start();
    let name = "www.example.org.";
    let target = address("127.0.0.1", 600).of("real.example.org.");
    server.say(name, A, Answer::Records(vec![cname("real.example.org.", 1), target]));
    on_tokio(async {
        let pool = follow(ask(&server, DnsSource::host(name, 80)));
        until("it has asked twice", || server.asked(name, A).len() >= 2).await;
        assert_eq!(addresses(&pool), ["127.0.0.1:80"]);
    });
}

#[test]
fn families_are_merged_or_chosen() {
    let server = Server::start();
    let name = "dual.example.org.";
    server.say(name, A, Answer::Records(vec![address("127.0.0.1", 60)]));
    server.say(name, AAAA, Answer::Records(vec![address("::1", 60)]));
    server.say("six.example.org.", AAAA, Answer::Records(vec![address("::6", 60)]));
    let found = |name: &str, families| {
        let source = ask(&server, DnsSource::host(name, 80)).families(families);
        let set = on_tokio(first(source)).unwrap();
        set.iter()
            .map(|endpoint| endpoint.target.to_string())
            .collect::<Vec<_>>()
    };
    let (v4, v6) = ("127.0.0.1:80", "[::1]:80");
    assert_eq!(found(name, Families::PreferV4), [v4]);
    assert_eq!(found(name, Families::PreferV6), [v6]);
    assert_eq!(found(name, Families::V4), [v4]);
    assert_eq!(found(name, Families::V6), [v6]);
    assert_eq!(found(name, Families::Both), [v4, v6]);
    assert_eq!(found("six.example.org.", Families::PreferV4), ["[::6]:80"]);
    assert!(found("six.example.org.", Families::V4).is_empty());

    // Half an answer is none: the other half may be servers that are there.
    server.say(name, AAAA, Answer::Silence);
    let source = ask(&server, DnsSource::host(name, 80)).families(Families::Both);
    let error = on_tokio(first(source)).unwrap_err();
    assert!(
        matches!(&error, DiscoveryError::Lookup { name, .. } if name == "dual.example.org. AAAA"),
        "{error}"
    );
}

#[test]
fn services_have_priorities_weights_and_targets() {
    let server = Server::start();
    let name = "_http._tcp.example.org.";
    let records = [
        srv(10, 60, 8_001, "big.example.org.", 60),
        srv(10, 20, 8_002, "twin.example.org.", 60),
        srv(20, 0, 8_003, "spare.example.org.", 60),
        srv(20, 5, 8_004, "nobody.example.org.", 60),
    ];
    server.say(name, SRV, Answer::Records(records.to_vec()));
    server.say("big.example.org.", A, Answer::Records(vec![address("127.0.0.1", 60)]));
    let twin = vec![address("127.0.0.2", 60), address("127.0.0.3", 60)];
    server.say("twin.example.org.", A, Answer::Records(twin));
    server.say("spare.example.org.", A, Answer::Records(vec![address("127.0.0.4", 60)]));
    let set = on_tokio(first(ask(&server, DnsSource::srv(name)))).unwrap();
    let found: Vec<_> = set
        .iter()
        .map(|e| (&**e.id(), e.priority, e.weight, e.metadata["host"].as_str()))
        .collect();
    let want = [
        ("127.0.0.1:8001", 0, 6, "big.example.org"),
        ("127.0.0.2:8002", 0, 1, "twin.example.org"),
        ("127.0.0.3:8002", 0, 1, "twin.example.org"),
        ("127.0.0.4:8003", 1, 1, "spare.example.org"),
    ];
    assert_eq!(found, want);

    // A target that cannot be resolved now may be half of the servers: the set has to wait.
    server.say("twin.example.org.", A, Answer::Fails);
    let error = on_tokio(first(ask(&server, DnsSource::srv(name)))).unwrap_err();
    assert!(error.to_string().starts_with("twin.example.org. A: "), "{error}");

    // A single dot says that the service is not there (RFC 2782).
    server.say(name, SRV, Answer::Records(vec![srv(0, 0, 0, ".", 60)]));
    let set = on_tokio(first(ask(&server, DnsSource::srv(name)))).unwrap();
    assert_eq!(set, []);
    assert!(server.asked(".", A).is_empty());
}

#[test]
fn services_are_asked_again_when_the_first_of_their_addresses_runs_out() {
    let server = Server::start();
    let name = "_http._tcp.example.org.";
    server.say(name, SRV, Answer::Records(vec![srv(0, 1, 80, "a.example.org.", 600)]));
    server.say("a.example.org.", A, Answer::Records(vec![address("127.0.0.1", 1)]));
    on_tokio(async {
        let pool = follow(ask(&server, DnsSource::srv(name)));
        until("it is there", || addresses(&pool) == ["127.0.0.1:80"]).await;
        server.say("a.example.org.", A, Answer::Records(vec![address("127.0.0.9", 1)]));
        until("the change is seen", || addresses(&pool) == ["127.0.0.9:80"]).await;
    });
}

#[test]
fn what_cannot_work_is_said() {
    let long = format!("{}.org", "x".repeat(64));
    let error = DnsSource::host(&*long, 80).stream().err().unwrap();
    assert!(
        matches!(&error, DiscoveryError::Lookup { name, .. } if *name == long),
        "{error}"
    );

    let outside = futures::executor::block_on(first(DnsSource::host("example.org.", 80)));
    assert!(matches!(outside, Err(DiscoveryError::NeedsTokio)), "{outside:?}");
}

#[test]
fn the_system_is_asked_by_default() {
    // This name needs no server (RFC 6761), wherever the system's configuration points.
    let set = on_tokio(first(DnsSource::host("localhost", 80)));
    let configured = std::fs::read_to_string("/etc/resolv.conf").is_ok_and(|text| text.contains("nameserver"));
    match set {
        Ok(set) => assert_eq!(&**set[0].id(), "127.0.0.1:80"),
        Err(error) => assert!(!configured, "{error}"),
    }
}

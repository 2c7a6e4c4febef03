//! The pool as a tower service, without a network: what is picked, when a lease ends and as what, what is sent again.
#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use outgrow::balance::tower::{Avoid, BalanceError, BalanceLayer, BalanceService, Deadline, RetryLayer, http_check};
use outgrow::balance::{
    Balancer, Endpoint, EndpointId, Failure, Hedge, Load, Member, Outcome, PickError, Pool, Retry, RoundRobin,
    ServerLoad, ZoneRouting,
};
use outgrow::env::{Env, Rng, Tick};
use outgrow::sim::{World, drop_at_every_poll};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

type Body = UnsyncBoxBody<Bytes, Error>;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a server answers with.
#[derive(Clone)]
enum Does {
    Answers(u16, &'static [(&'static str, &'static str)]),
    /// Sends a body of these parts.
    Sends(&'static [Part]),
    Errs(ErrorKind),
    Hangs,
    NeverReady(ErrorKind),
}
use Does::{Answers, Errs, Hangs, NeverReady, Sends};

#[derive(Clone, Copy)]
enum Part {
    Data(&'static str),
    Breaks,
    Trailer(&'static str, &'static str),
}
use Part::{Breaks, Data, Trailer};

const OK: Does = Answers(200, &[]);
const FAILED: Does = Answers(500, &[]);
const REFUSED: Does = Errs(ErrorKind::ConnectionRefused);

#[derive(Clone)]
struct Server {
    does: Does,
    delay: Duration,
    env: Env,
    ready: bool,
    seen: Arc<Mutex<Vec<Uri>>>,
}

impl Service<Request<String>> for Server {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    /// Ready at the second time of asking, as one whose connection takes a moment.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let NeverReady(kind) = self.does {
            return Poll::Ready(Err(kind.into()));
        }
        if std::mem::replace(&mut self.ready, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "it was not ready");
        self.seen.lock().unwrap().push(request.uri().clone());
        let (does, delay, env) = (self.does.clone(), self.delay, self.env.clone());
        Box::pin(async move {
            env.sleep(delay).await;
            answer(does).await
        })
    }
}

async fn answer(does: Does) -> Result<Response<Body>, Error> {
    match does {
        Answers(status, headers) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            Ok(response.body(parts(&[])).unwrap())
        }
        Sends(of) => Ok(Response::new(parts(of))),
        Errs(kind) => Err(kind.into()),
        Hangs | NeverReady(_) => std::future::pending().await,
    }
}

fn parts(of: &'static [Part]) -> Body {
    let frame = |part: &Part| match *part {
        Data(text) => Ok(Frame::data(Bytes::from(text))),
        Breaks => Err(ErrorKind::ConnectionReset.into()),
        Trailer(name, value) => Ok(Frame::trailers(HeaderMap::from_iter([(
            name.parse().unwrap(),
            value.parse().unwrap(),
        )]))),
    };
    if of.is_empty() {
        return http_body_util::Empty::new()
            .map_err(|never| match never {})
            .boxed_unsync();
    }
    StreamBody::new(stream::iter(of.iter().map(frame))).boxed_unsync()
}

/// Takes the first endpoint that was not tried, and notes what it was shown and told.
#[derive(Clone, Default)]
struct First {
    keys: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    said: Arc<Mutex<Vec<(EndpointId, ServerLoad)>>>,
}

impl Balancer for First {
    type Table = ();

    fn table(&self, _: &[Member]) {}

    fn pick(
        &self,
        (): &(),
        loads: &[Arc<Load>],
        request: &outgrow::balance::Request<'_>,
        _: Tick,
        _: &mut Rng,
    ) -> Option<usize> {
        self.keys.lock().unwrap().push(request.key.map(<[u8]>::to_vec));
        Some(loads.iter().position(|load| !request.avoids(load)).unwrap_or(0))
    }

    fn report(&self, load: &Load, said: &ServerLoad, _: Tick) {
        self.said.lock().unwrap().push((load.id().clone(), *said));
    }
}

struct Setting {
    world: World,
    policy: First,
    pool: Pool<First, Server>,
    seen: Arc<Mutex<Vec<Uri>>>,
}

impl Setting {
    /// Servers called a, b, c and so on.
    fn new(servers: impl IntoIterator<Item = Does>) -> Setting {
        Setting::in_world(World::new(1), servers.into_iter().map(|does| (does, ms(1))))
    }

    fn in_world(world: World, servers: impl IntoIterator<Item = (Does, Duration)>) -> Setting {
        let (policy, seen) = (First::default(), Arc::default());
        let endpoints = ('a'..).zip(servers).map(|(id, (does, delay))| {
            Endpoint::new(id.to_string()).target(Server {
                does,
                delay,
                env: world.env(),
                ready: false,
                seen: Arc::clone(&seen),
            })
        });
        let pool = Pool::builder(policy.clone())
            .endpoints(endpoints)
            .outliers(None)
            .env(world.env())
            .build();
        Setting {
            world,
            policy,
            pool,
            seen,
        }
    }

    fn service(&self) -> BalanceService<First, Server> {
        BalanceService::http(self.pool.clone())
    }

    fn retries(&self) -> RetryLayer {
        RetryLayer::new()
            .env(self.world.env())
            .backoff(Duration::ZERO, Duration::ZERO)
    }

    /// Succeeded, failed, cancelled, in flight.
    fn counts(&self, id: &str) -> (u64, u64, u64, u32) {
        let endpoints = self.pool.status().endpoints;
        let of = endpoints.iter().find(|endpoint| &*endpoint.id == id).unwrap();
        (of.succeeded, of.failed, of.cancelled, of.in_flight)
    }

    fn send<S: Service<Request<String>>>(
        &self,
        service: &mut S,
        request: Request<String>,
    ) -> Result<S::Response, S::Error> {
        assert!(
            service
                .poll_ready(&mut Context::from_waker(futures::task::noop_waker_ref()))
                .is_ready()
        );
        let response = service.call(request);
        self.world.run(response)
    }
}

fn get(uri: &str) -> Request<String> {
    Request::get(uri).body(String::new()).unwrap()
}

fn post(uri: &str) -> Request<String> {
    Request::post(uri).body(String::new()).unwrap()
}

#[test]
fn the_pick_sees_the_request_and_the_lease_lasts_as_long_as_the_body() {
    let setting = Setting::new([Sends(&[Data("one"), Data("two")])]);
    let mut service = setting.service().key(|head| Some(head.uri.path().as_bytes().into()));
    let response = setting.send(&mut service, get("/users/7")).unwrap();
    assert_eq!(setting.policy.keys.lock().unwrap()[..], [Some(b"/users/7".to_vec())]);
    let mut body = response.into_body();
    assert_eq!(setting.counts("a"), (0, 0, 0, 1));
    let mut next = || {
        body.frame()
            .now_or_never()
            .unwrap()
            .map(|frame| frame.unwrap().into_data().unwrap())
    };
    assert_eq!((next(), next()), (Some("one".into()), Some("two".into())));
    assert_eq!(setting.counts("a"), (0, 0, 0, 1), "nobody has said that this was all");
    assert_eq!(next(), None);
    assert_eq!(setting.counts("a"), (1, 0, 0, 0));
}

#[test]
fn the_body_and_its_trailers_have_a_say() {
    let of = |parts| {
        let setting = Setting::new([Sends(parts)]);
        let response = setting.send(&mut setting.service(), get("/")).unwrap();
        let _ = response.into_body().collect().now_or_never().unwrap();
        setting.counts("a")
    };
    assert_eq!(of(&[Data("x"), Breaks]), (0, 1, 0, 0));
    assert_eq!(of(&[Data("x"), Trailer("grpc-status", "0")]), (1, 0, 0, 0));
    assert_eq!(of(&[Data("x"), Trailer("grpc-status", "14")]), (0, 1, 0, 0));
    assert_eq!(of(&[Trailer("etag", "7")]), (1, 0, 0, 0));
}

#[test]
fn what_is_thrown_away_is_cancelled_unless_the_head_has_said_it() {
    let dropped = |does| {
        let setting = Setting::new([does]);
        drop(setting.send(&mut setting.service(), get("/")));
        setting.counts("a")
    };
    assert_eq!(dropped(Sends(&[Data("x")])), (0, 0, 1, 0));
    assert_eq!(dropped(OK), (1, 0, 0, 0), "an empty body has ended");
    assert_eq!(dropped(FAILED), (0, 1, 0, 0));
    assert_eq!(dropped(REFUSED), (0, 1, 0, 0));
    assert_eq!(dropped(Answers(503, &[("retry-after", "5")])), (0, 0, 1, 0));

    let setting = Setting::new([Hangs]);
    let mut response = Box::pin(setting.service().call(get("/")));
    assert!(response.as_mut().now_or_never().is_none());
    assert_eq!(setting.counts("a"), (0, 0, 0, 1));
    drop(response);
    assert_eq!(setting.counts("a"), (0, 0, 1, 0));
}

#[test]
fn errors_are_typed() {
    let setting = Setting::new([NeverReady(ErrorKind::BrokenPipe)]);
    let error = setting.send(&mut setting.service(), get("/")).unwrap_err();
    assert!(matches!(error, BalanceError::Service(error) if error.kind() == ErrorKind::BrokenPipe));
    assert_eq!(setting.counts("a"), (0, 1, 0, 0));
    setting.pool.drain("a");
    let error = setting.send(&mut setting.service(), get("/")).unwrap_err();
    assert!(matches!(error, BalanceError::Pick(PickError::NoEndpoints)));
}

#[test]
fn time_limits_are_failures_of_the_endpoint() {
    let setting = Setting::new([Hangs]);
    let (mut limited, start) = (setting.service().timeout(ms(50)), setting.world.now());
    assert!(matches!(
        setting.send(&mut limited, get("/")),
        Err(BalanceError::Timeout)
    ));
    assert_eq!(
        (setting.world.now() - start, setting.counts("a")),
        (ms(50), (0, 1, 0, 0))
    );

    let mut soon = get("/");
    soon.extensions_mut().insert(Deadline(setting.world.now() + ms(30)));
    assert!(matches!(setting.send(&mut limited, soon), Err(BalanceError::Timeout)));
    assert_eq!(
        (setting.world.now() - start, setting.counts("a")),
        (ms(80), (0, 2, 0, 0))
    );

    let mut again = get("/");
    again.extensions_mut().insert(Deadline(setting.world.now() + ms(1)));
    again.extensions_mut().insert(Avoid::new(["a".into()]));
    assert!(matches!(setting.send(&mut limited, again), Err(BalanceError::Timeout)));
    assert_eq!(
        setting.counts("a"),
        (0, 2, 1, 0),
        "a second try had too little time to say anything"
    );

    let mut late = get("/");
    late.extensions_mut().insert(Deadline(setting.world.now()));
    let error = setting.send(&mut limited, late).unwrap_err();
    assert!(matches!(error, BalanceError::Pick(PickError::Expired)));
}

#[test]
fn an_idempotent_request_goes_on_to_the_next_endpoint() {
    for (method, sent) in [
        (Method::GET, 3),
        (Method::PUT, 3),
        (Method::POST, 1),
        (Method::PATCH, 1),
    ] {
        let setting = Setting::new([FAILED, Errs(ErrorKind::BrokenPipe), OK]);
        let request = Request::builder().method(method).body(String::new()).unwrap();
        let response = setting
            .send(&mut setting.retries().layer(setting.service()), request)
            .unwrap();
        assert_eq!(setting.seen.lock().unwrap().len(), sent);
        assert_eq!(response.status().is_success(), sent == 3);
    }
    let setting = Setting::new([FAILED, OK]);
    let mut service = setting.retries().retry(Retry::Always).layer(setting.service());
    assert_eq!(setting.send(&mut service, post("/")).unwrap().status(), StatusCode::OK);
}

#[test]
fn what_was_not_sent_goes_on_whatever_it_is() {
    for first in [REFUSED, NeverReady(ErrorKind::Other)] {
        let setting = Setting::new([first, OK]);
        let response = setting
            .send(&mut setting.retries().layer(setting.service()), post("/"))
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!((setting.counts("a"), setting.counts("b")), ((0, 1, 0, 0), (1, 0, 0, 0)));
    }
}

#[test]
fn whoever_sends_again_by_himself_shares_the_list() {
    let setting = Setting::new([FAILED, FAILED, OK]);
    let (avoid, mut request) = (Avoid::default(), get("/"));
    request.extensions_mut().insert(avoid.clone());
    let mut service = setting.service();
    let statuses = [(); 3].map(|()| setting.send(&mut service, request.clone()).unwrap().status().as_u16());
    assert_eq!(statuses, [500, 500, 200]);
    assert_eq!(avoid.tried(), ["a", "b", "c"].map(EndpointId::from));
}

#[test]
fn hedges_go_to_another_endpoint_or_nowhere() {
    let slow = |n| Setting::in_world(World::new(1), [(OK, ms(100)), (OK, ms(10))].into_iter().take(n));
    let hedged = |setting: &Setting| {
        let layer = setting.retries().attempts(1).hedge(Hedge::after(ms(20)));
        let start = setting.world.now();
        let response = setting.send(&mut layer.layer(setting.service()), get("/")).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        setting.world.now() - start
    };
    let two = slow(2);
    assert_eq!(hedged(&two), ms(30));
    assert_eq!((two.counts("a"), two.counts("b")), ((0, 0, 1, 0), (1, 0, 0, 0)));
    let one = slow(1);
    assert_eq!(hedged(&one), ms(100));
    assert_eq!(one.seen.lock().unwrap().len(), 1);
}

#[test]
fn a_request_dropped_anywhere_leaves_nothing_in_flight() {
    let polls = drop_at_every_poll(3, |world, cut| async move {
        let servers = [(FAILED, ms(30)), (Hangs, ms(1)), (Sends(&[Data("x")]), ms(20))];
        let setting = Setting::in_world(world, servers);
        let layer = setting.retries().hedge(Hedge::after(ms(10)));
        let mut service = layer.layer(setting.service().timeout(ms(50)));
        let answer = cut
            .run(async { service.call(get("/")).await.unwrap().into_body().collect().await })
            .await;
        let endpoints = setting.pool.status().endpoints;
        assert!(
            endpoints.iter().all(|endpoint| endpoint.in_flight == 0),
            "{endpoints:?}"
        );
        if let Some(answer) = answer {
            assert_eq!(answer.unwrap().to_bytes(), "x");
        }
    });
    assert!(polls > 3, "{polls}");
}

#[test]
fn what_endpoints_say_of_their_load_gets_to_the_policy() {
    const METRICS: &str = "endpoint-load-metrics";
    let setting = Setting::new([
        Answers(200, &[(METRICS, "TEXT named_metrics.in_flight=7")]),
        Sends(&[Trailer(METRICS, "JSON {\"cpu_utilization\": 0.5}")]),
    ]);
    let mut service = setting.service().concurrency(8.0);
    setting.send(&mut service, get("/")).unwrap();
    setting.pool.drain("a");
    let response = setting.send(&mut service, get("/")).unwrap();
    response.into_body().collect().now_or_never().unwrap().unwrap();
    let said = setting.policy.said.lock().unwrap();
    assert_eq!(
        said[..],
        [("a".into(), ServerLoad::new(7.0)), ("b".into(), ServerLoad::new(4.0))]
    );
}

#[test]
fn zones_and_judgements_are_the_users() {
    let setting = Setting::new([]);
    let server = |does| Server {
        does,
        delay: Duration::ZERO,
        env: setting.world.env(),
        ready: false,
        seen: Arc::clone(&setting.seen),
    };
    let pool = Pool::builder(RoundRobin::default())
        .endpoints([
            Endpoint::new("near").zone("a").target(server(Answers(404, &[]))),
            Endpoint::new("far").zone("b").target(server(OK)),
        ])
        .zones(ZoneRouting::local("b"))
        .env(setting.world.env())
        .build();
    let mut service = BalanceService::http(pool.clone())
        .zone(|head| Some(head.headers.get("zone")?.to_str().ok()?.into()))
        .classify(|answer: &Result<Response<Body>, Error>| match answer {
            Ok(response) if response.status() != StatusCode::NOT_FOUND => Outcome::Success,
            _ => Outcome::Failure(Failure::Response),
        });
    for _ in 0..4 {
        let request = Request::get("/").header("zone", "a").body(String::new()).unwrap();
        assert_eq!(
            setting.send(&mut service, request).unwrap().status(),
            StatusCode::NOT_FOUND
        );
        assert_eq!(setting.send(&mut service, get("/")).unwrap().status(), StatusCode::OK);
    }
    let endpoints = pool.status().endpoints;
    let counts = |id: &str| {
        endpoints
            .iter()
            .find(|e| &*e.id == id)
            .map(|e| (e.succeeded, e.failed))
            .unwrap()
    };
    assert_eq!((counts("near"), counts("far")), ((0, 4), (4, 0)));
}

#[test]
fn one_client_reaches_all_servers() {
    let setting = Setting::new([OK]);
    let client = setting
        .pool
        .pick(&outgrow::balance::Request::new())
        .unwrap()
        .target
        .clone();
    let servers = ["http://10.0.0.1:80", "http://10.0.0.2:80"].map(|at| Endpoint::new(at).target(Uri::from_static(at)));
    let pool = Pool::builder(First::default())
        .endpoints(servers)
        .env(setting.world.env())
        .build();
    let mut service = BalanceLayer::new(pool.clone()).layer(client);
    setting.send(&mut service, get("/users?x=1")).unwrap();
    pool.drain("http://10.0.0.1:80");
    setting.send(&mut service.clone(), get("http://users/8")).unwrap();
    let seen = setting.seen.lock().unwrap();
    assert_eq!(
        seen[..],
        ["http://10.0.0.1:80/users?x=1", "http://10.0.0.2:80/8"].map(Uri::from_static)
    );
}

#[test]
fn requests_need_not_be_of_http() {
    #[derive(Clone)]
    struct Divides(i32);
    impl Service<i32> for Divides {
        type Response = i32;
        type Error = &'static str;
        type Future = std::future::Ready<Result<i32, &'static str>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, request: i32) -> Self::Future {
            std::future::ready(request.checked_div(self.0).ok_or("division by zero"))
        }
    }
    let policy = First::default();
    let endpoints = [
        Endpoint::new("a").target(Divides(0)),
        Endpoint::new("b").target(Divides(2)),
    ];
    let pool = Pool::builder(policy.clone()).endpoints(endpoints).build();
    let judge = |answer: &Result<i32, &'static str>| match answer {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure(Failure::Other),
    };
    let tried = Avoid::default();
    let carried = tried.clone();
    let mut service = BalanceService::plain(pool.clone(), judge)
        .key(|request: &i32| Some(request.to_be_bytes().to_vec().into()))
        .avoid(move |_| Some(carried.clone()));
    assert_eq!(
        service.call(8).now_or_never(),
        Some(Err(BalanceError::Service("division by zero")))
    );
    assert_eq!(service.call(8).now_or_never(), Some(Ok(4)));
    assert_eq!(tried.tried(), ["a", "b"].map(EndpointId::from));
    assert_eq!(
        policy.keys.lock().unwrap()[..],
        [Some(vec![0, 0, 0, 8]), Some(vec![0, 0, 0, 8])]
    );
    let endpoints = pool.status().endpoints;
    assert_eq!((endpoints[0].failed, endpoints[1].succeeded), (1, 1));
}

#[test]
fn a_page_says_whether_an_endpoint_is_well() {
    let setting = Setting::new([
        OK,
        FAILED,
        REFUSED,
        Sends(&[Data("x"), Breaks]),
        NeverReady(ErrorKind::Other),
    ]);
    let check = http_check("/health".parse().unwrap());
    let mut answers = Vec::new();
    for id in ["a", "b", "c", "d", "e"] {
        setting
            .pool
            .status()
            .endpoints
            .iter()
            .for_each(|endpoint| assert!(setting.pool.drain(&endpoint.id)));
        setting.pool.enable(id);
        let lease = setting.pool.pick(&outgrow::balance::Request::new()).unwrap();
        answers.push(setting.world.run(check(&lease)).map_err(|error| error.to_string()));
    }
    assert_eq!(answers[0], Ok(()));
    assert_eq!(answers[1], Err("the status is 500 Internal Server Error".into()));
    assert!(answers[2..].iter().all(Result::is_err));
    assert!(setting.seen.lock().unwrap().iter().all(|uri| uri == "/health"));
}

/// What spawned tasks need of a stack.
#[test]
fn a_stack_is_clone_send_and_sync() {
    fn holds<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sends<T: Send>(_: &T) {}
    let setting = Setting::new([OK]);
    let mut service = setting.retries().layer(setting.service());
    holds(&service);
    sends(&service.call(get("/")));
    sends(&setting.service().call(get("/")));
}

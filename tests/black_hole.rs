//! A server that fails at once looks idle, and so draws requests, to whoever goes by load alone. Real servers and clients.
#![cfg(feature = "tower")]
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

#[path = "../examples/servers/mod.rs"]
mod servers;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use outgrow::balance::tower::{BalanceLayer, BalanceService, RetryLayer, failure_of, http_check};
use outgrow::balance::{Adaptive, Balancer, Endpoint, EndpointStatus, Failure, Pool, PowerOfTwo};
use servers::{Server, Tally, drive};
use std::error::Error;
use std::time::Duration;
use tonic::transport::Channel;
use tower_layer::Layer;
use tower_service::Service;

const SERVERS: usize = 20;

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Twenty servers, of which one fails at once.
async fn servers() -> Vec<Server> {
    let mut servers = vec![
        Server::answering(StatusCode::INTERNAL_SERVER_ERROR, Duration::ZERO)
            .await
            .unwrap(),
    ];
    while servers.len() < SERVERS {
        servers.push(
            Server::answering(StatusCode::OK, Duration::from_millis(3))
                .await
                .unwrap(),
        );
    }
    servers
}

fn pool<B: Balancer>(policy: B, servers: &[Server]) -> Pool<B, Uri> {
    let endpoints = servers.iter().map(|server| {
        let address = server.address.to_string();
        Endpoint::new(address.clone()).target(format!("http://{address}/").parse().unwrap())
    });
    Pool::builder(policy).endpoints(endpoints).build()
}

/// Sends requests through `stack` for two seconds.
async fn load<S, Answer>(stack: S) -> [Tally; 2]
where
    S: Service<Request<Full<Bytes>>, Response = Response<Answer>> + Clone + Send + 'static,
    S::Future: Send,
    Answer: Body<Data: Send, Error: Send> + Send,
{
    drive(move || {
        let mut stack = stack.clone();
        async move {
            let Ok(response) = stack.call(Request::new(Full::default())).await else {
                return false;
            };
            response.status().is_success() && response.into_body().collect().await.is_ok()
        }
    })
    .await
}

/// What became of the server that fails, of twenty.
async fn outcome<B: Balancer>(policy: B) -> EndpointStatus {
    let servers = servers().await;
    let pool = pool(policy, &servers);
    let [first, later] = load(BalanceLayer::new(pool.clone()).layer(client())).await;
    assert!(later.sent > 100, "{later:?}");
    assert!(later.failed * 100 < later.sent, "{later:?}");
    let bad = servers[0].address.to_string();
    let endpoints = pool.status().endpoints;
    let bad = endpoints.into_iter().find(|endpoint| *endpoint.id == *bad).unwrap();
    assert_eq!((bad.succeeded, bad.failed), (0, first.failed + later.failed), "{bad:?}");
    bad
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_of_twenty_that_fails_at_once_is_soon_out() {
    let bad = outcome(PowerOfTwo::default()).await;
    // Five in a row, and what was in flight at the fifth.
    assert!(bad.ejections == 1 && (5..=13).contains(&bad.failed), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adaptive_policy_sees_through_it_before_it_is_ejected() {
    let bad = outcome(Adaptive::default()).await;
    assert!((1..=13).contains(&bad.failed), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_retries_no_request_fails() {
    let servers = servers().await;
    let stack = RetryLayer::new().layer(BalanceLayer::new(pool(Adaptive::default(), &servers)).layer(client()));
    let [first, later] = load(stack).await;
    assert!(first.sent > 100 && later.sent > 100);
    assert_eq!((first.failed, later.failed), (0, 0));
}

#[tokio::test]
async fn a_page_of_a_real_server_says_whether_it_is_well() {
    let well = Server::answering(StatusCode::OK, Duration::ZERO).await.unwrap();
    let failing = Server::answering(StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO)
        .await
        .unwrap();
    for (server, healthy) in [(&well, true), (&failing, false)] {
        let check = http_check(format!("http://{}/health", server.address).parse().unwrap());
        assert_eq!(check(&Endpoint::new("a").target(client())).await.is_ok(), healthy);
    }
}

#[tokio::test]
async fn a_refused_connection_is_known_as_one_whoever_was_refused() {
    // A port that was free a moment ago, and at which nobody listens any more.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let uri: Uri = format!("http://{nobody}/").parse().unwrap();

    let request = Request::get(uri.clone()).body(Full::<Bytes>::default()).unwrap();
    let by_hyper = client().call(request).await.unwrap_err();
    let by_reqwest = reqwest::get(uri.to_string()).await.unwrap_err();
    let pool = Pool::builder(Adaptive::default())
        .endpoints([Endpoint::new("a").target(Channel::builder(uri).connect_lazy())])
        .build();
    let request = Request::new(tonic::body::Body::empty());
    let by_tonic = BalanceService::http(pool.clone()).call(request).await.unwrap_err();
    let errors: [&(dyn Error + 'static); 3] = [&by_hyper, &by_reqwest, &by_tonic];
    assert_eq!(errors.map(failure_of), [Failure::Connect; 3]);
    assert_eq!(pool.status().endpoints[0].failed, 1);
}

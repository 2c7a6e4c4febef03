//! hyper-util's client behind a balancer: one client for all servers, of which one fails at once.
//!
//! The layer at the bottom picks a server for each request and writes its address into the request; the client keeps the
//! connections. The layer above sends what failed to another server, so that no request fails.
//!
//! `cargo run --example balance_hyper --features tower`
#![allow(clippy::disallowed_methods, reason = "a program on a runtime, with real servers")]

mod servers;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use outgrow::balance::tower::{BalanceLayer, RetryLayer};
use outgrow::balance::{Endpoint, Pool, PowerOfTwo};
use servers::{Server, drive, report};
use std::error::Error;
use tower_layer::Layer;
use tower_service::Service;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = Server::three().await?;
    let endpoints = servers.each_ref().map(|server| {
        let address = server.address.to_string();
        let target = Uri::builder()
            .scheme("http")
            .authority(address.as_str())
            .path_and_query("/")
            .build();
        target.map(|target| Endpoint::new(address).target(target))
    });
    let endpoints = endpoints.into_iter().collect::<Result<Vec<_>, _>>()?;
    let pool = Pool::builder(PowerOfTwo::default()).endpoints(endpoints).build();

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let stack = RetryLayer::new().layer(BalanceLayer::new(pool.clone()).layer(client));

    let tallies = drive(move || {
        let mut stack = stack.clone();
        async move {
            let Ok(response) = stack.call(Request::new(Full::default())).await else {
                return false;
            };
            // The server's lease lasts until the body has been read.
            response.status().is_success() && response.into_body().collect().await.is_ok()
        }
    })
    .await;
    report(&pool.status(), &tallies);
    let [first, later] = tallies;
    assert!(first.sent > 100 && later.sent > 100, "{tallies:?}");
    assert_eq!(
        first.failed + later.failed,
        0,
        "what the bad server failed was sent to another"
    );
    Ok(())
}

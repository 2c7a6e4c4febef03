//! reqwest behind a balancer, by hand: pick, send to the address, say how it went. One of three servers fails at once.
//!
//! (`pool.caller()` does the same with time limits, retries and hedges.)
//!
//! `cargo run --example balance_reqwest --features tower`
#![allow(clippy::disallowed_methods, reason = "a program on a runtime, with real servers")]

mod servers;

use outgrow::balance::{Endpoint, Failure, Pool, PowerOfTwo, Request};
use reqwest::{Client, Url};
use servers::{Server, drive, report};
use std::error::Error;
use std::net::SocketAddr;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = Server::three().await?;
    let pool = Pool::builder(PowerOfTwo::default())
        .endpoints(servers.each_ref().map(|server| Endpoint::from(server.address)))
        .build();
    let client = Client::new();
    let page = Url::parse("http://hello.internal/greeting?to=everybody")?;

    let tallies = drive({
        let pool = pool.clone();
        move || {
            let (client, pool, page) = (client.clone(), pool.clone(), page.clone());
            async move { get(&client, &pool, page).await.is_ok() }
        }
    })
    .await;
    report(&pool.status(), &tallies);
    let [first, later] = tallies;
    assert!(first.sent > 100 && later.sent > 100, "{tallies:?}");
    assert!(later.failed * 100 <= later.sent, "the bad server is out: {tallies:?}");
    Ok(())
}

/// Fetches a page from one of the servers.
async fn get(
    client: &Client,
    pool: &Pool<PowerOfTwo, SocketAddr>,
    mut page: Url,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let lease = pool.pick(&Request::new())?;
    page.set_ip_host(lease.target.ip())
        .map_err(|()| "the page has no host")?;
    page.set_port(Some(lease.target.port()))
        .map_err(|()| "the page has no port")?;
    let answer = async { client.get(page).send().await?.error_for_status()?.text().await };
    match answer.await {
        Ok(text) => {
            lease.succeed();
            Ok(text)
        }
        Err(error) => {
            lease.fail(match &error {
                error if error.is_connect() => Failure::Connect,
                error if error.is_timeout() => Failure::Timeout,
                error if error.is_status() => Failure::Response,
                _ => Failure::Other,
            });
            Err(error.into())
        }
    }
}

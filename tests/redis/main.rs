//! A real Redis server, started by each test: the store's contract on it, and what happens when it is slow, killed, or
//! holds what it should not; and two processes that tell each other over it what they wrote.
#![allow(clippy::disallowed_methods, reason = "the test acts as the outside world")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/redis.rs"]
mod server;
mod store;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../examples/swap_store.rs"]
mod swap_store;
mod tiered;

use outgrow::store::RedisStore;
use server::Server;
use std::time::Duration;

/// A server for the test called `name`, unless this machine has none.
#[track_caller]
fn server(name: &str) -> Option<Server> {
    let program = support::need("redis-server")?;
    Some(Server::start(&program, name))
}

/// Runs `test` on a tokio runtime of its own.
fn on_tokio<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// A store that waits longer than any stall of a busy machine.
async fn connect(server: &Server, prefix: &str) -> RedisStore {
    let builder = RedisStore::builder(server.url()).prefix(prefix.to_owned());
    builder.timeout(Duration::from_secs(20)).connect().await.unwrap()
}

#[test]
fn the_shop_of_the_example_runs_on_it() {
    let Some(server) = server("shop") else { return };
    on_tokio(async { swap_store::run(Some(&server.url())).await.unwrap() });
    // What is left of it: the counter of versions, and nothing that grows.
    assert_eq!(server.tell("DBSIZE"), ":1\r\n");
}

//! A pool that follows its endpoints: any stream, a file that people edit, a question that is asked again; in virtual time.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

mod file;
mod follow;
mod poll;

use outgrow::balance::discover::DiscoveryStatus;
use outgrow::balance::{Balancer, Endpoint, Pool, RoundRobin};
use outgrow::env::Env;
use std::time::Duration;

fn pool(env: &Env) -> Pool<RoundRobin> {
    Pool::builder(RoundRobin::default()).env(env.clone()).build()
}

fn ids<B: Balancer, T: Send + Sync + 'static>(pool: &Pool<B, T>) -> Vec<String> {
    pool.status().endpoints.iter().map(|e| e.id.to_string()).collect()
}

fn status<B: Balancer>(pool: &Pool<B>) -> DiscoveryStatus {
    pool.status().discovery.unwrap()
}

fn set(names: &str) -> Vec<Endpoint> {
    names.split_whitespace().map(Endpoint::new).collect()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

//! The crate's own blocks, as parts of a system.

use super::{Block, BlockStatus, Health};
use crate::balance::{Balancer, EndpointState, EndpointStatus, Pool};
use crate::cache::{Cache, CacheStats, CachedStore};
use crate::env::Env;
use crate::store::{Engine, Feed, LocalStore, Store};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::hash::Hash;

/// Down when no endpoint may be picked, degraded while one is ejected or fails its checks. Drains every endpoint, also those
/// that join meanwhile.
impl<B: Balancer, T: Send + Sync + 'static> Block for Pool<B, T> {
    fn kind(&self) -> &'static str {
        "pool"
    }

    fn status(&self) -> BlockStatus {
        let status = Pool::status(self);
        let count = |state| {
            status
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.state == state)
                .count()
        };
        let (active, ejected) = (count(EndpointState::Active), count(EndpointState::Ejected));
        let unhealthy = count(EndpointState::Unhealthy);
        let health = match (active, ejected + unhealthy) {
            (0, _) => BlockStatus::new(Health::Down).because("no endpoint may be picked"),
            (_, 0) => BlockStatus::new(Health::Ready),
            (_, out) => BlockStatus::new(Health::Degraded).because(format!("{out} endpoints are ejected or unhealthy")),
        };
        let in_flight: u32 = status.endpoints.iter().map(|endpoint| endpoint.in_flight).sum();
        health
            .figure("active", active as f64)
            .figure("ejected", ejected as f64)
            .figure("unhealthy", unhealthy as f64)
            .figure("in_flight", in_flight.into())
            .figure("refused", status.refused as f64)
    }

    fn drain<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, ()> {
        async move {
            loop {
                let endpoints = Pool::status(self).endpoints;
                let takes_none = |endpoint: &EndpointStatus| endpoint.state == EndpointState::Draining;
                if endpoints
                    .iter()
                    .all(|endpoint| takes_none(endpoint) && endpoint.in_flight == 0)
                {
                    return;
                }
                for endpoint in endpoints.iter().filter(|endpoint| !takes_none(endpoint)) {
                    Pool::drain(self, &endpoint.id);
                }
                for endpoint in endpoints {
                    Pool::drained(self, &endpoint.id).await;
                }
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        nothing()
    }
}

/// Always ready: there is nothing to drain, and nothing to close.
impl<K, V> Block for Cache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn kind(&self) -> &'static str {
        "cache"
    }

    fn status(&self) -> BlockStatus {
        cached(BlockStatus::new(Health::Ready), &self.stats())
    }

    fn drain<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, ()> {
        nothing()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        nothing()
    }
}

/// Degraded while it does not follow the feed, since reads then go to the store below.
impl<S: Store + Feed + 'static> Block for CachedStore<S> {
    fn kind(&self) -> &'static str {
        "cached store"
    }

    fn status(&self) -> BlockStatus {
        let stats = self.stats();
        let status = match stats.following {
            true => BlockStatus::new(Health::Ready),
            false => BlockStatus::new(Health::Degraded).because("the feed is not followed: reads bypass the cache"),
        };
        cached(status, &stats.cache)
            .figure("lag_records", stats.lag() as f64)
            .figure("bypassed", stats.bypassed as f64)
            .figure("breaks", stats.breaks as f64)
    }

    fn drain<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, ()> {
        nothing()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        CachedStore::close(self).boxed()
    }
}

/// Always ready, and nothing to stop: every call is over when it returns.
impl<E: Engine + 'static> Block for LocalStore<E> {
    fn kind(&self) -> &'static str {
        "local store"
    }

    fn status(&self) -> BlockStatus {
        BlockStatus::new(Health::Ready)
            .figure("applied", self.engine().applied().seq as f64)
            .figure("version", self.engine().version().0 as f64)
    }

    fn drain<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, ()> {
        nothing()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        nothing()
    }
}

fn cached(status: BlockStatus, stats: &CacheStats) -> BlockStatus {
    status
        .figure("entries", stats.entries as f64)
        .figure("capacity", stats.capacity as f64)
        .figure("hits", stats.hits as f64)
        .figure("misses", stats.misses as f64)
        .figure("evictions", stats.evictions as f64)
}

fn nothing<'a>() -> BoxFuture<'a, ()> {
    ready(()).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Endpoint, Request, RoundRobin};
    use crate::system::System;
    use futures::executor::block_on;
    use std::time::Duration;

    #[test]
    fn a_pool_drains_when_its_leases_have_ended() {
        let pool = Pool::builder(RoundRobin::default())
            .endpoints(["a", "b"].map(Endpoint::new))
            .build();
        let system = System::builder()
            .env(Env::system())
            .block("api", pool.clone())
            .build()
            .unwrap();
        assert_eq!(system.status().health, Health::Ready);
        let lease = pool.pick(&Request::new()).unwrap();
        let held = block_on(system.shut_down(Duration::from_millis(30)));
        assert!(!held.blocks[0].drained);
        assert!(pool.pick(&Request::new()).is_err());
        lease.succeed();
        block_on(Block::drain(&pool, &Env::system()));
        assert_eq!(system.status().health, Health::Down);
    }

    #[test]
    fn a_cached_store_that_is_closed_is_degraded() {
        block_on(async {
            let store = CachedStore::builder(LocalStore::in_memory()).build().await.unwrap();
            let system = System::builder().block("users", store).build().unwrap();
            assert_eq!(system.status().health, Health::Ready);
            assert!(system.shut_down(Duration::from_secs(5)).await.is_clean());
            assert_eq!(system.status().health, Health::Degraded);
        });
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_status_is_one_document() {
        let system = System::builder()
            .block("users", LocalStore::in_memory())
            .build()
            .unwrap();
        let json = serde_json::to_value(system.status()).unwrap();
        assert_eq!(json["health"], "ready");
        assert_eq!(json["blocks"][0]["name"], "users");
        assert_eq!(json["blocks"][0]["figures"]["applied"], 0.0);
        assert_eq!(
            serde_json::from_value::<crate::system::SystemStatus>(json).unwrap(),
            system.status()
        );
    }
}

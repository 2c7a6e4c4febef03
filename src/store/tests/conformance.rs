//! The crate's own stores and engines, and what decorates them, pass the suites.

use super::script::{Scripted, Step};
use super::{conforms, local};
use crate::env::Env;
use crate::sim::World;
use crate::store::suite::{self, Subject};
use crate::store::{
    Batch, BoxStore, Capability, Entry, Error, Feature, LocalStore, MemoryEngine, Receipt, Result, RetryPolicy, Scan,
    Store, StoreExt,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;

/// Runs the suite over what `make` puts around a store in memory.
fn decorated(make: impl Fn(LocalStore<MemoryEngine>, Env) -> BoxStore) {
    conforms(&|env| ready(make(local(env), env.clone())).boxed());
}

#[test]
fn memory_engine() {
    suite::engine(MemoryEngine::new);
}

#[test]
fn local_shared_and_boxed() {
    decorated(|store, _| store.boxed());
    decorated(|store, _| Arc::new(store.boxed()).boxed());
}

#[test]
fn each_decorator() {
    let second = Duration::from_secs(1);
    let policy = RetryPolicy::default();
    decorated(|store, _| store.prefixed("user/").boxed());
    decorated(|store, _| store.prefixed("").boxed());
    decorated(|store, _| store.prefixed(vec![u8::MAX, u8::MAX]).boxed());
    decorated(|store, env| store.timed(second).env(env).boxed());
    decorated(|store, env| store.retried(policy).env(env).boxed());
}

#[test]
fn decorators_over_a_store_that_takes_its_time() {
    // Every call waits, so that futures are polled, and dropped, amid the work of each layer.
    let stall = Step::Stall(Duration::from_millis(1));
    decorated(|_, env| {
        let slow = Scripted::new(&env, vec![stall.clone(); 20_000]);
        let timed = slow.timed(Duration::from_secs(1)).env(env.clone());
        timed.retried(RetryPolicy::default()).env(env).prefixed("a").boxed()
    });
}

#[test]
fn a_decorated_feed() {
    let world = World::new(1);
    let env = world.env();
    world.run(suite::feed(async || {
        let sleeper = env.clone();
        let timed = Arc::new(local(&env)).timed(Duration::from_secs(1)).env(env.clone());
        let store = timed.retried(RetryPolicy::default()).env(env.clone());
        Subject::new(store, move |by| sleeper.sleep(by)).keeps(7)
    }));
}

/// A store that can do less than the one inside, to prove that the suite knows what to ask of such.
struct Without {
    inner: BoxStore,
    missing: Vec<Feature>,
}

impl Without {
    fn lacks(&self, feature: Feature) -> bool {
        self.missing.contains(&feature)
    }

    /// What a batch needs that is missing.
    fn needs(&self, batch: &Batch) -> Option<Feature> {
        let missing = self.capability().missing(batch.needs());
        missing.iter().next()
    }
}

impl Store for Without {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        self.inner.get_many(keys).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        if self.lacks(Feature::Scans) {
            return stream::iter([Err(Error::Unsupported(Feature::Scans))]).boxed();
        }
        self.inner.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        if let Some(feature) = self.needs(&batch) {
            return Err(Error::Unsupported(feature));
        }
        let mut receipt = self.inner.commit(batch).await?;
        if self.lacks(Feature::Tokens) {
            receipt.at = crate::store::Token::new();
        }
        Ok(receipt)
    }

    fn capability(&self) -> Capability {
        let all = self.inner.capability();
        self.missing.iter().fold(all, |all, missing| all.without(*missing))
    }
}

#[test]
fn stores_that_can_do_less() {
    let features = [
        Feature::AtomicBatches,
        Feature::Expectations,
        Feature::Ttl,
        Feature::Counters,
        Feature::Import,
        Feature::Cursors,
        Feature::Scans,
        Feature::Tokens,
    ];
    let each = features.iter().map(|feature| vec![*feature]);
    for missing in each.chain([features.to_vec()]) {
        decorated(|store, _| {
            let less = Without {
                inner: store.boxed(),
                missing: missing.clone(),
            };
            less.boxed()
        });
    }
}

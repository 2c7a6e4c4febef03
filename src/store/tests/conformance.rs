//! The crate's own stores and engines, and what decorates them, pass the suites.

use super::script::{Scripted, Step};
use crate::env::Env;
use crate::sim::World;
use crate::store::suite::{self, Subject};
use crate::store::{
    Batch, BoxStore, Capability, Entry, Error, Feature, LocalStore, MemoryEngine, Op, Receipt, Result, RetryPolicy,
    Scan, Store, StoreExt,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;

fn local(env: &Env) -> LocalStore<MemoryEngine> {
    LocalStore::builder(MemoryEngine::new())
        .env(env.clone())
        .feed(7)
        .build()
}

/// Runs the suite of stores over what `make` puts around a local store.
fn conforms<S: Store>(make: impl Fn(LocalStore<MemoryEngine>, &Env) -> S) {
    let world = World::new(1);
    let env = world.env();
    world.run(suite::store(async || {
        let sleeper = env.clone();
        Subject::new(make(local(&env), &env), move |by| sleeper.sleep(by))
    }));
}

#[test]
fn memory_engine() {
    suite::engine(MemoryEngine::new);
}

#[test]
fn local_store() {
    conforms(|store, _| store);
    let world = World::new(1);
    let env = world.env();
    world.run(suite::feed(async || {
        let sleeper = env.clone();
        Subject::new(local(&env), move |by| sleeper.sleep(by)).keeps(7)
    }));
}

#[test]
fn shared_and_boxed() {
    conforms(|store, _| Arc::new(store));
    conforms(|store, _| store.boxed());
    conforms(|store, _| Arc::new(store.boxed()).boxed());
}

#[test]
fn decorated() {
    let second = Duration::from_secs(1);
    let policy = RetryPolicy::default();
    conforms(|store, _| store.prefixed("user/"));
    conforms(|store, _| store.prefixed(""));
    conforms(|store, _| store.prefixed(vec![u8::MAX, u8::MAX]));
    conforms(|store, env| store.timed(second).env(env.clone()));
    conforms(|store, env| store.retried(policy).env(env.clone()));
    conforms(|store, env| {
        store
            .timed(second)
            .env(env.clone())
            .retried(policy)
            .env(env.clone())
            .prefixed("a")
            .boxed()
    });
    let world = World::new(1);
    let env = world.env();
    world.run(suite::feed(async || {
        let sleeper = env.clone();
        let store = Arc::new(local(&env)).timed(second).env(env.clone());
        Subject::new(store.retried(policy).env(env.clone()), move |by| sleeper.sleep(by)).keeps(7)
    }));
}

#[test]
fn decorated_over_a_store_that_takes_its_time() {
    // Every call waits, so that futures are polled, and dropped, amid the work of each layer.
    let stall = Step::Stall(Duration::from_millis(1));
    let world = World::new(1);
    let env = world.env();
    world.run(suite::store(async || {
        let sleeper = env.clone();
        let slow = Scripted::new(&env, vec![stall.clone(); 20_000]);
        let timed = slow.timed(Duration::from_secs(1)).env(env.clone());
        let store = timed.retried(RetryPolicy::default()).env(env.clone()).prefixed("a");
        Subject::new(store, move |by| sleeper.sleep(by))
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
        let ops = batch.ops();
        let needs = [
            (
                Feature::Ttl,
                ops.iter().any(|op| matches!(op, Op::Put { ttl: Some(_), .. })),
            ),
            (Feature::Counters, ops.iter().any(|op| matches!(op, Op::Add { .. }))),
            (Feature::Import, ops.iter().any(|op| matches!(op, Op::Import { .. }))),
            (Feature::Expectations, !batch.expectations().is_empty()),
            (Feature::Cursors, !batch.cursors().is_empty()),
            (Feature::AtomicBatches, ops.len() > 1),
        ];
        let missing = needs
            .into_iter()
            .find(|(feature, needed)| *needed && self.lacks(*feature));
        missing.map(|(feature, _)| feature)
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
        conforms(|store, _| Without {
            inner: store.boxed(),
            missing: missing.clone(),
        });
    }
}

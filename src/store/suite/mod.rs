//! What every implementation of the traits has to do, as functions that any of them can run (feature `suite`).
//!
//! [`store`] takes a [`Store`] through its contract, [`feed`] a store with a [`Feed`](super::Feed), and
//! [`engine`] an [`Engine`](super::Engine). Each wants a fresh subject for every case, so it is given the way to make
//! one. What a store declares in its [`Capability`](super::Capability) has to work, and the rest has to answer
//! [`Error::Unsupported`] and write nothing.
//!
//! ```
//! use outgrow::sim::World;
//! use outgrow::store::suite::{self, Subject};
//! use outgrow::store::{LocalStore, MemoryEngine};
//!
//! let world = World::new(1);
//! let env = world.env();
//! let make = async || {
//!     let store = LocalStore::builder(MemoryEngine::new()).env(env.clone()).build();
//!     let env = env.clone();
//!     Subject::new(store, move |by| env.sleep(by))
//! };
//! world.run(suite::store(make));
//! world.run(suite::feed(make));
//! suite::engine(MemoryEngine::new);
//! ```
//!
//! A case that fails panics and says what it saw. What the suites do not prove: durability, which takes a crash, and
//! what happens when a medium fails.

mod counters;
mod engine;
mod feed;
mod reads;
mod time;
mod writes;

pub use self::engine::engine;
pub use self::feed::feed;

use super::{Batch, BoxStore, Entry, Error, Feature, Receipt, Result, Scan, Store, StoreExt, Version};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use futures::stream::TryStreamExt;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A store to be examined, with power over the time that it lives in.
pub struct Subject<S> {
    store: S,
    advance: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    keeps: Option<usize>,
}

impl<S> Subject<S> {
    /// An empty `store`, and how to let so much of its time pass: for a store on the operating system's clock that is
    /// a sleep, of two seconds at most for each case about time.
    pub fn new<F, Fut>(store: S, advance: F) -> Subject<S>
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Subject {
            store,
            advance: Box::new(move |by| advance(by).boxed()),
            keeps: None,
        }
    }

    /// For [`feed`]: the store keeps so many records for followers to catch up on. Default: unknown, and what happens
    /// to a follower that falls behind is not examined.
    #[must_use]
    pub fn keeps(mut self, records: usize) -> Subject<S> {
        self.keeps = Some(records);
        self
    }

    /// The same subject as another type.
    fn map<T>(self, to: impl FnOnce(S) -> T) -> Subject<T> {
        Subject {
            store: to(self.store),
            advance: self.advance,
            keeps: self.keeps,
        }
    }

    async fn advance(&self, by: Duration) {
        (self.advance)(by).await;
    }
}

impl<S> fmt::Debug for Subject<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("keeps", &self.keeps)
            .finish_non_exhaustive()
    }
}

/// Makes a fresh store for a case. The cases are no generics: they are compiled once, with the crate, and not again for
/// each type that is taken through them.
type Make<'a, S = BoxStore> = dyn Fn() -> LocalBoxFuture<'a, Subject<S>> + 'a;

/// Takes the stores that `make` makes, one for each case, through the contract of [`Store`].
///
/// # Panics
/// When the store breaks the contract.
pub async fn store<S: Store + 'static>(make: impl AsyncFn() -> Subject<S>) {
    all(&|| async { make().await.map(BoxStore::new) }.boxed_local()).await;
}

async fn all(make: &Make<'_>) {
    reads::what_is_written_is_read(&make().await.store).await;
    reads::many_come_in_order(&make().await.store).await;
    reads::any_bytes_are_kept(&make().await.store).await;
    reads::scans_agree_with_a_list(&make().await.store).await;
    reads::a_scan_that_writes_cross_goes_on(&make().await.store).await;
    writes::versions_rise(&make().await.store).await;
    writes::tokens_rise(&make().await.store).await;
    writes::batches_are_atomic(&make().await.store).await;
    writes::operations_happen_in_order(&make().await.store).await;
    writes::expectations_hold_or_nothing_happens(&make().await.store).await;
    writes::one_of_many_wins(&make().await.store).await;
    writes::imports_keep_their_age(&make().await.store).await;
    writes::cursors_move_with_their_batch(&make().await.store).await;
    writes::reserved_keys_are_refused(&make().await.store).await;
    writes::dropped_commits_are_whole(make).await;
    counters::counters_count(&make().await.store).await;
    counters::nonsense_is_refused(&make().await.store).await;
    counters::concurrent_adds_all_count(&make().await.store).await;
    time::values_expire(&make().await).await;
    time::what_expires_makes_room(&make().await).await;
    time::counters_keep_their_expiry(&make().await).await;
    time::imports_expire(&make().await).await;
}

/// The value at `key` as text.
async fn text(store: &BoxStore, key: &[u8]) -> Option<String> {
    let entry = read(store, key).await?;
    Some(String::from_utf8_lossy(&entry.value).into_owned())
}

async fn read(store: &BoxStore, key: &[u8]) -> Option<Entry> {
    store.read(key).await.expect("a read works")
}

async fn put(store: &BoxStore, key: &'static str, value: &'static str) -> Receipt {
    store.put(key, value).await.expect("a put works")
}

async fn commit(store: &BoxStore, batch: Batch) -> Receipt {
    store.commit(batch).await.expect("a batch of declared features commits")
}

async fn scan(store: &BoxStore, scan: Scan) -> Vec<(Bytes, Entry)> {
    let entries = store.scan(scan).try_collect().await;
    entries.expect("a scan works")
}

/// Checks that a store without `feature` says so, and keeps away from `key`.
async fn refuses(store: &BoxStore, feature: Feature, key: &'static str, batch: Batch) {
    let before = read(store, key.as_bytes()).await;
    let answer = store.commit(batch).await;
    assert!(
        matches!(answer, Err(Error::Unsupported(named)) if named == feature),
        "a batch that needs {feature}, which is not declared, answered {answer:?}"
    );
    assert_eq!(read(store, key.as_bytes()).await, before, "a refused batch wrote");
}

fn is_invalid<T>(answer: &Result<T>) -> bool {
    matches!(answer, Err(Error::Invalid { .. }))
}

fn version(entry: Option<&Entry>) -> Option<Version> {
    entry.map(|entry| entry.version)
}

//! Values under keys: the traits that an application calls, that a node implements, and that a follower reads.
//!
//! [`Store`] is what an application calls, whether the data is local, replicated, sharded or cached. [`Engine`] is what
//! one node keeps. [`Feed`] is any store's ordered stream of changes, which caches, views and resharding follow.
//! [`LocalStore`] makes a store with a feed out of an engine; over a [`MemoryEngine`] it is the smallest store there is:
//!
//! ```
//! use outgrow::store::{LocalStore, StoreExt};
//! # futures::executor::block_on(async {
//! let store = LocalStore::in_memory();
//! let same = store.clone();
//! let receipt = store.put("user/7", "Ada").await?;
//! let entry = same.read(b"user/7").await?.expect("it was just written");
//! assert_eq!((&entry.value[..], entry.version), (&b"Ada"[..], receipt.version));
//! # Ok::<(), outgrow::store::Error>(()) }).unwrap();
//! ```
//!
//! A batch travels in three forms. The caller writes a [`Batch`], with preconditions and times to live. The store that
//! accepts it resolves it into a [`Record`]: absolute expiries, sums, versions. Logs, feeds and engines carry records
//! only, so nothing is decided twice. How a follower names its place is a [`Position`]; how a session names what it has
//! seen, across many logs, is a [`Token`].

mod batch;
mod boxed;
mod capability;
mod engine;
mod error;
mod ext;
mod feed;
mod local;
mod memory;
mod position;
mod prefixed;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod resolve;
mod retried;
mod retry;
mod scan;
#[cfg(feature = "suite")]
pub mod suite;
#[cfg(test)]
pub(crate) mod tests;
mod timed;
mod token;

pub use batch::{Batch, Expect, Op};
pub use boxed::BoxStore;
pub use capability::{Capability, Feature};
pub use engine::{Engine, Snapshot};
pub use error::{Effect, Error, Result, Retry};
pub use ext::StoreExt;
pub(crate) use feed::FeedBuffer;
pub use feed::{Feed, Follower};
pub(crate) use local::scan_pages;
pub use local::{LocalStore, LocalStoreBuilder};
pub use memory::MemoryEngine;
pub use position::{LogId, Position, Version};
pub use prefixed::Prefixed;
pub use record::{Change, Changed, Record};
#[cfg(feature = "redis")]
pub use redis::{RedisStore, RedisStoreBuilder};
#[cfg(feature = "redis")]
pub(crate) use resolve::MAX_IMPORTED;
pub(crate) use resolve::{cursor_key, cursor_name, is_reserved, resolve};
pub use retried::Retried;
pub use retry::RetryPolicy;
pub use scan::Scan;
pub use timed::Timed;
pub use token::Token;

use crate::env::WallTime;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::future::Future;
use std::sync::Arc;

/// Values under keys, as an application sees them.
///
/// Keys are any bytes but those beginning with `\0outgrow/`, which the crate keeps for itself. Convenience is in
/// [`StoreExt`]; the boxed form is [`BoxStore`]; `Arc<S>` is a store when `S` is.
///
/// Every future may be dropped at any time: a read leaves nothing behind, and a commit is then as if it had failed with
/// [`Effect::Unknown`].
pub trait Store: Send + Sync {
    /// Reads one key.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Entry>>> + Send;

    /// Reads several keys, in their order. Each is as good as a [`get`](Store::get); together they are not a snapshot
    /// unless the implementation says so.
    fn get_many(&self, keys: &[Bytes]) -> impl Future<Output = Result<Vec<Option<Entry>>>> + Send;

    /// Walks a range. Each page is consistent in itself; isolation between pages is stated by the implementation.
    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>>;

    /// Writes a batch as one: all of it or nothing.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Receipt>> + Send;

    /// What this store can do.
    fn capability(&self) -> Capability;
}

/// A stored value with its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// When it was written, in the order of the store that accepted it.
    pub version: Version,
    /// When it ceases to exist; never when `None`.
    pub expires: Option<WallTime>,
}

impl Entry {
    /// Whether it still exists at `now`.
    #[must_use]
    pub fn is_live(&self, now: WallTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// What a commit leaves in the caller's hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The newest version among what it wrote: one for the whole batch, but for imported entries, which keep theirs;
    /// zero when it wrote nothing.
    pub version: Version,
    /// Where it stands in the log: a session that reads under this token sees the write.
    pub at: Token,
}

impl Receipt {
    /// A receipt for a write of `version` at `at`.
    #[must_use]
    pub fn new(version: Version, at: Token) -> Receipt {
        Receipt { version, at }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Store for Arc<S> {
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Entry>>> + Send {
        (**self).get(key)
    }

    fn get_many(&self, keys: &[Bytes]) -> impl Future<Output = Result<Vec<Option<Entry>>>> + Send {
        (**self).get_many(keys)
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        (**self).scan(scan)
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Receipt>> + Send {
        (**self).commit(batch)
    }

    fn capability(&self) -> Capability {
        (**self).capability()
    }
}

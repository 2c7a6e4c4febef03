//! Remembering: a bounded map in memory, and a store that answers from it.
//!
//! [`Cache`] is the map. It never holds more than its capacity, gives up what is least likely to be asked for again
//! (see [`Policy`]), returns nothing past its time, and loads what is missing once however many ask.
//! [`CachedStore`] puts it before a [`Store`](crate::store::Store) whose [`Feed`](crate::store::Feed) it follows, so
//! that a value is forgotten when it is written, here or elsewhere. [`Tiered`] does that for a store without a feed,
//! which several processes share: they tell each other over an [`InvalidationBus`].
//!
//! ```
//! use outgrow::cache::Cache;
//! use std::time::Duration;
//! # futures::executor::block_on(async {
//! let users: Cache<u64, String> = Cache::builder().capacity(1_000).ttl(Duration::from_secs(300)).jitter(0.1).build()?;
//! let ada = users.get_or_load(&7, |id| async move { Ok::<_, std::io::Error>(format!("user {id}")) }).await?;
//! assert_eq!((ada.as_str(), users.stats().loads), ("user 7", 1));
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! It counts entries, not bytes; it lives in one process and is empty after a restart; and where each answer must be
//! the newest across processes, ask the store, or read under a [`CachedSession`].
//!
//! The hearts are plain data: `s3fifo` chooses who leaves, `shard` keeps entries and their deadlines, `flight` passes
//! one loader among those who wait, `stripes` judges which reads may be kept,
//! `tiered::ear` whether a bus is heard. The rest holds locks and time.

mod arena;
mod budget;
mod builder;
mod bus;
#[allow(clippy::module_inception, reason = "the room is named after its main type")]
mod cache;
mod error;
mod extra;
mod flight;
mod flights;
mod hasher;
mod index;
mod inner;
mod lanes;
mod load;
mod options;
mod pinned;
pub mod policy;
mod remember;
mod removal;
mod settings;
mod shard;
mod slab;
#[allow(dead_code, unused_imports, reason = "the cache's core is about to use it")]
pub(crate) mod snapshot;
mod stats;
mod stored;
mod stripes;
mod tags;
#[cfg(test)]
mod tests;
mod tiered;
mod time;
mod wheel;
mod word;
mod write;

pub use builder::CacheBuilder;
pub use bus::{InvalidationBus, LocalBus, Message, Notice, Origin};
#[cfg(feature = "redis")]
pub use bus::{RedisBus, RedisBusBuilder};
pub use cache::Cache;
pub use error::{Error, LoadError};
pub use hashbrown::Equivalent;
pub use hasher::DefaultHash;
pub use options::InsertOptions;
pub use pinned::Pinned;
pub use removal::{Inserted, Rejected, Removal};
#[cfg(feature = "postcard")]
pub use snapshot::PostcardCodec;
pub use snapshot::{BytesCodec, Encode, SnapshotCodec, SnapshotError};
pub use stats::CacheStats;
pub use stored::{CachedSession, CachedStore, CachedStoreBuilder, CachedStoreStats};
pub use tiered::{Tiered, TieredBuilder, TieredStats};

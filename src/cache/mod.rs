//! Remembering: a bounded map in memory, and stores that answer from it.
//!
//! [`Cache`] is the map. It never holds more than its capacity, by count, by weight or by both; gives up what is least
//! likely to be asked for again (see [`policy`]); returns nothing past its time; and loads what is missing once, however
//! many ask. A hit takes no lock and writes to no memory that threads share.
//!
//! [`CachedStore`] puts it before a [`Store`](crate::store::Store) whose [`Feed`](crate::store::Feed) it follows, so
//! that a value is forgotten when it is written, here or elsewhere. [`Tiered`] does that for a store without a feed,
//! which several processes share: they tell each other over an [`InvalidationBus`].
//!
//! ```
//! use outgrow::cache::Cache;
//! use std::time::Duration;
//! # futures::executor::block_on(async {
//! let users: Cache<u64, String> = Cache::builder().capacity(1_000).ttl(Duration::from_secs(300)).build()?;
//! let ada = users.get_or_load(&7, |id| async move { Ok::<_, std::io::Error>(format!("user {id}")) }).await?;
//! assert_eq!((ada.as_str(), users.stats().loads), ("user 7", 1));
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! It lives in one process: where each answer must be the newest across processes, ask the store, or read under a
//! [`CachedSession`]. A [`snapshot`](Cache::save) carries it over a restart. Whoever comes from another crate finds its
//! calls in [`coming_from`].
//!
//! How it is made, from the ground up: `slab` holds the entries, in slots that never move, found through `index` without
//! a lock (with `word` beside each entry, and `arena` for the memory); `shard` adds what decides about them (an order of the
//! policy's, the deadlines in `wheel`); `budget` counts over all shards; `write` and `plain` put in (and `room` finds room), `remove` takes out; `load`
//! passes one loader among those who wait. What can be decided without a lock or a clock is plain data: the policies,
//! `wheel`, `flight`, `stripes` (which reads may be kept) and `tiered::ear` (whether a bus is heard).

mod arena;
mod budget;
mod builder;
mod bus;
#[allow(clippy::module_inception, reason = "the room is named after its main type")]
mod cache;
pub mod coming_from;
mod entry;
mod error;
mod extra;
mod flight;
mod flights;
mod hasher;
mod index;
mod inner;
mod iter;
mod lanes;
mod load;
#[cfg(feature = "metrics")]
mod metrics;
mod options;
mod patience;
mod pauses;
mod pinned;
mod plain;
pub mod policy;
mod remember;
mod removal;
mod remove;
mod resize;
mod room;
mod save;
mod settings;
mod shard;
mod slab;
pub(crate) mod snapshot;
mod stats;
mod stored;
mod stripes;
mod tags;
#[cfg(test)]
mod tests;
mod ticker;
mod tiered;
mod time;
mod trace;
mod wheel;
mod word;
mod write;

pub use builder::CacheBuilder;
pub use bus::{InvalidationBus, LocalBus, Message, Notice, Origin};
#[cfg(feature = "redis")]
pub use bus::{RedisBus, RedisBusBuilder};
pub use cache::Cache;
pub use entry::{Entry, ModifiedEntry, Op};
pub use error::{Error, LoadError};
pub use hashbrown::Equivalent;
pub use hasher::DefaultHash;
pub use iter::{Iter, Keys};
pub use options::InsertOptions;
pub use pinned::Pinned;
pub use removal::{Inserted, Rejected, Removal};
#[cfg(feature = "postcard")]
pub use snapshot::PostcardCodec;
pub use snapshot::{BytesCodec, Encode, SnapshotCodec, SnapshotError};
pub use stats::CacheStats;
pub use stored::{CachedSession, CachedStore, CachedStoreBuilder, CachedStoreStats};
pub use ticker::Ticker;
pub use tiered::{Tiered, TieredBuilder, TieredStats};

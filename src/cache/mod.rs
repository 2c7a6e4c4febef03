//! Remembering: a bounded map in memory, and a store that answers from it.
//!
//! [`Cache`] is the map. It never holds more than its capacity, gives up what is least likely to be asked for again
//! (see [`Policy`]), returns nothing past its time, and loads what is missing once however many ask.
//! [`CachedStore`] puts it before a [`Store`](crate::store::Store) whose [`Feed`](crate::store::Feed) it follows, so
//! that a value is forgotten when it is written, here or elsewhere.
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
//! It lives in one process, and [`save`](Cache::save) and [`restore`](Cache::restore) carry it over a restart; where each
//! answer must be the newest across processes, ask the store, or read under a [`CachedSession`]. Whoever knows moka or
//! quick_cache finds their calls in [`coming_from`].
//!
//! The hearts are plain data: `s3fifo` chooses who leaves, `shard` keeps entries and their deadlines, `flight` passes
//! one loader among those who wait, `stored::stripes` judges which reads may be kept. The rest holds locks and time.

mod arena;
mod budget;
mod builder;
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
mod load;
#[cfg(feature = "metrics")]
mod metrics;
mod options;
mod pinned;
pub mod policy;
mod removal;
mod resize;
mod save;
mod settings;
mod shard;
mod slab;
pub(crate) mod snapshot;
mod stats;
mod stored;
mod tags;
#[cfg(test)]
mod tests;
mod ticker;
mod time;
mod trace;
mod wheel;
mod word;
mod write;

pub use builder::CacheBuilder;
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

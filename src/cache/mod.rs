//! Remembering: a bounded map in memory, and a store that answers from it.

mod builder;
#[allow(clippy::module_inception, reason = "the room is named after its main type")]
mod cache;
mod error;
mod flight;
mod load;
mod order;
mod s3fifo;
mod shard;
mod stats;
mod stored;
#[cfg(test)]
mod tests;

pub use builder::CacheBuilder;
pub use cache::{Cache, InsertOptions};
pub use error::{Error, LoadError};
pub use order::Policy;
pub use stats::CacheStats;
pub use stored::{CachedSession, CachedStore, CachedStoreBuilder, CachedStoreStats};

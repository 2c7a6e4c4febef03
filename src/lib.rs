//! The scaling building blocks that take a service from one server to millions of users, embedded in the service's
//! own process.
//!
//! A team adds the crate and starts with the embedded defaults: no server to run. When it outgrows one machine it
//! swaps an implementation behind the same trait. There are four verbs, and each has one mechanism:
//!
//! | verb | mechanism | rooms |
//! |---|---|---|
//! | route | pick one of many from an immutable snapshot, then report the outcome | [`balance`], [`replica`], [`shard`], [`geo`] |
//! | keep | one checksummed, group-committed log; state is what replaying it gives | [`queue`], the log of each replica |
//! | copy | follow one ordered [`Feed`](store::Feed) of records, with a durable cursor | [`replica`], [`cache`] |
//! | remember | a bounded cache in memory | [`cache`] |
//!
//! A room imports rooms on lower floors only:
//!
//! ```text
//! floor 5   system     named blocks: one status, ordered drain and shutdown
//! floor 4   shard      routing by key, sharded stores      geo   routing among data centres
//! floor 3   cache      replica      queue
//! floor 2   store      balance      (log)
//! floor 1   env        hash         (sync, codec)
//! beside    sim        a seeded world in virtual time, with faults (feature `sim`)
//! ```
//!
//! Every block takes its time, chance, files and tasks from an [`Env`](env::Env), so the same code runs on the
//! operating system, on a tokio runtime, and in a simulation where one seed decides everything.
//!
//! # Features
//!
//! None is on by default, and the default build pulls in no async runtime.
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` | [`Env::tokio`](env::Env), and `Env::default()` finds the current runtime; `balance::TcpCheck` |
//! | `serde` | `Serialize` for statistics and status |
//! | `json` | queues of whatever serde can serialize, as JSON: `queue::Topic::typed` |
//! | `postcard` | a codec that keeps whatever serde can serialize in a cache's snapshot |
//! | `redis` | a store and an invalidation bus on a Redis server: `store::RedisStore`, `cache::RedisBus` |
//! | `nats` | a queue on the streams of a NATS server or cluster: `queue::JetStreamQueue` |
//! | `dns` | endpoints from DNS, A, AAAA and SRV records: `balance::discover::DnsSource` |
//! | `tower` | the balancer as a tower service, with retries and hedges as a layer: `balance::tower` |
//! | `tracing` | spans of what takes long: a cache's loads, snapshots, changes of size; a queue's sends, settlements, handlers |
//! | `metrics` | statistics, published to the installed recorder of the `metrics` crate |
//! | `geoip` | `geo::GeoIpDatabase`: where a client's address is, from a MaxMind database |
//! | `sim` | the module `sim`: virtual time, machines, disks and faults, to test what is built on the blocks |
//! | `suite` | conformance suites for those who implement a trait of this crate |
//! | `full` | all of them |
#![warn(missing_docs)]
#![forbid(clippy::missing_safety_doc)]

pub mod balance;
pub mod cache;
mod codec;
pub mod env;
pub mod geo;
pub mod hash;
/// Doors for fuzz targets, which live outside the crate: no part of its interface.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod hooks {
    pub use crate::cache::snapshot::hooks::{reseal_entries, sample_snapshot, snapshot};
    pub use crate::log::hooks::{
        ForgedFrame, ForgedRows, ForgedSegment, Judged, entries, forge, judged, recover, rows, sample_segment,
    };
    pub use crate::queue::hooks::{Drained, recode, replayed, rewrite_often, sample_records};
}
mod log;
mod mutant;
pub mod queue;
pub mod replica;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
mod sync;
pub mod system;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

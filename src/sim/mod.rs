//! A seeded world in virtual time: machines with disks, tasks, clocks and faults (feature `sim`).
//!
//! Blocks take an [`Env`](crate::env::Env); given one of a simulated machine they run as they are, and the seed
//! decides every delay, fault and random choice. Hours pass in milliseconds, and a seed that fails once fails always.
//!
//! ```
//! use outgrow::env::{OpenMode, write_all_at};
//! use outgrow::sim::{FaultKind, World};
//! use std::path::Path;
//!
//! let world = World::new(42);
//! let node = world.machine("node");
//! let (env, path) = (node.env(), Path::new("log"));
//! world.run(async {
//!     let file = env.disk().open(path, OpenMode::New).await?;
//!     env.disk().sync_dir(Path::new("")).await?;
//!     write_all_at(&*file, b"safe", 0).await?;
//!     file.sync_data().await?;
//!     write_all_at(&*file, b" or not", 4).await
//! })?;
//!
//! node.crash();
//! let left = node.read_file(path).unwrap_or_default();
//! assert!(left.starts_with(b"safe"));
//! assert_eq!(world.faults().get(FaultKind::Crash), 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! What it does not do: it runs on one thread, so it finds wrong orders of tasks but no data races; it has no network
//! (blocks in one process have none); and code that asks the operating system directly escapes it.

mod cut;
mod disk;
mod executor;
mod faults;
mod machine;
mod model;
mod seeds;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod trace;
mod waker;
mod wheel;
mod world;

pub use cut::{Cut, drop_at_every_poll};
pub use faults::{DiskOp, FaultCounts, FaultKind, Faults, Inject};
pub use machine::Machine;
pub use model::{DiskModel, Latency};
pub use seeds::each_seed;
pub use trace::Trace;
pub use world::World;

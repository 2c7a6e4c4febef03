//! The orderings that the cache's lock-free reads rest on, under a model checker that tries every interleaving, up to a
//! number of preemptions, and every value which the memory model allows a read to return. The source files are those of
//! the crate, over the checker's atomics.
//!
//! `RUSTFLAGS="--cfg outgrow_loom" cargo test --release --test loom_cache --target-dir target-models`
//!
//! Each protocol is also run with a fault of its own, which has to be caught.
#![cfg(outgrow_loom)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test")]
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "the checker's cells are shared all the same"
)]

mod drained;
mod names;
mod pins;

#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../src/balance/counts.rs"]
mod counts;

#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../src/cache/index.rs"]
mod index;
#[path = "../../src/cache/lanes.rs"]
mod lanes;
#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../src/sync/seat.rs"]
mod seat;

use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// What stands in for the crate's door to atomics.
mod sync {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
}

/// Runs every interleaving of `run` with at most so many preemptions.
fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 100_000;
    model.check(run);
}

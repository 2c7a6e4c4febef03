//! The one door to locks, atomics, published snapshots and counters.
//!
//! Blocks take them from here and nowhere else, so that a model checker can stand in for all of them at once.

mod counter;
mod epoch;
#[cfg(all(test, outgrow_shuttle))]
mod interleaved;
pub(crate) mod pins;
mod seat;
mod stripes;
mod waiters;

pub(crate) use counter::{Counter, STRIPES, stripe};
pub(crate) use crossbeam::utils::CachePadded;
pub(crate) use epoch::Published;
#[cfg(all(test, outgrow_shuttle))]
pub(crate) use interleaved::{Condvar, Mutex, MutexGuard};
pub(crate) use parking_lot::RwLock;
#[cfg(not(all(test, outgrow_shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
pub(crate) use pins::pin;
pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use stripes::Stripes;
pub(crate) use waiters::Waiters;

/// Locks that nothing ever stands in for: those of threads which live beside a test's, and those under which nothing
/// else is waited for.
pub(crate) mod real {
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
}

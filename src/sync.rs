//! The one door to locks, atomics, published snapshots and counters.
//!
//! Blocks take them from here and nowhere else, so that a model checker can stand in for all of them at once.

mod counter;
mod epoch;
pub(crate) mod pins;
mod seat;
mod stripes;
mod waiters;

pub(crate) use counter::{Counter, STRIPES, stripe};
pub(crate) use crossbeam::utils::CachePadded;
pub(crate) use epoch::Published;
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use pins::pin;
pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use stripes::Stripes;
pub(crate) use waiters::Waiters;

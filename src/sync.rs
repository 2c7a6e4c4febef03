//! The one door to locks, atomics, published snapshots and counters.
//!
//! Blocks take them from here and nowhere else, so that a model checker can stand in for all of them at once.

mod counter;
mod epoch;
mod waiters;

pub(crate) use counter::{Counter, STRIPES, stripe};
pub(crate) use crossbeam::utils::CachePadded;
pub(crate) use epoch::{Published, pin};
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use waiters::Waiters;

#![allow(
    unsafe_code,
    reason = "memory that is not initialised before it is used has no safe form"
)]

//! One entry's place in a slab.

use super::super::extra::Extra;
use super::super::word::Word;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// A slot: what is kept beside an entry, its key, and its value unless that is known to be absent.
pub(in crate::cache) struct Slot<K, V> {
    pub(in crate::cache) word: Word,
    /// Initialised while the slot is live or retired.
    pub(super) pair: UnsafeCell<MaybeUninit<Pair<K, V>>>,
}

pub(super) struct Pair<K, V> {
    pub(super) key: K,
    /// Initialised unless the word says that it is absent.
    pub(super) value: MaybeUninit<V>,
}

// SAFETY: under a pin any thread gets `&K` and `&V`; the holder of the lock moves pairs in and out from any thread.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Slot<K, V> {}
// SAFETY: a slot owns its pair.
unsafe impl<K: Send, V: Send> Send for Slot<K, V> {}

/// What was in a slot, for the caller to drop when it no longer holds the lock.
pub(in crate::cache) type Dead<K, V> = (K, Option<V>, Option<Box<Extra>>);

/// An entry about to be put in.
pub(in crate::cache) struct New<K, V> {
    pub(in crate::cache) key: K,
    /// `None` for a key that is known to have no value.
    pub(in crate::cache) value: Option<V>,
    pub(in crate::cache) deadline: u64,
    pub(in crate::cache) mark: u8,
    pub(in crate::cache) idle: bool,
    pub(in crate::cache) extra: Option<Box<Extra>>,
    /// By which the policy knows it.
    pub(in crate::cache) number: u16,
}

impl<K, V> Slot<K, V> {
    /// # Safety
    /// The slot is live, or retired and held by a pin or the lock.
    #[inline]
    pub(super) unsafe fn pair(&self) -> &Pair<K, V> {
        // SAFETY: the caller's promise: a pair is initialised in both states, and nobody writes it in either.
        unsafe { (*self.pair.get()).assume_init_ref() }
    }

    /// Its key. Only for a slot that [`Slab`](super::Slab) gave out, which it does under a pin.
    #[inline]
    pub(in crate::cache) fn key(&self) -> &K {
        // SAFETY: a `&Slot` leaves the slab only for a live slot, bound to the pin or the lock that keeps it.
        unsafe { &self.pair().key }
    }

    /// Its value, if what was read of it reaches the bound `settled`.
    #[inline(always)]
    pub(in crate::cache) fn settled_value(&self, settled: u64) -> Option<&V> {
        let is_settled = self.word.read().reaches(settled);
        // SAFETY: as for `value`: a word that reaches the bound is not that of an absent value.
        is_settled.then(|| unsafe { self.pair().value.assume_init_ref() })
    }

    /// Its value, unless that is known to be absent.
    #[inline]
    pub(in crate::cache) fn value(&self) -> Option<&V> {
        if self.word.read().kind().absent {
            return None;
        }
        // SAFETY: as for `key`; the word, which keeps its kind until the slot is freed, says that there is a value.
        Some(unsafe { self.pair().value.assume_init_ref() })
    }
}

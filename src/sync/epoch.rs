#![allow(
    unsafe_code,
    reason = "a read of a published pointer without a lock has no safe form"
)]

//! Snapshots that readers see without a lock: one pointer, read under a pin, freed when no pin can see it.
//!
//! A read costs no more than an uncontended read lock, and unlike the lock it writes nothing that other readers share, so
//! it does not slow down as they become more.

use super::pins::{self, Pin};
use super::real::Mutex;
use super::seat::is_free;
use super::{AtomicPtr, Ordering};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// An immutable value that one writer at a time replaces and any thread reads.
pub(crate) struct Published<T> {
    /// From `Arc::into_raw`, whose count it holds.
    current: AtomicPtr<T>,
    /// What was replaced and may still be read, with its stamps.
    replaced: Mutex<Vec<(u64, Arc<T>)>>,
    owns: PhantomData<T>,
}

// SAFETY: it hands out `&T` and `Arc<T>` to any thread (`T: Sync`), and drops a `T` on whichever thread lets go of it last
// (`T: Send`).
unsafe impl<T: Send + Sync> Sync for Published<T> {}

impl<T> Published<T> {
    pub(crate) fn new(value: T) -> Published<T> {
        Published {
            current: AtomicPtr::new(Arc::into_raw(Arc::new(value)).cast_mut()),
            replaced: Mutex::new(Vec::new()),
            owns: PhantomData,
        }
    }

    /// The newest value. Never waits.
    #[inline]
    pub(crate) fn load<'a>(&'a self, _pin: &'a Pin) -> &'a T {
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: `current` is never null, points to an initialised `T` (Acquire pairs with the swap in `store`), and
        // is freed only when its stamp says that every pin that could have read it is gone; `_pin` is one of them for
        // as long as the reference lives.
        unsafe { &*current }
    }

    /// The newest value, to keep for longer than a pin.
    pub(crate) fn share(&self, pin: &Pin) -> Arc<T> {
        let current = std::ptr::from_ref(self.load(pin));
        // SAFETY: `current` came from `Arc::into_raw`, and the count that `self.current` or, since `pin` may see it,
        // `self.replaced` holds keeps it alive.
        unsafe {
            Arc::increment_strong_count(current);
            Arc::from_raw(current)
        }
    }

    /// Whether `value`, which came from [`share`](Self::share), is the newest.
    #[inline]
    pub(crate) fn is(&self, value: &Arc<T>) -> bool {
        std::ptr::eq(self.current.load(Ordering::Acquire), Arc::as_ptr(value))
    }

    /// Replaces the value; the old one is let go once no pin can see it: now, if there is none.
    pub(crate) fn store(&self, value: T) {
        let new = Arc::into_raw(Arc::new(value)).cast_mut();
        let old = self.current.swap(new, Ordering::AcqRel);
        // SAFETY: `old` came from `Arc::into_raw` in `new` or `store`, and only this call swapped it out.
        let old = unsafe { Arc::from_raw(old) };
        let stamp = pins::stamp();
        self.replaced.lock().push((stamp, old));
        self.free();
    }

    /// Drops what was replaced and no pin can see any more; a later [`store`](Self::store) does so too.
    pub(crate) fn free(&self) {
        let free = {
            let mut replaced = self.replaced.lock();
            if replaced.is_empty() {
                return;
            }
            let epoch = (0..2).fold(0, |_, _| pins::advance());
            replaced
                .extract_if(.., |(stamp, _)| is_free(*stamp, epoch))
                .collect::<Vec<_>>()
        };
        // What the values do when dropped is theirs, so not under the lock.
        drop(free);
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: `&mut self` proves that no thread is inside `load`, `share` or `store`, and that no reference given by
        // `load` is left, since each borrows `self`; so this count of the value's is nobody else's.
        drop(unsafe { Arc::from_raw(current) });
    }
}

impl<T: fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load(&pins::pin()).fmt(f)
    }
}

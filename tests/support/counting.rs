//! An allocator that counts: how often each thread asked for memory, how many bytes are out, and the most that were.
#![allow(dead_code, reason = "each program uses a part of it")]
#![allow(unsafe_code, reason = "an allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, which counts what it is asked for. A program makes it its `#[global_allocator]`.
#[derive(Debug)]
pub(crate) struct Counting;

thread_local!(static ASKED: Cell<u64> = const { Cell::new(0) });

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// How often this thread asks for memory, or for more of it, during `work`.
pub(crate) fn asked(work: impl FnOnce()) -> u64 {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

/// The bytes that the program asked for and has not given back. What the allocator adds to each piece is not in it.
pub(crate) fn live() -> usize {
    LIVE.load(Relaxed)
}

/// The most bytes that were out at once since the last [`forget_peak`].
pub(crate) fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Starts looking for the [`peak`] anew.
pub(crate) fn forget_peak() {
    PEAK.store(live(), Relaxed);
}

fn gained(memory: *mut u8, bytes: usize) -> *mut u8 {
    ASKED.set(ASKED.get() + 1);
    if !memory.is_null() {
        PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
    }
    memory
}

fn lost(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every method hands its arguments to the system's allocator unchanged and returns what that returned; the
// thread-local has no destructor and is there without allocating.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract.
        gained(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        gained(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps `realloc`'s contract, and the memory came from the system's allocator.
        let moved = unsafe { System.realloc(memory, layout, size) };
        if !moved.is_null() {
            lost(layout.size());
        }
        gained(moved, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        lost(layout.size());
        // SAFETY: the caller keeps `dealloc`'s contract, and the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

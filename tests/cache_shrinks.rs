//! The memory of a cache that becomes smaller. A program of its own, since it counts all bytes of its process.
#![allow(unsafe_code, reason = "an allocator that counts has no safe form")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what fails to unwrap fails the test"
)]

use outgrow::cache::Cache;
use outgrow::cache::policy::Lru;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, which counts the bytes that are in use.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: both methods hand their arguments to the system's allocator unchanged, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        USED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract, and the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// A key and value of 8 and 120 bytes.
type Wide = Cache<u64, [u64; 15]>;

#[test]
fn a_cache_that_becomes_smaller_gives_its_memory_back() {
    let before = USED.load(Ordering::Relaxed);
    let used = || USED.load(Ordering::Relaxed) - before;
    let cache: Wide = Cache::builder()
        .capacity(200_000)
        .policy(Lru::default())
        .build()
        .unwrap();
    for key in 0..200_000 {
        cache.insert(key, [key; 15]);
    }
    let full = used();
    assert!(full > 200_000 * 128, "{full} bytes hold all");
    {
        // While somebody reads, entries leave, and those that stay are where they were.
        let pinned = cache.pin();
        let value = pinned.get(&199_999).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| cache.resize(20_000).unwrap());
        });
        cache.tidy();
        assert!(used() > full / 2 && cache.len() == 20_000);
        cache.for_each(|key, value| assert_eq!(*value, [*key; 15]));
        assert_eq!(*value, [199_999; 15]);
    }
    cache.tidy();
    // What a policy keeps of each slot beside, 30 bytes at most, may stay.
    let lowered = used();
    assert!(
        lowered < 20_000 * 220 + 200_000 * 30,
        "{lowered} bytes of {full} after the size was lowered"
    );
    assert_eq!(cache.len(), 20_000);
    cache.for_each(|key, value| assert_eq!(*value, [*key; 15]));
    cache.resize(200_000).unwrap();
    for key in 0..200_000 {
        cache.insert(key, [key; 15]);
    }
    assert_eq!(cache.len(), 200_000);
    let again = used();
    assert!(again < full + full / 4, "{again} bytes where {full} were enough");
    drop(cache);
}

#![allow(
    unsafe_code,
    reason = "memory that nobody touches before it is needed has no safe form"
)]

//! The memory of a cache's shards in one piece each for the buckets and the slots, so that the kernel can give it large
//! pages: a look-up touches two places that are nowhere near each other, and with pages of 4 KiB finding them costs more
//! than reading them. Memory is taken as it is first touched.

use super::index::Bucket;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Pieces smaller than this get no large pages, which would take more than they give.
const LARGE: usize = 4 << 20;

/// A shard's part of a piece, which lives as long as any part does.
#[derive(Debug)]
pub(super) struct Part<T> {
    /// Points into `all`, so that a look-up need not go through it.
    start: *const T,
    len: usize,
    all: Arc<[T]>,
}

// SAFETY: a part is a share of an `Arc<[T]>`, of which it reads; so it may go where that may.
unsafe impl<T: Send + Sync> Send for Part<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Part<T> {}

impl<T> Part<T> {
    fn split(all: Arc<[T]>, parts: usize, len: usize) -> impl Iterator<Item = Part<T>> {
        (0..parts).map(move |part| Part {
            start: all[part * len..][..len].as_ptr(),
            len,
            all: Arc::clone(&all),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.all().get(at)
    }

    #[inline]
    pub(super) fn all(&self) -> &[T] {
        // SAFETY: `start` points to `len` elements of `all`, which is held and never changed but through cells.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

#[cfg(test)]
impl<T> Part<T> {
    /// The piece that it is a part of, if that is still there.
    pub(super) fn piece(&self) -> std::sync::Weak<[T]> {
        Arc::downgrade(&self.all)
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Part<T> {
        Part {
            start: self.start,
            len: self.len,
            all: Arc::clone(&self.all),
        }
    }
}

/// So many parts of one piece, each with `len` elements that are not initialised.
pub(super) fn uninit<T>(parts: usize, len: usize) -> impl Iterator<Item = Part<MaybeUninit<T>>> {
    let all = Arc::new_uninit_slice(parts * len);
    want_large_pages(&all);
    Part::split(all, parts, len)
}

/// So many parts of one piece, each with `len` empty buckets.
pub(super) fn buckets(parts: usize, len: usize) -> impl Iterator<Item = Part<Bucket>> {
    let all = Arc::<[Bucket]>::new_zeroed_slice(parts * len);
    want_large_pages(&all);
    // SAFETY: a bucket is made of atomic integers, for which zero is a value: that of an empty one.
    let all = unsafe { all.assume_init() };
    Part::split(all, parts, len)
}

/// Asks for large pages where a piece has room for them. Without them it is only slower.
fn want_large_pages<T>(piece: &[MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let start = piece.as_ptr().addr().next_multiple_of(PAGE);
        let end = (piece.as_ptr().addr() + size_of_val(piece)) / PAGE * PAGE;
        if size_of_val(piece) < LARGE || start >= end {
            return;
        }
        let start = piece.as_ptr().cast_mut().cast::<std::ffi::c_void>().with_addr(start);
        // SAFETY: the range lies within the piece, and the advice changes nothing that a program can see but its speed.
        let _advised = unsafe { rustix::mm::madvise(start, end - start.addr(), rustix::mm::Advice::LinuxHugepage) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (piece, LARGE);
}

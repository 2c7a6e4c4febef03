use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// How many leases an endpoint has and how many have ended, in one word: a reader sees both at once, and a lease costs one
/// write at each end.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Counts {
    /// In flight in the low [`BITS`], ended in the rest.
    word: AtomicU64,
    /// The most in flight.
    limit: AtomicU32,
    /// Whether somebody waits for the last to end.
    watched: AtomicU32,
}

const BITS: u32 = 20;
const IN_FLIGHT: u64 = (1 << BITS) - 1;
/// What the end of a lease adds to the word: one more that ended, one less in flight.
const END: u64 = IN_FLIGHT;
/// The most leases at once, whatever is asked for. Well below what the bits hold, since those that are refused count for
/// a moment.
const MOST: u32 = 1_000_000;

/// There is no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Nothing is in flight now, and somebody waits for that.
    pub(super) last: bool,
}

impl Counts {
    pub(super) fn new() -> Counts {
        Counts {
            word: AtomicU64::new(0),
            limit: AtomicU32::new(MOST),
            watched: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        // Acquire: who sees the last request gone also sees what it did.
        (self.word.load(Ordering::Acquire) & IN_FLIGHT) as u32
    }

    pub(super) fn ended(&self) -> u64 {
        self.word.load(Ordering::Acquire) >> BITS
    }

    /// Counts one in, if there is room.
    #[inline]
    pub(super) fn begin(&self) -> Result<(), Full> {
        let before = self.word.fetch_add(1, Ordering::Relaxed) & IN_FLIGHT;
        match before < u64::from(self.limit.load(Ordering::Relaxed)) {
            true => Ok(()),
            false => Err(self.refuse()),
        }
    }

    /// Takes back what `begin` counted. The last that ended meanwhile saw this one, and told nobody.
    #[cold]
    fn refuse(&self) -> Full {
        let before = self.word.fetch_sub(1, Ordering::SeqCst) & IN_FLIGHT;
        Full {
            last: self.is_last(before),
        }
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.limit.load(Ordering::Relaxed)
    }

    /// Lets at most `limit` be in flight; those that are go on.
    pub(super) fn limit_to(&self, limit: u32) {
        self.limit.store(limit.min(MOST), Ordering::Relaxed);
    }

    /// Counts one out. True when it was the last and somebody waits for that.
    #[inline]
    pub(super) fn end(&self) -> bool {
        // Sequentially consistent, and so is `watch`: one of the two sees the other.
        let before = self.word.fetch_add(END, Ordering::SeqCst) & IN_FLIGHT;
        self.is_last(before)
    }

    #[inline]
    fn is_last(&self, before: u64) -> bool {
        barrier();
        before == 1 && self.watched.load(Ordering::SeqCst) != 0
    }

    /// Asks to be told, by [`end`](Self::end), when nothing is in flight. True when nothing is.
    pub(super) fn watch(&self) -> bool {
        self.watched.store(1, Ordering::SeqCst);
        barrier();
        self.word.load(Ordering::SeqCst) & IN_FLIGHT == 0
    }
}

/// Nothing where sequentially consistent accesses are what they should be; the model checker takes them for weaker ones,
/// and knows fences.
#[inline]
fn barrier() {
    #[cfg(outgrow_loom)]
    crate::sync::fence(Ordering::SeqCst);
}

//! Reclamation by epochs (Fraser, 2004; the form is that of crossbeam-epoch): the protocol alone, so that a model
//! checker can run it over atomics of its own.
//!
//! A reader takes its seat (pins) before it reads a published name, and leaves it when it holds no reference any more. A
//! writer takes the name out, stamps what it named with [`Epoch::stamp`], and frees it when the epoch is two past the
//! stamp: every reader that could have seen the name has left its seat by then, since the epoch moves only when all
//! who are seated have seen it.

use super::{AtomicU64, Ordering, fence};

/// The time of the protocol. It moves when every seated reader has seen it. It counts in twos from one on, so that no
/// epoch is zero.
#[derive(Debug)]
pub(crate) struct Epoch(AtomicU64);

/// A reader's place, on cache lines of its own. One thread owns it at a time.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Zero while nobody sits here, else the epoch that was seen.
    seen: AtomicU64,
    /// How many pins of the owner are alive beside the first, and in the highest bit whether the seat is lent: nobody keeps
    /// it, and who leaves it gives it back. Only the owner touches it. So wide that pins which are forgotten, and so never
    /// leave, cannot bring it round to zero.
    further: AtomicU64,
    /// Which seat this is; no two are alike.
    pub(crate) number: u32,
}

impl Epoch {
    /// Where the time begins.
    pub(crate) const FIRST: u64 = 1;

    /// The time that `count` keeps, which has to be [`FIRST`](Epoch::FIRST) now.
    pub(crate) const fn over(count: AtomicU64) -> Epoch {
        Epoch(count)
    }

    /// The stamp of what was taken out before this call.
    #[inline]
    pub(crate) fn stamp(&self) -> u64 {
        // The unlinking comes before the reading of the epoch, in the one order of all such fences.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }

    /// The epoch that what carries older stamps is judged by.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Moves the epoch on if every seated reader has seen it; says what it is. `seats` gives all the seats that have been
    /// handed out when it is called.
    pub(crate) fn advance<'a, I: Iterator<Item = &'a Seat>>(&self, seats: impl FnOnce() -> I) -> u64 {
        let now = self.0.load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        // Only now: a reader whose seat was handed out before its fence came before this one is among them.
        for seat in seats() {
            let seen = seat.seen.load(Ordering::Relaxed);
            if seen != 0 && seen != now {
                return now;
            }
        }
        // What the readers did before they left comes before what is freed now.
        fence(Ordering::Acquire);
        // Another thread may have moved it just now; moving it twice at once would be one too many.
        match self
            .0
            .compare_exchange(now, now + STEP, Ordering::Release, Ordering::Acquire)
        {
            Ok(_) => now + STEP,
            Err(moved) => moved,
        }
    }
}

/// Whether nobody can hold a reference any more to what carries `stamp`.
#[inline]
pub(crate) fn is_free(stamp: u64, now: u64) -> bool {
    now >= stamp + 2 * STEP
}

const STEP: u64 = 2;
/// The seat is lent.
const LENT: u64 = 1 << 63;

impl Seat {
    pub(crate) fn new(number: u32) -> Seat {
        Seat {
            seen: AtomicU64::new(0),
            further: AtomicU64::new(0),
            number,
        }
    }

    /// Takes the seat; called by its owner.
    #[inline]
    pub(crate) fn enter(&self, epoch: &Epoch) {
        if self.is_taken() {
            return self.count_further(1);
        }
        self.sit(epoch.0.load(Ordering::Relaxed));
    }

    /// Ends one [`enter`](Seat::enter). True when the seat was lent and is to be given back.
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        let further = self.further.load(Ordering::Relaxed);
        if further == 0 {
            self.seen.store(0, Ordering::Release);
            return false;
        }
        self.leave_further(further)
    }

    #[cold]
    fn leave_further(&self, further: u64) -> bool {
        if further == LENT {
            self.seen.store(0, Ordering::Release);
            return true;
        }
        self.count_further(-1);
        false
    }

    #[cold]
    fn count_further(&self, by: i64) {
        let further = self.further.load(Ordering::Relaxed).wrapping_add_signed(by);
        self.further.store(further, Ordering::Relaxed);
    }

    /// Says whether who leaves it gives it back.
    pub(crate) fn lend(&self, lent: bool) {
        let further = self.further.load(Ordering::Relaxed) & !LENT;
        self.further
            .store(further | if lent { LENT } else { 0 }, Ordering::Relaxed);
    }

    /// Whether its owner is between [`enter`](Seat::enter) and [`leave`](Seat::leave).
    #[inline]
    pub(crate) fn is_taken(&self) -> bool {
        self.seen.load(Ordering::Relaxed) != 0
    }

    /// Shows `seen` to writers before anything is read.
    #[inline]
    fn sit(&self, seen: u64) {
        #[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), not(outgrow_loom)))]
        {
            // An exchange is a full barrier on these machines, and a faster one than the fence instruction.
            self.seen.swap(seen, Ordering::SeqCst);
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        }
        #[cfg(not(all(any(target_arch = "x86", target_arch = "x86_64"), not(outgrow_loom))))]
        {
            // Release, as leaving is: a writer that never sees the seat empty between two pins still has to be told of what
            // was read under the first.
            self.seen.store(seen, Ordering::Release);
            fence(Ordering::SeqCst);
        }
    }
}

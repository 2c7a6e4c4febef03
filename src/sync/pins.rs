//! The seats of this process: one for each thread that reads, kept by the thread until it ends.
//!
//! A pin costs one exchange on a line that only its thread writes, and a nested one next to nothing.

use super::real::Mutex;
pub(crate) use super::seat::is_free;
use super::seat::{Epoch, Seat};
use super::{AtomicU64, AtomicUsize, CachePadded, OnceLock, Ordering};
use std::cell::Cell;
use std::marker::PhantomData;

static EPOCH: Epoch = Epoch::over(AtomicU64::new(Epoch::FIRST));
static SEATS: Seats = Seats::new();

/// Keeps what this thread reads from being freed. While one lives, what writers take out is held back, so it should be
/// short-lived. It stays on its thread, and so cannot be held over an await of a future that moves between threads.
#[derive(Debug)]
pub(crate) struct Pin {
    seat: &'static Seat,
    stays: PhantomData<*const ()>,
}

/// Pins this thread.
#[inline]
pub(crate) fn pin() -> Pin {
    let seat = match SEAT.get() {
        Some(seat) => seat,
        None => sit_down(),
    };
    seat.enter(&EPOCH);
    Pin {
        seat,
        stays: PhantomData,
    }
}

impl Pin {
    /// The number of this thread's seat: no other thread that lives has the same.
    #[inline]
    pub(crate) fn number(&self) -> usize {
        self.seat.number as usize
    }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        if self.seat.leave() {
            give_back(self.seat);
        }
    }
}

#[cold]
fn give_back(seat: &'static Seat) {
    SEATS.free.lock().push(seat);
}

/// The stamp of what was unlinked before this call.
#[inline]
pub(crate) fn stamp() -> u64 {
    EPOCH.stamp()
}

/// The stamp of what was unlinked by an earlier holder of a lock that this thread has just taken.
#[inline]
pub(crate) fn stamp_after_lock() -> u64 {
    // Where taking a lock is an exchange, it is the barrier that a stamp needs: on these machines every exchange is a full
    // one.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        EPOCH.now()
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    EPOCH.stamp()
}

/// The epoch, to judge stamps by.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.now()
}

/// Moves the epoch on if every pinned thread has seen it; says what it is. Costs a look at each thread's seat.
pub(crate) fn advance() -> u64 {
    EPOCH.advance(|| SEATS.iter())
}

/// Whether this thread holds a pin, so that waiting for pins to go would be waiting for itself.
pub(crate) fn is_pinned() -> bool {
    SEAT.get().is_some_and(Seat::is_taken)
}

thread_local! {
    static SEAT: Cell<Option<&'static Seat>> = const { Cell::new(None) };
    static STAND_UP: StandUp = const { StandUp };
}

/// Gives the thread's seat back when the thread ends.
struct StandUp;

impl Drop for StandUp {
    fn drop(&mut self) {
        // One that is still taken belongs to a guard that another destructor of this thread holds; its drop sees to it.
        match SEAT.take() {
            Some(seat) if seat.is_taken() => seat.lend(true),
            Some(seat) => give_back(seat),
            None => {}
        }
    }
}

#[cold]
fn sit_down() -> &'static Seat {
    let seat = SEATS.claim();
    // Past the destructor of a thread that ends, the seat is lent for one pin.
    let keeps = STAND_UP.try_with(|_| ()).is_ok();
    seat.lend(!keeps);
    SEAT.set(keeps.then_some(seat));
    seat
}

/// All seats that were ever needed at once, in segments that never move.
struct Seats {
    segments: [OnceLock<Box<[CachePadded<Seat>]>>; SEGMENTS],
    /// How many have been handed out at least once.
    used: AtomicUsize,
    free: Mutex<Vec<&'static Seat>>,
}

/// The first segment has so many seats, each further one twice as many as the one before.
const FIRST: usize = 32;
const SEGMENTS: usize = 20;

impl Seats {
    const fn new() -> Seats {
        Seats {
            segments: [const { OnceLock::new() }; SEGMENTS],
            used: AtomicUsize::new(0),
            free: Mutex::new(Vec::new()),
        }
    }

    fn claim(&'static self) -> &'static Seat {
        let mut free = self.free.lock();
        if let Some(seat) = free.pop() {
            return seat;
        }
        // Under the lock, so that numbers are given in order.
        let number = self.used.load(Ordering::Relaxed);
        let (segment, place) = locate(number);
        let seats = self.segments[segment].get_or_init(|| {
            let first = FIRST * ((1 << segment) - 1);
            let seats = first..first + (FIRST << segment);
            seats.map(|number| CachePadded::new(Seat::new(number as u32))).collect()
        });
        self.used.store(number + 1, Ordering::Release);
        &seats[place]
    }

    fn iter(&self) -> impl Iterator<Item = &Seat> {
        let mut left = self.used.load(Ordering::Acquire);
        self.segments.iter().flat_map(move |segment| {
            let seats = if left == 0 { None } else { segment.get() };
            let seats = seats.map_or(&[][..], |seats| &seats[..left.min(seats.len())]);
            left -= seats.len();
            seats.iter().map(|seat| &**seat)
        })
    }
}

/// The segment of a seat, and its place there.
fn locate(number: usize) -> (usize, usize) {
    let segment = (number / FIRST + 1).ilog2() as usize;
    (segment, number - FIRST * ((1 << segment) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_numbered_through_their_segments() {
        let mut expected = (0, 0);
        for number in 0..10_000 {
            assert_eq!(locate(number), expected);
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
    fn the_epoch_waits_for_who_is_pinned_and_seats_are_used_again() {
        let pinned = pin();
        let stamp = stamp();
        (0..10).for_each(|_| {
            advance();
        });
        assert!(!is_free(stamp, epoch()));
        let other = std::thread::spawn(|| pin().number()).join().unwrap();
        assert_ne!(other, pinned.number());
        assert!(is_pinned());
        drop(pinned);
        assert!(!is_pinned());
    }

    #[test]
    fn pins_of_a_thread_may_go_in_any_order() {
        let (first, second, third) = (pin(), pin(), pin());
        let stamp = stamp();
        drop(first);
        drop(third);
        (0..10).for_each(|_| {
            advance();
        });
        assert!(is_pinned() && !is_free(stamp, epoch()));
        drop(second);
        assert!(!is_pinned());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
    fn a_thread_that_ends_may_still_pin() {
        struct PinsInItsEnd;
        impl Drop for PinsInItsEnd {
            fn drop(&mut self) {
                let (outer, inner) = (pin(), pin());
                assert!(outer.seat.is_taken() && inner.seat.is_taken());
            }
        }
        thread_local!(static LAST: PinsInItsEnd = const { PinsInItsEnd });
        for _ in 0..4 {
            std::thread::spawn(|| {
                LAST.with(|_| ());
                drop(pin());
            })
            .join()
            .unwrap();
        }
    }
}

use super::counts::{Counts, Full};
use super::{EndpointId, Outcome, ServerLoad};
use crate::env::Tick;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::fmt;
use std::time::Duration;

/// What this process knows of an endpoint's load. It belongs to the endpoint by id, so it survives every change of the
/// membership that keeps the id. 128 bytes each, of which one cache line is written per request.
// The order of the fields is kept: what a request reads and writes is in the first line.
#[repr(C, align(64))]
pub struct Load {
    counts: Counts,
    rank: AtomicU64,
    cell: AtomicU64,
    reported: AtomicU64,
    /// Failures since the last success, of leases of the present era.
    failures: AtomicU32,
    /// Grows at each ejection, so that what was sent before it is not held against the endpoint after its return.
    era: AtomicU32,
    /// The stretch of the coarse clock in which a request was last timed.
    timed_in: AtomicU32,
    slot: AtomicU32,
    failed: AtomicU64,
    cancelled: AtomicU64,
    /// The sum of the latencies that were measured, in nanoseconds, and their number.
    latency: AtomicU64,
    timed: AtomicU64,
    id: EndpointId,
}

const NO_SLOT: u32 = u32::MAX;

impl Load {
    /// The load of an idle endpoint.
    #[must_use]
    pub fn new(id: EndpointId) -> Load {
        Load {
            counts: Counts::new(),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            era: AtomicU32::new(0),
            timed_in: AtomicU32::new(0),
            slot: AtomicU32::new(NO_SLOT),
            rank: AtomicU64::new(0),
            cell: AtomicU64::new(0),
            reported: AtomicU64::new(NEVER),
            latency: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            id,
        }
    }

    /// The same, with this [`slot`](Load::slot).
    #[must_use]
    pub fn with_slot(self, slot: u32) -> Load {
        self.slot.store(slot, Ordering::Relaxed);
        self
    }

    /// A number that no other endpoint of the pool has, the lowest that was free when this one joined, so that a policy can
    /// keep what it compares side by side. None once the endpoint has left, while its last requests end.
    #[inline]
    #[must_use]
    pub fn slot(&self) -> Option<usize> {
        let slot = self.slot.load(Ordering::Relaxed);
        (slot != NO_SLOT).then_some(slot as usize)
    }

    /// Gives the slot up, for the next that joins.
    pub(super) fn leave(&self) -> Option<u32> {
        let slot = self.slot.swap(NO_SLOT, Ordering::Relaxed);
        (slot != NO_SLOT).then_some(slot)
    }

    /// The endpoint it belongs to.
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Leases of the endpoint that have not ended.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.counts.in_flight()
    }

    /// 64 bits for the policy's own use, 0 at first: an average, say.
    #[inline]
    #[must_use]
    pub fn cell(&self) -> &AtomicU64 {
        &self.cell
    }

    /// 64 more bits for the policy's own use, 0 at first: what a pick compares, say.
    #[inline]
    #[must_use]
    pub fn rank(&self) -> &AtomicU64 {
        &self.rank
    }

    /// What the endpoint last said of its own load, and how long ago; see [`Lease::report_load`](super::Lease::report_load).
    #[inline]
    #[must_use]
    pub fn reported(&self, now: Tick) -> Option<(f32, Duration)> {
        let word = self.reported.load(Ordering::Relaxed);
        (word != NEVER).then(|| {
            let age = millis(now).wrapping_sub(word as u32);
            // A report from just after `now` was read looks as old as can be.
            let age = if age > u32::MAX / 2 { 0 } else { age };
            (f32::from_bits((word >> 32) as u32), Duration::from_millis(age.into()))
        })
    }

    pub(super) fn report(&self, load: ServerLoad, now: Tick) {
        let word = u64::from(load.in_flight().to_bits()) << 32 | u64::from(millis(now));
        self.reported.store(word, Ordering::Relaxed);
    }

    /// Counts a request in, and returns the era that it belongs to, if there is room.
    #[inline]
    pub(super) fn begin(&self) -> Result<Era, Full> {
        self.counts.begin()?;
        Ok(Era(self.era.load(Ordering::Relaxed)))
    }

    /// Whether another request may begin.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.counts.has_room()
    }

    /// Lets at most `limit` requests be in flight; those that are go on.
    pub(super) fn limit_to(&self, limit: u32) {
        self.counts.limit_to(limit);
    }

    /// Counts out a request that went well. True when it was the last and somebody waits for that.
    #[inline]
    pub(super) fn succeed(&self, era: Era) -> bool {
        let last = self.counts.end();
        if self.failures.load(Ordering::Relaxed) != 0 && self.is_current(era) {
            self.failures.store(0, Ordering::Relaxed);
        }
        last
    }

    /// Counts a request out, and says what that calls for. A row is over at `limit` failures.
    pub(super) fn end(&self, era: Era, outcome: Outcome, limit: u32) -> Ended {
        if outcome == Outcome::Success {
            let last = self.succeed(era);
            return Ended { row: false, last };
        }
        let failed = matches!(outcome, Outcome::Failure(_));
        let count = if failed { &self.failed } else { &self.cancelled };
        count.fetch_add(1, Ordering::Relaxed);
        Ended {
            last: self.counts.end(),
            row: failed && self.lengthen(era, limit),
        }
    }

    /// True when this was the `limit`th failure in a row, which starts a new row.
    fn lengthen(&self, era: Era, limit: u32) -> bool {
        if !self.is_current(era) {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < limit {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        true
    }

    /// Begins a new era: the requests in flight have no more say in whether the endpoint is ejected.
    pub(super) fn renew(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Whether a request of `era` still has a say.
    #[inline]
    pub(super) fn is_current(&self, era: Era) -> bool {
        self.era.load(Ordering::Relaxed) == era.0
    }

    /// Whether a request that begins at `coarse` is to be timed: the first in each millisecond or so is, which costs two
    /// readings of the clock however many there are.
    #[inline]
    pub(super) fn samples(&self, coarse: Tick) -> bool {
        let stretch = ((coarse.as_nanos() >> STRETCH) as u32).wrapping_add(1);
        let due = self.timed_in.load(Ordering::Relaxed) != stretch;
        if due {
            self.timed_in.store(stretch, Ordering::Relaxed);
        }
        due
    }

    pub(super) fn time(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.fetch_add(nanos, Ordering::Relaxed);
        self.timed.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks to be told, by [`Ended::last`], when nothing is in flight. True when nothing is.
    pub(super) fn watch(&self) -> bool {
        self.counts.watch()
    }

    /// All that has been counted so far.
    pub(super) fn totals(&self) -> Totals {
        let ended = self.counts.ended();
        let failed = self.failed.load(Ordering::Relaxed);
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        Totals {
            // One that is ending now may be counted as a failure already and not yet as ended.
            succeeded: ended.saturating_sub(failed + cancelled),
            failed,
            cancelled,
            latency: self.latency.load(Ordering::Relaxed),
            timed: self.timed.load(Ordering::Relaxed),
        }
    }
}

/// A report that never came.
const NEVER: u64 = u64::MAX;
/// Nanoseconds in a stretch, as a power of two.
const STRETCH: u32 = 20;

fn millis(at: Tick) -> u32 {
    (at.as_nanos() / 1_000_000) as u32
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("id", &self.id)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Which stretch between two ejections a request was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era(u32);

/// What the end of a request calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// A row of failures is full.
    pub(super) row: bool,
    /// It was the last, and somebody waits for that.
    pub(super) last: bool,
}

/// Counts since the endpoint joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    /// The sum of the latencies measured, in nanoseconds.
    pub(super) latency: u64,
    /// How many were measured.
    pub(super) timed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Failure;

    const FAILURE: Outcome = Outcome::Failure(Failure::Other);

    fn load() -> Load {
        Load::new("a".into())
    }

    fn begin(load: &Load) -> Era {
        load.begin().expect("there is room")
    }

    #[test]
    fn every_end_leaves_nothing_in_flight() {
        let load = load();
        for outcome in [Outcome::Success, FAILURE, Outcome::Cancelled] {
            let era = begin(&load);
            assert_eq!(load.in_flight(), 1);
            load.end(era, outcome, 5);
            assert_eq!(load.in_flight(), 0);
        }
        let totals = load.totals();
        assert_eq!((totals.succeeded, totals.failed, totals.cancelled), (1, 1, 1));
    }

    #[test]
    fn a_success_ends_the_row_and_a_cancelled_request_does_not() {
        use Outcome::{Cancelled, Success};
        let ends = |outcomes: &[Outcome]| {
            let load = load();
            outcomes
                .iter()
                .map(|&outcome| load.end(begin(&load), outcome, 3).row)
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&[FAILURE; 4]), [false, false, true, false]);
        assert_eq!(ends(&[FAILURE, FAILURE, Success, FAILURE]), [false; 4]);
        assert_eq!(
            ends(&[FAILURE, FAILURE, Cancelled, FAILURE]),
            [false, false, false, true]
        );
    }

    #[test]
    fn what_was_sent_before_an_ejection_has_no_say_after_it() {
        let load = load();
        let before = begin(&load);
        load.renew();
        assert!(!load.end(before, FAILURE, 1).row);
        assert!(load.end(begin(&load), FAILURE, 1).row);
    }

    #[test]
    fn the_limit_holds_and_counts_nobody_that_it_refused() {
        let load = load();
        load.limit_to(2);
        let first = begin(&load);
        begin(&load);
        assert!(!load.has_room());
        assert_eq!((load.begin(), load.in_flight()), (Err(Full { last: false }), 2));
        load.end(first, Outcome::Success, 1);
        assert!(load.begin().is_ok());
    }

    #[test]
    fn the_last_one_tells_who_waits() {
        let load = load();
        let (one, two, three) = (begin(&load), begin(&load), begin(&load));
        assert!(!load.end(one, Outcome::Success, 1).last);
        assert!(!load.watch());
        assert!(!load.end(two, Outcome::Success, 1).last);
        assert!(load.end(three, Outcome::Success, 1).last);
        assert!(load.watch());
    }

    #[test]
    fn a_report_is_as_old_as_the_time_since() {
        let load = load();
        let at = |millis: u64| Tick::from_nanos(millis * 1_000_000);
        assert_eq!(load.reported(at(5)), None);
        load.report(ServerLoad::new(7.0), at(10));
        assert_eq!(load.reported(at(35)), Some((7.0, Duration::from_millis(25))));
        assert_eq!(load.reported(at(9)), Some((7.0, Duration::ZERO)));
    }

    #[test]
    fn one_request_in_a_stretch_is_timed() {
        let load = load();
        let timed = |nanos| load.samples(Tick::from_nanos(nanos));
        assert_eq!(
            [0, 1, 1_000_000, 1_048_576, 1_048_577].map(timed),
            [true, false, false, true, false]
        );
    }
}

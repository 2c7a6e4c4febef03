use super::{EndpointId, Outcome};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::fmt;

/// What this process knows of an endpoint's load. It belongs to the endpoint by id, so it survives every change of the
/// membership that keeps the id. 128 bytes each, of which one cache line is written per request.
#[repr(align(64))]
pub struct Load {
    /// Leases that began. What is in flight is the difference to those that ended: two counters that only grow give
    /// the number of successes as well, so that a success costs no third.
    begun: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    /// Failures since the last success, of leases of the present era.
    failures: AtomicU32,
    /// Grows at each ejection, so that what was sent before it is not held against the endpoint after its return.
    era: AtomicU32,
    cell: AtomicU64,
    id: EndpointId,
}

impl Load {
    /// The load of an idle endpoint.
    #[must_use]
    pub fn new(id: EndpointId) -> Load {
        Load {
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            era: AtomicU32::new(0),
            cell: AtomicU64::new(0),
            id,
        }
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
        // In this order, or a request that begins and ends in between would be counted as ended only. Acquire: who sees
        // the last request gone also sees what it did.
        let ended = self.ended.load(Ordering::Acquire);
        self.begun.load(Ordering::Relaxed).wrapping_sub(ended) as u32
    }

    /// 64 bits for the policy's own use, 0 at first: an average, say.
    #[inline]
    #[must_use]
    pub fn cell(&self) -> &AtomicU64 {
        &self.cell
    }

    /// Counts a request in, and returns the era that it belongs to.
    #[inline]
    pub(super) fn begin(&self) -> Era {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Era(self.era.load(Ordering::Relaxed))
    }

    /// Counts a request out. True when it was the `limit`th failure in a row, which starts a new row.
    #[inline]
    pub(super) fn end(&self, era: Era, outcome: Outcome, limit: u32) -> bool {
        match outcome {
            Outcome::Success => {}
            Outcome::Failure => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
            Outcome::Cancelled => drop(self.cancelled.fetch_add(1, Ordering::Relaxed)),
        }
        self.ended.fetch_add(1, Ordering::Release);
        if outcome == Outcome::Cancelled || era.0 != self.era.load(Ordering::Relaxed) {
            return false;
        }
        if outcome == Outcome::Success {
            self.failures.store(0, Ordering::Relaxed);
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
    pub(super) fn is_current(&self, era: Era) -> bool {
        self.era.load(Ordering::Relaxed) == era.0
    }

    /// Requests that ended with `outcome`.
    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        let ended = self.ended.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Relaxed);
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        match outcome {
            // One that is ending now may be counted as a failure already and not yet as ended.
            Outcome::Success => ended.saturating_sub(failed + cancelled),
            Outcome::Failure => failed,
            Outcome::Cancelled => cancelled,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load::new("a".into())
    }

    #[test]
    fn every_end_leaves_nothing_in_flight() {
        let load = load();
        for outcome in [Outcome::Success, Outcome::Failure, Outcome::Cancelled] {
            let era = load.begin();
            assert_eq!(load.in_flight(), 1);
            load.end(era, outcome, 5);
            assert_eq!((load.in_flight(), load.count(outcome)), (0, 1));
        }
    }

    #[test]
    fn a_success_ends_the_row_and_a_cancelled_request_does_not() {
        use Outcome::{Cancelled, Failure, Success};
        let ends = |outcomes: &[Outcome]| {
            let load = load();
            outcomes
                .iter()
                .map(|&outcome| load.end(load.begin(), outcome, 3))
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&[Failure, Failure, Failure, Failure]), [false, false, true, false]);
        assert_eq!(ends(&[Failure, Failure, Success, Failure]), [false; 4]);
        assert_eq!(
            ends(&[Failure, Failure, Cancelled, Failure]),
            [false, false, false, true]
        );
    }

    #[test]
    fn what_was_sent_before_an_ejection_has_no_say_after_it() {
        let load = load();
        let before = load.begin();
        load.renew();
        assert!(!load.end(before, Outcome::Failure, 1));
        assert!(load.end(load.begin(), Outcome::Failure, 1));
    }
}

use super::attempt::{Fate, Tally};
use crate::sync::Mutex;
use std::sync::Arc;

/// What a [`Worker`](super::Worker) has done so far; a cheap handle to it.
#[derive(Clone, Debug, Default)]
pub struct WorkerProgress {
    counts: Arc<Mutex<WorkerCounts>>,
}

impl WorkerProgress {
    /// The counts of this moment.
    ///
    /// ```
    /// use outgrow::queue::{WorkerCounts, WorkerProgress};
    /// assert_eq!(WorkerProgress::default().counts(), WorkerCounts::default());
    /// ```
    #[must_use]
    pub fn counts(&self) -> WorkerCounts {
        *self.counts.lock()
    }

    pub(super) fn count(&self, tally: Tally) {
        let mut counts = self.counts.lock();
        counts.panicked += u64::from(tally.panicked);
        match tally.fate {
            Fate::Done => counts.done += 1,
            Fate::Retried => counts.retried += 1,
            Fate::Dead => counts.dead += 1,
            Fate::Lost => counts.lost += 1,
        }
    }

    pub(super) fn returned(&self, deliveries: usize) {
        self.counts.lock().returned += deliveries as u64;
    }
}

/// What a [`Worker`](super::Worker) has done. Each delivery counts once, but for a panic, which is a failed attempt as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WorkerCounts {
    /// Jobs done.
    pub done: u64,
    /// Attempts that failed, of jobs that come again.
    pub retried: u64,
    /// Jobs that became dead letters: by the handler's word, at their last attempt, or since they could not be decoded.
    pub dead: u64,
    /// Deliveries whose lease was lost, or that could not be settled; the messages come again, those that were handled too.
    pub lost: u64,
    /// Deliveries given back at the end: those not begun, and those that the grace was too short for.
    pub returned: u64,
    /// Handlers that panicked.
    pub panicked: u64,
}

//! Syncing what is only in the kernel, beside whoever writes: nobody waits for it but those who sync too.

use super::LogError;
use super::committer::{IDLE, MOST_UNSYNCED};
use super::segment::Place;
use super::shared::{Phase, Shared, State, wake};
use crate::env::{File, Tick};
use std::sync::Arc;
use std::time::Duration;

/// So much is in the kernel only, at most, before it is synced; beside what comes while a sync goes on. Whoever ends the
/// segment waits for that much.
const MOST: u64 = 4 << 20;
/// And in small segments, so small a part of one.
const MOST_PART: u64 = 16;

/// What goes on beside whoever writes. It begins only when nobody writes, and whoever is about to sync waits for its end:
/// the system tells of an error once (Rebello and others, ATC 2020), and two syncs at a time would not know which of them
/// has heard of it.
pub(super) enum Flush {
    Idle,
    /// For whoever comes first: a thread that was asked, or one that cannot go on before.
    Begun(Plan),
    Running,
    /// Nobody knows any more what is on disk.
    Failed(LogError),
}

/// A sync to be made.
pub(super) struct Plan {
    file: Arc<dyn File>,
    /// What was written before this is on disk then.
    place: Place,
    since: Tick,
}

impl State {
    /// When what is only in the kernel is to be synced, if nothing else syncs it before.
    pub(super) fn flush_at(&self) -> Option<Tick> {
        let idle = self.phase == Phase::Open && matches!(self.flush, Flush::Idle);
        let since = self.unsynced.filter(|_| idle)?;
        Some((self.last_commit + IDLE).min(since + MOST_UNSYNCED))
    }

    /// Begins a sync where there is much to sync, or where it is time, and nobody writes. The caller is then to
    /// [`start`] it.
    pub(super) fn begin_flush(&mut self, segment_bytes: u64, now: Tick) -> bool {
        let Some(at) = self.flush_at().filter(|_| self.writer.is_some()) else {
            return false;
        };
        let much = MOST.min(segment_bytes / MOST_PART);
        let is_much = u64::from(self.written.offset.saturating_sub(self.durable.offset)) >= much;
        let Some((_, newest)) = self.segments.last_key_value().filter(|_| at <= now || is_much) else {
            return false;
        };
        self.flush = Flush::Begun(Plan {
            file: Arc::clone(&newest.file),
            place: self.written,
            since: now,
        });
        true
    }

    /// The sync that has begun, if nobody makes it yet: whoever asks makes it.
    fn claim(&mut self) -> Option<Plan> {
        match std::mem::replace(&mut self.flush, Flush::Running) {
            Flush::Begun(plan) => Some(plan),
            other => {
                self.flush = other;
                None
            }
        }
    }

    fn flushed(&mut self, plan: &Plan, result: Result<Duration, LogError>) {
        // What has failed meanwhile stays so.
        if !matches!(self.flush, Flush::Running) {
            return;
        }
        match result {
            Err(error) => self.flush = Flush::Failed(error),
            Ok(took) => {
                self.flush = Flush::Idle;
                // A segment that is full was synced by whoever ended it.
                if self.durable.segment == plan.place.segment && self.durable < plan.place {
                    self.synced(plan.place, took);
                    self.unsynced = (plan.place < self.written).then_some(plan.since);
                }
            }
        }
    }
}

/// Has a thread make the sync that has begun.
pub(super) fn start(shared: &Arc<Shared>) {
    let of = Arc::clone(shared);
    let run = async move {
        let plan = of.state.lock().claim();
        if let Some(plan) = plan {
            of.flush(plan).await;
        }
    };
    shared.env.spawn_blocking(run).detach();
}

impl Shared {
    async fn flush(&self, plan: Plan) {
        let file = Arc::clone(&plan.file);
        let mut ending = Ending {
            shared: self,
            plan,
            result: Err(LogError::abandoned()),
        };
        let watch = self.env.stopwatch();
        let synced = file.sync_data().await;
        let took = self.env.stopwatch() - watch;
        ending.result = synced.map(|()| took).map_err(|e| LogError::unknown(&e));
    }

    /// Waits until no sync goes on beside whoever writes.
    ///
    /// # Errors
    /// When the last one has failed.
    pub(super) async fn flushed(&self) -> Result<(), LogError> {
        let plan = self.state.lock().claim();
        if let Some(plan) = plan {
            self.flush(plan).await;
        }
        let ended = || match &self.state.lock().flush {
            Flush::Idle => Some(Ok(())),
            // Only when nobody writes does one begin.
            Flush::Begun(_) | Flush::Running => None,
            Flush::Failed(error) => Some(Err(error.clone())),
        };
        self.flushed.wait(ended).await
    }
}

/// Tells of the end, also when it is given up.
struct Ending<'a> {
    shared: &'a Shared,
    plan: Plan,
    result: Result<Duration, LogError>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.flushed(&self.plan, self.result.clone());
        let task = state.task.take();
        drop(state);
        wake(task);
        self.shared.flushed.wake_all();
    }
}

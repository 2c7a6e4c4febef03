//! Syncing what is only in the kernel, beside whoever writes: nobody waits for it but those who sync too.

use super::LogError;
use super::committer::{IDLE, MOST_UNSYNCED};
use super::segment::Place;
use super::shared::{Phase, Shared, State, wake};
use crate::env::{File, Tick};
use std::sync::Arc;

/// So much is in the kernel only, at most, before it is synced; beside what comes while a sync goes on. Whoever ends the
/// segment waits for that much.
const MOST: u64 = 4 << 20;
/// And in small segments, so small a part of one.
const MOST_PART: u64 = 16;

/// What goes on beside whoever writes.
#[derive(Debug)]
pub(super) enum Flush {
    Idle,
    Running,
    /// Nobody knows any more what is on disk. A sync by somebody else may not tell, since the system tells of an error once
    /// (Rebello and others, ATC 2020).
    Failed(LogError),
}

/// A sync that is to be run.
pub(super) struct Flushing {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    /// What was written before this is on disk then.
    place: Place,
    since: Tick,
    ended: bool,
}

impl State {
    /// When what is only in the kernel is to be synced, if nothing else syncs it before.
    pub(super) fn flush_at(&self) -> Option<Tick> {
        let since = self.unsynced.filter(|_| matches!(self.flush, Flush::Idle))?;
        Some((self.last_commit + IDLE).min(since + MOST_UNSYNCED))
    }

    /// Begins a sync where there is much to sync, or where it is time.
    pub(super) fn begin_flush(&mut self, shared: &Arc<Shared>, now: Tick) -> Option<Flushing> {
        let at = self.flush_at()?;
        let most = MOST.min(shared.options.segment_bytes / MOST_PART);
        let much = u64::from(self.written.offset.saturating_sub(self.durable.offset)) >= most;
        if self.phase != Phase::Open || (at > now && !much) {
            return None;
        }
        let (_, newest) = self.segments.last_key_value()?;
        self.flush = Flush::Running;
        Some(Flushing {
            shared: Arc::clone(shared),
            file: Arc::clone(&newest.file),
            place: self.written,
            since: now,
            ended: false,
        })
    }
}

impl Flushing {
    /// Runs it where it may block.
    pub(super) fn start(self) {
        let env = self.shared.env.clone();
        env.spawn_blocking(self.run()).detach();
    }

    async fn run(mut self) {
        let watch = self.shared.env.stopwatch();
        let synced = self.file.sync_data().await;
        let took = self.shared.env.stopwatch() - watch;
        self.end(synced.map(|()| took).map_err(|e| LogError::unknown(&e)));
    }

    fn end(&mut self, result: Result<std::time::Duration, LogError>) {
        self.ended = true;
        let shared = &self.shared;
        let mut state = shared.state.lock();
        match result {
            Err(error) => state.flush = Flush::Failed(error),
            Ok(took) => {
                state.flush = Flush::Idle;
                // A segment that is full was synced by whoever ended it.
                if state.durable.segment == self.place.segment && state.durable < self.place {
                    state.synced(self.place, took);
                    state.unsynced = (self.place < state.written).then_some(self.since);
                }
            }
        }
        let task = state.task.take();
        drop(state);
        wake(task);
        shared.flushed.wake_all();
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(LogError::abandoned()));
        }
    }
}

impl Shared {
    /// Waits until no sync goes on beside whoever writes.
    ///
    /// # Errors
    /// When the last one has failed.
    pub(super) async fn flushed(&self) -> Result<(), LogError> {
        let ended = || match &self.state.lock().flush {
            Flush::Idle => Some(Ok(())),
            Flush::Running => None,
            Flush::Failed(error) => Some(Err(error.clone())),
        };
        self.flushed.wait(ended).await
    }

    /// Begins what goes on beside whoever writes, where there is something to do.
    pub(super) fn keep_up(self: &Arc<Self>) {
        let now = self.env.coarse();
        let mut state = self.state.lock();
        let flush = state.begin_flush(self, now);
        let spares = state.begin_keeping(now);
        drop(state);
        flush.into_iter().for_each(Flushing::start);
        if spares {
            super::spare::start(self);
        }
    }
}

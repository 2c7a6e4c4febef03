//! Whose turn it is to write: the caller's own thread when nobody writes, else whoever writes takes the next batch too.

use super::LogError;
use super::flush;
use super::group::{End, Group};
use super::shared::{Job, Phase, Shared, wake};
use super::spare;
use super::writer::{Writer, group_of};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The right to write, which goes back when it is dropped. Whoever then finds something to do takes it, or the task.
pub(super) struct Turn {
    shared: Arc<Shared>,
    writer: Option<Box<Writer>>,
    /// Those who wait for the job that is being done.
    group: Option<Arc<Group>>,
    busy: bool,
}

impl Turn {
    /// Takes the turn, if nobody has it.
    pub(super) fn take(shared: &Arc<Shared>, writer: &mut Option<Box<Writer>>) -> Option<Turn> {
        writer.take().map(|writer| Turn {
            shared: Arc::clone(shared),
            writer: Some(writer),
            group: None,
            busy: false,
        })
    }

    /// Does the job.
    pub(super) async fn run(&mut self, job: Job) {
        self.group = group_of(&job);
        self.busy = true;
        let writer = self.writer.as_mut().expect("it is held until the turn ends");
        writer.run(&self.shared, job).await;
        self.busy = false;
        self.group = None;
    }

    /// Ends the log in good order.
    pub(super) async fn last_mark(&mut self) {
        let writer = self.writer.as_mut().expect("it is held until the turn ends");
        writer.last_mark(&self.shared).await;
        writer.last_summaries(&self.shared).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let shared = &self.shared;
        if self.busy {
            // Given up halfway: nobody knows what is on disk.
            shared.fail(&LogError::abandoned(), self.group.take(), None);
        }
        let now = shared.env.coarse();
        let mut state = shared.state.lock();
        if state.phase == Phase::Closed {
            drop(state);
            // It holds the directory.
            self.writer = None;
            return;
        }
        state.writer = self.writer.take();
        let watched = state.armed || !(state.unmarked || state.unsynced.is_some());
        let needs_task = state.has_jobs() || state.phase != Phase::Open || !watched;
        let task = state.task.take_if(|_| needs_task);
        let flushes = state.begin_flush(shared.options.segment_bytes, now);
        let keeps = state.begin_keeping(now);
        drop(state);
        wake(task);
        if flushes {
            flush::start(shared);
        }
        if keeps {
            spare::start(shared);
        }
    }
}

/// Waits for the end of a commit, and commits on this task when nobody else does.
pub(super) async fn commit_here(shared: &Arc<Shared>, group: &Arc<Group>) -> End {
    let mut seat = None;
    loop {
        if let Some(end) = group.end() {
            return end;
        }
        let found = {
            let mut state = shared.state.lock();
            let state = &mut *state;
            match state.has_jobs() {
                true => Turn::take(shared, &mut state.writer).map(|turn| (turn, state.job())),
                false => None,
            }
        };
        match found {
            Some((mut turn, Some(job))) => turn.run(job).await,
            // Somebody writes, and will see that there is more to do.
            _ => {
                let ended = |cx: &mut Context<'_>| group.poll(&mut seat, cx).map_or(Poll::Pending, Poll::Ready);
                return poll_fn(ended).await;
            }
        }
    }
}

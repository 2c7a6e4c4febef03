//! The task behind a log: it opens it, commits for those who must not block their thread, and sees to what is left when
//! nobody writes, until it is told to stop.

use super::flush::{self, Flush};
use super::handle::Handle;
use super::open::open;
use super::shared::{Job, Phase, Shared, State};
use super::spare;
use super::turn::Turn;
use super::{LogError, LogOptions, Notes, OpenReport};
use crate::env::{Env, Sleep, Tick};
use futures::FutureExt;
use futures::channel::oneshot;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long nothing is written before the log vouches for what it wrote last, and syncs what is only in the kernel.
pub(super) const IDLE: Duration = Duration::from_millis(10);
/// How long something may be only in the kernel while more is written.
pub(super) const MOST_UNSYNCED: Duration = Duration::from_millis(100);

/// Opens the log, says so, and serves it until the last handle is gone.
pub(super) async fn run(
    env: Env,
    dir: PathBuf,
    (options, notes): (LogOptions, Option<Notes>),
    told: oneshot::Sender<Result<(Handle, OpenReport), LogError>>,
) {
    match open(&env, &dir, options, notes).await {
        Ok((shared, report)) => {
            let shared = Arc::new(shared);
            let committer = Committer {
                shared: Arc::clone(&shared),
                timer: None,
            };
            spare::keep(&shared);
            // Whoever asked may be gone; then the handle goes here, which stops the committer at once.
            drop(told.send(Ok((Handle { shared }, report))));
            committer.serve().await;
        }
        Err(error) => drop(told.send(Err(error))),
    }
}

struct Committer {
    shared: Arc<Shared>,
    timer: Option<Sleep>,
}

enum Next {
    Work(Turn, Job),
    Flush,
    Stop(Turn),
}

impl Committer {
    async fn serve(mut self) {
        loop {
            match self.next().await {
                Next::Work(mut turn, job) => self.work(&mut turn, job).await,
                Next::Flush => flush::start(&self.shared),
                Next::Stop(mut turn) => {
                    turn.last_mark().await;
                    break;
                }
            }
        }
    }

    /// Does what there is to do before it lets others write.
    async fn work(&self, turn: &mut Turn, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next {
            turn.run(job).await;
            spare::keep(&self.shared);
            next = self.shared.state.lock().next_job(self.shared.env.coarse());
        }
    }

    /// What to do next. Waits for it.
    async fn next(&mut self) -> Next {
        let Committer { shared, timer } = self;
        poll_fn(|cx| {
            loop {
                let now = shared.env.now();
                let due = {
                    let mut state = shared.state.lock();
                    let state = &mut *state;
                    if let Some(next) = state.next_of_task(shared, now) {
                        return Poll::Ready(next);
                    }
                    state.task = Some(cx.waker().clone());
                    let due = state.due_at();
                    state.armed = timer.is_some() || due.is_some();
                    due
                };
                // One timer serves many commits: it is set anew only when it has fired. What is due already waits for
                // whoever writes.
                if let Some(at) = due.filter(|_| timer.is_none()) {
                    *timer = Some(shared.env.sleep_until(if at > now { at } else { now + IDLE }));
                }
                let Some(sleep) = timer else { return Poll::Pending };
                if sleep.poll_unpin(cx).is_pending() {
                    return Poll::Pending;
                }
                *timer = None;
            }
        })
        .await
    }
}

impl State {
    /// The next job for who keeps on writing: what is only in the kernel is not left there for that.
    fn next_job(&mut self, now: Tick) -> Option<Job> {
        match self.flush_at() {
            Some(at) if at <= now => Some(Job::Sync),
            _ => self.job(),
        }
    }

    /// What the task is to do now.
    fn next_of_task(&mut self, shared: &Arc<Shared>, now: Tick) -> Option<Next> {
        self.writer.as_ref()?;
        if self.begin_flush(shared.options.segment_bytes, now) {
            return Some(Next::Flush);
        }
        let job = self.job().or_else(|| self.due(now));
        let stops = self.phase == Phase::Stopping && !self.spares.working && !matches!(self.flush, Flush::Running);
        if job.is_none() && !stops {
            return None;
        }
        let turn = Turn::take(shared, &mut self.writer)?;
        Some(match job {
            Some(job) => Next::Work(turn, job),
            None => Next::Stop(turn),
        })
    }

    /// When something is to be done about what was written last, if nothing is written meanwhile.
    fn due_at(&self) -> Option<Tick> {
        let mark = self.phase == Phase::Open && self.unmarked && self.unsynced.is_none();
        self.flush_at().or_else(|| mark.then_some(self.last_commit + IDLE))
    }

    fn due(&mut self, now: Tick) -> Option<Job> {
        // Whoever syncs finds out that nothing can be trusted any more.
        if self.phase == Phase::Open && matches!(self.flush, Flush::Failed(_)) {
            return Some(Job::Sync);
        }
        match self.unsynced {
            None if self.due_at().is_some_and(|at| at <= now) => self.mark(),
            _ => None,
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.ended();
    }
}

//! A model of what is behind the hand-off: one batch that appends add to, and a writer that may take its time.

use crate::env::{Env, Tick};
use crate::flush::Flush;
use crate::group::{End, Group};
use crate::sync::Mutex;
use crate::wait::Wait;
use crate::{LogError, LogOptions};
use loom::cell::UnsafeCell;
use loom::sync::Notify;
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The task is not woken.
    WakesNobody,
    /// Whoever ends a turn takes it that a timer will see to the rest.
    TimerForgotten,
}

thread_local! {
    /// Of the model that this thread runs.
    pub(crate) static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
}

pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) options: LogOptions,
    pub(crate) state: Mutex<State>,
    /// Told when as much is written as somebody waits for, and when it is vouched for.
    pub(crate) news: Notify,
}

pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) writer: Option<Box<Writer>>,
    pub(crate) task: Option<Waker>,
    pub(crate) armed: bool,
    pub(crate) unmarked: bool,
    pub(crate) unsynced: Option<Tick>,
    pub(crate) flush: Flush,
    pub(crate) last_commit: Tick,
    pub(crate) spares: Spares,
    /// Appends that wait, and who waits for them.
    batch: Option<(u64, Arc<Group>)>,
    next: u64,
    pub(crate) written: u64,
    /// How much written is news.
    pub(crate) wanted: u64,
    /// Whether commits are vouched for.
    pub(crate) marks: bool,
    /// Whether the writer waits for the disk.
    pub(crate) slow: bool,
}

pub(crate) struct Spares {
    pub(crate) working: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Stopping,
    Poisoned,
    Closed,
}

pub(crate) enum Job {
    Batch(u64, Arc<Group>),
    Mark,
    Sync,
}

/// What only one at a time may touch.
#[derive(Default)]
pub(crate) struct Writer {
    disk: UnsafeCell<u64>,
}

pub(crate) fn group_of(job: &Job) -> Option<Arc<Group>> {
    match job {
        Job::Batch(_, group) => Some(Arc::clone(group)),
        Job::Mark | Job::Sync => None,
    }
}

impl Writer {
    pub(crate) async fn run(&mut self, shared: &Shared, job: Job) {
        self.disk.with_mut(|disk| {
            let _own: *mut u64 = disk;
        });
        let mut waited = !shared.state.lock().slow;
        poll_fn(|cx| match std::mem::replace(&mut waited, true) {
            true => Poll::Ready(()),
            false => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
        let mut state = shared.state.lock();
        match job {
            Job::Batch(appends, group) => {
                state.written += appends;
                state.unmarked = state.marks;
                state.armed |= FAULT.get() == Fault::TimerForgotten;
                let is_news = state.written >= state.wanted && !state.marks;
                drop(state);
                group.finish(End::Whole);
                if is_news {
                    shared.news.notify();
                }
            }
            Job::Mark | Job::Sync => {
                let is_news = state.written >= state.wanted && !state.unmarked;
                drop(state);
                if is_news {
                    shared.news.notify();
                }
            }
        }
    }

    pub(crate) async fn last_mark(&mut self, shared: &Shared) {
        shared.state.lock().unmarked = false;
    }

    pub(crate) async fn last_summaries(&mut self, _: &Shared) {}
}

impl Shared {
    pub(crate) fn new(env: Env) -> Shared {
        let state = State {
            phase: Phase::Open,
            writer: Some(Box::default()),
            task: None,
            armed: false,
            unmarked: false,
            unsynced: None,
            flush: Flush::Idle,
            last_commit: Tick::default(),
            spares: Spares { working: false },
            batch: None,
            next: 0,
            written: 0,
            wanted: u64::MAX,
            marks: false,
            slow: false,
        };
        Shared {
            env,
            options: LogOptions::default(),
            state: Mutex::new(state),
            news: Notify::new(),
        }
    }

    pub(crate) fn append(self: &Arc<Self>) -> Result<Wait, LogError> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(LogError::Poisoned);
        }
        state.next += 1;
        let (count, group) = state.batch.get_or_insert_with(|| (0, Arc::new(Group::new())));
        *count += 1;
        let group = Arc::clone(group);
        Ok(Wait::new(self, group, state.next))
    }

    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open | Phase::Poisoned) {
            state.phase = Phase::Stopping;
        }
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    pub(crate) fn fail(&self, error: &LogError, failed: Option<Arc<Group>>, _: Option<()>) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Poisoned;
        }
        state.unmarked = false;
        let undone = state.batch.take().map(|(_, group)| group);
        let end = End::Failed(state.written, error.clone());
        drop(state);
        failed
            .into_iter()
            .chain(undone)
            .for_each(|group| group.finish(end.clone()));
    }

    pub(crate) fn ended(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        let undone = state.batch.take();
        let writer = state.writer.take();
        drop(state);
        drop(writer);
        assert!(undone.is_none(), "the task ends when nothing waits");
    }
}

impl State {
    pub(crate) fn has_jobs(&self) -> bool {
        self.batch.is_some()
    }

    pub(crate) fn job(&mut self) -> Option<Job> {
        self.batch.take().map(|(appends, group)| Job::Batch(appends, group))
    }

    pub(crate) fn mark(&mut self) -> Option<Job> {
        self.unmarked = false;
        (!self.has_jobs()).then_some(Job::Mark)
    }

    pub(crate) fn flush_at(&self) -> Option<Tick> {
        None
    }

    pub(crate) fn begin_flush(&mut self, _: u64, _: Tick) -> bool {
        false
    }

    pub(crate) fn begin_keeping(&mut self, _: Tick) -> bool {
        // No files are made ahead here.
        false
    }
}

pub(crate) fn wake(task: Option<Waker>) {
    if let Some(task) = task
        && FAULT.get() != Fault::WakesNobody
    {
        task.wake();
    }
}

use super::tasks::TaskId;
use crate::sync::{AtomicBool, Mutex, Ordering};
use futures::task::ArcWake;
use std::sync::Arc;

/// Tasks woken through their wakers and not yet queued. This lock is taken last and nothing runs under it, so wakers
/// may be called from anywhere.
#[derive(Default)]
pub(super) struct Woken {
    any: AtomicBool,
    list: Mutex<Vec<TaskId>>,
}

impl Woken {
    /// Hands over every task woken since the last time.
    #[inline]
    pub(super) fn drain(&self, each: impl FnMut(TaskId)) {
        if self.any.swap(false, Ordering::Acquire) {
            self.list.lock().drain(..).for_each(each);
        }
    }
}

/// The waker of one task, made once.
pub(super) struct TaskWaker {
    id: TaskId,
    /// Whether it is in the list, or was since the task was last polled: once is enough.
    listed: AtomicBool,
    woken: Arc<Woken>,
}

impl TaskWaker {
    pub(super) fn new(id: TaskId, woken: &Arc<Woken>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            listed: AtomicBool::new(false),
            woken: Arc::clone(woken),
        })
    }

    /// Notes that the task is about to be polled.
    pub(super) fn reset(&self) {
        // A swap on both sides: a wake-up that finds the flag set is seen by the poll that clears it.
        self.listed.swap(false, Ordering::AcqRel);
    }
}

impl ArcWake for TaskWaker {
    fn wake_by_ref(this: &Arc<TaskWaker>) {
        if !this.listed.swap(true, Ordering::AcqRel) {
            this.woken.list.lock().push(this.id);
            this.woken.any.store(true, Ordering::Release);
        }
    }
}

//! Waiting for a commit, wherever it is written.

use super::LogError;
use super::group::{Group, Pending};
use super::shared::{Shared, wake};
use super::turn::commit_here;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Waits for a commit.
pub(super) struct Wait {
    shared: Arc<Shared>,
    group: Arc<Group>,
    /// What has a number from here on is none of its business.
    end: u64,
    seat: Option<usize>,
    /// Whether somebody has been asked to write.
    asked: bool,
}

impl Wait {
    pub(super) fn new(shared: &Arc<Shared>, group: Arc<Group>, end: u64) -> Wait {
        Wait {
            shared: Arc::clone(shared),
            group,
            end,
            seat: None,
            asked: false,
        }
    }

    /// Waits on this task, which writes when nobody else does.
    pub(super) async fn here(&mut self) -> Result<(), LogError> {
        self.asked = true;
        commit_here(&self.shared, &self.group).await.of(self.end)
    }

    /// Sees to it that somebody writes.
    fn ask(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            let mut state = self.shared.state.lock();
            // Whoever writes looks for more before it stops.
            let idle = state.writer.is_some() && state.has_jobs();
            let task = state.task.take_if(|_| idle);
            drop(state);
            wake(task);
        }
    }
}

impl Future for Wait {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Wait { group, seat, end, .. } = &mut *self;
        match group.poll(seat, cx) {
            Ok(ended) => {
                let result = ended.of(*end);
                (self.seat, self.asked) = (None, true);
                Poll::Ready(result)
            }
            Err(Pending::Asked) => {
                self.asked = true;
                Poll::Pending
            }
            Err(Pending::Ask) => {
                self.ask();
                Poll::Pending
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.group.leave(seat);
        }
        self.ask();
    }
}

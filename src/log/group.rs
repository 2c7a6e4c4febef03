//! How those who wait for one commit are told of its end: each is woken once.

use super::LogError;
use crate::sync::Mutex;
use std::task::{Context, Waker};

/// The end of one commit, which several wait for.
#[derive(Debug)]
pub(super) struct Group {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open {
        wakers: Vec<Option<Waker>>,
        /// Whether one of those who wait has seen to it that somebody writes.
        asked: bool,
    },
    Done(End),
}

impl State {
    fn new() -> State {
        State::Open {
            wakers: Vec::new(),
            asked: false,
        }
    }
}

/// What a look at a commit that has not ended tells.
pub(super) enum Pending {
    /// Somebody writes, or has been asked to.
    Asked,
    /// Whoever looked is to see to it that somebody writes.
    Ask,
}

/// How a commit ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Whole,
    /// What has numbers before the first is in the log, the rest has failed.
    Failed(u64, LogError),
}

impl End {
    /// What it means for entries that end before number `end`.
    pub(super) fn of(&self, end: u64) -> Result<(), LogError> {
        match self {
            End::Failed(from, error) if end > *from => Err(error.clone()),
            End::Whole | End::Failed(..) => Ok(()),
        }
    }
}

impl Group {
    pub(super) fn new() -> Group {
        Group {
            state: Mutex::new(State::new()),
        }
    }

    /// One that has ended.
    pub(super) fn ended(end: End) -> Group {
        Group {
            state: Mutex::new(State::Done(end)),
        }
    }

    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        match &*self.state.lock() {
            State::Open { .. } => None,
            State::Done(end) => Some(end.clone()),
        }
    }

    /// Waits for the end. `seat` is where this waiter's waker is kept; it begins as `None`.
    pub(super) fn poll(&self, seat: &mut Option<usize>, cx: &Context<'_>) -> Result<End, Pending> {
        // Dropped behind the lock: what goes with a waker may wait for the same.
        let mut _old = None;
        let mut state = self.state.lock();
        match &mut *state {
            State::Done(end) => Ok(end.clone()),
            State::Open { wakers, asked } => {
                match *seat {
                    Some(at) if wakers[at].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) => {}
                    Some(at) => _old = wakers[at].replace(cx.waker().clone()),
                    None => {
                        *seat = Some(wakers.len());
                        wakers.push(Some(cx.waker().clone()));
                    }
                }
                Err(match std::mem::replace(asked, true) {
                    true => Pending::Asked,
                    false => Pending::Ask,
                })
            }
        }
    }

    /// The waiter at `seat` waits no more.
    pub(super) fn leave(&self, seat: usize) {
        let gone = match &mut *self.state.lock() {
            State::Open { wakers, .. } => wakers[seat].take(),
            State::Done(_) => None,
        };
        drop(gone);
    }

    /// Ends it, and wakes each who waits, once.
    pub(super) fn finish(&self, end: End) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Done(end));
        if let State::Open { wakers, .. } = before {
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

//! How those who wait for one commit are told of its end: each is woken once, by whoever ends it, or by one who was woken
//! before. To wake a thread that sleeps costs several microseconds, and the kernel may let it run at once in the place of
//! the one that woke it: then those whom it has in its care would be woken one by one, and it would sleep and wake between
//! them, if it did not take over.

use super::LogError;
use crate::sync::Mutex;
use std::iter::Flatten;
use std::task::{Context, Waker};
use std::vec::IntoIter;

/// How many are woken by one before others may take over.
const AT_ONCE: usize = 16;

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
    Done {
        end: End,
        /// Those who are still to be woken.
        rest: Flatten<IntoIter<Option<Waker>>>,
    },
}

impl State {
    fn new() -> State {
        State::Open {
            wakers: Vec::new(),
            asked: false,
        }
    }

    fn done(end: End, wakers: Vec<Option<Waker>>) -> State {
        State::Done {
            end,
            rest: wakers.into_iter().flatten(),
        }
    }

    /// The next of those who are to be woken, once the lock is free.
    fn next_to_wake(&mut self) -> Vec<Waker> {
        match self {
            State::Open { .. } => Vec::new(),
            State::Done { rest, .. } => rest.take(AT_ONCE).collect(),
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
            state: Mutex::new(State::done(end, Vec::new())),
        }
    }

    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        match &*self.state.lock() {
            State::Open { .. } => None,
            State::Done { end, .. } => Some(end.clone()),
        }
    }

    /// Waits for the end. `seat` is where this waiter's waker is kept; it begins as `None`.
    pub(super) fn poll(&self, seat: &mut Option<usize>, cx: &Context<'_>) -> Result<End, Pending> {
        // Dropped behind the lock: what goes with a waker may wait for the same.
        let mut _old = None;
        let mut state = self.state.lock();
        let end = match &mut *state {
            State::Done { end, .. } => end.clone(),
            State::Open { wakers, asked } => {
                match *seat {
                    Some(at) if wakers[at].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) => {}
                    Some(at) => _old = wakers[at].replace(cx.waker().clone()),
                    None => {
                        *seat = Some(wakers.len());
                        wakers.push(Some(cx.waker().clone()));
                    }
                }
                return Err(match std::mem::replace(asked, true) {
                    true => Pending::Asked,
                    false => Pending::Ask,
                });
            }
        };
        let others = state.next_to_wake();
        drop(state);
        others.into_iter().for_each(Waker::wake);
        Ok(end)
    }

    /// The waiter at `seat` waits no more.
    pub(super) fn leave(&self, seat: usize) {
        let gone = match &mut *self.state.lock() {
            State::Open { wakers, .. } => wakers[seat].take(),
            // Woken for nothing, if it still is.
            State::Done { .. } => None,
        };
        drop(gone);
    }

    /// Ends it, and wakes each who waits, once.
    pub(super) fn finish(&self, end: End) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Open { wakers, .. } => *state = State::done(end, std::mem::take(wakers)),
            State::Done { end: before, .. } => *before = end,
        }
        loop {
            let some = state.next_to_wake();
            drop(state);
            if some.is_empty() {
                return;
            }
            some.into_iter().for_each(Waker::wake);
            state = self.state.lock();
        }
    }
}

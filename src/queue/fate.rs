use super::Result;
use crate::sync::Mutex;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// What becomes of an append that is on its way, for those who wait for it: each is woken once.
#[derive(Debug)]
pub(super) struct Fate {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Vec<Option<Waker>>),
    /// With those who still have to be woken.
    Told(Result<()>, Vec<Option<Waker>>),
}

impl Default for Fate {
    fn default() -> Fate {
        Fate {
            state: Mutex::new(State::Open(Vec::new())),
        }
    }
}

impl Fate {
    /// Settles it. Whoever waits still has to be [woken](Fate::wake).
    pub(super) fn tell(&self, result: Result<()>) {
        let mut state = self.state.lock();
        if let State::Open(waiting) = &mut *state {
            let waiting = std::mem::take(waiting);
            *state = State::Told(result, waiting);
        }
    }

    pub(super) fn wake(&self) {
        let waiting = match &mut *self.state.lock() {
            State::Open(_) => Vec::new(),
            State::Told(_, waiting) => std::mem::take(waiting),
        };
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits until it is settled.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(super) async fn wait(&self) -> Result<()> {
        let mut seat = Seat { of: self, at: None };
        poll_fn(|cx| seat.poll(cx)).await
    }
}

/// The place of one who waits.
struct Seat<'a> {
    of: &'a Fate,
    at: Option<usize>,
}

impl Seat<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<()>> {
        // Dropped behind the lock: what goes with a waker may have a seat here.
        let mut old = None;
        let mut state = self.of.state.lock();
        match &mut *state {
            State::Told(result, _) => {
                self.at = None;
                Poll::Ready(result.clone())
            }
            State::Open(waiting) => {
                match self.at {
                    Some(at) if waiting[at].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) => {}
                    Some(at) => old = waiting[at].replace(cx.waker().clone()),
                    None => {
                        self.at = Some(waiting.len());
                        waiting.push(Some(cx.waker().clone()));
                    }
                }
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(at) = self.at else { return };
        let gone = match &mut *self.of.state.lock() {
            State::Open(waiting) => waiting[at].take(),
            State::Told(..) => None,
        };
        drop(gone);
    }
}

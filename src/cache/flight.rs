use crate::sync::Mutex;
use futures::future::BoxFuture;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What a load came to. Errors are of whatever type the loader has; who waits with another type loads for itself.
pub(super) type Outcome<V> = Result<V, Arc<dyn Any + Send + Sync>>;

/// A loader at work.
pub(super) type Work<V> = BoxFuture<'static, Outcome<V>>;

/// One load and all who wait for it.
///
/// One of them, the driver, polls the loader; the others sleep until it has landed. When the driver goes away the
/// loader stays as it is, and who came next drives on. When the loader panics, the panic is its driver's, and who
/// comes next starts a loader of its own.
pub(super) struct Flight<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    stage: Stage<V>,
    /// Who polls the loader; nobody while the flight is empty.
    driver: Option<Seat>,
    /// Who sleeps, in the order of their coming.
    waiting: BTreeMap<Seat, Waker>,
    aboard: usize,
    next_seat: Seat,
}

/// A place among those who wait, numbered in the order of their coming.
pub(super) type Seat = u64;

enum Stage<V> {
    /// No loader was started, or it panicked.
    Grounded,
    /// The loader waits to be polled.
    Parked(Work<V>),
    /// The driver polls the loader right now.
    Polled,
    /// It is over.
    Landed(Arc<Outcome<V>>),
    /// Everyone left before the end; nobody may board any more.
    Abandoned,
}

impl<V> Flight<V> {
    /// A flight with its first passenger, who drives.
    pub(super) fn new() -> (Flight<V>, Seat) {
        let state = State {
            stage: Stage::Grounded,
            driver: Some(0),
            waiting: BTreeMap::new(),
            aboard: 1,
            next_seat: 1,
        };
        let state = Mutex::new(state);
        (Flight { state }, 0)
    }

    /// Takes a seat, unless everyone had left already.
    pub(super) fn board(&self) -> Option<Seat> {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Abandoned) {
            return None;
        }
        let seat = state.next_seat;
        state.next_seat += 1;
        state.aboard += 1;
        Some(seat)
    }

    /// Gives up a seat, and hands the loader on if it was the driver's. True when it was the last.
    pub(super) fn leave(&self, seat: Seat) -> bool {
        let mut state = self.state.lock();
        state.aboard -= 1;
        state.waiting.remove(&seat);
        if state.aboard == 0 {
            // What the loader or its value do when dropped is theirs, so not under the lock.
            let stage = std::mem::replace(&mut state.stage, Stage::Abandoned);
            drop(state);
            drop(stage);
            return true;
        }
        if state.driver == Some(seat) {
            // Who boarded and has not been polled yet finds the place free when it is.
            let heir = state.waiting.pop_first();
            state.driver = heir.as_ref().map(|(seat, _)| *seat);
            drop(state);
            if let Some((_, waker)) = heir {
                waker.wake();
            }
        }
        false
    }

    /// Waits for the end, driving if it is this seat's turn: `start` makes a loader where there is none, and `land`
    /// is called with its outcome before anyone hears of it.
    pub(super) fn poll(
        &self,
        seat: Seat,
        cx: &mut Context<'_>,
        start: impl FnOnce() -> Work<V>,
        land: impl FnOnce(&Outcome<V>),
    ) -> Poll<Arc<Outcome<V>>> {
        let parked = {
            let mut state = self.state.lock();
            if let Stage::Landed(outcome) = &state.stage {
                return Poll::Ready(Arc::clone(outcome));
            }
            if *state.driver.get_or_insert(seat) != seat {
                state.waiting.insert(seat, cx.waker().clone());
                return Poll::Pending;
            }
            state.waiting.remove(&seat);
            match std::mem::replace(&mut state.stage, Stage::Polled) {
                Stage::Parked(work) => Some(work),
                _ => None,
            }
        };
        let mut turn = Turn {
            flight: self,
            next: Some(Stage::Grounded),
        };
        let mut work = parked.unwrap_or_else(start);
        match work.as_mut().poll(cx) {
            Poll::Pending => {
                turn.next = Some(Stage::Parked(work));
                Poll::Pending
            }
            Poll::Ready(outcome) => {
                drop(work);
                land(&outcome);
                let outcome = Arc::new(outcome);
                turn.next = Some(Stage::Landed(Arc::clone(&outcome)));
                Poll::Ready(outcome)
            }
        }
    }
}

/// The driver's turn at the loader. It ends with the stage that follows, [`Stage::Grounded`] when the loader panics.
struct Turn<'a, V> {
    flight: &'a Flight<V>,
    next: Option<Stage<V>>,
}

impl<V> Drop for Turn<'_, V> {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        if let Some(next) = self.next.take() {
            state.stage = next;
        }
        if matches!(state.stage, Stage::Landed(_)) {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

impl<V> fmt::Debug for Flight<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Flight")
            .field("aboard", &state.aboard)
            .field("driver", &state.driver)
            .finish_non_exhaustive()
    }
}

use super::InsertOptions;
use crate::env::Tick;
use crate::sync::Mutex;
use futures::future::BoxFuture;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a loader yields.
pub(super) struct Loaded<V> {
    /// `None` says that there is no value.
    pub(super) value: Option<V>,
    pub(super) options: InsertOptions,
}

/// Why a load has no outcome to give.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The loader's error, of whatever type it has; who waits with another type loads for itself.
    Error(Arc<dyn Any + Send + Sync>),
    /// It took longer than this.
    TimedOut(Duration),
    /// The call that loaded this and more went down with a panic; who waits loads for itself.
    Lost,
}

/// How a load ended, for whoever stores it.
pub(super) type Ended<V> = Result<Loaded<V>, Failure>;

/// How a load ended, for those who wait.
pub(super) type Outcome<V> = Result<Option<V>, Failure>;

/// A loader at work.
pub(super) type Work<V> = BoxFuture<'static, Ended<V>>;

/// A loader that has been started.
pub(super) enum Start<V> {
    /// It is to be polled.
    Work(Work<V>),
    /// It blocked until it was over.
    Done(Ended<V>),
}

/// One load and all who wait for it.
///
/// One of them, the driver, polls the loader; the others sleep until it has landed. When the driver goes away the
/// loader stays as it is, and who came next drives on. When the loader panics, the panic is its driver's, and who
/// comes next starts a loader of its own. When it is past its time, whoever notices first ends it for all.
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
    /// When it has to be over, if ever.
    due: Option<Tick>,
}

/// A place among those who wait, numbered in the order of their coming.
pub(super) type Seat = u64;

enum Stage<V> {
    /// No loader was started, or it panicked.
    Grounded,
    /// The loader waits to be polled.
    Parked(Work<V>),
    /// The driver polls the loader, or blocks in it, right now.
    Polled,
    /// It is over, and somebody stores what came of it.
    Landing,
    /// All may know what came of it.
    Landed(Arc<Outcome<V>>),
    /// Everyone left before the end; nobody may board any more.
    Abandoned,
}

/// What a passenger finds.
enum Step<V> {
    Over(Arc<Outcome<V>>),
    Wait,
    /// It is its turn at the loader, or at starting one.
    Drive(Option<Work<V>>),
}

impl<V> Flight<V> {
    /// A flight that is to be over when `due` comes, with its first passenger, who drives.
    pub(super) fn new(due: Option<Tick>) -> (Flight<V>, Seat) {
        let state = State {
            stage: Stage::Grounded,
            driver: Some(0),
            waiting: BTreeMap::new(),
            aboard: 1,
            next_seat: 1,
            due,
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

    /// Whether everyone left before the end.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Abandoned)
    }

    /// Gives up a seat, and hands the loader on if it was the driver's. True when it was the last.
    pub(super) fn leave(&self, seat: Seat) -> bool {
        let mut state = self.state.lock();
        state.aboard -= 1;
        let own = state.waiting.remove(&seat);
        if state.aboard == 0 {
            // What the loader or its value do when dropped is theirs, so not under the lock.
            let stage = std::mem::replace(&mut state.stage, Stage::Abandoned);
            drop(state);
            drop((own, stage));
            return true;
        }
        let mut heir = None;
        if state.driver == Some(seat) {
            // Who boarded and has not been polled yet finds the place free when it is.
            heir = state.waiting.pop_first();
            state.driver = heir.as_ref().map(|(seat, _)| *seat);
        }
        drop(state);
        drop(own);
        if let Some((_, waker)) = heir {
            waker.wake();
        }
        false
    }

    /// When it has to be over, if it has to and is not.
    pub(super) fn due(&self) -> Option<Tick> {
        self.state.lock().due
    }

    /// Waits for the end, driving if it is this seat's turn: `start` makes a loader where there is none, to be over when
    /// `due` comes, and `land` is called with what came of it before anyone hears of it.
    pub(super) fn poll(
        &self,
        seat: Seat,
        cx: &mut Context<'_>,
        due: Option<Tick>,
        start: impl FnOnce() -> Start<V>,
        land: impl FnOnce(&Ended<V>),
    ) -> Poll<Arc<Outcome<V>>> {
        let parked = match self.step(seat, cx, due) {
            Step::Over(outcome) => return Poll::Ready(outcome),
            Step::Wait => return Poll::Pending,
            Step::Drive(parked) => parked,
        };
        let turn = Turn::of_driver(self);
        let mut work = match parked.map_or_else(start, Start::Work) {
            Start::Done(ended) => return Poll::Ready(turn.land(ended, land)),
            Start::Work(work) => work,
        };
        match work.as_mut().poll(cx) {
            Poll::Pending => turn.park(work, seat, cx),
            Poll::Ready(ended) => {
                drop(work);
                Poll::Ready(turn.land(ended, land))
            }
        }
    }

    fn step(&self, seat: Seat, cx: &Context<'_>, due: Option<Tick>) -> Step<V> {
        let mut state = self.state.lock();
        if let Stage::Landed(outcome) = &state.stage {
            return Step::Over(Arc::clone(outcome));
        }
        let lands = matches!(state.stage, Stage::Landing);
        if lands || *state.driver.get_or_insert(seat) != seat {
            let old = state.waiting.insert(seat, cx.waker().clone());
            drop(state);
            drop(old);
            return Step::Wait;
        }
        let old = state.waiting.remove(&seat);
        let parked = match std::mem::replace(&mut state.stage, Stage::Polled) {
            Stage::Parked(work) => Some(work),
            _ => None,
        };
        if parked.is_none() {
            state.due = due;
        }
        drop(state);
        drop(old);
        Step::Drive(parked)
    }

    /// Waits for the end without a turn at the loader.
    pub(super) fn poll_ended(&self, seat: Seat, cx: &Context<'_>) -> Poll<Arc<Outcome<V>>> {
        let mut state = self.state.lock();
        if let Stage::Landed(outcome) = &state.stage {
            return Poll::Ready(Arc::clone(outcome));
        }
        let old = state.waiting.insert(seat, cx.waker().clone());
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// Ends it for all who wait if its time is over at `now`, a limit of `after`. A driver that blocks in the loader goes
    /// on, and keeps what comes of it for itself; one that sleeps in it is not woken, and has to have a timer of its own.
    pub(super) fn expire(&self, now: Tick, after: Duration, land: impl FnOnce(&Ended<V>)) {
        let mut state = self.state.lock();
        let is_due = state.due.is_some_and(|due| due <= now);
        if !is_due || matches!(state.stage, Stage::Landing | Stage::Landed(_) | Stage::Abandoned) {
            return;
        }
        let stage = std::mem::replace(&mut state.stage, Stage::Landing);
        drop(state);
        Turn::of_other(self).finish(Err(Failure::TimedOut(after)), land);
        // The loader goes last: what it does when dropped is its own.
        drop(stage);
    }
}

/// A turn at the loader, or at landing. One that ends without a word ended in a panic, and leaves the flight without a
/// loader.
struct Turn<'a, V> {
    flight: &'a Flight<V>,
    is_driver: bool,
    lands: bool,
    over: bool,
}

impl<'a, V> Turn<'a, V> {
    fn of_driver(flight: &'a Flight<V>) -> Turn<'a, V> {
        Turn {
            flight,
            is_driver: true,
            lands: false,
            over: false,
        }
    }

    fn of_other(flight: &'a Flight<V>) -> Turn<'a, V> {
        Turn {
            flight,
            is_driver: false,
            lands: true,
            over: false,
        }
    }

    /// Puts the loader back until it is woken.
    fn park(mut self, work: Work<V>, seat: Seat, cx: &Context<'_>) -> Poll<Arc<Outcome<V>>> {
        self.over = true;
        let mut state = self.flight.state.lock();
        if matches!(state.stage, Stage::Polled) {
            state.stage = Stage::Parked(work);
            return Poll::Pending;
        }
        // Its time ran out while it was polled.
        drop(state);
        drop(work);
        self.flight.poll_ended(seat, cx)
    }

    /// Lands with what the driver's loader came to. Where its time had run out, that is the driver's alone.
    fn land(mut self, ended: Ended<V>, land: impl FnOnce(&Ended<V>)) -> Arc<Outcome<V>> {
        let mut state = self.flight.state.lock();
        if !matches!(state.stage, Stage::Polled) {
            self.over = true;
            drop(state);
            return Arc::new(ended.map(|loaded| loaded.value));
        }
        state.stage = Stage::Landing;
        self.lands = true;
        drop(state);
        self.finish(ended, land)
    }

    /// Ends what is landing.
    fn finish(mut self, ended: Ended<V>, land: impl FnOnce(&Ended<V>)) -> Arc<Outcome<V>> {
        land(&ended);
        let outcome = Arc::new(ended.map(|loaded| loaded.value));
        let mut state = self.flight.state.lock();
        self.over = true;
        state.stage = Stage::Landed(Arc::clone(&outcome));
        state.due = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().for_each(Waker::wake);
        outcome
    }
}

impl<V> Drop for Turn<'_, V> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.flight.state.lock();
        let mine = match state.stage {
            Stage::Polled => !self.lands,
            Stage::Landing => self.lands,
            _ => false,
        };
        if !mine {
            return;
        }
        state.stage = Stage::Grounded;
        if !self.is_driver {
            // The driver may be asleep in a loader that is gone.
            state.driver = None;
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
            .field("due", &state.due)
            .finish_non_exhaustive()
    }
}

use super::faults::{FaultCounts, FaultKind};
use super::machine::Incarnation;
use super::tasks::{Job, ROOT, Running, TaskId, Tasks};
use super::timers::{Timers, Wake};
use super::trace::{Event, Trace, Tracer};
use super::waker::Woken;
use crate::env::{Rng, Tick, TimerId};
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

/// Polls in a row without time moving after which the world is said to run in circles.
const STANDSTILL: u64 = if cfg!(test) { 1_000_000 } else { 100_000_000 };

/// Virtual time and the tasks in it: a seeded, single-threaded executor.
///
/// All state is behind one lock that is never held while foreign code runs: not while a future is polled or dropped,
/// nor while a waker of someone else's making is woken or dropped.
pub(super) struct Executor {
    now: AtomicU64,
    state: Mutex<State>,
    woken: Arc<Woken>,
}

struct State {
    tasks: Tasks,
    timers: Timers,
    /// The task being polled, and the address of its waker.
    current: Option<(TaskId, usize)>,
    rng: Rng,
    tracer: Tracer,
    faults: FaultCounts,
    /// What must run between two polls.
    deferred: VecDeque<Deferred>,
    /// Polls since time last moved.
    still: u64,
    closed: bool,
    /// Emptied between uses; kept for its memory.
    firing: Vec<Waker>,
}

pub(super) type Deferred = Box<dyn FnOnce() + Send>;

/// What the caller's loop does next.
pub(super) enum Next {
    Root,
    Poll(Running),
    /// A task whose machine died under it.
    Bury(Job),
    Do(Deferred),
    /// Nothing can ever run again.
    Nothing,
}

impl Executor {
    pub(super) fn new(rng: Rng) -> Executor {
        let woken = Arc::new(Woken::default());
        let state = State {
            tasks: Tasks::new(&woken),
            timers: Timers::new(),
            current: None,
            rng,
            tracer: Tracer::default(),
            faults: FaultCounts::default(),
            deferred: VecDeque::new(),
            still: 0,
            closed: false,
            firing: Vec::new(),
        };
        Executor {
            now: AtomicU64::new(0),
            state: Mutex::new(state),
            woken,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Tick {
        Tick::from_nanos(self.now.load(Ordering::Relaxed))
    }

    /// The waker of the future given to `run`, which is made ready for its first poll.
    pub(super) fn root(&self) -> Waker {
        let mut state = self.state.lock();
        state.tasks.queue(ROOT);
        state.tasks.root_waker()
    }

    pub(super) fn spawn(&self, owner: &Arc<Incarnation>, name: Option<&str>, job: Job) {
        let mut state = self.state.lock();
        // The owner is looked at under the lock that its death takes to collect its tasks, so none slips through.
        if state.closed || !owner.is_alive() {
            drop(state);
            return drop(job);
        }
        state.tasks.spawn(owner, name, job, &self.woken);
    }

    /// Takes back the task just polled, and decides what is next; moves time when nothing is ready.
    pub(super) fn next(&self, polled: Option<Running>) -> Next {
        let mut guard = self.state.lock();
        guard.current = None;
        if let Some(job) = polled.and_then(|running| guard.tasks.put_back(running)) {
            return Next::Bury(job);
        }
        loop {
            let state = &mut *guard;
            self.woken.drain(|id| state.tasks.queue_woken(id));
            if let Some(deferred) = state.deferred.pop_front() {
                return Next::Do(deferred);
            }
            if let Some(slot) = state.tasks.pick(&mut state.rng) {
                return state.start(slot, self.now());
            }
            let tasks = &state.tasks;
            let Some(at) = state.timers.advance(self.now(), |id| tasks.peek(id.slot)) else {
                return Next::Nothing;
            };
            self.now.store(at.as_nanos(), Ordering::Relaxed);
            state.still = 0;
            let mut firing = state.fire();
            if !firing.is_empty() {
                drop(guard);
                firing.drain(..).for_each(Waker::wake);
                guard = self.state.lock();
            }
            guard.firing = firing;
        }
    }

    pub(super) fn arm(&self, at: Tick, waker: &Waker) -> TimerId {
        let mut state = self.state.lock();
        // A task that waits for time itself, which most do, is named by its slot: nothing to count or to allocate.
        let wake = match &state.current {
            Some((task, current)) if *current == address(waker) => Wake::Task(*task),
            _ => Wake::Waker(waker.clone()),
        };
        state.timers.arm(at, wake)
    }

    pub(super) fn disarm(&self, timer: TimerId) {
        let wake = self.state.lock().timers.disarm(timer);
        drop(wake);
    }

    /// Runs `work` between two polls.
    pub(super) fn defer(&self, work: Deferred) {
        self.state.lock().deferred.push_back(work);
    }

    /// Takes away the tasks of an incarnation that is no longer alive; the caller drops them.
    pub(super) fn take_tasks(&self, of: &Arc<Incarnation>) -> Vec<Job> {
        let mut state = self.state.lock();
        state.tasks.remove(|owner| Arc::ptr_eq(owner, of))
    }

    /// Ends the world: takes away all tasks, and refuses new ones from now on.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut state = self.state.lock();
        state.closed = true;
        let tasks = state.tasks.remove(|_| true);
        // What was put off holds the world from within.
        let deferred = std::mem::take(&mut state.deferred);
        drop(state);
        drop(deferred);
        tasks
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(super) fn note(&self, text: &str) {
        let now = self.now();
        self.state.lock().tracer.text(Event::Note, now, text);
    }

    /// Counts `n` faults of a kind.
    pub(super) fn fault(&self, kind: FaultKind, n: u64, machine: &str) {
        if n > 0 {
            let now = self.now();
            let mut state = self.state.lock();
            state.faults.add(kind, n);
            state.tracer.event(Event::Fault, kind as u64, n);
            state.tracer.line(now, || format!("{machine}: fault: {kind} x {n}"));
        }
    }

    /// Traces a disk operation by a digest of what it was and how it ended.
    pub(super) fn disk(&self, digest: u64, line: impl FnOnce() -> String) {
        let now = self.now();
        let mut state = self.state.lock();
        state.tracer.event(Event::Disk, now.as_nanos(), digest);
        state.tracer.line(now, line);
    }

    pub(super) fn faults(&self) -> FaultCounts {
        self.state.lock().faults.clone()
    }

    pub(super) fn record(&self, on: bool) {
        self.state.lock().tracer.record(on);
    }

    pub(super) fn trace(&self) -> Trace {
        self.state.lock().tracer.trace()
    }

    /// How many tasks are alive, and the names of the first `limit`.
    pub(super) fn pending(&self, limit: usize) -> (usize, Vec<String>) {
        let state = self.state.lock();
        (state.tasks.labels().count(), state.tasks.labels().take(limit).collect())
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.state.lock().tasks.slots()
    }
}

impl State {
    fn start(&mut self, slot: u32, now: Tick) -> Next {
        let tasks = &mut self.tasks;
        self.still += 1;
        assert!(
            self.still < STANDSTILL,
            "the world runs in circles: {STANDSTILL} polls at {now:?} without waiting for anything; ready: {:?}",
            tasks.ready().take(10).map(|slot| tasks.label(slot)).collect::<Vec<_>>(),
        );
        self.tracer.event(Event::Poll, now.as_nanos(), tasks.number(slot));
        self.tracer.line(now, || format!("poll {}", tasks.label(slot)));
        self.current = Some((tasks.id(slot), tasks.begin(slot, address)));
        match slot {
            ROOT => Next::Root,
            slot => Next::Poll(tasks.take(slot)),
        }
    }

    /// Queues the tasks whose timers are due, and returns the wakers that must be woken outside the lock.
    fn fire(&mut self) -> Vec<Waker> {
        let mut firing = std::mem::take(&mut self.firing);
        while let Some((timer, wake)) = self.timers.take() {
            self.tracer.event(Event::Timer, timer.at.as_nanos(), timer.seq);
            self.tracer.line(timer.at, || "timer".to_owned());
            match wake {
                Wake::Task(id) if self.tasks.queue_if_alive(id) => {}
                // Its sleep outlived the task that armed it, and another task may be waiting for it now.
                Wake::Task(_) => self.tasks.queue_all(),
                Wake::Waker(waker) => firing.push(waker),
            }
        }
        firing
    }
}

/// What tells the waker of one task from that of another. (The function table does not help: it may be compiled twice.)
fn address(waker: &Waker) -> usize {
    waker.data().addr()
}

use super::faults::{FaultCounts, FaultKind};
use super::machine::Incarnation;
use super::timers::{Timers, Wake};
use super::trace::{Event, Trace, Tracer};
use crate::env::{Rng, Tick, TimerId, waker_id};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use futures::future::BoxFuture;
use futures::task::{ArcWake, waker_ref};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Polls in a row without time moving after which the world is said to run in circles.
const STANDSTILL: u64 = if cfg!(test) { 1_000_000 } else { 100_000_000 };
/// The slot of the future that [`World::run`](super::World::run) was given.
const ROOT: u32 = 0;

/// Virtual time and the tasks in it: a seeded, single-threaded executor.
///
/// All state is behind one lock that is never held while foreign code runs: not while a future is polled or dropped,
/// nor while a waker of someone else's making is woken or dropped. Wakers of the executor's own take only the small
/// lock of [`Woken`], so they may be called from anywhere.
pub(super) struct Executor {
    now: AtomicU64,
    state: Mutex<State>,
    woken: Arc<Woken>,
}

struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose task is to be polled, each once.
    ready: Vec<u32>,
    timers: Timers,
    /// The task being polled, and how its waker looks.
    current: Option<Current>,
    rng: Rng,
    tracer: Tracer,
    faults: FaultCounts,
    /// What must run between two polls.
    deferred: VecDeque<Deferred>,
    spawned: u64,
    /// Polls since time last moved.
    still: u64,
    closed: bool,
    /// Emptied between uses; kept for its memory.
    firing: Vec<Waker>,
}

pub(super) type Deferred = Box<dyn FnOnce() + Send>;
type Job = BoxFuture<'static, ()>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// One cache line each: a timer of one among very many tasks finds all of it cold.
#[repr(align(64))]
struct Slot {
    generation: u32,
    queued: bool,
    /// Woken through its waker, whose flag is to be cleared.
    listed: bool,
    /// Its machine died while it was being polled.
    doomed: bool,
    /// Absent while being polled, and in a free slot.
    job: Option<Job>,
    waker: Option<Arc<TaskWaker>>,
    owner: Option<Arc<Incarnation>>,
    name: Option<Box<str>>,
    number: u64,
}

struct Current {
    id: TaskId,
    waker: (usize, usize),
}

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

/// A task taken out of its slot to be polled.
pub(super) struct Running {
    slot: u32,
    waker: Arc<TaskWaker>,
    job: Option<Job>,
}

impl Running {
    /// Polls the task once; a finished one is dropped here, outside every lock.
    pub(super) fn poll(&mut self) {
        let waker = waker_ref(&self.waker);
        let job = self.job.as_mut().expect("a task being polled has its future");
        if job.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.job = None;
        }
    }
}

impl Executor {
    pub(super) fn new(rng: Rng) -> Executor {
        let woken = Arc::new(Woken::default());
        let root = Slot {
            number: 0,
            ..Slot::vacant(0)
        };
        let mut state = State {
            slots: vec![root],
            free: Vec::new(),
            ready: Vec::new(),
            timers: Timers::new(),
            current: None,
            rng,
            tracer: Tracer::default(),
            faults: FaultCounts::default(),
            deferred: VecDeque::new(),
            spawned: 0,
            still: 0,
            closed: false,
            firing: Vec::new(),
        };
        state.slots[ROOT as usize].waker = Some(TaskWaker::new(state.id(ROOT), &woken));
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
        state.queue(ROOT);
        let waker = state.slots[ROOT as usize].waker.as_ref();
        futures::task::waker(Arc::clone(waker.expect("the root slot keeps its waker")))
    }

    pub(super) fn spawn(&self, owner: &Arc<Incarnation>, name: Option<&str>, job: Job) {
        let mut state = self.state.lock();
        // The owner is looked at under the lock that its death takes to collect its tasks, so none slips through.
        if state.closed || !owner.is_alive() {
            drop(state);
            return drop(job);
        }
        let slot = state.free.pop().unwrap_or_else(|| {
            state.slots.push(Slot::vacant(0));
            u32::try_from(state.slots.len() - 1).expect("fewer than 2^32 tasks at once")
        });
        state.spawned += 1;
        let waker = TaskWaker::new(state.id(slot), &self.woken);
        state.slots[slot as usize] = Slot {
            job: Some(job),
            waker: Some(waker),
            owner: Some(Arc::clone(owner)),
            name: name.map(Box::from),
            number: state.spawned,
            ..Slot::vacant(state.slots[slot as usize].generation)
        };
        state.queue(slot);
    }

    /// Takes back the task just polled, and decides what is next; moves time when nothing is ready.
    pub(super) fn next(&self, polled: Option<Running>) -> Next {
        let mut state = self.state.lock();
        state.current = None;
        if let Some(job) = polled.and_then(|running| state.put_back(running)) {
            return Next::Bury(job);
        }
        loop {
            state.drain(&self.woken);
            if let Some(deferred) = state.deferred.pop_front() {
                return Next::Do(deferred);
            }
            if let Some(slot) = state.pick() {
                return state.start(slot, self.now());
            }
            let Some(at) = state.advance(self.now()) else {
                return Next::Nothing;
            };
            self.now.store(at.as_nanos(), Ordering::Relaxed);
            state.still = 0;
            let mut firing = state.fire();
            if !firing.is_empty() {
                drop(state);
                firing.drain(..).for_each(Waker::wake);
                state = self.state.lock();
            }
            state.firing = firing;
        }
    }

    pub(super) fn arm(&self, at: Tick, waker: &Waker) -> TimerId {
        let mut state = self.state.lock();
        // A task that waits for time itself, which most do, is named by its slot: nothing to count or to allocate.
        let wake = match &state.current {
            Some(current) if current.waker == waker_id(waker) => Wake::Task(current.id),
            _ => Wake::Waker(waker.clone()),
        };
        state.timers.arm(at, wake)
    }

    pub(super) fn disarm(&self, timer: TimerId) {
        let wake = self.state.lock().timers.disarm(timer);
        drop(wake);
    }

    /// Slots made so far: the most tasks that there were at once, and the root.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.state.lock().slots.len()
    }

    /// Runs `work` between two polls.
    pub(super) fn defer(&self, work: Deferred) {
        self.state.lock().deferred.push_back(work);
    }

    /// Takes away the tasks of an incarnation that is no longer alive; the caller drops them.
    pub(super) fn take_tasks(&self, of: &Arc<Incarnation>) -> Vec<Job> {
        self.take(|owner| Arc::ptr_eq(owner, of))
    }

    /// Ends the world: takes away all tasks, and refuses new ones from now on.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut state = self.state.lock();
        state.closed = true;
        // What was put off would hold the world from within.
        let deferred = std::mem::take(&mut state.deferred);
        drop(state);
        drop(deferred);
        self.take(|_| true)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn take(&self, of: impl Fn(&Arc<Incarnation>) -> bool) -> Vec<Job> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut taken = Vec::new();
        for slot in 0..state.slots.len() {
            let task = &mut state.slots[slot];
            if !task.owner.as_ref().is_some_and(&of) {
                continue;
            }
            match task.job.take() {
                Some(job) => {
                    taken.push(job);
                    task.queued = false;
                    state.release(slot as u32);
                }
                None => task.doomed = true,
            }
        }
        let slots = &state.slots;
        state.ready.retain(|slot| slots[*slot as usize].queued);
        taken
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
    pub(super) fn disk(&self, a: u64, b: u64, line: impl FnOnce() -> String) {
        let now = self.now();
        let mut state = self.state.lock();
        state.tracer.event(Event::Disk, a, b);
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
        let tasks = || state.slots.iter().filter(|slot| slot.owner.is_some());
        (tasks().count(), tasks().take(limit).map(Slot::label).collect())
    }
}

impl State {
    fn id(&self, slot: u32) -> TaskId {
        let generation = self.slots[slot as usize].generation;
        TaskId { slot, generation }
    }

    fn queue(&mut self, slot: u32) {
        let task = &mut self.slots[slot as usize];
        if !task.queued {
            task.queued = true;
            self.ready.push(slot);
        }
    }

    fn queue_listed(&mut self, id: TaskId) {
        if self.id(id.slot) == id {
            self.slots[id.slot as usize].listed = true;
            self.queue(id.slot);
        }
    }

    fn queue_all(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            if slot == ROOT || self.slots[slot as usize].owner.is_some() {
                self.queue(slot);
            }
        }
    }

    fn drain(&mut self, woken: &Woken) {
        if woken.any.swap(false, Ordering::Acquire) {
            let mut list = woken.list.lock();
            for id in list.drain(..) {
                self.queue_listed(id);
            }
        }
    }

    /// Takes one of the ready tasks, each as likely as the next.
    fn pick(&mut self) -> Option<u32> {
        let pick = match self.ready.len() {
            0 => return None,
            1 => 0,
            n => self.rng.index(n),
        };
        Some(self.ready.swap_remove(pick))
    }

    fn start(&mut self, slot: u32, now: Tick) -> Next {
        self.still += 1;
        assert!(
            self.still < STANDSTILL,
            "the world runs in circles: {STANDSTILL} polls at {now:?} without waiting for anything; ready: {:?}",
            self.ready
                .iter()
                .take(10)
                .map(|slot| self.slots[*slot as usize].label())
                .collect::<Vec<_>>(),
        );
        let id = self.id(slot);
        let task = &mut self.slots[slot as usize];
        task.queued = false;
        self.tracer.event(Event::Poll, now.as_nanos(), task.number);
        self.tracer.line(now, || format!("poll {}", task.label()));
        let waker = task
            .waker
            .as_ref()
            .expect("a task that is not being polled has its waker");
        if std::mem::take(&mut task.listed) {
            waker.listed.swap(false, Ordering::AcqRel);
        }
        self.current = Some(Current {
            id,
            waker: waker_id(&waker_ref(waker)),
        });
        if slot == ROOT {
            return Next::Root;
        }
        Next::Poll(Running {
            slot,
            waker: task.waker.take().expect("looked at just above"),
            job: task.job.take(),
        })
    }

    /// Gives back the future when its machine died meanwhile.
    fn put_back(&mut self, running: Running) -> Option<Job> {
        let task = &mut self.slots[running.slot as usize];
        let doomed = task.doomed;
        if running.job.is_some() && !doomed {
            task.job = running.job;
            task.waker = Some(running.waker);
            return None;
        }
        self.release(running.slot);
        running.job
    }

    /// Frees the slot; wakers and timers of the old generation no longer mean anything.
    fn release(&mut self, slot: u32) {
        let generation = self.slots[slot as usize].generation.wrapping_add(1);
        if self.slots[slot as usize].queued {
            self.ready.retain(|ready| *ready != slot);
        }
        self.slots[slot as usize] = Slot::vacant(generation);
        self.free.push(slot);
    }

    /// Moves time to the next timer.
    fn advance(&mut self, now: Tick) -> Option<Tick> {
        let slots = &self.slots;
        self.timers.advance(now, |id| slots[id.slot as usize].generation)
    }

    /// Queues the tasks whose timers are due, and returns the wakers that must be woken outside the lock.
    fn fire(&mut self) -> Vec<Waker> {
        let mut firing = std::mem::take(&mut self.firing);
        while let Some((timer, wake)) = self.timers.take() {
            self.tracer.event(Event::Timer, timer.at.as_nanos(), timer.seq);
            self.tracer.line(timer.at, || "timer".to_owned());
            match wake {
                Wake::Task(id) if self.id(id.slot) == id => self.queue(id.slot),
                // Its sleep outlived the task that armed it, and another task may be waiting for it now.
                Wake::Task(_) => self.queue_all(),
                Wake::Waker(waker) => firing.push(waker),
            }
        }
        firing
    }
}

impl Slot {
    fn vacant(generation: u32) -> Slot {
        Slot {
            generation,
            queued: false,
            listed: false,
            doomed: false,
            job: None,
            waker: None,
            owner: None,
            name: None,
            number: 0,
        }
    }

    fn label(&self) -> String {
        match (&self.owner, &self.name) {
            (None, _) => "the future given to run".to_owned(),
            (Some(owner), Some(name)) => format!("{}/{name}", owner.machine()),
            (Some(owner), None) => format!("{}/task {}", owner.machine(), self.number),
        }
    }
}

/// Tasks woken through their wakers and not yet queued, each once.
#[derive(Default)]
struct Woken {
    any: AtomicBool,
    list: Mutex<Vec<TaskId>>,
}

pub(super) struct TaskWaker {
    id: TaskId,
    /// Woken since it was last polled.
    listed: AtomicBool,
    woken: Arc<Woken>,
}

impl TaskWaker {
    fn new(id: TaskId, woken: &Arc<Woken>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            listed: AtomicBool::new(false),
            woken: Arc::clone(woken),
        })
    }
}

impl ArcWake for TaskWaker {
    fn wake_by_ref(this: &Arc<TaskWaker>) {
        // A swap on both sides: a wake-up that finds the flag set is seen by the poll that clears it.
        if !this.listed.swap(true, Ordering::AcqRel) {
            this.woken.list.lock().push(this.id);
            this.woken.any.store(true, Ordering::Release);
        }
    }
}

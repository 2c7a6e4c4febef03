use super::machine::Incarnation;
use super::waker::{TaskWaker, Woken};
use crate::env::Rng;
use futures::future::BoxFuture;
use futures::task::waker_ref;
use std::sync::Arc;
use std::task::{Context, Waker};

pub(super) type Job = BoxFuture<'static, ()>;

/// The slot of the future that [`World::run`](super::World::run) was given.
pub(super) const ROOT: u32 = 0;

/// Names a task; its slot may be another's once it has ended, and then the generation differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// All tasks, and which of them are ready.
pub(super) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose task is to be polled, each once.
    ready: Vec<u32>,
    spawned: u64,
}

/// One cache line each: a timer of one among very many tasks finds all of it cold.
#[repr(align(64))]
struct Slot {
    generation: u32,
    queued: bool,
    /// Woken through its waker, which is to be reset.
    listed: bool,
    /// Its machine died while it was being polled.
    doomed: bool,
    /// Absent while being polled, in the root's slot and in a free one.
    job: Option<Job>,
    /// Absent while being polled, and in a free slot.
    waker: Option<Arc<TaskWaker>>,
    owner: Option<Arc<Incarnation>>,
    name: Option<Box<str>>,
    number: u64,
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

impl Tasks {
    /// No tasks, but for the root.
    pub(super) fn new(woken: &Arc<Woken>) -> Tasks {
        let mut tasks = Tasks {
            slots: vec![Slot::vacant(0)],
            free: Vec::new(),
            ready: Vec::new(),
            spawned: 0,
        };
        tasks.slots[ROOT as usize].waker = Some(TaskWaker::new(tasks.id(ROOT), woken));
        tasks
    }

    pub(super) fn spawn(&mut self, owner: &Arc<Incarnation>, name: Option<&str>, job: Job, woken: &Arc<Woken>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::vacant(0));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 tasks at once")
        });
        self.spawned += 1;
        let id = self.id(slot);
        self.slots[slot as usize] = Slot {
            job: Some(job),
            waker: Some(TaskWaker::new(id, woken)),
            owner: Some(Arc::clone(owner)),
            name: name.map(Box::from),
            number: self.spawned,
            ..Slot::vacant(id.generation)
        };
        self.queue(slot);
    }

    pub(super) fn id(&self, slot: u32) -> TaskId {
        let generation = self.slots[slot as usize].generation;
        TaskId { slot, generation }
    }

    /// The task's number, in the order of spawning; 0 for the root.
    pub(super) fn number(&self, slot: u32) -> u64 {
        self.slots[slot as usize].number
    }

    /// What a reader is told of the task.
    pub(super) fn label(&self, slot: u32) -> String {
        self.slots[slot as usize].label()
    }

    pub(super) fn root_waker(&self) -> Waker {
        let waker = self.slots[ROOT as usize].waker.as_ref();
        futures::task::waker(Arc::clone(waker.expect("the root slot keeps its waker")))
    }

    pub(super) fn queue(&mut self, slot: u32) {
        let task = &mut self.slots[slot as usize];
        if !task.queued {
            task.queued = true;
            self.ready.push(slot);
        }
    }

    /// Queues a task if it is still there, and says whether it is.
    pub(super) fn queue_if_alive(&mut self, id: TaskId) -> bool {
        let alive = self.id(id.slot) == id;
        if alive {
            self.queue(id.slot);
        }
        alive
    }

    /// Queues a task that was woken through its waker.
    pub(super) fn queue_woken(&mut self, id: TaskId) {
        if self.queue_if_alive(id) {
            self.slots[id.slot as usize].listed = true;
        }
    }

    pub(super) fn queue_all(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            if slot == ROOT || self.slots[slot as usize].owner.is_some() {
                self.queue(slot);
            }
        }
    }

    /// Takes one of the ready tasks, each as likely as the next.
    pub(super) fn pick(&mut self, rng: &mut Rng) -> Option<u32> {
        let pick = match self.ready.len() {
            0 => return None,
            1 => 0,
            n => rng.index(n),
        };
        Some(self.ready.swap_remove(pick))
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = u32> {
        self.ready.iter().copied()
    }

    /// Notes that a picked task is about to be polled; `look` sees its waker.
    pub(super) fn begin<T>(&mut self, slot: u32, look: impl FnOnce(&Waker) -> T) -> T {
        let task = &mut self.slots[slot as usize];
        task.queued = false;
        let waker = task.waker.as_ref();
        let waker = waker.expect("a task that is not being polled has its waker");
        if std::mem::take(&mut task.listed) {
            waker.reset();
        }
        look(&waker_ref(waker))
    }

    /// Takes a task out of its slot to be polled.
    pub(super) fn take(&mut self, slot: u32) -> Running {
        let task = &mut self.slots[slot as usize];
        Running {
            slot,
            waker: task.waker.take().expect("a task is taken once before it is put back"),
            job: task.job.take(),
        }
    }

    /// Puts back a task that was polled. Gives back its future when its machine died meanwhile.
    pub(super) fn put_back(&mut self, running: Running) -> Option<Job> {
        let task = &mut self.slots[running.slot as usize];
        if running.job.is_some() && !task.doomed {
            task.job = running.job;
            task.waker = Some(running.waker);
            return None;
        }
        let queued = task.queued;
        self.release(running.slot);
        if queued {
            self.forget_released();
        }
        running.job
    }

    /// Takes away the tasks of those owners; one that is being polled is given back by [`put_back`](Tasks::put_back).
    pub(super) fn remove(&mut self, of: impl Fn(&Arc<Incarnation>) -> bool) -> Vec<Job> {
        let mut removed = Vec::new();
        for slot in 0..self.slots.len() {
            let task = &mut self.slots[slot];
            if !task.owner.as_ref().is_some_and(&of) {
                continue;
            }
            match task.job.take() {
                Some(job) => {
                    removed.push(job);
                    self.release(slot as u32);
                }
                None => task.doomed = true,
            }
        }
        self.forget_released();
        removed
    }

    /// Labels of the tasks that are alive.
    pub(super) fn labels(&self) -> impl Iterator<Item = String> {
        let alive = self.slots.iter().filter(|slot| slot.owner.is_some());
        alive.map(Slot::label)
    }

    /// Reads from a task's slot, to have it in the cache.
    pub(super) fn peek(&self, slot: u32) -> u32 {
        self.slots[slot as usize].generation
    }

    /// The most tasks that there were at once, and the root.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Frees the slot; wakers and timers of the old generation no longer mean anything.
    fn release(&mut self, slot: u32) {
        let generation = self.slots[slot as usize].generation.wrapping_add(1);
        self.slots[slot as usize] = Slot::vacant(generation);
        self.free.push(slot);
    }

    fn forget_released(&mut self) {
        let slots = &self.slots;
        self.ready.retain(|slot| slots[*slot as usize].queued);
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

use super::executor::{Executor, Next};
use super::machine::{Machine, MachineState};
use super::{FaultCounts, Trace};
use crate::env::{Env, Rng, Tick};
use crate::hash::KeyedHash;
use crate::sync::{AtomicBool, Mutex, Ordering};
use futures::FutureExt;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

/// Pending tasks that a deadlock names before it only counts.
const NAMED: usize = 20;

/// A world in virtual time whose every delay, fault and random choice follows from one seed.
///
/// It has machines, each with a disk and tasks of its own. Nothing happens outside [`run`](World::run). A clone is a
/// handle to the same world; when the last is gone, so are all tasks. (A task that holds a handle itself keeps the
/// world alive until the task ends.)
///
/// ```
/// use outgrow::sim::World;
/// use std::time::Duration;
///
/// let world = World::new(7);
/// let env = world.env();
/// let start = world.now();
/// world.run(async { env.sleep(Duration::from_secs(3600)).await });
/// assert_eq!(world.now() - start, Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct World {
    owner: Arc<Owner>,
}

/// What all handles share; machines and environments hold only the parts that they need, so nothing goes in circles.
struct Owner {
    seed: u64,
    executor: Arc<Executor>,
    machines: Mutex<BTreeMap<String, Arc<MachineState>>>,
    rng: Mutex<Rng>,
    running: AtomicBool,
}

impl World {
    /// The world that `seed` names.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World {
            owner: Arc::new(Owner {
                seed,
                executor: Arc::new(Executor::new(derive(seed, "executor"))),
                machines: Mutex::default(),
                rng: Mutex::new(derive(seed, "world")),
                running: AtomicBool::new(false),
            }),
        }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.owner.seed
    }

    /// The environment of the machine called "main".
    #[must_use]
    pub fn env(&self) -> Env {
        self.machine("main").env()
    }

    /// The machine called `name`, made when first asked for: a disk, a clock and a crash domain of its own.
    #[must_use]
    pub fn machine(&self, name: &str) -> Machine {
        let mut machines = self.owner.machines.lock();
        let state = machines.entry(name.to_owned()).or_insert_with(|| {
            let rng = derive(self.owner.seed, &format!("machine {name}"));
            Arc::new(MachineState::new(Arc::clone(&self.owner.executor), name, rng))
        });
        Machine::new(Arc::clone(state))
    }

    /// Runs the world until `future` is ready. Of the tasks that are ready, chance picks the next; when none is, time
    /// jumps to the next timer. Tasks still pending at the end go on in the next run.
    ///
    /// The future itself belongs to no machine and survives every crash. What it and the tasks wait for must come
    /// from this world: no real thread may have to finish first.
    ///
    /// # Panics
    /// When nothing can ever run again (a deadlock; the message names the tasks that wait), when the tasks run in
    /// circles without time passing (100 million polls), and when called from inside a run.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut output = None;
        self.drive(pin!(future.map(|answer| output = Some(answer))));
        output.expect("broken invariant: the world ran until the future was ready")
    }

    fn drive(&self, mut root: Pin<&mut dyn Future<Output = ()>>) {
        let _running = Running::start(&self.owner.running);
        let executor = &self.owner.executor;
        let waker = executor.root();
        let mut polled = None;
        loop {
            match executor.next(polled.take()) {
                Next::Poll(mut task) => {
                    task.poll();
                    polled = Some(task);
                }
                Next::Root => {
                    if root.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        return;
                    }
                }
                Next::Bury(job) => drop(job),
                Next::Do(work) => work(),
                Next::Nothing => panic!("{}", self.deadlock()),
            }
        }
    }

    /// Runs the world for a stretch of time.
    ///
    /// # Panics
    /// As [`run`](World::run).
    pub fn run_for(&self, duration: Duration) {
        let sleep = self.env().sleep(duration);
        self.run(sleep);
    }

    /// The virtual time, from zero.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.owner.executor.now()
    }

    /// A generator of its own for the part of a test called `name`; each call gives another.
    #[must_use]
    pub fn rng(&self, name: &str) -> Rng {
        self.owner.rng.lock().fork(name)
    }

    /// Every fault injected so far, by kind.
    #[must_use]
    pub fn faults(&self) -> FaultCounts {
        self.owner.executor.faults()
    }

    /// What happened so far, as a digest; with the lines if they are [recorded](World::record).
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.owner.executor.trace()
    }

    /// Adds an event of the test's own to the trace.
    pub fn note(&self, text: impl AsRef<str>) {
        self.owner.executor.note(text.as_ref());
    }

    /// Keeps a line for every event from now on, the first million, or forgets them. Off by default: it is slow.
    pub fn record(&self, on: bool) {
        self.owner.executor.record(on);
    }

    #[cfg(test)]
    pub(super) fn executor(&self) -> &Executor {
        &self.owner.executor
    }

    fn deadlock(&self) -> String {
        let (count, names) = self.owner.executor.pending(NAMED);
        let more = count - names.len();
        let others = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!(
            "deadlock at {:?} with seed {}: no task is ready and no timer is armed, but the future given to run still \
             waits, and so do {count} tasks: [{}]{others}",
            self.now(),
            self.seed(),
            names.join(", "),
        )
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed())
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let tasks = self.executor.close();
        drop(tasks);
        let machines = std::mem::take(&mut *self.machines.lock());
        for machine in machines.values() {
            machine.close();
        }
    }
}

/// Holds the world's only run.
struct Running<'a>(&'a AtomicBool);

impl<'a> Running<'a> {
    fn start(running: &'a AtomicBool) -> Running<'a> {
        let nested = running.swap(true, Ordering::AcqRel);
        assert!(
            !nested,
            "a world runs already: await the future instead of running it inside a run"
        );
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The generator of the part called `name`: parts do not disturb each other's draws.
fn derive(seed: u64, name: &str) -> Rng {
    Rng::seeded(KeyedHash::new(seed, 0).hash(name.as_bytes()))
}

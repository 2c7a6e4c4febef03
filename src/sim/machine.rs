use super::disk::{DiskState, SimDisk};
use super::executor::Executor;
use super::faults::{DiskOp, FaultKind, Faults, Inject};
use super::model::DiskModel;
use crate::env::{Clock, Env, Rng, Spawn, Tick, TimerId, WallTime};
use crate::sync::{AtomicBool, Mutex, Ordering};
use futures::future::BoxFuture;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

/// The wall clock at the start of every world: 2026-01-01, in milliseconds since 1970.
const START: i64 = 1_767_225_600_000;

/// One machine of a [`World`](super::World): a disk, a wall clock, and the tasks that die together when it does.
///
/// A clone is a handle to the same machine.
///
/// ```
/// use outgrow::env::OpenMode;
/// use outgrow::sim::World;
/// use std::path::Path;
///
/// let world = World::new(7);
/// let machine = world.machine("n1");
/// let env = machine.env();
/// world.run(async {
///     let file = env.disk().open(Path::new("a"), OpenMode::New).await?;
///     file.write_at(b"hello", 0).await?;
///     file.sync_data().await?;
///     env.disk().sync_dir(Path::new("")).await
/// })?;
/// machine.crash();
/// assert_eq!(machine.read_file("a").as_deref(), Some(b"hello".as_slice()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Machine {
    state: Arc<MachineState>,
}

impl Machine {
    pub(super) fn new(state: Arc<MachineState>) -> Machine {
        Machine { state }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The environment of the machine's present incarnation, the same one until it dies.
    ///
    /// Its tasks and files end with [`crash`](Machine::crash) or [`kill`](Machine::kill); what still holds it then
    /// finds that every disk operation fails and every spawned future is dropped. Ask again for the next one.
    #[must_use]
    pub fn env(&self) -> Env {
        let mut present = self.state.present.lock();
        match &*present {
            Some(present) => present.env.clone(),
            None => {
                let new = self.state.boot();
                let env = new.env.clone();
                // Nothing may be kept once the world is gone: it would keep itself alive.
                if !self.state.executor.is_closed() {
                    *present = Some(new);
                }
                env
            }
        }
    }

    /// Cuts the power: drops the machine's tasks, and of what the disk was not made to sync keeps what chance says,
    /// sector by sector and name by name. What was synced is never lost. A disk operation that somebody else still holds
    /// in flight has not happened, and fails when polled.
    pub fn crash(&self) {
        self.end(FaultKind::Crash);
    }

    /// Kills the machine's processes (SIGKILL): drops its tasks. The files stay as they are, synced or not.
    pub fn kill(&self) {
        self.end(FaultKind::Kill);
    }

    fn end(&self, how: FaultKind) {
        let state = &self.state;
        state.executor.fault(how, 1, &state.name);
        // Operations in flight are settled while their tasks are dropped, before the disk forgets.
        state.end_tasks();
        let end = state.disk.lock().end(how == FaultKind::Crash);
        for (kind, n) in end {
            state.executor.fault(kind, n, &state.name);
        }
    }

    /// Sets what goes wrong by chance from now on; it outlives crashes.
    pub fn set_faults(&self, faults: Faults) {
        self.state.disk.lock().faults = faults;
    }

    /// Sets how fast and how large the disk is from now on; it outlives crashes.
    pub fn set_disk(&self, model: DiskModel) {
        self.state.disk.lock().model = model;
    }

    /// Puts a fault at the operation of kind `op` that is the `nth` from now, 0 being the next.
    pub fn inject(&self, op: DiskOp, nth: u64, fault: Inject) {
        self.state.disk.lock().plan(op, nth, fault);
    }

    /// How many operations of kind `op` have begun so far: what a test that injects a fault at each of them counts
    /// first.
    #[must_use]
    pub fn ops(&self, op: DiskOp) -> u64 {
        self.state.disk.lock().ops(op)
    }

    /// Flips one durable bit of a file, counted from its start, and drops the clean cached copy of its sector, so that
    /// the next read sees it. Returns whether the file has such a durable bit.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) -> bool {
        let flipped = self.state.disk.lock().flip(path.as_ref(), bit);
        self.state
            .executor
            .fault(FaultKind::BitFlip, u64::from(flipped), &self.state.name);
        flipped
    }

    /// Makes this machine's wall clock jump by so many milliseconds, on top of earlier jumps.
    pub fn skew_wall(&self, millis: i64) {
        let mut skew = self.state.skew.lock();
        *skew = skew.saturating_add(millis);
        drop(skew);
        self.state.executor.fault(FaultKind::ClockSkew, 1, &self.state.name);
    }

    /// The paths of all files, sorted, without a leading slash.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.state.disk.lock().files()
    }

    /// What a reader of the file sees at this moment, synced or not.
    #[must_use]
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state.disk.lock().read_file(path.as_ref())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// What outlives the machine's incarnations.
pub(super) struct MachineState {
    pub(super) executor: Arc<Executor>,
    pub(super) name: Arc<str>,
    pub(super) disk: Mutex<DiskState>,
    rng: Mutex<Rng>,
    /// Milliseconds that the wall clock is ahead.
    skew: Mutex<i64>,
    present: Mutex<Option<Present>>,
}

struct Present {
    incarnation: Arc<Incarnation>,
    env: Env,
}

impl MachineState {
    pub(super) fn new(executor: Arc<Executor>, name: &str, mut rng: Rng) -> MachineState {
        MachineState {
            executor,
            name: name.into(),
            disk: Mutex::new(DiskState::new(rng.fork("disk"))),
            rng: Mutex::new(rng),
            skew: Mutex::new(0),
            present: Mutex::new(None),
        }
    }

    fn boot(self: &Arc<MachineState>) -> Present {
        let incarnation = Arc::new(Incarnation {
            number: self.disk.lock().incarnation(),
            machine: Arc::clone(&self.name),
            alive: AtomicBool::new(true),
        });
        let clock = || SimClock {
            machine: Arc::clone(self),
        };
        let spawn = SimSpawn {
            executor: Arc::clone(&self.executor),
            incarnation: Arc::clone(&incarnation),
        };
        let env = Env::builder()
            .clock(clock())
            .seed(self.rng.lock().next_u64())
            .disk(SimDisk::new(
                Arc::clone(self),
                Arc::clone(&incarnation),
                Arc::new(clock()),
            ))
            .spawn(spawn)
            .build();
        Present { incarnation, env }
    }

    /// Ends the present incarnation, if there is one.
    fn end_tasks(&self) {
        let present = self.present.lock().take();
        if let Some(present) = present {
            present.incarnation.alive.store(false, Ordering::Relaxed);
            let tasks = self.executor.take_tasks(&present.incarnation);
            drop(tasks);
        }
    }

    /// Lets go of everything that holds this machine from within.
    pub(super) fn close(&self) {
        self.end_tasks();
    }
}

/// One life of a machine, from boot to death.
pub(super) struct Incarnation {
    number: u64,
    machine: Arc<str>,
    alive: AtomicBool,
}

impl Incarnation {
    pub(super) fn machine(&self) -> &str {
        &self.machine
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }
}

/// Virtual time, with the machine's own wall clock.
pub(super) struct SimClock {
    machine: Arc<MachineState>,
}

impl Clock for SimClock {
    fn now(&self) -> Tick {
        self.machine.executor.now()
    }

    fn coarse(&self) -> Tick {
        self.machine.executor.now()
    }

    fn wall(&self) -> WallTime {
        let since = i64::try_from(self.now().as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let skew = *self.machine.skew.lock();
        let wall = START.saturating_add(since).saturating_add(skew);
        WallTime::from_millis(u64::try_from(wall).unwrap_or(0))
    }

    fn arm(&self, at: Tick, waker: &Waker) -> TimerId {
        self.machine.executor.arm(at, waker)
    }

    fn disarm(&self, timer: TimerId) {
        self.machine.executor.disarm(timer);
    }
}

/// Tasks of one incarnation; all kinds of task are alike here.
struct SimSpawn {
    executor: Arc<Executor>,
    incarnation: Arc<Incarnation>,
}

impl Spawn for SimSpawn {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.executor.spawn(&self.incarnation, None, future);
    }

    fn spawn_dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> io::Result<()> {
        self.executor.spawn(&self.incarnation, Some(name), future);
        Ok(())
    }

    fn spawn_blocking(&self, future: BoxFuture<'static, ()>) {
        self.executor.spawn(&self.incarnation, None, future);
    }
}

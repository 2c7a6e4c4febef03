//! Time, chance, files and tasks: the one seam between the blocks and the world.
//!
//! Every block takes an [`Env`] from its builder (`.env(env)`) and asks it for everything that is not a pure
//! function of its input. In production that is [`Env::system`] (or `Env::tokio` with the feature `tokio`); under the
//! feature `sim` it is a machine of a simulated world, where one seed decides every delay, fault and random choice.
//!
//! ```
//! use outgrow::env::Env;
//! use std::time::Duration;
//!
//! let env = Env::system();
//! let start = env.now();
//! futures::executor::block_on(env.sleep(Duration::from_millis(5)));
//! assert!(env.now() - start >= Duration::from_millis(5));
//! ```

mod clock;
mod disk;
pub(crate) mod files;
mod park;
mod rng;
mod spawn;
mod system;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(feature = "tokio")]
mod tokio;

pub use clock::{Clock, Elapsed, Sleep, Tick, TimerId, WallTime};
pub(crate) use disk::write_zeros_at;
pub use disk::{DirLock, Disk, DiskFuture, File, OpenMode, read_exact_at, write_all_at, zero_all_at};
pub(crate) use park::{give_way, may_work_here, wait};
pub use rng::Rng;
pub use spawn::{Spawn, Task, TaskGone};
#[cfg(feature = "tokio")]
pub(crate) use tokio::{has_tokio, may_block};

use crate::sync::Mutex;
use futures::future::BoxFuture;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A handle to the world a block lives in: clock, randomness, disk and tasks. Cheap to clone.
///
/// `Env::default()` is the current tokio runtime when the feature `tokio` is on and one is running, else
/// [`Env::system`].
#[derive(Clone)]
pub struct Env {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    rng: Mutex<Rng>,
    disk: Arc<dyn Disk>,
    spawn: Arc<dyn Spawn>,
    spawner: Option<Spawner>,
}

/// Hands a future to the user's runtime.
type Spawner = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

impl Env {
    /// The operating system: real time, real files, a small thread pool shared by the whole process.
    ///
    /// Threads (two for tasks, one for timers, up to sixteen for blocking work) start when first needed.
    #[must_use]
    pub fn system() -> Env {
        Env::builder().build()
    }

    /// The operating system, with tasks on the tokio runtime that is current.
    ///
    /// # Errors
    /// When no tokio runtime is running on this thread.
    #[cfg(feature = "tokio")]
    pub fn tokio() -> io::Result<Env> {
        Ok(Env::builder().spawn(tokio::TokioSpawn::current()?).build())
    }

    /// Starts from [`Env::system`] and replaces parts of it.
    pub fn builder() -> EnvBuilder {
        EnvBuilder {
            clock: None,
            seed: None,
            disk: None,
            spawn: None,
            spawner: None,
        }
    }

    /// The monotonic time.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.inner.clock.now()
    }

    /// The monotonic time, up to a few milliseconds behind [`now`](Env::now) and cheaper to read.
    #[must_use]
    pub fn coarse(&self) -> Tick {
        self.inner.clock.coarse()
    }

    /// A monotonic time for how long things take, as exact as [`now`](Env::now) and cheaper to read; it may drift from that by
    /// some millionths, so it is compared with nothing but itself. The first reading of a process takes about a millisecond.
    ///
    /// ```
    /// let env = outgrow::env::Env::system();
    /// let start = env.stopwatch();
    /// std::thread::sleep(std::time::Duration::from_millis(5));
    /// assert!(env.stopwatch() - start >= std::time::Duration::from_millis(4));
    /// ```
    #[must_use]
    pub fn stopwatch(&self) -> Tick {
        self.inner.clock.stopwatch()
    }

    /// The wall-clock time, which may jump either way.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        self.inner.clock.wall()
    }

    /// Waits until `at`.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the timer.
    pub fn sleep_until(&self, at: Tick) -> Sleep {
        Sleep::new(Arc::clone(&self.inner.clock), at)
    }

    /// Waits for `duration`.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the timer.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Runs `future` for at most `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit passes first; `future` has then been dropped.
    ///
    /// # Cancel safety
    /// As safe as `future` itself.
    pub async fn timeout<F: Future + Send>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        clock::timeout(self.sleep(limit), future).await
    }

    /// A generator of its own for the part called `name`.
    ///
    /// Each call gives an independent stream, even for the same name; under simulation the streams follow from the
    /// world's seed and the order of the calls.
    #[must_use]
    pub fn rng(&self, name: &str) -> Rng {
        self.inner.rng.lock().fork(name)
    }

    /// The files of this machine.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.inner.disk
    }

    /// Runs `future` on a small pool that it must not block. Dropping the [`Task`] detaches it.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (task, run) = spawn::task(future);
        self.inner.spawn.spawn(run);
        task
    }

    /// Whether there is a runtime of the user's, where futures of the user's may be polled in the background.
    pub(crate) fn can_spawn_user(&self) -> bool {
        self.inner.spawner.is_some()
    }

    /// Runs `future`, which polls what a user wrote, on the user's runtime; drops it where there is none. The pool of this
    /// crate never polls such a future: whatever that does would hold up every other block.
    pub(crate) fn spawn_user<F>(&self, future: F) -> Option<Task<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let spawner = self.inner.spawner.as_ref()?;
        let (task, run) = spawn::task(future);
        spawner(run);
        Some(task)
    }

    /// Runs `future` on a thread of its own, called `name`, which it may block: the place for the futures of
    /// [`Disk`] that go on for long. Under simulation it is a plain task.
    ///
    /// # Errors
    /// When the operating system refuses another thread.
    pub fn spawn_dedicated<F>(&self, name: &str, future: F) -> io::Result<Task<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (task, run) = spawn::task(future);
        self.inner.spawn.spawn_dedicated(name, run)?;
        Ok(task)
    }

    /// Runs a short `future` that may block its thread, such as a read through [`Disk`], on a bounded pool of
    /// threads for that purpose. Under simulation it is a plain task.
    pub fn spawn_blocking<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (task, run) = spawn::task(future);
        self.inner.spawn.spawn_blocking(run);
        task
    }
}

/// Panics on a thread that must not be blocked, as far as this build can know.
#[cfg(not(feature = "tokio"))]
pub(crate) fn may_block() {}

impl Default for Env {
    fn default() -> Env {
        #[cfg(feature = "tokio")]
        if let Ok(env) = Env::tokio() {
            return env;
        }
        Env::system()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Builds an [`Env`] out of parts; whatever is not given is the operating system's.
#[must_use]
pub struct EnvBuilder {
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    disk: Option<Arc<dyn Disk>>,
    spawn: Option<Arc<dyn Spawn>>,
    spawner: Option<Spawner>,
}

impl EnvBuilder {
    /// Reads time from `clock`.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Seeds every random choice; by default the operating system does.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Keeps files on `disk`.
    pub fn disk(mut self, disk: impl Disk + 'static) -> Self {
        self.disk = Some(Arc::new(disk));
        self
    }

    /// Runs tasks on `spawn`, those of the blocks and, unless a [`spawner`](EnvBuilder::spawner) is given too, those
    /// that poll a future of the user's.
    pub fn spawn(mut self, spawn: impl Spawn + 'static) -> Self {
        self.spawn = Some(Arc::new(spawn));
        self
    }

    /// Runs futures of the user's in the background by `spawner`, which hands them to a runtime: loaders that refresh a
    /// cache's entries, say. The blocks' own tasks stay where they are. No feature is needed. Default: the runtime of
    /// [`spawn`](EnvBuilder::spawn), which `Env::tokio` gives, or none; then options that would need one refuse to be
    /// built.
    ///
    /// ```
    /// use futures::executor::ThreadPool;
    /// use outgrow::cache::{Cache, Error};
    /// use outgrow::env::Env;
    /// use std::time::Duration;
    ///
    /// let refreshing = |env| Cache::<u8, u8>::builder().stale_while_revalidate(Duration::from_secs(60)).env(env).build();
    /// let runtime = ThreadPool::new()?;
    /// assert!(refreshing(Env::builder().spawner(move |future| runtime.spawn_ok(future)).build()).is_ok());
    ///
    /// let option = "stale_while_revalidate";
    /// assert_eq!(refreshing(Env::system()).unwrap_err(), Error::NeedsSpawner { option });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spawner(mut self, spawner: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        self.spawner = Some(Arc::new(spawner));
        self
    }

    /// Puts the parts together.
    #[must_use]
    pub fn build(self) -> Env {
        let given = self.spawn.clone();
        let by_spawn = || given.map(|spawn| Arc::new(move |future| spawn.spawn(future)) as Spawner);
        Env {
            inner: Arc::new(Inner {
                clock: self.clock.unwrap_or_else(system::clock),
                rng: Mutex::new(Rng::seeded(self.seed.unwrap_or_else(system::entropy))),
                disk: self.disk.unwrap_or_else(|| Arc::new(system::SystemDisk)),
                spawn: self.spawn.unwrap_or_else(|| Arc::new(system::SystemSpawn)),
                spawner: self.spawner.or_else(by_spawn),
            }),
        }
    }
}

impl fmt::Debug for EnvBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvBuilder")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

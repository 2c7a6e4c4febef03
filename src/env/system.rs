//! The operating system behind the seam: the only file that may ask it for time, threads, files and entropy.
#![allow(clippy::disallowed_methods, reason = "this is the other side of the seam")]

use super::disk::CACHED_ZEROS;
use super::{Clock, DirLock, Disk, DiskFuture, File, OpenMode, Spawn, Tick, TimerId, WallTime};
use crate::sync::real::{Condvar, Mutex, MutexGuard};
use crossbeam::channel;
use futures::FutureExt;
use futures::executor::{ThreadPool, block_on};
use futures::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};
use std::task::Waker;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Threads of the task pool. Blocks hand it short, non-blocking work only.
const POOL_THREADS: usize = 2;
/// The most threads that run blocking futures at once; more wait in line.
const BLOCKING_THREADS: usize = 16;
/// How long a blocking thread stays without work.
const BLOCKING_IDLE: Duration = Duration::from_secs(10);

/// 64 bits from the operating system.
pub(super) fn entropy() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The process-wide clock.
pub(super) fn clock() -> Arc<dyn Clock> {
    static CLOCK: LazyLock<Arc<SystemClock>> = LazyLock::new(|| Arc::new_cyclic(SystemClock::new));
    Arc::clone(&CLOCK) as Arc<dyn Clock>
}

/// Time from the kernel; timers from one thread that starts with the first of them.
struct SystemClock {
    me: Weak<SystemClock>,
    timers: Mutex<Timers>,
    changed: Condvar,
}

#[derive(Default)]
struct Timers {
    armed: BTreeMap<TimerId, Waker>,
    next_seq: u64,
    running: bool,
}

impl SystemClock {
    fn new(me: &Weak<SystemClock>) -> SystemClock {
        SystemClock {
            me: Weak::clone(me),
            timers: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Wakes what is due, then sleeps until the next timer or a change, for ever.
    fn run(&self) {
        let mut timers = self.timers.lock();
        loop {
            let now = self.now();
            let later = timers.armed.split_off(&TimerId { at: now, seq: u64::MAX });
            let due = std::mem::replace(&mut timers.armed, later);
            if !due.is_empty() {
                MutexGuard::unlocked(&mut timers, || due.into_values().for_each(Waker::wake));
                continue;
            }
            match timers.armed.first_key_value().map(|(timer, _)| timer.at - now) {
                Some(wait) => drop(self.changed.wait_for(&mut timers, wait)),
                None => self.changed.wait(&mut timers),
            }
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        ticks(ClockId::Monotonic)
    }

    fn coarse(&self) -> Tick {
        #[cfg(target_os = "linux")]
        return ticks(ClockId::MonotonicCoarse);
        #[cfg(not(target_os = "linux"))]
        return ticks(ClockId::Monotonic);
    }

    fn stopwatch(&self) -> Tick {
        // The kernel's own reading waits for all that the processor has begun, which is most of its price.
        static COUNTER: LazyLock<(quanta::Clock, u64)> = LazyLock::new(|| {
            let clock = quanta::Clock::new();
            let start = clock.raw();
            (clock, start)
        });
        let (clock, start) = &*COUNTER;
        Tick::from_nanos(clock.delta_as_nanos(*start, clock.raw()))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn arm(&self, at: Tick, waker: &Waker) -> TimerId {
        let mut timers = self.timers.lock();
        if !timers.running {
            // Without its thread no timer would ever fire: a process that cannot start one thread cannot go on.
            let clock = self.me.upgrade().expect("a clock lives while one of its methods runs");
            let thread = thread::Builder::new()
                .name("outgrow-timer".into())
                .spawn(move || clock.run());
            thread.expect("the operating system starts the timer thread");
            timers.running = true;
        }
        timers.next_seq += 1;
        let timer = TimerId {
            at,
            seq: timers.next_seq,
        };
        timers.armed.insert(timer, waker.clone());
        if timers.armed.first_key_value().is_some_and(|(first, _)| *first == timer) {
            self.changed.notify_one();
        }
        timer
    }

    fn disarm(&self, timer: TimerId) {
        self.timers.lock().armed.remove(&timer);
    }
}

fn ticks(clock: ClockId) -> Tick {
    let time = clock_gettime(clock);
    Tick::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Tasks on a pool shared by the process, dedicated threads as asked, and a bounded pool for blocking futures.
pub(super) struct SystemSpawn;

impl Spawn for SystemSpawn {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        static POOL: LazyLock<ThreadPool> = LazyLock::new(|| {
            let mut pool = ThreadPool::builder();
            pool.pool_size(POOL_THREADS).name_prefix("outgrow-");
            pool.create()
                .expect("the operating system starts the task pool's threads")
        });
        POOL.spawn_ok(future);
    }

    fn spawn_dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> io::Result<()> {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(|| block_on(future))
            .map(drop)
    }

    fn spawn_blocking(&self, future: BoxFuture<'static, ()>) {
        static POOL: LazyLock<BlockingPool> = LazyLock::new(BlockingPool::new);
        POOL.run(future);
    }
}

/// Threads that come with work and leave after ten idle seconds.
struct BlockingPool {
    send: channel::Sender<BoxFuture<'static, ()>>,
    receive: channel::Receiver<BoxFuture<'static, ()>>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    /// Threads alive.
    alive: usize,
    /// Futures handed over and not finished.
    busy: usize,
}

impl BlockingPool {
    fn new() -> BlockingPool {
        let (send, receive) = channel::unbounded();
        BlockingPool {
            send,
            receive,
            threads: Mutex::default(),
        }
    }

    fn run(&'static self, future: BoxFuture<'static, ()>) {
        let mut threads = self.threads.lock();
        threads.busy += 1;
        self.send.send(future).expect("the pool holds its own receiver");
        if threads.busy > threads.alive && threads.alive < BLOCKING_THREADS {
            let started = thread::Builder::new()
                .name("outgrow-blocking".into())
                .spawn(|| self.work());
            match started {
                Ok(_) => threads.alive += 1,
                // The work waits for a thread that lives; with none it would wait for ever.
                Err(e) => assert!(
                    threads.alive > 0,
                    "the operating system starts a thread for blocking work: {e}"
                ),
            }
        }
    }

    fn work(&self) {
        loop {
            match self.receive.recv_timeout(BLOCKING_IDLE) {
                Ok(future) => {
                    block_on(future);
                    self.threads.lock().busy -= 1;
                }
                Err(_) => {
                    let mut threads = self.threads.lock();
                    // Work that arrived after the wait ended was counted under this lock, so it is seen here.
                    if self.receive.is_empty() {
                        threads.alive -= 1;
                        return;
                    }
                }
            }
        }
    }
}

/// The operating system's files.
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> DiskFuture<'a, Arc<dyn File>> {
        call(move || {
            let mut options = std::fs::OpenOptions::new();
            let writes = mode != OpenMode::Read;
            options.read(true).write(writes).create_new(mode == OpenMode::New);
            Ok(Arc::new(SystemFile(options.open(path)?)) as Arc<dyn File>)
        })
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        call(move || create_dir_durably(path))
    }

    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>> {
        call(move || {
            let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort_unstable();
            Ok(names)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()> {
        call(move || std::fs::rename(from, to))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        call(move || std::fs::remove_file(path))
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()> {
        call(move || std::fs::File::open(dir)?.sync_all())
    }

    fn lock<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, DirLock> {
        // flock on the directory itself: the kernel frees it when the process ends, and no stale file is left behind.
        call(move || {
            let dir = std::fs::File::open(dir)?;
            dir.try_lock()?;
            Ok(DirLock::new(dir))
        })
    }
}

struct SystemFile(std::fs::File);

impl File for SystemFile {
    fn len(&self) -> DiskFuture<'_, u64> {
        call(|| Ok(self.0.metadata()?.len()))
    }

    fn read_at<'a>(&'a self, buf: &'a mut [u8], offset: u64) -> DiskFuture<'a, usize> {
        call(move || retry_interrupted(|| self.0.read_at(buf, offset)))
    }

    fn write_at<'a>(&'a self, data: &'a [u8], offset: u64) -> DiskFuture<'a, usize> {
        call(move || retry_interrupted(|| self.0.write_at(data, offset)))
    }

    fn set_len(&self, len: u64) -> DiskFuture<'_, ()> {
        call(move || self.0.set_len(len))
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, len: u64) -> DiskFuture<'_, ()> {
        let none = rustix::fs::FallocateFlags::empty();
        call(move || retry_interrupted(|| Ok(rustix::fs::fallocate(&self.0, none, 0, len)?)))
    }

    #[cfg(target_os = "linux")]
    fn zero_at(&self, offset: u64, len: usize) -> DiskFuture<'_, usize> {
        call(move || {
            let zeros = &ZEROS.0[..len.min(ZEROS.0.len())];
            let past = |file: std::fs::File| retry_interrupted(|| file.write_at(zeros, offset));
            // Where it cannot be done past the page cache, little is put into it at once.
            match past_the_cache(&self.0).and_then(past) {
                Err(e) if e.kind() != io::ErrorKind::StorageFull => {
                    let zeros = &zeros[..zeros.len().min(CACHED_ZEROS)];
                    retry_interrupted(|| self.0.write_at(zeros, offset))
                }
                result => result,
            }
        })
    }

    fn sync_data(&self) -> DiskFuture<'_, ()> {
        call(|| self.0.sync_data())
    }

    fn drop_cache(&self) -> DiskFuture<'_, ()> {
        #[cfg(target_os = "linux")]
        return call(|| Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?));
        #[cfg(not(target_os = "linux"))]
        return call(|| Ok(()));
    }
}

/// Zeros as a device takes them.
#[cfg(target_os = "linux")]
#[repr(align(4096))]
struct Zeros([u8; 256 << 10]);

#[cfg(target_os = "linux")]
static ZEROS: Zeros = Zeros([0; 256 << 10]);

/// The file once more, for writes that go to the device and leave nothing in memory.
#[cfg(target_os = "linux")]
fn past_the_cache(file: &std::fs::File) -> io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::OpenOptions::new().write(true).custom_flags(direct).open(path)
}

fn create_dir_durably(path: &Path) -> io::Result<()> {
    // The parent of the last one is synced in any case: a process that died may have made it and got no further.
    let parent = match path.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    if !parent.is_dir() {
        create_dir_durably(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result?,
    }
    std::fs::File::open(parent)?.sync_all()
}

/// A future that does `work` when first polled.
fn call<'a, T>(work: impl FnOnce() -> io::Result<T> + Send + 'a) -> DiskFuture<'a, T> {
    async move { work() }.boxed()
}

fn retry_interrupted<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

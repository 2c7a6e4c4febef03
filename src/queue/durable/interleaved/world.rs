//! A world whose threads are the scheduler's: tasks that are threads, a disk in memory, a clock that stands until it is
//! moved.

use crate::env::{Clock, DirLock, Disk, DiskFuture, Env, File, OpenMode, Spawn, Tick, TimerId, WallTime};
use crate::sync::{AtomicU64, Mutex, Ordering};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use shuttle::future::block_on;
use shuttle::thread;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// The environment, and what moves its clock.
pub(super) fn world() -> (Env, HandClock) {
    let clock = HandClock::default();
    let env = Env::builder().seed(1).clock(clock.clone()).disk(MemoryDisk::default());
    (env.spawn(Threads).build(), clock)
}

struct Threads;

impl Spawn for Threads {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        drop(thread::spawn(move || block_on(future)));
    }

    fn spawn_dedicated(&self, _: &str, future: BoxFuture<'static, ()>) -> io::Result<()> {
        self.spawn(future);
        Ok(())
    }

    fn spawn_blocking(&self, future: BoxFuture<'static, ()>) {
        self.spawn(future);
    }
}

#[derive(Clone, Default)]
pub(super) struct HandClock {
    nanos: Arc<AtomicU64>,
    armed: Arc<Mutex<BTreeMap<TimerId, Waker>>>,
    last: Arc<AtomicU64>,
}

impl HandClock {
    pub(super) fn advance(&self, by: Duration) {
        self.nanos.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
        let end = TimerId {
            at: self.now(),
            seq: u64::MAX,
        };
        let due = {
            let mut armed = self.armed.lock();
            let later = armed.split_off(&end);
            std::mem::replace(&mut *armed, later)
        };
        due.into_values().for_each(Waker::wake);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    fn coarse(&self) -> Tick {
        self.now()
    }

    fn wall(&self) -> WallTime {
        WallTime::from_millis(self.now().as_nanos() / 1_000_000)
    }

    fn arm(&self, at: Tick, waker: &Waker) -> TimerId {
        let seq = self.last.fetch_add(1, Ordering::SeqCst);
        let timer = TimerId { at, seq };
        let mut armed = self.armed.lock();
        // It may have moved since the sleeper looked.
        match at <= self.now() {
            true => waker.wake_by_ref(),
            false => drop(armed.insert(timer, waker.clone())),
        }
        timer
    }

    fn disarm(&self, timer: TimerId) {
        let disarmed = self.armed.lock().remove(&timer);
        drop(disarmed);
    }
}

/// Files by their paths, whose every operation is done at once.
#[derive(Clone, Default)]
struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>>,
}

#[derive(Default)]
struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
}

fn done<T: Send + 'static>(result: io::Result<T>) -> DiskFuture<'static, T> {
    ready(result).boxed()
}

impl Disk for MemoryDisk {
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> DiskFuture<'a, Arc<dyn File>> {
        let mut files = self.files.lock();
        if mode == OpenMode::New {
            files.insert(path.to_owned(), Arc::default());
        }
        let found = files.get(path).map(|file| Arc::clone(file) as Arc<dyn File>);
        done(found.ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn create_dir<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, ()> {
        done(Ok(()))
    }

    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>> {
        let files = self.files.lock();
        let names = files.keys().filter(|path| path.parent() == Some(dir));
        let names = names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        done(Ok(names.collect()))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()> {
        let mut files = self.files.lock();
        let file = files.remove(from).expect("it is there");
        files.insert(to.to_owned(), file);
        done(Ok(()))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        self.files.lock().remove(path).expect("it is there");
        done(Ok(()))
    }

    fn sync_dir<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, ()> {
        done(Ok(()))
    }

    fn lock<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, DirLock> {
        done(Ok(DirLock::new(())))
    }
}

impl File for MemoryFile {
    fn len(&self) -> DiskFuture<'_, u64> {
        done(Ok(self.bytes.lock().len() as u64))
    }

    fn read_at<'a>(&'a self, buf: &'a mut [u8], offset: u64) -> DiskFuture<'a, usize> {
        let bytes = self.bytes.lock();
        let from = (offset as usize).min(bytes.len());
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        done(Ok(n))
    }

    fn write_at<'a>(&'a self, data: &'a [u8], offset: u64) -> DiskFuture<'a, usize> {
        let mut bytes = self.bytes.lock();
        let (from, end) = (offset as usize, offset as usize + data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(data);
        done(Ok(data.len()))
    }

    fn set_len(&self, len: u64) -> DiskFuture<'_, ()> {
        self.bytes.lock().resize(len as usize, 0);
        done(Ok(()))
    }

    fn sync_data(&self) -> DiskFuture<'_, ()> {
        done(Ok(()))
    }

    fn drop_cache(&self) -> DiskFuture<'_, ()> {
        done(Ok(()))
    }
}

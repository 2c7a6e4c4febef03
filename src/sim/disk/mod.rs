//! The simulated disk: [`Disk`] and [`File`] in virtual time over [`DiskState`], the part that outlives a crash.

mod image;
mod names;
mod state;
#[cfg(test)]
mod tests;

pub(super) use state::DiskState;

use super::faults::{DiskOp, FaultKind};
use super::machine::{Incarnation, Machine, MachineState};
use crate::env::{Clock, DirLock, Disk, DiskFuture, File, OpenMode, Sleep, Tick};
use crate::hash::KeyedHash;
use futures::FutureExt;
use image::Capture;
use names::normal;
use rustix::io::Errno;
use state::{Node, Verdict};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The longest file, in bytes.
const MAX_LEN: u64 = 1 << 36;

/// The disk as one incarnation of its machine sees it.
#[derive(Clone)]
pub(super) struct SimDisk {
    machine: Arc<MachineState>,
    life: Arc<Incarnation>,
    clock: Arc<dyn Clock>,
}

/// An operation as faults, latency and trace see it.
#[derive(Clone, Copy)]
struct Op<'a> {
    kind: DiskOp,
    path: &'a str,
    /// Bytes moved.
    bytes: u64,
    /// Tells this operation's data from another's in the trace.
    detail: u64,
}

/// How much of an operation happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Some of it, where it has parts; else the whole.
    Part,
    /// A sync that fails.
    Lost,
    /// The whole of a sync, and one durable bit of the file turns wrong.
    Rotten,
}

impl SimDisk {
    pub(super) fn new(machine: Arc<MachineState>, life: Arc<Incarnation>, clock: Arc<dyn Clock>) -> SimDisk {
        SimDisk { machine, life, clock }
    }

    fn check_alive(&self) -> io::Result<()> {
        match self.life.is_alive() {
            true => Ok(()),
            false => Err(io::Error::other(format!("the machine {} is down", self.machine.name))),
        }
    }

    /// Does `effect` when the operation's time has passed, or fails as the seed or an order says.
    async fn run<T, E>(&self, op: Op<'_>, effect: E) -> io::Result<T>
    where
        E: FnOnce(&mut DiskState, Extent) -> io::Result<T>,
    {
        let (verdict, until) = self.begin(op)?;
        let flight = Flight {
            disk: self,
            op,
            effect: Some(effect),
        };
        Sleep::new(Arc::clone(&self.clock), until).await;
        flight.land(verdict)
    }

    fn begin(&self, op: Op<'_>) -> io::Result<(Verdict, Tick)> {
        self.check_alive()?;
        let executor = &self.machine.executor;
        let mut state = self.machine.disk.lock();
        let verdict = state.judge(op.kind);
        let latency = state.latency(op.kind).draw(op.bytes, &mut state.rng);
        drop(state);
        if verdict.stall.is_some() {
            executor.fault(FaultKind::Stall, 1, &self.machine.name);
        }
        if let Some(end) = verdict.end {
            let machine = Machine::new(Arc::clone(&self.machine));
            // After this poll, since the machine's tasks are dropped then, and this may be one of them.
            executor.defer(Box::new(move || match end {
                FaultKind::Kill => machine.kill(),
                _ => machine.crash(),
            }));
        }
        Ok((verdict, executor.now() + latency + verdict.stall.unwrap_or_default()))
    }

    fn trace<T>(&self, op: Op<'_>, result: &io::Result<T>) {
        let executor = &self.machine.executor;
        let outcome = match result {
            Ok(_) => 0,
            Err(e) => 1 + e.raw_os_error().unwrap_or(e.kind() as i32),
        };
        let hash = KeyedHash::new(op.kind as u64, outcome as u64);
        let what = hash.hash_value(&(&self.machine.name, op.path, op.bytes, op.detail));
        executor.disk(executor.now().as_nanos(), what, || {
            let (name, kind, path) = (&self.machine.name, op.kind, op.path);
            let end = result
                .as_ref()
                .err()
                .map_or_else(|| "ok".to_owned(), ToString::to_string);
            format!("{name}: {kind:?} {path:?} {} bytes: {end}", op.bytes)
        });
    }

    fn file(&self, path: &str, node: &Arc<Node>) -> Arc<dyn File> {
        Arc::new(SimFile {
            disk: self.clone(),
            path: path.into(),
            node: Arc::clone(node),
        })
    }
}

/// An operation under way. Dropped before it has landed, it has happened, or not, or in part.
struct Flight<'a, T, E: FnOnce(&mut DiskState, Extent) -> io::Result<T>> {
    disk: &'a SimDisk,
    op: Op<'a>,
    effect: Option<E>,
}

impl<T, E: FnOnce(&mut DiskState, Extent) -> io::Result<T>> Flight<'_, T, E> {
    fn land(mut self, verdict: Verdict) -> io::Result<T> {
        let effect = self.effect.take().expect("a flight lands once");
        self.disk.check_alive()?;
        let mut state = self.disk.machine.disk.lock();
        let result = match verdict.fault {
            None => effect(&mut state, Extent::Whole),
            Some(FaultKind::BitFlip) => effect(&mut state, Extent::Rotten),
            Some(FaultKind::ShortWrite) => effect(&mut state, Extent::Part),
            Some(FaultKind::NoSpace) => Err(Errno::NOSPC.into()),
            Some(FaultKind::SyncError) => effect(&mut state, Extent::Lost).and(Err(Errno::IO.into())),
            Some(FaultKind::WriteError) => match state.rng.chance(0.5) {
                true => effect(&mut state, Extent::Part).and(Err(Errno::IO.into())),
                false => Err(Errno::IO.into()),
            },
            Some(_) => Err(Errno::IO.into()),
        };
        drop(state);
        let (executor, name) = (&self.disk.machine.executor, &self.disk.machine.name);
        match (&result, verdict.fault) {
            (Err(e), _) if e.kind() == io::ErrorKind::StorageFull => executor.fault(FaultKind::NoSpace, 1, name),
            (Err(_), Some(fault @ (FaultKind::ReadError | FaultKind::WriteError | FaultKind::SyncError))) => {
                executor.fault(fault, 1, name);
            }
            _ => {}
        }
        self.disk.trace(self.op, &result);
        result
    }
}

impl<T, E: FnOnce(&mut DiskState, Extent) -> io::Result<T>> Drop for Flight<'_, T, E> {
    fn drop(&mut self) {
        let kind = self.op.kind;
        let Some(effect) = self.effect.take().filter(|_| kind.changes() || kind.syncs()) else {
            return;
        };
        let machine = &self.disk.machine;
        let mut state = machine.disk.lock();
        if state.incarnation() != self.disk.life.number() {
            return;
        }
        let result = match state.rng.below(3) {
            0 => None,
            1 => Some(effect(&mut state, Extent::Part)),
            _ => Some(effect(&mut state, Extent::Whole)),
        };
        // What it would have given goes outside the lock.
        drop(state);
        drop(result);
        machine.executor.fault(FaultKind::CutOff, 1, &machine.name);
    }
}

impl Disk for SimDisk {
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> DiskFuture<'a, Arc<dyn File>> {
        async move {
            let path = normal(path);
            match mode {
                OpenMode::Existing => {
                    let open = |state: &mut DiskState, _| state.names.get(&path).cloned();
                    let node = self.run(Op::new(DiskOp::Open, &path), open).await?;
                    Ok(self.file(&path, &node))
                }
                OpenMode::New => {
                    let create = |state: &mut DiskState, _| {
                        let node = state.node();
                        state.names.create(&path, Arc::clone(&node))?;
                        Ok(node)
                    };
                    let node = self.run(Op::new(DiskOp::Create, &path), create).await?;
                    Ok(self.file(&path, &node))
                }
            }
        }
        .boxed()
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        async move {
            let path = normal(path);
            let create = |state: &mut DiskState, _| state.names.create_dir(&path);
            self.run(Op::new(DiskOp::CreateDir, &path), create).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>> {
        async move {
            let dir = normal(dir);
            let list = |state: &mut DiskState, _| state.names.list(&dir);
            self.run(Op::new(DiskOp::List, &dir), list).await
        }
        .boxed()
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()> {
        async move {
            let (from, to) = (normal(from), normal(to));
            let op = Op::new(DiskOp::Rename, &from).detail(to.as_bytes());
            let rename = |state: &mut DiskState, _| state.names.rename(&from, &to);
            self.run(op, rename).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        async move {
            let path = normal(path);
            let remove = |state: &mut DiskState, _| state.names.remove(&path);
            self.run(Op::new(DiskOp::Remove, &path), remove).await
        }
        .boxed()
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()> {
        async move {
            let dir = normal(dir);
            let sync = |state: &mut DiskState, extent| match extent {
                Extent::Lost => Ok(()),
                Extent::Whole | Extent::Part | Extent::Rotten => state.names.sync(&dir),
            };
            self.run(Op::new(DiskOp::SyncDir, &dir), sync).await
        }
        .boxed()
    }

    fn lock<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, DirLock> {
        async move {
            let dir = normal(dir);
            let take = |state: &mut DiskState, _| {
                if !state.names.is_dir(&dir) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                if state.locks.contains_key(&dir) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let number = state.lock_number();
                state.locks.insert(dir.clone(), number);
                Ok(number)
            };
            let number = self.run(Op::new(DiskOp::Lock, &dir), take).await?;
            Ok(DirLock::new(Held {
                machine: Arc::clone(&self.machine),
                dir,
                number,
            }))
        }
        .boxed()
    }
}

/// A directory lock, free again when dropped. By then the machine may have died and another may hold the directory.
struct Held {
    machine: Arc<MachineState>,
    dir: String,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.machine.disk.lock();
        if state.locks.get(&self.dir) == Some(&self.number) {
            state.locks.remove(&self.dir);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    /// The name it was opened by.
    path: Box<str>,
    node: Arc<Node>,
}

impl SimFile {
    fn op(&self, kind: DiskOp) -> Op<'_> {
        Op::new(kind, &self.path)
    }
}

impl File for SimFile {
    fn len(&self) -> DiskFuture<'_, u64> {
        let len = |_: &mut DiskState, _| Ok(self.node.image.lock().len());
        self.disk.run(self.op(DiskOp::Len), len).boxed()
    }

    fn read_at<'a>(&'a self, buf: &'a mut [u8], offset: u64) -> DiskFuture<'a, usize> {
        let op = self.op(DiskOp::Read).moving(buf.len(), offset);
        let read = move |_: &mut DiskState, _| Ok(self.node.image.lock().read(buf, offset));
        self.disk.run(op, read).boxed()
    }

    fn write_at<'a>(&'a self, data: &'a [u8], offset: u64) -> DiskFuture<'a, usize> {
        async move {
            let op = self.op(DiskOp::Write).moving(data.len(), offset).detail(data);
            let write = |state: &mut DiskState, extent| {
                let fits = self.fitting(state, offset, data.len())?;
                let n = match extent {
                    Extent::Part if fits > 1 => 1 + state.rng.index(fits - 1),
                    _ => fits,
                };
                self.node.image.lock().write(&data[..n], offset);
                Ok(n)
            };
            let n = self.disk.run(op, write).await?;
            if n < data.len() {
                let machine = &self.disk.machine;
                machine.executor.fault(FaultKind::ShortWrite, 1, &machine.name);
            }
            Ok(n)
        }
        .boxed()
    }

    fn set_len(&self, len: u64) -> DiskFuture<'_, ()> {
        let set = move |state: &mut DiskState, _| {
            let more = len.saturating_sub(self.node.image.lock().len());
            if len > MAX_LEN {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if more > state.room() {
                return Err(Errno::NOSPC.into());
            }
            self.node.image.lock().set_len(len);
            Ok(())
        };
        self.disk.run(self.op(DiskOp::SetLen).moving(0, len), set).boxed()
    }

    fn sync_data(&self) -> DiskFuture<'_, ()> {
        async move {
            // What is written while the sync is under way is no part of it.
            let capture = self.node.image.lock().capture();
            let op = self.op(DiskOp::Sync).moving(capture.bytes() as usize, 0);
            let sync = |state: &mut DiskState, extent| Ok(self.end_sync(state, &capture, extent));
            let flipped = self.disk.run(op, sync).await?;
            let machine = &self.disk.machine;
            machine
                .executor
                .fault(FaultKind::BitFlip, u64::from(flipped), &machine.name);
            Ok(())
        }
        .boxed()
    }

    fn drop_cache(&self) -> DiskFuture<'_, ()> {
        let drop = |_: &mut DiskState, _| {
            self.node.image.lock().drop_cache();
            Ok(())
        };
        self.disk.run(self.op(DiskOp::DropCache), drop).boxed()
    }
}

impl SimFile {
    /// How much of a write fits on the disk.
    fn fitting(&self, state: &DiskState, offset: u64, len: usize) -> io::Result<usize> {
        let end = offset.saturating_add(len as u64);
        if end > MAX_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len_now = self.node.image.lock().len();
        let most = len_now.saturating_add(state.room());
        match most.saturating_sub(offset).min(len as u64) {
            0 if len > 0 => Err(Errno::NOSPC.into()),
            fits => Ok(fits as usize),
        }
    }

    /// Returns whether a bit was flipped.
    fn end_sync(&self, state: &mut DiskState, capture: &Capture, extent: Extent) -> bool {
        let mut image = self.node.image.lock();
        match extent {
            Extent::Whole | Extent::Rotten => image.synced(capture),
            Extent::Part => image.synced_partly(capture, &mut state.rng),
            Extent::Lost => image.sync_failed(capture),
        }
        extent == Extent::Rotten && image.flip_any(&mut state.rng)
    }
}

impl<'a> Op<'a> {
    fn new(kind: DiskOp, path: &'a str) -> Op<'a> {
        Op {
            kind,
            path,
            bytes: 0,
            detail: 0,
        }
    }

    fn moving(mut self, bytes: usize, offset: u64) -> Op<'a> {
        self.bytes = bytes as u64;
        self.detail = offset;
        self
    }

    fn detail(mut self, data: &[u8]) -> Op<'a> {
        self.detail = self.detail << 32 ^ u64::from(crc32c::crc32c(data));
        self
    }
}

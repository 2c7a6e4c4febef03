use super::SimDisk;
use super::state::{DiskState, Verdict};
use crate::env::{Sleep, Tick};
use crate::hash::KeyedHash;
use crate::sim::faults::{DiskOp, FaultKind};
use crate::sim::machine::Machine;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

/// An operation as faults, latency and trace see it.
#[derive(Clone, Copy)]
pub(super) struct Op<'a> {
    kind: DiskOp,
    path: &'a str,
    /// Bytes moved.
    bytes: u64,
    /// Tells this operation's data from another's in the trace.
    detail: u64,
}

/// How much of an operation happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// Some of it, where it has parts; else the whole.
    Part,
    /// A sync that fails.
    Lost,
    /// The whole of a sync, and one durable bit of the file turns wrong.
    Rotten,
}

impl Extent {
    /// How many of `len` bytes are moved: in part, at least one and not all.
    pub(super) fn of(self, len: usize, state: &mut DiskState) -> usize {
        match self {
            Extent::Part if len > 1 => 1 + state.rng.index(len - 1),
            _ => len,
        }
    }
}

impl<'a> Op<'a> {
    pub(super) fn new(kind: DiskOp, path: &'a str) -> Op<'a> {
        Op {
            kind,
            path,
            bytes: 0,
            detail: 0,
        }
    }

    pub(super) fn moving(mut self, bytes: usize, offset: u64) -> Op<'a> {
        self.bytes = bytes as u64;
        self.detail = offset;
        self
    }

    pub(super) fn detail(mut self, data: &[u8]) -> Op<'a> {
        self.detail = self.detail << 32 ^ u64::from(crc32c::crc32c(data));
        self
    }
}

impl SimDisk {
    /// Does `effect` when the operation's time has passed, or fails as the seed or an order says.
    pub(super) async fn run<T, E>(&self, op: Op<'_>, effect: E) -> io::Result<T>
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

    /// Counts a fault that came to pass.
    pub(super) fn count(&self, kind: FaultKind, happened: bool) {
        let machine = &self.machine;
        machine.executor.fault(kind, u64::from(happened), &machine.name);
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
        executor.disk(what, || {
            let (name, kind, path) = (&self.machine.name, op.kind, op.path);
            let end = result
                .as_ref()
                .err()
                .map_or_else(|| "ok".to_owned(), ToString::to_string);
            format!("{name}: {kind:?} {path:?} {} bytes: {end}", op.bytes)
        });
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
            Some(FaultKind::ShortRead | FaultKind::ShortWrite) => effect(&mut state, Extent::Part),
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

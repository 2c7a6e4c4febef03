//! The simulated disk: [`Disk`] and [`File`] in virtual time over [`DiskState`], the part that outlives a crash.

mod file;
mod flight;
mod image;
mod names;
mod state;
#[cfg(test)]
mod tests;

pub(super) use state::DiskState;

use super::faults::DiskOp;
use super::machine::{Incarnation, MachineState};
use crate::env::{Clock, DirLock, Disk, DiskFuture, File, OpenMode};
use file::SimFile;
use flight::{Extent, Op};
use futures::FutureExt;
use names::normal;
use state::Node;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The disk as one incarnation of its machine sees it.
#[derive(Clone)]
pub(super) struct SimDisk {
    machine: Arc<MachineState>,
    life: Arc<Incarnation>,
    clock: Arc<dyn Clock>,
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

    fn file(&self, path: &str, node: &Arc<Node>) -> Arc<dyn File> {
        Arc::new(SimFile {
            disk: self.clone(),
            path: path.into(),
            node: Arc::clone(node),
        })
    }
}

impl Disk for SimDisk {
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> DiskFuture<'a, Arc<dyn File>> {
        async move {
            let path = normal(path);
            match mode {
                OpenMode::Existing | OpenMode::Read => {
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

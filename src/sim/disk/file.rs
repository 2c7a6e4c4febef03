use super::SimDisk;
use super::flight::{Extent, Op};
use super::image::Capture;
use super::state::{DiskState, Node};
use crate::env::{DiskFuture, File};
use crate::sim::faults::{DiskOp, FaultKind};
use futures::FutureExt;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

/// The longest file, in bytes.
const MAX_LEN: u64 = 1 << 36;

/// A file that one incarnation of its machine has open.
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    /// The name it was opened by.
    pub(super) path: Box<str>,
    pub(super) node: Arc<Node>,
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
        async move {
            let op = self.op(DiskOp::Read).moving(buf.len(), offset);
            let read = |state: &mut DiskState, extent: Extent| {
                let all = self.node.image.lock().read(buf, offset);
                let n = extent.of(all, state);
                // What was not read is not shown.
                buf[n..all].fill(0xa5);
                Ok((n, all))
            };
            let (n, all) = self.disk.run(op, read).await?;
            self.disk.count(FaultKind::ShortRead, n < all);
            Ok(n)
        }
        .boxed()
    }

    fn write_at<'a>(&'a self, data: &'a [u8], offset: u64) -> DiskFuture<'a, usize> {
        async move {
            let op = self.op(DiskOp::Write).moving(data.len(), offset).detail(data);
            let write = |state: &mut DiskState, extent: Extent| {
                let n = extent.of(self.fitting(state, offset, data.len())?, state);
                self.node.image.lock().write(&data[..n], offset);
                Ok(n)
            };
            let n = self.disk.run(op, write).await?;
            self.disk.count(FaultKind::ShortWrite, n < data.len());
            Ok(n)
        }
        .boxed()
    }

    fn set_len(&self, len: u64) -> DiskFuture<'_, ()> {
        self.resize(len, move |_| len)
    }

    fn reserve(&self, len: u64) -> DiskFuture<'_, ()> {
        self.resize(len, move |now| now.max(len))
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
    /// Gives the file the length that `to` makes of what it has.
    fn resize(&self, asked: u64, to: impl Fn(u64) -> u64 + Send + 'static) -> DiskFuture<'_, ()> {
        let set = move |state: &mut DiskState, _| {
            let now = self.node.image.lock().len();
            let len = to(now);
            if len > MAX_LEN {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if len.saturating_sub(now) > state.room() {
                return Err(Errno::NOSPC.into());
            }
            self.node.image.lock().set_len(len);
            Ok(())
        };
        self.disk.run(self.op(DiskOp::SetLen).moving(0, asked), set).boxed()
    }

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

use super::committer;
use super::frame::{self, MAX_FRAME};
use super::shared::{Order, Phase, Shared, Work, wake};
use super::{Item, LogError, LogOptions, OpenReport, Reader, reader};
use crate::env::{Env, Task};
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A log on disk. Cheap to clone; dropping the last clone lets the task write what waits, then stop.
#[derive(Clone)]
pub(crate) struct Log {
    handle: Arc<Handle>,
    task: futures::future::Shared<Task<()>>,
}

/// Stops the task when the last clone of the log goes.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Counts since the log was opened, and what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct LogStats {
    /// Entries made durable.
    pub(crate) entries: u64,
    /// Appends made durable.
    pub(crate) appends: u64,
    /// Bytes written, headers and marks included.
    pub(crate) written: u64,
    /// Syncs of data.
    pub(crate) syncs: u64,
    /// Bytes that wait for the disk.
    pub(crate) waiting: usize,
    /// Segments on disk.
    pub(crate) segments: usize,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Entries found damaged when read.
    pub(crate) damaged: u64,
}

impl Log {
    /// Opens the log in `dir`, which is made if it does not exist, and says what is there. Does its disk work on a
    /// thread of its own, so it may be awaited anywhere.
    ///
    /// # Errors
    /// [`LogError::Locked`] when it is open elsewhere, and the disk's. A torn tail or damage is not an error.
    ///
    /// # Cancel safety
    /// Dropping the future gives up opening; the directory is free again shortly after.
    pub(crate) async fn open(env: &Env, dir: &Path, options: LogOptions) -> Result<(Log, OpenReport), LogError> {
        let (send, opened) = oneshot::channel();
        let run = committer::run(env.clone(), dir.to_owned(), options, send);
        let task = env.spawn_dedicated("outgrow-log", run)?.shared();
        let (handle, report) = opened.await.map_err(|_| LogError::abandoned())??;
        let handle = Arc::new(handle);
        Ok((Log { handle, task }, report))
    }

    /// Appends entries as one: they get the next numbers now, and after a crash either all of them are found or none. An
    /// append of nothing takes no number and is durable at once.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] when they need more than a frame of 1 MiB (40 bytes, and 8 for each entry beside its own),
    /// [`LogError::Busy`] when too much waits for the disk, [`LogError::Poisoned`], [`LogError::Closed`]. The entries
    /// have then no number. What fails later is told by the [`Append`]; when it is [`LogError::Full`], everything that
    /// was appended behind it fails alike and the numbers are given again.
    pub(crate) fn append(&self, entries: Vec<Bytes>) -> Result<Append, LogError> {
        let append = self.append_if(|_| true, entries)?;
        Ok(append.expect("broken invariant: any number will do"))
    }

    /// As [`append`](Log::append), unless the next number is not `next`, which means that earlier appends have failed:
    /// for entries that are true only if those are in the log.
    pub(crate) fn append_at(&self, next: u64, entries: Vec<Bytes>) -> Result<Option<Append>, LogError> {
        self.append_if(|first_seq| first_seq == next, entries)
    }

    fn append_if(&self, fits: impl FnOnce(u64) -> bool, entries: Vec<Bytes>) -> Result<Option<Append>, LogError> {
        let len = frame::frame_len(&entries);
        if len > MAX_FRAME {
            return Err(LogError::TooLarge { len, max: MAX_FRAME });
        }
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        state.check_open()?;
        let first_seq = state.next;
        if !fits(first_seq) {
            return Ok(None);
        }
        let seqs = first_seq..first_seq + entries.len() as u64;
        if entries.is_empty() {
            return Ok(Some(Append { seqs, done: None }));
        }
        let limit = shared.options.buffer_bytes;
        if !state.has_room(len, limit) {
            return Err(LogError::Busy { len, limit });
        }
        let (done, wait) = oneshot::channel();
        state.next = seqs.end;
        state.waiting += frame::padded(len);
        let work = Work::Append {
            first_seq,
            entries,
            done,
        };
        let task = state.enqueue(work);
        drop(state);
        wake(task);
        let done = Some(wait);
        Ok(Some(Append { seqs, done }))
    }

    /// Waits until the buffer has room for `len` bytes after [`LogError::Busy`], or the log takes nothing more.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn room(&self, len: usize) {
        let shared = &self.handle.shared;
        let limit = shared.options.buffer_bytes;
        let has_room = || {
            let state = shared.state.lock();
            (state.phase != Phase::Open || state.has_room(len, limit)).then_some(())
        };
        shared.room.wait(has_room).await;
    }

    /// Reads durable entries of `seqs` in order, until about `max_bytes`; at least one item if there is any. A frame is
    /// read as a whole.
    ///
    /// # Errors
    /// [`LogError::Gone`] when the first has been released, and the disk's.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn read(&self, seqs: Range<u64>, max_bytes: usize) -> Result<Vec<Item>, LogError> {
        let shared = &self.handle.shared;
        let Some(plan) = reader::plan(&shared.state.lock(), seqs, max_bytes)? else {
            return Ok(Vec::new());
        };
        let (items, damaged) = shared
            .env
            .spawn_blocking(plan.run())
            .await
            .map_err(|_| LogError::abandoned())??;
        shared.state.lock().stats.damaged += damaged;
        Ok(items)
    }

    /// Reads on from number `from`, without end.
    pub(crate) fn reader(&self, from: u64) -> Reader {
        Reader::new(self.clone(), from)
    }

    /// Voids everything after `seq`: durable when it returns; what is appended from now on follows `seq`. Does nothing
    /// when there is nothing after `seq`. Readers that are past `seq` are to be made anew.
    ///
    /// # Errors
    /// [`LogError::Gone`] when `seq` has been released together with its successor, and as for an append.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it.
    pub(crate) async fn truncate_after(&self, seq: u64) -> Result<(), LogError> {
        let next = seq.saturating_add(1);
        let wait = {
            let mut state = self.handle.shared.state.lock();
            if next >= state.next {
                return state.check_open();
            }
            let oldest = state.index.range().start;
            if next < oldest {
                return Err(LogError::Gone { oldest });
            }
            state.order(Order::Truncate(next), Some(next))?
        };
        wait.await.unwrap_or_else(|_| Err(LogError::abandoned()))
    }

    /// Frees the segments that hold only numbers before `seq`, oldest first. The newest segment is never freed.
    ///
    /// # Errors
    /// The disk's; some segments may then have been freed.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it.
    pub(crate) async fn release_before(&self, seq: u64) -> Result<(), LogError> {
        let wait = self.handle.shared.state.lock().order(Order::Release(seq), None)?;
        wait.await.unwrap_or_else(|_| Err(LogError::abandoned()))
    }

    /// Forgets everything: durable when it returns; the next entry is number `next`.
    ///
    /// # Errors
    /// As for an append.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it.
    pub(crate) async fn reset(&self, next: u64) -> Result<(), LogError> {
        let wait = self.handle.shared.state.lock().order(Order::Reset(next), Some(next))?;
        wait.await.unwrap_or_else(|_| Err(LogError::abandoned()))
    }

    /// The numbers in the log: the oldest kept to before the next to be given.
    pub(crate) fn range(&self) -> Range<u64> {
        let state = self.handle.shared.state.lock();
        state.index.range().start..state.next
    }

    /// The durable end: everything before this number is on disk.
    pub(crate) fn durable(&self) -> u64 {
        self.handle.shared.state.lock().index.range().end
    }

    /// Whether releasing the numbers before `seq` would free anything.
    pub(crate) fn frees(&self, seq: u64) -> bool {
        let state = self.handle.shared.state.lock();
        let oldest = state.segments.first_key_value();
        oldest.is_some_and(|(id, _)| *id < state.oldest_kept(seq))
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.handle.shared.state.lock().bytes
    }

    /// Whether the log takes more.
    ///
    /// # Errors
    /// [`LogError::Poisoned`] or [`LogError::Closed`].
    pub(crate) fn check(&self) -> Result<(), LogError> {
        self.handle.shared.state.lock().check_open()
    }

    /// Counts and sizes.
    pub(crate) fn stats(&self) -> LogStats {
        let state = self.handle.shared.state.lock();
        LogStats {
            waiting: state.waiting,
            segments: state.segments.len(),
            bytes: state.bytes,
            ..state.stats
        }
    }

    /// Takes nothing more, writes what waits, and frees the directory. Every clone is closed with it.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it: closing goes on.
    pub(crate) async fn close(&self) {
        self.handle.shared.stop();
        // A task that is gone has closed the log too.
        let _ended = self.task.clone().await;
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

/// An append on its way to the disk: ready when it is durable, or failed. Dropping it does not undo it.
#[must_use = "entries are durable only when this is ready"]
#[derive(Debug)]
pub(crate) struct Append {
    seqs: Range<u64>,
    done: Option<oneshot::Receiver<Result<(), LogError>>>,
}

impl Append {
    /// The numbers of its entries.
    pub(crate) fn seqs(&self) -> Range<u64> {
        self.seqs.clone()
    }
}

impl Future for Append {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.done {
            None => Poll::Ready(Ok(())),
            Some(done) => done
                .poll_unpin(cx)
                .map(|told| told.unwrap_or_else(|_| Err(LogError::abandoned()))),
        }
    }
}

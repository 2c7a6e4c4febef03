use super::committer;
use super::frame::{self, MAX_FRAME};
use super::index::{FrameAt, Index};
use super::segment::{HEADER_LEN, Header};
use super::{Item, LogError, LogOptions, OpenReport, Reader, reader};
use crate::env::{Env, File, Task};
use crate::sync::{Mutex, Waiters};
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The bounds of [`LogOptions::segment_bytes`].
const MIN_SEGMENT: u64 = 8 << 10;
const MAX_SEGMENT: u64 = 1 << 30;

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

/// What the handles and the task share.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) options: LogOptions,
    pub(super) state: Mutex<State>,
    /// Those who wait for room in the buffer.
    pub(super) room: Waiters,
    /// Those who wait for the durable end to move.
    pub(super) changed: Waiters,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// What waits for the task, in order.
    pub(super) queue: Vec<Work>,
    /// Bytes of the frames that wait or are being written.
    pub(super) waiting: usize,
    /// The number of the next entry.
    pub(super) next: u64,
    /// What is durable.
    pub(super) index: Index,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Wakes the task, when it sleeps.
    pub(super) task: Option<Waker>,
    pub(super) stats: LogStats,
}

/// Whether the log takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The task finishes what waits, then ends.
    Stopping,
    Poisoned,
    Closed,
}

/// A segment's file and what its header says. One open file each.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn File>,
    pub(super) salt: u64,
    pub(super) base: u64,
    pub(super) len: u64,
}

/// Whom to tell how it went.
pub(super) type Done = oneshot::Sender<Result<(), LogError>>;

/// Something for the task to do.
pub(super) enum Work {
    Append {
        first_seq: u64,
        entries: Vec<Bytes>,
        done: Done,
    },
    Order(Order, Done),
}

/// What is done in the order of the appends, but is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Void everything from this number on.
    Truncate(u64),
    /// Free segments that hold only older numbers.
    Release(u64),
    /// Forget everything and go on at this number.
    Reset(u64),
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
        let len = frame::frame_len(&entries);
        if len > MAX_FRAME {
            return Err(LogError::TooLarge { len, max: MAX_FRAME });
        }
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        state.check_open()?;
        let first_seq = state.next;
        let seqs = first_seq..first_seq + entries.len() as u64;
        if entries.is_empty() {
            return Ok(Append { seqs, done: None });
        }
        let limit = shared.options.buffer_bytes;
        if state.waiting > 0 && state.waiting + len > limit {
            return Err(LogError::Busy { limit });
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
        Ok(Append { seqs, done: Some(wait) })
    }

    /// Waits until the buffer has room again after [`LogError::Busy`], or the log takes nothing more.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn room(&self) {
        let shared = &self.handle.shared;
        let has_room = || {
            let state = shared.state.lock();
            (state.phase != Phase::Open || state.waiting < shared.options.buffer_bytes).then_some(())
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

    /// Waits until the durable end is not `seen`, and returns it.
    ///
    /// # Errors
    /// [`LogError::Poisoned`] or [`LogError::Closed`] when it is `seen` and will not move any more.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn changed(&self, seen: u64) -> Result<u64, LogError> {
        let shared = &self.handle.shared;
        let look = || {
            let state = shared.state.lock();
            let durable = state.index.range().end;
            if durable != seen {
                return Some(Ok(durable));
            }
            state.check_open().err().map(Err)
        };
        shared.changed.wait(look).await
    }

    /// Counts and sizes.
    pub(crate) fn stats(&self) -> LogStats {
        let state = self.handle.shared.state.lock();
        LogStats {
            waiting: state.waiting,
            segments: state.segments.len(),
            bytes: state.segments.values().map(|segment| segment.len).sum(),
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

impl Shared {
    pub(super) fn new(env: Env, options: LogOptions, index: Index, segments: BTreeMap<u64, Segment>) -> Shared {
        let segment_bytes = options.segment_bytes.clamp(MIN_SEGMENT, MAX_SEGMENT);
        let state = State {
            phase: Phase::Open,
            queue: Vec::new(),
            waiting: 0,
            next: index.range().end,
            index,
            segments,
            task: None,
            stats: LogStats::default(),
        };
        Shared {
            env,
            options: LogOptions {
                segment_bytes,
                ..options
            },
            state: Mutex::new(state),
            room: Waiters::default(),
            changed: Waiters::default(),
        }
    }

    fn stop(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open | Phase::Poisoned) {
            state.phase = Phase::Stopping;
        }
        let task = state.task.take();
        drop(state);
        wake(task);
        self.wake_waiters();
    }

    /// The task is gone, and with it everything that it would have done.
    pub(super) fn ended(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        let undone = std::mem::take(&mut state.queue);
        state.segments.clear();
        drop(state);
        drop(undone);
        self.wake_waiters();
    }

    /// These frames are durable.
    pub(super) fn publish(&self, frames: impl ExactSizeIterator<Item = FrameAt>, bytes: usize) {
        if frames.len() == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.stats.appends += frames.len() as u64;
        for frame in frames {
            state.stats.entries += u64::from(frame.count);
            state.index.push(frame);
        }
        state.waiting -= bytes;
        drop(state);
        self.wake_waiters();
    }

    /// Nothing that waits will be done: gives it back. Poisons the log unless the disk was only full.
    pub(super) fn fail(&self, error: &LogError) -> Vec<Work> {
        let mut state = self.state.lock();
        if *error != LogError::Full && state.phase == Phase::Open {
            state.phase = Phase::Poisoned;
        }
        state.waiting = 0;
        state.next = state.index.range().end;
        let undone = std::mem::take(&mut state.queue);
        drop(state);
        self.wake_waiters();
        undone
    }

    /// A new segment takes entries from now on.
    pub(super) fn rolled(&self, header: Header, file: Arc<dyn File>) {
        let mut state = self.state.lock();
        let segment = Segment {
            file,
            salt: header.salt,
            base: header.base,
            len: 0,
        };
        state.segments.insert(header.id, segment);
        state.index.truncate(header.base);
        state.index.forget_before(header.floor);
        state.wrote(HEADER_LEN.into());
        drop(state);
        self.wake_waiters();
    }

    pub(super) fn removed(&self, segment: u64) {
        self.state.lock().segments.remove(&segment);
    }

    fn wake_waiters(&self) {
        self.room.wake_all();
        self.changed.wake_all();
    }
}

fn wake(task: Option<Waker>) {
    if let Some(task) = task {
        task.wake();
    }
}

impl Work {
    pub(super) fn into_done(self) -> Done {
        match self {
            Work::Append { done, .. } | Work::Order(_, done) => done,
        }
    }
}

impl State {
    pub(super) fn check_open(&self) -> Result<(), LogError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Poisoned => Err(LogError::Poisoned),
            Phase::Stopping | Phase::Closed => Err(LogError::Closed),
        }
    }

    /// The newest segment has grown.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.stats.written += bytes;
        if let Some(mut newest) = self.segments.last_entry() {
            newest.get_mut().len += bytes;
        }
    }

    /// Forgets the segments that hold only numbers before `seq`, and names the oldest one to keep.
    pub(super) fn release(&mut self, seq: u64) -> u64 {
        let newest = self.segments.last_key_value().map_or(0, |(id, _)| *id);
        let keep = self.index.segment_of(seq).unwrap_or(newest);
        let base = self.segments.get(&keep).map_or(0, |segment| segment.base);
        self.index.drop_segments_before(keep, base);
        keep
    }

    fn enqueue(&mut self, work: Work) -> Option<Waker> {
        self.queue.push(work);
        self.task.take()
    }

    fn order(&mut self, order: Order, next: Option<u64>) -> Result<oneshot::Receiver<Result<(), LogError>>, LogError> {
        self.check_open()?;
        let (done, wait) = oneshot::channel();
        self.next = next.unwrap_or(self.next);
        wake(self.enqueue(Work::Order(order, done)));
        Ok(wait)
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

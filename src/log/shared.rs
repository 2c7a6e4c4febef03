//! What the handles of a log and the task behind them share.

use super::index::{FrameAt, Index};
use super::segment::{HEADER_LEN, Header};
use super::{LogError, LogOptions, LogStats};
use crate::env::{Env, File};
use crate::sync::{Mutex, Waiters};
use bytes::Bytes;
use futures::channel::oneshot;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

/// What the handles and the task share.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) options: LogOptions,
    pub(super) state: Mutex<State>,
    /// Those who wait for room in the buffer.
    pub(super) room: Waiters,
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
    /// Bytes in them.
    pub(super) bytes: u64,
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

impl Shared {
    pub(super) fn new(env: Env, options: LogOptions, index: Index, segments: BTreeMap<u64, Segment>) -> Shared {
        let segment_bytes = options.segment_bytes.clamp(MIN_SEGMENT, MAX_SEGMENT);
        let state = State {
            phase: Phase::Open,
            queue: Vec::new(),
            waiting: 0,
            next: index.range().end,
            index,
            bytes: segments.values().map(|segment| segment.len).sum(),
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
        }
    }

    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open | Phase::Poisoned) {
            state.phase = Phase::Stopping;
        }
        let task = state.task.take();
        drop(state);
        wake(task);
        self.room.wake_all();
    }

    /// The task is gone, and with it everything that it would have done.
    pub(super) fn ended(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        let undone = std::mem::take(&mut state.queue);
        state.segments.clear();
        drop(state);
        drop(undone);
        self.room.wake_all();
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
        self.room.wake_all();
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
        self.room.wake_all();
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
    }

    pub(super) fn removed(&self, segment: u64) {
        let mut state = self.state.lock();
        if let Some(segment) = state.segments.remove(&segment) {
            state.bytes -= segment.len;
        }
    }
}

pub(super) fn wake(task: Option<Waker>) {
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

    /// Whether `len` bytes more may wait; one append always may when nothing waits.
    pub(super) fn has_room(&self, len: usize, limit: usize) -> bool {
        self.waiting == 0 || self.waiting + len <= limit
    }

    /// The newest segment has grown.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.stats.written += bytes;
        self.bytes += bytes;
        if let Some(mut newest) = self.segments.last_entry() {
            newest.get_mut().len += bytes;
        }
    }

    /// The oldest segment to keep if numbers before `seq` are released.
    pub(super) fn oldest_kept(&self, seq: u64) -> u64 {
        let newest = self.segments.last_key_value().map_or(0, |(id, _)| *id);
        self.index.segment_of(seq).unwrap_or(newest)
    }

    /// Forgets the segments that hold only numbers before `seq`, and names the oldest one to keep.
    pub(super) fn release(&mut self, seq: u64) -> u64 {
        let keep = self.oldest_kept(seq);
        let base = self.segments.get(&keep).map_or(0, |segment| segment.base);
        self.index.drop_segments_before(keep, base);
        keep
    }

    pub(super) fn enqueue(&mut self, work: Work) -> Option<Waker> {
        self.queue.push(work);
        self.task.take()
    }

    pub(super) fn order(
        &mut self,
        order: Order,
        next: Option<u64>,
    ) -> Result<oneshot::Receiver<Result<(), LogError>>, LogError> {
        self.check_open()?;
        let (done, wait) = oneshot::channel();
        self.next = next.unwrap_or(self.next);
        wake(self.enqueue(Work::Order(order, done)));
        Ok(wait)
    }
}

/// The bounds of [`LogOptions::segment_bytes`].
const MIN_SEGMENT: u64 = 8 << 10;
const MAX_SEGMENT: u64 = 1 << 30;

//! What the handles of a log, those who commit, and the task behind them share.

use super::batch::{Batch, Buffer, Cursor, NewSegment};
use super::entry::Hold;
use super::flush::Flush;
use super::group::{End, Group};
use super::index::Index;
use super::segment::{HEADER_LEN, Header, Place};
use super::spare::{Spare, Spares};
use super::summary::{Summarizer, Summary};
use super::wait::Wait;
use super::writer::Writer;
use super::{LogError, LogOptions, LogStats, Notes};
use crate::env::{Env, File, Rng, Tick};
use crate::sync::{AtomicU64, Mutex, OnceLock, Ordering, Waiters};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

/// What they share.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) notes: Option<Notes>,
    pub(super) state: Mutex<State>,
    /// Those who wait for room in the buffer.
    pub(super) room: Waiters,
    /// Those who wait for the end of a sync beside them.
    pub(super) flushed: Waiters,
    /// Bytes in the segments, for those who only look.
    pub(super) bytes: Arc<AtomicU64>,
    /// Called when something has become as durable as it was to be, before those who wait for it are told.
    pub(super) on_commit: OnceLock<OnCommit>,
}

/// What somebody wants done at each commit.
pub(super) type OnCommit = Box<dyn Fn() + Send + Sync>;

pub(super) struct State {
    pub(super) phase: Phase,
    /// What is to be written after `jobs`: appends add to it.
    pub(super) batch: Batch,
    /// What waits for a writer, in order.
    pub(super) jobs: VecDeque<Job>,
    /// Whoever takes it writes; nobody else does meanwhile.
    pub(super) writer: Option<Box<Writer>>,
    /// Wakes the task, when it sleeps.
    pub(super) task: Option<Waker>,
    /// Whether the task has a timer that will see to what is unmarked.
    pub(super) armed: bool,
    /// Where the next frame goes.
    pub(super) cursor: Option<Cursor>,
    /// The newest number that any segment has had.
    pub(super) last_id: u64,
    pub(super) rng: Rng,
    /// The log is on disk up to here.
    pub(super) durable: Place,
    /// And in the kernel up to here.
    pub(super) written: Place,
    /// The sync that goes on beside whoever writes.
    pub(super) flush: Flush,
    /// Bytes of the frames that wait or are being written.
    pub(super) waiting: usize,
    /// The number of the next entry.
    pub(super) next: u64,
    /// What is as durable as it was to be.
    pub(super) index: Index,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// For each entry in pieces, by its number and its segment: the oldest segment that holds one.
    pub(super) held: Held,
    /// Pieces whose entries are still to be appended.
    pub(super) staged: Vec<Weak<Hold>>,
    pub(super) spares: Spares,
    /// Summaries of full segments that are to be written, off the hot path.
    pub(super) sealed: VecDeque<Summarizer>,
    /// What opening knew of entries, by segment, until somebody asks.
    pub(super) summaries: BTreeMap<u64, Arc<Summary>>,
    /// Bytes in the segments.
    pub(super) bytes: Arc<AtomicU64>,
    /// Whether nothing vouches yet for what was synced last.
    pub(super) unmarked: bool,
    /// Since when something is written that is not synced.
    pub(super) unsynced: Option<Tick>,
    pub(super) last_commit: Tick,
    /// A buffer to use again.
    pub(super) buffer: Buffer,
    pub(super) stats: LogStats,
}

/// Where the pieces of entries begin. A number may be there twice, before and after a truncation that is still to happen.
pub(super) type Held = BTreeMap<(u64, u64), u64>;

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
    /// The first number that it was to hold, if its header says.
    pub(super) base: Option<u64>,
    /// Bytes in it, without the zeros that wait for more.
    pub(super) len: u64,
    /// Bytes of the file.
    pub(super) size: u64,
}

/// Something to do for whoever writes.
#[derive(Debug)]
pub(super) enum Job {
    Batch(Batch),
    Order(Order, Arc<Group>),
    /// Make what was written durable.
    Sync,
}

/// What is done in the order of the appends, but is none.
#[derive(Debug)]
pub(super) enum Order {
    /// Begin this segment, which voids what it overlaps.
    Truncate(NewSegment),
    /// Free segments that hold only older numbers.
    Release(u64),
    /// Forget everything and go on in this segment.
    Reset(NewSegment),
}

/// A log as it was opened.
pub(super) struct Parts {
    pub(super) options: LogOptions,
    pub(super) notes: Option<Notes>,
    pub(super) summaries: BTreeMap<u64, Arc<Summary>>,
    pub(super) index: Index,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) held: Held,
    pub(super) durable: Place,
    pub(super) cursor: Option<Cursor>,
    pub(super) spares: Vec<Spare>,
    pub(super) writer: Writer,
}

impl Shared {
    pub(super) fn new(env: Env, dir: PathBuf, parts: Parts) -> Shared {
        let options = LogOptions {
            segment_bytes: parts.options.segment_bytes.clamp(MIN_SEGMENT, MAX_SEGMENT),
            ..parts.options
        };
        let newest = parts.segments.last_key_value();
        let bytes = parts.segments.values().map(|segment| segment.len).sum();
        let bytes = Arc::new(AtomicU64::new(bytes));
        let state = State {
            phase: Phase::Open,
            batch: Batch::new(),
            jobs: VecDeque::new(),
            writer: Some(Box::new(parts.writer)),
            task: None,
            armed: false,
            cursor: parts.cursor,
            last_id: newest.map_or(0, |(id, _)| *id),
            rng: env.rng("log"),
            durable: parts.durable,
            written: parts.durable,
            flush: Flush::Idle,
            waiting: 0,
            next: parts.index.range().end,
            index: parts.index,
            spares: Spares::new(&options, newest.map(|(_, segment)| segment.size), parts.spares),
            bytes: Arc::clone(&bytes),
            segments: parts.segments,
            held: parts.held,
            staged: Vec::new(),
            sealed: VecDeque::new(),
            summaries: parts.summaries,
            unmarked: false,
            unsynced: None,
            last_commit: env.now(),
            buffer: Buffer::default(),
            stats: LogStats::default(),
        };
        Shared {
            env,
            dir,
            options,
            notes: parts.notes,
            state: Mutex::new(state),
            room: Waiters::default(),
            flushed: Waiters::default(),
            bytes,
            on_commit: OnceLock::new(),
        }
    }

    /// Has something done behind all that was appended so far.
    pub(super) fn order(
        self: &Arc<Self>,
        state: &mut State,
        order: impl FnOnce(&mut State) -> Order,
    ) -> Result<Wait, LogError> {
        state.check_open()?;
        state.close_batch();
        let order = order(state);
        let group = Arc::new(Group::new());
        state.jobs.push_back(Job::Order(order, Arc::clone(&group)));
        Ok(Wait::new(self, group, u64::MAX))
    }

    /// Waits until the buffer has room for `len` bytes, or the log takes nothing more.
    pub(super) async fn wait_for_room(&self, len: usize) {
        let limit = self.options.buffer_bytes;
        let has_room = || {
            let state = self.state.lock();
            let has_room = state.has_room(len, limit) && !state.spares.probing;
            (state.phase != Phase::Open || has_room).then_some(())
        };
        self.room.wait(has_room).await;
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
        let undone = state.undo();
        let end = End::Failed(state.index.range().end, LogError::abandoned());
        state.segments.clear();
        state.sealed.clear();
        state.summaries.clear();
        let writer = state.writer.take();
        drop(state);
        drop(writer);
        undone.into_iter().for_each(|group| group.finish(end.clone()));
        self.room.wake_all();
    }

    /// Nothing that waits will be done: takes it back and tells everybody. Poisons the log unless the disk was only full.
    /// The next frame then goes to `cursor`.
    pub(super) fn fail(&self, error: &LogError, failed: Option<Arc<Group>>, cursor: Option<Cursor>) {
        let mut state = self.state.lock();
        if *error != LogError::Full {
            if state.phase == Phase::Open {
                state.phase = Phase::Poisoned;
            }
            // Nothing is known any more of what was written.
            state.unmarked = false;
            state.unsynced = None;
            state.flush = Flush::Failed(error.clone());
        }
        state.waiting = 0;
        state.spares.probing = false;
        state.next = state.index.range().end;
        state.cursor = cursor;
        let next = state.next;
        let last = state.segments.last_key_value().map_or(0, |(id, _)| *id);
        state.held.retain(|(seq, segment), _| *seq < next && *segment <= last);
        state.lose_staged();
        let undone = state.undo();
        drop(state);
        let end = End::Failed(next, error.clone());
        for group in failed.into_iter().chain(undone) {
            group.finish(end.clone());
        }
        self.room.wake_all();
        self.flushed.wake_all();
    }

    /// A new segment takes entries from now on.
    pub(super) fn rolled(&self, header: Header, file: Arc<dyn File>, size: u64) {
        let mut state = self.state.lock();
        let segment = Segment {
            file,
            salt: header.salt,
            base: Some(header.base),
            len: 0,
            size,
        };
        state.segments.insert(header.id, segment);
        state.spares.probing = false;
        state.index.truncate(header.base);
        state.index.forget_before(header.floor);
        state
            .held
            .retain(|(seq, segment), _| *seq < header.base || *segment >= header.id);
        state.forget_held();
        state.durable = Place::new(header.id, HEADER_LEN);
        state.written = state.durable;
        state.unsynced = None;
        state.unmarked = false;
        state.wrote(HEADER_LEN.into());
    }
}

pub(super) fn wake(task: Option<Waker>) {
    if let Some(task) = task {
        task.wake();
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

    /// Everything up to this place is on disk, since a sync that took so long.
    pub(super) fn synced(&mut self, durable: Place, took: Duration) {
        self.durable = durable;
        self.unsynced = None;
        self.unmarked = true;
        self.stats.syncs += 1;
        self.stats.sync_times.record(took);
    }

    /// The newest segment has grown.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.stats.written += bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(mut newest) = self.segments.last_entry() {
            let newest = newest.get_mut();
            newest.len += bytes;
            newest.size = newest.size.max(newest.len);
        }
    }

    /// The oldest segment to keep if numbers before `seq` are released.
    pub(super) fn oldest_kept(&self, seq: u64) -> u64 {
        let newest = self.segments.last_key_value().map_or(0, |(id, _)| *id);
        let of_entry = self.index.segment_of(seq).unwrap_or(newest);
        let staged = self.staged.iter().filter_map(|hold| hold.upgrade()?.oldest());
        let held = self.held.range((seq, 0)..).map(|(_, segment)| *segment);
        held.chain(staged).fold(of_entry, u64::min)
    }

    /// The first number of the segments from `keep` on. One that is kept for pieces may have been to hold numbers which a
    /// truncation has voided since.
    fn base_from(&self, keep: u64) -> u64 {
        let bases = self.segments.range(keep..).filter_map(|(_, segment)| segment.base);
        bases.min().unwrap_or(self.index.range().end)
    }

    /// Forgets the segments that hold only numbers before `seq`, and names the oldest one to keep.
    pub(super) fn release(&mut self, seq: u64) -> u64 {
        let keep = self.oldest_kept(seq);
        self.index.drop_segments_before(keep, self.base_from(keep));
        // Where an entry stays without its pieces, that is where the log begins.
        let cut = self.held.iter().filter(|(_, oldest)| **oldest < keep);
        if let Some(last) = cut.map(|((seq, _), _)| *seq).max() {
            self.index.forget_before(last + 1);
        }
        self.forget_held();
        keep
    }

    fn forget_held(&mut self) {
        let first = self.index.range().start;
        self.held = self.held.split_off(&(first, 0));
    }

    /// A segment is full, and its summary is to be written. Where that takes too long, opening makes the oldest anew.
    pub(super) fn seal(&mut self, summary: Summarizer) {
        self.sealed.push_back(summary);
        if self.sealed.len() > MOST_SEALED {
            self.sealed.pop_front();
        }
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty() || !self.batch.is_empty()
    }

    /// The oldest job.
    pub(super) fn job(&mut self) -> Option<Job> {
        self.jobs.pop_front().or_else(|| {
            let is_empty = self.batch.is_empty();
            (!is_empty).then(|| Job::Batch(std::mem::replace(&mut self.batch, Batch::new())))
        })
    }

    /// What is appended from now on comes behind the next job.
    fn close_batch(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::replace(&mut self.batch, Batch::new());
            self.jobs.push_back(Job::Batch(batch));
        }
    }

    /// Takes back everything that waits, and says who waits for it.
    fn undo(&mut self) -> Vec<Arc<Group>> {
        let mut groups = Vec::new();
        while let Some(job) = self.job() {
            match job {
                Job::Batch(batch) => {
                    let spares = batch.parts.into_iter().filter_map(|part| part.new?.spare);
                    spares.for_each(|spare| self.spares.give_back(spare));
                    groups.push(batch.group);
                }
                Job::Order(order, group) => {
                    if let Order::Truncate(new) | Order::Reset(new) = order
                        && let Some(spare) = new.spare
                    {
                        self.spares.give_back(spare);
                    }
                    groups.push(group);
                }
                Job::Sync => {}
            }
        }
        groups
    }

    /// What was staged is not there any more.
    pub(super) fn lose_staged(&mut self) {
        for hold in self.staged.drain(..) {
            if let Some(hold) = hold.upgrade() {
                hold.lose();
            }
        }
    }
}

/// The most summaries that wait to be written.
const MOST_SEALED: usize = 4;
/// The bounds of [`LogOptions::segment_bytes`].
const MIN_SEGMENT: u64 = 8 << 10;
const MAX_SEGMENT: u64 = 1 << 30;

//! The one task that writes: it opens the log, then commits group after group until it is told to stop.

use super::frame;
use super::handle::Handle;
use super::index::FrameAt;
use super::open::{Opened, open};
use super::segment::{HEADER_LEN, Header, Place, file_name};
use super::shared::{Done, Order, Phase, Shared, Work};
use super::{LogError, LogOptions, OpenReport};
use crate::env::{DirLock, Env, File, OpenMode, Rng, Sleep, Tick, write_all_at};
use crate::mutant::{Mutant, planted};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, select};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long the task is idle before it vouches for what it wrote last.
const MARK_AFTER: Duration = Duration::from_millis(10);

/// Opens the log, says so, and serves it until the last handle is gone.
pub(super) async fn run(
    env: Env,
    dir: PathBuf,
    options: LogOptions,
    told: oneshot::Sender<Result<(Handle, OpenReport), LogError>>,
) {
    match open(&env, &dir).await {
        Ok(opened) => {
            let report = opened.report.clone();
            let committer = Committer::new(env, dir, options, opened);
            let shared = Arc::clone(&committer.shared);
            // Whoever asked may be gone; then the handle goes here, which stops the committer at once.
            drop(told.send(Ok((Handle { shared }, report))));
            committer.serve().await;
        }
        Err(error) => drop(told.send(Err(error))),
    }
}

struct Committer {
    shared: Arc<Shared>,
    dir: PathBuf,
    rng: Rng,
    /// The newest number that any segment has had.
    last_id: u64,
    /// The segment that takes frames; when there is none, the next frame needs a new one.
    active: Option<Active>,
    /// Everything before this is on disk.
    durable: Place,
    todo: VecDeque<Work>,
    group: Group,
    /// Whether nothing vouches yet for the last group.
    unmarked: bool,
    last_commit: Tick,
    idle: Option<Sleep>,
    /// Last, so that the directory is free only when nothing of it is in use.
    _lock: DirLock,
}

struct Active {
    id: u64,
    salt: u64,
    file: Arc<dyn File>,
    /// Where the next byte goes.
    tail: u32,
}

/// Frames that are written and synced together.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    frames: Vec<FrameAt>,
    done: Vec<Done>,
}

enum Next {
    Work(Vec<Work>),
    Idle,
    Stop,
}

impl Committer {
    fn new(env: Env, dir: PathBuf, options: LogOptions, opened: Opened) -> Committer {
        let found = opened.found;
        let tail = found
            .tail
            .and_then(|tail| Some((tail, opened.segments.get(&tail.segment)?)));
        let active = tail.map(|(tail, segment)| Active {
            id: tail.segment,
            salt: segment.salt,
            file: Arc::clone(&segment.file),
            tail: tail.offset,
        });
        Committer {
            dir,
            rng: env.rng("log"),
            last_id: opened.segments.last_key_value().map_or(0, |(id, _)| *id),
            active,
            durable: found.end,
            todo: VecDeque::new(),
            group: Group::default(),
            unmarked: false,
            last_commit: env.now(),
            idle: None,
            _lock: opened.lock,
            shared: Arc::new(Shared::new(env, options, found.index, opened.segments)),
        }
    }

    async fn serve(mut self) {
        loop {
            let result = match self.next().await {
                Next::Work(work) => {
                    self.todo.extend(work);
                    self.work().await
                }
                Next::Idle => self.mark().await,
                Next::Stop => break,
            };
            if let Err(error) = result {
                self.fail(&error);
            }
        }
        if self.unmarked && self.shared.state.lock().phase == Phase::Stopping {
            // Nobody waits for this one; without it the last group is as safe as at a crash.
            drop(self.last_mark().await);
        }
    }

    /// What to do next. Waits for it.
    async fn next(&mut self) -> Next {
        loop {
            let shared = &self.shared;
            let work = pin!(poll_fn(|cx| {
                let mut state = shared.state.lock();
                if !state.queue.is_empty() {
                    return Poll::Ready(Next::Work(std::mem::take(&mut state.queue)));
                }
                if state.phase == Phase::Stopping {
                    return Poll::Ready(Next::Stop);
                }
                state.task = Some(cx.waker().clone());
                Poll::Pending
            }));
            if !self.unmarked {
                return work.await;
            }
            // One timer serves many commits: it is set anew only when it has fired.
            let at = self.last_commit + MARK_AFTER;
            let idle = self.idle.take().unwrap_or_else(|| shared.env.sleep_until(at));
            match select(work, idle).await {
                Either::Left((next, idle)) => {
                    self.idle = Some(idle);
                    return next;
                }
                Either::Right(((), _)) if shared.env.now() >= at => return Next::Idle,
                Either::Right(((), _)) => {}
            }
        }
    }

    async fn work(&mut self) -> Result<(), LogError> {
        while let Some(work) = self.todo.pop_front() {
            match work {
                Work::Append {
                    first_seq,
                    entries,
                    done,
                } => {
                    let added = self.add(first_seq, &entries).await;
                    self.group.done.push(done);
                    added?;
                }
                Work::Order(order, done) => {
                    self.flush().await?;
                    self.group.done.push(done);
                    self.obey(order).await?;
                    self.flush().await?;
                }
            }
        }
        self.flush().await
    }

    /// Puts a frame into the group.
    async fn add(&mut self, first_seq: u64, entries: &[Bytes]) -> Result<(), LogError> {
        let len = frame::frame_len(entries);
        if !self.fits(len) {
            self.flush().await?;
            let floor = self.shared.state.lock().index.range().start;
            self.roll(first_seq, floor).await?;
        }
        let active = self.active.as_ref().expect("a segment was just made");
        let place = Place::new(active.id, active.tail + self.group.bytes.len() as u32);
        let seed = frame::seed(active.salt, place);
        frame::encode(&mut self.group.bytes, seed, first_seq, self.durable, entries);
        self.group.frames.push(FrameAt {
            first_seq,
            place,
            count: entries.len() as u32,
            len: len as u32,
        });
        Ok(())
    }

    /// Whether a frame of `len` bytes may follow in the active segment, which always takes at least one.
    fn fits(&self, len: usize) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let offset = u64::from(active.tail) + self.group.bytes.len() as u64;
            offset == u64::from(HEADER_LEN) || offset + frame::padded(len) as u64 <= self.shared.options.segment_bytes
        })
    }

    /// Writes and syncs the group, then tells those who wait for it.
    async fn flush(&mut self) -> Result<(), LogError> {
        if !self.group.bytes.is_empty() {
            self.write_group().await?;
            if planted(Mutant::AckBeforeSync) {
                self.publish();
            }
            self.sync().await?;
            self.last_commit = self.shared.env.now();
            self.unmarked = true;
        }
        self.publish();
        Ok(())
    }

    async fn write_group(&mut self) -> Result<(), LogError> {
        let active = self.active.as_mut().expect("a group has a segment");
        let bytes = &self.group.bytes;
        if let Err(error) = write_all_at(&*active.file, bytes, active.tail.into()).await {
            // What a failed write left behind must not be taken for anything later, so it is cut off, durably.
            if LogError::from(&error) == LogError::Full {
                undo_write(&*active.file, active.tail)
                    .await
                    .map_err(|e| LogError::unknown(&e))?;
                return Err(LogError::Full);
            }
            return Err(LogError::unknown(&error));
        }
        active.tail += bytes.len() as u32;
        self.shared.state.lock().wrote(bytes.len() as u64);
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), LogError> {
        let active = self.active.as_ref().expect("what is synced was written to a segment");
        active.file.sync_data().await.map_err(|e| LogError::unknown(&e))?;
        self.durable = Place::new(active.id, active.tail);
        self.shared.state.lock().stats.syncs += 1;
        Ok(())
    }

    /// Makes the group readable and wakes each who waits for it once.
    fn publish(&mut self) {
        let bytes = std::mem::take(&mut self.group.bytes).len();
        let frames = self.group.frames.drain(..);
        self.shared.publish(frames, bytes);
        for done in self.group.done.drain(..) {
            // Nobody may be waiting any more.
            drop(done.send(Ok(())));
        }
    }

    /// Tells everybody whose work is not done that it failed. What was not written gets its numbers back.
    fn fail(&mut self, error: &LogError) {
        self.group.bytes.clear();
        self.group.frames.clear();
        self.unmarked &= *error == LogError::Full;
        let queued = self.shared.fail(error);
        let todo = self.todo.drain(..).chain(queued).map(Work::into_done);
        for done in self.group.done.drain(..).chain(todo) {
            drop(done.send(Err(error.clone())));
        }
    }

    /// Vouches for what was written last, without a sync of its own: if a crash takes the mark, nothing is lost.
    async fn mark(&mut self) -> Result<(), LogError> {
        self.unmarked = false;
        let next = self.shared.state.lock().index.range().end;
        let Some(active) = &self.active else { return Ok(()) };
        let seed = frame::seed(active.salt, Place::new(active.id, active.tail));
        frame::encode(&mut self.group.bytes, seed, next, self.durable, &[]);
        let written = self.write_group().await;
        self.group.bytes.clear();
        written
    }

    async fn last_mark(&mut self) -> Result<(), LogError> {
        self.mark().await?;
        self.sync().await
    }

    async fn obey(&mut self, order: Order) -> Result<(), LogError> {
        match order {
            Order::Truncate(next) => {
                let floor = self.shared.state.lock().index.range().start;
                self.roll(next, floor).await
            }
            Order::Release(seq) => {
                let keep = self.shared.state.lock().release(seq);
                self.remove_before(keep).await
            }
            Order::Reset(next) => {
                self.roll(next, next).await?;
                self.remove_before(self.last_id).await
            }
        }
    }

    /// Makes a new segment, which takes entries from `base` on and voids what was before `floor`, and what is not before
    /// `base`.
    async fn roll(&mut self, base: u64, floor: u64) -> Result<(), LogError> {
        self.last_id += 1;
        let header = Header {
            id: self.last_id,
            salt: self.rng.next_u64(),
            base,
            floor,
            prev: self.durable,
        };
        let path = self.dir.join(file_name(header.id));
        let file = match self.create(&path, header).await {
            Ok(file) => file,
            Err(LogError::Full) => {
                // A half-made segment must not come back after a crash and void what follows in the old one.
                self.uncreate(&path).await.map_err(|e| LogError::unknown(&e))?;
                return Err(LogError::Full);
            }
            Err(error) => return Err(error),
        };
        self.active = Some(Active {
            id: header.id,
            salt: header.salt,
            file: Arc::clone(&file),
            tail: HEADER_LEN,
        });
        self.durable = Place::new(header.id, HEADER_LEN);
        self.unmarked = false;
        self.shared.rolled(header, file);
        Ok(())
    }

    /// A new segment's file: written, synced and named durably before it takes any frame.
    async fn create(&self, path: &Path, header: Header) -> Result<Arc<dyn File>, LogError> {
        let writing = |e: io::Error| match LogError::from(&e) {
            LogError::Full => LogError::Full,
            _ => LogError::unknown(&e),
        };
        let disk = self.shared.env.disk();
        let file = disk.open(path, OpenMode::New).await.map_err(writing)?;
        write_all_at(&*file, &header.encode(), 0).await.map_err(writing)?;
        file.sync_data().await.map_err(|e| LogError::unknown(&e))?;
        disk.sync_dir(&self.dir).await.map_err(|e| LogError::unknown(&e))?;
        Ok(file)
    }

    async fn uncreate(&self, path: &Path) -> io::Result<()> {
        let disk = self.shared.env.disk();
        match disk.remove(path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        disk.sync_dir(&self.dir).await
    }

    /// Removes the files of segments before `keep`: the oldest first, each durably before the next, so that a crash
    /// never leaves a hole.
    async fn remove_before(&mut self, keep: u64) -> Result<(), LogError> {
        loop {
            let oldest = self.shared.state.lock().segments.first_key_value().map(|(id, _)| *id);
            let Some(oldest) = oldest.filter(|id| *id < keep) else {
                return Ok(());
            };
            let path = self.dir.join(file_name(oldest));
            self.uncreate(&path).await.map_err(|e| LogError::unknown(&e))?;
            self.shared.removed(oldest);
        }
    }
}

/// Cuts off, durably, what a failed write left behind `tail`.
async fn undo_write(file: &dyn File, tail: u32) -> io::Result<()> {
    file.set_len(tail.into()).await?;
    file.sync_data().await
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.ended();
    }
}

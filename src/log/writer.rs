//! Writing: whoever holds the [`Writer`] does one job after the other, and nobody else does meanwhile.

use super::LogError;
use super::active::{Active, PAGE};
use super::batch::{Batch, Buffer, Cursor, NewSegment, Part};
use super::frame::HEAD;
use super::group::{End, Group};
use super::segment::{HEADER_LEN, Header, Place, file_name, spare_name};
use super::shared::{Job, Order, Shared};
use super::spare::{self, Spare, create, undo_write};
use super::summary::Summarizer;
use super::summary_file;
use crate::env::{DirLock, File, write_all_at};
use crate::mutant::{Mutant, planted};
use crate::sync::Ordering;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What only the one who writes needs.
pub(super) struct Writer {
    /// The segment that takes frames; when there is none, the next frame needs a new one.
    active: Option<Active>,
    /// Everything before this is on disk.
    durable: Place,
    /// Whether something was written since the last sync.
    dirty: bool,
    /// Whether something has failed, so that less is known of what is on disk than is said here.
    failed: bool,
    /// Of the active segment, as far as it is written; not there when it could not be gone on with.
    summary: Option<Summarizer>,
    /// One to use again.
    buffer: Option<Buffer>,
    /// Last, so that the directory is free only when nothing of it is in use.
    _lock: DirLock,
}

/// What was just written.
#[derive(Clone, Copy)]
struct Written {
    bytes: usize,
    /// How long its sync took, if it was synced.
    synced: Option<Duration>,
}

impl Writer {
    pub(super) fn new(active: Option<Active>, durable: Place, summary: Option<Summarizer>, lock: DirLock) -> Writer {
        Writer {
            active,
            durable,
            dirty: false,
            failed: false,
            summary,
            buffer: None,
            _lock: lock,
        }
    }

    /// Does a job and tells whoever waits for it. A failure fails everything that waits.
    pub(super) async fn run(&mut self, shared: &Shared, job: Job) {
        let (result, group) = match job {
            Job::Batch(batch) => return self.run_batch(shared, batch).await,
            Job::Order(order, group) => (self.obey(shared, order).await, Some(group)),
            Job::Sync => (self.sync(shared).await, None),
        };
        match result {
            Ok(()) => group.into_iter().for_each(|group| group.finish(End::Whole)),
            Err(error) => self.fail(shared, &error, group),
        }
    }

    async fn run_batch(&mut self, shared: &Shared, mut batch: Batch) {
        if let Err(error) = self.batch(shared, &mut batch).await {
            return self.fail(shared, &error, Some(batch.group));
        }
        if let Some(on_commit) = shared.on_commit.get() {
            on_commit();
        }
        batch.group.finish(End::Whole);
        // Those who wait need not wait for this.
        let Some(mut last) = batch.parts.pop() else { return };
        self.summarize(&last);
        if last.buffer.capacity() <= MAX_BUFFER {
            last.buffer.clear();
            self.buffer = Some(last.buffer);
        }
    }

    fn fail(&mut self, shared: &Shared, error: &LogError, group: Option<Arc<Group>>) {
        self.failed |= *error != LogError::Full;
        shared.fail(error, group, self.cursor());
    }

    /// Tells the summary of what has been written.
    fn summarize(&mut self, part: &Part) {
        match &mut self.summary {
            Some(summary) if summary.tells_up_to(part.start) => summary.add(part.bytes()),
            _ => self.summary = None,
        }
    }

    fn cursor(&self) -> Option<Cursor> {
        self.active.as_ref().map(|active| Cursor {
            segment: active.id,
            salt: active.salt,
            offset: active.tail,
            limit: active.limit,
        })
    }

    async fn batch(&mut self, shared: &Shared, batch: &mut Batch) -> Result<(), LogError> {
        let parts = batch.parts.len();
        for n in 1..=parts {
            let part = &mut batch.parts[n - 1];
            if let Some(new) = part.new.take() {
                let floor = shared.state.lock().index.range().start;
                self.roll(shared, new, floor).await?;
            }
            part.close();
            if part.mark.is_some() {
                // A sync beside this may have come further.
                self.durable = self.durable.max(shared.state.lock().durable);
                part.witness(self.durable);
            }
            let is_last = n == parts;
            self.write(shared, part).await?;
            let mut written = Written {
                bytes: part.bytes().len(),
                synced: None,
            };
            if planted(Mutant::AckBeforeSync) && is_last {
                self.publish(shared, batch, n, written);
                batch.group.finish(End::Whole);
                written.bytes = 0;
            }
            if !is_last || batch.sync {
                written.synced = self.sync_file(shared).await?;
            }
            self.publish(shared, batch, n, written);
            if !is_last {
                self.summarize(&batch.parts[n - 1]);
            }
        }
        Ok(())
    }

    /// The first `n` parts of a batch are as durable as they were to be.
    fn publish(&mut self, shared: &Shared, batch: &mut Batch, n: usize, written: Written) {
        let part = &mut batch.parts[n - 1];
        let is_mark = part.frames.is_empty() && part.mark.is_some() && written.bytes == HEAD;
        let now = shared.env.coarse();
        let mut state = shared.state.lock();
        state.wrote(written.bytes as u64);
        state.written = part.end_place();
        if let Some(took) = written.synced {
            state.synced(self.durable, took);
        }
        for frame in part.frames.drain(..) {
            state.stats.entries += u64::from(frame.count);
            state.index.push(frame);
        }
        state.waiting -= written.bytes;
        state.stats.appends += std::mem::take(&mut batch.appends);
        match is_mark {
            true => state.unmarked = false,
            false => state.last_commit = now,
        }
        if !is_mark && written.synced.is_none() {
            state.unsynced.get_or_insert(now);
        }
        if let Some(buffer) = self.buffer.take_if(|mine| mine.capacity() > state.buffer.capacity()) {
            state.buffer = buffer;
        }
        drop(state);
        shared.room.wake_all();
    }

    async fn write(&mut self, shared: &Shared, part: &mut Part) -> Result<(), LogError> {
        let active = self.active.as_mut().expect("a part has a segment");
        debug_assert_eq!(part.start, Place::new(active.id, active.tail));
        let (len, end) = (part.bytes().len(), part.end());
        let padded = active.padded(end);
        let bytes = &mut part.buffer.bytes;
        bytes.resize(len + (padded - end) as usize, 0);
        let written = write_all_at(&*active.file, bytes, active.tail.into()).await;
        bytes.truncate(len);
        if let Err(error) = written {
            // What a failed write left behind must not be taken for anything later, so it is undone, durably.
            if LogError::from(&error) == LogError::Full {
                shared.flushed().await?;
                undo_write(&*active.file, active.tail, len)
                    .await
                    .map_err(|e| LogError::unknown(&e))?;
                return Err(LogError::Full);
            }
            return Err(LogError::unknown(&error));
        }
        active.tail = end;
        active.warm = active.warm.max(padded);
        self.dirty = true;
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) async fn sync(&mut self, shared: &Shared) -> Result<(), LogError> {
        if let Some(took) = self.sync_file(shared).await? {
            shared.state.lock().synced(self.durable, took);
        }
        Ok(())
    }

    /// The same, of which nobody else knows yet; how long it took, if there was anything to sync.
    async fn sync_file(&mut self, shared: &Shared) -> Result<Option<Duration>, LogError> {
        shared.flushed().await?;
        let Some(active) = self.active.as_ref().filter(|_| self.dirty) else {
            return Ok(None);
        };
        let since = shared.env.stopwatch();
        active.file.sync_data().await.map_err(|e| LogError::unknown(&e))?;
        self.dirty = false;
        self.durable = Place::new(active.id, active.tail);
        Ok(Some(shared.env.stopwatch() - since))
    }

    async fn obey(&mut self, shared: &Shared, order: Order) -> Result<(), LogError> {
        match order {
            Order::Truncate(new) => {
                let floor = shared.state.lock().index.range().start;
                self.roll(shared, new, floor).await
            }
            Order::Release(seq) => {
                let keep = shared.state.lock().release(seq);
                self.remove_before(shared, keep).await
            }
            Order::Reset(new) => {
                let (id, base) = (new.id, new.base);
                self.roll(shared, new, base).await?;
                self.remove_before(shared, id).await
            }
        }
    }

    /// Begins a segment, which takes entries from `base` on and voids what was before `floor`, and what is not before
    /// `base`. What was written before is durable by then.
    async fn roll(&mut self, shared: &Shared, new: NewSegment, floor: u64) -> Result<(), LogError> {
        self.sync(shared).await?;
        let before = self.durable.segment;
        let prev_base = shared
            .state
            .lock()
            .segments
            .get(&before)
            .and_then(|segment| segment.base);
        let header = Header {
            id: new.id,
            salt: new.salt,
            base: new.base,
            floor,
            prev: self.durable,
            prev_base: prev_base.unwrap_or(u64::MAX),
        };
        let path = shared.dir.join(file_name(header.id));
        let says_nothing = new.reserved && new.spare.is_some();
        let made = match new.spare {
            Some(spare) => self.become_segment(shared, spare, &path, header).await,
            None => self.create(shared, &path, header, new.len).await,
        };
        let file = match made {
            Ok(file) => file,
            Err(LogError::Full) => {
                shared.state.lock().spares.full = true;
                return Err(LogError::Full);
            }
            Err(error) => return Err(error),
        };
        let full = self
            .summary
            .replace(Summarizer::new(header, new.len.into(), shared.notes));
        let full = full.filter(|summary| summary.tells_up_to(self.durable) && !summary.is_written());
        self.active = Some(Active::new(
            (header.id, header.salt),
            Arc::clone(&file),
            HEADER_LEN,
            new.len,
        ));
        self.durable = Place::new(header.id, HEADER_LEN);
        shared.rolled(header, file, new.len.into());
        let mut state = shared.state.lock();
        state.spares.full &= says_nothing;
        full.into_iter().for_each(|full| state.seal(full));
        Ok(())
    }

    /// Makes a segment of a file of zeros: its header is synced before it gets the name by which it counts.
    async fn become_segment(
        &self,
        shared: &Shared,
        spare: Spare,
        path: &Path,
        header: Header,
    ) -> Result<Arc<dyn File>, LogError> {
        let disk = shared.env.disk();
        let mut bytes = header.encode();
        // As a whole page, for the same reason as frames.
        bytes.resize(PAGE.min(spare.len).max(HEADER_LEN) as usize, 0);
        let named = async {
            write_all_at(&*spare.file, &bytes, 0)
                .await
                .map_err(|e| spare::full(&e))?;
            spare.file.sync_data().await.map_err(|e| LogError::unknown(&e))?;
            disk.rename(&spare.path, path).await.map_err(|e| spare::full(&e))
        };
        match named.await {
            Ok(()) => {}
            Err(LogError::Full) => {
                self.remove(shared, &spare.path)
                    .await
                    .map_err(|e| LogError::unknown(&e))?;
                return Err(LogError::Full);
            }
            Err(error) => return Err(error),
        }
        disk.sync_dir(&shared.dir).await.map_err(|e| LogError::unknown(&e))?;
        Ok(spare.file)
    }

    /// A new segment's file: written, synced and named durably before it takes any frame.
    async fn create(&self, shared: &Shared, path: &Path, header: Header, len: u32) -> Result<Arc<dyn File>, LogError> {
        let file = match create(&shared.env, path, &header.encode(), len).await {
            Ok(file) => file,
            Err(e) if LogError::from(&e) == LogError::Full => {
                // A half-made segment must not come back after a crash and void what follows in the old one.
                self.remove(shared, path).await.map_err(|e| LogError::unknown(&e))?;
                return Err(LogError::Full);
            }
            Err(e) => return Err(LogError::unknown(&e)),
        };
        file.sync_data().await.map_err(|e| LogError::unknown(&e))?;
        let disk = shared.env.disk();
        disk.sync_dir(&shared.dir).await.map_err(|e| LogError::unknown(&e))?;
        Ok(file)
    }

    async fn remove(&self, shared: &Shared, path: &Path) -> io::Result<()> {
        let disk = shared.env.disk();
        match disk.remove(path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        disk.sync_dir(&shared.dir).await
    }

    /// Frees the segments before `keep`: the oldest first, each durably before the next, so that a crash never leaves a
    /// hole.
    async fn remove_before(&mut self, shared: &Shared, keep: u64) -> Result<(), LogError> {
        loop {
            let (id, file, size, recycles) = {
                let mut state = shared.state.lock();
                let Some(oldest) = state.segments.first_entry().filter(|oldest| *oldest.key() < keep) else {
                    return Ok(());
                };
                let (id, segment) = oldest.remove_entry();
                state.sealed.retain(|summary| summary.segment() != id);
                state.bytes.fetch_sub(segment.len, Ordering::Relaxed);
                // Whoever still reads it must find what was there.
                let unread = Arc::strong_count(&segment.file) == 1;
                let recycles = unread && state.spares.wants();
                (id, segment.file, segment.size, recycles)
            };
            let path = shared.dir.join(file_name(id));
            summary_file::remove(&**shared.env.disk(), &shared.dir, id).await;
            if recycles {
                self.recycle(shared, id, &path, file, size).await
            } else {
                let removed = self.remove(shared, &path).await;
                // A file without a name is freed when it is closed, which takes long if it is large.
                shared.env.spawn_blocking(async move { drop(file) }).detach();
                removed
            }
            .map_err(|e| LogError::unknown(&e))?;
        }
    }

    /// Takes a freed segment's name from its file, which is filled with zeros again later.
    async fn recycle(&self, shared: &Shared, id: u64, path: &Path, file: Arc<dyn File>, size: u64) -> io::Result<()> {
        let to = shared.dir.join(spare_name(id));
        let disk = shared.env.disk();
        match disk.rename(path, &to).await {
            Ok(()) => {}
            Err(e) if LogError::from(&e) == LogError::Full => return self.remove(shared, path).await,
            Err(e) => return Err(e),
        }
        disk.sync_dir(&shared.dir).await?;
        let len = u32::try_from(size).unwrap_or(u32::MAX);
        let spare = Spare {
            file,
            path: to,
            len,
            has_zeros: false,
        };
        shared.state.lock().spares.recycle(spare);
        Ok(())
    }

    /// Vouches for what was written last and makes that durable too, for the end.
    pub(super) async fn last_mark(&mut self, shared: &Shared) {
        let (unmarked, unsynced) = {
            let state = shared.state.lock();
            (state.unmarked, state.unsynced.is_some())
        };
        // Nobody waits for this; without it the last group is as safe as at a crash.
        if unsynced {
            self.run(shared, Job::Sync).await;
        }
        if unmarked || unsynced {
            let mark = shared.state.lock().mark();
            if let Some(mark) = mark {
                self.run(shared, mark).await;
            }
        }
        // Also a mark that was written when the log was idle, so that a summary may tell of it.
        if !self.failed {
            drop(self.sync(shared).await);
        }
    }
}

impl Writer {
    /// Writes the summaries that are not written yet, for the end.
    pub(super) async fn last_summaries(&mut self, shared: &Shared) {
        let sealed = std::mem::take(&mut shared.state.lock().sealed);
        // What is not known to be on disk must not be told.
        let open = self.summary.take().filter(|_| !self.dirty && !self.failed);
        let open = open.filter(|summary| summary.tells_up_to(self.durable));
        for summary in sealed.iter().chain(&open) {
            summary_file::write_gathered(&**shared.env.disk(), &shared.dir, summary).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The group that it was at is told by whoever let go of it.
        self.active = None;
    }
}

/// The largest buffer that is kept for the next batch.
const MAX_BUFFER: usize = 4 << 20;

/// Who waits for a job that will not be done.
pub(super) fn group_of(job: &Job) -> Option<Arc<Group>> {
    match job {
        Job::Batch(batch) => Some(Arc::clone(&batch.group)),
        Job::Order(_, group) => Some(Arc::clone(group)),
        Job::Sync => None,
    }
}

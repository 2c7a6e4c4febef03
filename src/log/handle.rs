use super::append::{Append, How};
use super::entry::{Entries, Entry};
use super::reader::Plan;
use super::shared::{Order, Shared};
use super::{
    Durability, Item, Latencies, LogError, LogOptions, Notes, OpenReport, Reader, committer, large, pick, quarantine,
    reader,
};
use crate::env::{Env, Task, files};
use crate::sync::Ordering;
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

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

/// What is known of consecutive entries without reading them.
#[derive(Clone, Debug)]
pub(crate) struct Recalled {
    /// Their numbers.
    pub(crate) seqs: Range<u64>,
    /// Notes of them, and perhaps of others before and behind them: the first is of the entry with this number. Nothing
    /// where they are to be read.
    pub(crate) noted: Option<(u64, Bytes)>,
}

/// Counts since the log was opened, and what is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct LogStats {
    /// Entries made as durable as asked for.
    pub(crate) entries: u64,
    /// Appends made as durable as asked for.
    pub(crate) appends: u64,
    /// Bytes written, headers and marks included.
    pub(crate) written: u64,
    /// Syncs of data.
    pub(crate) syncs: u64,
    /// How long each of them took.
    pub(crate) sync_times: Latencies,
    /// Bytes that wait for the disk.
    pub(crate) waiting: usize,
    /// Segments on disk.
    pub(crate) segments: usize,
    /// Bytes on disk, without the zeros that wait to be written over: up to two files beside the segments, and the rest
    /// of the newest.
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
        Log::open_noting(env, dir, options, None).await
    }

    /// As [`open`](Log::open), for one who wants to know of entries what `notes` say, without reading them: see
    /// [`recall`](Log::recall).
    ///
    /// # Errors
    /// As for [`open`](Log::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Log::open).
    pub(crate) async fn open_noting(
        env: &Env,
        dir: &Path,
        options: LogOptions,
        notes: Option<Notes>,
    ) -> Result<(Log, OpenReport), LogError> {
        let (send, opened) = oneshot::channel();
        let run = committer::run(env.clone(), dir.to_owned(), (options, notes), send);
        let task = env.spawn_dedicated("outgrow-log", run)?.shared();
        let (handle, report) = opened.await.map_err(|_| LogError::abandoned())??;
        let handle = Arc::new(handle);
        Ok((Log { handle, task }, report))
    }

    /// Appends entries as one: they get the next numbers now, and after a crash either all of them are found or none. An
    /// append of nothing takes no number and is durable at once. An entry of more than a frame is cut into pieces, which
    /// are written together, before what is appended next; [`stage`](Log::stage) it first to let others go between.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] when an entry has more than 64 MiB, or together they need more than a frame of 1 MiB (40
    /// bytes, and 8 for each entry beside its own), [`LogError::Busy`] when too much waits for the disk,
    /// [`LogError::Poisoned`], [`LogError::Closed`]. The entries have then no number. What fails later is told by the
    /// [`Append`]; when it is [`LogError::Full`], everything that was appended behind it fails alike and the numbers are
    /// given again.
    pub(crate) fn append(&self, entries: &[Bytes]) -> Result<Append, LogError> {
        self.append_with(entries, Durability::Disk)
    }

    /// As [`append`](Log::append), ready when the entries are as durable as asked for.
    pub(crate) fn append_with<E>(&self, entries: &E, durability: Durability) -> Result<Append, LogError>
    where
        E: Entries + ?Sized,
    {
        let how = How {
            durability,
            reserved: false,
            at: None,
        };
        self.append_any(entries, how)
    }

    /// As [`append_with`](Log::append_with), for what frees room: it goes through on a full disk, as long as the
    /// segment that is kept for this has room.
    pub(crate) fn append_reserved<E>(&self, entries: &E, durability: Durability) -> Result<Append, LogError>
    where
        E: Entries + ?Sized,
    {
        let how = How {
            durability,
            reserved: true,
            at: None,
        };
        self.append_any(entries, how)
    }

    fn append_any(&self, entries: &(impl Entries + ?Sized), how: How) -> Result<Append, LogError> {
        let append = self.handle.shared.append(entries, how)?;
        Ok(append.expect("broken invariant: any number will do"))
    }

    /// As [`append_reserved`](Log::append_reserved), unless the next number is not `next`, which means that earlier appends
    /// have failed: for entries that are true only if those are in the log.
    pub(crate) fn append_at(&self, next: u64, entries: impl AsRef<[Bytes]>) -> Result<Option<Append>, LogError> {
        let how = How {
            durability: Durability::Disk,
            reserved: true,
            at: Some(next),
        };
        self.handle.shared.append(entries.as_ref(), how)
    }

    /// The same for what takes more room than is kept for what frees some.
    pub(crate) fn append_common_at(&self, next: u64, entries: &[Entry]) -> Result<Option<Append>, LogError> {
        let how = How {
            durability: Durability::Disk,
            reserved: false,
            at: Some(next),
        };
        self.handle.shared.append(entries, how)
    }

    /// Writes the pieces of an entry that is too long for a frame, one after the other, so that whatever is appended
    /// meanwhile goes between them. The entry has no number until it is appended, and is then there as a whole; after a
    /// crash before that it is as if it was never sent. One that fits in a frame is given back as it is.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] above 64 MiB, [`LogError::Full`], and as for an append.
    ///
    /// # Cancel safety
    /// Dropping it leaves pieces that nothing reads, which go with their segment.
    pub(crate) async fn stage(&self, bytes: Bytes) -> Result<Entry, LogError> {
        large::stage(&self.handle.shared, bytes).await
    }

    /// Has `told` called whenever something has become as durable as it was to be, before those who wait for it are told:
    /// by whoever writes, so it is to be short. Only the first call counts.
    pub(crate) fn on_commit(&self, told: impl Fn() + Send + Sync + 'static) {
        drop(self.handle.shared.on_commit.set(Box::new(told)));
    }

    /// Waits until the buffer has room for `len` bytes after [`LogError::Busy`], or the log takes nothing more.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn room(&self, len: usize) {
        self.handle.shared.wait_for_room(len).await;
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
        let plan = self.plan(seqs, max_bytes)?;
        self.run(plan).await
    }

    /// What [`read`](Log::read) would read.
    pub(super) fn plan(&self, seqs: Range<u64>, max_bytes: usize) -> Result<Option<Plan>, LogError> {
        reader::plan(&self.handle.shared.state.lock(), seqs, max_bytes)
    }

    pub(super) fn env(&self) -> &Env {
        &self.handle.shared.env
    }

    /// So many entries were found damaged.
    pub(super) fn count_damaged(&self, damaged: u64) {
        self.handle.shared.state.lock().stats.damaged += damaged;
    }

    /// Reads the durable entries of these numbers, which are in order, and little else: for those that lie far apart. A
    /// number behind the end is left out.
    ///
    /// # Errors
    /// As for [`read`](Log::read).
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn read_some(&self, seqs: &[u64]) -> Result<Vec<Item>, LogError> {
        let plan = pick::plan(&self.handle.shared.state.lock(), seqs)?;
        self.run(plan).await
    }

    async fn run(&self, plan: Option<Plan>) -> Result<Vec<Item>, LogError> {
        let Some(plan) = plan else {
            return Ok(Vec::new());
        };
        let shared = &self.handle.shared;
        let (disk, dir) = (Arc::clone(shared.env.disk()), shared.dir.clone());
        let run = async move {
            let read = plan.run().await?;
            // Where it cannot be kept aside, the rest is served all the same.
            drop(quarantine::keep_bad(&*disk, &dir, &read.bad).await);
            Ok::<_, std::io::Error>(read)
        };
        let read = shared
            .env
            .spawn_blocking(run)
            .await
            .map_err(|_| LogError::abandoned())??;
        if read.damaged > 0 {
            self.count_damaged(read.damaged);
        }
        Ok(read.items)
    }

    /// Makes reads come from the device.
    pub(super) async fn drop_cache(&self) -> Result<(), LogError> {
        let shared = &self.handle.shared;
        let files: Vec<_> = {
            let state = shared.state.lock();
            state
                .segments
                .values()
                .map(|segment| Arc::clone(&segment.file))
                .collect()
        };
        let drop = async move {
            for file in files {
                file.drop_cache().await?;
            }
            Ok(())
        };
        Ok(files::blocking(&shared.env, drop).await?)
    }

    /// What opening knew of the entries that there were then, from the oldest to the newest, without reading them. It
    /// knows it once: what is asked again is to be read.
    pub(crate) fn recall(&self) -> Vec<Recalled> {
        let mut state = self.handle.shared.state.lock();
        let summaries = std::mem::take(&mut state.summaries);
        let range = state.index.range();
        let mut all = Vec::new();
        let mut at = range.start;
        let to_read = |seqs: Range<u64>| (!seqs.is_empty()).then_some(Recalled { seqs, noted: None });
        for (segment, summary) in summaries {
            let Some(seqs) = state.index.of_segment(segment).filter(|seqs| !seqs.is_empty()) else {
                continue;
            };
            all.extend(to_read(at..seqs.start));
            at = seqs.end;
            let noted = Some((summary.first, summary.notes.clone()));
            all.push(Recalled { seqs, noted });
        }
        all.extend(to_read(at..range.end));
        all
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
            let shared = &self.handle.shared;
            let mut state = shared.state.lock();
            if next >= state.next {
                return state.check_open();
            }
            let oldest = state.index.range().start;
            if next < oldest {
                return Err(LogError::Gone { oldest });
            }
            shared.order(&mut state, |state| {
                state.next = next;
                Order::Truncate(state.new_segment(next, true))
            })?
        };
        wait.await
    }

    /// Frees the segments that hold only numbers before `seq`, oldest first. The newest segment is never freed.
    ///
    /// # Errors
    /// The disk's; some segments may then have been freed.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it.
    pub(crate) async fn release_before(&self, seq: u64) -> Result<(), LogError> {
        let shared = &self.handle.shared;
        let wait = shared.order(&mut shared.state.lock(), |_| Order::Release(seq))?;
        wait.await
    }

    /// Forgets everything: durable when it returns; the next entry is number `next`.
    ///
    /// # Errors
    /// As for an append.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it.
    pub(crate) async fn reset(&self, next: u64) -> Result<(), LogError> {
        let shared = &self.handle.shared;
        let wait = shared.order(&mut shared.state.lock(), |state| {
            state.next = next;
            state.lose_staged();
            Order::Reset(state.new_segment(next, true))
        })?;
        wait.await
    }

    /// The numbers in the log: the oldest kept to before the next to be given.
    pub(crate) fn range(&self) -> Range<u64> {
        let state = self.handle.shared.state.lock();
        state.index.range().start..state.next
    }

    /// The end of what is as durable as it was to be: on disk, but for appends of [`Durability::Os`].
    pub(crate) fn durable(&self) -> u64 {
        self.handle.shared.state.lock().index.range().end
    }

    /// Whether releasing the numbers before `seq` would free anything.
    pub(crate) fn frees(&self, seq: u64) -> bool {
        let state = self.handle.shared.state.lock();
        let oldest = state.segments.first_key_value();
        oldest.is_some_and(|(id, _)| *id < state.oldest_kept(seq))
    }

    /// The segments but the newest, the oldest first: for each the number before which it ends, and its bytes. Those that
    /// can be freed only together, since one has pieces of an entry in the other, count as one.
    pub(crate) fn full_segments(&self) -> Vec<(u64, u64)> {
        let state = self.handle.shared.state.lock();
        let (mut full, mut bytes) = (Vec::new(), 0);
        for (segment, (next, behind)) in state.segments.values().zip(state.segments.iter().skip(1)) {
            bytes += segment.len;
            // Where a header is lost, it is not known.
            let end = behind.base.filter(|end| state.oldest_kept(*end) >= *next);
            full.extend(end.map(|end| (end, std::mem::take(&mut bytes))));
        }
        full
    }

    /// Bytes on disk, without the zeros that wait to be written over.
    pub(crate) fn bytes(&self) -> u64 {
        self.handle.shared.bytes.load(Ordering::Relaxed)
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
            bytes: self.bytes(),
            ..state.stats.clone()
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

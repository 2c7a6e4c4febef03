//! Files of zeros that wait to become segments, made while the log does something else.
//!
//! A write into zeros that are on disk changes no metadata, so the sync behind it is one write of the device instead of
//! two, cannot fail for want of room, and asks nothing of the file system. (Room that is only reserved, as by `fallocate`, is
//! a third faster where a mebibyte is synced at once. But on ext4 over a thin disk that ran out, `tests/queue_disks` then lost
//! what a sync had promised; it seems that nobody is told when it cannot be written down which of the room holds data.) The
//! zeros are written past the page cache, and synced now and then, so that others do not wait behind them. One is kept in reserve for
//! what frees room; a second is made when the active segment is half full, or earlier when that was too late the last time. A
//! segment that is freed becomes a spare again: it is renamed, and made zeros.

use super::segment::{HEADER_LEN, is_spare, spare_name};
use super::shared::{Phase, Shared, State, wake};
use super::summary::Summarizer;
use super::{LogError, LogOptions, summary_file};
use crate::env::{Disk, Env, File, OpenMode, Tick, read_exact_at, write_all_at, write_zeros_at, zero_all_at};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the first segment is, and the reserve; each segment is twice as long as the one before.
const FIRST: u64 = 256 << 10;
/// The longest file that is made while somebody waits.
const INLINE: u64 = 1 << 20;
/// How long to wait before a full disk is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// The most files that wait.
const MOST: usize = 2;
/// How many zeros are written at once.
const PIECE: usize = 256 << 10;
/// So many are synced at once: whoever syncs what counts does not wait behind more.
const AT_ONCE: u64 = 1 << 20;

/// A file that waits to become a segment.
pub(super) struct Spare {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) len: u32,
    /// Whether much of it may be zeros already, so that it is worth a look.
    pub(super) has_zeros: bool,
}

/// Those that there are.
#[derive(Debug, Default)]
pub(super) struct Spares {
    clean: Vec<Spare>,
    /// Not known to be zeros.
    used: Vec<Spare>,
    /// Whether a file is being made or filled.
    pub(super) working: bool,
    /// Whether the disk was full when a segment was to be made.
    pub(super) full: bool,
    /// Whether something waits that is to find out whether it still is.
    pub(super) probing: bool,
    again: Option<Tick>,
    /// How long the next segment is to be.
    next_len: u64,
    /// Whether there was none when one was needed, so that the next is made earlier.
    late: bool,
}

enum Step {
    Summary(Summarizer),
    Make(u64),
    Fill(Spare),
    Discard(Spare),
}

impl Spares {
    pub(super) fn new(options: &LogOptions, newest: Option<u64>, used: Vec<Spare>) -> Spares {
        let next_len = newest
            .map_or(FIRST, |len| len * 2)
            .clamp(FIRST, options.segment_bytes.max(FIRST));
        Spares {
            used,
            next_len: next_len.min(options.segment_bytes),
            ..Spares::default()
        }
    }

    /// A file for the next segment: the last one only for what may use the reserve. Also how long the segment is.
    pub(super) fn take(&mut self, reserve: bool) -> (Option<Spare>, u32) {
        let least = if reserve { 1 } else { 2 };
        let longest = (0..self.clean.len()).max_by_key(|&at| self.clean[at].len);
        match longest.filter(|_| self.clean.len() >= least) {
            Some(at) => {
                let spare = self.clean.swap_remove(at);
                let len = spare.len;
                (Some(spare), len)
            }
            None => {
                self.late = true;
                (None, self.next_len.min(INLINE) as u32)
            }
        }
    }

    /// A segment of this length is full.
    pub(super) fn grow(&mut self, len: u32, options: &LogOptions) {
        self.next_len = (u64::from(len) * 2).clamp(self.next_len, options.segment_bytes);
    }

    /// One that was taken and not used.
    pub(super) fn give_back(&mut self, spare: Spare) {
        self.clean.push(spare);
    }

    /// Whether a freed segment is of use.
    pub(super) fn wants(&self) -> bool {
        self.clean.len() + self.used.len() + usize::from(self.working) < MOST
    }

    /// Takes the file of a freed segment, which makes room on a full disk.
    pub(super) fn recycle(&mut self, spare: Spare) {
        self.used.push(spare);
        self.again = None;
    }

    /// How many there are to be, beside an active segment that is half full or not.
    fn wanted(&self, half_full: bool) -> usize {
        if half_full || self.full || self.late { 2 } else { 1 }
    }

    fn step(&mut self, half_full: bool, now: Tick, options: &LogOptions) -> Option<Step> {
        if let Some(spare) = self.used.pop() {
            return Some(match self.clean.len() < MOST {
                true => Step::Fill(spare),
                false => Step::Discard(spare),
            });
        }
        let wanted = self.wanted(half_full);
        let waits = self.again.is_some_and(|again| now < again);
        if self.clean.len() >= wanted || waits {
            return None;
        }
        // On a disk that is full, or nearly, the reserve comes first.
        let reserve = self.clean.is_empty() && (wanted < MOST || self.full || self.again.is_some());
        Some(Step::Make(match reserve {
            true => FIRST.min(options.segment_bytes),
            false => self.next_len,
        }))
    }
}

impl State {
    /// Whether the spares need work, which the caller is then to begin by [`keep`]; it is counted as begun.
    pub(super) fn begin_keeping(&mut self, now: Tick) -> bool {
        let starts = self.phase == Phase::Open && !self.spares.working && !self.segments.is_empty() && {
            let full = self.spares.used.is_empty() && self.spares.clean.len() >= self.spares.wanted(self.half_full());
            let waits = self.spares.used.is_empty() && self.spares.again.is_some_and(|again| now < again);
            (!full && !waits) || !self.sealed.is_empty()
        };
        self.spares.working |= starts;
        starts
    }

    fn half_full(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor.offset >= cursor.limit / 2)
    }
}

/// Starts work on the spares where it is needed, off the hot path.
pub(super) fn keep(shared: &Arc<Shared>) {
    let now = shared.env.coarse();
    if shared.state.lock().begin_keeping(now) {
        start(shared);
    }
}

/// Starts the work that was counted as begun.
pub(super) fn start(shared: &Arc<Shared>) {
    shared.env.spawn_blocking(work(Arc::clone(shared))).detach();
}

async fn work(shared: Arc<Shared>) {
    let mut done = Ending {
        shared: &shared,
        number: shared.env.rng("spare"),
    };
    loop {
        let step = {
            let mut state = shared.state.lock();
            let half_full = state.half_full();
            match state.phase {
                Phase::Open => match state.sealed.pop_front() {
                    Some(summary) => Some(Step::Summary(summary)),
                    None => state.spares.step(half_full, shared.env.now(), &shared.options),
                },
                _ => None,
            }
        };
        let Some(step) = step else { return };
        let made = match step {
            Step::Summary(summary) => {
                write_summary(&shared, &summary).await;
                continue;
            }
            Step::Make(len) => make(&shared, &spare_name(done.number.next_u64()), len).await,
            Step::Fill(spare) => fill(&shared, spare).await,
            Step::Discard(spare) => {
                discard(&shared, spare).await;
                Ok(None)
            }
        };
        let mut state = shared.state.lock();
        match made {
            Ok(Some(spare)) => {
                // Ready before the active segment is half full, so it would have been if it had been begun then.
                let early = !state.half_full();
                state.spares.late &= !early;
                state.spares.again = None;
                state.spares.clean.push(spare);
            }
            Ok(None) => {}
            // It holds nothing, so nothing is lost with it. Whoever needs a segment meanwhile makes it in place.
            Err(_) => state.spares.again = Some(shared.env.now() + AGAIN),
        }
    }
}

/// Writes the summary of a full segment. On a full disk there are better uses of what room there is.
async fn write_summary(shared: &Shared, summary: &Summarizer) {
    let (disk, segment) = (shared.env.disk(), summary.segment());
    let is_there = |state: &State| state.segments.contains_key(&segment);
    let is_wanted = {
        let state = shared.state.lock();
        is_there(&state) && !state.spares.full
    };
    if is_wanted {
        summary_file::write_gathered(&**disk, &shared.dir, summary).await;
        if !is_there(&shared.state.lock()) {
            // It was freed meanwhile.
            summary_file::remove(&**disk, &shared.dir, segment).await;
        }
    }
}

/// Says that no work is going on, also when the task is dropped.
struct Ending<'a> {
    shared: &'a Arc<Shared>,
    number: crate::env::Rng,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.spares.working = false;
        let task = state.task.take();
        drop(state);
        wake(task);
    }
}

async fn make(shared: &Shared, name: &str, len: u64) -> io::Result<Option<Spare>> {
    let disk = shared.env.disk();
    let path = shared.dir.join(name);
    let file = disk.open(&path, OpenMode::New).await?;
    let spare = Spare {
        file,
        path,
        len: len as u32,
        has_zeros: false,
    };
    zero(shared, spare).await
}

/// Makes zeros of what a file held.
async fn fill(shared: &Shared, spare: Spare) -> io::Result<Option<Spare>> {
    if spare.len <= HEADER_LEN || u64::from(spare.len) > shared.options.segment_bytes.max(FIRST) {
        discard(shared, spare).await;
        return Ok(None);
    }
    zero(shared, spare).await
}

async fn zero(shared: &Shared, spare: Spare) -> io::Result<Option<Spare>> {
    match become_zeros(shared, &spare).await {
        Ok(true) => Ok(Some(spare)),
        // The log is being closed; whoever opens it next goes on with the file.
        Ok(false) => Ok(None),
        Err(error) => {
            discard(shared, spare).await;
            Err(error)
        }
    }
}

async fn become_zeros(shared: &Shared, spare: &Spare) -> io::Result<bool> {
    let (file, len) = (&*spare.file, u64::from(spare.len));
    reserve(file, len).await?;
    let mut at = 0;
    while at < len {
        if shared.state.lock().phase != Phase::Open {
            return Ok(false);
        }
        let piece = PIECE.min((len - at) as usize);
        if !(spare.has_zeros && is_zero(file, at, piece).await) {
            zero_all_at(file, at, piece).await?;
        }
        at += piece as u64;
        if at.is_multiple_of(AT_ONCE) {
            file.sync_data().await?;
        }
    }
    file.sync_data().await?;
    Ok(true)
}

/// Takes room for a file in one piece, where that can be done ahead, so that it is known to fit before much is written.
///
/// # Errors
/// When the disk is full. What else is wrong shows when the file is written.
async fn reserve(file: &dyn File, len: u64) -> io::Result<()> {
    match file.reserve(len).await {
        Err(e) if LogError::from(&e) == LogError::Full => Err(e),
        _ => Ok(()),
    }
}

async fn is_zero(file: &dyn File, at: u64, len: usize) -> bool {
    let mut held = vec![0; len];
    read_exact_at(file, &mut held, at).await.is_ok() && held.iter().all(|byte| *byte == 0)
}

/// Removes a file that is of no use. One that stays is found when the log is opened next.
async fn discard(shared: &Shared, spare: Spare) {
    drop(shared.env.disk().remove(&spare.path).await);
}

/// The spares in the directory of a log that is being opened, of `names`.
pub(super) async fn find(disk: &dyn Disk, dir: &Path, names: &[String]) -> io::Result<Vec<Spare>> {
    let mut found = Vec::new();
    for name in names.iter().filter(|name| is_spare(name)) {
        let path = dir.join(name);
        let file = disk.open(&path, OpenMode::Existing).await?;
        let len = u32::try_from(file.len().await?).unwrap_or(u32::MAX);
        let spare = Spare {
            file,
            path,
            len,
            has_zeros: true,
        };
        found.push(spare);
    }
    Ok(found)
}

/// Makes the file of a segment where none was ready: the header, and zeros behind it.
pub(super) async fn create(env: &Env, path: &Path, header: &[u8], len: u32) -> io::Result<Arc<dyn File>> {
    let file = env.disk().open(path, OpenMode::New).await?;
    write_all_at(&*file, header, 0).await?;
    write_zeros_at(&*file, header.len() as u64, len.into()).await?;
    Ok(file)
}

/// Makes zeros, durably, of what a failed write left behind `tail`.
pub(super) async fn undo_write(file: &dyn File, tail: u32, len: usize) -> io::Result<()> {
    let end = file.len().await?.min(u64::from(tail) + len as u64);
    if write_zeros_at(file, tail.into(), end).await.is_err() {
        file.set_len(tail.into()).await?;
    }
    file.sync_data().await
}

/// Whether opening a spare failed only because the disk is full.
pub(super) fn full(error: &io::Error) -> LogError {
    match LogError::from(error) {
        LogError::Full => LogError::Full,
        _ => LogError::unknown(error),
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.path.display(), self.len)
    }
}

//! A log looked at as it lies on disk, beside whoever has it open: nothing is locked, synced, written or removed.
//!
//! What is looked at may change meanwhile, in two ways only. The newest segment grows: it is read before those that are
//! older and, where it does not look sound, again up to the same end, until it stays as it is; so whatever vouches for
//! a place was read before the place was (see [`settled`]). And the oldest segments go, or become zeros: where one cannot
//! be read and its name is gone, everything begins anew.

use super::index::{Index, Piece};
use super::reader::plan_of;
use super::recovery::{Recovered, Recovery, used};
use super::segment::{Header, file_name, other_version, parse_name};
use super::shared::{Held, Segment};
use super::{Damage, Gap, Item, LogError};
use crate::env::{Disk, Env, File, OpenMode, files, read_exact_at};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No segment is longer; of a foreign file that is, no more is read.
const MAX_SEGMENT: u64 = (1 << 30) + (4 << 20);
/// How often a look begins anew since the log has moved on.
const TRIES: usize = 32;
/// How often a segment that is being written is read again until it stays as it is. What changes is below an end that
/// does not move, so a writer cannot go on with it for long.
const READS: usize = 100;
/// The most segments that may be without a sound header and not be damaged: one in the making, and what crashes left.
const UNFINISHED: usize = 4;

/// A log as it was at one moment.
pub(crate) struct View {
    env: Env,
    dir: PathBuf,
    index: Index,
    segments: BTreeMap<u64, Segment>,
    held: Held,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) damage: Vec<Damage>,
    /// Bytes at the end that are no whole frame: they are being written, or a crash cut them short.
    pub(crate) unfinished: u64,
}

/// One segment of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentAt {
    pub(crate) id: u64,
    /// The number of its first entry, if its header says.
    pub(crate) base: Option<u64>,
    /// Bytes in it, without the zeros that wait for more.
    pub(crate) len: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
}

impl View {
    /// Reads every segment in `dir` and judges it; from the device, where `from_device`, else what the system has in memory.
    /// `progress` hears how many bytes of how many are read.
    ///
    /// # Errors
    /// [`LogError::Version`], and the disk's; also when the log moved on faster than it could be read.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn open(
        env: &Env,
        dir: &Path,
        from_device: bool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<View, LogError> {
        for _ in 0..TRIES {
            if let Some(view) = look(env, dir, from_device, &mut progress).await? {
                return Ok(view);
            }
        }
        Err(LogError::moved_on())
    }

    /// The numbers in it.
    pub(crate) fn range(&self) -> Range<u64> {
        self.index.range()
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = SegmentAt> {
        self.segments.iter().map(|(id, segment)| SegmentAt {
            id: *id,
            base: segment.base,
            len: segment.len,
            size: segment.size,
        })
    }

    /// As [`Log::read`](super::Log::read). What has been released since is left out: [`range`](View::range) then begins
    /// later.
    ///
    /// # Errors
    /// The disk's.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn read(&mut self, seqs: Range<u64>, max_bytes: usize) -> Result<Vec<Item>, LogError> {
        loop {
            let wanted = seqs.start.max(self.range().start)..seqs.end;
            let Some(plan) = plan_of(&self.index, &self.segments, &self.held, wanted, max_bytes) else {
                return Ok(Vec::new());
            };
            let run = self.env.spawn_blocking(plan.run()).await;
            let read = run.map_err(|_| LogError::abandoned())??;
            if read.damaged == 0 || !self.forget_released().await? {
                return Ok(read.items);
            }
        }
    }

    /// Forgets the segments whose names are gone, and says whether there were any.
    async fn forget_released(&mut self) -> Result<bool, LogError> {
        let there = ids(&self.env, &self.dir).await?;
        let oldest = there.first().copied().unwrap_or(u64::MAX);
        let before = self.segments.len();
        self.segments = self.segments.split_off(&oldest);
        let base = self.segments.values().find_map(|segment| segment.base);
        let base = base.unwrap_or(self.range().end);
        let gone = before > self.segments.len();
        if gone {
            self.index.drop_segments_before(oldest, base);
            let cut = self.held.iter().filter(|(_, first)| **first < oldest);
            let cut = cut.map(|((seq, _), _)| seq + 1).max().unwrap_or(0);
            self.index.forget_before(cut);
        }
        Ok(gone)
    }

    /// The lost numbers that each of the damaged places held.
    pub(crate) fn lost_at(&self) -> Vec<Vec<Range<u64>>> {
        if self.damage.is_empty() {
            return Vec::new();
        }
        let frames = self.index.walk(self.range()).filter_map(|piece| match piece {
            Piece::Frame(frame) => Some(frame),
            Piece::Hole(..) => None,
        });
        let mut frames: Vec<_> = frames.collect();
        frames.sort_unstable_by_key(|at| at.place);
        let lost = |damage: &Damage| {
            let from = (damage.segment, damage.bytes.start);
            let to = (damage.segment, damage.bytes.end);
            let whole = frames.partition_point(|at| (at.place.segment, at.place.offset + at.len) <= from);
            let after = frames.partition_point(|at| (at.place.segment, at.place.offset) < to);
            let first = whole.checked_sub(1).map_or(0, |at| frames[at].end());
            let end = frames.get(after).map_or(self.range().end, |at| at.first_seq);
            let within = self
                .gaps
                .iter()
                .map(|gap| gap.range.start.max(first)..gap.range.end.min(end));
            within.filter(|range| !range.is_empty()).collect()
        };
        self.damage.iter().map(lost).collect()
    }
}

impl LogError {
    /// What was to be read was released before, again and again.
    pub(crate) fn moved_on() -> LogError {
        LogError::Io {
            kind: io::ErrorKind::Interrupted,
            message: "the log moves on faster than it can be read".into(),
        }
    }
}

/// The segments in a directory, oldest first.
async fn ids(env: &Env, dir: &Path) -> io::Result<Vec<u64>> {
    let (disk, dir) = (Arc::clone(env.disk()), dir.to_owned());
    files::blocking(env, async move { list(&*disk, &dir).await }).await
}

async fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids: Vec<u64> = disk
        .list(dir)
        .await?
        .iter()
        .filter_map(|name| parse_name(name))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// A segment before it is judged.
struct Found {
    id: u64,
    file: Arc<dyn File>,
    size: u64,
}

/// Opens every segment for reading. Whatever goes meanwhile goes from the oldest end.
async fn find(disk: Arc<dyn Disk>, dir: PathBuf) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for id in list(&*disk, &dir).await? {
        match disk.open(&dir.join(file_name(id)), OpenMode::Read).await {
            Ok(file) => {
                let size = file.len().await?.min(MAX_SEGMENT);
                found.push(Found { id, file, size });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => found.clear(),
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Looks once; nothing when the log has moved on meanwhile.
async fn look(
    env: &Env,
    dir: &Path,
    from_device: bool,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Option<View>, LogError> {
    let mut found = files::blocking(env, find(Arc::clone(env.disk()), dir.to_owned())).await?;
    let of = found.iter().map(|segment| segment.size).sum();
    let mut done = 0;
    progress(done, of);
    // Segments older than one with a header do not change any more.
    let mut newest = Vec::new();
    let mut segments = BTreeMap::new();
    while let Some(segment) = found.pop() {
        let image = settled(Arc::clone(&segment.file), segment.id, segment.size, from_device);
        let image = files::blocking(env, image).await?;
        let is_written_no_more = Header::decode(segment.id, &image).is_some();
        newest.push((segment.id, image));
        segments.insert(segment.id, segment.unjudged());
        if is_written_no_more || newest.len() == UNFINISHED {
            break;
        }
    }
    let mut recovery = Recovery::default();
    for segment in found {
        let read = scan(
            recovery,
            Arc::clone(&segment.file),
            (segment.id, segment.size),
            from_device,
        );
        let scanned = env.spawn_blocking(read).await.map_err(|_| LogError::abandoned())??;
        recovery = scanned.0;
        if !scanned.1 && ids(env, dir).await?.binary_search(&segment.id).is_err() {
            return Ok(None);
        }
        done += segment.size;
        progress(done, of);
        segments.insert(segment.id, segment.unjudged());
    }
    for (id, image) in newest.iter().rev() {
        if !recovery.segment(*id, image) {
            refuse_other_version(*id, image)?;
        }
        done += image.len() as u64;
        progress(done, of);
    }
    Ok(Some(view(env, dir, recovery.finish(), segments)))
}

fn view(env: &Env, dir: &Path, found: Recovered, mut segments: BTreeMap<u64, Segment>) -> View {
    for header in &found.headers {
        if let Some(segment) = segments.get_mut(&header.id) {
            (segment.salt, segment.base) = (header.salt, Some(header.base));
        }
    }
    for (id, used) in &found.used {
        if let Some(segment) = segments.get_mut(id) {
            segment.len = u64::from(*used);
        }
    }
    View {
        env: env.clone(),
        dir: dir.to_owned(),
        index: found.index,
        segments,
        held: found.held,
        gaps: found.gaps,
        damage: found.damage,
        unfinished: found.torn,
    }
}

impl Found {
    fn unjudged(self) -> Segment {
        Segment {
            file: self.file,
            salt: 0,
            base: None,
            len: self.size,
            size: self.size,
        }
    }
}

/// The bytes of a segment that may be written at this moment, with zeros for what came after the first look. Frames are
/// written in order, and one that vouches for a place is written after everything before that place. So a bad frame that
/// is as it was when the one that vouches for it was read first is damage, and one that has changed since was only read too
/// early.
async fn settled(file: Arc<dyn File>, id: u64, size: u64, from_device: bool) -> io::Result<Vec<u8>> {
    let mut image = read(&*file, size, from_device).await?;
    let end = used(&image);
    for _ in 0..READS {
        if Recovery::default().segment(id, &image) {
            break;
        }
        let mut again = read(&*file, size, from_device).await?;
        again[end..].fill(0);
        if again == image {
            break;
        }
        image = again;
    }
    Ok(image)
}

/// Reads a segment that does not change, a second time if it did not look sound: a read may fail in ways that the device
/// does not report. Says whether it is sound.
async fn scan(
    mut recovery: Recovery,
    file: Arc<dyn File>,
    (id, size): (u64, u64),
    from_device: bool,
) -> Result<(Recovery, bool), LogError> {
    let image = read(&*file, size, from_device).await?;
    if recovery.segment(id, &image) {
        return Ok((recovery, true));
    }
    refuse_other_version(id, &image)?;
    recovery.undo();
    let image = read(&*file, size, true).await?;
    let is_sound = recovery.segment(id, &image);
    Ok((recovery, is_sound))
}

fn refuse_other_version(id: u64, image: &[u8]) -> Result<(), LogError> {
    match other_version(image) {
        Some(found) => Err(LogError::Version { found, segment: id }),
        None => Ok(()),
    }
}

async fn read(file: &dyn File, size: u64, from_device: bool) -> io::Result<Vec<u8>> {
    if from_device {
        file.drop_cache().await?;
    }
    let mut bytes = vec![0; size as usize];
    match read_exact_at(file, &mut bytes, 0).await {
        // What is cut off meanwhile reads as zeros.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
        result => result?,
    }
    Ok(bytes)
}

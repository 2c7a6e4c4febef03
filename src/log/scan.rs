//! Reading what is there when a log is opened: of full segments their headers and summaries; of those without a summary,
//! and of the newest, every byte.

use super::LogError;
use super::frame::{self, MAX_FRAME};
use super::recovery::{Recovered, Recovery, used};
use super::segment::{HEADER_LEN, Header, Place, file_name, other_version, parse_name};
use super::shared::Segment;
use super::summary::{Notes, Summarizer, Summary};
use super::summary_file;
use crate::env::{Disk, File, OpenMode, read_exact_at};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// No segment is longer; of a foreign file that is, no more is read.
const MAX_SEGMENT: u64 = (1 << 30) + (4 << 20);

/// What is in a log's directory.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// What is noted of the entries of segments, where anything is.
    pub(super) summaries: BTreeMap<u64, Arc<Summary>>,
    /// Summaries that are to be written, by segment.
    pub(super) made: Vec<(u64, Bytes)>,
    /// That of the newest segment, to be gone on with.
    pub(super) newest: Option<Summarizer>,
}

/// What is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Summaries, where headers agree.
    Summaries,
    /// Only the segments themselves.
    Segments,
}

/// Reads the segments among `names` and judges them.
pub(super) async fn read(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
    notes: Option<Notes>,
    trust: Trust,
) -> Result<Found, LogError> {
    let found = read_with(disk, dir, names, notes, trust).await?;
    match found.recovered.contradicted {
        // The headers in memory are not those on the device.
        true => read_with(disk, dir, names, notes, Trust::Segments).await,
        false => Ok(found),
    }
}

async fn read_with(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
    notes: Option<Notes>,
    trust: Trust,
) -> Result<Found, LogError> {
    let mut ids: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort_unstable();
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        let file = disk.open(&dir.join(file_name(id)), OpenMode::Existing).await?;
        let mut one = Look::new(id, file).await?;
        if trust == Trust::Summaries
            && let Some((header, true)) = one.header
        {
            one.summary = summary_file::read(disk, dir, &header, notes).await.map(Arc::new);
        }
        all.push(one);
    }
    set_limits(&mut all);
    let mut reading = Reading {
        notes,
        recovery: Recovery::default(),
        summaries: BTreeMap::new(),
        made: Vec::new(),
        newest: None,
    };
    for one in &mut all {
        reading.segment(one).await?;
    }
    Ok(reading.finish(all))
}

/// What is known of a segment before it is read.
struct Look {
    id: u64,
    file: Arc<dyn File>,
    size: u64,
    /// With whether both copies are sound.
    header: Option<(Header, bool)>,
    summary: Option<Arc<Summary>>,
    /// What the log holds from here on in this segment does not count, say the headers of later ones.
    limit: Place,
}

impl Look {
    async fn new(id: u64, file: Arc<dyn File>) -> io::Result<Look> {
        let size = file.len().await?.min(MAX_SEGMENT);
        // Whatever is wrong with it is found when the segment is read.
        let header = header(&*file, id).await;
        Ok(Look {
            id,
            file,
            size,
            header,
            summary: None,
            limit: Place::MAX,
        })
    }

    /// Where what counts in it ends, if headers say so or it is the newest, and ends at `end`.
    fn end(&self, end: u32) -> Option<Place> {
        match self.limit {
            Place::MAX => Some(Place::new(self.id, end)),
            limit => Some(limit).filter(|limit| limit.segment == self.id),
        }
    }
}

/// From the newest to the oldest, as the judgement goes.
fn set_limits(all: &mut [Look]) {
    let mut limit = Place::MAX;
    for one in all.iter_mut().rev() {
        one.limit = limit;
        if let Some((header, _)) = one.header
            && Place::new(one.id, 0) < limit
        {
            limit = header.prev;
        }
    }
}

struct Reading {
    notes: Option<Notes>,
    recovery: Recovery,
    summaries: BTreeMap<u64, Arc<Summary>>,
    made: Vec<(u64, Bytes)>,
    newest: Option<Summarizer>,
}

impl Reading {
    async fn segment(&mut self, one: &mut Look) -> Result<(), LogError> {
        let (header, summary) = match (one.header, one.summary.take()) {
            (Some((header, true)), Some(summary)) if summary.end() <= one.limit => (header, summary),
            _ => return self.scan(one).await,
        };
        if summary.end() == one.limit {
            self.recovery.summarized(header, Arc::clone(&summary));
            self.note(summary);
            return Ok(());
        }
        match self.rest(one, header, &summary).await? {
            true => Ok(()),
            false => self.scan(one).await,
        }
    }

    /// Reads what a segment has behind the end of its summary. Says whether all of it is sound.
    async fn rest(&mut self, one: &Look, header: Header, summary: &Arc<Summary>) -> io::Result<bool> {
        let end = summary.end().offset;
        let Some(len) = one.size.checked_sub(end.into()) else {
            return Ok(false);
        };
        if one.limit == Place::MAX {
            // What was written last is looked at in any case, but what is as it should be need not come from the device:
            // the summary says that the device has the beginning, and a write behind it that never got there, or failed,
            // would be seen.
            let is_closed =
                is_sound(&*one.file, header, end).await? && is_zero(&*one.file, end.into(), one.size).await?;
            if is_closed {
                self.recovery.summarized(header, Arc::clone(summary));
                self.recovery.rest(header, end, &[]);
                self.newest = Some(Summarizer::resume(header, one.size, self.notes, summary));
                self.note(Arc::clone(summary));
            }
            return Ok(is_closed);
        }
        from_device(&*one.file).await?;
        if self::header(&*one.file, one.id).await != one.header {
            return Ok(false);
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(&*one.file, &mut bytes, end.into()).await?;
        self.recovery.summarized(header, Arc::clone(summary));
        if !self.recovery.rest(header, end, &bytes) {
            self.recovery.undo();
            return Ok(false);
        }
        let mut more = Summarizer::resume(header, one.size, self.notes, summary);
        if let Some(to) = one.end(self.recovery.end()) {
            let len = to.offset.saturating_sub(end) as usize;
            more.add(bytes.get(..len).unwrap_or_default());
            self.keep(one, more, to);
        }
        Ok(true)
    }

    /// Reads a segment, a second time if it did not look sound: a read may fail in ways that the device does not report.
    async fn scan(&mut self, one: &mut Look) -> Result<(), LogError> {
        let mut image = image(&*one.file).await?;
        if !self.recovery.segment(one.id, &image) {
            if let Some(found) = other_version(&image) {
                return Err(LogError::Version { found, segment: one.id });
            }
            self.recovery.undo();
            image = self::image(&*one.file).await?;
            self.recovery.segment(one.id, &image);
        }
        one.size = image.len() as u64;
        if let Some((header, true)) = Header::decode(one.id, &image)
            && let Some(end) = one.end(self.recovery.end())
            && self.recovery.is_sound_up_to(end.offset)
            && let Some(frames) = image.get(HEADER_LEN as usize..end.offset as usize)
        {
            let mut summary = Summarizer::new(header, one.size, self.notes);
            summary.add(frames);
            self.keep(one, summary, end);
        }
        Ok(())
    }

    /// Keeps a summary that was made here.
    fn keep(&mut self, one: &Look, summary: Summarizer, end: Place) {
        if !summary.tells_up_to(end) {
            return;
        }
        let is_newest = one.limit == Place::MAX;
        if !is_newest || self.notes.is_some() {
            let bytes = Bytes::from(summary.encode(self.recovery.end()));
            let made = Summary::decode(&bytes, summary.header(), self.notes);
            self.note(Arc::new(made.expect("broken invariant: a summary can be read")));
            if !is_newest {
                self.made.push((one.id, bytes));
            }
        }
        self.newest = is_newest.then_some(summary);
    }

    fn note(&mut self, summary: Arc<Summary>) {
        if self.notes.is_some() {
            self.summaries.insert(summary.segment, summary);
        }
    }

    fn finish(self, all: Vec<Look>) -> Found {
        let recovered = self.recovery.finish();
        let segments = all.into_iter().map(|one| (one.id, Segment::new(one.file, one.size)));
        let mut segments: BTreeMap<u64, Segment> = segments.collect();
        for header in &recovered.headers {
            if let Some(segment) = segments.get_mut(&header.id) {
                (segment.salt, segment.base) = (header.salt, Some(header.base));
            }
        }
        for (id, used) in &recovered.used {
            if let Some(segment) = segments.get_mut(id) {
                segment.len = u64::from(*used);
            }
        }
        Found {
            recovered,
            segments,
            summaries: self.summaries,
            made: self.made,
            newest: self.newest,
        }
    }
}

/// A segment's header, and whether both copies are sound.
async fn header(file: &dyn File, id: u64) -> Option<(Header, bool)> {
    let mut bytes = [0; HEADER_LEN as usize];
    read_exact_at(file, &mut bytes, 0).await.ok()?;
    Header::decode(id, &bytes)
}

/// Has reads show what the device has: after a failed sync the cache may show what was never written.
async fn from_device(file: &dyn File) -> io::Result<()> {
    file.sync_data().await?;
    file.drop_cache().await
}

/// Whether the frames of a segment up to `end` are as they were written.
async fn is_sound(file: &dyn File, header: Header, end: u32) -> io::Result<bool> {
    let mut bytes = vec![0; MAX_FRAME + WINDOW];
    let mut at = HEADER_LEN;
    while at < end {
        let some = &mut bytes[..(MAX_FRAME + WINDOW).min((end - at) as usize)];
        read_exact_at(file, some, at.into()).await?;
        match sound_frames(header, at, some) {
            0 => return Ok(false),
            len => at += len as u32,
        }
    }
    Ok(at == end)
}

/// How many of these bytes of a segment are whole and sound frames, one behind the other.
fn sound_frames(header: Header, offset: u32, bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let seed = frame::seed(header.salt, Place::new(header.id, offset + at as u32));
        let rest = &bytes[at..];
        let Some(head) = frame::decode_head(rest, seed) else {
            break;
        };
        let len = frame::padded(head.len as usize);
        let is_whole = len <= rest.len() && frame::padding_is_zero(rest, head);
        if !is_whole || frame::rows(rest, seed, head).any(|row| row.is_none()) {
            break;
        }
        at += len;
    }
    at
}

/// Whether a file has only zeros in these bytes.
async fn is_zero(file: &dyn File, start: u64, end: u64) -> io::Result<bool> {
    let mut bytes = vec![0; WINDOW];
    let mut at = start;
    while at < end {
        let some = &mut bytes[..WINDOW.min((end - at) as usize)];
        read_exact_at(file, some, at).await?;
        if used(some) > 0 {
            return Ok(false);
        }
        at += some.len() as u64;
    }
    Ok(true)
}

/// How much is looked at at once: little enough to stay in the processor's cache.
const WINDOW: usize = 256 << 10;

/// The bytes of a file as the device has them.
async fn image(file: &dyn File) -> io::Result<Vec<u8>> {
    from_device(file).await?;
    let mut bytes = vec![0; file.len().await?.min(MAX_SEGMENT) as usize];
    read_exact_at(file, &mut bytes, 0).await?;
    Ok(bytes)
}

impl Segment {
    /// A segment whose header is not known.
    fn new(file: Arc<dyn File>, size: u64) -> Segment {
        Segment {
            file,
            salt: 0,
            base: None,
            len: size,
            size,
        }
    }
}

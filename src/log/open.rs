//! Opening: make the directory, take it, and read every segment from the device.

use super::batch::Cursor;
use super::quarantine;
use super::recovery::{Recovered, Recovery};
use super::segment::{HEADER_LEN, file_name, other_version, parse_name};
use super::shared::{Parts, Segment, Shared};
use super::writer::{Active, Writer};
use super::{LogError, LogOptions, OnDamage, OpenReport, spare};
use crate::env::files::make_dir;
use crate::env::{DirLock, Disk, Env, File, OpenMode, read_exact_at};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No segment is longer; of a foreign file that is, no more is read.
const MAX_SEGMENT: u64 = (1 << 30) + (4 << 20);

/// Opens the log in `dir`. Nothing is changed on disk but that the directory is made, what was cached is synced, and
/// damaged bytes are copied into the quarantine.
pub(super) async fn open(env: &Env, dir: &Path, options: LogOptions) -> Result<(Shared, OpenReport), LogError> {
    let disk = env.disk();
    make_dir(&**disk, dir).await?;
    let lock = disk.lock(dir).await.map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked,
        _ => e.into(),
    })?;
    // A name that is only cached would be lost at the next crash, with what is written under it from now on.
    disk.sync_dir(dir).await?;
    let names = disk.list(dir).await?;
    let (found, segments) = read(&**disk, dir, &names).await?;
    let mut report = report(&found, &segments);
    if options.on_damage == OnDamage::Refuse && !(found.damage.is_empty() && found.gaps.is_empty()) {
        return Err(LogError::Damaged {
            entries: found.gaps.iter().map(|gap| gap.range.end - gap.range.start).sum(),
            bytes: found
                .damage
                .iter()
                .map(|damage| u64::from(damage.bytes.end - damage.bytes.start))
                .sum(),
        });
    }
    report.quarantine = quarantine::keep(&**disk, dir, &segments, &found.damage).await;
    let spares = spare::find(&**disk, dir, &names).await?;
    Ok((
        shared(env, dir.to_owned(), options, lock, found, segments, spares),
        report,
    ))
}

/// Reads every segment and judges them.
async fn read(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<(Recovered, BTreeMap<u64, Segment>), LogError> {
    let mut ids: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort_unstable();
    let mut recovery = Recovery::default();
    let mut segments = BTreeMap::new();
    for id in ids {
        let file = disk.open(&dir.join(file_name(id)), OpenMode::Existing).await?;
        let size = scan(&mut recovery, id, &*file).await?;
        segments.insert(id, Segment::new(file, size));
    }
    let found = recovery.finish();
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
    Ok((found, segments))
}

fn report(found: &Recovered, segments: &BTreeMap<u64, Segment>) -> OpenReport {
    OpenReport {
        range: found.index.range(),
        segments: segments.len(),
        bytes: segments.values().map(|segment| segment.len).sum(),
        torn: found.torn,
        gaps: found.gaps.clone(),
        damage: found.damage.clone(),
        quarantine: Ok(0),
    }
}

fn shared(
    env: &Env,
    dir: PathBuf,
    options: LogOptions,
    lock: DirLock,
    found: Recovered,
    segments: BTreeMap<u64, Segment>,
    spares: Vec<spare::Spare>,
) -> Shared {
    let tail = found.tail.and_then(|tail| Some((tail, segments.get(&tail.segment)?)));
    let limit = |segment: &Segment| u32::try_from(segment.size).unwrap_or(u32::MAX).max(HEADER_LEN);
    let active = tail.map(|(tail, segment)| Active {
        id: tail.segment,
        salt: segment.salt,
        file: Arc::clone(&segment.file),
        tail: tail.offset,
        limit: limit(segment),
    });
    let cursor = tail.map(|(tail, segment)| Cursor {
        segment: tail.segment,
        salt: segment.salt,
        offset: tail.offset,
        limit: limit(segment),
    });
    let parts = Parts {
        options,
        durable: found.end,
        cursor,
        spares,
        writer: Writer::new(active, found.end, lock),
        index: found.index,
        segments,
        held: found.held,
    };
    Shared::new(env.clone(), dir, parts)
}

/// Scans a segment, a second time if it did not look sound: a read may fail in ways that the device does not report.
async fn scan(recovery: &mut Recovery, id: u64, file: &dyn File) -> Result<u64, LogError> {
    let mut image = read_from_device(file).await?;
    if !recovery.segment(id, &image) {
        if let Some(found) = other_version(&image) {
            return Err(LogError::Version { found, segment: id });
        }
        recovery.undo();
        image = read_from_device(file).await?;
        recovery.segment(id, &image);
    }
    Ok(image.len() as u64)
}

/// The bytes of a file as the device has them: after a failed sync the cache may show what was never written.
async fn read_from_device(file: &dyn File) -> io::Result<Vec<u8>> {
    file.sync_data().await?;
    file.drop_cache().await?;
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

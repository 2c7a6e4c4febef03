//! Opening: make the directory, take it, and read every segment from the device.

use super::recovery::{Recovered, Recovery};
use super::segment::{file_name, other_version, parse_name};
use super::shared::Segment;
use super::{LogError, OpenReport};
use crate::env::files::make_dir;
use crate::env::{DirLock, Env, File, OpenMode, read_exact_at};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// No segment is longer; of a foreign file that is, no more is read.
const MAX_SEGMENT: u64 = (1 << 30) + (4 << 20);

/// A log as it was found.
pub(super) struct Opened {
    pub(super) lock: DirLock,
    pub(super) found: Recovered,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) report: OpenReport,
}

/// Opens the log in `dir`. Nothing is changed on disk but that the directory is made and what was cached is synced.
pub(super) async fn open(env: &Env, dir: &Path) -> Result<Opened, LogError> {
    let disk = env.disk();
    make_dir(&**disk, dir).await?;
    let lock = disk.lock(dir).await.map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked,
        _ => e.into(),
    })?;
    // A name that is only cached would be lost at the next crash, with what is written under it from now on.
    disk.sync_dir(dir).await?;
    let names = disk.list(dir).await?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort_unstable();
    let mut recovery = Recovery::default();
    let mut segments = BTreeMap::new();
    for id in ids {
        let file = disk.open(&dir.join(file_name(id)), OpenMode::Existing).await?;
        let len = scan(&mut recovery, id, &*file).await?;
        segments.insert(id, Segment::new(file, len));
    }
    let found = recovery.finish();
    for header in &found.headers {
        if let Some(segment) = segments.get_mut(&header.id) {
            (segment.salt, segment.base) = (header.salt, header.base);
        }
    }
    let report = OpenReport {
        range: found.index.range(),
        segments: segments.len(),
        bytes: segments.values().map(|segment| segment.len).sum(),
        torn: found.torn,
        gaps: found.gaps.clone(),
        damage: found.damage.clone(),
    };
    Ok(Opened {
        lock,
        found,
        segments,
        report,
    })
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
    fn new(file: Arc<dyn File>, len: u64) -> Segment {
        let (salt, base) = (0, 0);
        Segment { file, salt, base, len }
    }
}

//! Damaged bytes, copied away before anything can write over them: `quarantine/SEGMENT-OFFSET.bytes` in the log's
//! directory, when the log is opened or when they are read. The originals stay where they are until their segment is
//! released.

use super::recovery::Damage;
use super::shared::Segment;
use crate::env::files::{make_dir, replace};
use crate::env::{Disk, read_exact_at};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const NAME: &str = "quarantine";

/// Copies what is damaged and not there yet, and says how many copies were made. A log is opened also when this fails.
pub(super) async fn keep(
    disk: &dyn Disk,
    dir: &Path,
    segments: &BTreeMap<u64, Segment>,
    damage: &[Damage],
) -> Result<usize, String> {
    if damage.is_empty() {
        return Ok(0);
    }
    copy(disk, dir, segments, damage).await.map_err(|e| e.to_string())
}

/// The same of frames that were found damaged when they were read.
pub(super) async fn keep_bad(disk: &dyn Disk, dir: &Path, bad: &[(Segment, Damage)]) -> Result<usize, String> {
    let segments = bad.iter().map(|(segment, damage)| (damage.segment, segment.clone()));
    let damage: Vec<Damage> = bad.iter().map(|(_, damage)| damage.clone()).collect();
    keep(disk, dir, &segments.collect(), &damage).await
}

async fn copy(disk: &dyn Disk, dir: &Path, segments: &BTreeMap<u64, Segment>, damage: &[Damage]) -> io::Result<usize> {
    let dir = dir.join(NAME);
    make_dir(disk, &dir).await?;
    let there = disk.list(&dir).await?;
    let mut copies = 0;
    for Damage { segment: id, bytes } in damage {
        let name = format!("{id:016x}-{:08x}.bytes", bytes.start);
        let Some(segment) = segments.get(id).filter(|_| !there.contains(&name)) else {
            continue;
        };
        let end = u64::from(bytes.end).min(segment.size);
        let mut held = vec![0; end.saturating_sub(bytes.start.into()) as usize];
        read_exact_at(&*segment.file, &mut held, bytes.start.into()).await?;
        replace(disk, &dir, &name, &held).await?;
        copies += 1;
    }
    Ok(copies)
}

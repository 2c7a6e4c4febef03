//! Opening: make the directory, take it, and learn what is there.

use super::active::Active;
use super::batch::Cursor;
use super::quarantine;
use super::recovery::Recovered;
use super::scan::{Found, Trust, read};
use super::segment::HEADER_LEN;
use super::shared::{Parts, Segment, Shared};
use super::writer::Writer;
use super::{LogError, LogOptions, Notes, OnDamage, OpenReport, spare, summary_file};
use crate::env::files::make_dir;
use crate::env::{DirLock, Env};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens the log in `dir`. Nothing is changed on disk but that the directory is made, what was cached is synced,
/// damaged bytes are copied into the quarantine, and summaries are made where they are missing.
pub(super) async fn open(
    env: &Env,
    dir: &Path,
    options: LogOptions,
    notes: Option<Notes>,
) -> Result<(Shared, OpenReport), LogError> {
    let disk = env.disk();
    make_dir(&**disk, dir).await?;
    let lock = disk.lock(dir).await.map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked,
        _ => e.into(),
    })?;
    // A name that is only cached would be lost at the next crash, with what is written under it from now on.
    disk.sync_dir(dir).await?;
    let names = disk.list(dir).await?;
    let trust = match options.on_damage {
        OnDamage::Serve => Trust::Summaries,
        OnDamage::Find | OnDamage::Refuse => Trust::Segments,
    };
    let all = read(&**disk, dir, &names, notes, trust).await?;
    let (found, segments) = (&all.recovered, &all.segments);
    let mut report = report(found, segments);
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
    report.quarantine = quarantine::keep(&**disk, dir, segments, &found.damage).await;
    // Where those that are there are not believed, it is not known which are missing.
    let missing = all.made.iter().filter(|_| trust == Trust::Summaries);
    for (segment, bytes) in missing {
        summary_file::write(&**disk, dir, *segment, bytes).await;
    }
    let spares = spare::find(&**disk, dir, &names).await?;
    let opened = (options, notes, spares);
    Ok((shared(env, dir.to_owned(), opened, lock, all), report))
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
    (options, notes, spares): (LogOptions, Option<Notes>, Vec<spare::Spare>),
    lock: DirLock,
    all: Found,
) -> Shared {
    let (found, segments) = (all.recovered, all.segments);
    let tail = found.tail.and_then(|tail| Some((tail, segments.get(&tail.segment)?)));
    let limit = |segment: &Segment| u32::try_from(segment.size).unwrap_or(u32::MAX).max(HEADER_LEN);
    let active = tail.map(|(tail, segment)| {
        let file = Arc::clone(&segment.file);
        Active::new((tail.segment, segment.salt), file, tail.offset, limit(segment))
    });
    let cursor = tail.map(|(tail, segment)| Cursor {
        segment: tail.segment,
        salt: segment.salt,
        offset: tail.offset,
        limit: limit(segment),
    });
    // One that does not tell of all that comes before the next frame could not go on.
    let summary = all
        .newest
        .filter(|summary| found.tail.is_some_and(|tail| summary.tells_up_to(tail)));
    let parts = Parts {
        options,
        notes,
        summaries: all.summaries,
        durable: found.end,
        cursor,
        spares,
        writer: Writer::new(active, found.end, summary, lock),
        index: found.index,
        segments,
        held: found.held,
    };
    Shared::new(env.clone(), dir, parts)
}

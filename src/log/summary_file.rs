//! The files of summaries. None of them is needed, so nothing waits for one to be on disk, and an error costs the file.

use super::segment::{HEADER_LEN, Header, summary_name};
use super::summary::{Notes, Summarizer, Summary};
use crate::env::files::create;
use crate::env::{Disk, OpenMode, read_exact_at, write_all_at};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// The summary of the segment with this header, if there is one that can be believed.
pub(super) async fn read(disk: &dyn Disk, dir: &Path, header: &Header, notes: Option<Notes>) -> Option<Summary> {
    let path = dir.join(summary_name(header.id));
    let file = disk.open(&path, OpenMode::Read).await.ok()?;
    let len = file.len().await.ok().filter(|len| *len <= LONGEST)?;
    let mut bytes = vec![0; len as usize];
    // Not from the device: what is only in the cache is as good as what was never written, and can be made again.
    read_exact_at(&*file, &mut bytes, 0).await.ok()?;
    Summary::decode(&Bytes::from(bytes), header, notes)
}

/// Writes the summary of a segment, in the place of an older one, which said less.
pub(super) async fn write(disk: &dyn Disk, dir: &Path, segment: u64, bytes: &[u8]) {
    let path = dir.join(summary_name(segment));
    let written: io::Result<()> = async {
        let file = create(disk, &path).await?;
        write_all_at(&*file, bytes, 0).await
    }
    .await;
    if written.is_err() {
        // Half of one takes room on a full disk.
        drop(disk.remove(&path).await);
    }
}

/// Writes the summary that was gathered, unless it is there.
pub(super) async fn write_gathered(disk: &dyn Disk, dir: &Path, summary: &Summarizer) {
    if !summary.is_written() {
        write(disk, dir, summary.segment(), &summary.encode(HEADER_LEN)).await;
    }
}

/// Removes the summary of a segment that is about to go.
pub(super) async fn remove(disk: &dyn Disk, dir: &Path, segment: u64) {
    // One that stays says nothing: no other segment has its salt.
    drop(disk.remove(&dir.join(summary_name(segment))).await);
}

/// No summary is longer: that is a quarter of the longest segment.
const LONGEST: u64 = (256 << 20) + (1 << 20);

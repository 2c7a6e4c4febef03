//! What the fuzz targets may call.

use super::{ENTRIES, SavedEntry, SavedIdle, SnapshotError, SnapshotReader, SnapshotWriter};
use crate::codec::Reader;
use crate::env::WallTime;

/// Reads a snapshot to its end, and says how many entries it holds, or `None` if it is refused.
#[must_use]
pub fn snapshot(bytes: &[u8]) -> Option<u64> {
    SnapshotReader::new(bytes).and_then(SnapshotReader::finish).ok()
}

/// Reads entries, puts them into a snapshot with the right checksums, and returns them as written anew; or refuses.
#[must_use]
pub fn reseal_entries(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Reader::new(bytes);
    let (mut again, mut many) = (Vec::new(), 0);
    while !fields.is_empty() {
        SavedEntry::decode(&mut fields).ok()?.encode(&mut again);
        many += 1;
    }
    let body = [&[ENTRIES], bytes].concat();
    assert_eq!(snapshot(&sealed(&body, many)), Some(many), "the reader agrees");
    Some(again)
}

/// A snapshot of one part with this body, checksums right, whose end says that there were `entries`.
pub(super) fn sealed(body: &[u8], entries: u64) -> Vec<u8> {
    let seal = || -> Result<Vec<u8>, SnapshotError> {
        let mut writer = SnapshotWriter::new(Vec::new(), WallTime::from_millis(0), "")?;
        writer.seal(body, entries)?;
        writer.finish()
    };
    seal().expect("a vector takes every byte")
}

/// A sound snapshot in several parts, of entries with and without everything.
#[must_use]
pub fn sample_snapshot() -> Vec<u8> {
    let write = || -> Result<Vec<u8>, SnapshotError> {
        let written = WallTime::from_millis(1_700_000_000_000);
        let mut writer = SnapshotWriter::with_parts_of(Vec::new(), written, "a sample", 100)?;
        for n in 0..12_u64 {
            let (key, value) = (format!("key {n}"), "value ".repeat(n as usize * n as usize / 4));
            writer.push(&SavedEntry {
                key: key.as_bytes(),
                value: value.as_bytes(),
                weight: n * 100,
                ttl_ms: (n % 2 == 0).then_some(n * 1_000 + 1),
                idle: (n % 3 == 0).then_some(SavedIdle {
                    left_ms: n + 1,
                    period_ms: 60_000,
                }),
                tags: ["org:7", "", "größe"][..n as usize % 4].to_vec(),
            })?;
        }
        writer.finish()
    };
    write().expect("a vector takes every byte")
}

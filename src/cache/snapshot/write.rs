use super::{END, ENTRIES, HEAD, MAGIC, MAX_ENTRY, MAX_SCHEMA, MAX_TAGS, PART_LEN, SavedEntry, SnapshotError, VERSION};
use crate::codec::{put_bytes, put_varint};
use crate::env::WallTime;
use std::fmt;
use std::io::{self, Write};

/// Writes a snapshot, entry by entry, hottest first. Only [`finish`](SnapshotWriter::finish) makes it one: without it
/// the snapshot is refused as cut short.
///
/// It holds about 256 KiB, or one entry where that is more, and writes in pieces of that size: `out` needs no buffer.
pub(crate) struct SnapshotWriter<W> {
    out: W,
    /// The body of the part of entries that is being filled, its kind first.
    body: Vec<u8>,
    part_len: usize,
    checksum: u32,
    entries: u64,
    broken: bool,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins a snapshot that is written at `now`, with entries whose bytes mean what `schema` says.
    ///
    /// # Errors
    /// The writer's, and [`TooLarge`](SnapshotError::TooLarge) for a schema past 64 KiB.
    pub(crate) fn new(out: W, now: WallTime, schema: &str) -> Result<SnapshotWriter<W>, SnapshotError> {
        SnapshotWriter::with_parts_of(out, now, schema, PART_LEN)
    }

    pub(super) fn with_parts_of(
        mut out: W,
        now: WallTime,
        schema: &str,
        part_len: usize,
    ) -> Result<SnapshotWriter<W>, SnapshotError> {
        if schema.len() > MAX_SCHEMA {
            return Err(SnapshotError::too_large(
                "bytes of the schema",
                schema.len(),
                MAX_SCHEMA,
            ));
        }
        let mut start = MAGIC.to_vec();
        start.extend_from_slice(&VERSION.to_le_bytes());
        out.write_all(&start)?;
        let mut head = vec![HEAD];
        put_varint(&mut head, now.as_millis());
        put_bytes(&mut head, schema.as_bytes());
        let mut writer = SnapshotWriter {
            out,
            body: vec![ENTRIES],
            part_len,
            checksum: crc32c::crc32c(&start),
            entries: 0,
            broken: false,
        };
        writer.part(&head)?;
        Ok(writer)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`TooLarge`](SnapshotError::TooLarge) for an entry past 256 MiB or 65,535 tags, which leaves the snapshot as it
    /// was: the next entry may follow. The writer's, after which there is no snapshot.
    pub(crate) fn push(&mut self, entry: &SavedEntry<'_>) -> Result<(), SnapshotError> {
        if entry.tags.len() > MAX_TAGS {
            return Err(SnapshotError::too_large("tags of an entry", entry.tags.len(), MAX_TAGS));
        }
        if entry.most_bytes() > MAX_ENTRY {
            return Err(SnapshotError::too_large(
                "bytes of an entry",
                entry.most_bytes(),
                MAX_ENTRY,
            ));
        }
        let before = self.body.len();
        entry.encode(&mut self.body);
        if self.body.len() > self.part_len && before > 1 {
            self.entries_part(before)?;
        }
        if self.body.len() > self.part_len {
            self.entries_part(self.body.len())?;
        }
        self.entries += 1;
        Ok(())
    }

    /// Writes what ends the snapshot, flushes, and gives `out` back: whoever wants it on a disk has it synced now.
    ///
    /// # Errors
    /// The writer's, also if it failed before.
    pub(crate) fn finish(mut self) -> Result<W, SnapshotError> {
        if self.body.len() > 1 {
            self.entries_part(self.body.len())?;
        }
        let mut end = vec![END];
        put_varint(&mut end, self.entries);
        self.part(&end)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Writes a part of the first `len` bytes that are waiting, and begins the next with the rest.
    fn entries_part(&mut self, len: usize) -> Result<(), SnapshotError> {
        let mut body = std::mem::take(&mut self.body);
        let written = self.part(&body[..len]);
        body.drain(1..len);
        body.shrink_to(self.part_len);
        self.body = body;
        written
    }

    /// Writes a part with any body, and counts what it is said to hold.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn seal(&mut self, body: &[u8], entries: u64) -> Result<(), SnapshotError> {
        self.entries += entries;
        self.part(body)
    }

    fn part(&mut self, body: &[u8]) -> Result<(), SnapshotError> {
        if self.broken {
            return Err(io::Error::other("the writer failed before").into());
        }
        self.broken = true;
        let len = u32::try_from(body.len())
            .expect("a part's length is bounded")
            .to_le_bytes();
        self.checksum = crc32c::crc32c_append(crc32c::crc32c_append(self.checksum, &len), body);
        self.out.write_all(&len)?;
        self.out.write_all(&self.checksum.to_le_bytes())?;
        self.out.write_all(body)?;
        self.broken = false;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.body.capacity()
    }
}

impl<W> fmt::Debug for SnapshotWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("entries", &self.entries)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

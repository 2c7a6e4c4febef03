use super::{END, ENTRIES, HEAD, MAGIC, MAX_PART, PART_HEAD, PART_LEN, SavedEntry, SnapshotError, VERSION};
use crate::codec::Reader;
use crate::env::WallTime;
use std::fmt;
use std::io::Read;

/// Reads a snapshot, entry by entry. What it yields is whole and was written, but only [`finish`](SnapshotReader::finish)
/// says that it is all that was: until then entries are kept aside.
///
/// It holds one part at a time: about 256 KiB, or one entry where that is more, and never more than twice what `input`
/// really has. It reads in pieces of that size, and nothing past the snapshot's end.
pub(crate) struct SnapshotReader<R> {
    input: R,
    /// The last part's body, of which the entries before `at` were yielded.
    body: Vec<u8>,
    at: usize,
    checksum: u32,
    entries: u64,
    written: WallTime,
    schema: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// More parts follow.
    Open,
    /// The end was there, and is right.
    Ended,
    /// Something was wrong, and nothing that follows counts.
    Refused,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads how the snapshot begins.
    ///
    /// # Errors
    /// [`NotASnapshot`](SnapshotError::NotASnapshot), [`Version`](SnapshotError::Version), and those of
    /// [`next`](SnapshotReader::next).
    pub(crate) fn new(mut input: R) -> Result<SnapshotReader<R>, SnapshotError> {
        let mut start = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start)?;
        if !MAGIC.starts_with(&start) {
            return Err(SnapshotError::NotASnapshot);
        }
        let mut version = [0; 4];
        if start.len() < MAGIC.len() {
            return Err(SnapshotError::Truncated);
        }
        input.read_exact(&mut version)?;
        start.extend_from_slice(&version);
        match u32::from_le_bytes(version) {
            VERSION => {}
            found => return Err(SnapshotError::Version { found }),
        }
        let mut reader = SnapshotReader {
            input,
            body: Vec::new(),
            at: 0,
            checksum: crc32c::crc32c(&start),
            entries: 0,
            written: WallTime::default(),
            schema: String::new(),
            state: State::Open,
        };
        reader.head()?;
        Ok(reader)
    }

    /// When it was written, by the wall clock of then.
    pub(crate) fn written(&self) -> WallTime {
        self.written
    }

    /// Refuses the snapshot unless its entries' bytes mean what `schema` says.
    ///
    /// # Errors
    /// [`Schema`](SnapshotError::Schema).
    pub(crate) fn expect_schema(&self, schema: &str) -> Result<(), SnapshotError> {
        if self.schema == schema {
            return Ok(());
        }
        Err(SnapshotError::Schema {
            found: self.schema.clone(),
            expected: schema.to_owned(),
        })
    }

    /// The next entry, or `None` when all were read and the snapshot is whole.
    ///
    /// # Errors
    /// [`Truncated`](SnapshotError::Truncated), [`Corrupt`](SnapshotError::Corrupt),
    /// [`TooLarge`](SnapshotError::TooLarge) or the reader's. After one there is always another.
    pub(crate) fn next(&mut self) -> Result<Option<SavedEntry<'_>>, SnapshotError> {
        let mut state = std::mem::replace(&mut self.state, State::Refused);
        if state == State::Refused {
            return Err(corrupt("it was refused before"));
        }
        while self.at == self.body.len() && state == State::Open {
            state = self.part()?;
        }
        if state == State::Ended {
            self.state = state;
            return Ok(None);
        }
        let mut fields = Reader::new(&self.body[self.at..]);
        let entry = SavedEntry::decode(&mut fields)?;
        self.at = self.body.len() - fields.len();
        self.entries += 1;
        self.state = state;
        Ok(Some(entry))
    }

    /// Reads what is left, and says how many entries there were: then the snapshot is whole, and not before.
    ///
    /// # Errors
    /// Those of [`next`](SnapshotReader::next), also if that failed before.
    pub(crate) fn finish(mut self) -> Result<u64, SnapshotError> {
        while self.next()?.is_some() {}
        Ok(self.entries)
    }

    fn head(&mut self) -> Result<(), SnapshotError> {
        self.body()?;
        let mut fields = Reader::new(&self.body);
        if fields.byte()? != HEAD {
            return Err(corrupt("the first part is not its head"));
        }
        self.written = WallTime::from_millis(fields.varint()?);
        let schema = std::str::from_utf8(fields.bytes()?).map_err(|_| corrupt("its schema is not text"))?;
        schema.clone_into(&mut self.schema);
        if !fields.is_empty() {
            return Err(corrupt("its head is too long"));
        }
        self.body.clear();
        Ok(())
    }

    /// Reads a part that holds entries, or the end.
    fn part(&mut self) -> Result<State, SnapshotError> {
        self.body()?;
        let mut fields = Reader::new(&self.body);
        match fields.byte()? {
            ENTRIES => {
                self.at = 1;
                Ok(State::Open)
            }
            END if fields.varint()? == self.entries && fields.is_empty() => {
                self.at = self.body.len();
                Ok(State::Ended)
            }
            END => Err(corrupt("it does not hold as many entries as it says")),
            _ => Err(corrupt("a part is of no known kind")),
        }
    }

    /// Reads the body of the next part.
    fn body(&mut self) -> Result<(), SnapshotError> {
        self.body.clear();
        self.body.shrink_to(PART_LEN);
        self.at = 0;
        let mut head = [0; PART_HEAD];
        self.input.read_exact(&mut head)?;
        let (len, checksum) = head.split_at(PART_HEAD / 2);
        self.checksum = crc32c::crc32c_append(self.checksum, len);
        let len = number(len) as usize;
        if len > MAX_PART {
            return Err(SnapshotError::too_large("bytes of a part", len, MAX_PART));
        }
        // The length is not checked yet. So it reserves little, and what is read makes room for itself.
        self.body.reserve(len.min(PART_LEN));
        self.input.by_ref().take(len as u64).read_to_end(&mut self.body)?;
        if self.body.len() < len {
            return Err(SnapshotError::Truncated);
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &self.body);
        if self.checksum != number(checksum) {
            return Err(corrupt("a checksum does not fit"));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.body.capacity()
    }
}

impl<R> fmt::Debug for SnapshotReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("written", &self.written)
            .field("schema", &self.schema)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("a number of four bytes"))
}

fn corrupt(what: &'static str) -> SnapshotError {
    SnapshotError::Corrupt { what }
}

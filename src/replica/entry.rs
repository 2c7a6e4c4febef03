use crate::codec::{self, Reader};
use crate::store::{Position, Record, Result};
use bytes::Bytes;
use std::sync::Arc;

/// One record of a node's log, resolved and as bytes. The record numbered `seq` is the log's entry of that number; its
/// bytes carry the epoch.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) record: Arc<Record>,
    pub(crate) bytes: Bytes,
}

impl Entry {
    pub(crate) fn new(at: Position, record: Record) -> Entry {
        let mut bytes = Vec::with_capacity(size_hint(&record));
        codec::put_varint(&mut bytes, at.epoch);
        record.encode(&mut bytes);
        Entry {
            at,
            record: Arc::new(record),
            bytes: bytes.into(),
        }
    }

    /// Reads the log's entry numbered `seq`.
    pub(crate) fn decode(seq: u64, bytes: Bytes) -> Result<Entry> {
        let epoch = Reader::new(&bytes).varint()?;
        let mut header = Vec::new();
        codec::put_varint(&mut header, epoch);
        let record = Record::decode(&bytes.slice(header.len()..))?;
        Ok(Entry {
            at: Position::new(epoch, seq),
            record: Arc::new(record),
            bytes,
        })
    }

    /// The epoch of a log's entry, without reading the rest.
    pub(crate) fn epoch(bytes: &Bytes) -> Result<u64> {
        Ok(Reader::new(bytes).varint()?)
    }
}

fn size_hint(record: &Record) -> usize {
    let change = |change: &crate::store::Change| match &change.to {
        crate::store::Changed::Set(entry) => change.key.len() + entry.value.len() + 24,
        crate::store::Changed::Removed(_) => change.key.len() + 16,
    };
    12 + record.changes.iter().map(change).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Changed, Version};

    #[test]
    fn an_entry_round_trips() {
        let change = Change {
            key: "k".into(),
            to: Changed::Removed(Version(7)),
        };
        let entry = Entry::new(Position::new(300, 9), Record::new(vec![change]));
        let back = Entry::decode(9, entry.bytes.clone()).unwrap();
        assert_eq!((back.at, &back.record), (entry.at, &entry.record));
        assert_eq!(Entry::epoch(&entry.bytes).unwrap(), 300);
        assert!(Entry::decode(9, entry.bytes.slice(..3)).is_err());
    }
}

use super::{Entry, Error, Result, Version};
use crate::codec::{self, Reader};
use crate::env::WallTime;
use bytes::Bytes;

/// A resolved [`Batch`](super::Batch): what logs, feeds and engines carry. Expiries are absolute, counters are sums,
/// expectations have been met, so that whoever applies it decides nothing again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// One change of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// What happens to it.
    pub to: Changed,
}

/// What a [`Change`] makes of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The key has this entry now.
    Set(Entry),
    /// The key is gone, by a write of this version.
    Removed(Version),
}

const SET: u8 = 1;
const SET_EXPIRING: u8 = 2;
const REMOVED: u8 = 3;

impl Record {
    /// A record of these changes.
    #[must_use]
    pub fn new(changes: Vec<Change>) -> Record {
        Record { changes }
    }

    /// The newest version in it, zero for an empty record.
    #[must_use]
    pub fn version(&self) -> Version {
        self.changes.iter().map(Change::version).max().unwrap_or_default()
    }

    /// Appends its bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::put_varint(out, self.changes.len() as u64);
        for change in &self.changes {
            match &change.to {
                Changed::Removed(version) => {
                    out.push(REMOVED);
                    codec::put_varint(out, version.0);
                    codec::put_bytes(out, &change.key);
                }
                Changed::Set(entry) => {
                    out.push(if entry.expires.is_some() { SET_EXPIRING } else { SET });
                    codec::put_varint(out, entry.version.0);
                    codec::put_bytes(out, &change.key);
                    if let Some(expires) = entry.expires {
                        codec::put_varint(out, expires.as_millis());
                    }
                    codec::put_bytes(out, &entry.value);
                }
            }
        }
    }

    /// Reads a record back; keys and values share `bytes`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything but the bytes of one record.
    pub fn decode(bytes: &Bytes) -> Result<Record> {
        let mut reader = Reader::new(bytes);
        let count = reader.varint()?;
        // A change takes three bytes at least, so a corrupt count cannot ask for much memory.
        let mut changes = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len() / 3));
        for _ in 0..count {
            let kind = reader.byte()?;
            let version = Version(reader.varint()?);
            let key = reader.shared(bytes)?;
            let expires = (kind == SET_EXPIRING)
                .then(|| reader.varint())
                .transpose()?
                .map(WallTime::from_millis);
            let to = match kind {
                REMOVED => Changed::Removed(version),
                SET | SET_EXPIRING => Changed::Set(Entry {
                    value: reader.shared(bytes)?,
                    version,
                    expires,
                }),
                other => return Err(Error::corrupt(format!("a change of kind {other}"))),
            };
            changes.push(Change { key, to });
        }
        if !reader.is_empty() {
            return Err(Error::corrupt("bytes after the last change"));
        }
        Ok(Record { changes })
    }
}

impl Change {
    /// The version of the write that it came from.
    #[must_use]
    pub fn version(&self) -> Version {
        match &self.to {
            Changed::Set(entry) => entry.version,
            Changed::Removed(version) => *version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = Change> {
        let key = prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
        let entry = (
            any::<u64>(),
            prop::option::of(any::<u64>()),
            prop::collection::vec(any::<u8>(), 0..200),
        );
        (key, prop::option::of(entry), any::<u64>()).prop_map(|(key, entry, removed)| Change {
            key,
            to: match entry {
                None => Changed::Removed(Version(removed)),
                Some((version, expires, value)) => Changed::Set(Entry {
                    value: value.into(),
                    version: Version(version),
                    expires: expires.map(WallTime::from_millis),
                }),
            },
        })
    }

    proptest! {
        #[test]
        fn bytes_round_trip(changes in prop::collection::vec(change(), 0..8), cut in any::<prop::sample::Index>()) {
            let record = Record::new(changes);
            let mut out = Vec::new();
            record.encode(&mut out);
            let bytes = Bytes::from(out);
            prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
            let cut = cut.index(bytes.len());
            prop_assert!(Record::decode(&bytes.slice(..cut)).is_err());
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _result = Record::decode(&bytes.into());
        }
    }
}

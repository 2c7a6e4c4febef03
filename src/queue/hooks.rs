//! What the fuzz target may call.

use super::record::Record;
use bytes::Bytes;

/// Reads a record of the queue's log and writes it again, or refuses.
#[must_use]
pub fn recode(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = Record::decode(&Bytes::copy_from_slice(bytes)).ok()?;
    Some(record.encode().to_vec())
}

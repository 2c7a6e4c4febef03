//! What the fuzz target and the simulations may call.

use super::DurableQueueBuilder;
use super::record::Record;
use super::rewrite::Rule;
use bytes::Bytes;
use std::time::Duration;

/// Reads a record of the queue's log and writes it again, or refuses.
#[must_use]
pub fn recode(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = Record::decode(&Bytes::copy_from_slice(bytes)).ok()?;
    Some(record.encode().to_vec())
}

/// Has messages written again whenever the oldest segment is full and not all of it is kept, and soon after a settlement,
/// so that it happens in every short life of a simulation.
pub fn rewrite_often(mut builder: DurableQueueBuilder) -> DurableQueueBuilder {
    builder.settings.rewrite = Rule {
        segments: 1,
        part: 1,
        most: u64::MAX,
    };
    builder.settings.tidy_after = Duration::from_millis(1);
    builder
}

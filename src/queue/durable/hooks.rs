//! What the fuzz target and the simulations may call.

use super::record::{Record, encode_message};
use super::rewrite::Rule;
use super::runs::Run;
use crate::env::WallTime;
use crate::queue::{DurableQueueBuilder, Message};
use bytes::Bytes;
use std::time::Duration;

/// Reads a record of the queue's log and writes it again, or refuses.
#[must_use]
pub fn recode(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = Record::decode(&Bytes::copy_from_slice(bytes)).ok()?;
    Some(record.encode().to_vec())
}

/// Records as the queue writes them, one of most kinds.
#[must_use]
pub fn sample_records() -> Vec<Vec<u8>> {
    let message = Message::new("a payload")
        .key("k")
        .header("trace", "7")
        .dedup_id("once")
        .deliver_in(Duration::from_secs(300))
        .ttl(Duration::from_secs(900));
    let (topic, name) = (String::from("mail"), String::from("mailer"));
    let message = encode_message(&topic, WallTime::from_millis(1_700_000_000_000), &message);
    let attempts = vec![(3, 1), (300, 2)];
    let records = [
        Record::Subscribed {
            id: 1,
            topic: topic.clone(),
            name: name.clone(),
            from: Some(70_000),
        },
        Record::Delivered {
            id: 1,
            attempts: attempts.clone(),
        },
        Record::Acked {
            id: 200,
            seqs: vec![1, 2, 1 << 40],
        },
        Record::AckedThrough { id: 1, seq: 1 << 20 },
        Record::Dropped {
            topic: topic.clone(),
            before: 300,
        },
        Record::Moved {
            topic: topic.clone(),
            seqs: vec![7, 8, 9],
        },
        Record::Standing {
            id: 1,
            topic: topic.clone(),
            name,
            part: 5..70_000,
            open: Run::of([(6, 0), (7, 0), (300, 2)]),
        },
        Record::Copy {
            seq: 3,
            entry: message.clone(),
        },
        Record::Copied {
            topic,
            messages: vec![(3, vec![(1, 2), (200, 0)])],
        },
    ];
    let records = records.iter().map(|record| record.encode().to_vec());
    records.chain([message.to_vec()]).collect()
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

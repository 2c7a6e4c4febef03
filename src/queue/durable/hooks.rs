//! What the fuzz target and the simulations may call.

use super::found::Found;
use super::heart::state::{State, Topic};
use super::limits::Settings;
use super::record::{Record, SubId, encode_message};
use super::rewrite::Rule;
use super::runs::Run;
use crate::env::{Env, Tick, WallTime};
use crate::hash::KeyedHash;
use crate::log::Item;
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

/// What a subscription got of a log's messages, and how many it has still not settled.
#[derive(Debug)]
pub struct Drained {
    /// Topic and name.
    pub names: (String, String),
    pub seqs: Vec<u64>,
    pub backlog: usize,
}

/// Opens a log of these entries, numbered from 1, as a queue does, and has every subscription get and settle all that it
/// can, at the end of time; or refuses one of them.
#[must_use]
pub fn replayed(entries: &[Vec<u8>], damaged: bool) -> Option<Vec<Drained>> {
    let (env, settings) = (Env::system(), Settings::default());
    let mut found = Found::new(State::new(1), &settings, WallTime::from_millis(60_000));
    // Messages of lower numbers are to be there as copies.
    found.state.begins_at(4, damaged);
    for (seq, entry) in (1..).zip(entries) {
        let bytes = Bytes::copy_from_slice(entry);
        found.item(Item::Record { seq, bytes }, &KeyedHash::default()).ok()?;
    }
    let (mut core, _lost) = found.finish(&env, &settings, (1, 2));
    let state = &mut core.state;
    let ids: Vec<_> = state.subscriptions.keys().copied().collect();
    assert!(
        !ids.contains(&state.new_id()),
        "a new subscription gets a number of its own"
    );
    let drained = ids.into_iter().map(|id| drain(state, id)).collect();
    state.trim(|_| false);
    let mut topics = state.topics.values();
    let is_read = |topic: &Topic| !topic.subscriptions.is_empty();
    assert!(
        topics.all(|topic| topic.messages.is_empty() || !is_read(topic)),
        "what all have settled goes"
    );
    Some(drained)
}

fn drain(state: &mut State, id: SubId) -> Drained {
    let (now, end) = (Tick::from_nanos(1), WallTime::from_millis(u64::MAX));
    let mut seqs = Vec::new();
    loop {
        let taken = state.take(now, end, id, 3);
        let dying = state.dying();
        if taken.leases.is_empty() && dying.is_empty() && !taken.more {
            break;
        }
        for lease in taken.leases {
            seqs.push(lease.seq);
            let acked = state.settle(now, id, |standing| standing.ack(lease.seq, lease.generation));
            assert!(acked.is_ok(), "the lease has only begun: {lease:?}");
        }
        dying.iter().for_each(|dying| state.buried(dying.id, dying.seq));
    }
    let (topic, name) = state.names(id).expect("a subscription has names");
    Drained {
        backlog: state.stats()[&*topic].subscriptions[&*name].backlog,
        names: (topic.to_string(), name.to_string()),
        seqs,
    }
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

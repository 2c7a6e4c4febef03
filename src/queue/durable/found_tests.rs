//! What the log's notes tell is what its entries tell.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::found::Found;
use super::heart::state::State;
use super::hooks::rewrite_often;
use super::limits::Settings;
use super::notes::{NOTES, Note, Reading};
use super::outgoing::stored;
use super::record::{Record, encode_copy, encode_message};
use super::testing::{SECOND, small, subscribe};
use crate::env::{Env, WallTime};
use crate::hash::KeyedHash;
use crate::log::{Log, LogOptions};
use crate::queue::*;
use crate::sim::{Machine, World};
use bytes::Bytes;
use proptest::prelude::*;
use std::path::Path;

const TOPICS: [&str; 3] = ["t", "another", "t.dead"];

fn message() -> impl Strategy<Value = Message> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let wishes = (any::<u8>(), 0..5_000_u64, 0..4_usize);
    (payload, wishes).prop_map(|(payload, (wishes, millis, priority))| {
        let has = |bit: u8| wishes & 1 << bit != 0;
        let levels = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
        let mut message = Message::new(payload).priority(levels[priority]);
        // Most messages are plain.
        if has(0) && has(1) {
            message = message.key(format!("key {}", millis % 5));
        }
        if has(2) && has(3) {
            message = message.header("a header", "a value").header("", "");
        }
        if has(4) && has(1) {
            message = message.deliver_in(Duration::from_millis(millis));
        }
        if has(5) && has(2) {
            message = message.ttl(Duration::from_millis(millis + 1));
        }
        if has(6) && has(3) {
            message = message.dedup_id(format!("id {}", millis % 7));
        }
        if has(0) && has(2) && has(4) && has(6) {
            message = message.key("k".repeat(2_000));
        }
        message
    })
}

#[derive(Clone, Debug)]
enum Op {
    Send(usize, Vec<Message>),
    Large,
    Subscribe(usize, u8),
    Take(usize, u8, u8),
    /// More than a segment of messages that are settled at once.
    Busy,
    Pass(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let topic = || 0..TOPICS.len();
    prop_oneof![
        10 => (topic(), prop::collection::vec(message(), 1..8)).prop_map(|(topic, all)| Op::Send(topic, all)),
        1 => Just(Op::Large),
        2 => (topic(), 0..2_u8).prop_map(|(topic, name)| Op::Subscribe(topic, name)),
        5 => (topic(), 0..2_u8, any::<u8>()).prop_map(|(topic, name, how)| Op::Take(topic, name, how)),
        3 => Just(Op::Busy),
        2 => (0..3_000_u64).prop_map(Op::Pass),
        1 => Just(Op::Reopen),
    ]
}

/// What has messages written again wherever it can.
async fn open(env: &Env) -> DurableQueue {
    rewrite_often(small(env)).open("q").await.unwrap()
}

async fn busy(queue: &DurableQueue) {
    let from = subscribe(queue, "busy", "s").await;
    let messages = (0..20).map(|_| Message::new("b".repeat(500)));
    queue.send("busy", messages.collect()).await.unwrap();
    for delivery in queue.receive(&from, 20, SECOND).await.unwrap() {
        queue.settle(&delivery.token, Settle::Ack).await.unwrap();
    }
}

/// Says how many messages were written again.
async fn run(machine: &Machine, ops: &[Op]) -> u64 {
    let mut queue = open(&machine.env()).await;
    let mut rewritten = 0;
    for op in ops {
        match op {
            Op::Send(topic, messages) => drop(queue.send(TOPICS[*topic], messages.clone()).await.unwrap()),
            Op::Large => drop(queue.topic("t").send("l".repeat(1_200_000)).await.unwrap()),
            Op::Subscribe(topic, name) => drop(subscribe(&queue, TOPICS[*topic], &name.to_string()).await),
            Op::Take(topic, name, how) => {
                let from = Subscription::new(TOPICS[*topic], &name.to_string());
                let Ok(taken) = queue.receive(&from, 3, Duration::from_millis(1)).await else {
                    continue;
                };
                for delivery in taken {
                    let settle = match how % 5 {
                        0 => Settle::AckThrough,
                        1 => Settle::Retry { after: SECOND },
                        2 => Settle::DeadLetter { reason: "so".into() },
                        _ => Settle::Ack,
                    };
                    // After the first of them the others may be settled.
                    drop(queue.settle(&delivery.token, settle).await);
                }
            }
            Op::Busy => {
                busy(&queue).await;
                machine.env().sleep(Duration::from_millis(20)).await;
            }
            Op::Pass(millis) => machine.env().sleep(Duration::from_millis(*millis)).await,
            Op::Reopen => {
                queue.close().await;
                rewritten += queue.stats().rewritten;
                queue = open(&machine.env()).await;
            }
        }
    }
    queue.close().await;
    rewritten + queue.stats().rewritten
}

/// What opening takes from a log.
struct Opened {
    /// All of it, in words.
    facts: String,
    /// Of how many entries it had notes.
    noted: u64,
    /// How many of these are copies.
    copies: usize,
}

fn copies(notes: &[u8]) -> usize {
    let mut notes = Reading::new(notes);
    let mut copies = 0;
    loop {
        if notes.next_plain().is_some() {
            continue;
        }
        match notes.next() {
            Ok(note) => copies += usize::from(matches!(note, Note::Copy(..))),
            Err(_) => return copies,
        }
    }
}

async fn found(env: &Env, notes: bool) -> Opened {
    let options = LogOptions {
        segment_bytes: 8 << 10,
        ..LogOptions::default()
    };
    let (log, report) = match notes {
        true => Log::open_noting(env, Path::new("q"), options, Some(NOTES))
            .await
            .unwrap(),
        false => Log::open(env, Path::new("q"), options).await.unwrap(),
    };
    let mut found = Found::new(State::new(1), &Settings::default(), WallTime::from_millis(1_000));
    found.state.begins_at(report.range.start, !report.gaps.is_empty());
    let recalled = log.recall();
    found.take(&log, &recalled, &KeyedHash::default()).await.unwrap();
    assert_eq!(found.complete().count(), 0, "nothing is damaged");
    log.close().await;
    let noted = recalled.iter().filter(|part| part.noted.is_some());
    Opened {
        facts: format!("{:?}", found.facts()),
        noted: noted.map(|part| part.seqs.end - part.seqs.start).sum(),
        copies: recalled
            .iter()
            .flat_map(|part| &part.noted)
            .map(|(_, notes)| copies(notes))
            .sum(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn opening_by_notes_finds_what_reading_finds(ops in prop::collection::vec(op(), 1..60), seed in any::<u64>()) {
        let world = World::new(seed);
        let machine = world.machine("node");
        let (by_notes, by_entries) = world.run(async {
            run(&machine, &ops).await;
            (found(&machine.env(), true).await, found(&machine.env(), false).await)
        });
        prop_assert_eq!(&by_notes.facts, &by_entries.facts);
        let messages = ops.iter().filter(|op| matches!(op, Op::Send(..))).count();
        prop_assert!(by_entries.noted == 0 && (by_notes.noted > 0 || messages == 0), "notes are used");
    }

    #[test]
    fn a_note_keeps_of_a_message_what_the_heart_keeps(
        messages in prop::collection::vec(
            (0..TOPICS.len(), message(), 0..3_000_000_000_000_u64, prop::option::of(any::<u64>())),
            1..20,
        ),
    ) {
        let keys = KeyedHash::new(3, 4);
        let (mut noter, mut notes, mut right) = ((NOTES.noter)(), Vec::new(), Vec::new());
        for (at, (topic, message, sent, copy_of)) in (1..).zip(&messages) {
            let entry = encode_message(TOPICS[*topic], WallTime::from_millis(*sent), message);
            let copy = copy_of.map(|seq| encode_copy(seq, &entry));
            noter.note(Some(copy.as_ref().unwrap_or(&entry)), &mut notes);
            let seq = copy_of.unwrap_or(at);
            let Record::Message { sent, message, .. } = Record::decode(&entry).unwrap() else { unreachable!() };
            let stored = stored(seq, entry.len() as u32, sent, &message, &keys);
            right.push((TOPICS[*topic], sent, stored, message, *copy_of));
        }
        let mut reading = Reading::new(&notes);
        let mut last = "";
        for (seq, (topic, sent, stored, message, copy_of)) in (1..).zip(right) {
            if let Some(plain) = reading.next_plain() {
                prop_assert_eq!((last, plain.sent, plain.stored(seq)), (topic, sent, stored));
                prop_assert_eq!((message.dedup_id, copy_of), (None, None));
                continue;
            }
            match reading.next().unwrap() {
                Note::Copy(seq, noted) => {
                    prop_assert_eq!((noted.topic, noted.sent, noted.stored(seq, &keys)), (topic, sent, stored));
                    prop_assert_eq!(copy_of, Some(seq));
                    last = noted.topic;
                }
                Note::Message(noted) => {
                    prop_assert_eq!(copy_of, None);
                    prop_assert_eq!((noted.topic, noted.sent, noted.stored(seq, &keys)), (topic, sent, stored));
                    prop_assert_eq!(noted.dedup_id(), message.dedup_id.as_deref());
                    last = noted.topic;
                }
                Note::Read => prop_assert!(message.key.is_some_and(|key| key.len() > 1_000)),
                Note::Record(record) => prop_assert!(false, "{:?}", record),
            }
        }
        prop_assert!(reading.next().is_err(), "there is nothing behind them");
    }

    #[test]
    fn notes_of_any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reading = Reading::new(&bytes);
        for _ in 0..=bytes.len() {
            if reading.next_plain().is_none() && reading.next().is_err() {
                break;
            }
        }
        // The note of an entry that nobody understands sends its reader to the entry.
        let mut notes = Vec::new();
        (NOTES.noter)().note(Some(&bytes), &mut notes);
        let understood = Record::decode(&Bytes::from(bytes)).is_ok();
        prop_assert!(Reading::new(&notes).next().is_ok() || !understood);
    }
}

#[test]
fn copies_are_noted_and_found() {
    let world = World::new(1);
    let machine = world.machine("node");
    let stays = |text: &str| {
        Op::Send(
            0,
            vec![
                Message::new(text.repeat(100)),
                Message::new("u").priority(Priority::Urgent),
            ],
        )
    };
    let mut ops = vec![Op::Subscribe(0, 0), stays("a"), Op::Take(0, 0, 1)];
    for _ in 0..4 {
        ops.extend([Op::Busy, Op::Busy, stays("b"), Op::Large, Op::Reopen]);
    }
    world.run(async {
        assert!(run(&machine, &ops).await > 10);
        let (by_notes, by_entries) = (found(&machine.env(), true).await, found(&machine.env(), false).await);
        assert!(by_notes.copies > 3, "{} copies", by_notes.copies);
        assert_eq!(by_notes.facts, by_entries.facts);
    });
}

#[test]
fn records_and_what_is_in_pieces_are_noted() {
    let acked = Record::Acked { id: 3, seqs: vec![7] };
    let long = Bytes::from(vec![9; 100_000]);
    let (mut noter, mut notes) = ((NOTES.noter)(), Vec::new());
    noter.note(Some(&acked.encode()), &mut notes);
    noter.note(None, &mut notes);
    noter.note(Some(&long), &mut notes);
    let mut reading = Reading::new(&notes);
    assert!(matches!(reading.next().unwrap(), Note::Record(record) if record == acked));
    assert!(matches!(reading.next().unwrap(), Note::Read));
    assert!(matches!(reading.next().unwrap(), Note::Read));
}

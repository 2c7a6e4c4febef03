//! Messages that are read back from the log: in their order, and in any other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::heart::kept::Stored;
use super::heart::state::State;
use super::testing::{SECOND, open, small, subscribe};
use crate::env::{Tick, WallTime};
use crate::queue::*;
use crate::sim::{Faults, World};
use std::collections::BTreeMap;
use std::pin::pin;

const ID: u32 = 1;

/// A topic with one subscription, whose messages are due at these times.
fn heart(dues: impl IntoIterator<Item = u64>) -> State {
    let mut state = State::new(7);
    state.subscribed(ID, "topic", "name", 1);
    for (seq, due) in (1..).zip(dues) {
        let stored = Stored {
            due,
            ..Stored::plain(seq, 100)
        };
        drop(state.message("topic", stored));
    }
    state
}

fn take(state: &mut State, wall: u64, max: usize) -> Vec<u64> {
    let taken = state.take(Tick::ZERO, WallTime::from_millis(wall), ID, max);
    taken.leases.iter().map(|lease| lease.seq).collect()
}

#[test]
fn a_row_goes_on_where_the_next_can_be_delivered() {
    let mut state = heart([0; 20]);
    assert_eq!(take(&mut state, 1_000, 10), Vec::from_iter(1..=10));
    assert!(state.goes_on(ID, 10));
    assert!(state.goes_on(ID, 17), "three are behind it");
    assert!(!state.goes_on(ID, 18), "too few are behind it");
    assert!(!state.goes_on(ID, 4), "what is behind it is somebody's");
    assert!(state.goes_on(ID, 9), "one of four is");
    assert!(!state.goes_on(2, 10), "nobody asks");
}

#[test]
fn no_row_goes_on_to_what_is_not_due() {
    let mut state = heart((1..=20).map(|seq| if seq % 5 == 1 { 500 } else { 5_000 }));
    assert_eq!(take(&mut state, 1_000, 10), [1, 6, 11, 16]);
    assert!(!state.goes_on(ID, 1) && !state.goes_on(ID, 6));
    assert_eq!(take(&mut state, 5_000, 1), [2]);
    assert!(state.goes_on(ID, 2));
}

/// Sends long batches, of which a cache of 4 KiB keeps almost nothing, and receives them as they become due.
fn received_as_due(seed: u64, due: impl Fn(u64, &mut crate::env::Rng) -> u64) {
    const MESSAGES: u64 = 480;
    const BATCH: u64 = 40;
    let world = World::new(seed);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        let mut rng = env.rng("dues");
        let start = env.wall().as_millis() + 1_000;
        let mut dues = BTreeMap::new();
        for first in (0..MESSAGES).step_by(BATCH as usize) {
            let mut batch = Vec::new();
            for number in first..first + BATCH {
                let at = start + due(number, &mut rng);
                dues.insert(number, at);
                let payload = number.to_le_bytes().repeat(20);
                batch.push(Message::new(payload).deliver_at(WallTime::from_millis(at)));
            }
            queue.topic("t").send_all(batch).await.unwrap();
            queue.topic("other").send("between them").await.unwrap();
        }
        while !dues.is_empty() {
            let some = queue.receive(&from, 16, 20 * SECOND).await.unwrap();
            assert!(!some.is_empty(), "{dues:?} are left");
            for raw in some {
                let payload = raw.message.payload.clone();
                let number = u64::from_le_bytes(*payload.first_chunk().unwrap());
                assert_eq!(payload, number.to_le_bytes().repeat(20));
                let due = dues.remove(&number).expect("it comes once");
                assert!(due <= env.wall().as_millis(), "not before its time");
                Delivery::new(queue.clone(), raw).ack().await.unwrap();
            }
        }
        queue.close().await;
    });
}

#[test]
fn what_becomes_due_in_any_order_is_delivered_as_it_was_sent() {
    for seed in 0..8 {
        received_as_due(seed, |_, rng| rng.below(5_000));
    }
}

#[test]
fn what_becomes_due_in_its_order_is_delivered_as_it_was_sent() {
    received_as_due(1, |number, _| number);
    received_as_due(2, |_, _| 0);
}

#[test]
fn what_is_no_longer_leased_when_it_has_been_read_is_not_delivered() {
    let world = World::new(5);
    let machine = world.machine("node");
    world.run(async {
        let last_one = Retention::acknowledged().max_messages(1);
        let queue = small(&machine.env()).cache_bytes(0).retention(last_one);
        let queue = queue.open("q").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        queue.topic("t").send("first").await.unwrap();
        let slow = Faults {
            stall: 1.0,
            stall_for: SECOND,
            ..Faults::default()
        };
        machine.set_faults(slow);
        let mut receiving = pin!(queue.receive(&from, 1, 60 * SECOND));
        assert!(futures::poll!(receiving.as_mut()).is_pending(), "it reads");
        machine.set_faults(Faults::default());
        // This drops the first, which somebody has.
        queue.topic("t").send("second").await.unwrap();
        let received = receiving.await.unwrap();
        assert_eq!(received[0].message.payload, "second");
    });
}

#[test]
fn a_lease_begins_when_its_message_has_been_read() {
    let world = World::new(6);
    let machine = world.machine("node");
    world.run(async {
        let queue = small(&machine.env()).cache_bytes(0).open("q").await.unwrap();
        let mut from = Subscription::new("t", "s");
        (from.lease, from.max_attempts) = (SECOND, 1);
        queue.subscribe(&from).await.unwrap();
        queue.topic("t").send("read slowly").await.unwrap();
        let slow = Faults {
            stall: 1.0,
            stall_for: 5 * SECOND,
            ..Faults::default()
        };
        machine.set_faults(slow);
        let received = queue.receive(&from, 1, 60 * SECOND).await.unwrap();
        machine.set_faults(Faults::default());
        let job = Delivery::new(queue.clone(), received.into_iter().next().unwrap());
        assert_eq!(job.attempt(), 1, "no attempt has gone by unseen");
        machine.env().sleep(SECOND / 2).await;
        job.ack().await.unwrap();
        assert_eq!(queue.stats().dead, 0);
        queue.close().await;
    });
}

#[test]
fn a_lease_is_as_long_as_ever_when_its_message_was_read() {
    let world = World::new(7);
    let machine = world.machine("node");
    world.run(async {
        let queue = small(&machine.env()).cache_bytes(0).open("q").await.unwrap();
        let mut from = Subscription::new("t", "s");
        from.lease = SECOND;
        queue.subscribe(&from).await.unwrap();
        queue.topic("t").send("left alone").await.unwrap();
        let first = queue.receive(&from, 1, SECOND).await.unwrap();
        let held = machine.env().now();
        let again = queue.receive(&from, 1, 60 * SECOND).await.unwrap();
        let waited = machine.env().now() - held;
        assert_eq!((first[0].attempt, again[0].attempt), (1, 2));
        assert!(waited < SECOND + SECOND / 10, "{waited:?}");
        queue.close().await;
    });
}

//! What the heart promises, case by case; `model_tests` has the rest.

use super::super::record::{Record, SubId};
use super::kept::Stored;
use super::standing::{Lease, Lost, Taken};
use super::state::State;
use crate::env::{Tick, WallTime};
use crate::queue::{Priority, Subscription, SubscriptionStats};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const ID: SubId = 1;
const MILLION: usize = 1_000_000;
const NONE: [u64; 0] = [];
const PRIORITIES: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

/// A topic with one subscription.
struct Heart {
    state: State,
    seq: u64,
    now: Tick,
    wall: u64,
}

impl Heart {
    fn new(configure: impl FnOnce(&mut Subscription)) -> Heart {
        let mut state = State::new(7);
        state.subscribed(ID, "topic", "name", 1);
        let mut wanted = Subscription::new("topic", "name");
        wanted.max_in_flight = 1 << 20;
        configure(&mut wanted);
        state.configure(ID, &wanted);
        Heart {
            state,
            seq: 0,
            now: Tick::ZERO,
            wall: 1_000,
        }
    }

    fn send(&mut self, change: impl FnOnce(&mut Stored)) -> u64 {
        self.seq += 1;
        let mut stored = Stored::plain(self.seq, 100);
        change(&mut stored);
        drop(self.state.message("topic", stored));
        self.seq
    }

    fn take(&mut self, max: usize) -> Vec<Lease> {
        let mut leases = Vec::new();
        loop {
            let taken = self.take_some(max - leases.len());
            leases.extend(taken.leases);
            if !taken.more {
                return leases;
            }
        }
    }

    fn take_some(&mut self, max: usize) -> Taken {
        let wall = WallTime::from_millis(self.wall);
        self.state.take(self.now, wall, ID, max)
    }

    fn seqs(&mut self, max: usize) -> Vec<u64> {
        self.take(max).iter().map(|lease| lease.seq).collect()
    }

    fn ack(&mut self, lease: Lease) -> Result<(), Lost> {
        let ack = |standing: &mut super::standing::Standing| standing.ack(lease.seq, lease.generation);
        self.state.settle(self.now, ID, ack)
    }

    fn release(&mut self, lease: Lease) -> Result<(), Lost> {
        let release = |standing: &mut super::standing::Standing| standing.release(lease.seq, lease.generation);
        self.state.settle(self.now, ID, release)
    }

    fn expire(&mut self) -> usize {
        let freed = self.state.expire(self.now, WallTime::from_millis(self.wall));
        freed.iter().map(|(_, some)| some).sum()
    }

    fn next_timer(&self) -> Option<Duration> {
        let wall = WallTime::from_millis(self.wall);
        self.state.next_timer(|| (self.now, wall)).map(|at| at - self.now)
    }

    fn stats(&self) -> SubscriptionStats {
        self.state.stats()["topic"].subscriptions["name"]
    }
}

#[test]
fn sixteen_deliveries_are_shared_8_4_3_1_and_each_level_is_in_order() {
    let mut heart = Heart::new(|_| {});
    for _ in 0..100 {
        for priority in PRIORITIES {
            heart.send(|stored| stored.priority = priority);
        }
    }
    let taken = heart.seqs(160);
    let level = |seq: u64| ((seq - 1) % 4) as usize;
    for sixteen in taken.chunks(16) {
        let count = |of: usize| sixteen.iter().filter(|seq| level(**seq) == of).count();
        assert_eq!([count(3), count(2), count(1), count(0)], [8, 4, 3, 1]);
    }
    for of in 0..4 {
        let one: Vec<u64> = taken.iter().copied().filter(|seq| level(*seq) == of).collect();
        assert!(one.is_sorted());
    }
}

#[test]
fn a_stream_of_urgent_messages_starves_nobody() {
    let mut heart = Heart::new(|_| {});
    let low = heart.send(|stored| stored.priority = Priority::Low);
    for n in 1..=16 {
        heart.send(|stored| stored.priority = Priority::Urgent);
        let lease = heart.take(1)[0];
        heart.ack(lease).unwrap();
        if lease.seq == low {
            return;
        }
        assert!(n < 16, "16 deliveries, and none of the low one");
    }
}

#[test]
fn a_message_that_is_given_back_comes_in_its_place() {
    let mut heart = Heart::new(|_| {});
    for _ in 0..4 {
        heart.send(|_| {});
    }
    let leases = heart.take(3);
    heart.release(leases[1]).unwrap();
    heart.release(leases[0]).unwrap();
    assert_eq!(heart.seqs(4), [1, 2, 4]);
}

#[test]
fn a_delayed_message_waits_for_the_wall_clock_however_it_jumps() {
    let mut heart = Heart::new(|_| {});
    let seq = heart.send(|stored| stored.due = 10_000);
    assert_eq!(heart.seqs(1), NONE);
    assert_eq!(heart.stats().delayed, 1);
    // The clock is looked at every second, since it may jump ahead.
    assert_eq!(heart.next_timer(), Some(Duration::from_secs(1)));
    heart.wall = 9_990;
    assert_eq!(heart.next_timer(), Some(Duration::from_millis(10)));
    assert_eq!(heart.expire(), 0);
    heart.wall = 25_000;
    assert_eq!(heart.expire(), 1);
    assert_eq!(heart.next_timer(), None);
    // It could have been delivered, but nobody asked, and now it is too early again.
    heart.wall = 5_000;
    assert_eq!(heart.seqs(1), NONE);
    assert_eq!(heart.next_timer(), Some(Duration::from_secs(1)));
    heart.wall = 10_000;
    assert_eq!(heart.seqs(1), [seq]);
}

#[test]
fn delayed_messages_hold_nobody_up_and_wake_nobody() {
    let mut heart = Heart::new(|wanted| wanted.max_in_flight = 1);
    for _ in 0..10 {
        let delayed = Stored {
            due: 5_000,
            ..Stored::plain(heart.seq + 1, 100)
        };
        heart.seq += 1;
        assert_eq!(heart.state.message("topic", delayed).count(), 0);
    }
    let now = heart.send(|_| {});
    let lease = heart.take(2);
    assert_eq!(lease.iter().map(|lease| lease.seq).collect::<Vec<_>>(), [now]);
    // What is due counts as in flight only when it is delivered.
    heart.wall = 5_000;
    assert_eq!(heart.expire(), 10);
    assert_eq!(heart.seqs(2), NONE);
    heart.ack(lease[0]).unwrap();
    assert_eq!(heart.seqs(2), [1]);
}

#[test]
fn what_is_due_at_once_becomes_ready_in_portions() {
    let mut heart = Heart::new(|_| {});
    for _ in 0..3_000 {
        heart.send(|stored| stored.due = 2_000);
    }
    heart.wall = 2_000;
    let mut portions = Vec::new();
    while heart.next_timer() == Some(Duration::ZERO) {
        portions.push(heart.expire());
    }
    assert_eq!(portions, [1_024, 1_024, 952]);
    assert_eq!(heart.seqs(3_000), (1..=3_000).collect::<Vec<_>>());
}

#[test]
fn messages_that_cannot_be_delivered_are_passed_over_in_portions() {
    let mut heart = Heart::new(|_| {});
    // The first keeps the cursor back, so that the delayed ones are not put where they belong when they come.
    heart.send(|_| {});
    for _ in 0..3_000 {
        heart.send(|stored| stored.due = 2_000);
    }
    let last = heart.send(|_| {});
    let taken = heart.take_some(2);
    assert_eq!(taken.leases.len(), 1, "the first one");
    let mut portions = vec![(heart.stats().delayed, taken.more)];
    let found = loop {
        let taken = heart.take_some(1);
        portions.push((heart.stats().delayed, taken.more));
        if !taken.more {
            break taken.leases;
        }
        assert!(taken.leases.is_empty() && heart.state.has_more(ID));
    };
    assert_eq!(portions, [(1_024, true), (2_048, true), (3_000, false)]);
    assert_eq!(found[0].seq, last);
    heart.wall = 2_000;
    while heart.expire() > 0 {}
    assert_eq!(heart.take(3_000).len(), 3_000, "and they come when they are due");
}

#[test]
fn a_standing_is_told_in_parts_that_make_the_whole() {
    let mut heart = Heart::new(|_| {});
    for n in 0..1_000_u64 {
        heart.send(|stored| {
            stored.priority = PRIORITIES[n as usize % 4];
            stored.due = if n % 3 == 0 { 5_000 } else { 0 };
        });
    }
    let leases = heart.take(300);
    for lease in leases.iter().filter(|lease| lease.seq % 2 == 0) {
        heart.ack(*lease).unwrap();
    }
    let (whole, rest) = heart.state.standings((0, 0), 10_000, &BTreeSet::new());
    assert_eq!((whole.len(), rest), (1, None));
    let (mut parts, mut after) = (Vec::new(), Some((0, 0)));
    while let Some(from) = after {
        let (records, rest) = heart.state.standings(from, 70, &BTreeSet::new());
        parts.extend(records);
        after = rest;
    }
    assert!(parts.len() > 5, "{}", parts.len());
    let rebuilt = |records: &[Record]| {
        let mut state = State::new(9);
        for n in 0..1_000_u64 {
            let stored = Stored {
                priority: PRIORITIES[n as usize % 4],
                due: if n % 3 == 0 { 5_000 } else { 0 },
                ..Stored::plain(n + 1, 100)
            };
            drop(state.message("topic", stored));
        }
        records.iter().for_each(|record| state.replay(2_000, record));
        assert!(state.replayed().is_empty());
        state
    };
    let backlog = heart.stats().backlog;
    for records in [&whole, &parts] {
        let state = rebuilt(records);
        assert_eq!(state.stats()["topic"].subscriptions["name"].backlog, backlog);
        assert_eq!(state.standings((0, 0), 10_000, &BTreeSet::new()).0, whole);
    }
}

#[test]
fn what_has_expired_is_not_delivered_and_leaves_no_trace() {
    let mut heart = Heart::new(|_| {});
    for _ in 0..5 {
        heart.send(|stored| stored.expires = 2_000);
    }
    let kept = heart.send(|_| {});
    let held = heart.take(1)[0];
    heart.wall = 2_000;
    assert_eq!(heart.seqs(5), [kept]);
    assert_eq!(heart.stats().expired, 4);
    heart.ack(held).unwrap();
    heart.state.trim(|_| false);
    assert_eq!(heart.state.oldest(u64::MAX), kept);
}

#[test]
fn what_has_expired_goes_even_if_nobody_asks_for_it() {
    let mut heart = Heart::new(|_| {});
    for _ in 0..5 {
        heart.send(|stored| stored.expires = 2_000);
    }
    let mut lone = Stored::plain(100, 1);
    lone.expires = 2_000;
    drop(heart.state.message("nobody's", lone));
    heart.wall = 2_000;
    heart.expire();
    heart.state.trim(|_| false);
    assert_eq!(heart.state.oldest(u64::MAX), u64::MAX);
    assert_eq!((heart.stats().backlog, heart.stats().expired), (0, 5));
}

#[test]
fn the_next_of_a_key_is_ready_at_the_ack() {
    let mut heart = Heart::new(|wanted| wanted.ordered = true);
    for key in [1, 1, 1, 0, 2, 0] {
        heart.send(|stored| stored.key = key);
    }
    let first = heart.take(10);
    assert_eq!(first.iter().map(|lease| lease.seq).collect::<Vec<_>>(), [1, 4, 5, 6]);
    assert!(!heart.state.has_more(ID));
    assert_eq!(heart.stats().blocked, 2);
    heart.ack(first[0]).unwrap();
    assert!(heart.state.has_more(ID));
    let second = heart.take(10);
    assert_eq!(second.iter().map(|lease| lease.seq).collect::<Vec<_>>(), [2]);
    // A retry keeps the next one back.
    let retry = |standing: &mut super::standing::Standing| {
        standing.retry(2, second[0].generation, Tick::ZERO + Duration::from_secs(9))
    };
    heart.state.settle(heart.now, ID, retry).unwrap();
    assert_eq!(heart.seqs(10), NONE);
    // Its dead letter does not.
    heart.now = Tick::ZERO + Duration::from_secs(9);
    let third = heart.take(1)[0];
    let bury = |standing: &mut super::standing::Standing| standing.bury(2, third.generation);
    assert_eq!(heart.state.settle(heart.now, ID, bury), Ok(2));
    assert_eq!(heart.seqs(10), NONE);
    heart.state.buried(ID, 2);
    assert_eq!(heart.seqs(10), [3]);
}

#[test]
fn a_message_lost_or_over_its_time_lets_the_next_of_its_key_go() {
    let mut heart = Heart::new(|wanted| wanted.ordered = true);
    heart.send(|stored| stored.key = 1);
    heart.send(|stored| (stored.key, stored.expires) = (1, 1_500));
    heart.send(|stored| stored.key = 1);
    heart.send(|stored| stored.key = 1);
    assert_eq!(heart.seqs(10), [1]);
    heart.wall = 2_000;
    heart.state.lose(ID, 3);
    heart.state.lose(ID, 1);
    assert_eq!(heart.seqs(10), [4]);
    assert_eq!(heart.state.lost, 2);
}

#[test]
fn an_ordered_subscription_follows_the_numbers_across_priorities() {
    let mut heart = Heart::new(|wanted| wanted.ordered = true);
    for priority in [Priority::Low, Priority::Urgent, Priority::Normal] {
        heart.send(|stored| (stored.key, stored.priority) = (1, priority));
    }
    for seq in 1..=3 {
        let lease = heart.take(3);
        assert_eq!(lease.iter().map(|lease| lease.seq).collect::<Vec<_>>(), [seq]);
        heart.ack(lease[0]).unwrap();
    }
}

#[test]
fn acking_through_settles_what_is_before_whatever_becomes_of_it() {
    let mut heart = Heart::new(|wanted| wanted.ordered = true);
    for key in [1, 1, 2, 0, 1, 2] {
        heart.send(|stored| stored.key = key);
    }
    heart.send(|stored| stored.due = 9_000);
    let leases = heart.take(3);
    assert_eq!(leases.iter().map(|lease| lease.seq).collect::<Vec<_>>(), [1, 3, 4]);
    let through = |lease: Lease| {
        move |standing: &mut super::standing::Standing| standing.ack_through(lease.seq, lease.generation)
    };
    heart.state.settle(heart.now, ID, through(leases[2])).unwrap();
    // Earlier deliveries have lost their leases, and nobody settles anything by them.
    assert_eq!(heart.ack(leases[0]), Err(Lost));
    assert_eq!(heart.state.settle(heart.now, ID, through(leases[2])), Err(Lost));
    assert_eq!(heart.seqs(10), [5, 6]);
    assert_eq!(heart.stats().backlog, 3);
}

#[test]
fn a_late_settlement_is_lost_and_completes_no_other_attempt() {
    let mut heart = Heart::new(|wanted| wanted.lease = Duration::from_secs(1));
    heart.send(|_| {});
    let late = heart.take(1)[0];
    heart.now = Tick::ZERO + Duration::from_secs(1);
    let second = heart.take(1)[0];
    assert_eq!((second.seq, second.attempt), (late.seq, 2));
    assert_eq!(heart.ack(late), Err(Lost));
    assert_eq!(heart.release(late), Err(Lost));
    assert_eq!(heart.stats().in_flight, 1);
    heart.ack(second).unwrap();
    assert_eq!(heart.ack(second), Err(Lost));
}

#[test]
fn limits_drop_the_oldest_first_whoever_holds_it() {
    let mut heart = Heart::new(|_| {});
    for priority in [Priority::Urgent, Priority::Low, Priority::Normal, Priority::Low] {
        heart.send(|stored| stored.priority = priority);
    }
    let held = heart.take(1)[0];
    let over = |messages: usize, _, _| messages > 2;
    assert!(heart.state.is_over("topic", over));
    assert_eq!(heart.state.shed("topic", over), (3, 2));
    assert!(!heart.state.is_over("topic", over));
    assert_eq!(heart.ack(held), Err(Lost));
    heart.state.drop_before("topic", 4);
    assert_eq!(heart.seqs(10), [4]);
    assert_eq!(heart.state.undealt("topic", 0, 10), NONE);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Consumers compete and settle in any order; of a key never two are out, and none comes before an earlier one is
    /// settled. Everything is settled in the end.
    #[test]
    fn keys_keep_their_order_whatever_consumers_do(
        sent in prop::collection::vec((0..4_u64, 0..4_usize), 1..60),
        steps in prop::collection::vec((1..5_usize, 0..8_usize, 0..10_u8), 1..200),
    ) {
        let mut heart = Heart::new(|wanted| (wanted.ordered, wanted.max_attempts) = (true, u32::MAX));
        let mut keys = BTreeMap::new();
        for (key, priority) in sent {
            let seq = heart.send(|stored| (stored.key, stored.priority) = (key, PRIORITIES[priority]));
            keys.insert(seq, key);
        }
        let (mut out, mut open): (Vec<Lease>, BTreeSet<u64>) = (Vec::new(), keys.keys().copied().collect());
        let end = std::iter::repeat_n((60, 0, 9), 60 * 60);
        for (max, which, how) in steps.into_iter().chain(end) {
            for lease in heart.take(max) {
                let of_key = open.range(..lease.seq).filter(|seq| keys[&lease.seq] != 0 && keys[seq] == keys[&lease.seq]);
                prop_assert_eq!(of_key.count(), 0, "{:?} comes too early", lease);
                out.push(lease);
            }
            if out.is_empty() {
                break;
            }
            let lease = out.swap_remove(which % out.len());
            match how {
                0..3 => heart.release(lease).unwrap(),
                _ => {
                    heart.ack(lease).unwrap();
                    open.remove(&lease.seq);
                }
            }
            // Nobody without a key, and no first of its key, is held up.
            let out_or_free = out.len() + heart.stats().ready + heart.stats().blocked;
            prop_assert_eq!(out_or_free, open.len());
            let firsts: BTreeSet<u64> = open.iter().map(|seq| keys[seq]).filter(|key| *key != 0).collect();
            let free = open.iter().filter(|seq| keys[seq] == 0).count();
            prop_assert!(heart.stats().backlog - heart.stats().blocked >= firsts.len() + free);
        }
        prop_assert!(open.is_empty());
    }
}

/// The heart's bytes for each of a million messages in a state, the message itself among them.
fn bytes_each(heart: &Heart) -> f64 {
    heart.state.memory() as f64 / MILLION as f64
}

#[test]
fn a_million_messages_in_flight_take_64_bytes_each() {
    let mut heart = Heart::new(|_| {});
    (0..MILLION).for_each(|_| _ = heart.send(|_| {}));
    let waiting = bytes_each(&heart);
    assert!(waiting <= 17.0, "{waiting} bytes kept");
    let leases = heart.take(MILLION);
    assert_eq!(leases.len(), MILLION);
    let in_flight = bytes_each(&heart);
    assert!(in_flight <= 64.0, "{in_flight} bytes in flight");
    // Leases that were cut short leave nothing that adds up.
    for lease in leases.iter().rev() {
        heart.ack(*lease).unwrap();
    }
    heart.state.trim(|_| false);
    assert!(
        heart.state.memory() < 64 << 10,
        "{} bytes of nothing",
        heart.state.memory()
    );
}

#[test]
fn a_million_delayed_messages_take_68_bytes_each() {
    let mut heart = Heart::new(|_| {});
    (0..MILLION as u64).for_each(|n| _ = heart.send(|stored| stored.due = 5_000 + n * 7_919 % 60_000));
    let delayed = bytes_each(&heart);
    assert!(delayed <= 68.0, "{delayed} bytes delayed");
    heart.wall = 35_000;
    let mut due = 0;
    while heart.next_timer() == Some(Duration::ZERO) {
        due += heart.expire();
    }
    assert_eq!(due, heart.stats().ready);
    assert_eq!(heart.take(MILLION).len(), due);
    assert_eq!(heart.stats().delayed, MILLION - due);
}

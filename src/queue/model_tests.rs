//! The heart against the dumbest correct thing, with random operations: a list of messages and, for each subscription,
//! a map that says how each of them stands. Restarts replay the records that the shell would have written.

use super::record::{Record, SubId};
use super::standing::{Lease, Lost, Stored};
use super::state::{Dying, State};
use super::{Message, Priority, Start, Subscription};
use crate::env::{Tick, WallTime};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LEASE: u64 = 10;
const MAX_ATTEMPTS: u32 = 3;
const MAX_IN_FLIGHT: usize = 4;
const TOPICS: [&str; 2] = ["red", "blue"];
/// Topic, name and number of each subscription.
const SUBSCRIPTIONS: [(&str, &str, SubId); 3] = [("red", "a", 1), ("red", "b", 2), ("blue", "a", 3)];

fn stored(seq: u64) -> Stored {
    Stored {
        seq,
        len: 10,
        priority: Priority::Normal,
        due: 0,
        expires: 0,
        key: 0,
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(usize),
    Subscribe(usize, Start),
    Take(usize, usize),
    /// Takes and gives back before anybody got it.
    TakeBack(usize, usize),
    Settle(usize, How),
    Advance(u64),
    Expire,
    Bury,
    Snapshot,
    Trim,
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    Retry(u64),
    Extend(u64),
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    let start = prop_oneof![Just(Start::First), Just(Start::Now)];
    let how = prop_oneof![
        4 => Just(How::Ack),
        1 => (0..30_u64).prop_map(How::Retry),
        1 => (0..30_u64).prop_map(How::Extend),
        1 => Just(How::Release),
    ];
    prop_oneof![
        6 => (0..2_usize).prop_map(Op::Send),
        3 => (0..3_usize, start).prop_map(|(n, start)| Op::Subscribe(n, start)),
        6 => (0..3_usize, 1..4_usize).prop_map(|(n, max)| Op::Take(n, max)),
        1 => (0..3_usize, 1..4_usize).prop_map(|(n, max)| Op::TakeBack(n, max)),
        8 => (0..20_usize, how).prop_map(|(n, how)| Op::Settle(n, how)),
        2 => (1..15_u64).prop_map(Op::Advance),
        1 => Just(Op::Expire),
        2 => Just(Op::Bury),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Trim),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Ready,
    Leased { generation: u64, until: u64 },
    Waiting { until: u64 },
    Dying,
    Done,
}

/// How each message of its topic stands with one subscription: phase and attempts.
#[derive(Debug, Default)]
struct Naive {
    messages: BTreeMap<u64, (Phase, u32)>,
    /// The log tells that everything before this was delivered.
    told: u64,
}

impl Naive {
    fn ready_or_dying(attempts: u32) -> Phase {
        if attempts >= MAX_ATTEMPTS {
            Phase::Dying
        } else {
            Phase::Ready
        }
    }

    fn expire(&mut self, now: u64) {
        for (phase, attempts) in self.messages.values_mut() {
            if let Phase::Leased { until, .. } | Phase::Waiting { until } = *phase
                && until <= now
            {
                *phase = Naive::ready_or_dying(*attempts);
            }
        }
    }

    fn take(&mut self, now: u64, max: usize) -> Vec<(u64, u32)> {
        self.expire(now);
        let mut taken = Vec::new();
        while taken.len() < max {
            let open = self
                .messages
                .values()
                .filter(|(phase, _)| !matches!(phase, Phase::New | Phase::Done))
                .count();
            let first = |wanted| {
                self.messages
                    .iter()
                    .find(|(_, (phase, _))| *phase == wanted)
                    .map(|(seq, _)| *seq)
            };
            let new = first(Phase::New).filter(|_| open < MAX_IN_FLIGHT);
            let Some(seq) = first(Phase::Ready).or(new) else { break };
            let message = self.messages.get_mut(&seq).unwrap();
            let until = now + LEASE;
            *message = (Phase::Leased { generation: 0, until }, message.1 + 1);
            taken.push((seq, message.1));
        }
        taken
    }

    fn settle(&mut self, now: u64, seq: u64, held: u64, how: How) -> bool {
        self.expire(now);
        let Some((phase, attempts)) = self.messages.get_mut(&seq) else {
            return false;
        };
        let Phase::Leased { generation, .. } = *phase else {
            return false;
        };
        if generation != held {
            return false;
        }
        *phase = match how {
            How::Ack => Phase::Done,
            How::Retry(after) if *attempts < MAX_ATTEMPTS => Phase::Waiting { until: now + after },
            How::Retry(_) | How::Release => Naive::ready_or_dying(*attempts),
            How::Extend(by) => Phase::Leased {
                generation,
                until: now + by,
            },
        };
        true
    }
}

struct Test {
    state: State,
    naive: BTreeMap<SubId, Naive>,
    records: Vec<Record>,
    /// Where the last snapshot begins in `records`.
    snapshot: usize,
    leases: Vec<(SubId, Lease)>,
    dying: Vec<Dying>,
    now: u64,
}

fn tick(at: u64) -> Tick {
    Tick::from_nanos(at)
}

fn wanted(n: usize, start: Start) -> Subscription {
    let (topic, name, _) = SUBSCRIPTIONS[n];
    let mut wanted = Subscription::new(topic, name);
    wanted.start = start;
    wanted.lease = Duration::from_nanos(LEASE);
    wanted.max_attempts = MAX_ATTEMPTS;
    wanted.max_in_flight = MAX_IN_FLIGHT;
    wanted
}

impl Test {
    /// Writes a record; its number is its place.
    fn log(&mut self, record: Record) -> u64 {
        self.records.push(record);
        self.records.len() as u64
    }

    fn send(&mut self, n: usize) {
        let topic = TOPICS[n].to_owned();
        let message = Message::new("x");
        let sent = WallTime::default();
        let seq = self.log(Record::Message { topic, sent, message });
        drop(self.state.message(TOPICS[n], stored(seq)));
        for (topic, _, id) in SUBSCRIPTIONS {
            if let Some(naive) = self.naive.get_mut(&id).filter(|_| topic == TOPICS[n]) {
                naive.messages.insert(seq, (Phase::New, 0));
            }
        }
    }

    fn subscribe(&mut self, n: usize, start: Start) {
        let (topic, name, id) = SUBSCRIPTIONS[n];
        if !self.naive.contains_key(&id) {
            let (topic, name) = (topic.to_owned(), name.to_owned());
            let own = self.records.len() as u64 + 1;
            let from = match start {
                Start::First => Some(self.state.oldest_of(&topic).unwrap_or(own)),
                Start::Seq(seq) => Some(seq),
                Start::Now | Start::Time(_) => None,
            };
            self.log(Record::Subscribed { id, topic, name, from });
            let (topic, name, _) = SUBSCRIPTIONS[n];
            self.state.subscribed(id, topic, name, from.unwrap_or(own));
            let mut naive = Naive::default();
            for (seq, record) in (1..).zip(&self.records) {
                let is_wanted = matches!(record, Record::Message { topic: of, .. } if of == topic);
                if is_wanted && from.is_some_and(|from| seq >= from) {
                    naive.messages.insert(seq, (Phase::New, 0));
                }
            }
            self.naive.insert(id, naive);
        }
        self.state.configure(id, &wanted(n, start));
    }

    fn take(&mut self, n: usize, max: usize) {
        let id = SUBSCRIPTIONS[n].2;
        let leases = self.state.take(tick(self.now), id, max);
        let expected = self
            .naive
            .get_mut(&id)
            .map(|naive| naive.take(self.now, max))
            .unwrap_or_default();
        let got: Vec<_> = leases.iter().map(|lease| (lease.seq, lease.attempt)).collect();
        assert_eq!(got, expected, "taken from {:?}", SUBSCRIPTIONS[n]);
        for lease in &leases {
            let (phase, _) = self.naive.get_mut(&id).unwrap().messages.get_mut(&lease.seq).unwrap();
            let until = self.now + LEASE;
            let generation = lease.generation;
            *phase = Phase::Leased { generation, until };
        }
        if let Some(last) = got.iter().map(|(seq, _)| *seq).max() {
            self.log(Record::Delivered { id, attempts: got });
            self.tell(id, last);
        }
        self.leases.extend(leases.into_iter().map(|lease| (id, lease)));
    }

    fn tell(&mut self, id: SubId, seq: u64) {
        let naive = self.naive.get_mut(&id).unwrap();
        naive.told = naive.told.max(seq + 1);
    }

    fn take_back(&mut self, n: usize, max: usize) {
        let id = SUBSCRIPTIONS[n].2;
        let leases = self.state.take(tick(self.now), id, max);
        let Some(naive) = self.naive.get_mut(&id) else { return };
        naive.take(self.now, max);
        self.state.unlease(id, &leases);
        for lease in leases {
            let (phase, attempts) = naive.messages.get_mut(&lease.seq).unwrap();
            (*phase, *attempts) = (Phase::Ready, *attempts - 1);
        }
    }

    fn settle(&mut self, n: usize, how: How) {
        if self.leases.is_empty() {
            return;
        }
        let (id, lease) = self.leases[n % self.leases.len()];
        let (seq, generation, now) = (lease.seq, lease.generation, tick(self.now));
        let held = self.naive.get_mut(&id).unwrap().settle(self.now, seq, generation, how);
        let result = self.state.settle(now, id, |standing| match how {
            How::Ack => standing.ack(seq, generation),
            How::Retry(after) => standing.retry(seq, generation, tick(self.now + after)),
            How::Extend(by) => standing.extend(seq, generation, tick(self.now + by)),
            How::Release => standing.release(seq, generation),
        });
        assert_eq!(result, if held { Ok(()) } else { Err(Lost) }, "{how:?} of {lease:?}");
        if held && matches!(how, How::Ack) {
            self.log(Record::Acked { id, seqs: vec![seq] });
        }
    }

    /// Takes what is dying, and buries the half of it.
    fn bury(&mut self) {
        self.dying.extend(self.state.dying());
        for (n, dying) in std::mem::take(&mut self.dying).into_iter().enumerate() {
            let Dying { id, seq, attempts } = dying;
            let message = self.naive.get_mut(&id).unwrap().messages.get_mut(&seq).unwrap();
            assert_eq!(*message, (Phase::Dying, attempts), "{dying:?}");
            if n % 2 == 0 {
                message.0 = Phase::Done;
                self.log(Record::Acked { id, seqs: vec![seq] });
                // It is in the log before it has happened, and a snapshot may come between.
                if self.now.is_multiple_of(2) {
                    self.snapshot(&BTreeSet::from([(id, seq)]));
                }
                self.state.buried(id, seq);
            } else {
                self.state.unbury(tick(self.now), id, seq);
                message.0 = Phase::Waiting {
                    until: self.now + 1_000_000_000,
                };
            }
        }
    }

    fn snapshot(&mut self, under_way: &BTreeSet<(SubId, u64)>) {
        self.snapshot = self.records.len();
        self.records.extend(self.state.standings(under_way));
        for naive in self.naive.values_mut() {
            let passed = naive.messages.iter().filter(|(_, (phase, _))| *phase != Phase::New);
            let last = passed.map(|(seq, _)| *seq + 1).max();
            naive.told = naive.told.max(last.unwrap_or(0));
        }
    }

    /// Starts anew from the messages and what was said of subscriptions since the last snapshot.
    fn restart(&mut self) {
        let mut state = State::new(1_000_000 * self.records.len() as u64);
        for (at, record) in self.records.iter().enumerate() {
            let seq = at as u64 + 1;
            match record {
                Record::Message { topic, .. } => drop(state.message(topic, stored(seq))),
                _ if at >= self.snapshot => state.replay(seq, record),
                _ => {}
            }
        }
        self.state = state;
        self.dying.clear();
        for (n, (_, _, id)) in SUBSCRIPTIONS.into_iter().enumerate() {
            let Some(naive) = self.naive.get_mut(&id) else { continue };
            for (seq, (phase, attempts)) in &mut naive.messages {
                if *attempts == 0 && *phase == Phase::Ready && *seq >= naive.told {
                    *phase = Phase::New;
                }
                if !matches!(phase, Phase::New | Phase::Done) {
                    *phase = Naive::ready_or_dying(*attempts);
                }
            }
            self.state.configure(id, &wanted(n, Start::First));
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Send(n) => self.send(n),
            Op::Subscribe(n, start) => self.subscribe(n, start),
            Op::Take(n, max) => self.take(n, max),
            Op::Settle(n, how) => self.settle(n, how),
            Op::Advance(by) => self.now += by,
            Op::Expire => {
                drop(self.state.expire(tick(self.now)));
                self.naive.values_mut().for_each(|naive| naive.expire(self.now));
                assert!(self.state.next_timer().is_none_or(|next| next > tick(self.now)));
            }
            Op::Bury => {
                drop(self.state.expire(tick(self.now)));
                self.naive.values_mut().for_each(|naive| naive.expire(self.now));
                self.bury();
            }
            Op::TakeBack(n, max) => self.take_back(n, max),
            Op::Snapshot => self.snapshot(&BTreeSet::new()),
            Op::Trim => self.state.trim(|_| false),
            Op::Restart => self.restart(),
        }
        self.compare();
    }

    /// Both count the same.
    fn compare(&self) {
        let stats = self.state.stats();
        for (topic, name, id) in SUBSCRIPTIONS {
            let Some(naive) = self.naive.get(&id) else { continue };
            let count = |is: fn(&Phase) -> bool| naive.messages.values().filter(|(phase, _)| is(phase)).count();
            let stats = stats[topic].subscriptions[name];
            assert_eq!(stats.backlog, count(|phase| *phase != Phase::Done), "{topic} {name}");
            assert_eq!(
                stats.ready,
                count(|phase| matches!(phase, Phase::New | Phase::Ready)),
                "{topic} {name}"
            );
            assert_eq!(
                stats.in_flight,
                count(|phase| matches!(phase, Phase::Leased { .. })),
                "{topic} {name}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_heart_does_what_a_list_does(ops in prop::collection::vec(op(), 1..80)) {
        let mut test = Test {
            state: State::new(0),
            naive: BTreeMap::new(),
            records: Vec::new(),
            snapshot: 0,
            leases: Vec::new(),
            dying: Vec::new(),
            now: 0,
        };
        for op in &ops {
            test.run(op);
        }
    }
}

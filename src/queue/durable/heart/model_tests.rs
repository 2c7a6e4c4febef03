//! The heart against the dumbest correct thing, with random operations: for each subscription, a map that says how each
//! message stands. Restarts replay the records that the shell would have written, here and there, and what was settled
//! must stay so.

mod written;

use super::super::record::{Record, SubId};
use super::kept::{LEVELS, Stored};
use super::naive::{LEASE, MAX_ATTEMPTS, MAX_IN_FLIGHT, Naive, Phase};
use super::standing::{Lease, Lost};
use super::state::{Dying, State};
use crate::env::{Tick, WallTime};
use crate::queue::{Priority, Start, Subscription};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TOPICS: [&str; 2] = ["red", "blue"];
/// Topic, name and number of each subscription.
const SUBSCRIPTIONS: [(&str, &str, SubId); 3] = [("red", "a", 1), ("red", "b", 2), ("blue", "a", 3)];
const PRIORITIES: [Priority; LEVELS] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

#[derive(Clone, Debug)]
enum Op {
    /// The due time and the end are so far from now by the wall clock.
    Send {
        topic: usize,
        priority: usize,
        due: Option<i64>,
        expires: Option<i64>,
        key: u64,
    },
    Subscribe(usize, Start, bool),
    Take(usize, usize),
    /// Takes and gives back before anybody got it.
    TakeBack(usize, usize),
    Settle(usize, How),
    Advance(u64),
    /// The wall clock jumps.
    Jump(i64),
    Expire,
    Bury,
    /// A message is lost, or dropped by a limit.
    Remove(usize),
    Snapshot,
    /// Begins a snapshot, of which a part is written after each of the operations that follow.
    Stand,
    Trim,
    /// Forgets what is settled before a number, also behind what is not.
    Sweep(usize),
    /// Copies the messages that are before some place of the log, and frees what is before it; or copies half of them.
    Copy(usize, bool),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    AckThrough,
    Retry(u64),
    Extend(u64),
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    let start = prop_oneof![Just(Start::First), Just(Start::Now)];
    let how = prop_oneof![
        6 => Just(How::Ack),
        1 => Just(How::AckThrough),
        2 => (0..30_u64).prop_map(How::Retry),
        1 => (0..30_u64).prop_map(How::Extend),
        2 => Just(How::Release),
    ];
    let priority = prop_oneof![3 => Just(1), 2 => 0..LEVELS];
    let due = prop_oneof![3 => Just(None), 1 => (-5..30_i64).prop_map(Some)];
    let expires = prop_oneof![4 => Just(None), 1 => (1..40_i64).prop_map(Some)];
    let key = prop_oneof![1 => Just(0), 2 => 1..3_u64];
    let send = (0..2_usize, priority, due, expires, key).prop_map(|(topic, priority, due, expires, key)| Op::Send {
        topic,
        priority,
        due,
        expires,
        key,
    });
    prop_oneof![
        8 => send,
        3 => (0..3_usize, start, any::<bool>()).prop_map(|(n, start, ordered)| Op::Subscribe(n, start, ordered)),
        6 => (0..3_usize, 1..4_usize).prop_map(|(n, max)| Op::Take(n, max)),
        1 => (0..3_usize, 1..4_usize).prop_map(|(n, max)| Op::TakeBack(n, max)),
        8 => (0..20_usize, how).prop_map(|(n, how)| Op::Settle(n, how)),
        2 => (1..15_u64).prop_map(Op::Advance),
        1 => (-30..30_i64).prop_map(Op::Jump),
        1 => Just(Op::Expire),
        2 => Just(Op::Bury),
        1 => Just(Op::Stand),
        1 => (0..20_usize).prop_map(Op::Remove),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Trim),
        1 => (0..200_usize).prop_map(Op::Sweep),
        2 => (0..100_usize, any::<bool>()).prop_map(|(n, whole)| Op::Copy(n, whole)),
        1 => Just(Op::Restart),
    ]
}

/// What is in the log.
#[derive(Clone, Debug)]
enum Written {
    Message(&'static str, Stored),
    Copy(&'static str, Stored),
    Record(Record),
}

struct Test {
    state: State,
    naive: BTreeMap<SubId, Naive>,
    ordered: BTreeMap<SubId, bool>,
    /// The messages that each topic has.
    kept: [BTreeMap<u64, Stored>; 2],
    log: Vec<Written>,
    /// Entries before this number have been freed.
    home: u64,
    /// Where the copies of messages are.
    places: BTreeMap<u64, u64>,
    /// Where the last snapshot begins in `log`.
    snapshot: usize,
    /// A snapshot that is being written: where it begins, and what it goes on behind.
    standing: Option<(usize, (SubId, u64))>,
    leases: Vec<(SubId, Lease)>,
    dying: Vec<Dying>,
    now: u64,
    wall: u64,
    /// The wall clock as the heart knows it.
    known_wall: u64,
}

fn tick(at: u64) -> Tick {
    Tick::from_nanos(at)
}

fn wanted(n: usize, start: Start, ordered: bool) -> Subscription {
    let (topic, name, _) = SUBSCRIPTIONS[n];
    let mut wanted = Subscription::new(topic, name);
    wanted.start = start;
    wanted.lease = Duration::from_nanos(LEASE);
    wanted.max_attempts = MAX_ATTEMPTS;
    wanted.max_in_flight = MAX_IN_FLIGHT;
    wanted.ordered = ordered;
    wanted
}

fn topic_of(id: SubId) -> usize {
    let (topic, ..) = SUBSCRIPTIONS[id as usize - 1];
    TOPICS.iter().position(|name| *name == topic).unwrap()
}

impl Test {
    fn new() -> Test {
        Test {
            state: State::new(0),
            naive: BTreeMap::new(),
            ordered: BTreeMap::new(),
            kept: Default::default(),
            log: Vec::new(),
            home: 0,
            places: BTreeMap::new(),
            snapshot: 0,
            standing: None,
            leases: Vec::new(),
            dying: Vec::new(),
            now: 0,
            wall: 1_000,
            known_wall: 0,
        }
    }

    fn walltime(&self) -> WallTime {
        WallTime::from_millis(self.wall)
    }

    /// Writes to the log; the number of an entry is its place.
    fn write(&mut self, written: Written) -> u64 {
        self.log.push(written);
        self.log.len() as u64
    }

    fn send(&mut self, topic: usize, priority: usize, due: Option<i64>, expires: Option<i64>, key: u64) {
        let from_now = |by: Option<i64>| by.map_or(0, |by| self.wall.saturating_add_signed(by).max(1));
        let stored = Stored {
            seq: self.log.len() as u64 + 1,
            len: 10,
            priority: PRIORITIES[priority],
            due: from_now(due),
            expires: from_now(expires),
            key,
        };
        self.write(Written::Message(TOPICS[topic], stored));
        let told: Vec<SubId> = self.state.message(TOPICS[topic], stored).collect();
        self.kept[topic].insert(stored.seq, stored);
        for (id, naive) in &mut self.naive {
            if topic_of(*id) == topic {
                let waits = naive.arrive(stored);
                assert_eq!(told.contains(id), !waits, "{id} is told of {stored:?}");
            }
        }
    }

    fn subscribe(&mut self, n: usize, start: Start, ordered: bool) {
        let (topic, name, id) = SUBSCRIPTIONS[n];
        if !self.naive.contains_key(&id) {
            let own = self.log.len() as u64 + 1;
            let from = match start {
                Start::Now => None,
                _ => Some(self.state.oldest_of(topic).unwrap_or(own)),
            };
            let (topic, name) = (topic.to_owned(), name.to_owned());
            self.state.subscribed(id, &topic, &name, from.unwrap_or(own));
            self.write(Written::Record(Record::Subscribed { id, topic, name, from }));
            let naive = Naive::new(from.unwrap_or(own), self.kept[topic_of(id)].values());
            self.naive.insert(id, naive);
        }
        self.configure(n, ordered);
    }

    fn configure(&mut self, n: usize, ordered: bool) {
        let id = SUBSCRIPTIONS[n].2;
        self.ordered.insert(id, ordered);
        self.state.configure(id, &wanted(n, Start::First, ordered));
        self.naive.get_mut(&id).unwrap().configure(ordered);
    }

    /// Takes from both, which must give the same.
    fn take_both(&mut self, n: usize, max: usize) -> Vec<Lease> {
        let id = SUBSCRIPTIONS[n].2;
        let taken = self.state.take(tick(self.now), self.walltime(), id, max);
        assert!(!taken.more, "so few are passed over at once");
        let leases = taken.leases;
        self.known_wall = self.wall;
        let naive = self.naive.get_mut(&id);
        let expected = naive.map_or(Vec::new(), |naive| naive.take(self.now, self.wall, max));
        let got: Vec<_> = leases.iter().map(|lease| (lease.seq, lease.attempt)).collect();
        assert_eq!(got, expected, "taken from {:?}", SUBSCRIPTIONS[n]);
        leases
    }

    fn take(&mut self, n: usize, max: usize) {
        let leases = self.take_both(n, max);
        let id = SUBSCRIPTIONS[n].2;
        for lease in &leases {
            let naive = self.naive.get_mut(&id).unwrap();
            naive.lease(lease.seq, lease.generation, self.now);
            self.leases.push((id, *lease));
        }
        if !leases.is_empty() {
            let attempts = leases.iter().map(|lease| (lease.seq, lease.attempt)).collect();
            self.write(Written::Record(Record::Delivered { id, attempts }));
        }
    }

    fn take_back(&mut self, n: usize, max: usize) {
        let leases = self.take_both(n, max);
        let id = SUBSCRIPTIONS[n].2;
        self.state.unlease(id, &leases);
        for lease in leases {
            self.naive.get_mut(&id).unwrap().take_back(lease.seq);
        }
    }

    fn settle(&mut self, n: usize, how: How) {
        if self.leases.is_empty() {
            return;
        }
        let (id, lease) = self.leases[n % self.leases.len()];
        let (seq, generation, now) = (lease.seq, lease.generation, self.now);
        let naive = self.naive.get_mut(&id).unwrap();
        naive.expire(now);
        let held = naive.holds(seq, generation);
        if held {
            match how {
                How::Ack => naive.done(seq),
                How::AckThrough => naive.done_through(seq),
                How::Retry(after) => naive.retry(seq, now + after),
                How::Extend(by) => naive.set(
                    seq,
                    Phase::Leased {
                        generation,
                        until: now + by,
                    },
                ),
                How::Release => naive.ready(seq),
            }
        }
        let result = self.state.settle(tick(now), id, |standing| match how {
            How::Ack => standing.ack(seq, generation),
            How::AckThrough => standing.ack_through(seq, generation),
            How::Retry(after) => standing.retry(seq, generation, tick(now + after)),
            How::Extend(by) => standing.extend(seq, generation, tick(now + by)),
            How::Release => standing.release(seq, generation),
        });
        assert_eq!(result, if held { Ok(()) } else { Err(Lost) }, "{how:?} of {lease:?}");
        match how {
            How::Ack if held => drop(self.write(Written::Record(Record::Acked { id, seqs: vec![seq] }))),
            How::AckThrough if held => drop(self.write(Written::Record(Record::AckedThrough { id, seq }))),
            _ => {}
        }
    }

    fn expire(&mut self) {
        drop(self.state.expire(tick(self.now), self.walltime()));
        self.known_wall = self.wall;
        for (id, naive) in &mut self.naive {
            naive.expire(self.now);
            naive.mature(self.wall);
            if !naive.clone().take(self.now, self.wall, 1).is_empty() {
                assert!(self.state.has_more(*id), "{id} has something");
            }
        }
        let next = self.state.next_timer(|| (tick(self.now), self.walltime()));
        assert!(next.is_none_or(|next| next > tick(self.now)));
    }

    /// Takes what is dying, and buries the half of it.
    fn bury(&mut self) {
        self.dying.extend(self.state.dying());
        for (n, dying) in std::mem::take(&mut self.dying).into_iter().enumerate() {
            let Dying { id, seq, attempts } = dying;
            let naive = self.naive.get_mut(&id).unwrap();
            let is_dying = naive.phase(seq) == Phase::Dying;
            // Somebody may have settled it with all before another, or it is lost.
            assert!(is_dying || naive.phase(seq) == Phase::Done, "{dying:?}");
            assert!(!is_dying || naive.attempts(seq) == attempts, "{dying:?}");
            if n % 2 == 0 {
                naive.done(seq);
                self.write(Written::Record(Record::Acked { id, seqs: vec![seq] }));
                // It is in the log before it has happened, and a snapshot may come between.
                if self.now.is_multiple_of(2) {
                    self.snapshot(&BTreeSet::from([(id, seq)]));
                }
                self.state.buried(id, seq);
            } else {
                self.state.unbury(tick(self.now), id, seq);
                if is_dying {
                    let until = self.now + 1_000_000_000;
                    naive.set(seq, Phase::Waiting { until });
                }
            }
        }
    }

    fn remove(&mut self, n: usize) {
        let all: Vec<_> = (0..2)
            .flat_map(|topic| self.kept[topic].keys().map(move |seq| (topic, *seq)))
            .collect();
        if all.is_empty() {
            return;
        }
        let (topic, seq) = all[n % all.len()];
        self.write(Written::Record(Record::Moved {
            topic: TOPICS[topic].to_owned(),
            seqs: vec![seq],
        }));
        assert!(self.state.remove(TOPICS[topic], seq));
        self.kept[topic].remove(&seq);
        for (id, naive) in &mut self.naive {
            if topic_of(*id) == topic {
                naive.done(seq);
            }
        }
    }

    fn snapshot(&mut self, under_way: &BTreeSet<(SubId, u64)>) {
        self.snapshot = self.log.len();
        let mut next = Some((0, 0));
        while let Some(after) = next {
            let (standings, rest) = self.state.standings(after, 3, under_way);
            self.log.extend(standings.into_iter().map(Written::Record));
            next = rest;
        }
        self.standing = None;
    }

    /// Writes the next part of a snapshot, while others write between the parts.
    fn stand(&mut self) {
        let Some((start, after)) = self.standing else { return };
        let (standings, rest) = self.state.standings(after, 3, &BTreeSet::new());
        self.log.extend(standings.into_iter().map(Written::Record));
        self.standing = rest.map(|rest| (start, rest));
        if rest.is_none() {
            self.snapshot = start;
        }
    }

    fn trim(&mut self) {
        self.state.trim(|_| false);
        for topic in 0..2 {
            for priority in PRIORITIES {
                while self.trim_first(topic, priority) {}
            }
        }
    }

    /// Forgets the first message of its priority, if nobody wants it.
    fn trim_first(&mut self, topic: usize, priority: Priority) -> bool {
        let mut of_level = self.kept[topic].values().filter(|stored| stored.priority == priority);
        let Some(first) = of_level.next().copied() else {
            return false;
        };
        let naives = self.naive.iter_mut().filter(|(id, _)| topic_of(**id) == topic);
        let mut naives: Vec<&mut Naive> = naives.map(|(_, naive)| naive).collect();
        let settled = !naives.is_empty() && naives.iter().all(|naive| naive.is_past(&first));
        if !settled && (first.expires == 0 || first.expires > self.known_wall) {
            return false;
        }
        if !settled && naives.iter().any(|naive| naive.is_in_use(first.seq)) {
            return false;
        }
        naives.iter_mut().for_each(|naive| naive.give_up(first.seq));
        self.kept[topic].remove(&first.seq);
        true
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Send {
                topic,
                priority,
                due,
                expires,
                key,
            } => self.send(topic, priority, due, expires, key),
            Op::Subscribe(n, start, ordered) => self.subscribe(n, start, ordered),
            Op::Take(n, max) => self.take(n, max),
            Op::Settle(n, how) => self.settle(n, how),
            Op::Advance(by) => (self.now, self.wall) = (self.now + by, self.wall + by),
            Op::Jump(by) => self.wall = self.wall.saturating_add_signed(by),
            Op::Expire => self.expire(),
            Op::Bury => {
                self.expire();
                self.bury();
            }
            Op::TakeBack(n, max) => self.take_back(n, max),
            Op::Remove(n) => self.remove(n),
            Op::Snapshot => self.snapshot(&BTreeSet::new()),
            Op::Stand => self.standing = Some((self.log.len(), (0, 0))),
            Op::Trim => self.trim(),
            Op::Sweep(n) => self.sweep(n),
            Op::Copy(n, whole) => self.copy(n, whole),
            Op::Restart => self.restart(),
        }
        self.stand();
        self.compare();
    }

    /// Both count the same, and have the same to do next.
    fn compare(&self) {
        let stats = self.state.stats();
        for (topic, name, id) in SUBSCRIPTIONS {
            let Some(naive) = self.naive.get(&id) else { continue };
            let stats = &stats[topic].subscriptions[name];
            naive.compare(stats);
            let (oldest, kept) = (naive.oldest(), &self.kept[topic_of(id)]);
            assert_eq!(self.state.oldest_unsettled(id), oldest, "{topic} {name}");
            let lag = oldest.map_or(0, |oldest| kept.range(oldest..).count());
            assert_eq!(stats.lag, lag, "{topic} {name}");
        }
        for (topic, kept) in TOPICS.iter().zip(&self.kept) {
            assert_eq!(self.state.oldest_of(topic), kept.keys().next().copied(), "{topic}");
            let undealt = kept.keys().copied().filter(|seq| {
                let mut naives = SUBSCRIPTIONS.iter().filter(|(of, ..)| of == topic);
                naives.all(|(.., id)| self.naive.get(id).is_none_or(|naive| naive.is_undealt(*seq)))
            });
            assert_eq!(
                self.state.undealt(topic, 0, 1_000),
                undealt.collect::<Vec<_>>(),
                "{topic}"
            );
        }
        let places = self
            .kept
            .iter()
            .flat_map(BTreeMap::keys)
            .map(|seq| match *seq < self.home {
                true => self.place(*seq),
                // Its own place is as good as that of a copy.
                false => *seq,
            });
        assert_eq!(self.state.oldest(u64::MAX), places.min().unwrap_or(u64::MAX));
        for seq in self.kept.iter().flat_map(BTreeMap::keys) {
            assert_eq!(self.state.copies.place(*seq), self.place(*seq));
        }
        let ends = self.naive.values().filter_map(Naive::next_end);
        let dues = self.naive.values().filter_map(Naive::next_due);
        let until = |due: u64| self.now + due.saturating_sub(self.wall).min(1_000) * 1_000_000;
        let next = ends.chain(dues.map(until)).min().map(tick);
        assert_eq!(self.state.next_timer(|| (tick(self.now), self.walltime())), next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_heart_does_what_a_list_does(ops in prop::collection::vec(op(), 1..80)) {
        let mut test = Test::new();
        for op in &ops {
            test.run(op);
        }
    }
}

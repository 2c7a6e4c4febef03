//! Which messages have been sent lately, so that a repetition is told from a message. Plain data; `now` is an argument.
//!
//! An id is remembered for a while after its message, and only so many of them, the latest. While a message is on its
//! way to the disk its id is claimed: a send that fails takes its claim back, so it leaves no id behind.

use crate::env::{Tick, WallTime};
use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

/// A topic and a message's id in it, hashed under the queue's secret to 16 bytes (SipHash-1-3), so that nobody who does
/// not know the secret can find two that look alike, and two that do by chance are not to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u64, u64);

impl Id {
    pub(crate) fn from_words(a: u64, b: u64) -> Id {
        Id(a, b)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0) | u128::from(self.1) << 64).to_le_bytes()
    }
}

/// An id as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) id: Id,
    pub(crate) seq: u64,
    pub(crate) sent: WallTime,
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its message is sent, under this number.
    Sent(u64),
    /// Its message is on its way: under this number, in this append.
    OnItsWay { append: u64, seq: u64 },
}

/// Makes ids.
#[derive(Clone, Copy)]
pub(crate) struct IdHash {
    secret: (u64, u64),
    sip: SipHasher13,
}

impl IdHash {
    fn new(secret: (u64, u64)) -> IdHash {
        let sip = SipHasher13::new_with_keys(secret.0, secret.1);
        IdHash { secret, sip }
    }

    /// What has to be written down beside ids.
    pub(crate) fn secret(&self) -> (u64, u64) {
        self.secret
    }

    /// The id of a message of `topic`.
    pub(crate) fn id(&self, topic: &str, id: &[u8]) -> Id {
        let mut sip = self.sip;
        sip.write(&(topic.len() as u64).to_le_bytes());
        sip.write(topic.as_bytes());
        sip.write(id);
        let hash = sip.finish128();
        Id(hash.h1, hash.h2)
    }
}

/// The ids of the messages sent lately: about 50 bytes of memory each.
pub(crate) struct Dedup {
    pub(crate) hash: IdHash,
    window: Duration,
    limit: usize,
    /// In the order in which they were sent.
    seen: VecDeque<Seen>,
    /// The place of the first of `seen`, counted from the beginning, round after 2^32.
    first: u32,
    /// The place in `seen` of each id, its latest.
    places: HashTable<u32>,
    claims: BTreeMap<Id, (u64, u64)>,
    /// Ids forgotten before their time, for want of room.
    pub(crate) forgotten: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    id: Id,
    seq: u64,
    until: Tick,
    /// The latest number at which the log says so.
    written: u64,
}

impl Dedup {
    /// Remembers ids for `window` after their messages, and at most `limit` of them.
    pub(crate) fn new(secret: (u64, u64), window: Duration, limit: usize) -> Dedup {
        Dedup {
            hash: IdHash::new(secret),
            window,
            limit: limit.min(1 << 31),
            seen: VecDeque::new(),
            first: 0,
            places: HashTable::new(),
            claims: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// Whether any id is remembered at all.
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0 && !self.window.is_zero()
    }

    /// What is known of an id. Nothing, when that was too long ago.
    pub(crate) fn find(&self, now: Tick, id: Id) -> Option<Known> {
        if let Some(&(append, seq)) = self.claims.get(&id) {
            return Some(Known::OnItsWay { append, seq });
        }
        let place = *self.places.find(id.0, |place| self.at(*place).id == id)?;
        let seen = self.at(place);
        (seen.until > now).then_some(Known::Sent(seen.seq))
    }

    /// The message of this id is on its way.
    pub(crate) fn claim(&mut self, id: Id, append: u64, seq: u64) {
        if self.is_on() {
            self.claims.insert(id, (append, seq));
        }
    }

    /// The message of this id, on its way in `append`, did not arrive.
    pub(crate) fn unclaim(&mut self, id: Id, append: u64) {
        if self.claims.get(&id).is_some_and(|(by, _)| *by == append) {
            self.claims.remove(&id);
        }
    }

    /// The message of this id is sent, and the log says so.
    pub(crate) fn sent(&mut self, now: Tick, id: Id, seq: u64) {
        if self.claims.get(&id).is_some_and(|(_, claimed)| *claimed == seq) {
            self.claims.remove(&id);
        }
        self.remember(now, now + self.window, id, seq, seq);
    }

    fn remember(&mut self, now: Tick, until: Tick, id: Id, seq: u64, written: u64) {
        if until <= now || self.limit == 0 {
            return;
        }
        while self.seen.front().is_some_and(|oldest| oldest.until <= now) {
            self.forget_first();
        }
        if self.seen.len() == self.limit {
            self.forget_first();
            self.forgotten += 1;
        }
        let place = self.first.wrapping_add(self.seen.len() as u32);
        self.seen.push_back(Seen {
            id,
            seq,
            until,
            written,
        });
        let (seen, first) = (&self.seen, self.first);
        let at = |place: u32| &seen[place.wrapping_sub(first) as usize];
        match self.places.find_mut(id.0, |known| at(*known).id == id) {
            Some(known) => *known = place,
            None => drop(self.places.insert_unique(id.0, place, |known| at(*known).id.0)),
        }
    }

    fn forget_first(&mut self) {
        let Some(oldest) = self.seen.front() else { return };
        let place = self.first;
        // A later message of the same id may have taken its place.
        if let Ok(found) = self.places.find_entry(oldest.id.0, |known| *known == place) {
            found.remove();
        }
        self.seen.pop_front();
        self.first = place.wrapping_add(1);
    }

    fn at(&self, place: u32) -> &Seen {
        &self.seen[place.wrapping_sub(self.first) as usize]
    }

    /// The ids that the log would forget if everything before number `oldest` were gone from it.
    pub(crate) fn fading(&self, now: Tick, wall: WallTime, oldest: u64) -> Vec<Noted> {
        let fading = self.seen.iter();
        let fading = fading.filter(|seen| seen.written < oldest && seen.until > now);
        let noted = |seen: &Seen| {
            let age = self.window.saturating_sub(seen.until - now);
            let sent = wall.as_millis().saturating_sub(age.as_millis() as u64);
            Noted {
                id: seen.id,
                seq: seen.seq,
                sent: WallTime::from_millis(sent),
            }
        };
        fading.map(noted).collect()
    }

    /// What [`fading`](Dedup::fading) named is in the log again, at number `at` or later.
    pub(crate) fn written(&mut self, oldest: u64, at: u64) {
        let faded = self.seen.iter_mut().filter(|seen| seen.written < oldest);
        faded.for_each(|seen| seen.written = at);
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup")
            .field("seen", &self.seen.len())
            .field("claims", &self.claims.len())
            .finish_non_exhaustive()
    }
}

/// An id as a message says it.
#[derive(Debug)]
struct Plain {
    topic: Box<str>,
    id: Box<[u8]>,
    seq: u64,
    sent: WallTime,
}

/// Gathers the ids that a log holds while it is read. Their secret may come behind them.
#[derive(Debug)]
pub(crate) struct Gather {
    window: Duration,
    limit: usize,
    wall: WallTime,
    secret: Option<(u64, u64)>,
    /// As found in messages, with topic and id.
    plain: VecDeque<Plain>,
    /// As found in records of ids, with the number of the record.
    noted: Vec<(Noted, u64)>,
}

impl Gather {
    /// For a queue opened at `wall`.
    pub(crate) fn new(wall: WallTime, window: Duration, limit: usize) -> Gather {
        Gather {
            window,
            limit,
            wall,
            secret: None,
            plain: VecDeque::new(),
            noted: Vec::new(),
        }
    }

    /// The log has a message with an id.
    pub(crate) fn message(&mut self, topic: &str, id: &[u8], seq: u64, sent: WallTime) {
        if self.wall - sent >= self.window || self.limit == 0 {
            return;
        }
        if self.plain.len() == self.limit {
            self.plain.pop_front();
        }
        let (topic, id) = (topic.into(), id.into());
        self.plain.push_back(Plain { topic, id, seq, sent });
    }

    /// The log has a record of ids, at number `at`.
    pub(crate) fn record(&mut self, secret: (u64, u64), ids: &[Noted], at: u64) {
        self.secret = Some(secret);
        self.noted.extend(ids.iter().map(|noted| (*noted, at)));
    }

    /// Everything has been read. `fresh` is the secret of a log that has none yet.
    pub(crate) fn finish(self, now: Tick, fresh: (u64, u64)) -> Dedup {
        let mut dedup = Dedup::new(self.secret.unwrap_or(fresh), self.window, self.limit);
        let plain = self.plain.iter().map(|plain| {
            let (id, seq, sent) = (dedup.hash.id(&plain.topic, &plain.id), plain.seq, plain.sent);
            (Noted { id, seq, sent }, seq)
        });
        let mut all: Vec<_> = plain.chain(self.noted).collect();
        // The same message may be in several records; the latest is the one to last.
        all.sort_by_key(|(noted, at)| (noted.seq, *at));
        all.dedup_by(|(next, at), (noted, last)| {
            let same = next.seq == noted.seq && next.id == noted.id;
            *last = if same { *at } else { *last };
            same
        });
        let surplus = all.len().saturating_sub(self.limit);
        for (noted, at) in all.drain(surplus..) {
            // A clock that was set back makes nobody older than they are.
            let age = self.wall - noted.sent;
            dedup.remember(now, now + self.window.saturating_sub(age), noted.id, noted.seq, at);
        }
        dedup
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: u64 = 10;
    const LIMIT: usize = 4;

    #[derive(Clone, Debug)]
    enum Op {
        /// A send of the id, whose append is still open.
        Begin(u8),
        /// The oldest open append is done, or failed together with all that are behind it.
        End(bool),
        Pass(u64),
        /// The segments before a number are freed, once their ids are written anew.
        Free(u64),
        Restart,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..8_u8).prop_map(Op::Begin),
            5 => prop::bool::weighted(0.8).prop_map(Op::End),
            3 => (1..6_u64).prop_map(Op::Pass),
            1 => (0..10_u64).prop_map(Op::Free),
            1 => Just(Op::Restart),
        ]
    }

    /// The dumbest correct thing: every message ever sent, and the log.
    #[derive(Default)]
    struct Naive {
        sent: Vec<(u8, u64, u64)>,
        open: Vec<(u8, u64)>,
        log: Vec<(u64, Entry)>,
        now: u64,
        next: u64,
    }

    enum Entry {
        Message(u8, u64),
        Ids((u64, u64), Vec<Noted>),
    }

    impl Naive {
        fn find(&self, id: u8) -> Option<(u64, bool)> {
            if let Some((_, seq)) = self.open.iter().find(|(open, _)| *open == id) {
                return Some((*seq, false));
            }
            let alive = |(known, _, at): &&(u8, u64, u64)| *known == id && at + WINDOW > self.now;
            let latest = &self.sent[self.sent.len().saturating_sub(LIMIT)..];
            latest.iter().rfind(alive).map(|(_, seq, _)| (*seq, true))
        }

        fn tick(&self) -> Tick {
            Tick::ZERO + Duration::from_millis(self.now)
        }

        fn wall(&self) -> WallTime {
            WallTime::from_millis(1_000_000 + self.now)
        }

        fn reopen(&self) -> Dedup {
            let mut gather = Gather::new(self.wall(), Duration::from_millis(WINDOW), LIMIT);
            for (seq, entry) in &self.log {
                match entry {
                    Entry::Message(id, at) => {
                        gather.message("t", &[*id], *seq, WallTime::from_millis(1_000_000 + at));
                    }
                    Entry::Ids(secret, ids) => gather.record(*secret, ids, *seq),
                }
            }
            gather.finish(self.tick(), (self.next, 7))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn ids_are_known_as_long_as_they_have_to_be(ops in prop::collection::vec(op(), 1..60)) {
            let mut naive = Naive { next: 1, ..Naive::default() };
            let mut dedup = naive.reopen();
            for op in ops {
                match op {
                    Op::Begin(id) => {
                        let (seq, hash) = (naive.next, dedup.hash.id("t", &[id]));
                        if naive.find(id).is_none() {
                            dedup.claim(hash, seq, seq);
                            naive.open.push((id, seq));
                            naive.next += 1;
                        }
                    }
                    Op::End(true) => if !naive.open.is_empty() {
                        let (id, seq) = naive.open.remove(0);
                        dedup.sent(naive.tick(), dedup.hash.id("t", &[id]), seq);
                        naive.sent.push((id, seq, naive.now));
                        naive.log.push((seq, Entry::Message(id, naive.now)));
                    },
                    Op::End(false) => for (id, seq) in naive.open.drain(..).rev() {
                        dedup.unclaim(dedup.hash.id("t", &[id]), seq);
                    },
                    Op::Pass(by) => naive.now += by,
                    Op::Free(back) => {
                        let oldest = naive.next.saturating_sub(back);
                        let ids = dedup.fading(naive.tick(), naive.wall(), oldest);
                        dedup.written(oldest, naive.next);
                        naive.log.push((naive.next, Entry::Ids(dedup.hash.secret(), ids)));
                        naive.next += 1;
                        naive.log.retain(|(seq, _)| *seq >= oldest);
                    }
                    Op::Restart => {
                        naive.open.clear();
                        dedup = naive.reopen();
                    }
                }
                prop_assert!(dedup.seen.len() <= LIMIT);
                prop_assert!(dedup.places.len() <= dedup.seen.len());
                for id in 0..8 {
                    let found = dedup.find(naive.tick(), dedup.hash.id("t", &[id])).map(|known| match known {
                        Known::Sent(seq) => (seq, true),
                        Known::OnItsWay { seq, .. } => (seq, false),
                    });
                    prop_assert_eq!(found, naive.find(id), "id {} at {}", id, naive.now);
                }
            }
        }
    }

    #[test]
    fn topics_have_ids_of_their_own() {
        let dedup = Dedup::new((1, 2), Duration::from_secs(1), 10);
        assert_ne!(dedup.hash.id("a", b"bc"), dedup.hash.id("ab", b"c"));
        assert_ne!(
            dedup.hash.id("a", b"b"),
            Dedup::new((1, 3), Duration::from_secs(1), 10).hash.id("a", b"b")
        );
    }

    #[test]
    fn a_clock_that_jumps_forgets_nothing_while_the_queue_is_open() {
        let at = |secs| Tick::ZERO + Duration::from_secs(secs);
        let mut dedup = Dedup::new((1, 2), Duration::from_secs(60), 10);
        let id = dedup.hash.id("t", b"x");
        dedup.sent(at(0), id, 5);
        assert_eq!(dedup.find(at(59), id), Some(Known::Sent(5)));
        assert_eq!(dedup.find(at(60), id), None);
        // Opened again by a clock that was set back by an hour: the whole window from now on.
        let mut gather = Gather::new(WallTime::from_millis(0), Duration::from_secs(60), 10);
        gather.message("t", b"x", 5, WallTime::from_millis(3_600_000));
        let dedup = gather.finish(at(0), (1, 2));
        assert_eq!(dedup.find(at(59), id), Some(Known::Sent(5)));
        assert_eq!(dedup.find(at(60), id), None);
    }

    #[test]
    fn without_room_or_time_nothing_is_remembered() {
        for (window, limit) in [(0, 10), (10, 0)] {
            let mut dedup = Dedup::new((1, 2), Duration::from_secs(window), limit);
            let id = dedup.hash.id("t", b"x");
            dedup.claim(id, 1, 1);
            assert_eq!(dedup.find(Tick::ZERO, id), None);
            dedup.sent(Tick::ZERO, id, 1);
            assert_eq!(dedup.find(Tick::ZERO, id), None);
        }
    }
}

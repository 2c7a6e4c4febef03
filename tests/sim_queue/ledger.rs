//! What was attempted, acknowledged and delivered, and what may be missing.

use super::life::Sent;
use outgrow::env::{Rng, WallTime};
use outgrow::queue::{Durability, Effect, Error, Lost, OpenReport, QueueStats, RawDelivery, Receipt, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

/// A message as the ledger names it: the payload says topic and number.
pub(crate) type Id = (String, u64);
/// A subscription: topic and name.
pub(crate) type Place = (&'static str, &'static str);

/// What a run is allowed to do that others are not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Bits flip.
    pub(crate) rot: bool,
    /// Acknowledgements of a life may be forgotten with it.
    pub(crate) weak_acks: bool,
    /// The oldest messages may be dropped for want of room.
    pub(crate) drops: bool,
}

impl Allowed {
    pub(crate) fn new(rot: bool, acks: Durability, drops: bool) -> Allowed {
        let weak_acks = acks != Durability::Disk;
        Allowed { rot, weak_acks, drops }
    }
}

pub(crate) struct Ledger {
    allowed: Allowed,
    /// The life that is running.
    life: u32,
    last_id: u64,
    attempted: BTreeSet<Id>,
    refused: BTreeSet<Id>,
    /// Sent for sure, with number and life.
    acked: BTreeMap<Id, (u64, u32)>,
    /// The numbers that a message was seen under; one, unless it was redriven.
    seqs: BTreeMap<Id, BTreeSet<u64>>,
    delivered: BTreeSet<(Place, Id)>,
    /// Settled for sure: in which life, and which attempt did it.
    done: BTreeMap<(Place, u64), (u32, u32)>,
    /// Made dead letters for sure, and in which life.
    condemned: BTreeMap<(Place, u64), u32>,
    /// Up to where everything was settled at once.
    through: BTreeMap<Place, u64>,
    /// Dead letters seen: whose they are and of which number, with their own number.
    dead: BTreeMap<(String, u64), u64>,
    dead_ids: BTreeSet<(String, Id)>,
    /// Those that may have expired.
    mortal: BTreeSet<Id>,
    /// Not to be delivered for the first time before this.
    due: BTreeMap<Id, WallTime>,
    /// Of this life's deliveries where order matters: numbers and attempts, by place and key.
    order: BTreeMap<(Place, Vec<u8>), BTreeMap<u64, u32>>,
    /// What has ids, and may be sent again in any later life.
    named: Vec<Sent>,
    /// Dead letters have been sent again.
    redriven: bool,
    /// Numbers that the queue has reported as lost.
    lost: Vec<Range<u64>>,
    /// Lives whose last writes damage may have taken unseen.
    doubtful: BTreeSet<u32>,
    pub(crate) counts: Counts,
}

/// How often a run did what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) duplicates: u64,
    pub(crate) delayed: u64,
    pub(crate) ordered: u64,
    pub(crate) through: u64,
    pub(crate) redriven: u64,
    pub(crate) dropped: u64,
    pub(crate) rewritten: u64,
    pub(crate) set_back: u64,
    pub(crate) large: u64,
}

impl Ledger {
    pub(crate) fn new(allowed: Allowed) -> Ledger {
        Ledger {
            allowed,
            life: 0,
            last_id: 0,
            attempted: BTreeSet::new(),
            refused: BTreeSet::new(),
            acked: BTreeMap::new(),
            seqs: BTreeMap::new(),
            delivered: BTreeSet::new(),
            done: BTreeMap::new(),
            condemned: BTreeMap::new(),
            through: BTreeMap::new(),
            dead: BTreeMap::new(),
            dead_ids: BTreeSet::new(),
            mortal: BTreeSet::new(),
            due: BTreeMap::new(),
            order: BTreeMap::new(),
            named: Vec::new(),
            redriven: false,
            lost: Vec::new(),
            doubtful: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Takes what an opening reports.
    pub(crate) fn opened(&mut self, report: &OpenReport) {
        let sound = report.lost.is_empty() && report.damaged.is_empty();
        assert!(
            self.allowed.rot || sound,
            "no bit was flipped, yet it reports damage: {report:?}"
        );
        self.lost.extend(report.lost.iter().map(|lost| lost.seqs.clone()));
        if report.torn_bytes > 0 || !sound {
            self.doubtful.insert(self.life);
        }
        // Without its header, and without another segment to tell, nobody knows which numbers a segment held.
        if report.damaged.iter().any(|damage| damage.contains(" bytes 0..")) {
            self.doubtful.extend(0..=self.life);
        }
        self.life += 1;
        self.order.clear();
    }

    /// Takes what a life has counted when it ends.
    pub(crate) fn took(&mut self, stats: &QueueStats, lost: &[Lost]) {
        let messages = stats.lost;
        assert!(
            self.allowed.rot || messages == 0,
            "no bit was flipped, yet {messages} messages are lost"
        );
        assert_eq!(messages, lost.len() as u64, "each of them is told");
        self.lost.extend(lost.iter().map(|lost| lost.seqs.clone()));
        self.counts.dropped += stats.dropped;
        self.counts.rewritten += stats.rewritten;
    }

    /// A fresh message of a topic.
    pub(crate) fn attempt(&mut self, topic: &str) -> String {
        self.last_id += 1;
        self.attempted.insert((topic.to_owned(), self.last_id));
        format!("{topic}/{}", self.last_id)
    }

    /// What was wished for the message of an attempt.
    pub(crate) fn wished(&mut self, payload: &str, due: Option<WallTime>, mortal: bool) {
        let id = parse(payload.as_bytes());
        self.counts.delayed += u64::from(due.is_some());
        due.map(|due| self.due.insert(id.clone(), due));
        if mortal {
            self.mortal.insert(id);
        }
    }

    /// A message is sent again, to be delivered at `due` if it is not there from the first time. The clock may have been set
    /// back since.
    pub(crate) fn due_again(&mut self, payload: &str, due: WallTime) {
        if let Some(first) = self.due.get_mut(&parse(payload.as_bytes())) {
            *first = due.min(*first);
        }
    }

    pub(crate) fn sent(&mut self, payloads: &[String], again: bool, result: &Result<Vec<Receipt>>) {
        let ids = payloads.iter().map(|payload| parse(payload.as_bytes()));
        match result {
            Ok(receipts) => {
                assert_eq!(receipts.len(), payloads.len());
                for (id, receipt) in ids.zip(receipts) {
                    assert!(again || !receipt.duplicate, "{id:?} is told to be a repetition");
                    self.counts.duplicates += u64::from(receipt.duplicate);
                    self.refused.remove(&id);
                    self.seen(&id, receipt.seq);
                    // A repetition says nothing new, unless the first was lost.
                    let first = self.acked.get(&id).is_some_and(|(seq, _)| *seq == receipt.seq);
                    if !first {
                        self.acked.insert(id, (receipt.seq, self.life));
                    }
                }
            }
            // One that is sent again may be there from the first time.
            Err(error) if error.effect() == Effect::None && !again => self.refused.extend(ids),
            Err(_) => {}
        }
    }

    /// A message will be sent again: its first send may yet arrive, whatever it said.
    pub(crate) fn in_doubt(&mut self, payload: &str) {
        self.refused.remove(&parse(payload.as_bytes()));
    }

    /// What has ids was sent, or may have been.
    pub(crate) fn name(&mut self, sent: Sent) {
        self.named.push(sent);
    }

    /// Something with ids that was sent before, in this life or an earlier one.
    pub(crate) fn repeat(&self, rng: &mut Rng) -> Option<Sent> {
        (!self.named.is_empty()).then(|| self.named[rng.index(self.named.len())].clone())
    }

    /// The wall clock was set back while the queue runs: what was on its way goes by the time from before, or after.
    pub(crate) fn set_back(&mut self, by: Duration) {
        self.counts.set_back += u64::from(!by.is_zero());
        for due in self.due.values_mut() {
            *due = WallTime::from_millis(due.as_millis().saturating_sub(by.as_millis() as u64));
        }
    }

    /// A message has one number, however often it is sent.
    fn seen(&mut self, id: &Id, seq: u64) {
        let seqs = self.seqs.entry(id.clone()).or_default();
        seqs.insert(seq);
        let once = seqs.len() == 1 || self.redriven || self.allowed.rot;
        assert!(once, "{id:?} is there more than once: {seqs:?}");
    }

    /// A message is handed to a consumer, by a clock that says `wall`.
    pub(crate) fn delivered(&mut self, place: Place, raw: &RawDelivery, wall: WallTime, max: u32) -> Id {
        let (seq, attempt) = (raw.token.seq, raw.attempt);
        let id = parse(&raw.message.payload);
        self.counts.large += u64::from(raw.message.payload.len() > LARGE);
        assert!(self.attempted.contains(&id), "{id:?} was never sent");
        assert!(
            !self.refused.contains(&id),
            "{id:?} was refused without effect, and is delivered"
        );
        assert_eq!(id.0, place.0, "a message of another topic");
        assert!((1..=max).contains(&attempt), "attempt {attempt} of {id:?}");
        self.seen(&id, seq);
        let due = self.due.get(&id).copied().unwrap_or_default();
        assert!(
            wall >= due || attempt > 1 || self.redriven,
            "{id:?} comes at {wall:?}, before {due:?}"
        );
        // An earlier attempt, whose lease had ended, may reach its consumer late; after a restart nothing may.
        let forgets = self.allowed.rot || self.allowed.weak_acks;
        let again = self.done.get(&(place, seq)).is_some_and(|&(life, settled)| {
            if life == self.life {
                attempt >= settled
            } else {
                !forgets
            }
        });
        assert!(
            self.allowed.rot || !again,
            "{id:?} was settled for good at {place:?}, and is delivered again"
        );
        self.delivered.insert((place, id.clone()));
        id
    }

    /// A message of an ordered subscription is handed to a consumer: all before it of its key are settled.
    pub(crate) fn in_order(&mut self, place: Place, raw: &RawDelivery, max: u32) {
        let Some(key) = &raw.message.key else { return };
        self.counts.ordered += 1;
        let (seq, attempt) = (raw.token.seq, raw.attempt);
        let seen = self.order.entry((place, key.to_vec())).or_default();
        let later = seen.last_key_value().is_some_and(|(last, _)| *last > seq);
        let known = seen.entry(seq).or_insert(0);
        // One whose lease ended on the way may arrive late.
        let late = attempt <= *known || attempt == max;
        assert!(!later || late, "number {seq} of key {key:?} comes after a later one");
        *known = attempt.max(*known);
    }

    pub(crate) fn settled(&mut self, place: Place, id: &Id, (seq, attempt): (u64, u32), result: &Result<()>) {
        match result {
            Ok(()) => drop(self.done.insert((place, seq), (self.life, attempt))),
            Err(Error::LeaseLost { .. } | Error::Poisoned | Error::Closed | Error::Full { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("settling {id:?} at {place:?}: {error}"),
        }
    }

    /// A delivery was made a dead letter, if the result says so.
    pub(crate) fn condemned(&mut self, place: Place, seq: u64, result: &Result<()>) {
        if result.is_ok() {
            self.condemned.insert((place, seq), self.life);
        }
    }

    /// Whether messages of a place may go before anybody settles them.
    pub(crate) fn may_drop(&self, place: Place) -> bool {
        self.allowed.drops || place == super::life::LIMITED
    }

    /// Everything up to a number may be settled from now on.
    pub(crate) fn through(&mut self, place: Place, seq: u64) {
        self.counts.through += 1;
        let through = self.through.entry(place).or_default();
        *through = seq.max(*through);
    }

    /// Dead letters may be sent again from now on.
    pub(crate) fn redrive(&mut self) {
        self.redriven = true;
    }

    /// A dead letter of message number `of`: at most one for each message and subscription.
    pub(crate) fn buried(&mut self, subscription: String, payload: &[u8], of: u64, seq: u64) {
        let id = parse(payload);
        assert!(self.attempted.contains(&id), "{id:?} was never sent");
        self.dead_ids.insert((subscription.clone(), id.clone()));
        let first = *self.dead.entry((subscription, of)).or_insert(seq);
        assert!(
            self.allowed.rot || first == seq,
            "two dead letters for {id:?}: {first} and {seq}"
        );
    }

    /// Everything acknowledged was delivered to every subscription, or became its dead letter.
    pub(crate) fn finish(&self) {
        if self.allowed.drops {
            return;
        }
        // With weak ones a life's last may be forgotten; one that is sent again is a dead letter no more.
        if !(self.allowed.rot || self.allowed.weak_acks || self.redriven) {
            for ((place, seq), life) in &self.condemned {
                let buried = self.dead.contains_key(&(place.1.to_owned(), *seq));
                assert!(
                    buried,
                    "the dead letter of number {seq} of {place:?}, made in life {life}, is lost"
                );
            }
        }
        let bound = super::life::LIMITED.0;
        let mut untold = BTreeSet::new();
        for (id, (seq, life)) in self.acked.iter().filter(|(id, _)| id.0 != bound) {
            for place in super::life::SUBSCRIPTIONS.into_iter().filter(|place| place.0 == id.0) {
                let seen = self.delivered.contains(&(place, id.clone()));
                let dead = self.dead_ids.contains(&(place.1.to_owned(), id.clone()));
                let through = self.through.get(&place).is_some_and(|through| seq <= through);
                let over = through || self.mortal.contains(id);
                let told = self.lost.iter().any(|lost| lost.contains(seq)) || self.doubtful.contains(life);
                if !(seen || dead || over || (self.allowed.rot && told)) {
                    untold.insert((id, seq));
                }
            }
        }
        assert!(untold.is_empty(), "lost and not told: {untold:?}");
    }
}

/// What has more bytes lies in pieces.
pub(crate) const LARGE: usize = 1 << 20;

fn parse(payload: &[u8]) -> Id {
    let text = std::str::from_utf8(payload).expect("what was sent is text");
    let (id, padding) = text.split_once(' ').unwrap_or((text, ""));
    assert!(padding.bytes().all(|byte| byte == b'.'), "wrong bytes in {id}");
    let (topic, number) = id.split_once('/').expect("what was sent names its topic");
    (topic.to_owned(), number.parse().expect("what was sent has a number"))
}

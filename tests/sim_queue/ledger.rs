//! What was attempted, acknowledged and delivered, and what may be missing.

use outgrow::queue::{Effect, Error, OpenReport, Receipt, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A message as the ledger names it: the payload says topic and number.
pub(crate) type Id = (String, u64);
/// A subscription: topic and name.
pub(crate) type Place = (&'static str, &'static str);

#[derive(Default)]
pub(crate) struct Ledger {
    rotten: bool,
    /// The life that is running.
    life: u32,
    last_id: u64,
    attempted: BTreeSet<Id>,
    refused: BTreeSet<Id>,
    /// Sent for sure, with number and life.
    acked: BTreeMap<Id, (u64, u32)>,
    delivered: BTreeSet<(Place, Id)>,
    /// Settled for sure: in which life, and which attempt did it.
    done: BTreeMap<(Place, Id), (u32, u32)>,
    /// Dead letters seen: whose they are, with their number there.
    dead: BTreeMap<(String, Id), u64>,
    /// Numbers that the queue has reported as lost.
    lost: Vec<Range<u64>>,
    /// Lives whose last writes damage may have taken unseen.
    doubtful: BTreeSet<u32>,
}

impl Ledger {
    pub(crate) fn new(rotten: bool) -> Ledger {
        Ledger {
            rotten,
            ..Ledger::default()
        }
    }

    /// Takes what an opening reports.
    pub(crate) fn opened(&mut self, report: &OpenReport) {
        let sound = report.lost.is_empty() && report.damaged.is_empty();
        assert!(
            self.rotten || sound,
            "no bit was flipped, yet it reports damage: {report:?}"
        );
        self.lost.extend(report.lost.iter().map(|lost| lost.seqs.clone()));
        if report.torn_bytes > 0 || !sound {
            self.doubtful.insert(self.life);
        }
        self.life += 1;
    }

    /// A fresh message of a topic.
    pub(crate) fn attempt(&mut self, topic: &str) -> String {
        self.last_id += 1;
        self.attempted.insert((topic.to_owned(), self.last_id));
        format!("{topic}/{}", self.last_id)
    }

    pub(crate) fn sent(&mut self, payloads: Vec<String>, result: &Result<Vec<Receipt>>) {
        let ids = payloads.iter().map(|payload| parse(payload.as_bytes()));
        match result {
            Ok(receipts) => {
                assert_eq!(receipts.len(), payloads.len());
                let life = self.life;
                self.acked
                    .extend(ids.zip(receipts).map(|(id, receipt)| (id, (receipt.seq, life))));
            }
            Err(error) if error.effect() == Effect::None => self.refused.extend(ids),
            Err(_) => {}
        }
    }

    pub(crate) fn delivered(&mut self, place: Place, payload: &[u8], attempt: u32, max: u32) -> Id {
        let id = parse(payload);
        assert!(self.attempted.contains(&id), "{id:?} was never sent");
        assert!(
            !self.refused.contains(&id),
            "{id:?} was refused without effect, and is delivered"
        );
        assert_eq!(id.0, place.0, "a message of another topic");
        assert!((1..=max).contains(&attempt), "attempt {attempt} of {id:?}");
        // An earlier attempt, whose lease had ended, may reach its consumer late; after a restart nothing may.
        let again = self
            .done
            .get(&(place, id.clone()))
            .is_some_and(|&(life, settled)| life != self.life || attempt >= settled);
        assert!(
            self.rotten || !again,
            "{id:?} was settled for good at {place:?}, and is delivered again"
        );
        self.delivered.insert((place, id.clone()));
        id
    }

    pub(crate) fn settled(&mut self, place: Place, id: &Id, attempt: u32, result: &Result<()>) {
        match result {
            Ok(()) => drop(self.done.insert((place, id.clone()), (self.life, attempt))),
            Err(Error::LeaseLost { .. } | Error::Poisoned | Error::Closed | Error::Full { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("settling {id:?} at {place:?}: {error}"),
        }
    }

    /// A dead letter: at most one for each message and subscription.
    pub(crate) fn buried(&mut self, subscription: String, payload: &[u8], seq: u64) {
        let id = parse(payload);
        assert!(self.attempted.contains(&id), "{id:?} was never sent");
        let first = *self.dead.entry((subscription, id.clone())).or_insert(seq);
        assert!(
            self.rotten || first == seq,
            "two dead letters for {id:?}: {first} and {seq}"
        );
    }

    /// Everything acknowledged was delivered to every subscription, or became its dead letter.
    pub(crate) fn finish(&self) {
        for (id, (seq, life)) in &self.acked {
            for place in super::life::SUBSCRIPTIONS.into_iter().filter(|place| place.0 == id.0) {
                let seen = self.delivered.contains(&(place, id.clone()));
                let dead = self.dead.contains_key(&(place.1.to_owned(), id.clone()));
                let told = self.lost.iter().any(|lost| lost.contains(seq)) || self.doubtful.contains(life);
                assert!(
                    seen || dead || (self.rotten && told),
                    "{id:?}, number {seq}, is lost to {place:?}"
                );
            }
        }
    }
}

fn parse(payload: &[u8]) -> Id {
    let text = std::str::from_utf8(payload).expect("what was sent is text");
    let (id, padding) = text.split_once(' ').unwrap_or((text, ""));
    assert!(padding.bytes().all(|byte| byte == b'.'), "wrong bytes in {id}");
    let (topic, number) = id.split_once('/').expect("what was sent names its topic");
    (topic.to_owned(), number.parse().expect("what was sent has a number"))
}

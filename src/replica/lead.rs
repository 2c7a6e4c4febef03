//! What a node does as the primary.

use super::actor::{Actor, Event, Stop, answer, gone};
use super::entry::Entry;
use super::node::{Permit, Promoted, Refused, Write, WriteAnswer};
use super::primary::Primary;
use super::ship::Peer;
use super::{Ack, MAX_RECORD};
use crate::env::Tick;
use crate::store::{Change, Changed, Effect, Engine, Error, Position, Receipt, Record, Result, Token};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::FutureExt;
use std::collections::VecDeque;

/// Bytes that may wait for the primary's disk before writes are refused: half of what the log takes.
const MAX_UNWRITTEN: usize = 8 << 20;

/// A node's office as the primary.
pub(super) struct Lead {
    pub(super) heart: Primary<Waiter>,
    /// The other nodes, in their places.
    pub(super) peers: Vec<Option<Peer>>,
    /// Records of this turn that the log has not been given yet.
    unwritten: Vec<Entry>,
    /// Appends that are not on disk, with their last records and sizes.
    writing: VecDeque<(u64, usize)>,
    waiting_bytes: usize,
    /// What the gate was told to be committed.
    announced: u64,
    /// Who waits for this node to be in office.
    office: Option<oneshot::Sender<Promoted>>,
}

/// Somebody who waits for a write.
pub(super) struct Waiter {
    reply: oneshot::Sender<WriteAnswer>,
    outcome: Result<Receipt>,
    _permit: Option<Permit>,
}

impl Waiter {
    fn done(self) {
        answer(self.reply, self.outcome.map_err(Refused::Failed));
    }

    /// It will never be known; for one that was refused anyway, nothing has happened.
    fn give_up(self, why: impl FnOnce(Effect) -> Refused) {
        let effect = if self.outcome.is_ok() {
            Effect::Unknown
        } else {
            Effect::None
        };
        answer(self.reply, Err(why(effect)));
    }
}

impl Lead {
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.heart.deadline()
    }
}

impl Actor {
    /// Takes office: the epoch's first record commits everything before it.
    pub(super) fn on_promote(&mut self, epoch: u64, reply: oneshot::Sender<Promoted>) {
        if self.accept.promised() != epoch || !self.accept.voter() || self.lead.is_some() {
            // Dropping the reply says no.
            return;
        }
        let start = self.accept.last().seq + 1;
        let nodes = self.meta.nodes.len();
        let peer = |node| (node != self.me).then(|| Peer::new(start));
        self.lead = Some(Lead {
            heart: Primary::new(epoch, self.me, nodes, start, self.accept.commit()),
            peers: (0..nodes).map(peer).collect(),
            unwritten: vec![Entry::new(Position::new(epoch, start), Record::default())],
            writing: VecDeque::new(),
            waiting_bytes: 0,
            announced: 0,
            office: Some(reply),
        });
        self.tell();
    }

    /// Leaves office, if this node is the primary. Those who wait learn that nobody knows.
    pub(super) fn step_down(&mut self, why: &str) {
        if let Some(lead) = self.lead.take() {
            // What it has shown may not survive.
            self.live.set_serving(false);
            self.void_appends();
            lead.heart
                .step_down()
                .for_each(|waiter| waiter.give_up(|effect| gone(why, effect)));
            self.tell();
        }
    }

    /// Carries out a batch, or refuses it.
    pub(super) fn commit(&mut self, write: Write) {
        let Write {
            batch,
            ack,
            reply,
            permit,
        } = write;
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.heart.is_established()) else {
            return answer(reply, Err(Refused::NotPrimary(batch)));
        };
        let version = lead.heart.next_version(self.live.engine.version());
        let engine = |key: &[u8]| self.live.engine.get(key);
        let entry = lead.has_room(ack, self.options.max_exposed).and_then(|()| {
            let record = lead.heart.resolve(&batch, version, self.env.wall(), engine)?;
            let entry = Entry::new(lead.heart.next(), record);
            if entry.bytes.len() > MAX_RECORD {
                let what = format!("a batch of {} bytes; {MAX_RECORD} are the most", entry.bytes.len());
                return Err(Error::Invalid { what });
            }
            Ok(entry)
        });
        let deadline = self.env.now() + self.options.write_timeout;
        let (log, seq) = (self.meta.log, lead.heart.last());
        let waiter = |outcome| Waiter {
            reply,
            outcome,
            _permit: Some(permit),
        };
        match entry {
            Ok(entry) => {
                let receipt = Receipt::new(version, Token::of(log, entry.at));
                lead.append(entry, version, ack);
                lead.heart.wait(seq + 1, ack, deadline, waiter(Ok(receipt)));
            }
            // What it was refused for may be a write that nobody knows of yet: the refusal waits until it counts.
            Err(refused @ (Error::Conflict { .. } | Error::Invalid { .. })) => {
                lead.heart.wait(seq, Ack::Majority, deadline, waiter(Err(refused)));
            }
            Err(refused) => waiter(Err(refused)).done(),
        }
    }

    /// Writes what `keys` hold once more: whoever saw a write that was lost is told what holds instead, under a version
    /// above it.
    pub(super) fn restate(&mut self, keys: &[Bytes], reply: oneshot::Sender<WriteAnswer>) -> Result<()> {
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.heart.is_established()) else {
            return Ok(());
        };
        let version = lead.heart.next_version(self.live.engine.version());
        let deadline = self.env.now() + self.options.write_timeout;
        let mut rest = keys;
        let mut waits = Some(reply);
        loop {
            // A record that is too large is no record, so they go in several.
            let mut changes = Vec::new();
            let mut bytes = 0;
            while let [key, after @ ..] = rest {
                let entry = self.live.engine.get(key)?;
                bytes += key.len() + entry.as_ref().map_or(0, |entry| entry.value.len()) + 32;
                if !changes.is_empty() && bytes > MAX_RECORD {
                    break;
                }
                rest = after;
                let to = match entry {
                    Some(entry) => Changed::Set(crate::store::Entry { version, ..entry }),
                    None => Changed::Removed(version),
                };
                changes.push(Change { key: key.clone(), to });
            }
            let entry = Entry::new(lead.heart.next(), Record::new(changes));
            let (at, seq) = (entry.at, entry.at.seq);
            lead.append(entry, version, Ack::Majority);
            if rest.is_empty() {
                let receipt = Receipt::new(version, Token::of(self.meta.log, at));
                if let Some(reply) = waits.take() {
                    let waiter = Waiter {
                        reply,
                        outcome: Ok(receipt),
                        _permit: None,
                    };
                    lead.heart.wait(seq, Ack::Majority, deadline, waiter);
                }
                return Ok(());
            }
        }
    }

    /// Gives the log the records of this turn.
    pub(super) async fn write_down(&mut self) -> Result<(), Stop> {
        let Some(lead) = self.lead.as_mut().filter(|lead| !lead.unwritten.is_empty()) else {
            return Ok(());
        };
        let entries = std::mem::take(&mut lead.unwritten);
        for (last, append) in self.append_to_log(&entries).await? {
            let id = self.count_append();
            let written = async move {
                Event::Written {
                    id,
                    last,
                    result: append.await,
                }
            };
            self.events.push(written.boxed());
        }
        if let (Some(lead), Some(last)) = (&mut self.lead, entries.last()) {
            let bytes = entries.iter().map(|entry| entry.bytes.len()).sum();
            lead.writing.push_back((last.at.seq, bytes));
            lead.waiting_bytes += bytes;
        }
        Ok(())
    }

    /// Everything up to `last` is on this node's disk.
    pub(super) fn on_written(&mut self, last: u64) {
        if let Some(lead) = &mut self.lead {
            lead.heart.on_disk(self.me, last, true);
            while let Some((_, bytes)) = lead.writing.pop_front_if(|(written, _)| *written <= last) {
                lead.waiting_bytes -= bytes;
            }
        }
    }

    /// The disk has no room for what the log was given.
    pub(super) fn on_full(&mut self) {
        let last = self.log.range().end - 1;
        self.void_appends();
        self.accept.cut(last);
        self.window.cut(last);
        let (applied, me) = (self.live.engine.applied().seq, self.me);
        let alone = self.meta.nodes.len() == 1 && last >= applied;
        let Some(lead) = self.lead.as_mut().filter(|_| alone) else {
            // Other nodes may have got the records that this one has not, and their numbers are taken.
            self.step_down("the disk has no room for more of the log");
            return;
        };
        let pending = self.window.get(applied + 1, last, usize::MAX).unwrap_or_default();
        let records = pending.iter().map(|entry| (entry.at.seq, &*entry.record));
        let full = || Error::Full {
            what: "the disk has no room for more of the log".into(),
        };
        for waiter in lead.heart.roll_back(last, records) {
            let refused = waiter.outcome.and(Err(full()));
            answer(waiter.reply, refused.map_err(Refused::Failed));
        }
        lead.writing.clear();
        lead.waiting_bytes = 0;
        lead.heart.on_disk(me, last, true);
    }

    /// Makes visible what may be, answers who can be answered, and sends the other nodes what they lack.
    pub(super) async fn advance(&mut self) -> Result<(), Stop> {
        self.show().await?;
        let now = self.env.now();
        let Some(lead) = &mut self.lead else { return Ok(()) };
        lead.heart.answered().into_iter().for_each(Waiter::done);
        let late = |effect| Refused::Failed(Error::Timeout { effect });
        lead.heart
            .expired(now)
            .into_iter()
            .for_each(|waiter| waiter.give_up(late));
        if lead.heart.is_established()
            && let Some(office) = lead.office.take()
        {
            self.live.set_serving(true);
            let start = Position::new(lead.heart.epoch(), lead.heart.start());
            let history = self.accept.history().clone();
            answer(office, Promoted { start, history });
        }
        self.ship();
        self.tell();
        Ok(())
    }

    /// Lets records through the gate that are committed, or were asked to count without.
    async fn show(&mut self) -> Result<(), Stop> {
        loop {
            let Some(lead) = &mut self.lead else { return Ok(()) };
            let Some(shared) = self.shared.upgrade() else {
                return Err(Stop::Asked);
            };
            let (to, commit, epoch) = (lead.heart.visible(), lead.heart.commit(), lead.heart.epoch());
            let from = self.live.engine.applied().seq + 1;
            if from > to && commit <= lead.announced {
                return Ok(());
            }
            let entries = if from <= to {
                self.entries(from, to).await?
            } else {
                Vec::new()
            };
            let now = self.env.wall();
            let published = shared.gate.publish(epoch, &self.live.engine, &entries, commit, now)?;
            if published.is_err() {
                self.step_down("a failover has begun");
                return Ok(());
            }
            let Some(lead) = &mut self.lead else { return Ok(()) };
            lead.announced = commit;
            for entry in &entries {
                lead.heart.applied(entry.at.seq, &entry.record);
            }
            self.accept.committed(commit, commit);
            self.count_applied(&entries);
        }
    }
}

impl Lead {
    /// Takes a record as the next one.
    fn append(&mut self, entry: Entry, version: crate::store::Version, ack: Ack) {
        self.heart.append(&entry.record, version, ack);
        self.unwritten.push(entry);
    }

    /// Whether a write of this level may come now.
    fn has_room(&self, ack: Ack, max_exposed: usize) -> Result<()> {
        let full = |what| Err(Error::Full { what });
        if self.waiting_bytes > MAX_UNWRITTEN {
            return full(format!("more than {MAX_UNWRITTEN} bytes wait for the primary's disk"));
        }
        if ack == Ack::Primary && self.heart.weak() >= max_exposed {
            return full(format!(
                "{max_exposed} writes that only the primary has acknowledged wait for a majority"
            ));
        }
        Ok(())
    }
}

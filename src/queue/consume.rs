//! How the durable queue gives messages out, and what becomes of them.

use super::record::{Record, SubId, encode_message};
use super::shell::{Core, Effect, Shell};
use super::standing::{Lease, Lost, Standing};
use super::state::Dying;
use super::{
    DEAD_ATTEMPTS, DEAD_REASON, DEAD_SEQ, DEAD_SUBSCRIPTION, DEAD_TOPIC, DeliveryToken, Error, Feature, Message, RawDelivery,
    Result, Settle, Subscription, dead_letters,
};
use crate::log::Item;
use bytes::Bytes;
use futures::future::{Either, select};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How much is read at once when a message is no longer in memory.
const READ_AHEAD: usize = 256 << 10;
/// How much of a reason a dead letter keeps.
const MAX_REASON: usize = 1 << 10;

impl Shell {
    /// Waits for messages and reads them.
    pub(super) async fn receive(
        self: &Arc<Self>,
        wanted: &Subscription,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<RawDelivery>> {
        let (id, waiters) = {
            let mut core = self.core.lock();
            let id = core.state.find(&wanted.topic, &wanted.name);
            let id = id.ok_or_else(|| Error::NoSubscription {
                topic: wanted.topic.to_string(),
                name: wanted.name.to_string(),
            })?;
            (id, core.waiters(id))
        };
        let mut over = self.env.sleep(wait);
        loop {
            let look = || match self.take(id, max.max(1)) {
                Ok(leases) if leases.is_empty() => None,
                taken => Some(taken),
            };
            let looking = pin!(waiters.wait(look));
            match select(looking, over).await {
                Either::Left((leases, rest)) => {
                    let leases = leases?;
                    // Not within the look: whoever looks is on the list of those who wait, and would wake itself.
                    self.nudge(self.core.lock(), id);
                    let deliveries = self.read(wanted, id, leases).await?;
                    if !deliveries.is_empty() {
                        return Ok(deliveries);
                    }
                    // Everything that was taken is lost to damage.
                    over = rest;
                }
                Either::Right(_) => return Ok(Vec::new()),
            }
        }
    }

    fn take(&self, id: SubId, max: usize) -> Result<Vec<Lease>> {
        self.check()?;
        Ok(self.core.lock().state.take(self.env.now(), id, max))
    }

    async fn read(self: &Arc<Self>, wanted: &Subscription, id: SubId, leases: Vec<Lease>) -> Result<Vec<RawDelivery>> {
        let mut taken = Taken {
            shell: self,
            id,
            leases,
        };
        let entries = self.entries(taken.leases.iter().map(|lease| lease.seq)).await?;
        let mut deliveries = Vec::with_capacity(entries.len());
        for lease in &taken.leases {
            let Some(entry) = entries.get(&lease.seq) else {
                self.core.lock().state.lose(id, lease.seq);
                continue;
            };
            deliveries.push(RawDelivery {
                token: DeliveryToken {
                    topic: Arc::clone(&wanted.topic),
                    subscription: Arc::clone(&wanted.name),
                    seq: lease.seq,
                    generation: lease.generation,
                },
                attempt: lease.attempt,
                enqueued_at: self.env.wall(),
                message: message(entry)?,
            });
        }
        let attempts: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.token.seq, delivery.attempt))
            .collect();
        if !attempts.is_empty() {
            self.core.lock().counts.delivered += attempts.len() as u64;
            // Not waited for: a crash in the next moments may forget that these were attempts.
            match self.note(&Record::Delivered { id, attempts }).await {
                Ok(_on_its_way) => {}
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        taken.leases.clear();
        Ok(deliveries)
    }

    /// The entries of some messages, those that damage left, from memory or from the log.
    async fn entries(&self, seqs: impl Iterator<Item = u64>) -> Result<BTreeMap<u64, Bytes>> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        {
            let core = self.core.lock();
            for seq in seqs {
                match core.cache.get(seq) {
                    Some(entry) => drop(found.insert(seq, entry)),
                    None => missing.push(seq),
                }
            }
        }
        missing.sort_unstable();
        let mut missing = missing.into_iter().peekable();
        while let Some(first) = missing.peek().copied() {
            let items = self.log.read(first..u64::MAX, READ_AHEAD).await?;
            let Some(end) = items.last().map(Item::end) else {
                return Err(Error::Corrupt {
                    what: format!("the log ends before message {first}"),
                });
            };
            let mut core = self.core.lock();
            for item in items {
                let Item::Record { seq, bytes } = item else { continue };
                if Record::is_message(&bytes) {
                    core.cache.put(seq, bytes.clone());
                    found.insert(seq, bytes);
                }
            }
            while missing.next_if(|seq| *seq < end).is_some() {}
        }
        Ok(found)
    }

    pub(super) async fn settle(self: &Arc<Self>, token: &DeliveryToken, settle: Settle) -> Result<()> {
        let now = self.env.now();
        match settle {
            Settle::Ack => self.ack(token).await,
            Settle::AckThrough => Err(Error::Unsupported(Feature::AckThrough)),
            Settle::DeadLetter { reason } => {
                let (id, attempts) = self.change(token, |standing| standing.bury(token.seq, token.generation))?;
                let seq = token.seq;
                self.bury(Dying { id, seq, attempts }, &reason).await
            }
            Settle::Retry { after } => {
                let retry = |standing: &mut Standing| standing.retry(token.seq, token.generation, now + after);
                self.change(token, retry).map(drop)
            }
            Settle::Extend { by } => {
                let extend = |standing: &mut Standing| standing.extend(token.seq, token.generation, now + by);
                self.change(token, extend).map(drop)
            }
        }
    }

    async fn ack(&self, token: &DeliveryToken) -> Result<()> {
        // Done in memory first, and whatever becomes of the record: the work is done, so this process must not do it
        // again. The record keeps the next process from doing it.
        let (id, ()) = self.change(token, |standing| standing.ack(token.seq, token.generation))?;
        {
            let mut core = self.core.lock();
            core.counts.acked += 1;
            core.settled(self.env.now());
            self.tell(core, None);
        }
        let seqs = vec![token.seq];
        self.note(&Record::Acked { id, seqs }).await?.await?;
        Ok(())
    }

    pub(super) fn release(&self, token: &DeliveryToken) {
        // One that has lost its lease has nothing to give back.
        drop(self.change(token, |standing| standing.release(token.seq, token.generation)));
    }

    /// Changes the state of a delivery that still holds its lease.
    fn change<T>(
        &self,
        token: &DeliveryToken,
        change: impl FnOnce(&mut Standing) -> Result<T, Lost>,
    ) -> Result<(SubId, T)> {
        self.check()?;
        let mut core = self.core.lock();
        let lost = Error::LeaseLost { seq: token.seq };
        let Some(id) = core.state.find(&token.topic, &token.subscription) else {
            return Err(lost);
        };
        let changed = core.state.settle(self.env.now(), id, change);
        self.nudge(core, id);
        Ok((id, changed.map_err(|Lost| lost)?))
    }

    /// Makes a message a dead letter: its copy and its acknowledgement are one append.
    pub(super) async fn bury(self: &Arc<Self>, dying: Dying, reason: &str) -> Result<()> {
        let Dying { id, seq, .. } = dying;
        let mut open = Unburied {
            shell: self,
            dying: Some(dying),
        };
        let Some((topic, name)) = self.core.lock().state.names(id) else {
            return Ok(());
        };
        let Some(entry) = self.entries([seq].into_iter()).await?.remove(&seq) else {
            self.core.lock().state.lose(id, seq);
            return Ok(());
        };
        let letter = dead_letter(message(&entry)?, dying, &topic, &name, reason);
        let dead: Arc<str> = dead_letters(&topic).into();
        let copy = encode_message(&dead, &letter);
        let acked = Record::Acked { id, seqs: vec![seq] };
        let make = |_: &mut Core| {
            let effect = Effect::Buried {
                id,
                seq,
                topic: Arc::clone(&dead),
                entry: copy.clone(),
            };
            (vec![copy.clone(), acked.encode()], effect)
        };
        let append = self.append(make).await?;
        open.dying = None;
        append.done().await?;
        let mut core = self.core.lock();
        core.settled(self.env.now());
        self.tell(core, None);
        Ok(())
    }
}

/// The message in an entry.
fn message(entry: &Bytes) -> Result<Message> {
    match Record::decode(entry) {
        Ok(Record::Message { message, .. }) => Ok(message),
        Ok(_) => Err(Error::Corrupt {
            what: "an entry that was a message is none".into(),
        }),
        Err(malformed) => Err(Error::Corrupt {
            what: malformed.to_string(),
        }),
    }
}

fn dead_letter(mut message: Message, dying: Dying, topic: &str, name: &str, reason: &str) -> Message {
    // A letter that died before says only why it died last.
    message.headers.retain(|(name, _)| !name.starts_with("outgrow-dead-"));
    message
        .header(DEAD_REASON, reason[..reason.floor_char_boundary(MAX_REASON)].to_owned())
        .header(DEAD_TOPIC, topic.to_owned())
        .header(DEAD_SUBSCRIPTION, name.to_owned())
        .header(DEAD_SEQ, dying.seq.to_string())
        .header(DEAD_ATTEMPTS, dying.attempts.to_string())
}

/// Leases that nobody holds yet: they are taken back when reading their messages fails or is given up.
struct Taken<'a> {
    shell: &'a Shell,
    id: SubId,
    leases: Vec<Lease>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let mut core = self.shell.core.lock();
        core.state.unlease(self.id, &self.leases);
        self.shell.nudge(core, self.id);
    }
}

/// A message on its way to the dead letters, which waits and goes again when it does not get there.
struct Unburied<'a> {
    shell: &'a Shell,
    dying: Option<Dying>,
}

impl Drop for Unburied<'_> {
    fn drop(&mut self) {
        if let Some(Dying { id, seq, .. }) = self.dying {
            let mut core = self.shell.core.lock();
            core.state.unbury(self.shell.env.now(), id, seq);
            self.shell.tell(core, None);
        }
    }
}

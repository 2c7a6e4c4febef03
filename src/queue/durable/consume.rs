//! How the durable queue gives messages out, and what becomes of them.

use super::heart::standing::{Lease, Taken as Handed};
use super::heart::state::Dying;
use super::outgoing::Batch;
use super::record::{Record, SubId, open_message};
use super::shell::{Core, Effect, Room, Shell};
use crate::env::{WallTime, give_way};
use crate::log::Durability;
use crate::queue::{
    DEAD_ATTEMPTS, DEAD_REASON, DEAD_SEQ, DEAD_SUBSCRIPTION, DEAD_TOPIC, DeliveryToken, Error, Message, RawDelivery,
    Result, Subscription, dead_letters,
};
use bytes::Bytes;
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

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
        let (from, waiters) = {
            let mut core = self.core.lock();
            let id = core.state.find(&wanted.topic, &wanted.name);
            let from = id.and_then(|id| {
                let (topic, name) = core.state.names(id)?;
                Some(Origin { id, topic, name })
            });
            let from = from.ok_or_else(|| Error::NoSubscription {
                topic: wanted.topic.to_string(),
                name: wanted.name.to_string(),
            })?;
            let waiters = core.waiters(from.id);
            (from, waiters)
        };
        let id = from.id;
        let mut over = self.env.sleep(wait);
        loop {
            let look = || match self.take(id, max.max(1)) {
                Ok(taken) if taken.leases.is_empty() && !taken.more => None,
                taken => Some(taken),
            };
            let looking = pin!(waiters.wait(look));
            match select(looking, over).await {
                Either::Left((taken, rest)) => {
                    let leases = taken?.leases;
                    // Not within the look: whoever looks is on the list of those who wait, and would wake itself.
                    self.nudge(self.core.lock(), id);
                    if leases.is_empty() {
                        // There is much that cannot be delivered yet.
                        give_way().await;
                    } else {
                        let deliveries = self.read(&from, leases).await?;
                        if !deliveries.is_empty() {
                            return Ok(deliveries);
                        }
                        // Everything that was taken is lost to damage, or is no longer leased.
                    }
                    over = rest;
                }
                Either::Right(_) => return Ok(Vec::new()),
            }
        }
    }

    fn take(&self, id: SubId, max: usize) -> Result<Handed> {
        self.check()?;
        Ok(self.core.lock().state.take(self.env.now(), self.env.wall(), id, max))
    }

    async fn read(self: &Arc<Self>, from: &Origin, leases: Vec<Lease>) -> Result<Vec<RawDelivery>> {
        let id = from.id;
        let mut taken = Taken {
            shell: self,
            id,
            leases,
        };
        let seqs: Vec<u64> = taken.leases.iter().map(|lease| lease.seq).collect();
        let (entries, was_read) = self.entries_for(Some((id, &taken.leases)), &seqs).await?;
        // Meanwhile a lease may have ended all the same, and what follows it may have been delivered.
        let held = was_read.then(|| self.renew(id, &taken.leases, Duration::ZERO));
        let mut deliveries = Vec::with_capacity(entries.len());
        for (at, (lease, entry)) in taken.leases.iter().zip(entries).enumerate() {
            if held.as_ref().is_some_and(|held| !held[at]) {
                continue;
            }
            let Some(entry) = entry else {
                self.core.lock().state.lose(id, lease.seq);
                continue;
            };
            let (enqueued_at, message) = message(entry)?;
            deliveries.push(RawDelivery {
                token: DeliveryToken {
                    topic: Arc::clone(&from.topic),
                    subscription: Arc::clone(&from.name),
                    seq: lease.seq,
                    generation: lease.generation,
                },
                attempt: lease.attempt,
                enqueued_at,
                message,
            });
        }
        let attempts: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.token.seq, delivery.attempt))
            .collect();
        let attempts = self.count(id, attempts);
        if !attempts.is_empty() {
            // Not waited for: a crash in the next moments may forget that these were attempts.
            match self
                .note(&Record::Delivered { id, attempts }, Durability::Os, Room::Common)
                .await
            {
                Ok(_on_its_way) => {}
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        taken.leases.clear();
        Ok(deliveries)
    }

    /// Counts attempts. Returns those of which the log has to hear at once.
    fn count(&self, id: SubId, attempts: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
        let again = attempts.iter().filter(|(_, attempt)| *attempt > 1).count();
        let mut core = self.core.lock();
        core.counts.delivered += attempts.len() as u64;
        if again > 0 {
            *core.redelivered.entry(id).or_default() += again as u64;
        }
        let at_once = core.given(id, attempts, self.env.now());
        self.tell(core, None);
        at_once
    }

    /// A changed copy of a message on its way into another topic.
    pub(super) async fn copy_of(&self, topic: &str, message: &Message) -> Result<Batch> {
        let sent = self.env.wall();
        let messages = std::slice::from_ref(message);
        let mut batch = Batch::unchecked(topic, sent, messages, (&self.keys, &self.ids));
        batch.stage(&self.log).await?;
        Ok(batch)
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
        let Some(entry) = self.entries(&[seq]).await?.pop().flatten() else {
            self.core.lock().state.lose(id, seq);
            return Ok(());
        };
        let letter = dead_letter(message(entry)?.1, dying, &topic, &name, reason);
        let letter = self.copy_of(&dead_letters(&topic), &letter).await?;
        let acked = Record::Acked { id, seqs: vec![seq] };
        let make = |_: &mut Core| {
            let mut entries = letter.entries();
            entries.push(acked.encode().into());
            let letter = letter.clone();
            Some((entries, Effect::Buried { id, seq, letter }))
        };
        let append = self.append(make).await?;
        open.dying = None;
        if let Some(append) = append {
            append.done().await?;
        }
        let mut core = self.core.lock();
        core.settled(self.env.now());
        self.tell(core, None);
        Ok(())
    }
}

/// The message in an entry, and when it was sent.
#[inline]
pub(super) fn message(entry: Bytes) -> Result<(WallTime, Message)> {
    open_message(entry).map_err(|malformed| Error::Corrupt {
        what: malformed.to_string(),
    })
}

/// A message without what made it a dead letter, and without what its sender wished for its delivery.
pub(super) fn plain(mut message: Message) -> Message {
    message.headers.retain(|(name, _)| !name.starts_with("outgrow-dead-"));
    (message.deliver, message.ttl) = (None, None);
    message
}

fn dead_letter(message: Message, dying: Dying, topic: &str, name: &str, reason: &str) -> Message {
    // A letter that died before says only why it died last.
    plain(message)
        .header(DEAD_REASON, reason[..reason.floor_char_boundary(MAX_REASON)].to_owned())
        .header(DEAD_TOPIC, topic.to_owned())
        .header(DEAD_SUBSCRIPTION, name.to_owned())
        .header(DEAD_SEQ, dying.seq.to_string())
        .header(DEAD_ATTEMPTS, dying.attempts.to_string())
}

/// Where deliveries come from.
struct Origin {
    id: SubId,
    topic: Arc<str>,
    name: Arc<str>,
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

//! Settling: what holds a lease here is told to the server, until it says that it knows.

use super::leases::Held;
use super::{Counts, Inner, names};
use crate::env::Tick;
use crate::queue::{
    DEAD_ATTEMPTS, DEAD_REASON, DEAD_SEQ, DEAD_SUBSCRIPTION, DEAD_TOPIC, DeliveryToken, Error, Feature, Message,
    Result, Settle, dead_letters,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What the server is told of a delivery: done, again, still at work, never again.
pub(super) const ACK: &[u8] = b"+ACK";
pub(super) const NAK: &[u8] = b"-NAK";
pub(super) const PROGRESS: &[u8] = b"+WPI";
pub(super) const ENDED: &[u8] = b"+TERM";
/// Why a message that nobody gave up is a dead letter.
pub(super) const USED_UP: &str = "its attempts are used up";
/// How long a receive waits for what is being given back.
const RETURNING: Duration = Duration::from_millis(250);
/// How much of a reason a dead letter keeps.
const MAX_REASON: usize = 1 << 10;

impl Inner {
    pub(super) async fn settle(self: &Arc<Self>, token: &DeliveryToken, settle: Settle) -> Result<()> {
        let (inner, link) = (Arc::clone(self), self.link.clone());
        match settle {
            Settle::AckThrough => Err(Error::Unsupported(Feature::AckThrough)),
            Settle::Extend { by } => {
                let token = token.clone();
                link.run(async move { inner.extend(&token, by).await }).await
            }
            Settle::Ack => {
                let (held, until) = self.take(token)?;
                link.run(async move { inner.ack(held, until).await }).await
            }
            Settle::Retry { after } => {
                let (held, until) = self.take(token)?;
                link.run(async move { inner.retry(held, until, after).await }).await
            }
            Settle::DeadLetter { reason } => {
                let (held, until) = self.take(token)?;
                link.run(async move { inner.bury(held, Some(until), &reason).await })
                    .await
            }
        }
    }

    /// Ends the lease of a token that has one.
    fn take(&self, token: &DeliveryToken) -> Result<(Held, Tick)> {
        let (now, lost) = (self.now(), Error::LeaseLost { seq: token.seq });
        let mut core = self.core.lock();
        match core.leases.get(now, token.generation) {
            Some(held) if is_of(held, token) => core.leases.take(now, token.generation).ok_or(lost),
            _ => Err(lost),
        }
    }

    async fn ack(&self, held: Held, until: Tick) -> Result<()> {
        self.link.settle(&held.reply, Bytes::from_static(ACK), until).await?;
        Counts::add(&self.counts.acked, 1);
        self.settled(&held.topic);
        Ok(())
    }

    async fn retry(&self, held: Held, until: Tick, after: Duration) -> Result<()> {
        if held.is_last() {
            return self.bury(held, Some(until), USED_UP).await;
        }
        let words = match after.as_nanos() {
            0 => Bytes::from_static(NAK),
            nanos => format!("-NAK {{\"delay\":{}}}", nanos.min(i64::MAX as u128)).into(),
        };
        self.link.settle(&held.reply, words, until).await
    }

    async fn extend(&self, token: &DeliveryToken, by: Duration) -> Result<()> {
        let (now, lost) = (self.now(), Error::LeaseLost { seq: token.seq });
        let (reply, until) = {
            let core = self.core.lock();
            let held = core.leases.get(now, token.generation).filter(|held| is_of(held, token));
            let held = held.ok_or_else(|| lost.clone())?;
            (Arc::clone(&held.reply), now + held.lease)
        };
        self.link.settle(&reply, Bytes::from_static(PROGRESS), until).await?;
        let now = self.now();
        let extended = self.core.lock().leases.extend(now, token.generation, now + by);
        self.rearm();
        if extended { Ok(()) } else { Err(lost) }
    }

    /// Gives a delivery back, or buries it if it was the last.
    pub(super) fn release(self: &Arc<Self>, token: &DeliveryToken) {
        // One that has lost its lease has nothing to give back.
        if let Ok((held, _)) = self.take(token) {
            self.give_back(held);
        }
    }

    /// What becomes of a message that nobody settled.
    pub(super) fn give_back(self: &Arc<Self>, held: Held) {
        let inner = Arc::clone(self);
        if held.is_last() {
            let bury = async move {
                // One that fails comes again when the server's limit has passed.
                let _later = inner.bury(held, None, USED_UP).await;
            };
            self.link.env.spawn(bury).detach();
            return;
        }
        let from = (Arc::clone(&held.topic), Arc::clone(&held.subscription));
        *self.core.lock().returning.entry(from.clone()).or_default() += 1;
        let give = async move {
            let told = inner
                .link
                .client
                .request(held.reply.to_string(), Bytes::from_static(NAK));
            // One that is not heard of comes again when the server's limit has passed.
            let _later = inner.link.env.timeout(super::link::TRY, told).await;
            let mut core = inner.core.lock();
            if let Some(count) = core.returning.get_mut(&from) {
                *count -= 1;
                if *count == 0 {
                    core.returning.remove(&from);
                }
            }
            drop(core);
            inner.returned.wake_all();
        };
        self.link.env.spawn(give).detach();
    }

    /// Waits until the server knows what this process gave back, so that the next receive gets that first; not for long.
    pub(super) async fn all_returned(&self, topic: &Arc<str>, subscription: &Arc<str>) {
        let from = (Arc::clone(topic), Arc::clone(subscription));
        let returned = self
            .returned
            .wait(|| (!self.core.lock().returning.contains_key(&from)).then_some(()));
        let _in_time = self.link.env.timeout(RETURNING, returned).await;
    }

    /// Makes a message a dead letter: its copy first, under an id that a repetition has too, then the end of the original. Without
    /// `until` nobody waits for that any more.
    pub(super) async fn bury(&self, held: Held, until: Option<Tick>, reason: &str) -> Result<()> {
        let dead: Arc<str> = dead_letters(&held.topic).into();
        let buried = self.copy(&dead, &held, reason).await;
        if let Err(error) = buried {
            self.link.tell(&held.reply, NAK);
            return Err(error);
        }
        Counts::add(&self.counts.dead, 1);
        self.settled(&held.topic);
        match until {
            None => {
                self.link.tell(&held.reply, ENDED);
                Ok(())
            }
            // The copy may have taken all of its time, and is there.
            Some(until) => {
                let until = until.max(self.now() + super::link::TRY);
                self.link.settle(&held.reply, Bytes::from_static(ENDED), until).await
            }
        }
    }

    async fn copy(&self, dead: &Arc<str>, held: &Held, reason: &str) -> Result<()> {
        names::check("the topic of dead letters", dead)?;
        let made = self.stream(dead).await?;
        let (stream, consumer) = (self.names.stream(&held.topic), names::consumer(&held.subscription));
        let id = format!("dead.{stream}.{consumer}.{}", held.seq);
        let letter = dead_letter(held, reason);
        let outgoing = self.outgoing(dead, made, letter, self.link.env.wall(), Some(id))?;
        self.publish(dead, vec![outgoing]).await.map(drop)
    }

    /// Some of a topic was settled, so there may be something to delete.
    pub(super) fn settled(&self, topic: &Arc<str>) {
        let Some(every) = self.settings.tidy_every else { return };
        let now = self.now();
        let mut core = self.core.lock();
        core.untidy.insert(Arc::clone(topic));
        core.tidy_at.get_or_insert(now + every);
        drop(core);
        self.rearm();
    }
}

fn is_of(held: &Held, token: &DeliveryToken) -> bool {
    held.seq == token.seq && held.topic == token.topic && held.subscription == token.subscription
}

fn dead_letter(held: &Held, reason: &str) -> Message {
    let mut letter = held.message.clone();
    (letter.deliver, letter.ttl, letter.dedup_id) = (None, None, None);
    // A letter that died before says only why it died last.
    letter.headers.retain(|(name, _)| !name.starts_with("outgrow-dead-"));
    letter
        .header(DEAD_REASON, reason[..reason.floor_char_boundary(MAX_REASON)].to_owned())
        .header(DEAD_TOPIC, held.topic.to_string())
        .header(DEAD_SUBSCRIPTION, held.subscription.to_string())
        .header(DEAD_SEQ, held.seq.to_string())
        .header(DEAD_ATTEMPTS, held.attempt.to_string())
}

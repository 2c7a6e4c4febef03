//! Sending: all messages of a call are on their way before the first answer, each under an id, so that what was not
//! answered can be sent again.

use super::link::{Fault, PAUSE, refused, unanswered};
use super::topics::Made;
use super::wire::{self, Times};
use super::{Counts, Inner};
use crate::env::WallTime;
use crate::queue::{Effect, Error, Feature, Message, Receipt, Result};
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use bytes::Bytes;
use std::error::Error as _;
use std::sync::Arc;

/// The longest id of a sender's.
const MAX_DEDUP_ID: usize = 128;
/// The last millisecond that a server's time has digits for.
const END_OF_TIME: WallTime = WallTime::from_millis(253_402_300_799_999);
/// What a message takes on the wire beside its payload and the text of its headers.
const ENVELOPE: usize = 32;

/// A message as the server gets it.
pub(super) struct Outgoing {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Inner {
    pub(super) async fn send(&self, topic: Arc<str>, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        let made = self.stream(&topic).await?;
        let now = self.link.env.wall();
        let outgoing = messages
            .into_iter()
            .map(|message| self.outgoing(&topic, made, message, now, None));
        let outgoing = outgoing.collect::<Result<Vec<_>>>()?;
        let receipts = self.publish(&topic, outgoing).await?;
        Counts::add(&self.counts.sent, receipts.len());
        Ok(receipts)
    }

    /// A message for the server, under `id` or else that of its sender or one of its own.
    pub(super) fn outgoing(
        &self,
        topic: &str,
        made: Made,
        message: Message,
        now: WallTime,
        id: Option<String>,
    ) -> Result<Outgoing> {
        if message
            .dedup_id
            .as_ref()
            .is_some_and(|id| !(1..=MAX_DEDUP_ID).contains(&id.len()))
        {
            return Err(Error::invalid(format!("a dedup_id has 1 to {MAX_DEDUP_ID} bytes")));
        }
        let times = Times::of(&message, now);
        let mut headers = wire::encode(&message, &times);
        let own = || format!("own.{}", self.unique());
        let given = message.dedup_id.as_ref().map(|id| wire::message_id(id));
        headers.insert(wire::MESSAGE_ID, id.or(given).unwrap_or_else(own));
        let subject = self.names.subject(topic);
        let ttl = |from: WallTime| {
            // The server counts in seconds, at least one; what is over earlier nobody here gets to see.
            let left = times.expires.filter(|expires| *expires < END_OF_TIME)? - from;
            made.ttl
                .then(|| format!("{}s", left.as_millis().div_ceil(1_000).max(1)))
        };
        let subject = match times.due {
            None => {
                if let Some(ttl) = ttl(now) {
                    headers.insert(wire::SERVER_TTL, ttl);
                }
                subject
            }
            Some(_) if !made.schedules => return Err(Error::Unsupported(Feature::DelayedMessages)),
            Some(due) if due > END_OF_TIME => return Err(Error::invalid("a delivery after the year 9999")),
            Some(due) => {
                headers.insert(wire::SCHEDULE, format!("@at {}", wire::rfc3339(due)));
                headers.insert(wire::SCHEDULE_TARGET, subject);
                if let Some(ttl) = ttl(due) {
                    headers.insert(wire::SCHEDULE_TTL, ttl);
                }
                self.names.later(topic, &self.unique())
            }
        };
        let outgoing = Outgoing {
            subject,
            headers,
            payload: message.payload,
        };
        let (len, max) = (outgoing.len(), self.link.client.max_payload());
        match len <= max {
            true => Ok(outgoing),
            false => Err(Error::TooLarge { len, max }),
        }
    }

    /// Publishes messages until each is acknowledged.
    pub(super) async fn publish(&self, topic: &Arc<str>, outgoing: Vec<Outgoing>) -> Result<Vec<Receipt>> {
        let until = self.link.deadline();
        let mut receipts: Vec<Option<Receipt>> = vec![None; outgoing.len()];
        loop {
            let mut waiting = Vec::new();
            let mut failed = Vec::new();
            for (index, message) in outgoing
                .iter()
                .enumerate()
                .filter(|(index, _)| receipts[*index].is_none())
            {
                let (subject, headers) = (message.subject.clone(), message.headers.clone());
                let context = &self.link.context;
                match context
                    .publish_with_headers(subject, headers, message.payload.clone())
                    .await
                {
                    Ok(answer) => waiting.push((index, answer)),
                    Err(error) => failed.push(error),
                }
            }
            for (index, answer) in waiting {
                match answer.await {
                    Ok(ack) if ack.duplicate => receipts[index] = Some(Receipt::duplicate(ack.sequence)),
                    Ok(ack) => receipts[index] = Some(Receipt::new(ack.sequence)),
                    Err(error) => failed.push(error),
                }
            }
            let Some(first) = failed.first() else {
                let receipts = receipts
                    .into_iter()
                    .map(|receipt| receipt.expect("broken invariant: none failed"));
                return Ok(receipts.collect());
            };
            let some = receipts.iter().any(Option::is_some);
            if let Some(lasting) = failed.iter().find_map(lasting) {
                return Err(whole(lasting, some || failed.len() > 1));
            }
            if self.link.env.now() + PAUSE >= until {
                return Err(unanswered(first.to_string(), Effect::Unknown));
            }
            let missing = failed
                .iter()
                .any(|error| error.kind() == PublishErrorKind::StreamNotFound);
            self.link.env.sleep(PAUSE).await;
            if missing {
                // It has no leader at the moment, or somebody deleted it: then sending makes it again.
                self.forget_stream(topic);
                self.stream(topic).await.map_err(|error| whole(error, true))?;
            }
        }
    }

    /// A word that nobody else has.
    fn unique(&self) -> String {
        let mut core = self.core.lock();
        format!("{:016x}{:016x}", core.rng.next_u64(), core.rng.next_u64())
    }
}

impl Outgoing {
    fn len(&self) -> usize {
        let headers = self.headers.iter().map(|(name, values)| {
            let name: &str = name.as_ref();
            values
                .iter()
                .map(|value| name.len() + value.as_str().len() + 4)
                .sum::<usize>()
        });
        headers.sum::<usize>() + ENVELOPE + self.payload.len()
    }
}

/// An error that trying again does not help.
fn lasting(error: &PublishError) -> Option<Error> {
    let refusal = error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), refusal.map(refused)) {
        (PublishErrorKind::MaxPayloadExceeded, _) => Some(Error::invalid(error.to_string())),
        (_, Some(Fault::Lasting(lasting))) => Some(lasting),
        _ => None,
    }
}

/// The error of a call, some of whose messages may have been stored.
fn whole(error: Error, some: bool) -> Error {
    match some && error.effect() == Effect::None {
        true => Error::Io {
            kind: std::io::ErrorKind::Other,
            message: format!("{error}; some of the messages may be stored"),
            effect: Effect::Unknown,
        },
        false => error,
    }
}

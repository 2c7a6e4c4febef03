//! Receiving: a pull request that ends at the first messages, and is made again when nothing is heard of it.

use super::leases::Held;
use super::link::{PAUSE, unanswered};
use super::settle::{ENDED, NAK};
use super::topics::Place;
use super::wire::{self, Delivered};
use super::{Counts, Inner};
use crate::env::Tick;
use crate::queue::{DeliveryToken, Effect, Error, RawDelivery, Result, Subscription};
use async_nats::{Message as Raw, Subscriber};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, join_all, select};
use futures::stream::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// The longest that one request waits at the server.
const SLICE: Duration = Duration::from_secs(10);
/// How often the server says that it still knows of a request.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long an answer may be late.
const GRACE: Duration = Duration::from_secs(1);
/// How long the next message of an answer may be late, when there was one.
const GATHER: Duration = Duration::from_millis(20);
/// The most messages of one request.
const MAX_BATCH: usize = 1_000;

/// How many messages may be on their way when a request is taken back, and how many words of the server's beside them.
const MAX_ON_ITS_WAY: usize = 64;
const STATUSES: usize = 4;

/// A request under way.
struct Request {
    inbox: String,
    answers: Subscriber,
    /// How much has come to the inbox.
    heard: u64,
}

/// How a request ended.
enum End {
    /// The server has nothing more for it.
    Done,
    /// Other requests wait for what there is.
    Busy,
    /// Nothing is known of it: the leader, the consumer or the connection may be gone.
    Lost(String),
    /// Whoever wanted it has gone.
    Gone,
}

/// Tells the work of a receive that nobody waits for it any more, when it is dropped.
struct Wanted {
    _open: oneshot::Sender<()>,
}

/// Deliveries on their way to who asked for them; those that never get there are given back.
struct Granted {
    inner: Arc<Inner>,
    raw: Vec<RawDelivery>,
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.raw.iter().for_each(|raw| self.inner.release(&raw.token));
    }
}

impl Inner {
    pub(super) async fn receive(
        self: Arc<Self>,
        subscription: Subscription,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<RawDelivery>> {
        let (open, gone) = oneshot::channel();
        let _wanted = Wanted { _open: open };
        let link = self.link.clone();
        let work = async move { self.receive_until(&subscription, max.min(MAX_BATCH), wait, gone).await };
        let mut granted = link.run(work).await?;
        Ok(std::mem::take(&mut granted.raw))
    }

    async fn receive_until(
        self: &Arc<Self>,
        subscription: &Subscription,
        max: usize,
        wait: Duration,
        mut gone: oneshot::Receiver<()>,
    ) -> Result<Granted> {
        let until = self.now() + wait;
        let place = self.place(subscription).await?;
        self.all_returned(&place.topic, &place.name).await;
        let mut oneshot = true;
        loop {
            self.check()?;
            let (messages, end) = self.pull(&place, max, until, oneshot, &mut gone).await?;
            let wanted = !matches!(end, End::Gone);
            let granted = self.grant(&place, messages, wanted).await;
            if !granted.raw.is_empty() || !wanted {
                return Ok(granted);
            }
            let over = self.now() >= until;
            oneshot = true;
            match end {
                End::Done if over => return Ok(granted),
                End::Done | End::Gone => {}
                // It waits in line then, for one, and leaves the rest to those before it.
                End::Busy if over => return Ok(granted),
                End::Busy => oneshot = false,
                End::Lost(what) => {
                    if over {
                        return Err(unanswered(what, Effect::None));
                    }
                    self.link.env.sleep(PAUSE).await;
                    match self.revive(&place).await {
                        // Nobody answers yet. The wait is not over.
                        Err(Error::Io { .. }) if self.now() < until => {}
                        revived => revived?,
                    }
                }
            }
        }
    }

    /// One request. What it got is nobody's yet.
    async fn pull(
        &self,
        place: &Place,
        max: usize,
        until: Tick,
        oneshot: bool,
        gone: &mut oneshot::Receiver<()>,
    ) -> Result<(Vec<Raw>, End)> {
        let client = &self.link.client;
        let inbox = client.new_inbox();
        let lost = |error: &dyn std::fmt::Display| Ok((Vec::new(), End::Lost(error.to_string())));
        let mut pulling = match client.subscribe(inbox.clone()).await {
            Err(error) => return lost(&error),
            Ok(answers) => Request {
                inbox: inbox.clone(),
                answers,
                heard: 0,
            },
        };
        let expires = (until - self.now()).min(SLICE);
        let batch = if oneshot { max } else { 1 };
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", place.stream, place.consumer);
        let request = request(batch, expires, oneshot);
        if let Err(error) = client.publish_with_reply(subject, inbox, request).await {
            return lost(&error);
        }
        let silence = match expires >= 2 * HEARTBEAT {
            true => 2 * HEARTBEAT + GRACE,
            false => expires + GRACE,
        };
        let mut messages = Vec::new();
        let end = loop {
            let limit = if messages.is_empty() { silence } else { GATHER };
            let next = self.link.env.timeout(limit, pulling.answers.next());
            match select(std::pin::pin!(next), &mut *gone).await {
                Either::Right(_) => break End::Gone,
                Either::Left((Err(_), _)) => break End::Lost("it does not answer a request for messages".into()),
                Either::Left((Ok(None), _)) => return Err(Error::Closed),
                Either::Left((Ok(Some(message)), _)) => {
                    pulling.heard += 1;
                    match ended(&message) {
                        None if is_heartbeat(&message) => {}
                        None => messages.push(message),
                        Some(end) => return Ok((messages, end)),
                    }
                }
            }
            if messages.len() == batch {
                return Ok((messages, End::Done));
            }
        };
        self.withdraw(pulling, batch, &mut messages).await;
        Ok((messages, end))
    }

    /// Takes a request back, and what the server has sent for it until then.
    ///
    /// There is no word for that: the server gives up a request whose inbox nobody listens to. Where the client stopped
    /// listening first, what is on its way would be lost for a whole lease. So both sides are told to stop after a number of
    /// messages that is more than can be on their way, and the rest of that number is sent from here.
    async fn withdraw(&self, mut request: Request, batch: usize, messages: &mut Vec<Raw>) {
        let more = batch.saturating_sub(messages.len()).min(MAX_ON_ITS_WAY) + STATUSES;
        let stop = request.heard + more as u64;
        if request.answers.unsubscribe_after(stop).await.is_err() {
            return;
        }
        for _ in 0..more {
            if self
                .link
                .client
                .publish(request.inbox.clone(), Bytes::new())
                .await
                .is_err()
            {
                return;
            }
        }
        while let Ok(Some(message)) = self.link.env.timeout(GRACE, request.answers.next()).await {
            if message.status.is_none() && message.reply.is_some() {
                messages.push(message);
            }
        }
    }

    /// Gives messages out, but for those that are not to be delivered. Where nobody wants them, they go back.
    async fn grant(self: &Arc<Self>, place: &Arc<Place>, messages: Vec<Raw>, wanted: bool) -> Granted {
        let mut granted = Granted {
            inner: Arc::clone(self),
            raw: Vec::new(),
        };
        let mut dying = Vec::new();
        for message in messages {
            let Some((reply, told)) = reply(&message) else { continue };
            if !wanted {
                self.link.tell(&reply, NAK);
                continue;
            }
            let (message, times) = match wire::decode(message.headers.as_ref(), message.payload) {
                Ok(decoded) => decoded,
                // Nobody can read it, and keeping it back would deliver it for ever: it goes where somebody looks.
                Err(error) => {
                    let held = held(place, reply, told, super::Message::default());
                    dying.push((held, error.to_string()));
                    continue;
                }
            };
            let now = self.link.env.wall();
            if times.expires.is_some_and(|expires| expires <= now) {
                self.link.tell(&reply, ENDED);
                self.settled(&place.topic);
                continue;
            }
            let held = held(place, reply, told, message);
            if held.attempt > held.max_attempts {
                dying.push((held, super::settle::USED_UP.to_owned()));
                continue;
            }
            let enqueued_at = times.sent.unwrap_or(told.stored);
            granted.raw.push(self.lease(place, held, enqueued_at));
        }
        Counts::add(&self.counts.delivered, granted.raw.len());
        join_all(dying.into_iter().map(|(held, reason)| async move {
            // One that fails comes again when the server's limit has passed.
            let _later = self.bury(held, None, &reason).await;
        }))
        .await;
        granted
    }

    fn lease(&self, place: &Place, held: Held, enqueued_at: crate::env::WallTime) -> RawDelivery {
        let (seq, attempt, message) = (held.seq, held.attempt, held.message.clone());
        let mut core = self.core.lock();
        let generation = core.leases.grant(self.now(), held);
        drop(core);
        self.rearm();
        RawDelivery {
            token: DeliveryToken {
                topic: Arc::clone(&place.topic),
                subscription: Arc::clone(&place.name),
                seq,
                generation,
            },
            attempt,
            enqueued_at,
            message,
        }
    }
}

fn held(place: &Place, reply: Arc<str>, told: Delivered, message: super::Message) -> Held {
    Held {
        topic: Arc::clone(&place.topic),
        subscription: Arc::clone(&place.name),
        seq: told.seq,
        attempt: told.attempt,
        max_attempts: place.max_attempts,
        lease: place.lease,
        reply,
        message,
    }
}

fn reply(message: &Raw) -> Option<(Arc<str>, Delivered)> {
    let reply: &str = message.reply.as_ref()?;
    Some((reply.into(), wire::delivered(reply)?))
}

/// A request for messages: `oneshot` ends with the first that there are, any other with `batch` or its time.
fn request(batch: usize, expires: Duration, oneshot: bool) -> Bytes {
    let mut text = format!("{{\"batch\":{batch}");
    if oneshot {
        text.push_str(",\"no_wait\":true");
    }
    if expires >= Duration::from_millis(1) {
        text.push_str(&format!(",\"expires\":{}", expires.as_nanos()));
    }
    if expires >= 2 * HEARTBEAT {
        text.push_str(&format!(",\"idle_heartbeat\":{}", HEARTBEAT.as_nanos()));
    }
    text.push('}');
    text.into()
}

fn status(message: &Raw) -> Option<u16> {
    message.status.map(|status| status.as_u16())
}

fn is_heartbeat(message: &Raw) -> bool {
    status(message) == Some(100)
}

/// Whether a message is one of the server's that ends a request.
fn ended(message: &Raw) -> Option<End> {
    let says = message.description.as_deref().unwrap_or_default();
    match status(message)? {
        100 => None,
        408 if says.contains("Requests Pending") => Some(End::Busy),
        404 | 408 => Some(End::Done),
        409 if says.contains("Batch Completed") => Some(End::Done),
        409 if says.contains("MaxWaiting") || says.contains("MaxAckPending") => Some(End::Busy),
        code => Some(End::Lost(format!("it ended a request for messages: {code} {says}"))),
    }
}

//! Messages that outlive the process: topics, durable subscriptions, leases, dead letters.
//!
//! [`DurableQueue`] keeps any number of topics in one directory, in one log: a send is on disk when it returns, and all
//! producers share the syncs.
//!
//! ```
//! use outgrow::queue::DurableQueue;
//! # let dir = std::env::temp_dir().join(format!("outgrow-doc-{}", std::process::id()));
//! # futures::executor::block_on(async {
//! let queue = DurableQueue::open(&dir).await?;
//! let mail = queue.topic("mail");
//! mail.send("to Ada").await?; // on disk
//!
//! let mut jobs = mail.subscribe("mailer").max_attempts(5).build().await?;
//! let job = jobs.next().await.expect("the queue is open")?;
//! assert_eq!(job.payload(), "to Ada");
//! job.ack().await?; // never delivered to this subscription again
//! queue.close().await;
//! # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
//! # std::fs::remove_dir_all(&dir).unwrap();
//! ```
//!
//! A message is delivered at least once to each subscription of its topic, in the order in which it was sent, and again
//! whenever a delivery was not acknowledged before its lease ended, was dropped, asked for a retry, or was overtaken by
//! a crash. So a handler has to bear seeing a message twice. What has been delivered
//! [`max_attempts`](Subscription::max_attempts) times without success becomes a dead letter: a copy goes to the topic
//! `<topic>.dead`, with headers that say why, in the same write that takes it from its own. A crash of the process may forget
//! the attempts that it cut short: all within a moment of their delivery, and within 5 ms the first ones of messages that
//! were sent since the queue was opened. So a message that kills whoever gets it is buried all the same, after one attempt
//! more at most.
//!
//! A topic without subscriptions keeps its messages until someone subscribes, unless a [`Retention`] says otherwise.
//! Space is freed from the oldest end of the log, by whole segments. Messages that nobody settles (dead letters are such,
//! until they are [redriven](DurableQueue::redrive)) do not keep what is around them: where they are few, they are written
//! again at the end, as [`Retention`] tells. At [`max_bytes`](DurableQueueBuilder::max_bytes) sends are refused, wait, or
//! have the oldest dropped, as [`OnFull`] says.
//!
//! Not for many processes: one opens the directory, the second is refused. It may [look](DurableQueue::inspect) all the
//! same.
//!
//! The parts: [`Queue`] is what an implementation provides. Written once above it are [`Topic`], [`Subscriber`] and
//! [`Delivery`]; the [`Worker`], which handles many jobs at a time and keeps their leases; a [`Backoff`] between attempts;
//! topics of one type ([`TypedTopic`]), as a sink ([`TopicSink`]) and for plain threads ([`BlockingTopic`]). Whoever comes
//! from another queue begins at [`coming_from`]. The implementations are `durable`, whose heart is plain data, and `jetstream`.

mod attempt;
mod backoff;
mod blocking;
mod capability;
mod codec;
pub mod coming_from;
mod consumer;
mod delivery;
mod durable;
mod error;
#[cfg(feature = "nats")]
mod jetstream;
mod job;
mod keep_alive;
mod message;
#[cfg(feature = "metrics")]
mod metrics;
mod progress;
mod sink;
mod stats;
mod subscriber;
#[cfg(feature = "suite")]
pub mod suite;
mod topic;
mod trace;
mod typed;
mod worker;

pub use crate::log::{Durability, Latencies};
pub use backoff::Backoff;
pub use blocking::{BlockingDelivery, BlockingSubscriber, BlockingTopic};
pub use capability::{Capability, Feature};
#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{Codec, CodecError};
pub use delivery::Delivery;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use durable::hooks;
pub use durable::{DamagedBytes, InspectProgress, MessageView, SegmentView, SubscriptionView, TopicView};
pub use durable::{DurableQueue, DurableQueueBuilder, Inspection, Inspector, Messages, OnFull, Retention};
pub use error::{Effect, Error, Result, Retry};
#[cfg(feature = "nats")]
pub use jetstream::{JetStreamBuilder, JetStreamQueue, ServerSync};
pub use job::{IntoOutcome, Job, Outcome, Source};
pub use message::{DeliverAt, DeliveryToken, Message, Priority, RawDelivery, Receipt, Settle, Start, Subscription};
pub use progress::{WorkerCounts, WorkerProgress};
pub use sink::TopicSink;
pub use stats::{Lost, OpenReport, QueueStats, SubscriptionStats, TopicStats, VerifyProgress, VerifyReport};
pub use subscriber::{Subscriber, SubscriberBuilder};
pub use topic::Topic;
use typed::undecodable;
pub use typed::{TypedDelivery, TypedSubscriber, TypedSubscriberBuilder, TypedTopic, Undecodable};
pub use worker::Worker;

use std::future::Future;
use std::time::Duration;

/// The header of a dead letter that says why it is one.
pub const DEAD_REASON: &str = "outgrow-dead-reason";
/// The header of a dead letter that names the topic it came from.
pub const DEAD_TOPIC: &str = "outgrow-dead-topic";
/// The header of a dead letter that names the subscription that gave it up.
pub const DEAD_SUBSCRIPTION: &str = "outgrow-dead-subscription";
/// The header of a dead letter that gives its number there, in decimal digits.
pub const DEAD_SEQ: &str = "outgrow-dead-seq";
/// The header of a dead letter that says how often it was delivered, in decimal digits.
pub const DEAD_ATTEMPTS: &str = "outgrow-dead-attempts";

/// The topic of the dead letters of `topic`.
#[must_use]
pub fn dead_letters(topic: &str) -> String {
    format!("{topic}.dead")
}

/// A queue, as an implementation provides it. Callers use a [`Topic`] and its [`Subscriber`]s, which are written above
/// this.
///
/// Every future may be dropped at any time. A send, a subscription or a settlement is then as if it had failed with
/// [`Effect::Unknown`]; a receive leaves no message leased to nobody.
pub trait Queue: Send + Sync {
    /// Sends messages to a topic, which need not exist; they are durable when it returns. Where
    /// [`Feature::AtomicBatches`] is, all of them are sent or none.
    fn send(&self, topic: &str, messages: Vec<Message>) -> impl Future<Output = Result<Vec<Receipt>>> + Send;

    /// Sends one message; as [`send`](Queue::send), which it calls unless an implementation can do it with less.
    fn send_one(&self, topic: &str, message: Message) -> impl Future<Output = Result<Receipt>> + Send {
        let sending = self.send(topic, vec![message]);
        async move { Ok(only(sending.await?)) }
    }

    /// Makes a subscription unless it exists, and has it follow the settings given here.
    fn subscribe(&self, subscription: &Subscription) -> impl Future<Output = Result<()>> + Send;

    /// Takes between 1 and `max` messages for a consumer, or none when `wait` has passed without any.
    fn receive(
        &self,
        subscription: &Subscription,
        max: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<RawDelivery>>> + Send;

    /// Settles a delivery, or lengthens its lease.
    fn settle(&self, token: &DeliveryToken, settle: Settle) -> impl Future<Output = Result<()>> + Send;

    /// Gives a delivery back, to be delivered again at once, without waiting for anything: what happens to one that is
    /// dropped. A token that has lost its lease does nothing.
    fn release(&self, token: &DeliveryToken);

    /// What the queue holds.
    fn stats(&self) -> impl Future<Output = Result<QueueStats>> + Send;

    /// What this queue can do.
    fn capability(&self) -> Capability;
}

/// The receipt of a message that was sent alone.
fn only(mut receipts: Vec<Receipt>) -> Receipt {
    let receipt = receipts.pop();
    receipt.expect("broken invariant: a receipt for each message")
}

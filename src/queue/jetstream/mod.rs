//! A queue on the streams of a NATS server or cluster (feature `nats`).
//!
//! Of the parts, `leases`, `names` and `wire` are pure: who may settle what, what things are called on the server, and
//! how a message looks there. `link` is the connection, `topics` makes streams and consumers, `send`, `pull` and `settle`
//! do what they say, and `keeper` is the task that ends and renews leases.

mod builder;
mod keeper;
mod leases;
mod link;
mod names;
mod pull;
mod send;
mod settle;
mod stats;
mod topics;
mod wire;

pub use builder::{JetStreamBuilder, ServerSync};

use super::{
    Capability, DeliveryToken, Error, Feature, Message, Queue, QueueStats, RawDelivery, Receipt, Result, Settle,
    Subscription, Topic, only,
};
use crate::env::{Rng, Tick};
use crate::sync::{AtomicU64, Mutex, Ordering, Waiters};
use builder::Settings;
use leases::Leases;
use link::Link;
use names::Names;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use topics::{Made, Place};

/// A queue on a NATS server, 2.9 or newer, or a cluster of them (feature `nats`). Cheap to clone.
///
/// ```no_run
/// use futures::StreamExt;
/// use outgrow::queue::JetStreamQueue;
/// # async fn run() -> outgrow::queue::Result<()> {
/// let queue = JetStreamQueue::connect("nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3").await?;
/// let mail = queue.topic("mail");
/// mail.send("to Ada").await?; // a majority of the cluster has it
///
/// let mut jobs = mail.subscribe("mailer").max_attempts(5).build().await?;
/// while let Some(job) = jobs.next().await {
///     job?.ack().await?;
/// }
/// # Ok(()) }
/// ```
///
/// A topic is a stream, a subscription one of its durable pull consumers. The connection is made again when it breaks, a
/// consumer that the server lost is made again where it stood, and what a node that died did not answer is asked of the
/// next: a call ends within [`timeout`](JetStreamBuilder::timeout), in success or in an error whose
/// [`effect`](Error::effect) says what may have happened.
///
/// # What it can do
/// - A **send** is acknowledged by a majority of the stream's replicas. It is repeated under one message id while it is
///   not answered, so it is stored once; a [`dedup_id`](Message::dedup_id) is that id, and counts for
///   [`dedup_window`](JetStreamBuilder::dedup_window). A [receipt](Receipt) of a send that was repeated may name the
///   first try a duplicate.
/// - **Leases** are kept by this process, and end before the server's own limit by a quarter (0.5 to 5 s). What comes later is
///   [`LeaseLost`](Error::LeaseLost) here and never sent, so a late acknowledgement cannot complete someone else's attempt
///   unless it is on its way for longer than that. [`Extend`](Settle::Extend) works for any time: the server is told again
///   and again, as long as this process lives.
/// - **Acknowledgements** are acknowledged: the server has the effect when one returns.
/// - **Attempts** are counted by the server. What has used them up is copied to `<topic>.dead` under an id of its own, then
///   ended: when this process' last lease on it ends, or by whoever receives next.
/// - **Time to live** holds with any server; from 2.11 on the server frees the space too.
/// - A topic's messages are deleted once all its subscriptions have settled them, [now and
///   then](JetStreamBuilder::tidy_every). A topic that has no room
///   left refuses.
///
/// # What it cannot do
/// - **Durability** is a setting of the servers that they do not tell: by default they sync every two minutes, so power that
///   fails everywhere at once takes what was acknowledged since. Set `sync_interval: always` in each server's `jetstream`
///   section (2.10 or newer), and say so with [`server_sync`](JetStreamBuilder::server_sync); until then it has no
///   [`Feature::Durable`], and [`warnings`](JetStreamQueue::warnings) says why.
/// - No [atomic batches](Feature::AtomicBatches): the messages of one send are on their way together, and some may be stored
///   when others failed, in another order then.
/// - No [priorities](Feature::Priorities), [ordered keys](Feature::OrderedKeys) or [`AckThrough`](Settle::AckThrough), and no
///   [atomic dead letters](Feature::AtomicDeadLetters): the copy comes first, so after a crash between the two a message may be
///   delivered once more, or its copy be there twice if that is longer ago than the dedup window.
/// - **Delays** need a server 2.12 or newer, and no [`max_bytes`](JetStreamBuilder::max_bytes). The server's clock decides. A delayed message has a number of its own when it
///   is delivered, not that of its receipt.
/// - A message has to fit into the server's `max_payload`, 1 MiB by default.
/// - Redeliveries come in the order in which they became due, not in the order in which they were sent.
/// - All processes give a subscription the same settings: one that joins with another lease is not heard of by the others.
///
/// The clocks of senders and receivers decide when a message expires, so they have to agree.
///
/// # Cancel safety
/// As [`Queue`] says. A receive that is dropped gives back what comes too late for it, which counts as an attempt; in a
/// cluster a message that is on its way between two nodes at that moment comes again when the server's limit has passed.
#[derive(Clone)]
pub struct JetStreamQueue {
    handle: Arc<Handle>,
}

struct Handle {
    inner: Arc<Inner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.close();
    }
}

/// What all handles share.
struct Inner {
    link: Link,
    names: Names,
    settings: Settings,
    capability: Capability,
    warnings: Vec<String>,
    core: Mutex<Core>,
    /// Where the keeper waits.
    keeper: Waiters,
    /// Where receives wait for what is being given back.
    returned: Waiters,
    counts: Counts,
}

struct Core {
    closed: bool,
    leases: Leases,
    rng: Rng,
    /// The streams that are known to be there, by topic.
    streams: BTreeMap<Arc<str>, Made>,
    /// The subscriptions that are known to be there.
    places: BTreeMap<(Arc<str>, Arc<str>), Arc<Place>>,
    /// How many deliveries of a subscription are being given back.
    returning: BTreeMap<(Arc<str>, Arc<str>), usize>,
    /// Topics with messages that somebody has settled since they were tidied.
    untidy: BTreeSet<Arc<str>>,
    tidy_at: Option<Tick>,
    /// What the keeper waits for.
    keeper_until: Option<Tick>,
}

/// What was done here.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    delivered: AtomicU64,
    acked: AtomicU64,
    dead: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64, n: usize) {
        count.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl Inner {
    fn new(link: Link, names: Names, settings: Settings, capability: Capability, warnings: Vec<String>) -> Inner {
        let mut rng = link.env.rng("jetstream");
        let core = Core {
            closed: false,
            // Another queue of this process has other generations, so that it knows none of our tokens.
            leases: Leases::from(rng.next_u64() >> 1),
            rng,
            streams: BTreeMap::new(),
            places: BTreeMap::new(),
            returning: BTreeMap::new(),
            untidy: BTreeSet::new(),
            tidy_at: None,
            keeper_until: None,
        };
        Inner {
            link,
            names,
            settings,
            capability,
            warnings,
            core: Mutex::new(core),
            keeper: Waiters::default(),
            returned: Waiters::default(),
            counts: Counts::default(),
        }
    }

    fn now(&self) -> Tick {
        self.link.env.now()
    }

    fn check(&self) -> Result<()> {
        match self.core.lock().closed {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    fn close(&self) {
        self.core.lock().closed = true;
        self.keeper.wake_all();
    }
}

impl JetStreamQueue {
    /// Connects to the server at `url`, or to the first that answers of several with commas between, with the defaults.
    ///
    /// # Errors
    /// As [`JetStreamBuilder::connect`].
    ///
    /// # Cancel safety
    /// As [`JetStreamBuilder::connect`].
    pub async fn connect(url: &str) -> Result<JetStreamQueue> {
        JetStreamQueue::builder().connect(url).await
    }

    /// Builds a queue with other settings.
    pub fn builder() -> JetStreamBuilder {
        JetStreamBuilder::default()
    }

    fn new(inner: Inner) -> JetStreamQueue {
        let inner = Arc::new(inner);
        inner.link.env.spawn(keeper::run(Arc::clone(&inner))).detach();
        JetStreamQueue {
            handle: Arc::new(Handle { inner }),
        }
    }

    /// The topic called `name`: 1 to 200 bytes, and at most 230 on the server, where each that is no ASCII letter, digit
    /// or hyphen counts three times.
    #[must_use]
    pub fn topic(&self, name: &str) -> Topic<JetStreamQueue> {
        Topic::new(self.clone(), name).env(self.handle.inner.link.env.clone())
    }

    /// What the server cannot promise, or does not tell, in a sentence each. Empty when nothing is missing.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.handle.inner.warnings
    }

    /// Takes and gives nothing more, and has the client send what it holds. Subscribers come to their end. Every clone is
    /// closed with it.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.handle.inner);
        inner.close();
        let link = inner.link.clone();
        let flush = async move {
            // A connection that is broken has nowhere to send it.
            let _late = link.env.timeout(link::TRY, link.client.flush()).await;
            Ok(())
        };
        let _told = inner.link.run(flush).await;
    }
}

#[deny(clippy::missing_trait_methods)]
impl Queue for JetStreamQueue {
    async fn send(&self, topic: &str, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        let inner = Arc::clone(&self.handle.inner);
        inner.check()?;
        names::check("a topic", topic)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        messages
            .iter()
            .try_for_each(|message| inner.capability.require_for(message))?;
        let topic: Arc<str> = topic.into();
        let link = inner.link.clone();
        link.run(async move { inner.send(topic, messages).await }).await
    }

    async fn send_one(&self, topic: &str, message: Message) -> Result<Receipt> {
        self.send(topic, vec![message]).await.map(only)
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<()> {
        let (inner, wanted) = (Arc::clone(&self.handle.inner), subscription.clone());
        inner.check()?;
        inner.capability.require_to_subscribe(&wanted)?;
        topics::check(&wanted)?;
        let link = inner.link.clone();
        link.run(async move { inner.subscribe(wanted).await }).await
    }

    async fn receive(&self, subscription: &Subscription, max: usize, wait: Duration) -> Result<Vec<RawDelivery>> {
        let inner = Arc::clone(&self.handle.inner);
        inner.check()?;
        inner.receive(subscription.clone(), max.max(1), wait).await
    }

    async fn settle(&self, token: &DeliveryToken, settle: Settle) -> Result<()> {
        let inner = Arc::clone(&self.handle.inner);
        inner.check()?;
        inner.settle(token, settle).await
    }

    fn release(&self, token: &DeliveryToken) {
        self.handle.inner.release(token);
    }

    async fn stats(&self) -> Result<QueueStats> {
        let inner = Arc::clone(&self.handle.inner);
        inner.check()?;
        let link = inner.link.clone();
        link.run(async move { inner.stats().await }).await
    }

    fn capability(&self) -> Capability {
        self.handle.inner.capability
    }
}

/// What every server can do.
fn least() -> Capability {
    Capability::none()
        .with(Feature::Extend)
        .with(Feature::DelayedRetry)
        .with(Feature::TimeToLive)
        .with(Feature::Deduplication)
        .with(Feature::Replay)
}

impl fmt::Debug for JetStreamQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamQueue")
            .field("names", &self.handle.inner.names)
            .field("capability", &self.handle.inner.capability)
            .finish_non_exhaustive()
    }
}

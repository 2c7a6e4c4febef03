use super::cache::Cache;
use super::pump;
use super::record::{Record, encode_message};
use super::shell::{Core, Effect, Shell};
use super::state::State;
use super::{
    Capability, DeliveryToken, Error, Lost, Message, OpenReport, Queue, QueueStats, RawDelivery, Receipt, Result,
    Settle, Start, Subscription, Topic,
};
use crate::env::Env;
use crate::log::{Item, Log, LogOptions};
use crate::sync::{Mutex, Waiters};
use bytes::Bytes;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of a message, with its key, headers and topic. It leaves room in a frame of the log for what a dead
/// letter says more.
const MAX_MESSAGE: usize = 960 << 10;
/// The most bytes of a topic's or a subscription's name.
const MAX_NAME: usize = 200;
const MAX_SUBSCRIPTIONS: usize = 10_000;
const MAX_IN_FLIGHT: usize = 65_536;

/// A queue in a directory of this machine: many topics, one log, one sync for all who send at the same time. Cheap to
/// clone; the last clone to go closes it in the background.
///
/// - A **send** is durable when it returns, and a batch is sent as a whole or not at all (at most about 1 MiB).
/// - An **acknowledgement** is durable when it returns. One that fails still holds in this process.
/// - **Attempts** are written as they begin, without waiting: after a crash a message that was being handled counts as
///   tried, unless the record of it was among the last moments' writes. Retry times are not kept: after a restart
///   everything unsettled can be delivered at once.
/// - **Damage** on disk costs the messages that it hit. The rest is served, and [`opened`](DurableQueue::opened) and
///   [`QueueStats::lost`] tell.
/// - **Memory**: 16 bytes for each message kept, about 100 more while it is in flight, 32 for each write that the log
///   keeps, and the cache of recent messages.
///
/// After a failed write or sync everything fails with [`Error::Poisoned`]; open the queue again then, which trusts
/// nothing but the device.
#[derive(Clone)]
pub struct DurableQueue {
    handle: Arc<Handle>,
}

struct Handle {
    shell: Arc<Shell>,
    opened: OpenReport,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shell.close();
    }
}

/// Builds a [`DurableQueue`].
#[derive(Clone, Debug)]
#[must_use]
pub struct DurableQueueBuilder {
    env: Env,
    segment_bytes: u64,
    max_bytes: u64,
    cache_bytes: usize,
}

impl DurableQueueBuilder {
    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// How large a segment of the log gets; space is freed by whole segments, and opening reads one at a time into
    /// memory. Default: 64 MiB; taken up to 8 KiB or down to 1 GiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How many bytes the log may have on disk; when it has them, sends are refused with [`Error::Full`] until
    /// consumers have settled enough. Acknowledgements still go through. Default: 16 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many bytes of recent messages are kept in memory; older ones are read from disk. Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Opens the queue in `dir`, which is made if it does not exist. Takes time in proportion to the bytes there.
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open already, here or in another process; [`Error::Corrupt`] when a later release
    /// wrote it; [`Error::Io`]. A torn write at the end, and damage, are not errors: see [`DurableQueue::opened`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up opening; the directory is free again shortly after.
    pub async fn open(self, dir: impl AsRef<Path>) -> Result<DurableQueue> {
        let options = LogOptions {
            segment_bytes: self.segment_bytes,
            ..LogOptions::default()
        };
        let (log, report) = Log::open(&self.env, dir.as_ref(), options).await?;
        let mut state = State::new(self.env.rng("queue").next_u64());
        let mut cache = Cache::new(self.cache_bytes);
        let mut lost = Vec::new();
        let mut reader = log.reader(report.range.start);
        while let Some(item) = reader.next().await? {
            match item {
                Item::Record { seq, bytes } => {
                    let record = Record::decode(&bytes).map_err(|malformed| Error::Corrupt {
                        what: format!("entry {seq}: {malformed}"),
                    })?;
                    state.replay(seq, bytes.len() as u32, &record);
                    if Record::is_message(&bytes) {
                        cache.put(seq, bytes);
                    }
                }
                Item::Gap(gap) => lost.push(Lost {
                    seqs: gap.range,
                    why: gap.why.to_string(),
                }),
            }
        }
        state.trim();
        let damaged = report.damage.iter().map(|damage| {
            let (segment, bytes) = (damage.segment, &damage.bytes);
            format!("segment {segment:x} bytes {}..{}", bytes.start, bytes.end)
        });
        let opened = OpenReport {
            messages: state.stats().values().map(|topic| topic.messages).sum(),
            bytes: report.bytes,
            torn_bytes: report.torn,
            lost,
            damaged: damaged.collect(),
        };
        let shell = Arc::new(Shell {
            env: self.env,
            log,
            max_bytes: self.max_bytes,
            core: Mutex::new(Core::new(state, cache)),
            pump: Waiters::default(),
        });
        let handle = Handle { shell, opened };
        handle.shell.env.spawn(pump::run(Arc::clone(&handle.shell))).detach();
        Ok(DurableQueue {
            handle: Arc::new(handle),
        })
    }
}

impl DurableQueue {
    /// Opens the queue in `dir` with the defaults.
    ///
    /// # Errors
    /// As [`DurableQueueBuilder::open`].
    ///
    /// # Cancel safety
    /// As [`DurableQueueBuilder::open`].
    pub async fn open(dir: impl AsRef<Path>) -> Result<DurableQueue> {
        DurableQueue::builder().open(dir).await
    }

    /// Builds a queue with other settings.
    pub fn builder() -> DurableQueueBuilder {
        DurableQueueBuilder {
            env: Env::default(),
            segment_bytes: 64 << 20,
            max_bytes: 16 << 30,
            cache_bytes: 64 << 20,
        }
    }

    /// The topic called `name`: 1 to 200 bytes. It exists while it has messages or subscriptions.
    #[must_use]
    pub fn topic(&self, name: &str) -> Topic<DurableQueue> {
        Topic::new(self.clone(), name).env(self.handle.shell.env.clone())
    }

    /// What opening found.
    #[must_use]
    pub fn opened(&self) -> &OpenReport {
        &self.handle.opened
    }

    /// What it holds and has done.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let shell = &self.handle.shell;
        let log = shell.log.stats();
        let mut core = shell.core.lock();
        core.state.trim();
        QueueStats {
            topics: core.state.stats(),
            lost: core.state.lost,
            bytes: log.bytes,
            syncs: log.syncs,
            ..core.counts.clone()
        }
    }

    /// Whether it takes and gives messages, for a health check.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Poisoned`] after a failed write or sync.
    pub fn check(&self) -> Result<()> {
        self.handle.shell.check()
    }

    /// Takes nothing more, writes what is on its way, and frees the directory. Subscribers come to their end. Every
    /// clone is closed with it.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it: closing goes on.
    pub async fn close(&self) {
        self.handle.shell.close();
        self.handle.shell.log.close().await;
    }
}

#[deny(clippy::missing_trait_methods)]
impl Queue for DurableQueue {
    async fn send(&self, topic: &str, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        let shell = &self.handle.shell;
        check_name("a topic", topic)?;
        let entries = messages
            .iter()
            .map(|message| encode(topic, message))
            .collect::<Result<Vec<_>>>()?;
        shell.check()?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        if shell.log.bytes() >= shell.max_bytes {
            return Err(Error::Full {
                what: format!("the log has reached max_bytes ({})", shell.max_bytes),
            });
        }
        let topic: Arc<str> = topic.into();
        let make = |_: &mut Core| {
            let effect = Effect::Sent {
                topic: Arc::clone(&topic),
                entries: entries.clone(),
            };
            (entries.clone(), effect)
        };
        let append = shell.append(make).await?;
        let receipts = append.seqs().map(Receipt::new).collect();
        append.done().await?;
        Ok(receipts)
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<()> {
        let shell = &self.handle.shell;
        check_subscription(subscription)?;
        shell.check()?;
        let (topic, name) = (&*subscription.topic, &*subscription.name);
        let id = {
            let mut core = shell.core.lock();
            if let Some(id) = core.state.find(topic, name) {
                core.state.configure(id, subscription);
                shell.nudge(core, id);
                return Ok(());
            }
            if core.state.subscription_count() >= MAX_SUBSCRIPTIONS {
                return Err(Error::Full {
                    what: format!("a queue has at most {MAX_SUBSCRIPTIONS} subscriptions"),
                });
            }
            core.state.new_id()
        };
        let make = |core: &mut Core| {
            // What is before this has been settled by everybody, or comes after it in the state.
            let first = || {
                core.state
                    .oldest_of(topic)
                    .unwrap_or(core.settled_end(shell.log.durable()))
            };
            let from = match subscription.start {
                Start::First => Some(first()),
                Start::Now => None,
                Start::Seq(_) | Start::Time(_) => None,
            };
            let record = Record::Subscribed {
                id,
                topic: topic.to_owned(),
                name: name.to_owned(),
                from,
            };
            let wanted = subscription.clone();
            (vec![record.encode()], Effect::Subscribed { id, wanted, from })
        };
        shell.append(make).await?.done().await?;
        let mut core = shell.core.lock();
        if let Some(id) = core.state.find(topic, name) {
            core.state.configure(id, subscription);
            shell.nudge(core, id);
        }
        Ok(())
    }

    async fn receive(&self, subscription: &Subscription, max: usize, wait: Duration) -> Result<Vec<RawDelivery>> {
        self.handle.shell.check()?;
        self.handle.shell.receive(subscription, max, wait).await
    }

    async fn settle(&self, token: &DeliveryToken, settle: Settle) -> Result<()> {
        self.handle.shell.settle(token, settle).await
    }

    fn release(&self, token: &DeliveryToken) {
        self.handle.shell.release(token);
    }

    async fn stats(&self) -> Result<QueueStats> {
        Ok(DurableQueue::stats(self))
    }

    fn capability(&self) -> Capability {
        Capability::all()
    }
}

fn encode(topic: &str, message: &Message) -> Result<Bytes> {
    let entry = encode_message(topic, message);
    match entry.len() {
        len if len > MAX_MESSAGE => Err(Error::TooLarge { len, max: MAX_MESSAGE }),
        _ => Ok(entry),
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        len => Err(Error::invalid(format!(
            "{what} has a name of 1 to {MAX_NAME} bytes, not {len}"
        ))),
    }
}

fn check_subscription(wanted: &Subscription) -> Result<()> {
    check_name("a topic", &wanted.topic)?;
    check_name("a subscription", &wanted.name)?;
    if wanted.lease < Duration::from_millis(1) {
        return Err(Error::invalid("lease is at least a millisecond"));
    }
    if wanted.max_attempts == 0 {
        return Err(Error::invalid("max_attempts is at least 1"));
    }
    if !(1..=MAX_IN_FLIGHT).contains(&wanted.max_in_flight) {
        return Err(Error::invalid(format!("max_in_flight is 1 to {MAX_IN_FLIGHT}")));
    }
    Ok(())
}

impl fmt::Debug for DurableQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableQueue")
            .field("log", &self.handle.shell.log)
            .finish_non_exhaustive()
    }
}

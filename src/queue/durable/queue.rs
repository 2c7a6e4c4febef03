use super::found::Found;
use super::heart::state::State;
use super::limits::{Settings, check_name};
use super::notes::NOTES;
use super::pump;
use super::shell::Shell;
use crate::env::Env;
use crate::hash::KeyedHash;
use crate::log::{Durability, Log, LogOptions, OnDamage, Progress, Source, Verified};
use crate::queue::{
    Capability, DeliveryToken, Lost, Message, OnFull, OpenReport, Queue, QueueStats, RawDelivery, Receipt, Result,
    Retention, Settle, Subscription, Topic, VerifyProgress, VerifyReport,
};
use crate::sync::{AtomicU64, Mutex, Waiters};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The most messages that a subscription may have in flight.
const MAX_IN_FLIGHT: usize = 1 << 20;

/// A queue in a directory of this machine: many topics, one log, one sync for all who send at the same time. Cheap to
/// clone; the last clone to go closes it in the background.
///
/// - A **send** is durable when it returns (unless [`durability`](DurableQueueBuilder::durability) says less), and a batch
///   is sent as a whole or not at all: at most about 1 MiB together, 8 bytes for each message added. A message of half a
///   MiB or more counts for little there: up to 64 MiB of it are written ahead in pieces, between which others go.
/// - An **acknowledgement** is in force in this process when it returns, and durable by the next sync, which comes 5 ms
///   later at most; a crash before that delivers the message again.
///   [`ack_durability`](DurableQueueBuilder::ack_durability) has it wait. It never becomes durable before the message.
/// - A **repetition** of a message, by its [`dedup_id`](Message::dedup_id), is told from a message for two minutes and
///   100,000 ids, across restarts. One that comes while the first is still on its way waits for it, and fails with it; a
///   send that fails leaves no id behind.
/// - **Attempts** are written as they begin, without waiting: after a crash a message that was being handled counts as
///   tried, unless the record of it was among the last moments' writes. Retry times are not kept: after a restart
///   everything unsettled can be delivered at once.
/// - **Damage** on disk costs the messages that it hit. The rest is served. [`opened`](DurableQueue::opened) tells of damage to
///   what was written last, [`lost`](DurableQueue::lost) of messages that were found damaged when their turn came, and
///   [`verify`](DurableQueue::verify) reads everything. What is found damaged is copied into the directory `quarantine`.
/// - **Space** is freed by whole segments of the log, oldest first. A few messages that stay do not keep all that came
///   after them: they are written again at the end, in the background, as [`Retention`] tells.
/// - **Bounds**: names of 1 to 200 bytes, ids of 1 to 128; 10,000 subscriptions
///   ([`max_subscriptions`](DurableQueueBuilder::max_subscriptions)); 1,048,576 messages in flight for each
///   ([`max_in_flight`](Subscription::max_in_flight)); 16 GiB on disk ([`max_bytes`](DurableQueueBuilder::max_bytes), where
///   [`on_full`](DurableQueueBuilder::on_full) says what then; acknowledgements still go through); messages for as long
///   as somebody needs them ([`retention`](DurableQueueBuilder::retention)); 16 MiB on their way to the disk, after which
///   sends wait.
/// - **Memory**: 16 bytes for each message kept, 64 in all while it is in flight and 68 while it is delayed, 50 more once it
///   was written again, 50 for each id remembered, 32 for each write that the log keeps (small ones that come together are one,
///   up to 16 KiB), 16 for each second in which a topic got messages, the cache of recent messages, and the summary of the
///   newest segment: about 5 for each message and 8 for each write in it.
/// - **Time under the lock** that all share does not grow with the queue where it would grow most: what is not due or over
///   is passed over in portions of 1,024 messages, what restarts need to know of open messages is written in parts of
///   16 KiB at most, and settled messages are looked for in portions of 1,024. It does grow with the number of topics and
///   subscriptions, and with the messages written again.
///
/// After a failed write or sync everything fails with [`Error::Poisoned`](crate::queue::Error::Poisoned); open the queue again then, which trusts
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
///
/// ```
/// use outgrow::queue::{DurableQueue, Durability, Message, OnFull, Retention};
/// use std::time::Duration;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-builder-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// let queue = DurableQueue::builder()
///     .max_bytes(1 << 30)
///     .on_full(OnFull::Wait)
///     .topic_retention("prices", Retention::all().max_messages(1_000))
///     .dedup_window(Duration::from_secs(600))
///     .ack_durability(Durability::Disk)
///     .open(&dir)
///     .await?;
/// let orders = queue.topic("orders");
/// let first = orders.send(Message::new("two tins").dedup_id("order-17")).await?;
/// let again = orders.send(Message::new("two tins").dedup_id("order-17")).await?;
/// assert!(again.duplicate && again.seq == first.seq);
/// queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DurableQueueBuilder {
    env: Env,
    pub(super) settings: Settings,
}

impl DurableQueueBuilder {
    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// How large a segment of the log gets; space is freed by whole segments, and opening may read one into memory.
    /// Default: 64 MiB; taken up to 8 KiB, or down to 1 GiB and a quarter of
    /// [`max_bytes`](DurableQueueBuilder::max_bytes).
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.settings.segment_bytes = bytes;
        self
    }

    /// How many bytes the log may have on disk; when it has them, sends do what
    /// [`on_full`](DurableQueueBuilder::on_full) says. Acknowledgements still go through. Default: 16 GiB; at least
    /// 24 KiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// What a send does while there is no room. Default: [`OnFull::Refuse`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.settings.on_full = on_full;
        self
    }

    /// How long topics keep their messages. Default: [`Retention::acknowledged`].
    pub fn retention(mut self, retention: Retention) -> Self {
        self.settings.retention = retention;
        self
    }

    /// How long the topic called `name` keeps its messages. Default: as all.
    pub fn topic_retention(mut self, name: &str, retention: Retention) -> Self {
        self.settings.topics.insert(name.into(), retention);
        self
    }

    /// For how long a message's [id](Message::dedup_id) is remembered after it was sent. Default: 2 minutes; zero tells
    /// no repetition.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.settings.dedup_window = window;
        self
    }

    /// How many ids are remembered at most, each for about 50 bytes of memory; then the oldest are forgotten before
    /// their time, and counted in [`QueueStats::forgotten_ids`]. Default: 100,000; zero tells no repetition; taken down
    /// to 2^31.
    pub fn dedup_ids(mut self, ids: usize) -> Self {
        self.settings.dedup_ids = ids;
        self
    }

    /// How many subscriptions there may be; making more fails with [`Error::Full`](crate::queue::Error::Full). Default: 10,000; at least 1.
    pub fn max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.settings.max_subscriptions = subscriptions;
        self
    }

    /// What holds when a send, a subscription or a dead letter returns. Default: [`Durability::Disk`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// What holds when an acknowledgement returns. Default: [`Durability::Os`], which here is less than for a send: it is
    /// in force in this process, the log has it 5 ms later at most, and it is as durable as sends are with the sync that
    /// follows. [`Durability::Disk`] waits for that sync.
    pub fn ack_durability(mut self, durability: Durability) -> Self {
        self.settings.ack_durability = durability;
        self
    }

    /// Has opening read and check all that is on disk, so that all damage is found, kept aside and told by
    /// [`DurableQueue::opened`] now, and not when it comes to be delivered; the rest is served.
    pub fn find_damage(mut self) -> Self {
        self.settings.on_damage = OnDamage::Find;
        self
    }

    /// Has opening read all that is on disk, and fail with [`Error::Corrupt`](crate::queue::Error::Corrupt), and change nothing, when anything is damaged.
    /// Default: the rest is served, and [`DurableQueue::opened`] tells what was found.
    pub fn refuse_damage(mut self) -> Self {
        self.settings.on_damage = OnDamage::Refuse;
        self
    }

    /// How many bytes of recent messages are kept in memory, of topics with subscriptions; others are read from disk.
    /// Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.cache_bytes = bytes;
        self
    }

    /// Opens the queue in `dir`, which is made if it does not exist. Reads the newest segment and short summaries of the
    /// others, about 5 bytes for each message and 8 for each write; a segment without one, as the last one has none after
    /// a crash, is read as a whole.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::queue::Error::Invalid) when a setting is out of its bounds; [`Error::Locked`](crate::queue::Error::Locked) when it is open already, here or in
    /// another process; [`Error::Corrupt`](crate::queue::Error::Corrupt) when a later release wrote it, or when a record
    /// whose checksum is sound contradicts those before it; [`Error::Io`](crate::queue::Error::Io). A torn write at the
    /// end, and damage, are not errors: see [`DurableQueue::opened`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up opening; the directory is free again shortly after.
    pub async fn open(self, dir: impl AsRef<Path>) -> Result<DurableQueue> {
        let (env, settings) = (self.env, self.settings.check()?);
        let options = LogOptions {
            segment_bytes: settings.segment_bytes,
            on_damage: settings.on_damage,
            ..LogOptions::default()
        };
        let (log, report) = Log::open_noting(&env, dir.as_ref(), options, Some(NOTES)).await?;
        let mut rng = env.rng("queue");
        let keys = KeyedHash::new(rng.next_u64(), rng.next_u64());
        let recalled = log.recall();
        let salt = rng.next_u64();
        let mut damaged = !report.gaps.is_empty();
        let found = loop {
            let mut found = Found::new(State::new(salt), &settings, env.wall());
            found.state.begins_at(report.range.start, damaged);
            found.take(&log, &recalled, &keys).await?;
            // Entries that were read may turn out to be damaged. What they held is only told by watching from the beginning.
            if damaged || !found.is_damaged() {
                break found;
            }
            damaged = true;
        };
        let (mut core, lost) = found.finish(&env, &settings, (rng.next_u64(), rng.next_u64()));
        core.untold.opened_at = report.range.end;
        core.trim(&settings);
        core.retain_all(&settings, &env);
        let damaged = report.damage.iter().map(|damage| {
            let (segment, bytes) = (damage.segment, &damage.bytes);
            format!("segment {segment:x} bytes {}..{}", bytes.start, bytes.end)
        });
        let opened = OpenReport {
            messages: core.state.stats().values().map(|topic| topic.messages).sum(),
            bytes: report.bytes,
            torn_bytes: report.torn,
            lost,
            damaged: damaged.collect(),
            quarantined: report.quarantine.clone(),
        };
        let shell = Arc::new(Shell {
            env,
            log,
            settings,
            keys,
            ids: core.dedup.hash,
            core: Mutex::new(core),
            pump: Waiters::default(),
            room: Waiters::default(),
            ended: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shell);
        shell.log.on_commit(move || {
            if let Some(shell) = weak.upgrade() {
                shell.committed();
            }
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
            settings: Settings::default(),
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

    /// The messages that were found damaged when their turn came, since the queue was opened: the latest 1,000 of those that
    /// [`QueueStats::lost`] counts. The damaged bytes are in the directory `quarantine`.
    #[must_use]
    pub fn lost(&self) -> Vec<Lost> {
        let core = self.handle.shell.core.lock();
        let lost = core.state.lost_seqs.iter().map(|seq| Lost {
            seqs: *seq..seq + 1,
            why: "it is damaged on disk".into(),
        });
        lost.collect()
    }

    /// Reads the whole log from the device and compares checksums, beside those who use the queue. `progress` is called now
    /// and then. Takes time in proportion to the bytes on disk.
    ///
    /// # Errors
    /// [`Error::Io`](crate::queue::Error::Io) and [`Error::Closed`](crate::queue::Error::Closed). Damage is not an error.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    ///
    /// ```
    /// # use outgrow::queue::DurableQueue;
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-verify-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// let queue = DurableQueue::open(&dir).await?;
    /// queue.topic("mail").send("to Ada").await?;
    /// let found = queue.verify(|progress| assert!(progress.done <= progress.of)).await?;
    /// assert!(found.entries >= 1 && found.lost.is_empty());
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn verify(&self, progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        self.verify_from(Source::Device, progress).await
    }

    /// As [`verify`](DurableQueue::verify), but what the operating system has in memory is not asked of the device: faster
    /// where it has much, and finds what a process would be given that reads now.
    ///
    /// # Errors
    /// As for [`verify`](DurableQueue::verify).
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    ///
    /// ```
    /// # use outgrow::queue::DurableQueue;
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-verify-cached-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// let queue = DurableQueue::open(&dir).await?;
    /// queue.topic("mail").send("to Ada").await?;
    /// let found = queue.verify_cached(|_| ()).await?;
    /// assert!(found.entries >= 1 && found.lost.is_empty());
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub async fn verify_cached(&self, progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        self.verify_from(Source::Memory, progress).await
    }

    async fn verify_from(&self, from: Source, mut progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        let told = |at: Progress| {
            progress(VerifyProgress {
                done: at.done,
                of: at.of,
            });
        };
        let found: Verified = self.handle.shell.log.verify(from, told).await?;
        Ok(VerifyReport {
            entries: found.entries,
            bytes: found.bytes,
            lost: found.lost.into_iter().map(Lost::from).collect(),
        })
    }

    /// What it holds and has done.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let shell = &self.handle.shell;
        let log = shell.log.stats();
        let wall = shell.env.wall();
        let mut core = shell.core.lock();
        core.trim(&shell.settings);
        QueueStats {
            topics: core.topic_stats(wall),
            lost: core.state.lost,
            forgotten_ids: core.dedup.forgotten,
            bytes: log.bytes,
            syncs: log.syncs,
            sync_times: log.sync_times,
            ..core.counts.clone()
        }
    }

    /// Whether it takes and gives messages, for a health check.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::queue::Error::Closed), or [`Error::Poisoned`](crate::queue::Error::Poisoned) after a failed write or sync.
    pub fn check(&self) -> Result<()> {
        self.handle.shell.check()
    }

    /// Takes nothing more, writes what is on its way, and frees the directory. Subscribers come to their end. Every
    /// clone is closed with it.
    ///
    /// # Cancel safety
    /// Dropping it does not undo it: closing goes on.
    pub async fn close(&self) {
        let shell = &self.handle.shell;
        shell.close();
        for acks in shell.write_untold().await {
            // One that cannot be written delivers its message again.
            drop(acks.done().await);
        }
        shell.log.close().await;
    }

    pub(super) fn shell(&self) -> &Arc<Shell> {
        &self.handle.shell
    }
}

#[deny(clippy::missing_trait_methods)]
impl Queue for DurableQueue {
    async fn send(&self, topic: &str, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        let shell = &self.handle.shell;
        let batch = shell.batch(topic, &messages)?;
        drop(messages);
        Ok(shell.send(batch).await?.receipts())
    }

    async fn send_one(&self, topic: &str, message: Message) -> Result<Receipt> {
        let shell = &self.handle.shell;
        let batch = shell.batch(topic, std::slice::from_ref(&message))?;
        drop(message);
        Ok(shell.send(batch).await?.receipt())
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<()> {
        check_subscription(subscription)?;
        self.handle.shell.subscribe(subscription).await
    }

    async fn receive(&self, subscription: &Subscription, max: usize, wait: Duration) -> Result<Vec<RawDelivery>> {
        self.handle.shell.check()?;
        self.handle.shell.receive(subscription, max, wait).await
    }

    fn settle(&self, token: &DeliveryToken, settle: Settle) -> impl Future<Output = Result<()>> + Send {
        self.handle.shell.settle(token, settle)
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

fn check_subscription(wanted: &Subscription) -> Result<()> {
    check_name("a topic", &wanted.topic)?;
    check_name("a subscription", &wanted.name)?;
    wanted.check(MAX_IN_FLIGHT)
}

impl fmt::Debug for DurableQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableQueue")
            .field("log", &self.handle.shell.log)
            .finish_non_exhaustive()
    }
}

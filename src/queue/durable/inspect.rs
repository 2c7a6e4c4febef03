//! A look at a queue's directory from outside.

use super::found::Found;
use super::heart::state::State;
use super::inspected::{DamagedBytes, InspectProgress, MessageView, SegmentView, SubscriptionView, TopicView};
use super::limits::Settings;
use super::record::Record;
use crate::env::Env;
use crate::hash::KeyedHash;
use crate::log::{Item, LogError, SegmentAt, View};
use crate::queue::{DurableQueue, Error, Lost, Result, Subscription, dead_letters};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How much is read at once.
const READ_AHEAD: usize = 1 << 20;
/// How often a look begins anew since the queue has moved on.
const TRIES: usize = 32;

impl DurableQueue {
    /// Looks at the queue in `dir` without opening it, whether or not a process has it open: what it holds, where its
    /// subscriptions stand, and whether its bytes are as they were written. See [`Inspection`].
    ///
    /// # Errors
    /// As [`Inspector::look`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn inspect(dir: impl AsRef<Path>) -> Result<Inspection> {
        DurableQueue::inspector().look(dir).await
    }

    /// An inspection with other settings.
    pub fn inspector() -> Inspector {
        Inspector {
            env: Env::default(),
            from_device: false,
        }
    }
}

/// Makes an [`Inspection`].
///
/// ```
/// use outgrow::queue::DurableQueue;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-inspector-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// queue.topic("mail").send("to Ada").await?;
/// queue.close().await;
///
/// let mut read = 0;
/// let inspector = DurableQueue::inspector().from_device();
/// let found = inspector.look_with(&dir, |progress| read = progress.done).await?;
/// assert!(found.damaged().is_empty() && read > 0);
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Inspector {
    env: Env,
    from_device: bool,
}

impl Inspector {
    /// The world that the directory is in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Reads from the device what the operating system could answer from memory, so that what it says of damage is true of
    /// the device. Default: no, which is faster, and finds what a process would be given that reads now.
    pub fn from_device(mut self) -> Self {
        self.from_device = true;
        self
    }

    /// Looks at the queue in `dir`. Takes time in proportion to the bytes there, all of which are read and compared with
    /// their checksums, for a while the memory of a segment or two, and the memory that the open queue needs for what it
    /// keeps, without its cache.
    ///
    /// # Errors
    /// [`Error::Io`]: the directory does not exist, or may not be read, or the queue moved on many times before it was
    /// read once. [`Error::Corrupt`] when a later release wrote it. Damage is not an error.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn look(self, dir: impl AsRef<Path>) -> Result<Inspection> {
        self.look_with(dir, |_| {}).await
    }

    /// As [`look`](Inspector::look); `progress` is called after each file.
    ///
    /// # Errors
    /// As for [`look`](Inspector::look).
    ///
    /// # Cancel safety
    /// As for [`look`](Inspector::look).
    pub async fn look_with(
        self,
        dir: impl AsRef<Path>,
        mut progress: impl FnMut(InspectProgress),
    ) -> Result<Inspection> {
        let env = &self.env;
        for _ in 0..TRIES {
            let told = |done, of| progress(InspectProgress { done, of });
            let mut view = View::open(env, dir.as_ref(), self.from_device, told).await?;
            if let Some(found) = replay(env, &mut view).await? {
                return Ok(Inspection::new(env, view, found));
            }
        }
        Err(Error::from(LogError::moved_on()))
    }
}

/// Takes everything that the log says; nothing when some of it went before it was read.
async fn replay(env: &Env, view: &mut View) -> Result<Option<Found>> {
    let mut rng = env.rng("inspect");
    let keys = KeyedHash::new(rng.next_u64(), rng.next_u64());
    let settings = Settings {
        cache_bytes: 0,
        dedup_ids: 0,
        ..Settings::default()
    };
    let mut found = Found::new(State::new(rng.next_u64()), &settings, env.wall());
    let whole = view.range();
    found.state.begins_at(whole.start, !view.gaps.is_empty());
    let mut next = whole.start;
    while next < whole.end {
        let items = view.read(next..whole.end, READ_AHEAD).await?;
        if view.range().start > whole.start {
            return Ok(None);
        }
        let Some(last) = items.last() else { break };
        next = last.end();
        items.into_iter().try_for_each(|item| found.item(item, &keys))?;
    }
    Ok(Some(found))
}

/// A queue's directory, looked at from outside: made by [`DurableQueue::inspect`].
///
/// Nothing is locked, written, deleted or quarantined, so it may be made beside a process that has the queue open, and goes
/// on to be true of the moment in which it was made. What is half written at the end is what that process is writing, or
/// what a crash cut short, and does not count ([`unfinished_bytes`](Inspection::unfinished_bytes)); what the kernel has
/// and the device does not yet is shown.
///
/// What only the process knows is not here: who holds which message, until when a retry waits, whether a subscription is
/// ordered, and what was acknowledged in the last few milliseconds.
///
/// ```
/// use outgrow::queue::DurableQueue;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-inspect-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// let queue = DurableQueue::open(&dir).await?;
/// let mail = queue.topic("mail");
/// let mut jobs = mail.subscribe("mailer").build().await?;
/// mail.send_all(["to Ada", "to Grace"]).await?;
///
/// // Here or in another process, while the queue is open.
/// let mut inspection = DurableQueue::inspect(&dir).await?;
/// let mailer = inspection.topics()["mail"].subscriptions["mailer"];
/// assert_eq!((mailer.backlog, mailer.tried), (2, 0));
/// let next = inspection.peek("mail", "mailer", 1).await?;
/// assert_eq!(next[0].message.payload, "to Ada");
///
/// let mut messages = inspection.messages(Some("mail"));
/// while let Some(found) = messages.next().await? {
///     assert!(found.kept && found.open == [("mailer".to_owned(), 0)]);
/// }
/// assert!(inspection.damaged().is_empty());
/// # drop(jobs);
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
pub struct Inspection {
    view: View,
    state: State,
    env: Env,
    topics: BTreeMap<String, TopicView>,
    segments: Vec<SegmentView>,
    damaged: Vec<DamagedBytes>,
    lost: Vec<Lost>,
}

impl Inspection {
    fn new(env: &Env, view: View, mut found: Found) -> Inspection {
        let (now, wall) = (env.now(), env.wall());
        let missing = found.complete();
        // What has come due is made ready in parts.
        while !found.state.expire(now, wall).is_empty() {}
        found.state.trim(|_| false);
        found.state.sweep_all();
        let damaged: Vec<DamagedBytes> = view
            .damage
            .iter()
            .zip(view.lost_at())
            .map(|(damage, lost)| DamagedBytes {
                segment: damage.segment,
                bytes: damage.bytes.clone(),
                lost,
            })
            .collect();
        let segment = |at: SegmentAt| SegmentView {
            segment: at.id,
            first: at.base,
            bytes: at.len,
            file_bytes: at.size,
            damaged: damaged.iter().filter(|damage| damage.segment == at.id).count(),
        };
        Inspection {
            segments: view.segments().map(segment).collect(),
            lost: view.gaps.iter().cloned().map(Lost::from).chain(missing).collect(),
            topics: topics(&found, env),
            state: found.state,
            env: env.clone(),
            damaged,
            view,
        }
    }

    /// Every topic that has messages or subscriptions.
    #[must_use]
    pub fn topics(&self) -> &BTreeMap<String, TopicView> {
        &self.topics
    }

    /// The files of the log, oldest first. None are there where no queue ever was.
    #[must_use]
    pub fn segments(&self) -> &[SegmentView] {
        &self.segments
    }

    /// Bytes on disk, without the zeros that wait to be written over.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes at the end that are no whole write: one is under way, or a crash cut it short. Nobody was told that they are
    /// there.
    #[must_use]
    pub fn unfinished_bytes(&self) -> u64 {
        self.view.unfinished
    }

    /// Entries in the log, whatever they are: messages, acknowledgements and the rest. Those that are lost are not counted.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let range = self.view.range();
        let gaps = self.view.gaps.iter().map(|gap| &gap.range);
        let lost: u64 = gaps.map(|lost| lost.end - lost.start).sum();
        range.end - range.start - lost
    }

    /// Places on disk that are not as they were written.
    #[must_use]
    pub fn damaged(&self) -> &[DamagedBytes] {
        &self.damaged
    }

    /// What is lost for it.
    #[must_use]
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Up to `max` messages that a consumer of the subscription would be given next if nobody held any, in that order. Those
    /// that are delayed are left out, and those that wait for a retry are not.
    ///
    /// # Errors
    /// [`Error::NoSubscription`], [`Error::Io`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn peek(&mut self, topic: &str, subscription: &str, max: usize) -> Result<Vec<MessageView>> {
        let none = || Error::NoSubscription {
            topic: topic.to_owned(),
            name: subscription.to_owned(),
        };
        let id = self.state.find(topic, subscription).ok_or_else(none)?;
        // The state is a copy, whose leases nobody sees; they are taken back all the same, for the next look.
        self.state.configure(
            id,
            &Subscription {
                max_in_flight: usize::MAX,
                max_attempts: u32::MAX,
                ..Subscription::new(topic, subscription)
            },
        );
        let mut leases = Vec::new();
        loop {
            let wanted = max - leases.len();
            let taken = self.state.take(self.env.now(), self.env.wall(), id, wanted);
            leases.extend(taken.leases);
            if !taken.more || leases.len() >= max {
                break;
            }
        }
        self.state.unlease(id, &leases);
        let mut found = Vec::with_capacity(leases.len());
        for lease in leases {
            let at = self.state.copies.place(lease.seq);
            for item in self.view.read(at..at + 1, 0).await? {
                if let Item::Record { seq, bytes } = item {
                    found.extend(self.message(seq, &bytes, Some(topic))?);
                }
            }
        }
        Ok(found)
    }

    /// Every message on disk, or every one of a topic, in the order in which they lie there: that of their numbers, but for
    /// those that were written again, as [`Retention`](super::Retention) tells; each comes once. Also those that are settled,
    /// until their space is freed. What was released since this was made is left out. Takes about 50 bytes of memory for
    /// each settled message that was written again.
    pub fn messages(&mut self, topic: Option<&str>) -> Messages<'_> {
        Messages {
            next: self.view.range().start,
            ahead: VecDeque::new(),
            copied: BTreeSet::new(),
            topic: topic.map(str::to_owned),
            of: self,
        }
    }

    /// Whether the entry at number `at` of the log is where message `seq` lies. Of one that the queue has forgotten that may
    /// also be a copy, which is one of several then.
    fn is_place(&self, at: u64, seq: u64) -> Place {
        let copies = &self.state.copies;
        match copies.find(seq) {
            Some(place) if place == at => Place::Only,
            None if at == seq => Place::Only,
            None if seq < copies.home() => Place::Some,
            _ => Place::Other,
        }
    }

    /// What the entry at number `at` of the log says, if it is a message of the topic.
    fn message(&self, at: u64, entry: &Bytes, topic: Option<&str>) -> Result<Option<MessageView>> {
        let Some((seq, bytes)) = Record::message_in(at, entry) else {
            return Ok(None);
        };
        let wanted = Record::topic_of(&bytes).filter(|of| topic.is_none_or(|topic| topic.as_bytes() == *of));
        if wanted.is_none() {
            return Ok(None);
        }
        let corrupt = |malformed| Error::Corrupt {
            what: format!("entry {seq}: {malformed}"),
        };
        match Record::decode(&bytes).map_err(corrupt)? {
            Record::Message { topic, sent, message } => {
                let open = self.state.open_to(&topic, seq);
                Ok(Some(MessageView {
                    seq,
                    enqueued_at: sent,
                    message,
                    kept: open.is_some(),
                    open: open.unwrap_or_default(),
                    topic,
                }))
            }
            _ => Ok(None),
        }
    }
}

/// Whether an entry is what is to be shown of a message.
enum Place {
    Only,
    /// If no other was shown before it.
    Some,
    Other,
}

/// What topics hold, and how far behind their subscriptions are.
fn topics(found: &Found, env: &Env) -> BTreeMap<String, TopicView> {
    let (state, wall) = (&found.state, env.wall());
    let stats = state.stats();
    let dead = |topic: &str| stats.get(&dead_letters(topic)).map_or(0, |dead| dead.messages);
    let view = |topic: &str, name: &str, stats: &crate::queue::SubscriptionStats| {
        let id = state.find(topic, name)?;
        let oldest = state.oldest_unsettled(id);
        let sent = oldest
            .zip(found.ages.get(topic))
            .and_then(|(oldest, ages)| ages.of(oldest));
        Some(SubscriptionView {
            backlog: stats.backlog,
            tried: state.tried(id),
            delayed: state.delayed(id, wall),
            lag: stats.lag,
            oldest,
            oldest_age: sent.map_or(Duration::ZERO, |sent| wall - sent),
        })
    };
    let topic = |(topic, stats): (&String, &crate::queue::TopicStats)| {
        let subscriptions = stats.subscriptions.iter();
        let subscriptions = subscriptions.filter_map(|(name, stats)| Some((name.clone(), view(topic, name, stats)?)));
        let view = TopicView {
            messages: stats.messages,
            bytes: stats.bytes,
            dead_letters: dead(topic),
            subscriptions: subscriptions.collect(),
        };
        (topic.clone(), view)
    };
    stats.iter().map(topic).collect()
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection")
            .field("topics", &self.topics.keys())
            .field("segments", &self.segments.len())
            .field("damaged", &self.damaged)
            .finish_non_exhaustive()
    }
}

/// The messages in a log; made by [`Inspection::messages`].
#[derive(Debug)]
pub struct Messages<'a> {
    of: &'a mut Inspection,
    topic: Option<String>,
    next: u64,
    ahead: VecDeque<Item>,
    /// Messages shown of which several copies may be there.
    copied: BTreeSet<u64>,
}

impl Messages<'_> {
    /// The next message, or nothing at the end.
    ///
    /// # Errors
    /// [`Error::Io`]; the next call tries the same again.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Result<Option<MessageView>> {
        loop {
            let Some(item) = self.ahead.pop_front() else {
                let end = self.of.view.range().end;
                self.ahead = self.of.view.read(self.next..end, READ_AHEAD).await?.into();
                if self.ahead.is_empty() {
                    return Ok(None);
                }
                continue;
            };
            self.next = item.end();
            let Item::Record { seq: at, bytes } = item else {
                continue;
            };
            let Some(found) = self.of.message(at, &bytes, self.topic.as_deref())? else {
                continue;
            };
            let is_shown = match self.of.is_place(at, found.seq) {
                Place::Only => true,
                Place::Some => self.copied.insert(found.seq),
                Place::Other => false,
            };
            if is_shown {
                return Ok(Some(found));
            }
        }
    }
}

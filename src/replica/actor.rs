//! A node's task: the one owner of its log, its engine and its role. It takes what has arrived, all at once, and acts on
//! it in order; whatever takes time on the way (a sync, another node's answer, a checkpoint) comes back as an event.

use super::accept::{Acceptor, Answer};
use super::choose::Promised as Candidate;
use super::entry::Entry;
use super::lead::Lead;
use super::meta::Meta;
use super::node::{Live, Message, PromiseAnswer, Refused};
use super::open::{Opened, from_log};
use super::saving::Checkpoints;
use super::shared::{Options, Shared};
use super::status::Role;
use super::window::Window;
use crate::env::{Env, Sleep, Tick};
use crate::log::{Append, Item, Log, LogError};
use crate::store::{Effect, Engine, Error, Position, Result};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::task::Poll;

/// Messages taken in one turn.
const TURN: usize = 1_024;
/// What one read of the log brings, and what one message to another node carries, roughly.
pub(super) const CHUNK: usize = 512 << 10;

pub(super) struct Actor {
    pub(super) env: Env,
    pub(super) shared: Weak<Shared>,
    pub(super) options: Arc<Options>,
    pub(super) me: usize,
    pub(super) dir: PathBuf,
    pub(super) log: Log,
    pub(super) meta: Meta,
    pub(super) accept: Acceptor,
    pub(super) live: Arc<Live>,
    pub(super) window: Window,
    /// Present while this node is the primary.
    pub(super) lead: Option<Lead>,
    pub(super) checkpoints: Checkpoints,
    pub(super) events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Appends awaited as events so far, how many of them have come to their end, and the first that still counts.
    appends: u64,
    written: u64,
    void_before: u64,
    alarm: Option<(Tick, Sleep)>,
    pub(super) presence: Presence,
}

/// Something that was begun earlier has come to an end.
pub(super) enum Event {
    /// An append to the log, the `id`-th, which ends with the record `last`.
    Written {
        id: u64,
        last: u64,
        result: Result<(), LogError>,
    },
    /// A message to another node, begun in this epoch.
    Sent {
        epoch: u64,
        node: usize,
        round: u64,
        how: Outcome,
    },
    Checkpointed(u64, std::io::Result<()>),
    Released,
}

/// How a message to another node went.
pub(super) enum Outcome {
    Answered(Answer),
    /// Nobody is there.
    Gone,
    /// The message or its answer got lost; the pause after it is over.
    Lost,
    /// The log cannot be read where the records are that it was to carry.
    Unreadable,
}

/// Why the task ends.
pub(super) enum Stop {
    /// It was told to, or nobody is left to talk to it.
    Asked,
    /// It cannot go on: it has to be opened again.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Stop {
        Stop::Failed(from_log(error))
    }
}

/// Whatever a turn brought.
#[derive(Default)]
struct Turn {
    events: Vec<Event>,
    messages: Vec<Message>,
    /// Nobody can send a message any more.
    closed: bool,
}

impl Actor {
    /// A node that takes part in a store, as `meta` says; both are on disk.
    pub(super) fn new(opened: Opened, meta: Meta, me: usize, life: u64, shared: &Arc<Shared>) -> Actor {
        let checkpoint = opened.live.engine.applied().seq;
        let accept = Acceptor::new(meta.promised, meta.voter, opened.history, opened.last, checkpoint);
        let role = if meta.voter { Role::Replica } else { Role::Learner };
        let presence = Presence {
            shared: Arc::downgrade(shared),
            me,
            life,
            live: Arc::clone(&opened.live),
            why: None,
        };
        presence.report(role, accept.last(), accept.promised());
        Actor {
            env: opened.env,
            shared: Arc::downgrade(shared),
            options: Arc::clone(&shared.options),
            me,
            dir: opened.dir,
            log: opened.log,
            meta,
            accept,
            live: opened.live,
            window: Window::new(shared.options.window_bytes),
            lead: None,
            checkpoints: Checkpoints::found(checkpoint, opened.older),
            events: FuturesUnordered::new(),
            appends: 0,
            written: 0,
            void_before: 0,
            alarm: None,
            presence,
        }
    }

    /// Works until it is told to stop, or cannot go on.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            let turn = self.next(&mut inbox).await;
            match self.turn(turn).await {
                Ok(()) => {}
                Err(Stop::Asked) => break,
                Err(Stop::Failed(error)) => {
                    self.presence.why = Some(error.to_string());
                    break;
                }
            }
        }
        self.step_down("the node has stopped");
        self.log.close().await;
    }

    /// Waits for messages, events, or the time at which somebody has waited long enough.
    async fn next(&mut self, inbox: &mut mpsc::UnboundedReceiver<Message>) -> Turn {
        // One that rings for nobody any more does no harm, and saves arming another for each write.
        if let Some(at) = self.lead.as_ref().and_then(Lead::deadline)
            && self.alarm.as_ref().is_none_or(|(armed, _)| at < *armed)
        {
            self.alarm = Some((at, self.env.sleep_until(at)));
        }
        poll_fn(|cx| {
            let mut turn = Turn::default();
            while let Poll::Ready(Some(event)) = self.events.poll_next_unpin(cx) {
                turn.events.push(event);
            }
            while turn.messages.len() < TURN && !turn.closed {
                match inbox.poll_next_unpin(cx) {
                    Poll::Ready(Some(message)) => turn.messages.push(message),
                    Poll::Ready(None) => turn.closed = true,
                    Poll::Pending => break,
                }
            }
            let rang = self
                .alarm
                .as_mut()
                .is_some_and(|(_, alarm)| alarm.poll_unpin(cx).is_ready());
            if rang {
                self.alarm = None;
            }
            let idle = turn.events.is_empty() && turn.messages.is_empty() && !turn.closed && !rang;
            if idle { Poll::Pending } else { Poll::Ready(turn) }
        })
        .await
    }

    async fn turn(&mut self, turn: Turn) -> Result<(), Stop> {
        for event in turn.events {
            self.event(event)?;
        }
        for message in turn.messages {
            if !matches!(message, Message::Commit(_)) {
                self.write_down().await?;
            }
            self.message(message).await?;
        }
        self.write_down().await?;
        if turn.closed {
            return Err(Stop::Asked);
        }
        if self.lead.is_some() {
            self.advance().await?;
        }
        self.start_checkpoint();
        Ok(())
    }

    async fn message(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Commit(write) => self.commit(write),
            Message::Append(append, reply) => answer(reply, self.on_append(append).await?),
            Message::Install(install, reply) => answer(reply, self.on_install(*install).await?),
            Message::Admit { epoch, reply } => answer(reply, self.on_admit(epoch).await?),
            Message::Promise { epoch, reply } => answer(reply, self.on_promise(epoch).await?),
            Message::Promote { epoch, reply } => self.on_promote(epoch, reply),
            Message::Restate { keys, reply } => self.restate(&keys, reply)?,
            Message::Back(node) => self.on_back(node),
            Message::Ping(reply) => answer(reply, ()),
            Message::Close(reply) => {
                self.step_down("the store is closing");
                self.log.close().await;
                answer(reply, ());
                return Err(Stop::Asked);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Written { id, last, result } => {
                self.written = id.max(self.written);
                match result {
                    Ok(()) if id >= self.void_before => self.on_written(last),
                    Err(LogError::Full) if id >= self.void_before => self.on_full(),
                    Ok(()) | Err(LogError::Full) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Event::Sent {
                epoch,
                node,
                round,
                how,
            } => self.on_sent(epoch, node, round, &how),
            Event::Checkpointed(seq, result) => self.on_checkpoint(seq, &result),
            Event::Released => {}
        }
        Ok(())
    }

    /// Promises an epoch: whoever asks as the primary of an older one is refused from now on.
    async fn on_promise(&mut self, epoch: u64) -> Result<PromiseAnswer, Stop> {
        if !self.accept.may_promise(epoch) {
            let promised = self.accept.promised();
            return Ok(PromiseAnswer::Refused { promised });
        }
        self.promise(epoch).await?;
        Ok(PromiseAnswer::Promised {
            promised: Candidate {
                node: self.me,
                last: self.accept.last(),
                voter: self.accept.voter(),
            },
            history: self.accept.history().clone(),
            applied: self.live.engine.applied(),
        })
    }

    /// Ceases to be a primary, waits until the log is on disk as it is, then writes the promise down.
    pub(super) async fn promise(&mut self, epoch: u64) -> Result<(), Stop> {
        self.step_down("a newer epoch has begun");
        while self.written < self.appends
            && let Some(event) = self.events.next().await
        {
            self.event(event)?;
        }
        let durable = self.log.durable();
        if durable <= self.accept.last().seq {
            // The disk had no room for the rest.
            self.accept.cut(durable - 1);
            self.window.cut(durable - 1);
        }
        self.remember(Meta {
            promised: epoch,
            ..self.meta.clone()
        })
        .await?;
        self.accept.promise(epoch);
        self.tell();
        Ok(())
    }

    pub(super) async fn remember(&mut self, meta: Meta) -> Result<(), Stop> {
        let written = meta.write(&self.env, &self.dir).await;
        written.map_err(|e| Error::io(&e, Effect::Unknown))?;
        self.meta = meta;
        Ok(())
    }

    /// Appends entries to the log, in frames that it takes.
    pub(super) async fn append_to_log(&mut self, entries: &[Entry]) -> Result<Vec<(u64, Append)>, Stop> {
        let mut appends = Vec::new();
        for group in frames(entries) {
            let bytes: Vec<Bytes> = group.iter().map(|entry| entry.bytes.clone()).collect();
            let append = self.log.append(&bytes)?;
            let (first, last) = (group[0].at.seq, group[group.len() - 1].at.seq);
            if append.seqs() != (first..last + 1) {
                // The disk was full, an earlier append has failed, and its numbers were given again.
                self.log.truncate_after(append.seqs().start - 1).await?;
                return Err(LogError::Full.into());
            }
            for entry in group {
                self.accept.push(entry.at);
                self.window.push(entry.clone());
            }
            appends.push((last, append));
        }
        Ok(appends)
    }

    /// Numbers an append whose end is awaited as an event.
    pub(super) fn count_append(&mut self) -> u64 {
        self.appends += 1;
        self.appends
    }

    /// Whatever comes of the appends so far, it is not waited for any more.
    pub(super) fn void_appends(&mut self) {
        self.void_before = self.appends + 1;
    }

    /// Records of the log from `from` to `to`, some at least: from memory, else from disk.
    pub(super) async fn entries(&mut self, from: u64, to: u64) -> Result<Vec<Entry>, Stop> {
        match self.window.get(from, to, CHUNK) {
            Some(entries) => Ok(entries),
            None => Ok(read_log(&self.log, from, to).await?),
        }
    }

    /// Lets readers and the rest of the store know what has changed.
    pub(super) fn tell(&self) {
        let role = match (&self.lead, self.accept.voter()) {
            (Some(_), _) => Role::Primary,
            (None, true) => Role::Replica,
            (None, false) => Role::Learner,
        };
        let durable = (self.log.durable() - 1).min(self.accept.last().seq);
        let durable = self.accept.history().at(durable);
        self.presence.report(role, durable, self.accept.promised());
        if let Some(shared) = self.shared.upgrade() {
            shared.moved.wake_all();
        }
    }

    /// Puts another engine in the place of the present one; readers of that keep it until they are done.
    pub(super) fn replace_live(&mut self, live: Arc<Live>) {
        self.live.set_serving(false);
        self.live = Arc::clone(&live);
        self.presence.live = Arc::clone(&live);
        if let Some(shared) = self.shared.upgrade() {
            shared.slots[self.me].live.store(Some(live));
        }
    }
}

/// Answers, if anybody still waits.
pub(super) fn answer<T>(reply: futures::channel::oneshot::Sender<T>, answer: T) {
    let _nobody_waits = reply.send(answer);
}

/// Splits entries into groups that fit a frame of the log.
fn frames(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.bytes.len() + 16;
            bytes <= CHUNK
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (group, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(group)
    })
}

/// Reads records from the log.
///
/// # Errors
/// [`Error::Corrupt`] where it has a gap.
pub(super) async fn read_log(log: &Log, from: u64, to: u64) -> Result<Vec<Entry>> {
    let items = log.read(from..to + 1, CHUNK).await.map_err(from_log)?;
    let mut entries = Vec::with_capacity(items.len());
    for item in items {
        match item {
            // Copied, so that a record does not keep all that was read with it in memory.
            Item::Record { seq, bytes } => entries.push(Entry::decode(seq, Bytes::copy_from_slice(&bytes))?),
            Item::Gap(_) if !entries.is_empty() => break,
            Item::Gap(gap) => {
                let what = format!(
                    "records {} to {} of the log: {}",
                    gap.range.start,
                    gap.range.end - 1,
                    gap.why
                );
                return Err(Error::Corrupt { what });
            }
        }
    }
    if entries.is_empty() {
        let what = format!("the log has nothing at {from}");
        return Err(Error::Corrupt { what });
    }
    Ok(entries)
}

/// The node as long as its task lives. When it ends, or its machine does, the store knows.
pub(super) struct Presence {
    shared: Weak<Shared>,
    me: usize,
    life: u64,
    live: Arc<Live>,
    why: Option<String>,
}

impl Presence {
    fn with_report(&self, change: impl FnOnce(&mut super::node::Report)) {
        if let Some(shared) = self.shared.upgrade() {
            let mut report = shared.slots[self.me].report.lock();
            if report.life == self.life {
                change(&mut report);
            }
        }
    }

    fn report(&self, role: Role, durable: Position, promised: u64) {
        self.with_report(|report| {
            report.role = role;
            report.durable = durable;
            report.promised = promised;
        });
    }

    /// What the node had after `durable` is to be replaced.
    pub(super) fn has_given_up(&self, durable: Position) {
        self.with_report(|report| report.durable = durable);
    }

    pub(super) fn count_failed_checkpoint(&self) {
        self.with_report(|report| report.failed_checkpoints += 1);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.live.set_serving(false);
        let why = self.why.take();
        self.with_report(|report| {
            report.role = Role::Down;
            report.why = Some(why.unwrap_or_else(|| "its task has ended".into()));
        });
        if let Some(shared) = self.shared.upgrade() {
            shared.moved.wake_all();
        }
    }
}

/// What a write hears that asked too late.
pub(super) fn gone(why: &str, effect: Effect) -> Refused {
    Refused::Failed(Error::Unavailable {
        what: why.into(),
        effect,
    })
}

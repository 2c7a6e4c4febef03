//! The shell of the durable queue: the lock around the heart, and what goes to and comes from the log.

use super::cache::Cache;
use super::record::{Record, SubId};
use super::standing::Stored;
use super::state::State;
use super::{Error, QueueStats, Result, Subscription};
use crate::env::{Env, Tick};
use crate::log::{Append, Log, LogError};
use crate::sync::{Mutex, MutexGuard, Waiters};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long after an acknowledgement the queue looks whether space can be freed.
const TIDY_AFTER: Duration = Duration::from_millis(100);

pub(super) struct Shell {
    pub(super) env: Env,
    pub(super) log: Log,
    pub(super) max_bytes: u64,
    pub(super) core: Mutex<Core>,
    /// The pump, when it has nothing to do.
    pub(super) pump: Waiters,
}

/// What the lock guards.
pub(super) struct Core {
    pub(super) state: State,
    pub(super) cache: Cache,
    /// What becomes true when it is durable, in the order of the log.
    pending: VecDeque<Pending>,
    last_append: u64,
    /// Consumers that wait for messages.
    waiters: BTreeMap<SubId, Arc<Waiters>>,
    /// Appends whose callers went away before they were durable.
    pub(super) orphans: Vec<(u64, Append)>,
    pub(super) closed: bool,
    /// When the pump wakes by itself; `rearm` has it look again.
    pub(super) pump_until: Option<Tick>,
    pub(super) rearm: bool,
    /// When to look whether space can be freed.
    pub(super) tidy_at: Option<Tick>,
    /// Whether the standings have been written since the queue was opened.
    pub(super) stood: bool,
    pub(super) counts: QueueStats,
}

struct Pending {
    append: u64,
    seqs: Range<u64>,
    effect: Effect,
}

/// What a durable append does to the state.
pub(super) enum Effect {
    Sent {
        topic: Arc<str>,
        entries: Vec<Bytes>,
    },
    Subscribed {
        id: SubId,
        wanted: Subscription,
        from: Option<u64>,
    },
    Buried {
        id: SubId,
        seq: u64,
        topic: Arc<str>,
        entry: Bytes,
    },
}

/// An append on its way to the disk, whose effect is to happen. Dropped before that, it goes on without its caller.
#[must_use]
pub(super) struct InFlight {
    shell: Arc<Shell>,
    id: u64,
    append: Option<Append>,
}

impl InFlight {
    /// The numbers of its entries.
    pub(super) fn seqs(&self) -> Range<u64> {
        self.append.as_ref().map_or(0..0, Append::seqs)
    }

    pub(super) async fn done(mut self) -> Result<()> {
        let Some(append) = &mut self.append else { return Ok(()) };
        let result = append.await;
        self.append = None;
        self.shell.complete(self.id, result.is_ok());
        Ok(result?)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(append) = self.append.take() {
            self.shell.core.lock().orphans.push((self.id, append));
            self.shell.pump.wake(1);
        }
    }
}

impl Core {
    pub(super) fn new(state: State, cache: Cache) -> Core {
        Core {
            state,
            cache,
            pending: VecDeque::new(),
            last_append: 0,
            waiters: BTreeMap::new(),
            orphans: Vec::new(),
            closed: false,
            pump_until: None,
            rearm: false,
            tidy_at: Some(Tick::ZERO),
            stood: false,
            counts: QueueStats::default(),
        }
    }

    pub(super) fn waiters(&mut self, id: SubId) -> Arc<Waiters> {
        Arc::clone(self.waiters.entry(id).or_default())
    }

    /// Everything before this number is in the state.
    pub(super) fn settled_end(&self, durable: u64) -> u64 {
        self.pending
            .front()
            .map_or(durable, |first| first.seqs.start.min(durable))
    }

    fn push(&mut self, seqs: Range<u64>, effect: Effect) -> u64 {
        self.last_append += 1;
        self.pending.push_back(Pending {
            append: self.last_append,
            seqs,
            effect,
        });
        self.last_append
    }

    /// What is pending from number `next` on has failed, since the log gives these numbers again.
    pub(super) fn forget_failed(&mut self, next: u64, now: Tick) {
        while self.pending.back().is_some_and(|last| last.seqs.end > next) {
            let failed = self.pending.pop_back();
            failed.into_iter().for_each(|failed| self.undo(&failed.effect, now));
        }
    }

    /// Lets everything before `durable` happen; returns how many messages each subscription may get for it.
    fn promote(&mut self, durable: u64) -> BTreeMap<SubId, usize> {
        let mut news = BTreeMap::new();
        while self.pending.front().is_some_and(|first| first.seqs.end <= durable) {
            let Some(done) = self.pending.pop_front() else { break };
            self.happen(done.seqs, done.effect, &mut news);
        }
        news
    }

    fn happen(&mut self, seqs: Range<u64>, effect: Effect, news: &mut BTreeMap<SubId, usize>) {
        match effect {
            Effect::Sent { topic, entries } => {
                self.counts.sent += entries.len() as u64;
                seqs.zip(entries)
                    .for_each(|(seq, entry)| self.sent(seq, &topic, entry, news));
            }
            Effect::Subscribed { id, wanted, from } => {
                let from = from.unwrap_or(seqs.start);
                self.state.subscribed(id, &wanted.topic, &wanted.name, from);
            }
            Effect::Buried { id, seq, topic, entry } => {
                self.counts.dead += 1;
                self.state.buried(id, seq);
                self.sent(seqs.start, &topic, entry, news);
                *news.entry(id).or_default() += 1;
            }
        }
    }

    fn sent(&mut self, seq: u64, topic: &str, entry: Bytes, news: &mut BTreeMap<SubId, usize>) {
        let len = entry.len() as u32;
        for id in self.state.message(topic, Stored::plain(seq, len)) {
            *news.entry(id).or_default() += 1;
        }
        self.cache.put(seq, entry);
    }

    fn undo(&mut self, effect: &Effect, now: Tick) {
        if let Effect::Buried { id, seq, .. } = effect {
            self.state.unbury(now, *id, *seq);
        }
    }

    /// What the log would have to say if everything before it were gone: where subscriptions stand when all that has
    /// been appended has happened.
    pub(super) fn standings(&self) -> Vec<Record> {
        let burials = self.pending.iter().filter_map(|pending| match pending.effect {
            Effect::Buried { id, seq, .. } => Some((id, seq)),
            Effect::Sent { .. } | Effect::Subscribed { .. } => None,
        });
        self.state.standings(&burials.collect())
    }

    /// Something was settled: there may be space to free.
    pub(super) fn settled(&mut self, now: Tick) {
        self.tidy_at.get_or_insert(now + TIDY_AFTER);
    }

    /// When the pump has something to do by itself.
    pub(super) fn next_due(&self, env: &Env) -> Option<Tick> {
        [self.state.next_timer(env.now(), env.wall()), self.tidy_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the pump has to look again, since something comes earlier than it expects.
    fn pump_is_late(&mut self, env: &Env) -> bool {
        let next = self.next_due(env);
        let late = next.is_some_and(|next| self.pump_until.is_none_or(|until| next < until));
        self.rearm |= late;
        late || self.state.has_dying()
    }
}

impl Shell {
    /// Refuses when the queue takes and gives nothing more.
    pub(super) fn check(&self) -> Result<()> {
        match self.core.lock().closed {
            true => Err(Error::Closed),
            false => Ok(self.log.check()?),
        }
    }

    /// Appends what `make` makes under the lock, whose effect is to happen once it is durable. Waits for room in the
    /// log's buffer.
    pub(super) async fn append(self: &Arc<Self>, make: impl Fn(&mut Core) -> (Vec<Bytes>, Effect)) -> Result<InFlight> {
        loop {
            match self.try_append(&make) {
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                appended => return Ok(appended?),
            }
        }
    }

    fn try_append(self: &Arc<Self>, make: &impl Fn(&mut Core) -> (Vec<Bytes>, Effect)) -> Result<InFlight, LogError> {
        let mut core = self.core.lock();
        if core.closed {
            return Err(LogError::Closed);
        }
        let (entries, effect) = make(&mut core);
        let append = self.append_locked(&mut core, entries)?;
        let id = core.push(append.seqs(), effect);
        Ok(InFlight {
            shell: Arc::clone(self),
            id,
            append: Some(append),
        })
    }

    /// Appends to the log. Everything does so under the lock, so that what is pending is in the order of the log, and
    /// so that numbers which the log gives again are taken from the appends that failed: their callers may not have
    /// heard of it yet, and what is pending under such a number would happen together with what the number means now.
    fn append_locked(&self, core: &mut Core, entries: Vec<Bytes>) -> Result<Append, LogError> {
        let append = self.log.append(entries)?;
        core.forget_failed(append.seqs().start, self.env.now());
        Ok(append)
    }

    /// Appends an entry without an effect of its own.
    pub(super) async fn note(&self, record: &Record) -> Result<Append> {
        let entry = record.encode();
        loop {
            let appended = self.append_locked(&mut self.core.lock(), vec![entry.clone()]);
            match appended {
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                appended => return Ok(appended?),
            }
        }
    }

    /// An append has ended: what is durable happens, what failed does not.
    pub(super) fn complete(&self, id: u64, done: bool) {
        let durable = self.log.durable();
        let mut core = self.core.lock();
        if !done && let Some(at) = core.pending.iter().position(|pending| pending.append == id) {
            let failed = core.pending.remove(at);
            failed
                .into_iter()
                .for_each(|failed| core.undo(&failed.effect, self.env.now()));
        }
        let news = core.promote(durable);
        self.tell(core, news);
        if !done && self.log.check().is_err() {
            self.wake_all();
        }
    }

    /// Wakes consumers for messages that they may get, and the pump if it is late. Takes the lock with it.
    pub(super) fn tell(&self, mut core: MutexGuard<'_, Core>, news: impl IntoIterator<Item = (SubId, usize)>) {
        let late = core.pump_is_late(&self.env);
        let waiting: Vec<_> = news.into_iter().map(|(id, n)| (core.waiters(id), n)).collect();
        drop(core);
        waiting.into_iter().for_each(|(waiters, n)| waiters.wake(n));
        if late {
            self.pump.wake(1);
        }
    }

    /// One more consumer may get something.
    pub(super) fn nudge(&self, core: MutexGuard<'_, Core>, id: SubId) {
        let more = core.state.has_more(id);
        self.tell(core, more.then_some((id, 1)));
    }

    pub(super) fn wake_all(&self) {
        let waiting: Vec<_> = self.core.lock().waiters.values().map(Arc::clone).collect();
        waiting.iter().for_each(|waiters| waiters.wake_all());
        self.pump.wake_all();
    }

    /// Takes nothing more. What is on its way goes on.
    pub(super) fn close(&self) {
        self.core.lock().closed = true;
        self.wake_all();
    }
}

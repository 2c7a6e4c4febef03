//! The shell of the durable queue: the lock around the heart, and what goes to and comes from the log.

use super::acks::Acks;
use super::cache::Cache;
use super::fate::Fate;
use super::heart::ages::Ages;
use super::heart::dedup::{Dedup, IdHash};
use super::heart::state::State;
use super::limits::Settings;
use super::outgoing::Batch;
use super::pump::Tidying;
use super::record::{Record, SubId};
use super::rewrite::UnderWay;
use super::untold::Untold;
use crate::env::{Env, Tick, may_work_here, wait};
use crate::hash::KeyedHash;
use crate::log::{Append, Durability, Entries, Entry, Log, LogError};
use crate::queue::{Error, QueueStats, Result, Subscription};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, Waiters};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Shell {
    pub(super) env: Env,
    pub(super) log: Log,
    pub(super) settings: Settings,
    /// Tells message keys apart, in this process.
    pub(super) keys: KeyedHash,
    pub(super) ids: IdHash,
    pub(super) core: Mutex<Core>,
    /// The pump, when it has nothing to do.
    pub(super) pump: Waiters,
    /// Sends that wait for room on the disk.
    pub(super) room: Waiters,
    /// Of all appends up to this one it is known what became of them.
    pub(super) ended: AtomicU64,
}

/// What the lock guards.
pub(super) struct Core {
    pub(super) state: State,
    pub(super) cache: Cache,
    pub(super) dedup: Dedup,
    /// When messages were sent, by topic.
    pub(super) ages: BTreeMap<Arc<str>, Ages>,
    /// What becomes true when it is durable, in the order of the log.
    pub(super) pending: VecDeque<Pending>,
    pub(super) last_append: u64,
    /// Repetitions wait here for what becomes of an append.
    pub(super) fates: BTreeMap<u64, Arc<Fate>>,
    /// Fates that are told, and whose waiters are to be woken.
    pub(super) told: Vec<Arc<Fate>>,
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
    /// How long after a settlement that is.
    tidy_after: Duration,
    pub(super) tidying: Tidying,
    /// Nothing is written again before this.
    pub(super) rewrite_after: Option<Tick>,
    /// When to look whether messages are too old.
    pub(super) retain_at: Option<Tick>,
    /// Sends that wait for room on the disk.
    pub(super) short: usize,
    /// Up to where limits have taken messages of a topic of which the log does not know yet.
    pub(super) dropped: BTreeMap<Arc<str>, u64>,
    pub(super) untold: Untold,
    /// Whether the standings have been written since the queue was opened.
    pub(super) stood: bool,
    pub(super) counts: QueueStats,
    pub(super) redelivered: BTreeMap<SubId, u64>,
    /// Dead letters on their way back.
    pub(super) moving: BTreeSet<u64>,
}

/// What is on its way.
pub(super) struct Pending {
    pub(super) append: u64,
    pub(super) seqs: Range<u64>,
    pub(super) since: Tick,
    pub(super) effect: Effect,
}

/// What a durable append does to the state.
pub(super) enum Effect {
    Sent(Batch),
    Subscribed {
        id: SubId,
        wanted: Subscription,
        from: Option<u64>,
    },
    /// A dead letter takes the place of a message.
    Buried {
        id: SubId,
        seq: u64,
        letter: Batch,
    },
    /// A dead letter goes back.
    Redriven {
        from: Arc<str>,
        seq: u64,
        message: Batch,
    },
    /// The log knows of acknowledgements that are in the state already.
    Acked(Acks),
    /// Messages have copies; these come first in the append, in their order.
    Copied(Vec<Copied>),
}

/// A message that was written again.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) topic: Arc<str>,
    pub(super) seq: u64,
    pub(super) len: u32,
}

/// Which room of the log an append may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Common,
    /// Also what is kept for appends that free room.
    Reserved,
}

/// How many messages each subscription may get for what has happened.
pub(super) type News = BTreeMap<SubId, usize>;

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
        let result = match &mut self.append {
            None => return Ok(()),
            // A thread that waits for this alone writes it by itself, which saves waking another for it.
            Some(_) if may_work_here() => match self.append.take() {
                None => return Ok(()),
                // By itself, since as a part of this future it would make it many times as long.
                Some(append) => wait(append.here()),
            },
            Some(append) => {
                let result = append.await;
                self.append = None;
                result
            }
        }
        .map_err(Error::from);
        self.shell.complete(self.id, &result);
        result
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // What has ended needs nobody to see it through.
        if let Some(append) = self.append.take()
            && self.id > self.shell.ended.load(Ordering::Acquire)
        {
            self.shell.core.lock().orphans.push((self.id, append));
            self.shell.pump.wake(1);
        }
    }
}

impl Core {
    pub(super) fn new(state: State, cache: Cache, dedup: Dedup, tidy_after: Duration) -> Core {
        Core {
            state,
            cache,
            dedup,
            ages: BTreeMap::new(),
            pending: VecDeque::new(),
            last_append: 0,
            fates: BTreeMap::new(),
            told: Vec::new(),
            waiters: BTreeMap::new(),
            orphans: Vec::new(),
            closed: false,
            pump_until: None,
            rearm: false,
            tidy_at: Some(Tick::ZERO),
            tidy_after,
            tidying: Tidying::default(),
            rewrite_after: None,
            retain_at: None,
            short: 0,
            dropped: BTreeMap::new(),
            untold: Untold::default(),
            stood: false,
            counts: QueueStats::default(),
            redelivered: BTreeMap::new(),
            moving: BTreeSet::new(),
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

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// What becomes of an append is told to those who wait for `fate`.
    pub(super) fn follow(&mut self, append: &InFlight, fate: Arc<Fate>) {
        self.fates.insert(append.id, fate);
    }

    /// What becomes of an append that is on its way.
    pub(super) fn fate(&mut self, append: u64) -> Arc<Fate> {
        Arc::clone(self.fates.entry(append).or_default())
    }

    /// What the log would have to say if everything before it were gone: where subscriptions stand when all that has
    /// been appended has happened. A part of it, as [`State::standings`] says.
    pub(super) fn standings(&self, after: (SubId, u64), max: usize) -> (Vec<Record>, Option<(SubId, u64)>) {
        self.state.standings(after, max, &self.under_way().burials)
    }

    /// What has been appended and is still to happen.
    pub(super) fn under_way(&self) -> UnderWay {
        let mut under_way = UnderWay::default();
        for pending in &self.pending {
            match &pending.effect {
                Effect::Buried { id, seq, .. } => drop(under_way.burials.insert((*id, *seq))),
                Effect::Subscribed { id, wanted, from } => {
                    let from = from.unwrap_or(pending.seqs.start);
                    under_way.subscriptions.push((*id, Arc::clone(&wanted.topic), from));
                }
                _ => {}
            }
        }
        under_way
    }

    /// Something was settled: there may be space to free.
    pub(super) fn settled(&mut self, now: Tick) {
        self.tidy_at.get_or_insert(now + self.tidy_after);
    }

    /// The log could not be told of acknowledgements.
    pub(super) fn tell_again(&mut self, acks: Acks, now: Tick) {
        self.untold.again(acks, now + self.tidy_after);
    }

    /// When the pump has something to do by itself.
    pub(super) fn next_due(&self, env: &Env) -> Option<Tick> {
        let state = self.state.next_timer(|| (env.now(), env.wall()));
        let timers = [state, self.tidy_at, self.retain_at, self.untold.at];
        timers.into_iter().flatten().min()
    }

    /// Whether the pump has to look again, since something comes earlier than it expects.
    fn pump_is_late(&mut self, env: &Env) -> bool {
        let next = self.next_due(env);
        let late = next.is_some_and(|next| self.pump_until.is_none_or(|until| next < until));
        self.rearm |= late;
        late || self.state.has_dying() || !self.dropped.is_empty()
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
    /// log's buffer. Nothing is appended when `make` makes nothing.
    pub(super) async fn append<F>(self: &Arc<Self>, mut make: F) -> Result<Option<InFlight>>
    where
        F: FnMut(&mut Core) -> Option<(Vec<Entry>, Effect)>,
    {
        loop {
            match self.try_append(&mut make) {
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                appended => return Ok(appended?),
            }
        }
    }

    fn try_append<F>(self: &Arc<Self>, make: &mut F) -> Result<Option<InFlight>, LogError>
    where
        F: FnMut(&mut Core) -> Option<(Vec<Entry>, Effect)>,
    {
        let mut core = self.core.lock();
        if core.closed {
            return Err(LogError::Closed);
        }
        let Some((entries, effect)) = make(&mut core) else {
            return Ok(None);
        };
        self.append_effect(&mut core, &entries, effect).map(Some)
    }

    /// Appends messages, which are taken from `batch`.
    pub(super) fn append_batch(self: &Arc<Self>, core: &mut Core, batch: &mut Batch) -> Result<InFlight, LogError> {
        let append = self.append_locked(core, batch, self.settings.durability, Room::Common)?;
        let mut sent = batch.take();
        if !core.state.has_subscriptions(&sent.topic) {
            // Whoever subscribes later reads from the disk what came before.
            sent.forget_entries();
        }
        Ok(self.in_flight(core, append, Effect::Sent(sent)))
    }

    /// Appends what has an effect.
    pub(super) fn append_effect(
        self: &Arc<Self>,
        core: &mut Core,
        entries: &[Entry],
        effect: Effect,
    ) -> Result<InFlight, LogError> {
        let (sends, acks) = (self.settings.durability, self.settings.ack_durability);
        let (how, room) = match effect {
            Effect::Acked(_) if acks == Durability::Disk => (acks, Room::Reserved),
            Effect::Acked(_) => (sends, Room::Reserved),
            _ => (sends, Room::Common),
        };
        let append = self.append_locked(core, entries, how, room)?;
        Ok(self.in_flight(core, append, effect))
    }

    /// Has an effect happen once what was just appended is durable.
    pub(super) fn in_flight(self: &Arc<Self>, core: &mut Core, append: Append, effect: Effect) -> InFlight {
        let id = core.push(append.seqs(), self.env.stopwatch(), effect);
        InFlight {
            shell: Arc::clone(self),
            id,
            append: Some(append),
        }
    }

    /// Appends to the log. Everything does so under the lock, so that what is pending is in the order of the log, and
    /// so that numbers which the log gives again are taken from the appends that failed: their callers may not have
    /// heard of it yet, and what is pending under such a number would happen together with what the number means now.
    pub(super) fn append_locked<E>(
        &self,
        core: &mut Core,
        entries: &E,
        how: Durability,
        room: Room,
    ) -> Result<Append, LogError>
    where
        E: Entries + ?Sized,
    {
        let append = match room {
            Room::Common => self.log.append_with(entries, how)?,
            Room::Reserved => self.log.append_reserved(entries, how)?,
        };
        core.forget_failed(append.seqs().start, &self.env);
        Ok(append)
    }

    /// Appends an entry without an effect of its own.
    pub(super) async fn note(&self, record: &Record, how: Durability, room: Room) -> Result<Append> {
        let entry: [Entry; 1] = [record.encode().into()];
        loop {
            let appended = self.append_locked(&mut self.core.lock(), &entry[..], how, room);
            match appended {
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                appended => return Ok(appended?),
            }
        }
    }

    /// Wakes consumers for messages that they may get, and the pump if it is late. Takes the lock with it.
    pub(super) fn tell(&self, mut core: MutexGuard<'_, Core>, news: impl IntoIterator<Item = (SubId, usize)>) {
        let waiting: Vec<_> = news.into_iter().map(|(id, n)| (core.waiters(id), n)).collect();
        let late = core.pump_is_late(&self.env);
        let told = std::mem::take(&mut core.told);
        drop(core);
        waiting.into_iter().for_each(|(waiters, n)| waiters.wake(n));
        told.iter().for_each(|fate| fate.wake());
        if late {
            self.pump.wake(1);
        }
    }

    /// The same, and the pump too when it waits for what is on its way to end.
    pub(super) fn tell_all(&self, core: MutexGuard<'_, Core>, news: News) {
        let closing = core.closed && core.is_idle();
        self.tell(core, news);
        if closing {
            self.pump.wake(1);
        }
    }

    /// One more consumer may get something.
    pub(super) fn nudge(&self, core: MutexGuard<'_, Core>, id: SubId) {
        self.nudge_both(core, id, true);
    }

    /// The same; whether there may be something to tell the pump.
    pub(super) fn nudge_both(&self, core: MutexGuard<'_, Core>, id: SubId, pump: bool) {
        // Whoever begins to wait now looks once more behind the lock.
        let is_awaited = core.waiters.get(&id).is_some_and(|waiters| waiters.has_any());
        if is_awaited && core.state.has_more(id) {
            return self.tell(core, [(id, 1)]);
        }
        if pump || core.state.has_dying() || !core.told.is_empty() {
            self.tell(core, None);
        }
    }

    pub(super) fn wake_all(&self) {
        let waiting: Vec<_> = self.core.lock().waiters.values().map(Arc::clone).collect();
        waiting.iter().for_each(|waiters| waiters.wake_all());
        self.room.wake_all();
        self.pump.wake_all();
    }

    /// Takes nothing more. What is on its way goes on.
    pub(super) fn close(&self) {
        self.core.lock().closed = true;
        self.wake_all();
    }
}

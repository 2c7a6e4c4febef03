//! The background task of the durable queue: it ends leases, buries what has used up its attempts, sees appends through
//! whose callers went away, tells the log what nobody waits for, and frees space.

use super::heart::state::Dying;
use super::limits::OnFull;
use super::record::{Record, SubId};
use super::shell::{Core, InFlight, Room, Shell};
use crate::env::{Env, Tick};
use crate::log::{Append, Durability, LogError};
use crate::queue::Result;
use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, join_all, pending, select};
use futures::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Dead letters on their way at once.
const BURIED_AT_ONCE: usize = 64;
/// The most bytes of one append of standings.
const CHUNK: usize = 512 << 10;
/// The most messages that one part of a standing names: about 16 KiB at worst, and the lock is held for as long as it takes
/// to find so many.
const OPEN_AT_ONCE: usize = 2_048;
/// The most messages that are looked at under one lock for being settled.
const SWEPT_AT_ONCE: usize = 1_024;
/// How long others have the lock to themselves, in work that takes it many times: several times as long as it is held.
const ASIDE: Duration = Duration::from_micros(300);
/// The most ids of one record.
const IDS: usize = 1_000;
/// How long after a failure the pump tries again to free space.
const TIDY_AGAIN: Duration = Duration::from_secs(1);

/// Whether somebody looks for space to free.
#[derive(Debug, Default)]
pub(super) enum Tidying {
    #[default]
    Not,
    Now,
    /// And was asked to look again meanwhile.
    Again,
}

impl Tidying {
    /// Says whether to begin.
    fn begin(&mut self) -> bool {
        let begins = matches!(self, Tidying::Not);
        *self = if begins { Tidying::Now } else { Tidying::Again };
        begins
    }

    /// Says whether to look again.
    fn end(&mut self) -> bool {
        matches!(std::mem::take(self), Tidying::Again)
    }
}

enum Chore {
    Stop,
    /// A timer has fired.
    Due,
    /// Something will be due earlier than expected.
    Rearm,
    Finish(Vec<(u64, Append)>),
    Bury(Vec<Dying>),
    /// Limits have taken messages: up to where, by topic.
    Dropped(Vec<Record>),
    /// What the log does not know yet.
    Tell,
}

/// Appends that nobody else waits for.
type Running = FuturesUnordered<BoxFuture<'static, ()>>;

/// Works until the queue is closed.
pub(super) async fn run(shell: Arc<Shell>) {
    let mut running = Running::new();
    loop {
        match next(&shell, &mut running).await {
            Chore::Stop => break,
            Chore::Rearm => {}
            Chore::Due => {
                let (acks, tidies) = shell.due().await;
                running.extend(acks.into_iter().map(see_through));
                // Beside the rest, since it may take long.
                running.extend(tidies.then(|| Arc::clone(&shell).tidy_up().boxed()));
            }
            Chore::Finish(appends) => {
                let finish = |(id, append)| finish(Arc::clone(&shell), id, append).boxed();
                running.extend(appends.into_iter().map(finish));
            }
            Chore::Bury(dying) => {
                for some in dying.chunks(BURIED_AT_ONCE) {
                    // One that fails waits and comes again.
                    let bury = some.iter().map(|dying| shell.bury(*dying, "its attempts are used up"));
                    join_all(bury).await;
                }
            }
            Chore::Dropped(records) => {
                for record in records {
                    // Not waited for: after a crash the limits hold again.
                    drop(shell.note(&record, Durability::Os, Room::Reserved).await);
                }
            }
            Chore::Tell => running.extend(shell.write_untold().await.into_iter().map(see_through)),
        }
    }
    running.collect::<()>().await;
}

/// Waits for something to do.
async fn next(shell: &Shell, running: &mut Running) -> Chore {
    let until = shell.next_due();
    let chore = pin!(shell.pump.wait(|| shell.chore()));
    let due = pin!(due(&shell.env, until));
    let finished = pin!(finished(running));
    match select(chore, select(due, finished)).await {
        Either::Left((chore, _)) => chore,
        Either::Right((Either::Left(_), _)) => Chore::Due,
        Either::Right((Either::Right(_), _)) => Chore::Rearm,
    }
}

async fn due(env: &Env, until: Option<Tick>) {
    match until {
        Some(until) => env.sleep_until(until).await,
        None => pending().await,
    }
}

/// The next of those to be ready.
async fn finished(running: &mut Running) {
    if running.next().await.is_none() {
        pending::<()>().await;
    }
}

async fn finish(shell: Arc<Shell>, id: u64, append: Append) {
    let result = append.await.map_err(Into::into);
    shell.complete(id, &result);
}

fn see_through(append: InFlight) -> BoxFuture<'static, ()> {
    append.done().map(drop).boxed()
}

impl Shell {
    fn next_due(&self) -> Option<Tick> {
        let mut core = self.core.lock();
        let next = core.next_due(&self.env).filter(|_| !core.closed);
        core.pump_until = next;
        core.rearm = false;
        next
    }

    fn chore(&self) -> Option<Chore> {
        let mut core = self.core.lock();
        if !core.orphans.is_empty() {
            return Some(Chore::Finish(std::mem::take(&mut core.orphans)));
        }
        if core.closed {
            // Repetitions may still wait for what is on its way.
            return match (core.untold.is_empty(), core.is_idle()) {
                (false, _) => Some(Chore::Tell),
                (true, true) => Some(Chore::Stop),
                (true, false) => None,
            };
        }
        if core.state.has_dying() {
            return Some(Chore::Bury(core.state.dying()));
        }
        if !core.dropped.is_empty() {
            return Some(Chore::Dropped(dropped_records(&std::mem::take(&mut core.dropped))));
        }
        std::mem::take(&mut core.rearm).then_some(Chore::Rearm)
    }

    /// Does what is due. Also says whether to look for space to free.
    async fn due(self: &Arc<Self>) -> (Vec<InFlight>, bool) {
        let (now, wall) = (self.env.now(), self.env.wall());
        let is_due = |at: &mut Option<Tick>| at.take_if(|at| *at <= now).is_some();
        let (freed, tidies, acks): (Vec<(SubId, usize)>, bool, bool) = {
            let mut core = self.core.lock();
            let freed = core.state.expire(now, wall);
            if is_due(&mut core.retain_at) {
                core.retain_all(&self.settings, &self.env);
            }
            let tidies = is_due(&mut core.tidy_at) && core.tidying.begin();
            (freed, tidies, is_due(&mut core.untold.at))
        };
        self.tell(self.core.lock(), freed);
        let acks = if acks { self.write_untold().await } else { Vec::new() };
        (acks, tidies)
    }

    async fn tidy_up(self: Arc<Self>) {
        let failed = self.tidy().await.is_err();
        let mut core = self.core.lock();
        let now = self.env.now();
        if core.tidying.end() {
            core.settled(now);
        }
        if failed {
            core.tidy_at.get_or_insert(now + TIDY_AGAIN);
        }
    }

    /// Frees the segments that nobody needs. What their records said that still matters is written anew first, and so are
    /// messages where few hold much.
    async fn tidy(self: &Arc<Self>) -> Result<()> {
        let now = self.env.now();
        self.sweep().await;
        let frees = {
            let mut core = self.core.lock();
            core.trim(&self.settings);
            self.log.frees(core.state.oldest(core.settled_end(self.log.durable())))
        };
        // What fails here must not keep the rest from being freed, or dropped.
        let rewritten = if frees { Ok(()) } else { self.rewrite().await };
        let oldest = {
            let mut core = self.core.lock();
            if core.short > 0 && self.settings.on_full == OnFull::DropOldest && self.is_full() {
                self.drop_segment(&mut core, now);
            }
            core.forget_failed(self.log.range().end, &self.env);
            let end = core.settled_end(self.log.durable());
            let oldest = core.state.oldest(end);
            let first_time = !std::mem::replace(&mut core.stood, true);
            if !first_time && !self.log.frees(oldest) {
                return rewritten;
            }
            oldest
        };
        let first = self.stand(oldest).await?;
        let freed = self.log.frees(oldest);
        self.log.release_before(oldest.min(first)).await?;
        if freed {
            self.room.wake_all();
        }
        rewritten
    }

    /// Forgets what everybody has settled, also behind messages that somebody has not, in portions.
    async fn sweep(&self) {
        let keeps = |topic: &str| self.settings.retention_of(topic).keeps_settled();
        let littered = self.core.lock().state.littered(keeps);
        for topic in littered {
            self.sweep_before(&topic, u64::MAX).await;
        }
    }

    /// The same of one topic, and of numbers before `end`.
    pub(super) async fn sweep_before(&self, topic: &str, end: u64) {
        let mut next = Some((0, 0));
        while let Some(at) = next {
            next = self.core.lock().state.sweep(topic, at, end, SWEPT_AT_ONCE);
            if next.is_some_and(|next| next.0 == at.0) {
                self.step_aside().await;
            }
        }
    }

    /// Leaves the lock to others for a while: whoever takes it again at once would be ahead of those who wait for it.
    async fn step_aside(&self) {
        self.stand_back(ASIDE).await;
    }

    /// Leaves lock and disk to others for so long, unless there is a hurry.
    pub(super) async fn stand_back(&self, pause: Duration) {
        let hurries = || {
            let core = self.core.lock();
            (core.closed || core.short > 0).then_some(())
        };
        // Closing wakes those who wait for room.
        let hurry = pin!(self.room.wait(hurries));
        select(hurry, self.env.sleep(pause)).await;
    }

    /// Writes anew what the records before number `oldest` say that still matters, part by part, so that nobody waits
    /// long for the lock. Durable when it returns the number from which on it is there.
    async fn stand(&self, oldest: u64) -> Result<u64> {
        let mut appends = Vec::new();
        let mut next = Some((0, 0));
        while let Some(after) = next {
            let tell = |core: &mut Core| {
                let (records, rest) = core.standings(after, OPEN_AT_ONCE);
                next = rest;
                records
            };
            appends.extend(self.state_facts(tell).await?);
            self.step_aside().await;
        }
        let (now, wall) = (self.env.now(), self.env.wall());
        let tell = |core: &mut Core| {
            // They are told again, for themselves, since this may fail.
            let mut records = dropped_records(&core.dropped);
            let ids = core.dedup.fading(now, wall, oldest);
            let secret = core.dedup.hash.secret();
            records.extend(ids.chunks(IDS).map(|ids| Record::Ids {
                secret,
                ids: ids.to_vec(),
            }));
            records
        };
        appends.extend(self.state_facts(tell).await?);
        let first = appends.first().map(|append| append.seqs().start);
        for append in appends {
            append.await?;
        }
        if let Some(first) = first {
            self.core.lock().dedup.written(oldest, first);
        }
        Ok(first.unwrap_or(u64::MAX))
    }

    /// Appends what `tell` tells of the state, in appends of a bounded size; it is asked again when too much waits for the
    /// disk. It is told and appended under one lock: what comes later in the log must also be later than what this says,
    /// and it is true only if all that is pending comes to be.
    async fn state_facts(&self, mut tell: impl FnMut(&mut Core) -> Vec<Record>) -> Result<Vec<Append>, LogError> {
        loop {
            match self.try_state_facts(&mut tell) {
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                appended => return appended,
            }
        }
    }

    fn try_state_facts(&self, tell: &mut impl FnMut(&mut Core) -> Vec<Record>) -> Result<Vec<Append>, LogError> {
        let mut core = self.core.lock();
        let mut next = self.log.range().end;
        core.forget_failed(next, &self.env);
        let mut appends = Vec::new();
        for chunk in chunks(tell(&mut core).iter().map(Record::encode).collect()) {
            let append = self.log.append_at(next, chunk)?.ok_or(LogError::Full)?;
            next = append.seqs().end;
            appends.push(append);
        }
        Ok(appends)
    }

    /// Drops the messages in the oldest segment, if there is another.
    fn drop_segment(&self, core: &mut Core, now: Tick) {
        let range = self.log.range();
        let (mut low, mut high) = (range.start, range.end);
        if !self.log.frees(high) {
            core.tidy_at = Some(now + TIDY_AGAIN);
            return;
        }
        // The lowest number before which a segment ends.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.log.frees(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        core.drop_before(low, now);
    }
}

/// What the log does not know yet of what limits have taken.
fn dropped_records(dropped: &BTreeMap<Arc<str>, u64>) -> Vec<Record> {
    let record = |(topic, before): (&Arc<str>, &u64)| Record::Dropped {
        topic: topic.to_string(),
        before: *before,
    };
    dropped.iter().map(record).collect()
}

/// Splits entries into appends of a bounded size.
fn chunks(entries: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut chunks: Vec<Vec<Bytes>> = Vec::new();
    let mut size = CHUNK;
    for entry in entries {
        if size + entry.len() > CHUNK {
            chunks.push(Vec::new());
            size = 0;
        }
        size += entry.len() + 8;
        chunks.last_mut().expect("one was just pushed").push(entry);
    }
    chunks
}

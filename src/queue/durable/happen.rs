//! What becomes of what was appended: what is durable happens, what failed does not.

use super::outgoing::Batch;
use super::shell::{Core, Effect, News, Pending, Shell};
use crate::env::{Env, Tick};
use crate::log::LogError;
use crate::mutant::{Mutant, planted};
use crate::queue::{Error, Result};
use crate::sync::Ordering;
use std::ops::Range;
use std::sync::Arc;

impl Shell {
    /// The log has committed something: it happens, on the thread of whoever wrote it, which has time. Those who sent it
    /// have other things to do.
    pub(super) fn committed(&self) {
        let durable = self.log.durable();
        let mut core = self.core.lock();
        let news = self.promote(&mut core, durable);
        self.tell_all(core, news);
    }

    /// An append has ended: what is durable happens, if it has not happened yet, and what failed does not.
    pub(super) fn complete(&self, id: u64, result: &Result<()>) {
        if result.is_ok() && id <= self.ended.load(Ordering::Acquire) {
            return;
        }
        let durable = self.log.durable();
        let mut core = self.core.lock();
        if let Err(error) = result {
            core.fail(id, self.env.now(), error);
        }
        let news = self.promote(&mut core, durable);
        self.tell_all(core, news);
        if result.is_err() && self.log.check().is_err() {
            self.wake_all();
        }
    }

    /// Lets everything happen that is as durable as was asked for: what comes before number `durable`.
    fn promote(&self, core: &mut Core, durable: u64) -> News {
        let mut news = News::new();
        let mut arrived: Vec<(u64, Batch)> = Vec::new();
        let watch = self.env.stopwatch();
        while core.pending.front().is_some_and(|first| first.seqs.end <= durable) {
            let Some(done) = core.pending.pop_front() else { break };
            if let Effect::Sent(batch) = &done.effect {
                core.counts.sent += batch.len() as u64;
                core.counts.sends.record(watch - done.since);
            }
            self.happen(core, done.seqs, done.effect, &mut arrived, &mut news);
            core.tell_fate(done.append, || Ok(()));
        }
        self.arrive(core, &mut arrived, &mut news);
        let first = core.pending.front().map(|first| first.append);
        let ended = first.map_or(core.last_append, |first| first - 1);
        self.ended.store(ended, Ordering::Release);
        news
    }

    /// An effect happens, or is put to those messages that have `arrived` and are still to be dealt with together.
    fn happen(
        &self,
        core: &mut Core,
        seqs: Range<u64>,
        effect: Effect,
        arrived: &mut Vec<(u64, Batch)>,
        news: &mut News,
    ) {
        let goes_with_them = |batch: &Batch| arrived.first().is_none_or(|(_, first)| batch.goes_with(first));
        if !matches!(&effect, Effect::Sent(batch) if goes_with_them(batch)) {
            self.arrive(core, arrived, news);
        }
        match effect {
            Effect::Sent(batch) => arrived.push((seqs.start, batch)),
            Effect::Subscribed { id, wanted, from } => {
                let from = from.unwrap_or(seqs.start);
                core.state.subscribed(id, &wanted.topic, &wanted.name, from);
            }
            Effect::Buried { id, seq, letter } => {
                core.counts.dead += 1;
                core.state.buried(id, seq);
                self.arrive(core, &mut vec![(seqs.start, letter)], news);
                *news.entry(id).or_default() += 1;
            }
            Effect::Redriven { from, seq, message } => {
                core.counts.redriven += 1;
                core.moving.remove(&seq);
                core.state.remove(&from, seq);
                self.arrive(core, &mut vec![(seqs.start, message)], news);
                core.settled(self.env.now());
            }
            Effect::Acked(_) => {}
            Effect::Copied(copied) => {
                core.counts.rewritten += copied.len() as u64;
                for (at, copied) in seqs.zip(copied) {
                    core.state.copied(&copied, at);
                }
            }
        }
    }

    /// Messages that were sent are there: batches of one topic, each with the number of its first. None is left.
    fn arrive(&self, core: &mut Core, batches: &mut Vec<(u64, Batch)>, news: &mut News) {
        let Some((_, one)) = batches.first() else { return };
        let (topic, plain) = (Arc::clone(&one.topic), one.is_plain());
        core.aged(&topic, batches.iter().map(|(first, batch)| (*first, batch.sent())));
        let messages = batches.iter().flat_map(|(first, batch)| batch.all_stored(*first));
        core.state.messages(&topic, plain, messages, news);
        for (first, batch) in &*batches {
            for (at, id) in batch.ids() {
                core.dedup.sent(self.env.now(), id, first + at as u64);
            }
        }
        core.cache_all(&topic, batches);
        core.retain(&topic, self.settings.retention_of(&topic), &self.env);
    }
}

impl Core {
    /// Something is on its way: its number among the appends.
    pub(super) fn push(&mut self, seqs: Range<u64>, since: Tick, effect: Effect) -> u64 {
        self.last_append += 1;
        let append = self.last_append;
        if let Effect::Sent(batch) = &effect {
            for (at, id) in batch.ids() {
                self.dedup.claim(id, append, seqs.start + at as u64);
            }
        }
        self.pending.push_back(Pending {
            append,
            seqs,
            since,
            effect,
        });
        append
    }

    /// What is pending from number `next` on has failed, since the log gives these numbers again: that is for want of
    /// room only.
    pub(super) fn forget_failed(&mut self, next: u64, env: &Env) {
        while self.pending.back().is_some_and(|last| last.seqs.end > next) {
            let failed = self.pending.pop_back();
            let (now, error) = (env.now(), Error::from(LogError::Full));
            failed.into_iter().for_each(|failed| self.undo(failed, now, &error));
        }
    }

    /// An append failed by itself.
    fn fail(&mut self, append: u64, now: Tick, error: &Error) {
        let failed = self.at(append).and_then(|at| self.pending.remove(at));
        failed.into_iter().for_each(|failed| self.undo(failed, now, error));
    }

    /// Where an append is among the pending.
    fn at(&self, append: u64) -> Option<usize> {
        self.pending
            .binary_search_by_key(&append, |pending| pending.append)
            .ok()
    }

    fn undo(&mut self, failed: Pending, now: Tick, error: &Error) {
        match failed.effect {
            Effect::Buried { id, seq, .. } => self.state.unbury(now, id, seq),
            Effect::Sent(batch) => {
                for (at, id) in batch.ids() {
                    self.dedup.unclaim(id, failed.append);
                    if planted(Mutant::KeepFailedIds) {
                        self.dedup.sent(now, id, failed.seqs.start + at as u64);
                    }
                }
            }
            Effect::Acked(acks) => self.tell_again(acks, now),
            Effect::Redriven { seq, .. } => drop(self.moving.remove(&seq)),
            Effect::Subscribed { .. } | Effect::Copied(_) => {}
        }
        self.tell_fate(failed.append, || Err(error.clone()));
    }

    fn tell_fate(&mut self, append: u64, result: impl FnOnce() -> Result<()>) {
        if let Some(fate) = self.fates.remove(&append) {
            fate.tell(result());
            self.told.push(fate);
        }
    }

    /// Puts the messages of batches of one topic, each with the number of its first, into memory, if they are at hand.
    fn cache_all(&mut self, topic: &str, batches: &mut Vec<(u64, Batch)>) {
        let is_wanted = self.state.has_subscriptions(topic);
        for (first, batch) in batches.drain(..) {
            if !is_wanted || !batch.has_entries() {
                continue;
            }
            match batch.into_whole() {
                Ok((bytes, ends)) => self.cache.put_all(first, bytes, ends),
                Err(batch) => (first..)
                    .zip(0..batch.len())
                    .for_each(|(seq, at)| self.cache.put(seq, batch.entry(at))),
            }
        }
    }
}

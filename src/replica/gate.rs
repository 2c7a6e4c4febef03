use super::entry::Entry;
use super::history::{Fate, History};
use super::status::LostWrite;
use crate::env::WallTime;
use crate::store::{Engine, FeedBuffer, Position, Result};
use crate::sync::Mutex;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

/// The one place where records become visible: applied to the primary's engine, told to followers, then acknowledged.
/// Only the primary of the present epoch passes, so once a failover has closed the gate behind the old one, what was
/// seen and what was not is settled.
pub(super) struct Gate {
    pub(super) feed: FeedBuffer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    /// The newest record that is visible.
    shown: Position,
    /// Records that are visible but not committed, oldest first.
    exposed: VecDeque<LostWrite>,
    /// Lost since the last failover that succeeded.
    lost: Vec<LostWrite>,
}

/// The gate is open to a newer epoch.
#[derive(Debug)]
pub(super) struct Closed;

/// How many expired entries one record frees at most.
pub(super) const PURGE_PER_RECORD: usize = 8;

impl Gate {
    /// A gate that is closed to all; followers can catch up on the last `feed` records.
    pub(super) fn new(feed: usize) -> Gate {
        Gate {
            feed: FeedBuffer::new(Position::START, feed),
            state: Mutex::default(),
        }
    }

    /// Makes `entries` visible in `engine`; what is up to `commit` is committed.
    pub(super) fn publish(
        &self,
        epoch: u64,
        engine: &impl Engine,
        entries: &[Entry],
        commit: u64,
        now: WallTime,
    ) -> Result<Result<(), Closed>> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Ok(Err(Closed));
        }
        for entry in entries {
            engine.apply(entry.at, &entry.record)?;
            engine.purge(now, PURGE_PER_RECORD)?;
            // A new primary comes by what an older one has shown already.
            if entry.at.seq > state.shown.seq {
                self.feed.push(entry.at, entry.record.clone());
                state.shown = entry.at;
            }
            if entry.at.seq > commit {
                state.exposed.push_back(LostWrite {
                    at: entry.at,
                    keys: entry.record.changes.iter().map(|change| change.key.clone()).collect(),
                });
            }
        }
        while state.exposed.front().is_some_and(|first| first.at.seq <= commit) {
            state.exposed.pop_front();
        }
        Ok(Ok(()))
    }

    /// Opens the gate to `epoch` alone, whose log is that of `history` up to `last`, its first record.
    ///
    /// When that log lacks something that was visible, the feed starts anew where they part, and the lost writes are
    /// noted.
    pub(super) fn open(&self, epoch: u64, history: &History, last: u64) {
        let mut state = self.state.lock();
        state.epoch = epoch;
        if let Fate::Lost(left) = history.fate(state.shown, last) {
            state.shown = left;
            let next = history.at(left.seq + 1).epoch;
            // Every position of the old epoch sorts before this one, so whoever watches from there has to start anew.
            self.feed.reset(Position::new(next, left.seq));
        }
        // What an attempt before this one gave up for lost may be on a node that has come back since.
        let lost = std::mem::take(&mut state.lost);
        let shown = lost.into_iter().chain(std::mem::take(&mut state.exposed));
        let (kept, lost): (Vec<_>, _) = shown.partition(|write| history.fate(write.at, last) == Fate::Survived);
        state.exposed = kept.into();
        state.lost = lost;
    }

    /// Starts the feed at `applied`: of what is before, nothing has been shown.
    pub(super) fn start_at(&self, applied: Position) {
        self.state.lock().shown = applied;
        self.feed.reset(applied);
    }

    /// The keys of the writes that were lost.
    pub(super) fn lost_keys(&self) -> Vec<Bytes> {
        let state = self.state.lock();
        let keys = state.lost.iter().flat_map(|write| &write.keys);
        keys.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// The writes that were lost, for the report of a failover that has succeeded.
    pub(super) fn take_lost(&self) -> Vec<LostWrite> {
        std::mem::take(&mut self.state.lock().lost)
    }
}

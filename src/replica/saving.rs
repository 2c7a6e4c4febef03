//! When a node writes its state down as a whole, so that its log need not go back to the beginning.

use super::actor::{Actor, Event};
use super::checkpoint;
use super::entry::Entry;
use crate::store::Engine;
use futures::future::FutureExt;
use std::sync::Arc;

/// When the state was last written down as a whole.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Where the two that are kept were taken.
    newest: u64,
    older: u64,
    running: bool,
    /// Bytes of records since.
    bytes: u64,
}

impl Checkpoints {
    /// The two in a directory that has been opened.
    pub(super) fn found(newest: u64, older: u64) -> Checkpoints {
        Checkpoints {
            newest,
            older,
            ..Checkpoints::default()
        }
    }
}

impl Actor {
    /// Records were applied; they count towards the next checkpoint.
    pub(super) fn count_applied(&mut self, entries: &[Entry]) {
        let bytes = entries.iter().map(|entry| entry.bytes.len() as u64 + 16);
        self.checkpoints.bytes += bytes.sum::<u64>();
        let needed = self.live.engine.applied().seq.min(self.log.durable() - 1);
        self.window.trim(needed);
    }

    /// Begins a checkpoint when it is time: of committed records only, and of none that a crash could still take from the
    /// log.
    pub(super) fn start_checkpoint(&mut self) {
        let applied = self.live.engine.applied();
        let due = self.checkpoints.bytes >= self.options.checkpoint_bytes && !self.checkpoints.running;
        if !due || applied.seq > self.accept.commit() || applied.seq >= self.log.durable() {
            return;
        }
        let Ok(snapshot) = self.live.engine.snapshot() else {
            return;
        };
        let mut history = self.accept.history().clone();
        history.cut(applied.seq);
        let (disk, dir) = (Arc::clone(self.env.disk()), self.dir.clone());
        let write = async move { checkpoint::write(&*disk, &dir, snapshot, &history).await };
        // A machine without threads to spare has this one failed like one without disk space.
        let task = self.env.spawn_dedicated("outgrow-checkpoint", write);
        self.checkpoints.running = true;
        self.checkpoints.bytes = 0;
        let wait = async move {
            let result = match task {
                Ok(task) => task.await.unwrap_or_else(|gone| Err(gone.into())),
                Err(error) => Err(error),
            };
            Event::Checkpointed(applied.seq, result)
        };
        self.events.push(wait.boxed());
    }

    pub(super) fn on_checkpoint(&mut self, seq: u64, result: &std::io::Result<()>) {
        self.checkpoints.running = false;
        if result.is_err() {
            // Try again before as much has gathered once more.
            self.checkpoints.bytes += self.options.checkpoint_bytes / 2;
            self.presence.count_failed_checkpoint();
            return;
        }
        if seq > self.checkpoints.newest {
            self.checkpoints.older = self.checkpoints.newest;
            self.checkpoints.newest = seq;
        }
        let (log, before) = (self.log.clone(), self.checkpoints.older + 1);
        let release = async move {
            // What could not be freed now is freed with the next checkpoint.
            let _result = log.release_before(before).await;
            Event::Released
        };
        self.events.push(release.boxed());
    }

    pub(super) fn is_writing_checkpoint(&self) -> bool {
        self.checkpoints.running
    }

    /// The state was replaced by a snapshot that is on disk as a checkpoint.
    pub(super) fn installed_checkpoint(&mut self, seq: u64) {
        self.checkpoints.older = self.checkpoints.newest.min(seq);
        self.checkpoints.newest = seq;
        self.checkpoints.bytes = 0;
    }
}

//! What a node does as a replica.

use super::accept::{Answer, Append, Verdict};
use super::actor::{Actor, CHUNK, Stop, read_log};
use super::checkpoint;
use super::entry::Entry;
use super::gate::PURGE_PER_RECORD;
use super::history::History;
use super::meta::Meta;
use super::node::{Install, Live};
use super::open::rebuild;
use crate::env::files;
use crate::log::LogError;
use crate::store::{Effect, Engine, Error, Position};
use std::path::PathBuf;
use std::sync::Arc;

impl Actor {
    /// Takes records from a primary. The answer is given when they are on disk.
    pub(super) async fn on_append(&mut self, append: Append) -> Result<Answer, Stop> {
        if append.epoch > self.accept.promised() {
            self.promise(append.epoch).await?;
        }
        let take = match self.accept.judge(&append) {
            Verdict::Refuse(answer) => return Ok(answer),
            Verdict::Broken { seq } => {
                let what = format!(
                    "the primary of epoch {} would replace committed record {seq}",
                    append.epoch
                );
                return Err(Stop::Failed(Error::Corrupt { what }));
            }
            Verdict::Take(take) => take,
        };
        self.step_down("another primary has sent its records");
        if let Some(after) = take.cut {
            self.hand_back(after, None).await;
            self.cut(after).await?;
        }
        let new = append.entries.get(take.skip..).unwrap_or_default();
        if let Some(first) = new.first() {
            self.align(first.at.seq).await?;
            for (_, written) in self.append_to_log(new).await? {
                match written.await {
                    Err(LogError::Full) => return Ok(self.disk_full()),
                    result => result?,
                }
            }
        }
        self.accept.committed(append.commit, take.matched);
        self.apply_committed().await?;
        let applied = self.live.engine.applied().seq;
        if applied >= append.commit {
            self.live.set_fresh(append.as_of);
        }
        // Nothing that readers would see is in doubt, nor is it from long ago.
        if applied <= take.matched && applied >= append.commit {
            self.live.set_serving(true);
        }
        self.tell();
        Ok(Answer::Has {
            last: take.matched,
            voter: self.accept.voter(),
        })
    }

    /// Takes over a primary's whole state.
    pub(super) async fn on_install(&mut self, install: Install) -> Result<Answer, Stop> {
        if self.accept.is_fenced(install.epoch) {
            let promised = self.accept.promised();
            return Ok(Answer::Fenced { promised });
        }
        if self.is_writing_checkpoint() {
            return Ok(Answer::Busy);
        }
        if install.epoch > self.accept.promised() {
            self.promise(install.epoch).await?;
        }
        self.step_down("another primary has sent its state");
        let at = install.for_disk.at;
        let mine = self.accept.last().seq;
        if at.seq <= mine.max(self.accept.commit()) && self.accept.history().at(at.seq) == at {
            // It has all that already.
            let voter = self.accept.voter();
            return Ok(Answer::Has { last: at.seq, voter });
        }
        let fork = fork(self.accept.history(), mine, &install.history);
        if fork < mine {
            self.hand_back(fork, Some(&install.history)).await;
        }
        // From here on, having no more than both have is right.
        let installing = |installing, meta: &Meta| Meta {
            installing,
            ..meta.clone()
        };
        self.presence.has_given_up(self.accept.history().at(fork));
        self.remember(installing(at.seq, &self.meta)).await?;
        let (disk, dir): (_, PathBuf) = (Arc::clone(self.env.disk()), self.dir.clone());
        let (snapshot, history) = (install.for_disk, install.history.clone());
        let write = async move { checkpoint::write(&*disk, &dir, snapshot, &history).await };
        let written = files::blocking(&self.env, write).await;
        written.map_err(|e| Error::io(&e, Effect::Unknown))?;
        self.log.reset(at.seq + 1).await?;
        self.remember(installing(0, &self.meta)).await?;
        let live = Arc::new(Live::new(self.env.clone()));
        live.engine.install(install.for_engine)?;
        self.replace_live(live);
        self.accept.installed(at, install.history);
        self.window.clear();
        self.installed_checkpoint(at.seq);
        self.tell();
        Ok(Answer::Has {
            last: at.seq,
            voter: self.accept.voter(),
        })
    }

    /// Counts towards a majority again: the primary says that nothing is missing any more.
    pub(super) async fn on_admit(&mut self, epoch: u64) -> Result<Answer, Stop> {
        if epoch != self.accept.promised() {
            let promised = self.accept.promised();
            return Ok(Answer::Fenced { promised });
        }
        self.remember(Meta {
            voter: true,
            ..self.meta.clone()
        })
        .await?;
        self.accept.set_voter(true);
        self.tell();
        Ok(Answer::Has {
            last: self.accept.last().seq,
            voter: true,
        })
    }

    /// Cuts the log after the record numbered `seq`, and takes back what the engine has beyond.
    async fn cut(&mut self, seq: u64) -> Result<(), Stop> {
        self.accept.cut(seq);
        self.window.cut(seq);
        // From here on, having less than before is right.
        self.tell();
        self.align(seq + 1).await?;
        if self.live.engine.applied().seq > seq {
            let live = rebuild(&self.env, &self.dir).await?;
            if live.engine.applied().seq > self.accept.commit() {
                let what = format!(
                    "a checkpoint was taken at {}, which was not committed",
                    live.engine.applied()
                );
                return Err(Stop::Failed(Error::Corrupt { what }));
            }
            self.replace_live(live);
        }
        Ok(())
    }

    /// Makes `next` the log's next number, voiding what it has from there on.
    async fn align(&mut self, next: u64) -> Result<(), Stop> {
        let range = self.log.range();
        if range.end == next {
            return Ok(());
        }
        if next > range.start && next < range.end {
            self.log.truncate_after(next - 1).await?;
        } else {
            self.log.reset(next).await?;
        }
        Ok(())
    }

    /// The disk took none of the records: they are sent again, later.
    fn disk_full(&mut self) -> Answer {
        let last = self.log.range().end - 1;
        self.accept.cut(last);
        self.window.cut(last);
        Answer::Busy
    }

    /// Applies what is known to be committed.
    async fn apply_committed(&mut self) -> Result<(), Stop> {
        let to = self.accept.commit();
        loop {
            let from = self.live.engine.applied().seq + 1;
            if from > to {
                return Ok(());
            }
            let entries = self.entries(from, to).await?;
            let now = self.env.wall();
            for entry in &entries {
                self.live.engine.apply(entry.at, &entry.record)?;
                self.live.engine.purge(now, PURGE_PER_RECORD)?;
            }
            self.count_applied(&entries);
        }
    }

    /// Hands the records after `seq` to whoever asks for them, before they are cut off: all of them, or those that are
    /// not in `theirs`. What cannot be read is not handed back.
    async fn hand_back(&mut self, seq: u64, theirs: Option<&History>) {
        let last = self.accept.last().seq;
        let mut from = seq + 1;
        while from <= last {
            let read = match self.window.get(from, last, CHUNK) {
                Some(entries) => Ok(entries),
                None => read_log(&self.log, from, last).await,
            };
            let (Ok(entries), Some(shared)) = (read, self.shared.upgrade()) else {
                return;
            };
            from += entries.len() as u64;
            let is_lost = |entry: &&Entry| theirs.is_none_or(|theirs| theirs.at(entry.at.seq) != entry.at);
            shared.hand_back(self.me, entries.iter().filter(is_lost));
        }
    }
}

/// The last record that the log of `mine`, which ends at `last`, has in common with that of `theirs`.
fn fork(mine: &History, last: u64, theirs: &History) -> u64 {
    let mut common = last;
    while common > 0 && mine.at(common) != theirs.at(common) {
        let start = |history: &History, at: Position| history.start_of_epoch(at.seq);
        common = start(mine, mine.at(common)).max(start(theirs, theirs.at(common))) - 1;
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_fork_is_where_two_lists_part(
            common in prop::collection::vec(0_u64..2, 0..10),
            mine in prop::collection::vec(0_u64..2, 0..10),
            theirs in prop::collection::vec(0_u64..2, 0..10),
        ) {
            let grow = |steps: &[u64], mut epoch: u64| -> Vec<u64> { steps.iter().map(|step| { epoch += step; epoch }).collect() };
            let common = grow(&common, 1);
            let last = common.last().copied().unwrap_or(1);
            let odd = grow(&mine, last + 1).iter().map(|epoch| epoch * 2 + 1).collect::<Vec<_>>();
            let even = grow(&theirs, last + 1).iter().map(|epoch| epoch * 2).collect::<Vec<_>>();
            let log = |tail: &[u64]| [&common[..], tail].concat();
            let history = |log: &[u64]| {
                let mut history = History::default();
                for (i, epoch) in log.iter().enumerate() {
                    history.note(Position::new(*epoch, i as u64 + 1));
                }
                history
            };
            let (a, b) = (log(&odd), log(&even));
            // Beyond its end, a history goes on in its last epoch, as the log that it stands for may.
            if !odd.is_empty() && !even.is_empty() {
                prop_assert_eq!(fork(&history(&a), a.len() as u64, &history(&b)), common.len() as u64);
            }
        }
    }
}

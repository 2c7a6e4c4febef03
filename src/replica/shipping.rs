//! How a primary brings the other nodes to what it has.

use super::accept::{Answer, Append};
use super::actor::{Actor, CHUNK, Event, Outcome, read_log};
use super::checkpoint;
use super::node::{Install, Message};
use super::shared::{Unreached, ask};
use super::ship::{Plan, before};
use crate::env::Env;
use crate::store::{Engine, Result};
use crate::sync::Ordering;
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt};
use std::time::Duration;

/// How long after a message got lost it is sent again.
const RETRY: Duration = Duration::from_millis(50);

impl Actor {
    /// Sends each other node what it lacks, if nothing is under way to it.
    pub(super) fn ship(&mut self) {
        for node in 0..self.meta.nodes.len() {
            if let Some((round, send)) = self.next_message(node) {
                let epoch = self.accept.promised();
                let sent = async move {
                    let how = send.await;
                    Event::Sent {
                        epoch,
                        node,
                        round,
                        how,
                    }
                };
                self.events.push(sent.boxed());
            }
        }
    }

    fn next_message(&mut self, node: usize) -> Option<(u64, BoxFuture<'static, Outcome>)> {
        let first = self.log.range().start;
        let lead = self.lead.as_ref()?;
        let peer = lead.peers[node].as_ref()?;
        let (last, commit) = (lead.heart.last(), lead.heart.commit());
        let plan = peer.plan(first, last, commit, lead.heart.durable(node), lead.heart.start());
        let send = match plan {
            Plan::Wait => return None,
            Plan::Records(from) => self.send_records(node, from, last, commit),
            Plan::Snapshot => self.send_snapshot(node, commit)?,
            Plan::Admit => {
                let epoch = lead.heart.epoch();
                self.send(node, move |reply| Message::Admit { epoch, reply })
            }
        };
        let peer = self.lead.as_mut()?.peers[node].as_mut()?;
        Some((peer.sent(commit), send))
    }

    fn send_records(&self, node: usize, from: u64, last: u64, commit: u64) -> BoxFuture<'static, Outcome> {
        let mut append = Append {
            epoch: self.accept.promised(),
            prev: before(self.accept.history(), from),
            entries: Vec::new(),
            commit,
            as_of: self.env.now(),
        };
        if from > last {
            return self.send(node, |reply| Message::Append(append, reply));
        }
        if let Some(entries) = self.window.get(from, last, CHUNK) {
            append.entries = entries;
            return self.send(node, |reply| Message::Append(append, reply));
        }
        let (log, shared, me, env) = (self.log.clone(), self.shared.clone(), self.me, self.env.clone());
        let read_and_send = async move {
            // What is not in memory any more is on disk.
            let Ok(entries) = read_log(&log, from, last).await else {
                return Outcome::Unreadable;
            };
            append.entries = entries;
            outcome(
                &env,
                ask(&shared, Some(me), node, &env, |reply| Message::Append(append, reply)).await,
            )
            .await
        };
        read_and_send.boxed()
    }

    /// The engine's state, or that of the newest checkpoint while the engine has what is not committed. Nothing when
    /// neither will do yet.
    fn send_snapshot(&self, node: usize, commit: u64) -> Option<BoxFuture<'static, Outcome>> {
        let epoch = self.accept.promised();
        let applied = self.live.engine.applied();
        if applied.seq <= commit {
            let snapshot = || self.live.engine.snapshot().ok();
            let mut history = self.accept.history().clone();
            history.cut(applied.seq);
            let install = Box::new(Install {
                epoch,
                history,
                for_disk: snapshot()?,
                for_engine: snapshot()?,
            });
            return Some(self.send(node, |reply| Message::Install(install, reply)));
        }
        let (shared, me, env, dir) = (self.shared.clone(), self.me, self.env.clone(), self.dir.clone());
        let read_and_send = async move {
            let read = async || checkpoint::read_newest(&env, &dir).await.ok()?.newest;
            let (Some(one), Some(two)) = (read().await, read().await) else {
                return Outcome::Unreadable;
            };
            if one.at != two.at {
                return outcome(&env, Err(Unreached::Lost)).await;
            }
            let install = Box::new(Install {
                epoch,
                history: one.history.clone(),
                for_disk: one.into_snapshot(),
                for_engine: two.into_snapshot(),
            });
            outcome(
                &env,
                ask(&shared, Some(me), node, &env, |reply| Message::Install(install, reply)).await,
            )
            .await
        };
        Some(read_and_send.boxed())
    }

    fn send(
        &self,
        node: usize,
        message: impl FnOnce(oneshot::Sender<Answer>) -> Message + Send + 'static,
    ) -> BoxFuture<'static, Outcome> {
        let (shared, me, env) = (self.shared.clone(), self.me, self.env.clone());
        async move { outcome(&env, ask(&shared, Some(me), node, &env, message).await).await }.boxed()
    }

    /// A message to another node has come to its end.
    pub(super) fn on_sent(&mut self, epoch: u64, node: usize, round: u64, how: &Outcome) {
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.heart.epoch() == epoch) else {
            return;
        };
        let Some(peer) = lead.peers[node].as_mut().filter(|peer| peer.is_current(round)) else {
            return;
        };
        match how {
            Outcome::Gone => peer.down(),
            Outcome::Lost => peer.retry(),
            Outcome::Unreadable => peer.unreadable(),
            Outcome::Answered(Answer::Fenced { promised }) => {
                if let Some(shared) = self.shared.upgrade() {
                    shared.highest.fetch_max(*promised, Ordering::Relaxed);
                }
                self.step_down("another node obeys a newer primary");
            }
            Outcome::Answered(answer) => {
                peer.answered(answer);
                if let Answer::Has { last, voter } = answer {
                    lead.heart.on_disk(node, *last, *voter);
                }
            }
        }
    }

    /// Another node has been started again, perhaps without all that it had.
    pub(super) fn on_back(&mut self, node: usize) {
        if let Some(lead) = &mut self.lead
            && let Some(peer) = &mut lead.peers[node]
        {
            peer.is_back();
            lead.heart.forget(node);
        }
    }
}

/// What came of a message; after a loss, or when there is no room, not before a pause.
async fn outcome(env: &Env, answer: Result<Answer, Unreached>) -> Outcome {
    match answer {
        Err(Unreached::Gone) => Outcome::Gone,
        Err(Unreached::Lost) | Ok(Answer::Busy) => {
            env.sleep(RETRY).await;
            Outcome::Lost
        }
        Ok(answer) => Outcome::Answered(answer),
    }
}

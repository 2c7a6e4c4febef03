//! Changing the primary: fence the old epoch, choose, promote, and say what was lost.

use super::choose::{Choice, Promised, choose};
use super::history::{Fate, History};
use super::node::{Message, PromiseAnswer, Promoted};
use super::shared::{Shared, ask};
use super::status::{FailoverReport, FailoverTo};
use crate::env::Tick;
use crate::store::{Effect, Engine, Error, Position, Result};
use crate::sync::{Ordering, pin};
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;

/// How long a node that is up may take to promise once a majority has: what it has may be more.
const GRACE: Duration = Duration::from_millis(50);
/// How long after a message got lost it is sent again.
const RETRY: Duration = Duration::from_millis(20);

/// A majority that obeys a new epoch.
struct Fence {
    epoch: u64,
    promises: Vec<Promise>,
}

struct Promise {
    promised: Promised,
    history: History,
    applied: Position,
}

impl Shared {
    /// Makes another node the primary.
    pub(super) async fn fail_over(self: &Arc<Shared>, to: FailoverTo) -> Result<FailoverReport> {
        let wanted = match &to {
            FailoverTo::MostCaughtUp => None,
            FailoverTo::Node(name) => Some(self.node(name)?),
        };
        let _control = self.control.lock().await;
        if self.topology().closed {
            return Err(unavailable("the store is closed"));
        }
        if let Some(wanted) = wanted.filter(|wanted| !self.slots[*wanted].is_up()) {
            return Err(unavailable(format!("node {:?} is down", self.slots[wanted].name)));
        }
        let began = self.env.now();
        let deadline = began + self.options.failover_timeout;
        self.set_topology(|topology| topology.moving = true);
        let moved = self.change_primary(wanted, deadline).await;
        self.set_topology(|topology| topology.moving = false);
        let (from, primary, epoch) = moved?;
        let name = |node: usize| self.slots[node].name.clone();
        Ok(FailoverReport {
            epoch,
            from: from.map(name),
            to: name(primary),
            lost: self.gate.take_lost(),
            took: self.env.now() - began,
        })
    }

    /// Brings a primary into office, whoever it was before. The topology names it afterwards.
    pub(super) async fn change_primary(
        self: &Arc<Shared>,
        wanted: Option<usize>,
        deadline: Tick,
    ) -> Result<(Option<usize>, usize, u64)> {
        self.find_majority(deadline).await?;
        let old = self.topology().primary;
        let fence = self.fence(deadline).await?;
        let mut choice = self.choose_among(&fence, wanted, old)?;
        let mut epoch = fence.epoch;
        let mut promoted = self.promote(&fence, choice.best, deadline).await?;
        if choice.target != choice.best {
            // Nobody writes meanwhile, so the one that is wanted soon has all that the best one has.
            match self.hand_over(&promoted, choice, deadline).await {
                Ok((newer, node, in_office)) => (epoch, choice.best, promoted) = (newer, node, in_office),
                // The best one is in office, unless it was fenced already: better that than none.
                Err(_) if self.highest.load(Ordering::Relaxed) == epoch => {}
                Err(error) => return Err(error),
            }
        }
        self.restate(choice.best, deadline).await?;
        self.set_topology(|topology| {
            topology.epoch = epoch;
            topology.primary = Some(choice.best);
            topology.history = Arc::new(promoted.history);
        });
        Ok((old, choice.best, epoch))
    }

    fn choose_among(&self, fence: &Fence, wanted: Option<usize>, old: Option<usize>) -> Result<Choice> {
        let promised: Vec<Promised> = fence.promises.iter().map(|promise| promise.promised).collect();
        choose(&promised, self.slots.len(), wanted, old)
            .ok_or_else(|| unavailable("too few nodes with all their data have promised the new epoch"))
    }

    /// Makes sure that a majority answers before anything is changed.
    async fn find_majority(self: &Arc<Shared>, deadline: Tick) -> Result<()> {
        let majority = self.slots.len() / 2 + 1;
        loop {
            let mut pings: FuturesUnordered<_> = (0..self.slots.len())
                .map(|node| async move {
                    let shared = Arc::downgrade(self);
                    ask(&shared, None, node, &self.env, Message::Ping).await.is_ok()
                })
                .collect();
            let mut answered = 0;
            while answered < majority {
                match self.until(deadline, pings.next()).await? {
                    Some(true) => answered += 1,
                    Some(false) => {}
                    None => break,
                }
            }
            if answered >= majority {
                return Ok(());
            }
            self.pause(deadline, || format!("{answered} of {} nodes answer", self.slots.len()))
                .await?;
        }
    }

    /// Has a majority promise a new epoch.
    async fn fence(self: &Arc<Shared>, deadline: Tick) -> Result<Fence> {
        let majority = self.slots.len() / 2 + 1;
        loop {
            let epoch = self.highest.fetch_add(1, Ordering::Relaxed) + 1;
            let mut answers: FuturesUnordered<_> = (0..self.slots.len())
                .map(|node| async move {
                    let shared = Arc::downgrade(self);
                    let promise = |reply| Message::Promise { epoch, reply };
                    ask(&shared, None, node, &self.env, promise).await
                })
                .collect();
            let mut promises: Vec<Promise> = Vec::new();
            let mut limit = deadline;
            let mut refused = false;
            let votes = |promises: &[Promise]| promises.iter().filter(|promise| promise.promised.voter).count();
            loop {
                let answer = self.until(limit, answers.next()).await;
                match answer {
                    Ok(Some(Ok(PromiseAnswer::Promised {
                        promised,
                        history,
                        applied,
                    }))) => {
                        promises.push(Promise {
                            promised,
                            history,
                            applied,
                        });
                        if votes(&promises) == majority {
                            limit = deadline.min(self.env.now() + GRACE);
                        }
                    }
                    Ok(Some(Ok(PromiseAnswer::Refused { promised }))) => {
                        self.highest.fetch_max(promised, Ordering::Relaxed);
                        refused = true;
                    }
                    Ok(Some(Err(_))) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            if votes(&promises) >= majority {
                return Ok(Fence { epoch, promises });
            }
            if refused && self.env.now() < deadline {
                continue;
            }
            let count = votes(&promises);
            let nodes = self.slots.len();
            self.pause(deadline, || {
                format!("{count} of {nodes} nodes with all their data have promised epoch {epoch}")
            })
            .await?;
        }
    }

    /// Brings `node` into office in the epoch of `fence`. From here on the old primary is history.
    async fn promote(self: &Arc<Shared>, fence: &Fence, node: usize, deadline: Tick) -> Result<Promoted> {
        let best = fence.promises.iter().find(|promise| promise.promised.node == node);
        let best = best.ok_or_else(|| unavailable("the chosen node has not promised"))?;
        let epoch = fence.epoch;
        if self.topology().epoch == 0 {
            self.gate.start_at(best.applied);
        }
        // With its first record, the log that there will be.
        let start = Position::new(epoch, best.promised.last.seq + 1);
        let mut history = best.history.clone();
        history.note(start);
        self.gate.open(epoch, &history, start.seq);
        for slot in &self.slots {
            // Whoever shows what is lost shows nothing until it has given that up.
            if let Some(live) = slot.live.load(&pin())
                && matches!(history.fate(live.engine.applied(), start.seq), Fate::Lost(_))
            {
                live.set_serving(false);
            }
        }
        self.set_topology(|topology| topology.primary = None);
        let shared = Arc::downgrade(self);
        let promote = |reply| Message::Promote { epoch, reply };
        let answer = ask(&shared, None, node, &self.env, promote);
        let promoted = self.until(deadline, answer).await?;
        promoted.map_err(|_| unavailable(format!("node {:?} did not take office", self.slots[node].name)))
    }

    /// Waits until the target of `choice` has what the primary that is in office has, then promotes it instead. Gives the
    /// new epoch and its primary: another than the target, when that one's promise did not come in time.
    async fn hand_over(
        self: &Arc<Shared>,
        office: &Promoted,
        choice: Choice,
        deadline: Tick,
    ) -> Result<(u64, usize, Promoted)> {
        let has_all = || {
            let slot = &self.slots[choice.target];
            let applied = slot.live.load(&pin()).as_ref().map(|live| live.engine.applied());
            if !slot.is_up() {
                return Some(Err(unavailable(format!("node {:?} went down", slot.name))));
            }
            (applied >= Some(office.start)).then_some(Ok(()))
        };
        // Half of the time that is left, so that there is some for what follows.
        let half = self.env.now() + (deadline - self.env.now()) / 2;
        self.until(half, self.moved.wait(has_all)).await??;
        let fence = self.fence(deadline).await?;
        let choice = self.choose_among(&fence, Some(choice.target), None)?;
        if choice.best != choice.target {
            return Err(unavailable("the node that was to take over fell behind"));
        }
        let promoted = self.promote(&fence, choice.best, deadline).await?;
        Ok((fence.epoch, choice.best, promoted))
    }

    /// Tells those who saw writes that were lost what holds instead.
    async fn restate(self: &Arc<Shared>, primary: usize, deadline: Tick) -> Result<()> {
        let keys = self.gate.lost_keys();
        if keys.is_empty() {
            return Ok(());
        }
        let shared = Arc::downgrade(self);
        let restate = |reply| Message::Restate { keys, reply };
        let answer = ask(&shared, None, primary, &self.env, restate);
        match self.until(deadline, answer).await? {
            Ok(Ok(_)) => Ok(()),
            _ => Err(unavailable("the new primary has gone away")),
        }
    }

    /// Awaits `future` until `deadline`.
    pub(super) async fn until<T>(&self, deadline: Tick, future: impl Future<Output = T> + Send) -> Result<T> {
        let left = deadline - self.env.now();
        let waited = self.env.timeout(left, future).await;
        waited.map_err(|_| Error::Timeout { effect: Effect::None })
    }

    /// Waits a little before another attempt, or says what is missing when there is no time for one.
    async fn pause(&self, deadline: Tick, what: impl FnOnce() -> String) -> Result<()> {
        if self.env.now() + RETRY >= deadline || self.link.is_none() {
            return Err(unavailable(what()));
        }
        self.env.sleep(RETRY).await;
        Ok(())
    }
}

fn unavailable(what: impl Into<String>) -> Error {
    Error::unavailable(what, Effect::None)
}

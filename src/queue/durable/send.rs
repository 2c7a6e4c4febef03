//! How the durable queue takes messages in: repetitions told apart, room waited for.

use super::fate::Fate;
use super::heart::dedup::{Id, Known};
use super::limits::{OnFull, check_name};
use super::outgoing::Batch;
use super::shell::{Core, InFlight, Shell};
use crate::env::Env;
use crate::log::LogError;
use crate::queue::{Error, Message, Receipt, Result};
use futures::FutureExt;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long a send waits that found the disk itself full, before it tries again.
const FULL_AGAIN: Duration = Duration::from_millis(100);
/// How long after a send found no room the queue looks for some, at least.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// What a message of a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    New,
    /// A repetition of an earlier one of the batch.
    Twin(usize),
    /// A repetition of a message that was sent, or is on its way, under this number.
    Known(u64),
}

/// Where the messages of a batch are.
#[derive(Debug)]
pub(super) struct Placed {
    /// The numbers of those that were new.
    seqs: Range<u64>,
    /// What each message is; nothing, if all are new.
    plan: Vec<Plan>,
}

impl Placed {
    /// Of each message, in their order.
    pub(super) fn receipts(mut self) -> Vec<Receipt> {
        if self.plan.is_empty() {
            return self.seqs.map(Receipt::new).collect();
        }
        let mut receipts: Vec<Receipt> = Vec::with_capacity(self.plan.len());
        for plan in &self.plan {
            receipts.push(match plan {
                Plan::New => Receipt::new(self.seqs.next().expect("what is new has a number")),
                Plan::Twin(of) => Receipt::duplicate(receipts[*of].seq),
                Plan::Known(seq) => Receipt::duplicate(*seq),
            });
        }
        receipts
    }

    /// Of the only message.
    pub(super) fn receipt(self) -> Receipt {
        match self.plan.first() {
            Some(Plan::Known(seq)) => Receipt::duplicate(*seq),
            _ => Receipt::new(self.seqs.start),
        }
    }

    fn repetitions(&self) -> usize {
        self.plan.iter().filter(|plan| **plan != Plan::New).count()
    }
}

impl Shell {
    /// The messages as they go into the log.
    pub(super) fn batch(&self, topic: &str, messages: &[Message]) -> Result<Batch> {
        check_name("a topic", topic)?;
        Batch::new(topic, self.env.wall(), messages, (&self.keys, &self.ids))
    }

    /// Sends messages, all or none. What seldom happens is boxed, so that the future of a send stays small.
    pub(super) async fn send(self: &Arc<Self>, batch: Batch) -> Result<Placed> {
        if batch.len() == 0 {
            let (seqs, plan) = (0..0, Vec::new());
            return self.check().map(|()| Placed { seqs, plan });
        }
        match self.settings.on_full {
            OnFull::Refuse => self.send_once(batch).await,
            OnFull::Wait | OnFull::DropOldest => self.send_when_there_is_room(batch).boxed().await,
        }
    }

    async fn send_when_there_is_room(self: &Arc<Self>, batch: Batch) -> Result<Placed> {
        loop {
            match self.send_once(batch.clone()).await {
                Err(Error::Full { .. }) => {}
                result => return result,
            }
            // The disk itself is full, and nothing of this is in the log.
            let _short = self.short();
            self.env.sleep(FULL_AGAIN).await;
        }
    }

    async fn send_once(self: &Arc<Self>, mut batch: Batch) -> Result<Placed> {
        if self.is_full() {
            self.find_room().boxed().await?;
        }
        if batch.has_large() {
            batch.stage(&self.log).boxed().await?;
        }
        self.place(batch).await
    }

    /// Sends what of a batch is new, and waits until all of it is durable.
    async fn place(self: &Arc<Self>, mut batch: Batch) -> Result<Placed> {
        let (append, plan, follow) = loop {
            match self.append_fresh(&mut batch) {
                Err(LogError::Busy { len, .. }) => self.log.room(len).boxed().await,
                appended => break appended?,
            }
        };
        let seqs = append.as_ref().map_or(0..0, InFlight::seqs);
        match (append, follow) {
            // What it repeats comes before it in the log, so it is there when this is.
            (Some(append), _) => append.done().await?,
            (None, Some(fate)) => fate.wait().boxed().await?,
            (None, None) => {}
        }
        let placed = Placed { seqs, plan };
        match placed.repetitions() {
            0 => {}
            repetitions => self.core.lock().counts.duplicates += repetitions as u64,
        }
        Ok(placed)
    }

    /// Appends what of a batch is new, and leaves the batch empty. Also says what each message is, nothing if all are new,
    /// and what to wait for when all are repetitions.
    #[expect(clippy::type_complexity, reason = "three things, once")]
    fn append_fresh(
        self: &Arc<Self>,
        batch: &mut Batch,
    ) -> Result<(Option<InFlight>, Vec<Plan>, Option<Arc<Fate>>), LogError> {
        let mut core = self.core.lock();
        if core.closed {
            return Err(LogError::Closed);
        }
        let (plan, follow) = core.plan(&self.env, batch);
        let is_new = |at: usize| plan[at] == Plan::New;
        let mut picked = (!(0..plan.len()).all(is_new)).then(|| batch.only(is_new));
        let fresh = picked.as_mut().unwrap_or(batch);
        let append = match fresh.len() {
            0 => None,
            _ => Some(self.append_batch(&mut core, fresh)?),
        };
        Ok((append, plan, follow))
    }

    pub(super) fn is_full(&self) -> bool {
        self.log.bytes() >= self.settings.max_bytes
    }

    /// Waits until the log may grow, or refuses.
    async fn find_room(&self) -> Result<()> {
        self.check()?;
        if self.settings.on_full == OnFull::Refuse {
            return Err(Error::Full {
                what: format!("the log has reached max_bytes ({})", self.settings.max_bytes),
            });
        }
        let _short = self.short();
        let has_room = || match self.check() {
            Err(error) => Some(Err(error)),
            Ok(()) if !self.is_full() => Some(Ok(())),
            Ok(()) => {
                self.look_for_room();
                None
            }
        };
        self.room.wait(has_room).await
    }

    /// Has the pump look soon for something to free.
    fn look_for_room(&self) {
        let mut core = self.core.lock();
        let at = self.env.now() + LOOK_AFTER;
        core.tidy_at = Some(core.tidy_at.map_or(at, |known| known.min(at)));
        self.tell(core, None);
    }

    fn short(&self) -> Short<'_> {
        self.core.lock().short += 1;
        self.look_for_room();
        Short(self)
    }
}

/// A send that waits for room on the disk.
struct Short<'a>(&'a Shell);

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.core.lock().short -= 1;
    }
}

impl Core {
    /// What each message of a batch is; nothing, if all are new. And what to wait for, if all are repetitions.
    fn plan(&mut self, env: &Env, batch: &Batch) -> (Vec<Plan>, Option<Arc<Fate>>) {
        if !self.dedup.is_on() || batch.ids().next().is_none() {
            return (Vec::new(), None);
        }
        let now = env.now();
        let mut here: BTreeMap<Id, usize> = BTreeMap::new();
        let mut latest = None;
        let mut plan = Vec::with_capacity(batch.len());
        for at in 0..batch.len() {
            let id = batch.id(at);
            let known = id.and_then(|id| self.dedup.find(now, id));
            let twin = id.and_then(|id| here.get(&id).copied());
            plan.push(match (known, twin) {
                (Some(Known::Sent(seq)), _) => Plan::Known(seq),
                (Some(Known::OnItsWay { append, seq }), _) => {
                    latest = latest.max(Some(append));
                    Plan::Known(seq)
                }
                (None, Some(first)) => Plan::Twin(first),
                (None, None) => {
                    id.map(|id| here.insert(id, at));
                    Plan::New
                }
            });
        }
        let all_known = plan.iter().all(|plan| matches!(plan, Plan::Known(_)));
        let follow = latest.filter(|_| all_known).map(|append| self.fate(append));
        (plan, follow)
    }
}

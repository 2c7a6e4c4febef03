//! How the durable queue takes messages in: repetitions told apart, room waited for.

use super::dedup::{Id, Known};
use super::fate::Fate;
use super::limits::OnFull;
use super::outgoing::Batch;
use super::shell::{Core, InFlight, Shell};
use super::{Error, Message, Receipt, Result};
use crate::env::Env;
use crate::log::LogError;
use futures::FutureExt;
use std::collections::BTreeMap;
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

impl Shell {
    /// Sends messages of one topic, all or none. What seldom happens is boxed, so that the future of a send stays small.
    pub(super) async fn send(self: &Arc<Self>, topic: &str, messages: &[Message]) -> Result<Vec<Receipt>> {
        let hashes = (&self.keys, &self.ids);
        let batch = Batch::new(topic, self.env.wall(), messages, hashes)?;
        if messages.is_empty() {
            return self.check().map(|()| Vec::new());
        }
        match self.settings.on_full {
            OnFull::Refuse => self.send_once(batch).await,
            OnFull::Wait | OnFull::DropOldest => self.send_when_there_is_room(batch).boxed().await,
        }
    }

    async fn send_when_there_is_room(self: &Arc<Self>, batch: Batch) -> Result<Vec<Receipt>> {
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

    async fn send_once(self: &Arc<Self>, mut batch: Batch) -> Result<Vec<Receipt>> {
        if self.is_full() {
            self.find_room().boxed().await?;
        }
        if batch.has_large() {
            batch.stage(&self.log).boxed().await?;
        }
        self.place(batch).await
    }

    /// Sends what of a batch is new, and waits until all of it is durable.
    async fn place(self: &Arc<Self>, mut batch: Batch) -> Result<Vec<Receipt>> {
        let many = batch.len();
        let (append, mut plan, follow) = loop {
            match self.append_fresh(&mut batch) {
                Err(LogError::Busy { len, .. }) => self.log.room(len).boxed().await,
                appended => break appended?,
            }
        };
        let mut seqs = append.as_ref().map_or(0..0, InFlight::seqs);
        if plan.is_empty() {
            plan.resize(many, Plan::New);
        }
        let mut receipts: Vec<Receipt> = Vec::with_capacity(plan.len());
        for plan in plan {
            receipts.push(match plan {
                Plan::New => Receipt::new(seqs.next().expect("what is new has a number")),
                Plan::Twin(of) => Receipt::duplicate(receipts[of].seq),
                Plan::Known(seq) => Receipt::duplicate(seq),
            });
        }
        match (append, follow) {
            // What it repeats comes before it in the log, so it is there when this is.
            (Some(append), _) => append.done().await?,
            (None, Some(fate)) => fate.wait().boxed().await?,
            (None, None) => {}
        }
        let duplicates = receipts.iter().filter(|receipt| receipt.duplicate).count();
        if duplicates > 0 {
            self.core.lock().counts.duplicates += duplicates as u64;
        }
        Ok(receipts)
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

//! How the durable queue takes messages in: repetitions told apart, room waited for.

use super::dedup::{Id, Known};
use super::fate::Fate;
use super::limits::OnFull;
use super::outgoing::{Batch, Outgoing};
use super::shell::{Core, Effect, InFlight, Shell};
use super::{Error, Message, Receipt, Result};
use crate::env::Tick;
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
    /// Sends messages of one topic, all or none.
    pub(super) async fn send(self: &Arc<Self>, topic: &str, messages: &[Message]) -> Result<Vec<Receipt>> {
        let sent = self.env.wall();
        let hashes = (&self.keys, &self.ids);
        let outgoing = messages.iter();
        let outgoing = outgoing.map(|message| Outgoing::new(topic, sent, message, hashes));
        let mut batch = Batch {
            topic: topic.into(),
            sent,
            messages: outgoing.collect::<Result<_>>()?,
        };
        self.check()?;
        if batch.messages.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            self.find_room().await?;
            let result = match batch.stage(&self.log).await {
                Ok(()) => self.place(&batch).await,
                Err(error) => Err(error),
            };
            if self.settings.on_full == OnFull::Refuse || !matches!(result, Err(Error::Full { .. })) {
                return result;
            }
            // The disk itself is full, and nothing of this is in the log.
            let _short = self.short();
            self.env.sleep(FULL_AGAIN).await;
        }
    }

    /// Sends what of a batch is new, and waits until all of it is durable.
    async fn place(self: &Arc<Self>, batch: &Batch) -> Result<Vec<Receipt>> {
        let (mut plan, mut follow) = (Vec::new(), None);
        let make = |core: &mut Core| {
            (plan, follow) = core.plan(self.env.now(), &batch.messages);
            let fresh = batch.only(|at| plan.get(at).is_none_or(|plan| *plan == Plan::New));
            (!fresh.messages.is_empty()).then(|| (fresh.entries(), Effect::Sent(fresh)))
        };
        let append = self.append(make).await?;
        let mut seqs = append.as_ref().map_or(0..0, InFlight::seqs);
        if plan.is_empty() {
            plan.resize(batch.messages.len(), Plan::New);
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
            (None, Some(fate)) => fate.wait().await?,
            (None, None) => {}
        }
        let duplicates = receipts.iter().filter(|receipt| receipt.duplicate).count();
        if duplicates > 0 {
            self.core.lock().counts.duplicates += duplicates as u64;
        }
        Ok(receipts)
    }

    pub(super) fn is_full(&self) -> bool {
        self.log.bytes() >= self.settings.max_bytes
    }

    /// Waits until the log may grow, or refuses.
    async fn find_room(&self) -> Result<()> {
        if !self.is_full() {
            return Ok(());
        }
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
    fn plan(&mut self, now: Tick, messages: &[Outgoing]) -> (Vec<Plan>, Option<Arc<Fate>>) {
        if !self.dedup.is_on() || messages.iter().all(|message| message.id.is_none()) {
            return (Vec::new(), None);
        }
        let mut here: BTreeMap<Id, usize> = BTreeMap::new();
        let mut latest = None;
        let mut plan = Vec::with_capacity(messages.len());
        for (at, message) in messages.iter().enumerate() {
            let known = message.id.and_then(|id| self.dedup.find(now, id));
            let twin = message.id.and_then(|id| here.get(&id).copied());
            plan.push(match (known, twin) {
                (Some(Known::Sent(seq)), _) => Plan::Known(seq),
                (Some(Known::OnItsWay { append, seq }), _) => {
                    latest = latest.max(Some(append));
                    Plan::Known(seq)
                }
                (None, Some(first)) => Plan::Twin(first),
                (None, None) => {
                    message.id.map(|id| here.insert(id, at));
                    Plan::New
                }
            });
        }
        let all_known = plan.iter().all(|plan| matches!(plan, Plan::Known(_)));
        let follow = latest.filter(|_| all_known).map(|append| self.fate(append));
        (plan, follow)
    }
}

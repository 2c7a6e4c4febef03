//! How the durable queue makes subscriptions.

use super::record::{Record, SubId, open_message};
use super::shell::{Core, Effect, Shell};
use crate::env::WallTime;
use crate::queue::{Error, Result, Start, Subscription};
use bytes::Bytes;
use std::sync::Arc;

/// How many bytes of messages are read at once to look for the first of a time.
const AT_ONCE: u64 = 256 << 10;

impl Shell {
    /// Makes a subscription unless it exists, and has it follow what is wanted.
    pub(super) async fn subscribe(self: &Arc<Self>, wanted: &Subscription) -> Result<()> {
        self.check()?;
        if self.configure(wanted) {
            return Ok(());
        }
        let id = self.new_id()?;
        let from = match wanted.start {
            Start::Now | Start::First => None,
            Start::Seq(seq) => Some(seq.max(1)),
            Start::Time(at) => Some(self.first_since(&wanted.topic, at).await?),
        };
        let make = |core: &mut Core| {
            let from = match wanted.start {
                Start::First => Some(core.first_of(&wanted.topic, self.log.durable())),
                _ => from,
            };
            let record = Record::Subscribed {
                id,
                topic: wanted.topic.to_string(),
                name: wanted.name.to_string(),
                from,
            };
            let wanted = wanted.clone();
            Some((vec![record.encode().into()], Effect::Subscribed { id, wanted, from }))
        };
        if let Some(append) = self.append(make).await? {
            append.done().await?;
        }
        self.configure(wanted);
        Ok(())
    }

    /// Has a subscription follow what is wanted, if it exists.
    fn configure(&self, wanted: &Subscription) -> bool {
        let mut core = self.core.lock();
        let Some(id) = core.state.find(&wanted.topic, &wanted.name) else {
            return false;
        };
        core.state.configure(id, wanted);
        self.nudge(core, id);
        true
    }

    fn new_id(&self) -> Result<SubId> {
        let mut core = self.core.lock();
        let most = self.settings.max_subscriptions;
        match core.state.subscription_count() < most {
            true => Ok(core.state.new_id()),
            false => Err(Error::Full {
                what: format!("the queue has max_subscriptions ({most})"),
            }),
        }
    }

    /// The number of a topic's first message that was sent at `at` or later, or the next number if there is none yet.
    async fn first_since(&self, topic: &str, at: WallTime) -> Result<u64> {
        let (from, to) = {
            let core = self.core.lock();
            let end = core.settled_end(self.log.durable());
            let Some(oldest) = core.state.oldest_of(topic) else {
                return Ok(end);
            };
            let (from, to) = core.ages.get(topic).map_or((0, None), |ages| ages.since(at));
            (from.max(oldest), to.unwrap_or(end))
        };
        let mut next = from;
        loop {
            let seqs = self.core.lock().state.some_of(topic, next..to, AT_ONCE);
            let Some(last) = seqs.last().copied() else {
                return Ok(to);
            };
            let entries = self.entries(&seqs).await?;
            let is_since = |entry: Bytes| open_message(entry).is_ok_and(|(sent, _)| sent >= at);
            let first = entries.into_iter().position(|entry| entry.is_some_and(is_since));
            if let Some(index) = first {
                return Ok(seqs[index]);
            }
            next = last + 1;
        }
    }
}

impl Core {
    /// Where a subscription begins that gets all of a topic.
    fn first_of(&self, topic: &str, durable: u64) -> u64 {
        // What is before this has been settled by everybody, or comes after it in the state.
        self.state.oldest_of(topic).unwrap_or(self.settled_end(durable))
    }
}

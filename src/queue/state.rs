//! The heart of the durable queue: what topics hold and where subscriptions stand. Plain data; `now` is an argument.

use super::record::{Record, SubId};
use super::standing::{Lease, Lost, Standing, Stored};
use super::{Subscription, TopicStats};
use crate::env::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Everything that a queue knows besides the messages' bytes.
#[derive(Debug, Default)]
pub(super) struct State {
    topics: BTreeMap<Arc<str>, Topic>,
    subscriptions: BTreeMap<SubId, Standing>,
    last_id: SubId,
    /// Grows with every delivery; it begins at chance, so that a token from an earlier life fits nothing.
    generation: u64,
    /// When each subscription has something to do next.
    timers: BTreeSet<(Tick, SubId)>,
    dying: Vec<Dying>,
    /// Messages that damage took.
    pub(super) lost: u64,
}

/// The messages of one topic that some subscription may still want.
#[derive(Debug, Default)]
struct Topic {
    messages: VecDeque<Stored>,
    bytes: u64,
    subscriptions: BTreeMap<Arc<str>, SubId>,
}

impl Topic {
    fn trim(&mut self, standings: &BTreeMap<SubId, Standing>) {
        let standings = self.subscriptions.values().filter_map(|id| standings.get(id));
        if let Some(floor) = standings.map(Standing::floor).min() {
            while let Some(stored) = self.messages.front()
                && stored.seq < floor
            {
                self.bytes -= u64::from(stored.len);
                self.messages.pop_front();
            }
        }
    }

    fn is_over(&self, over: impl Fn(usize, u64, u64) -> bool) -> bool {
        let oldest = self.messages.front();
        oldest.is_some_and(|oldest| over(self.messages.len(), self.bytes, oldest.seq))
    }
}

/// A message that has used up its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dying {
    pub(super) id: SubId,
    pub(super) seq: u64,
    pub(super) attempts: u32,
}

impl State {
    pub(super) fn new(generation: u64) -> State {
        State {
            generation,
            ..State::default()
        }
    }

    /// A message is durable. Returns the subscriptions that may want it.
    pub(super) fn message(&mut self, topic: &str, stored: Stored) -> impl Iterator<Item = SubId> {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.into(), Topic::default());
        }
        let topic = self.topics.get_mut(topic).expect("it was just made sure of");
        topic.messages.push_back(stored);
        topic.bytes += u64::from(stored.len);
        topic.subscriptions.values().copied()
    }

    /// A subscription is durable; it gets messages from number `from` on.
    pub(super) fn subscribed(&mut self, id: SubId, topic: &str, name: &str, from: u64) {
        let (topic_name, name): (Arc<str>, Arc<str>) = (topic.into(), name.into());
        let topic = self.topics.entry(Arc::clone(&topic_name)).or_default();
        if topic.subscriptions.contains_key(&name) {
            return;
        }
        topic.subscriptions.insert(Arc::clone(&name), id);
        self.subscriptions.insert(id, Standing::new(id, topic_name, name, from));
        self.last_id = self.last_id.max(id);
    }

    /// The number for a new subscription.
    pub(super) fn new_id(&mut self) -> SubId {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn find(&self, topic: &str, name: &str) -> Option<SubId> {
        self.topics.get(topic)?.subscriptions.get(name).copied()
    }

    /// Whether a consumer that asked now would get something.
    pub(super) fn has_more(&self, id: SubId) -> bool {
        let standing = self.subscriptions.get(&id);
        let has_more = |standing: &Standing| {
            let topic = self.topics.get(&standing.topic);
            topic.is_some_and(|topic| standing.has_more(&topic.messages))
        };
        standing.is_some_and(has_more)
    }

    pub(super) fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn configure(&mut self, id: SubId, wanted: &Subscription) {
        self.with(id, |standing, _, _| standing.configure(wanted));
    }

    /// Leases up to `max` messages to a consumer.
    pub(super) fn take(&mut self, now: Tick, id: SubId, max: usize) -> Vec<Lease> {
        let taken = self.with(id, |standing, messages, generation| {
            standing.expire(now);
            standing.take(now, messages, max, generation)
        });
        taken.unwrap_or_default()
    }

    /// Does something to a delivery, after ending the leases that are over.
    pub(super) fn settle<T>(
        &mut self,
        now: Tick,
        id: SubId,
        change: impl FnOnce(&mut Standing) -> Result<T, Lost>,
    ) -> Result<T, Lost> {
        let changed = self.with(id, |standing, _, _| {
            standing.expire(now);
            change(standing)
        });
        changed.unwrap_or(Err(Lost))
    }

    /// Takes back leases that never reached anybody.
    pub(super) fn unlease(&mut self, id: SubId, leases: &[Lease]) {
        self.with(id, |standing, _, _| {
            leases
                .iter()
                .for_each(|lease| standing.unlease(lease.seq, lease.generation));
        });
    }

    /// Ends every lease and wait that is over, and names the subscriptions that have messages again, with how many.
    pub(super) fn expire(&mut self, now: Tick) -> Vec<(SubId, usize)> {
        let mut freed = Vec::new();
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            let some = self.with(id, |standing, _, _| standing.expire(now));
            freed.extend(some.map(|some| (id, some)));
        }
        freed
    }

    /// When [`expire`](State::expire) has something to do next.
    pub(super) fn next_timer(&self) -> Option<Tick> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Messages that have used up their attempts; from now on they are the caller's to bury.
    pub(super) fn dying(&mut self) -> Vec<Dying> {
        std::mem::take(&mut self.dying)
    }

    pub(super) fn has_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// A message's copy is among the dead letters.
    pub(super) fn buried(&mut self, id: SubId, seq: u64) {
        self.with(id, |standing, _, _| standing.forget(seq));
    }

    pub(super) fn unbury(&mut self, now: Tick, id: SubId, seq: u64) {
        self.with(id, |standing, _, _| standing.unbury(seq, now));
    }

    /// Works on one subscription, and keeps its timer and its dying messages known.
    fn with<T>(&mut self, id: SubId, work: impl FnOnce(&mut Standing, &VecDeque<Stored>, &mut u64) -> T) -> Option<T> {
        let standing = self.subscriptions.get_mut(&id)?;
        let topic = self.topics.get(&standing.topic)?;
        let before = standing.next_timer();
        let result = work(standing, &topic.messages, &mut self.generation);
        let after = standing.next_timer();
        if before != after {
            before.map(|at| self.timers.remove(&(at, id)));
            after.map(|at| self.timers.insert((at, id)));
        }
        let dying = standing.dying().into_iter();
        self.dying
            .extend(dying.map(|(seq, attempts)| Dying { id, seq, attempts }));
        Some(result)
    }

    /// Topic and name of a subscription.
    pub(super) fn names(&self, id: SubId) -> Option<(Arc<str>, Arc<str>)> {
        let standing = self.subscriptions.get(&id)?;
        Some((Arc::clone(&standing.topic), Arc::clone(&standing.name)))
    }

    /// A message of the subscription's topic is damaged: nobody will get it.
    pub(super) fn lose(&mut self, id: SubId, seq: u64) {
        let name = self.subscriptions.get(&id).map(|standing| Arc::clone(&standing.topic));
        let lost = name.is_some_and(|name| self.remove(&name, seq));
        self.lost += u64::from(lost);
    }

    /// A message is no longer in its topic; whether it was.
    pub(super) fn remove(&mut self, topic: &str, seq: u64) -> bool {
        let Some(topic) = self.topics.get_mut(topic) else {
            return false;
        };
        let at = topic.messages.binary_search_by_key(&seq, |stored| stored.seq);
        if let Ok(at) = at {
            let stored = topic.messages.remove(at).expect("just found");
            topic.bytes -= u64::from(stored.len);
        }
        let ids: Vec<SubId> = topic.subscriptions.values().copied().collect();
        for id in ids {
            self.with(id, |standing, _, _| standing.forget(seq));
        }
        at.is_ok()
    }

    /// Forgets messages that every subscription of their topic has settled, unless the topic `keeps` those too. A topic
    /// without subscriptions keeps all.
    pub(super) fn trim(&mut self, keeps: impl Fn(&str) -> bool) {
        self.topics.retain(|name, topic| {
            if !keeps(name) {
                topic.trim(&self.subscriptions);
            }
            !topic.messages.is_empty() || !topic.subscriptions.is_empty()
        });
    }

    /// The same of one topic.
    pub(super) fn trim_topic(&mut self, topic: &str) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.trim(&self.subscriptions);
        }
    }

    /// Whether a topic is over something, by its messages, its bytes and its oldest number.
    pub(super) fn is_over(&self, topic: &str, over: impl Fn(usize, u64, u64) -> bool) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.is_over(over))
    }

    /// Takes the oldest messages of a topic from everybody while it is over something. Returns the number after the last
    /// to go, or 0, and how many were not settled.
    pub(super) fn shed(&mut self, topic: &str, over: impl Fn(usize, u64, u64) -> bool) -> (u64, u64) {
        let (mut before, mut unsettled) = (0, 0);
        while let Some(topic) = self.topics.get_mut(topic)
            && topic.is_over(&over)
            && let Some(stored) = topic.messages.pop_front()
        {
            topic.bytes -= u64::from(stored.len);
            before = stored.seq + 1;
            let ids: Vec<SubId> = topic.subscriptions.values().copied().collect();
            let mut wanted = ids.is_empty();
            for id in ids {
                wanted |= self
                    .subscriptions
                    .get(&id)
                    .is_some_and(|standing| standing.is_unsettled(stored.seq));
                self.with(id, |standing, _, _| standing.forget(stored.seq));
            }
            unsettled += u64::from(wanted);
        }
        (before, unsettled)
    }

    /// Messages of a topic after number `after` that somebody has not settled, if there are subscriptions, and nobody
    /// holds.
    pub(super) fn undealt(&self, topic: &str, after: u64, max: usize) -> Vec<u64> {
        let Some(topic) = self.topics.get(topic) else {
            return Vec::new();
        };
        let standings = || topic.subscriptions.values().filter_map(|id| self.subscriptions.get(id));
        let undealt = |seq: &u64| {
            let wanted = topic.subscriptions.is_empty() || standings().any(|standing| standing.is_unsettled(*seq));
            wanted && !standings().any(|standing| standing.is_leased(*seq))
        };
        let first = topic.messages.partition_point(|stored| stored.seq <= after);
        let seqs = topic.messages.range(first..).map(|stored| stored.seq);
        seqs.filter(undealt).take(max).collect()
    }

    /// The oldest message that a subscription has not settled, and how many the topic keeps from there on.
    pub(super) fn behind(&self, topic: &str, name: &str) -> Option<(u64, usize)> {
        let standing = self.subscriptions.get(&self.find(topic, name)?)?;
        let messages = &self.topics.get(topic)?.messages;
        let first = messages.partition_point(|stored| stored.seq < standing.floor());
        Some((messages.get(first)?.seq, messages.len() - first))
    }

    /// The oldest message kept, or `end` if there is none.
    pub(super) fn oldest(&self, end: u64) -> u64 {
        let first = |topic: &Topic| topic.messages.front().map(|stored| stored.seq);
        self.topics.values().filter_map(first).min().unwrap_or(end)
    }

    /// The oldest message kept in one topic.
    pub(super) fn oldest_of(&self, topic: &str) -> Option<u64> {
        self.topics.get(topic)?.messages.front().map(|stored| stored.seq)
    }

    /// Where every subscription stands, as records that make older ones of them needless. Burials of which the log
    /// knows already, though they have not happened yet, are `under_way`: their records come before these.
    pub(super) fn standings(&self, under_way: &BTreeSet<(SubId, u64)>) -> Vec<Record> {
        let record = |standing: &Standing| {
            let (cursor, mut open) = standing.snapshot();
            open.retain(|(seq, _)| !under_way.contains(&(standing.id, *seq)));
            Record::Standing {
                id: standing.id,
                topic: standing.topic.to_string(),
                name: standing.name.to_string(),
                cursor,
                open,
            }
        };
        self.subscriptions.values().map(record).collect()
    }

    /// Takes an entry of the log on opening, other than a message.
    pub(super) fn replay(&mut self, seq: u64, record: &Record) {
        match record {
            Record::Message { .. } | Record::Ids { .. } => {}
            Record::Dropped { topic, before } => drop(self.shed(topic, |_, _, first| first < *before)),
            Record::Moved { topic, seqs } => {
                for seq in seqs {
                    self.remove(topic, *seq);
                }
            }
            Record::Subscribed { id, topic, name, from } => self.subscribed(*id, topic, name, from.unwrap_or(seq)),
            Record::Delivered { id, attempts } => {
                self.replay_on(*id, |standing, messages| {
                    let each = attempts.iter();
                    each.for_each(|(seq, attempt)| standing.replay_delivered(*seq, *attempt, messages));
                });
            }
            Record::Acked { id, seqs } => {
                self.replay_on(*id, |standing, messages| {
                    seqs.iter().for_each(|seq| standing.replay_acked(*seq, messages));
                });
            }
            Record::Standing {
                id,
                topic,
                name,
                cursor,
                open,
            } => {
                self.subscribed(*id, topic, name, 0);
                self.replay_on(*id, |standing, messages| {
                    standing.replay_standing(*cursor, open, messages);
                });
            }
        }
    }

    fn replay_on(&mut self, id: SubId, replay: impl FnOnce(&mut Standing, &VecDeque<Stored>)) {
        // A subscription whose making is lost to damage is made anew by its next subscriber, under another number.
        self.last_id = self.last_id.max(id);
        self.with(id, |standing, messages, _| replay(standing, messages));
    }

    pub(super) fn stats(&self) -> BTreeMap<String, TopicStats> {
        let stats = |(name, topic): (&Arc<str>, &Topic)| {
            let of = |(name, id): (&Arc<str>, &SubId)| {
                let standing = self.subscriptions.get(id)?;
                Some((name.to_string(), standing.stats(&topic.messages)))
            };
            let stats = TopicStats {
                messages: topic.messages.len(),
                bytes: topic.bytes,
                subscriptions: topic.subscriptions.iter().filter_map(of).collect(),
            };
            (name.to_string(), stats)
        };
        self.topics.iter().map(stats).collect()
    }
}

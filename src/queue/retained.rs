//! What of their messages topics go on keeping.

use super::kept::{LEVELS, Stored};
use super::record::SubId;
use super::state::{State, Topic};
use std::sync::Arc;

impl State {
    /// Takes a message out of its topic, whoever may want it or have it. Says whether it was there.
    pub(super) fn remove(&mut self, topic: &str, seq: u64) -> bool {
        for id in self.ids(topic) {
            self.with(id, |standing, messages| standing.settle(seq, messages));
        }
        let topic = self.topics.get_mut(topic);
        topic.is_some_and(|topic| topic.messages.remove(seq))
    }

    /// Forgets messages that every subscription of their topic has settled, and those that come first in their priority
    /// and whose time is over. Of others, a topic without subscriptions keeps all, and one of which `keeps` is true keeps
    /// these too.
    pub(super) fn trim(&mut self, keeps: impl Fn(&str) -> bool) {
        let names = self.topics.keys().filter(|name| !keeps(name));
        for name in names.map(Arc::clone).collect::<Vec<_>>() {
            self.trim_topic(&name);
        }
        self.topics
            .retain(|_, topic| !topic.messages.is_empty() || !topic.subscriptions.is_empty());
    }

    /// The same of one topic.
    pub(super) fn trim_topic(&mut self, name: &str) {
        let ids = self.ids(name);
        for level in 0..LEVELS {
            while self.trim_settled(name, level) && self.trim_expired(name, level, &ids) {}
        }
    }

    /// Says whether anything is left.
    fn trim_settled(&mut self, name: &str, level: usize) -> bool {
        let Some(topic) = self.topics.get_mut(name) else {
            return false;
        };
        let standings = topic.subscriptions.values().filter_map(|id| self.subscriptions.get(id));
        let floor = standings.map(|standing| standing.floor(level)).min().unwrap_or(0);
        while topic.messages.level(level).seq(0).is_some_and(|seq| seq < floor) {
            topic.messages.pop_front(level);
        }
        topic.messages.level(level).len() > 0
    }

    /// Forgets the first message if its time is over and nobody has it. Says whether it did.
    fn trim_expired(&mut self, name: &str, level: usize, ids: &[SubId]) -> bool {
        let first = self
            .topics
            .get(name)
            .and_then(|topic| topic.messages.level(level).get(0));
        let Some(first) = first.filter(|first| first.has_expired(self.wall.as_millis())) else {
            return false;
        };
        let mut standings = ids.iter().filter_map(|id| self.subscriptions.get(id));
        if !standings.all(|standing| standing.can_expire(first.seq)) {
            return false;
        }
        for id in ids {
            self.with(*id, |standing, messages| standing.settle_expired(&first, messages));
        }
        if let Some(topic) = self.topics.get_mut(name) {
            topic.messages.pop_front(level);
        }
        true
    }

    /// Whether a topic keeps too much: `over` is asked about its messages, their bytes and the number of the oldest.
    pub(super) fn is_over(&self, topic: &str, over: impl Fn(usize, u64, u64) -> bool) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.is_over(over))
    }

    /// Drops the oldest messages of a topic while it is over. Returns the number before which everything is dropped, 0
    /// for nothing, and how many of the messages somebody had not settled.
    pub(super) fn shed(&mut self, topic: &str, over: impl Fn(usize, u64, u64) -> bool) -> (u64, u64) {
        let (mut before, mut unsettled) = (0, 0);
        let ids = self.ids(topic);
        while let Some(of) = self.topics.get(topic)
            && of.is_over(&over)
            && let Some(oldest) = of.messages.next_seq(0)
            && let Some(stored) = of.messages.find(oldest)
        {
            let wanted = ids.is_empty() || ids.iter().any(|id| self.wants(*id, &stored));
            unsettled += u64::from(wanted);
            before = oldest + 1;
            self.remove(topic, oldest);
        }
        (before, unsettled)
    }

    /// Drops the messages of a topic before number `seq`.
    pub(super) fn drop_before(&mut self, topic: &str, seq: u64) {
        self.shed(topic, |_, _, oldest| oldest < seq);
    }

    /// Up to `max` messages of a topic with numbers above `after` that nobody has settled or holds.
    pub(super) fn undealt(&self, topic: &str, after: u64, max: usize) -> Vec<u64> {
        let Some(of) = self.topics.get(topic) else {
            return Vec::new();
        };
        let standings = || of.subscriptions.values().filter_map(|id| self.subscriptions.get(id));
        let stored = std::iter::successors(of.messages.next_seq(after + 1), |seq| of.messages.next_seq(seq + 1))
            .filter_map(|seq| of.messages.find(seq));
        stored
            .filter(|stored| standings().all(|standing| standing.is_undealt(stored)))
            .map(|stored| stored.seq)
            .take(max)
            .collect()
    }

    fn wants(&self, id: SubId, stored: &Stored) -> bool {
        let standing = self.subscriptions.get(&id);
        standing.is_some_and(|standing| standing.wants(stored))
    }

    /// The subscriptions of a topic.
    pub(super) fn ids(&self, topic: &str) -> Vec<SubId> {
        let topic = self.topics.get(topic);
        topic.map_or(Vec::new(), |topic| topic.subscriptions.values().copied().collect())
    }
}

impl Topic {
    fn is_over(&self, over: impl Fn(usize, u64, u64) -> bool) -> bool {
        let oldest = self.messages.next_seq(0);
        oldest.is_some_and(|oldest| over(self.messages.len(), self.messages.bytes, oldest))
    }
}

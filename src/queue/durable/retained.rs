//! What of their messages topics go on keeping.

use super::heart::kept::{LEVELS, SMALL, Stored};
use super::heart::state::{State, Topic};
use super::record::SubId;
use super::shell::Copied;
use std::sync::Arc;

impl State {
    /// Takes a message out of its topic, whoever may want it or have it. Says whether it was there.
    pub(super) fn remove(&mut self, topic: &str, seq: u64) -> bool {
        for id in self.ids(topic) {
            self.with(id, |standing, messages| standing.settle(seq, messages));
        }
        let topic = self.topics.get_mut(topic);
        self.copies.remove(seq);
        topic.is_some_and(|topic| topic.messages.remove(seq))
    }

    /// A message has a copy at place `at`, unless it has gone meanwhile.
    pub(super) fn copied(&mut self, copied: &Copied, at: u64) {
        let topic = self.topics.get(&copied.topic);
        if topic.is_some_and(|topic| topic.messages.find(copied.seq).is_some()) {
            self.copies.put(copied.seq, at, copied.len);
        }
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
        while let Some(seq) = topic.messages.level(level).seq(0).filter(|seq| *seq < floor) {
            topic.messages.pop_front(level);
            self.copies.remove(seq);
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
            self.copies.remove(first.seq);
        }
        true
    }

    /// The topics, of those which do not keep what is settled, where so much of it lies behind messages that are not that
    /// looking for it pays: each such look is paid by messages that have come or been settled since the one before.
    pub(super) fn littered(&self, keeps: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let littered = |(_, topic): &(&Arc<str>, &Topic)| {
            let backlogs = topic.subscriptions.values().filter_map(|id| self.subscriptions.get(id));
            let backlogs: Vec<usize> = backlogs.map(|standing| standing.backlog(&topic.messages)).collect();
            topic.is_littered(&backlogs)
        };
        let topics = self.topics.iter().filter(|(name, _)| !keeps(name));
        topics.filter(littered).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Forgets the messages of a topic before number `end` that every subscription has settled, also behind others: looks
    /// at up to `many` behind `at`, which is a level and a number, and returns what to go on behind.
    pub(super) fn sweep(&mut self, name: &str, at: (usize, u64), end: u64, many: usize) -> Option<(usize, u64)> {
        let topic = self.topics.get_mut(name)?;
        let standings = topic.subscriptions.values().filter_map(|id| self.subscriptions.get(id));
        let standings: Vec<_> = standings.collect();
        let wanted = |stored: &Stored| {
            let stays = stored.seq >= end || standings.is_empty();
            stays || standings.iter().any(|standing| standing.wants(stored))
        };
        let (gone, rest) = topic.messages.sweep(at.0, at.1, many, wanted);
        gone.iter().for_each(|seq| self.copies.remove(*seq));
        if let Some(rest) = rest.filter(|rest| *rest < end) {
            return Some((at.0, rest));
        }
        if at.0 + 1 < LEVELS {
            return Some((at.0 + 1, 0));
        }
        if end == u64::MAX {
            let backlogs = standings.iter().map(|standing| standing.backlog(&topic.messages));
            topic.swept = (topic.messages.len(), backlogs.sum());
        }
        None
    }

    /// Forgets all messages that every subscription of their topic has settled, in one go.
    pub(super) fn sweep_all(&mut self) {
        for name in self.topics.keys().map(Arc::clone).collect::<Vec<_>>() {
            let mut next = Some((0, 0));
            while let Some(at) = next {
                let many = self.topics.get(&name).map_or(0, |topic| topic.messages.len());
                next = self.sweep(&name, at, u64::MAX, many);
            }
        }
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
    /// Whether [`State::sweep`] pays, when so many messages are not settled, by subscription.
    fn is_littered(&self, backlogs: &[usize]) -> bool {
        let (messages, all) = (self.messages.len(), backlogs.iter().sum::<usize>());
        let (swept, swept_all) = self.swept;
        let most = backlogs.iter().max().copied().unwrap_or(messages);
        if messages <= SMALL {
            return most < messages && (messages, all) != self.swept;
        }
        // What several have not settled may be the same messages, or not: that is found out when there are twice as many
        // messages as the last time, or half as many are not settled.
        let is_news = messages >= 2 * swept + SMALL || 2 * all < swept_all;
        2 * most < messages && (2 * all < messages || is_news)
    }

    fn is_over(&self, over: impl Fn(usize, u64, u64) -> bool) -> bool {
        let oldest = self.messages.next_seq(0);
        oldest.is_some_and(|oldest| over(self.messages.len(), self.messages.bytes, oldest))
    }
}

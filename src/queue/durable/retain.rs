//! How the durable queue keeps to the limits of its topics.

use super::heart::ages::Ages;
use super::limits::{Retention, Settings};
use super::shell::Core;
use crate::env::{Env, Tick, WallTime};
use crate::queue::TopicStats;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long it takes at most until a clock that was changed is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Core {
    /// Messages of a topic were sent: the numbers from which on, and when.
    pub(super) fn aged(&mut self, topic: &Arc<str>, sent: impl Iterator<Item = (u64, WallTime)>) {
        if !self.ages.contains_key(topic) {
            self.ages.insert(Arc::clone(topic), Ages::default());
        }
        let ages = self.ages.get_mut(topic).expect("it was just made sure of");
        sent.for_each(|(seq, at)| ages.sent(seq, at));
    }

    /// Drops what is too much or too old in one topic.
    pub(super) fn retain(&mut self, topic: &Arc<str>, retention: Retention, env: &Env) {
        if !retention.has_limits() {
            return;
        }
        let (now, wall) = (env.now(), env.wall());
        let ages = self.ages.get(topic);
        let cutoff = retention.age().map(|age| wall - (WallTime::default() + age));
        let cutoff = cutoff.map(|since_1970| WallTime::default() + since_1970);
        let old = cutoff.zip(ages).map_or(0, |(cutoff, ages)| ages.before(cutoff));
        let over = |messages: usize, bytes: u64, first: u64| first < old || retention.is_over(messages, bytes);
        if self.state.is_over(topic, over) {
            if !retention.keeps_settled() {
                self.state.trim_topic(topic);
            }
            self.drop_oldest(topic, over, now);
        }
        if let Some(next) = retention
            .age()
            .zip(self.ages.get(topic))
            .and_then(|(age, ages)| ages.next(age))
        {
            let at = now + (next - wall).clamp(Duration::from_millis(1), LOOK_AGAIN);
            self.retain_at = Some(self.retain_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Drops what is too much or too old in every topic.
    pub(super) fn retain_all(&mut self, settings: &Settings, env: &Env) {
        self.retain_at = None;
        let topics: Vec<Arc<str>> = self.ages.keys().cloned().collect();
        for topic in topics {
            self.retain(&topic, settings.retention_of(&topic), env);
        }
        self.trim(settings);
    }

    /// Drops the messages before number `seq` from every topic.
    pub(super) fn drop_before(&mut self, seq: u64, now: Tick) {
        let topics: Vec<Arc<str>> = self.ages.keys().cloned().collect();
        for topic in topics {
            self.drop_oldest(&topic, |_, _, first| first < seq, now);
        }
    }

    fn drop_oldest(&mut self, topic: &Arc<str>, over: impl Fn(usize, u64, u64) -> bool, now: Tick) {
        let (before, unsettled) = self.state.shed(topic, over);
        self.counts.dropped += unsettled;
        if before > 0 {
            self.dropped.insert(Arc::clone(topic), before);
            self.settled(now);
        }
    }

    /// What topics hold, and how far behind their subscriptions are.
    pub(super) fn topic_stats(&self, wall: WallTime) -> BTreeMap<String, TopicStats> {
        let mut topics = self.state.stats();
        for (topic, stats) in &mut topics {
            for (name, stats) in &mut stats.subscriptions {
                let Some(id) = self.state.find(topic, name) else {
                    continue;
                };
                stats.redelivered = self.redelivered.get(&id).copied().unwrap_or(0);
                let oldest = self.state.oldest_unsettled(id);
                let sent = oldest.zip(self.ages.get(topic.as_str()));
                let sent = sent.and_then(|(oldest, ages)| ages.of(oldest));
                stats.oldest_age = sent.map_or(Duration::ZERO, |sent| wall - sent);
            }
        }
        topics
    }

    /// Forgets what everybody has settled, where nothing more is to be kept.
    pub(super) fn trim(&mut self, settings: &Settings) {
        self.state.trim(|topic| settings.retention_of(topic).keeps_settled());
        let state = &self.state;
        self.ages.retain(|topic, ages| {
            let oldest = state.oldest_of(topic);
            oldest.into_iter().for_each(|oldest| ages.trim(oldest));
            oldest.is_some()
        });
    }
}

use std::time::Duration;

/// What one insert does differently from the others; see [`Cache::insert_with`](super::Cache::insert_with).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct InsertOptions {
    pub(super) ttl: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) weight: Option<u64>,
    pub(super) tags: Vec<String>,
}

impl InsertOptions {
    /// True for what any entry of the cache is.
    pub(super) fn is_plain(&self) -> bool {
        self.ttl.is_none() && self.idle.is_none() && self.weight.is_none() && self.tags.is_empty()
    }

    /// As the cache was built.
    pub fn new() -> InsertOptions {
        InsertOptions::default()
    }

    /// Expires after `ttl`, less the cache's jitter, instead of the cache's own time to live. Less than a millisecond
    /// does not keep the value, and removes the one that was there.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Expires when nobody has asked for it for so long, instead of after the cache's own idle time.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Weighs so much, instead of what the cache's weigher says. Of no consequence in a cache without a weight limit.
    pub fn weight(mut self, weight: u64) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Leaves with everything else that carries `tag`; see [`Cache::invalidate_tag`](super::Cache::invalidate_tag). May
    /// be given several times. An entry with tags takes an allocation of its own, 40 bytes and 16 for each tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }
}

//! What the tests of the durable queue share.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::env::Env;
use crate::queue::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A queue whose segments and cache are so small that tests get beyond them.
pub(super) fn small(env: &Env) -> DurableQueueBuilder {
    let queue = DurableQueue::builder().env(env.clone());
    queue.segment_bytes(8 << 10).cache_bytes(4 << 10)
}

pub(super) async fn open(env: &Env) -> DurableQueue {
    small(env).open("q").await.unwrap()
}

pub(super) async fn subscribe(queue: &DurableQueue, topic: &str, name: &str) -> Subscription {
    let wanted = Subscription::new(topic, name);
    queue.subscribe(&wanted).await.unwrap();
    wanted
}

/// The next delivery, or nothing within a second.
pub(super) async fn next(queue: &DurableQueue, from: &Subscription) -> Option<Delivery<DurableQueue>> {
    let raw = queue.receive(from, 1, SECOND).await.unwrap();
    raw.into_iter().next().map(|raw| Delivery::new(queue.clone(), raw))
}

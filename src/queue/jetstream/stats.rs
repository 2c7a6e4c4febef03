use super::{Inner, names};
use crate::queue::jetstream::link::Fault;
use crate::queue::{QueueStats, Result, SubscriptionStats, TopicStats};
use crate::sync::Ordering;
use async_nats::jetstream::consumer::Info;
use futures::TryStreamExt;
use std::collections::BTreeMap;

impl Inner {
    /// What the server says that it holds, and what was done here. The server does not tell which of the messages that were
    /// delivered wait for a retry, so they all count as in flight.
    pub(super) async fn stats(&self) -> Result<QueueStats> {
        let all = || async { Ok(self.link.context.streams().try_collect::<Vec<_>>().await?) };
        let streams = self.link.ask(all).await?.unwrap_or_default();
        let mut stats = QueueStats {
            sent: self.counts.sent.load(Ordering::Relaxed),
            delivered: self.counts.delivered.load(Ordering::Relaxed),
            acked: self.counts.acked.load(Ordering::Relaxed),
            dead: self.counts.dead.load(Ordering::Relaxed),
            ..QueueStats::default()
        };
        for stream in streams {
            let ours = |topic: &String| stream.config.subjects.contains(&self.names.subject(topic));
            let Some(topic) = self.names.topic(&stream.config.name).filter(ours) else {
                continue;
            };
            let mut subscriptions = BTreeMap::new();
            for info in self.consumers(&topic).await? {
                if let Some(name) = names::subscription(&info.name) {
                    subscriptions.insert(name, subscription(&info));
                }
            }
            stats.bytes += stream.state.bytes;
            let one = TopicStats {
                messages: usize::try_from(stream.state.messages).unwrap_or(usize::MAX),
                bytes: stream.state.bytes,
                subscriptions,
            };
            stats.topics.insert(topic, one);
        }
        Ok(stats)
    }

    /// The consumers of a topic's stream; none where it has no stream.
    pub(super) async fn consumers(&self, topic: &str) -> Result<Vec<Info>> {
        let name = &self.names.stream(topic);
        let all = || async move {
            let stream = self.link.context.get_stream(name).await.map_err(Fault::from)?;
            Ok(stream.consumers().try_collect::<Vec<_>>().await?)
        };
        Ok(self.link.ask(all).await?.unwrap_or_default())
    }
}

fn subscription(info: &Info) -> SubscriptionStats {
    let ready = usize::try_from(info.num_pending).unwrap_or(usize::MAX);
    SubscriptionStats {
        backlog: ready.saturating_add(info.num_ack_pending),
        ready,
        in_flight: info.num_ack_pending,
        ..SubscriptionStats::default()
    }
}

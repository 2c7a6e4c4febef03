use super::{Latencies, QueueStats, SubscriptionStats, WorkerCounts};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

impl QueueStats {
    /// Publishes them to the recorder of the `metrics` crate that is installed, under the label `queue.name`; what belongs
    /// to a topic or a subscription has the labels `topic` and `subscription`. Call it as often as they are collected, from a
    /// timer say; the queue costs the same whether this is ever called or not.
    ///
    /// | name | kind | |
    /// |---|---|---|
    /// | `queue.sent` | counter | messages sent |
    /// | `queue.delivered`, `queue.acked` | counter | deliveries, and those acknowledged |
    /// | `queue.dead`, `queue.redriven` | counter | messages that became dead letters, and those that went back |
    /// | `queue.duplicates` | counter | sends of a message that was there already |
    /// | `queue.dropped`, `queue.lost` | counter | messages that a limit took unsettled, and those lost to damage |
    /// | `queue.syncs` | counter | syncs of data |
    /// | `queue.sync.seconds`, `queue.send.seconds` | gauge | how long a share of the syncs, and of the sends, took at most since the queue was opened; the label `quantile` is 0.5, 0.9, 0.99 or 1 |
    /// | `queue.bytes` | gauge | bytes on disk |
    /// | `queue.topic.messages`, `queue.topic.bytes` | gauge | what a topic keeps |
    /// | `queue.backlog` | gauge | messages that a subscription has not settled for good |
    /// | `queue.ready`, `queue.in_flight`, `queue.waiting` | gauge | those of them that can be delivered, are leased, wait for a retry |
    /// | `queue.delayed`, `queue.blocked` | gauge | those that may not be delivered yet, or wait for another of their key |
    /// | `queue.lag` | gauge | messages of the topic from the subscription's oldest unsettled one on |
    /// | `queue.oldest_age` | gauge | how long ago that one was sent, in seconds |
    /// | `queue.redelivered`, `queue.expired` | counter | deliveries that were not the first of their message, and messages that were not worth delivering any more |
    ///
    /// ```
    /// # use outgrow::queue::{DurableQueue, QueueStats};
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-metrics-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// let queue = DurableQueue::open(&dir).await?;
    /// queue.topic("mail").send("to Ada").await?;
    /// let stats = queue.stats();
    /// stats.publish_metrics("jobs");
    /// assert_eq!(stats.sent, 1);
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    pub fn publish_metrics(&self, name: &str) {
        describe_queue();
        let count = |metric: &'static str, n| counter!(metric, "queue.name" => name.to_owned()).absolute(n);
        count("queue.sent", self.sent);
        count("queue.delivered", self.delivered);
        count("queue.acked", self.acked);
        count("queue.dead", self.dead);
        count("queue.redriven", self.redriven);
        count("queue.duplicates", self.duplicates);
        count("queue.dropped", self.dropped);
        count("queue.lost", self.lost);
        count("queue.syncs", self.syncs);
        publish_times("queue.sync.seconds", name, &self.sync_times);
        publish_times("queue.send.seconds", name, &self.sends);
        gauge!("queue.bytes", "queue.name" => name.to_owned()).set(self.bytes as f64);
        for (topic, stats) in &self.topics {
            let show = |metric: &'static str, n: f64| {
                gauge!(metric, "queue.name" => name.to_owned(), "topic" => topic.clone()).set(n);
            };
            show("queue.topic.messages", stats.messages as f64);
            show("queue.topic.bytes", stats.bytes as f64);
            for (subscription, stats) in &stats.subscriptions {
                let labels = [
                    ("queue.name", name.to_owned()),
                    ("topic", topic.clone()),
                    ("subscription", subscription.clone()),
                ];
                publish_subscription(stats, &labels);
            }
        }
    }
}

fn publish_subscription(stats: &SubscriptionStats, labels: &[(&'static str, String); 3]) {
    let show = |metric: &'static str, n: usize| gauge!(metric, labels).set(n as f64);
    show("queue.backlog", stats.backlog);
    show("queue.ready", stats.ready);
    show("queue.in_flight", stats.in_flight);
    show("queue.waiting", stats.waiting);
    show("queue.delayed", stats.delayed);
    show("queue.blocked", stats.blocked);
    show("queue.lag", stats.lag);
    gauge!("queue.oldest_age", labels).set(stats.oldest_age.as_secs_f64());
    counter!("queue.redelivered", labels).absolute(stats.redelivered);
    counter!("queue.expired", labels).absolute(stats.expired);
}

/// Not as a histogram of the recorder's, which would take each of them one by one, where the queue has counted them.
fn publish_times(metric: &'static str, name: &str, times: &Latencies) {
    for (share, label) in [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (1.0, "1")] {
        let gauge = gauge!(metric, "queue.name" => name.to_owned(), "quantile" => label);
        gauge.set(times.quantile(share).as_secs_f64());
    }
}

impl WorkerCounts {
    /// Publishes them to the recorder of the `metrics` crate that is installed, under the label `worker.name`:
    /// `queue.worker.done`, `queue.worker.retried`, `queue.worker.dead`, `queue.worker.lost`, `queue.worker.returned` and
    /// `queue.worker.panicked`, each a counter.
    ///
    /// ```
    /// use outgrow::queue::WorkerProgress;
    /// let counts = WorkerProgress::default().counts(); // of a worker: `worker.progress()`
    /// counts.publish_metrics("mailer");
    /// assert_eq!(counts.done, 0);
    /// ```
    pub fn publish_metrics(&self, name: &str) {
        describe_worker();
        let count = |metric: &'static str, n| counter!(metric, "worker.name" => name.to_owned()).absolute(n);
        count("queue.worker.done", self.done);
        count("queue.worker.retried", self.retried);
        count("queue.worker.dead", self.dead);
        count("queue.worker.lost", self.lost);
        count("queue.worker.returned", self.returned);
        count("queue.worker.panicked", self.panicked);
    }
}

fn describe_queue() {
    describe_counter!("queue.sent", Unit::Count, "Messages sent");
    describe_counter!("queue.delivered", Unit::Count, "Deliveries");
    describe_counter!("queue.acked", Unit::Count, "Deliveries acknowledged");
    describe_counter!("queue.dead", Unit::Count, "Messages that became dead letters");
    describe_counter!(
        "queue.redriven",
        Unit::Count,
        "Dead letters that went back to their topic"
    );
    describe_counter!(
        "queue.duplicates",
        Unit::Count,
        "Sends of a message that was there already"
    );
    describe_counter!("queue.dropped", Unit::Count, "Messages that a limit took unsettled");
    describe_counter!("queue.lost", Unit::Count, "Messages lost to damage");
    describe_counter!("queue.syncs", Unit::Count, "Syncs of data");
    describe_gauge!(
        "queue.sync.seconds",
        Unit::Seconds,
        "How long a share of the syncs took at most"
    );
    describe_gauge!(
        "queue.send.seconds",
        Unit::Seconds,
        "How long a share of the sends took at most"
    );
    describe_gauge!("queue.bytes", Unit::Bytes, "Bytes on disk");
    describe_gauge!("queue.topic.messages", Unit::Count, "Messages that a topic keeps");
    describe_gauge!("queue.topic.bytes", Unit::Bytes, "Their bytes");
    describe_gauge!("queue.backlog", Unit::Count, "Messages not settled for good");
    describe_gauge!("queue.ready", Unit::Count, "Messages that can be delivered now");
    describe_gauge!("queue.in_flight", Unit::Count, "Messages leased to a consumer");
    describe_gauge!("queue.waiting", Unit::Count, "Messages that wait for a retry");
    describe_gauge!("queue.delayed", Unit::Count, "Messages that may not be delivered yet");
    describe_gauge!(
        "queue.blocked",
        Unit::Count,
        "Messages that wait for another of their key"
    );
    describe_gauge!("queue.lag", Unit::Count, "Messages from the oldest unsettled one on");
    describe_gauge!(
        "queue.oldest_age",
        Unit::Seconds,
        "How long ago the oldest unsettled one was sent"
    );
    describe_counter!(
        "queue.redelivered",
        Unit::Count,
        "Deliveries that were not the first of their message"
    );
    describe_counter!(
        "queue.expired",
        Unit::Count,
        "Messages that were not worth delivering any more"
    );
}

fn describe_worker() {
    describe_counter!("queue.worker.done", Unit::Count, "Jobs done");
    describe_counter!(
        "queue.worker.retried",
        Unit::Count,
        "Attempts that failed, of jobs that come again"
    );
    describe_counter!("queue.worker.dead", Unit::Count, "Jobs that became dead letters");
    describe_counter!("queue.worker.lost", Unit::Count, "Deliveries that could not be settled");
    describe_counter!("queue.worker.returned", Unit::Count, "Deliveries given back at the end");
    describe_counter!("queue.worker.panicked", Unit::Count, "Handlers that panicked");
}

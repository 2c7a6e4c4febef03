use super::cache::Cache;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

impl<K, V, S> Cache<K, V, S> {
    /// Publishes its [`stats`](Cache::stats) to the recorder of the `metrics` crate that is installed, under the label
    /// `cache.name`. Call it as often as they are collected, from a timer say; a read of the cache costs the same whether
    /// this is ever called or not.
    ///
    /// | name | kind | |
    /// |---|---|---|
    /// | `cache.hits`, `cache.misses`, `cache.negative_hits` | counter | reads, by what they found |
    /// | `cache.loads`, `cache.load.errors` | counter | loaders started, and failed |
    /// | `cache.load.duration` | counter, ms | time from the start of loaders to their end |
    /// | `cache.stale_served` | counter | stale values served |
    /// | `cache.inserts` | counter | entries put in |
    /// | `cache.removals` | counter | entries that left, by the label `cause`: `evicted`, `expired`, `replaced`, `invalidated`, `rejected` |
    /// | `cache.entries`, `cache.weight` | gauge | what it holds |
    /// | `cache.entries.limit`, `cache.weight.limit` | gauge | what it may hold; left out where there is no limit |
    /// | `cache.held_back` | gauge | entries that have left and whose memory is not free yet |
    ///
    /// ```
    /// # use outgrow::cache::Cache;
    /// # fn main() -> Result<(), outgrow::cache::Error> {
    /// let users: Cache<u32, String> = Cache::builder().build()?;
    /// users.publish_metrics("users");
    /// # Ok(()) }
    /// ```
    pub fn publish_metrics(&self, name: &str) {
        describe();
        let stats = self.stats();
        let count = |metric: &'static str, n| counter!(metric, "cache.name" => name.to_owned()).absolute(n);
        count("cache.hits", stats.hits);
        count("cache.misses", stats.misses);
        count("cache.negative_hits", stats.negative_hits);
        count("cache.loads", stats.loads);
        count("cache.load.errors", stats.load_errors);
        count(
            "cache.load.duration",
            u64::try_from(stats.load_time.as_millis()).unwrap_or(u64::MAX),
        );
        count("cache.stale_served", stats.stale_served);
        count("cache.inserts", stats.inserts);
        for (cause, n) in [
            ("evicted", stats.evictions),
            ("expired", stats.expirations),
            ("replaced", stats.replacements),
            ("invalidated", stats.invalidations),
            ("rejected", stats.rejections),
        ] {
            counter!("cache.removals", "cache.name" => name.to_owned(), "cause" => cause).absolute(n);
        }
        let show = |metric: &'static str, n: u64| gauge!(metric, "cache.name" => name.to_owned()).set(n as f64);
        show("cache.entries", stats.entries);
        show("cache.weight", stats.weight);
        show("cache.held_back", stats.held_back);
        for (metric, limit) in [
            ("cache.entries.limit", stats.capacity),
            ("cache.weight.limit", stats.weight_capacity),
        ] {
            if limit != u64::MAX {
                show(metric, limit);
            }
        }
    }
}

fn describe() {
    describe_counter!("cache.hits", Unit::Count, "Reads that found a value");
    describe_counter!("cache.misses", Unit::Count, "Reads that found none, or an expired one");
    describe_counter!(
        "cache.negative_hits",
        Unit::Count,
        "Reads that found that there is no value"
    );
    describe_counter!("cache.loads", Unit::Count, "Loaders started");
    describe_counter!("cache.load.errors", Unit::Count, "Loaders that failed");
    describe_counter!(
        "cache.load.duration",
        Unit::Milliseconds,
        "Time from the start of loaders to their end"
    );
    describe_counter!("cache.stale_served", Unit::Count, "Stale values served");
    describe_counter!("cache.inserts", Unit::Count, "Entries put in");
    describe_counter!("cache.removals", Unit::Count, "Entries that left, by cause");
    describe_gauge!("cache.entries", Unit::Count, "Entries held");
    describe_gauge!("cache.weight", Unit::Count, "What they weigh together");
    describe_gauge!(
        "cache.held_back",
        Unit::Count,
        "Entries that have left and whose memory is not free yet"
    );
    describe_gauge!("cache.entries.limit", Unit::Count, "The most entries held");
    describe_gauge!("cache.weight.limit", Unit::Count, "The most that they may weigh");
}

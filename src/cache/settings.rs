use super::Error;
use super::time::millis;
use std::time::Duration;

/// The most shards of a cache of up to 2 Mi entries. Fixed, so that what a simulation does is the same on every machine.
const SHARDS: usize = 64;
/// A shard has at least this many entries, so that its policy has something to choose from.
const MIN_SHARD: usize = 1024;
/// A larger cache has more shards, so that none has more entries than this on average: half of what it can number.
const MAX_SHARD: usize = 1 << 15;
/// Shards of a cache that only weight limits: it holds 16 Mi entries at most.
const SHARDS_BY_WEIGHT: usize = 256;
/// Entries of all shards that there may be.
const MAX_CAPACITY: usize = u32::MAX as usize;

/// The options of a cache, as given.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) capacity: Option<usize>,
    pub(super) weight_capacity: Option<u64>,
    pub(super) ttl: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) jitter: f64,
    pub(super) negative_ttl: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    pub(super) max_waiting: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            capacity: None,
            weight_capacity: None,
            ttl: None,
            idle: None,
            jitter: 0.1,
            negative_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            max_waiting: 1 << 16,
        }
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let fault = |option, why: &str| {
            Err(Error::Option {
                option,
                why: why.to_owned(),
            })
        };
        if self
            .capacity
            .is_some_and(|entries| !(1..=MAX_CAPACITY).contains(&entries))
        {
            return fault("capacity", "it has to be 1 to 4,294,967,295 entries");
        }
        if self.weight_capacity == Some(0) {
            return fault("weight_capacity", "nothing would ever be kept");
        }
        if self.ttl.is_some_and(|ttl| ttl < Duration::from_millis(1)) {
            return fault(
                "ttl",
                "it has to be a millisecond at least, or nothing would ever be kept",
            );
        }
        if self.idle.is_some_and(|idle| idle < Duration::from_millis(1)) {
            return fault(
                "idle",
                "it has to be a millisecond at least, or nothing would ever be kept",
            );
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return fault("jitter", "it is a share from 0 to 1");
        }
        if self.max_waiting == 0 {
            return fault("max_waiting", "nothing could ever be loaded");
        }
        Ok(())
    }

    /// How many shards: a power of two.
    pub(super) fn shards(&self) -> usize {
        match self.capacity {
            None => SHARDS_BY_WEIGHT,
            Some(entries) if entries > SHARDS * MAX_SHARD => entries.div_ceil(MAX_SHARD).next_power_of_two(),
            Some(entries) => 1 << (entries / MIN_SHARD).clamp(1, SHARDS).ilog2(),
        }
    }

    /// How long a value is kept after its time to live, in milliseconds, to be served while or when loading fails.
    pub(super) fn grace(&self) -> u64 {
        let (refresh, error) = (self.stale_while_revalidate, self.stale_if_error);
        refresh.max(error).map_or(0, millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_follow_the_capacity() {
        let shards = |capacity| {
            let settings = Settings {
                capacity,
                ..Settings::default()
            };
            settings.shards()
        };
        let few = [1, 1_023, 2_047, 2_048, 10_000, 100_000, 10_000_000].map(|entries| shards(Some(entries)));
        assert_eq!(few, [1, 1, 1, 2, 8, 64, 512]);
        assert_eq!(shards(None), 256);
        for entries in [1 << 21, (1 << 21) + 1, u32::MAX as usize] {
            let shards = shards(Some(entries));
            assert!(shards.is_power_of_two() && entries.div_ceil(shards) <= MAX_SHARD && shards <= 1 << 17);
        }
    }
}

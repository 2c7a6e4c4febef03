use super::{Cache, Error, Policy};
use crate::env::Env;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

/// The most shards a cache has. Fixed, so that what a simulation does is the same on every machine.
const MAX_SHARDS: usize = 64;
/// A shard has at least this many entries, so that an uneven spread of the keys costs little.
const MIN_SHARD: usize = 256;
/// Slots are numbered by 32 bits, the last of which means none.
const MAX_CAPACITY: usize = u32::MAX as usize - 1;

/// Builds a [`Cache`]; see each option for its default.
#[must_use]
pub struct CacheBuilder<K, V> {
    settings: Settings,
    env: Option<Env>,
    makes: PhantomData<fn() -> Cache<K, V>>,
}

/// The options, as given.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) capacity: usize,
    pub(super) ttl: Option<Duration>,
    pub(super) jitter: f64,
    pub(super) policy: Policy,
    pub(super) max_waiting: usize,
}

impl<K: Hash + Eq, V: Clone> CacheBuilder<K, V> {
    pub(super) fn new() -> CacheBuilder<K, V> {
        let settings = Settings {
            capacity: 10_000,
            ttl: None,
            jitter: 0.0,
            policy: Policy::default(),
            max_waiting: 1 << 16,
        };
        CacheBuilder {
            settings,
            env: None,
            makes: PhantomData,
        }
    }

    /// The most entries it holds, 1 to 4,294,967,294. Default: 10,000. Memory is taken as it fills.
    pub fn capacity(mut self, entries: usize) -> Self {
        self.settings.capacity = entries;
        self
    }

    /// How long an entry lives after it was inserted, longer than zero. Default: until it has to make room.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Shortens each time to live by a random share of up to this much, 0 to 1, so that what was loaded together does
    /// not expire together. Default: 0.
    pub fn jitter(mut self, share: f64) -> Self {
        self.settings.jitter = share;
        self
    }

    /// Which entries leave when it is full. Default: [`Policy::S3Fifo`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// How many calls of [`get_or_load`](Cache::get_or_load) may wait for loads at once, over all keys, at least 1; more
    /// fail with [`LoadError::Crowded`](super::LoadError::Crowded). Default: 65,536.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.settings.max_waiting = calls;
        self
    }

    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Makes the cache.
    ///
    /// # Errors
    /// [`Error::Option`] for an option outside its bounds, which it names.
    pub fn build(self) -> Result<Cache<K, V>, Error> {
        self.settings.check()?;
        Ok(Cache::new(self.env.unwrap_or_default(), self.settings))
    }
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let fault = |option, why: &str| {
            Err(Error::Option {
                option,
                why: why.to_owned(),
            })
        };
        if !(1..=MAX_CAPACITY).contains(&self.capacity) {
            return fault("capacity", "it has to be 1 to 4,294,967,294 entries");
        }
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return fault("ttl", "nothing would ever be kept");
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return fault("jitter", "it is a share from 0 to 1");
        }
        if self.max_waiting == 0 {
            return fault("max_waiting", "nothing could ever be loaded");
        }
        Ok(())
    }

    /// How many entries each shard holds: a power of two of shards, and together exactly the capacity.
    pub(super) fn shard_capacities(&self) -> impl Iterator<Item = usize> {
        let mut shards = MAX_SHARDS;
        while shards > 1 && self.capacity / shards < MIN_SHARD {
            shards /= 2;
        }
        let (each, rest) = (self.capacity / shards, self.capacity % shards);
        (0..shards).map(move |shard| each + usize::from(shard < rest))
    }
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_capacity_exactly() {
        for capacity in [1, 2, 511, 512, 513, 1_000, 16_383, 16_384, 100_003] {
            let shards: Vec<usize> = CacheBuilder::<u8, u8>::new()
                .capacity(capacity)
                .settings
                .shard_capacities()
                .collect();
            assert_eq!(shards.iter().sum::<usize>(), capacity);
            assert!(shards.len().is_power_of_two() && shards.len() <= MAX_SHARDS);
            assert!(shards.len() == 1 || shards.iter().all(|&entries| entries >= MIN_SHARD));
        }
    }

    #[test]
    fn each_option_is_refused_by_name() {
        let new = CacheBuilder::<u8, u8>::new;
        let refused = [
            ("capacity", new().capacity(0)),
            ("capacity", new().capacity(u32::MAX as usize)),
            ("ttl", new().ttl(Duration::ZERO)),
            ("jitter", new().jitter(1.1)),
            ("jitter", new().jitter(-0.1)),
            ("jitter", new().jitter(f64::NAN)),
            ("max_waiting", new().max_waiting(0)),
        ];
        for (name, builder) in refused {
            assert!(matches!(builder.build(), Err(Error::Option { option, .. }) if option == name));
        }
        assert!(new().capacity(1).jitter(1.0).build().is_ok());
    }
}

use super::hasher::DefaultHash;
use super::inner::{Expiry, Weigher};
use super::policy::{Adaptive, EvictionPolicy};
use super::removal::{Listener, Removal};
use super::settings::Settings;
use super::{Cache, Error};
use crate::env::{Env, Rng};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

/// Builds a [`Cache`]; see each option for its default.
#[must_use]
pub struct CacheBuilder<K, V, S = DefaultHash> {
    settings: Settings,
    policy: Arc<dyn EvictionPolicy>,
    hasher: Box<dyn FnOnce(&mut Rng) -> S + Send>,
    weigher: Option<Weigher<K, V>>,
    expiry: Option<Expiry<K, V>>,
    listener: Option<Listener<K, V>>,
    env: Option<Env>,
}

/// What a cache is made of.
pub(super) struct Parts<K, V, S> {
    pub(super) settings: Settings,
    pub(super) policy: Arc<dyn EvictionPolicy>,
    pub(super) hasher: S,
    pub(super) weigher: Option<Weigher<K, V>>,
    pub(super) expiry: Option<Expiry<K, V>>,
    pub(super) listener: Option<Listener<K, V>>,
    pub(super) env: Env,
    pub(super) rng: Rng,
}

impl<K, V> CacheBuilder<K, V> {
    pub(super) fn new() -> CacheBuilder<K, V> {
        CacheBuilder {
            settings: Settings::default(),
            policy: Arc::new(Adaptive::default()),
            hasher: Box::new(|rng| DefaultHash::keyed(rng.next_u64())),
            weigher: None,
            expiry: None,
            listener: None,
            env: None,
        }
    }
}

impl<K, V, S> CacheBuilder<K, V, S> {
    /// The most entries it holds, 1 to 4,294,967,295. Default: 10,000, or no limit where
    /// [`weight_capacity`](CacheBuilder::weight_capacity) is given and this is not. Five bytes of memory for each are
    /// taken when it is built, the rest as it fills.
    pub fn capacity(mut self, entries: usize) -> Self {
        self.settings.capacity = Some(entries);
        self
    }

    /// The most that all entries may weigh together, at least 1, in whatever unit the
    /// [`weigher`](CacheBuilder::weigher) counts. Holds beside [`capacity`](CacheBuilder::capacity) if both are given.
    /// Eight bytes more for each entry. Default: no limit.
    pub fn weight_capacity(mut self, weight: u64) -> Self {
        self.settings.weight_capacity = Some(weight);
        self
    }

    /// Says what an entry weighs, in a cache with a [`weight_capacity`](CacheBuilder::weight_capacity). Called once, when
    /// the entry is put in; zero is allowed. Default: 1 each.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// How long an entry lives after it was put in, a millisecond at least. Default: until it has to make room.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// How long an entry lives after it was last asked for, a millisecond at least. A hit moves the deadline when that
    /// moves it by more than a sixteenth of this time, so an entry may leave so much earlier. Holds beside
    /// [`ttl`](CacheBuilder::ttl) if both are given. Default: no limit.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.settings.idle = Some(idle);
        self
    }

    /// Says how long an entry lives from what it is, a token's own expiry say; `None` for as long as the cache's
    /// [`ttl`](CacheBuilder::ttl) says. [`InsertOptions::ttl`](super::InsertOptions::ttl) comes before it.
    pub fn expire_after(mut self, expiry: impl Fn(&K, &V) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.expiry = Some(Box::new(expiry));
        self
    }

    /// Shortens each time to live by a random share of up to this much, 0 to 1, so that what was loaded together does
    /// not expire together. Default: 0.1.
    pub fn jitter(mut self, share: f64) -> Self {
        self.settings.jitter = share;
        self
    }

    /// Which entries leave when it is full; see [`policy`](super::policy) for those that there are. Default: [`Adaptive`].
    pub fn policy(mut self, policy: impl EvictionPolicy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Hears of every entry that leaves, and why. It is called by the call that takes the entry out, after that has let go
    /// of its locks, so it may use the cache; while it runs no memory of entries that have left is freed, so it should
    /// be quick. Entries that expire are told of when a write or [`Cache::tidy`] finds them.
    pub fn on_removal(mut self, listener: impl Fn(&K, &V, Removal) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// How many calls of [`get_or_load`](Cache::get_or_load) may wait for loads at once, over all keys, at least 1; more
    /// fail with [`LoadError::Crowded`](super::LoadError::Crowded). Default: 65,536.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.settings.max_waiting = calls;
        self
    }

    /// How keys are hashed. Default: [`DefaultHash`], under a secret of this cache.
    pub fn hasher<H: Send + 'static>(self, hasher: H) -> CacheBuilder<K, V, H> {
        CacheBuilder {
            settings: self.settings,
            policy: self.policy,
            hasher: Box::new(|_| hasher),
            weigher: self.weigher,
            expiry: self.expiry,
            listener: self.listener,
            env: self.env,
        }
    }

    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> CacheBuilder<K, V, S> {
    /// Makes the cache.
    ///
    /// # Errors
    /// [`Error::Option`] for an option outside its bounds, which it names.
    pub fn build(self) -> Result<Cache<K, V, S>, Error> {
        let mut settings = self.settings;
        if settings.capacity.is_none() && settings.weight_capacity.is_none() {
            settings.capacity = Some(10_000);
        }
        settings.check()?;
        let env = self.env.unwrap_or_default();
        let mut rng = env.rng("cache");
        let hasher = (self.hasher)(&mut rng);
        Ok(Cache::new(Parts {
            settings,
            policy: self.policy,
            hasher,
            weigher: self.weigher,
            expiry: self.expiry,
            listener: self.listener,
            env,
            rng,
        }))
    }
}

impl<K, V, S> fmt::Debug for CacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("settings", &self.settings)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_refused_by_name() {
        let new = CacheBuilder::<u8, u8>::new;
        let refused = [
            ("capacity", new().capacity(0)),
            ("capacity", new().capacity(1 << 33)),
            ("weight_capacity", new().weight_capacity(0)),
            ("ttl", new().ttl(Duration::from_micros(999))),
            ("idle", new().idle(Duration::ZERO)),
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

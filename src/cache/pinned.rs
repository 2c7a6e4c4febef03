use super::inner::{Inner, Standing};
use crate::sync::pins::{Pin, pin};
use hashbrown::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A pin for several reads, from [`Cache::pin`](super::Cache::pin).
pub struct Pinned<'a, K, V, S> {
    inner: &'a Inner<K, V, S>,
    pin: Pin,
}

impl<'a, K: Hash + Eq, V, S: BuildHasher> Pinned<'a, K, V, S> {
    #[inline]
    pub(super) fn new(inner: &'a Inner<K, V, S>) -> Pinned<'a, K, V, S> {
        Pinned { inner, pin: pin() }
    }

    /// The value under `key`, if it is there and has not expired: what it was when it was looked up, for as long as the
    /// pin lives.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.inner.get(self.inner.hash(key), key, &self.pin)
    }

    /// Whether `key` is there and has not expired. Not counted, and no hit to the policy.
    #[must_use]
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let found = self.inner.peek(self.inner.hash(key), key, &self.pin);
        found.is_some_and(|found| found.standing == Standing::Fresh)
    }
}

impl<K, V, S> fmt::Debug for Pinned<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

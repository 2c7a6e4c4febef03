use crate::cache::inner::{Found, Inner, Standing};
use crate::cache::stats::Count;
use crate::cache::time::millis;
use crate::sync::pins::Pin;
use hashbrown::Equivalent;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

/// What a call wants of what is in the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// To know that there is no value will do.
    pub(super) absent: bool,
    /// It is a read, and counted as one.
    pub(super) is_read: bool,
    /// What is loaded goes into the cache; else whoever loads sees to that.
    pub(super) keeps: bool,
}

impl Ask {
    pub(super) const VALUE: Ask = Ask {
        absent: false,
        is_read: true,
        keeps: true,
    };

    pub(super) const OPTIONAL: Ask = Ask {
        absent: true,
        ..Ask::VALUE
    };

    pub(super) const REFRESH: Ask = Ask {
        is_read: false,
        ..Ask::VALUE
    };

    pub(super) const LOAD_ONLY: Ask = Ask {
        is_read: false,
        keeps: false,
        ..Ask::VALUE
    };
}

/// What a call finds in the cache.
pub(super) enum Look<V> {
    /// All that it needs.
    Answer(Option<V>),
    /// A value that will do, of the entry at this slot, and that is to be loaded anew.
    Due { value: V, slot: u32, stale: bool },
    /// Nothing that will do, in the entry at this slot if there is one.
    Missing(Option<u32>),
}

/// The largest draw from an exponential distribution, in means: a draw is the logarithm of a number of 53 bits.
const LARGEST_DRAW: f64 = 37.0;

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Inner<K, V, S> {
    /// Looks for a value that is `good` to the caller, and counts the look if `counts` says so.
    pub(super) fn look<'p, Q>(
        &'p self,
        hash: u64,
        key: &Q,
        ask: Ask,
        counts: bool,
        good: &impl Fn(&V) -> bool,
        pin: &'p Pin,
    ) -> Look<V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let found = self.peek(hash, key, pin);
        let look = found
            .as_ref()
            .map_or(Look::Missing(None), |found| self.look_at(hash, ask, found, good, pin));
        if let Some(found) = found.filter(|_| ask.is_read && !matches!(look, Look::Missing(_))) {
            self.count_use(hash, &found, pin);
        }
        if counts {
            let count = match look {
                Look::Answer(None) => Count::NegativeHits,
                Look::Answer(Some(_)) | Look::Due { .. } => Count::Hits,
                Look::Missing(_) => Count::Misses,
            };
            self.counters.add(pin, count, 1);
        }
        look
    }

    fn look_at(&self, hash: u64, ask: Ask, found: &Found<'_, K, V>, good: &impl Fn(&V) -> bool, pin: &Pin) -> Look<V> {
        let slot = found.slot;
        let value = || found.entry.value().filter(|value| good(value)).cloned();
        let missing = Look::Missing(Some(slot));
        match found.standing {
            Standing::Absent if ask.absent => Look::Answer(None),
            Standing::Fresh => match value() {
                Some(value) if self.is_early(hash, found, pin) => Look::Due {
                    value,
                    slot,
                    stale: false,
                },
                Some(value) => Look::Answer(Some(value)),
                None => missing,
            },
            Standing::Stale(age) if is_within(age, self.settings.stale_while_revalidate) => match value() {
                Some(value) => Look::Due {
                    value,
                    slot,
                    stale: true,
                },
                None => missing,
            },
            Standing::Stale(age) if self.is_excused(hash, age) => match value() {
                Some(value) => {
                    self.counters.add(pin, Count::StaleServed, 1);
                    Look::Answer(Some(value))
                }
                None => missing,
            },
            _ => missing,
        }
    }

    /// Whether a value of this age is served without trying to load it, since that failed a moment ago.
    fn is_excused(&self, hash: u64, age: u64) -> bool {
        let now = self.time.read();
        is_within(age, self.settings.stale_if_error) && self.flights.hold(hash).pauses().is_paused(hash, now)
    }

    /// Whether chance says that a fresh entry is to be loaded anew before it expires.
    fn is_early(&self, hash: u64, found: &Found<'_, K, V>, pin: &Pin) -> bool {
        let Some(beta) = self.settings.early_refresh else {
            return false;
        };
        let extra = self.shard(hash).extra(found.slot, found.read, pin);
        let Some(end) = self.ttl_end(found.read, extra) else {
            return false;
        };
        let mean = self.flights.usual().as_secs_f64() * beta;
        let left = self.time.until(end);
        // Far from the end no draw is large enough, and none is made: it takes a lock.
        left.as_secs_f64() < mean * LARGEST_DRAW && left.as_secs_f64() < self.rng.lock().exponential(mean)
    }

    /// What may be served where loading has failed.
    pub(super) fn spare<Q>(&self, hash: u64, key: &Q, good: &impl Fn(&V) -> bool, pin: &Pin) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let found = self.peek(hash, key, pin)?;
        let value = || found.entry.value().filter(|value| good(value)).cloned();
        match found.standing {
            // It was early, or somebody has put it in meanwhile.
            Standing::Fresh => value(),
            Standing::Stale(age) if is_within(age, self.settings.stale_if_error) => {
                let value = value()?;
                self.counters.add(pin, Count::StaleServed, 1);
                Some(value)
            }
            _ => None,
        }
    }
}

/// Whether an age in milliseconds is within a grace.
fn is_within(age: u64, grace: Option<Duration>) -> bool {
    grace.is_some_and(|grace| age < millis(grace))
}

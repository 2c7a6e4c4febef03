//! What the stores that answer from memory do alike: how long an entry is remembered, and what they read below.

use super::{Cache, LoadError};
use crate::env::{Env, WallTime};
use crate::store::{Entry, Error, Result};
use bytes::Bytes;
use std::time::Duration;

/// What is remembered: for each key an entry, or that there is none.
pub(super) type Entries = Cache<Bytes, Option<Entry>>;

/// What an entry weighs in a cache that bytes limit.
#[allow(clippy::ref_option, reason = "a weigher is given the value as it is kept")]
pub(super) fn weigh(key: &Bytes, found: &Option<Entry>) -> u64 {
    (key.len() + found.as_ref().map_or(0, |entry| entry.value.len())) as u64
}

/// How long things are remembered at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    pub(super) ttl: Duration,
    /// That a key does not exist.
    pub(super) negative_ttl: Duration,
}

impl Lifetimes {
    /// How long `found` is remembered when it is read at `now`: never past its own expiry; zero for not at all.
    pub(super) fn of(&self, found: Option<&Entry>, now: WallTime) -> Duration {
        match found {
            None => self.negative_ttl,
            Some(Entry { expires: None, .. }) => self.ttl,
            Some(Entry { expires: Some(at), .. }) => self.ttl.min(*at - now),
        }
    }
}

/// What is remembered of `key`, if anything is.
pub(super) fn remembered(entries: &Entries, env: &Env, key: &[u8]) -> Option<Option<Entry>> {
    let found = entries.get(key)?;
    // An entry's own expiry is wall-clock time, which may have jumped since.
    if matches!(&found, Some(entry) if entry.expires.is_some() && !entry.is_live(env.wall())) {
        entries.remove(key);
        return None;
    }
    Some(found)
}

/// The store's error in a load that failed.
pub(super) fn load_error(error: LoadError<Error>) -> Error {
    match error {
        LoadError::Failed(error) => Error::clone(&error),
        LoadError::Crowded { limit } => Error::Full {
            what: format!("{limit} reads wait for the store below the cache already; see max_waiting"),
        },
    }
}

/// Several keys that were looked for in memory.
pub(super) struct Looked {
    found: Vec<Option<Option<Entry>>>,
    missing: Vec<Bytes>,
}

impl Looked {
    pub(super) fn new(keys: &[Bytes], look: impl Fn(&[u8]) -> Option<Option<Entry>>) -> Looked {
        let found: Vec<_> = keys.iter().map(|key| look(key)).collect();
        let missing = keys.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing = missing.map(|(key, _)| key.clone()).collect();
        Looked { found, missing }
    }

    /// The keys to read from the store below.
    pub(super) fn missing(&self) -> &[Bytes] {
        &self.missing
    }

    /// Everything in the order of the keys, with what was `read` of those missing, each of which `keep` is told of.
    pub(super) fn complete(
        mut self,
        read: Vec<Option<Entry>>,
        mut keep: impl FnMut(usize, Bytes, Option<Entry>),
    ) -> Result<Vec<Option<Entry>>> {
        if read.len() != self.missing.len() {
            let (asked, answered) = (self.missing.len(), read.len());
            let what = format!("asked for {asked} keys, the store answered {answered}");
            return Err(Error::Corrupt { what });
        }
        let places = self.found.iter_mut().filter(|found| found.is_none());
        for (at, ((place, key), found)) in places.zip(self.missing).zip(read).enumerate() {
            keep(at, key, found.clone());
            *place = Some(found);
        }
        Ok(self.found.into_iter().map(Option::flatten).collect())
    }
}

//! How the durable queue reads messages.

use super::record::Record;
use super::shell::Shell;
use super::{Error, Result};
use crate::log::{Item, LogError};
use bytes::Bytes;
use std::collections::BTreeMap;

/// How much is read at once when a message is no longer in memory.
const READ_AHEAD: usize = 256 << 10;

impl Shell {
    /// The entries of some messages, those that are kept and that damage left, from memory or from the log.
    pub(super) async fn entries(&self, seqs: impl Iterator<Item = u64>) -> Result<BTreeMap<u64, Bytes>> {
        let wanted: Vec<u64> = seqs.collect();
        let mut found = BTreeMap::new();
        let mut places = self.places(&wanted, &mut found);
        while !self.fetch(&places, &mut found).await? {
            // A segment was freed since they were looked up: messages have been written again elsewhere, or are not kept.
            let now = self.places(&wanted, &mut found);
            if now == places {
                let first = places.first().map_or(0, |(at, _)| *at);
                return Err(Error::Corrupt {
                    what: format!("the log begins after message {first}"),
                });
            }
            places = now;
        }
        Ok(found)
    }

    /// Where in the log those of the messages are that are kept and not in memory, in order. The others are found.
    fn places(&self, wanted: &[u64], found: &mut BTreeMap<u64, Bytes>) -> Vec<(u64, u64)> {
        let core = self.core.lock();
        let first = self.log.range().start;
        let mut places = Vec::new();
        for seq in wanted.iter().copied() {
            if found.contains_key(&seq) {
                continue;
            }
            let place = core.state.copies.place(seq);
            match core.cache.get(seq) {
                Some(entry) => drop(found.insert(seq, entry)),
                None if place >= first || core.state.is_kept(seq) => places.push((place, seq)),
                None => {}
            }
        }
        places.sort_unstable();
        places
    }

    /// Reads messages at their places; says if one of these is no longer there.
    async fn fetch(&self, places: &[(u64, u64)], found: &mut BTreeMap<u64, Bytes>) -> Result<bool> {
        let mut rest = places;
        while let [(first, _), ..] = *rest {
            let items = match self.log.read(first..u64::MAX, READ_AHEAD).await {
                Err(LogError::Gone { .. }) => return Ok(false),
                items => items?,
            };
            let Some(end) = items.last().map(Item::end) else {
                return Err(Error::Corrupt {
                    what: format!("the log ends before message {first}"),
                });
            };
            let mut core = self.core.lock();
            for item in items {
                let Item::Record { seq: at, bytes } = item else {
                    continue;
                };
                if let Some((seq, entry)) = Record::message_in(at, &bytes) {
                    core.cache.put(seq, entry.clone());
                    found.insert(seq, entry);
                }
            }
            rest = &rest[rest.partition_point(|(at, _)| *at < end)..];
        }
        Ok(true)
    }
}

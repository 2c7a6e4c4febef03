//! How the durable queue reads messages.

use super::record::Record;
use super::shell::Shell;
use super::{Error, Result};
use crate::log::{Item, LogError};
use bytes::Bytes;

/// How much is read at once when a message is no longer in memory.
const READ_AHEAD: usize = 256 << 10;

impl Shell {
    /// The entries of some messages, from memory or from the log, in the order in which they are asked for; nothing of
    /// those that are not kept or that damage took.
    pub(super) async fn entries(&self, wanted: &[u64]) -> Result<Vec<Option<Bytes>>> {
        let mut found = vec![None; wanted.len()];
        let mut places = self.places(wanted, &mut found);
        while !self.fetch(&places, wanted, &mut found).await? {
            // A segment was freed since they were looked up: messages have been written again elsewhere, or are not kept.
            let now = self.places(wanted, &mut found);
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

    /// Where in the log those of the messages are that are kept and not in memory, in order, and which of the wanted ones
    /// these are. The others are found.
    fn places(&self, wanted: &[u64], found: &mut [Option<Bytes>]) -> Vec<(u64, usize)> {
        let core = self.core.lock();
        let first = self.log.range().start;
        let mut places = Vec::new();
        for (index, (&seq, found)) in wanted.iter().zip(found).enumerate() {
            if found.is_some() {
                continue;
            }
            *found = core.cache.get(seq);
            if found.is_none() {
                let place = core.state.copies.place(seq);
                if place >= first || core.state.is_kept(seq) {
                    places.push((place, index));
                }
            }
        }
        places.sort_unstable();
        places
    }

    /// Reads messages at their places; says if one of these is no longer there.
    async fn fetch(&self, places: &[(u64, usize)], wanted: &[u64], found: &mut [Option<Bytes>]) -> Result<bool> {
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
                let Some((seq, entry)) = Record::message_in(at, &bytes) else {
                    continue;
                };
                let place = rest.binary_search_by_key(&at, |(at, _)| *at);
                if let Some(index) = place
                    .ok()
                    .map(|place| rest[place].1)
                    .filter(|index| wanted[*index] == seq)
                {
                    found[index] = Some(entry.clone());
                }
                core.cache.put(seq, entry);
            }
            rest = &rest[rest.partition_point(|(at, _)| *at < end)..];
        }
        Ok(true)
    }
}

//! How the durable queue reads messages.

use super::record::{Record, SubId};
use super::shell::Shell;
use super::{Error, Result};
use crate::log::{Item, LogError};
use bytes::Bytes;
use std::collections::BTreeMap;

/// How much is read at once where what is wanted is followed by what will be wanted next.
const READ_AHEAD: usize = 256 << 10;
/// How far apart the numbers of messages may be that are taken to follow each other.
const APART: u64 = 16;

/// Messages to be read: each with the number of the entry that it is in, and its own.
type Places = [(u64, u64)];

impl Shell {
    /// The entries of some messages, those that are kept and that damage left, from memory or from the log.
    pub(super) async fn entries(&self, seqs: impl Iterator<Item = u64>) -> Result<BTreeMap<u64, Bytes>> {
        self.entries_for(None, seqs).await
    }

    /// The same for a subscription that has been given these messages: what it is likely to be given next is read into
    /// memory with them.
    pub(super) async fn entries_for(
        &self,
        id: Option<SubId>,
        seqs: impl Iterator<Item = u64>,
    ) -> Result<BTreeMap<u64, Bytes>> {
        let wanted: Vec<u64> = seqs.collect();
        let mut found = BTreeMap::new();
        let mut places = self.places(&wanted, &mut found);
        while !self.fetch(id, &places, &mut found).await? {
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
    async fn fetch(&self, id: Option<SubId>, places: &Places, found: &mut BTreeMap<u64, Bytes>) -> Result<bool> {
        let (apart, row) = places.split_at(places.len() - self.row(id, places));
        Ok(self.fetch_apart(apart, found).await? && self.fetch_row(row, found).await?)
    }

    /// How many of the last messages stand in a row that goes on behind them.
    fn row(&self, id: Option<SubId>, places: &Places) -> usize {
        let Some((id, last)) = id.zip(places.last()) else {
            return 0;
        };
        let is_near = |pair: &&Places| pair[1].0 - pair[0].0 <= APART;
        match self.core.lock().state.goes_on(id, last.1) {
            true => 1 + places.windows(2).rev().take_while(is_near).count(),
            false => 0,
        }
    }

    /// Reads no more than is wanted. It is not kept in memory: it is in the hands of whoever wants it.
    async fn fetch_apart(&self, places: &Places, found: &mut BTreeMap<u64, Bytes>) -> Result<bool> {
        let Some((last, _)) = places.last() else {
            return Ok(true);
        };
        let wanted: Vec<u64> = places.iter().map(|(at, _)| *at).collect();
        let Some(items) = unless_gone(self.log.read_some(&wanted).await)? else {
            return Ok(false);
        };
        if items.last().is_none_or(|item| item.end() <= *last) {
            return Err(ends_before(*last));
        }
        found.extend(items.into_iter().filter_map(message));
        Ok(true)
    }

    /// Reads what is wanted, and on behind it for whoever comes next.
    async fn fetch_row(&self, places: &Places, found: &mut BTreeMap<u64, Bytes>) -> Result<bool> {
        let mut rest = places;
        while let [(first, _), ..] = *rest {
            let Some(items) = unless_gone(self.log.read(first..u64::MAX, READ_AHEAD).await)? else {
                return Ok(false);
            };
            let end = items.last().map(Item::end).ok_or_else(|| ends_before(first))?;
            let (here, behind) = rest.split_at(rest.partition_point(|(at, _)| *at < end));
            let mut core = self.core.lock();
            for item in items {
                let at = item.end() - 1;
                let Some((seq, entry)) = message(item) else { continue };
                core.cache.put(seq, entry.clone());
                if here.binary_search(&(at, seq)).is_ok() {
                    found.insert(seq, entry);
                }
            }
            rest = behind;
        }
        Ok(true)
    }
}

/// What was read, if what was to be read is still there.
fn unless_gone(items: Result<Vec<Item>, LogError>) -> Result<Option<Vec<Item>>> {
    match items {
        Err(LogError::Gone { .. }) => Ok(None),
        items => Ok(Some(items?)),
    }
}

fn ends_before(at: u64) -> Error {
    Error::Corrupt {
        what: format!("the log ends before message {at}"),
    }
}

/// A message, if the entry is one, with its number.
fn message(item: Item) -> Option<(u64, Bytes)> {
    match item {
        Item::Record { seq, bytes } => Record::message_in(seq, &bytes),
        Item::Gap(_) => None,
    }
}

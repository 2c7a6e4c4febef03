//! How the durable queue reads messages.

use super::heart::standing::Lease;
use super::record::{Record, SubId};
use super::shell::Shell;
use crate::log::{Item, LogError};
use crate::queue::{Error, Result};
use bytes::Bytes;
use std::time::Duration;

/// How much is read at once where what is wanted is followed by what will be wanted next.
const READ_AHEAD: usize = 256 << 10;
/// How far apart the numbers of messages may be that are taken to follow each other.
const APART: u64 = 16;

/// How long a read from the disk may take before leases end for it.
const READS: Duration = Duration::from_secs(60);

/// Messages to be read, in order: for each the number of the entry that it is in, and which of the wanted ones it is.
type Places = [(u64, usize)];

/// The messages that are wanted, and those found so far.
struct Wanted<'a> {
    seqs: &'a [u64],
    found: Vec<Option<Bytes>>,
}

impl Wanted<'_> {
    /// Takes a message that was read at number `at` of the log, if it is one of those at these places.
    fn take(&mut self, places: &Places, at: u64, seq: u64, entry: Bytes) {
        if let Ok(place) = places.binary_search_by_key(&at, |(at, _)| *at)
            && let (_, index) = places[place]
            && self.seqs[index] == seq
        {
            self.found[index] = Some(entry);
        }
    }
}

impl Shell {
    /// The entries of some messages, from memory or from the log, in the order in which they are asked for; nothing of
    /// those that are not kept or that damage took.
    pub(super) async fn entries(&self, wanted: &[u64]) -> Result<Vec<Option<Bytes>>> {
        let (entries, _was_read) = self.entries_for(None, wanted).await?;
        Ok(entries)
    }

    /// The same for a subscription that has been given these messages: what it is likely to be given next is read into
    /// memory with them. Also says whether the disk was read, which may take long; the leases do not end meanwhile.
    pub(super) async fn entries_for(
        &self,
        leased: Option<(SubId, &[Lease])>,
        wanted: &[u64],
    ) -> Result<(Vec<Option<Bytes>>, bool)> {
        let id = leased.map(|(id, _)| id);
        let mut wanted = Wanted {
            seqs: wanted,
            found: vec![None; wanted.len()],
        };
        let mut places = self.places(&mut wanted);
        let reads = !places.is_empty();
        if let Some((id, leases)) = leased.filter(|_| reads) {
            self.renew(id, leases, READS);
        }
        while !self.fetch(id, &places, &mut wanted).await? {
            // A segment was freed since they were looked up: messages have been written again elsewhere, or are not kept.
            let now = self.places(&mut wanted);
            if now == places {
                let first = places.first().map_or(0, |(at, _)| *at);
                return Err(Error::Corrupt {
                    what: format!("the log begins after message {first}"),
                });
            }
            places = now;
        }
        Ok((wanted.found, reads))
    }

    /// Has those of some leases that still hold last for a whole lease from now, and `more`; says which hold.
    pub(super) fn renew(&self, id: SubId, leases: &[Lease], more: Duration) -> Vec<bool> {
        let mut core = self.core.lock();
        let held = core.state.renew(self.env.now() + more, id, leases);
        self.tell(core, None);
        held
    }

    /// Where in the log those of the messages are that are kept and not in memory. The others are found.
    fn places(&self, wanted: &mut Wanted<'_>) -> Vec<(u64, usize)> {
        let core = self.core.lock();
        let first = self.log.range().start;
        let (mut places, mut near) = (Vec::new(), 0);
        for (index, (&seq, found)) in wanted.seqs.iter().zip(&mut wanted.found).enumerate() {
            if found.is_some() {
                continue;
            }
            *found = core.cache.get_near(seq, &mut near);
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
    async fn fetch(&self, id: Option<SubId>, places: &Places, wanted: &mut Wanted<'_>) -> Result<bool> {
        let (apart, row) = places.split_at(places.len() - self.row(id, places, wanted));
        Ok(self.fetch_apart(apart, wanted).await? && self.fetch_row(row, wanted).await?)
    }

    /// How many of the last messages stand in a row that goes on behind them.
    fn row(&self, id: Option<SubId>, places: &Places, wanted: &Wanted<'_>) -> usize {
        let Some((id, (_, last))) = id.zip(places.last()) else {
            return 0;
        };
        let is_near = |pair: &&Places| pair[1].0 - pair[0].0 <= APART;
        match self.core.lock().state.goes_on(id, wanted.seqs[*last]) {
            true => 1 + places.windows(2).rev().take_while(is_near).count(),
            false => 0,
        }
    }

    /// Reads no more than is wanted. It is not kept in memory: it is in the hands of whoever wants it.
    async fn fetch_apart(&self, places: &Places, wanted: &mut Wanted<'_>) -> Result<bool> {
        let Some((last, _)) = places.last() else {
            return Ok(true);
        };
        let seqs: Vec<u64> = places.iter().map(|(at, _)| *at).collect();
        let Some(items) = unless_gone(self.log.read_some(&seqs).await)? else {
            return Ok(false);
        };
        if items.last().is_none_or(|item| item.end() <= *last) {
            return Err(ends_before(*last));
        }
        for (at, seq, entry) in items.into_iter().filter_map(message) {
            wanted.take(places, at, seq, entry);
        }
        Ok(true)
    }

    /// Reads what is wanted, and on behind it for whoever comes next.
    async fn fetch_row(&self, places: &Places, wanted: &mut Wanted<'_>) -> Result<bool> {
        let mut rest = places;
        while let [(first, _), ..] = *rest {
            let Some(items) = unless_gone(self.log.read(first..u64::MAX, READ_AHEAD).await)? else {
                return Ok(false);
            };
            let end = items.last().map(Item::end).ok_or_else(|| ends_before(first))?;
            let (here, behind) = rest.split_at(rest.partition_point(|(at, _)| *at < end));
            let mut core = self.core.lock();
            for (at, seq, entry) in items.into_iter().filter_map(message) {
                wanted.take(here, at, seq, entry.clone());
                core.cache.put(seq, entry);
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

/// A message, if the entry is one, with the number of the entry and its own.
fn message(item: Item) -> Option<(u64, u64, Bytes)> {
    match item {
        Item::Record { seq: at, bytes } => {
            let (seq, entry) = Record::message_in(at, &bytes)?;
            Some((at, seq, entry))
        }
        Item::Gap(_) => None,
    }
}

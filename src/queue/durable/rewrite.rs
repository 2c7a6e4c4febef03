//! How messages that hold old segments of the log are written again at its end, so that the segments can be freed.

use super::heart::state::State;
use super::outgoing::LARGE;
use super::record::{Record, SubId, encode_copy};
use super::shell::{Copied, Core, Effect, InFlight, Shell};
use crate::log::{Entry, Item, LogError};
use crate::queue::{Error, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Copies are appended together up to so many bytes, and the last one whole.
const BYTES_AT_ONCE: usize = 192 << 10;
/// The most messages and subscriptions, multiplied, that one append tells of; so it fits into a frame with the copies.
const TOLD_AT_ONCE: usize = 2 << 10;
/// How long not to look again after a look that found nothing to gain, for each topic and segment that it looked at: that
/// is about a hundred times what it took.
const PAUSE: Duration = Duration::from_micros(10);
/// Between one append of copies and the next is so many times as long as it took: whoever waits for the disk meanwhile
/// waits for it too.
const REST: u32 = 3;
/// And no longer than this, since what holds up the disk may be something else.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// How long damaged messages, which keep their segments, are left alone.
const DAMAGED_AGAIN: Duration = Duration::from_secs(60);

/// When it pays to write messages again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// How many segments it frees at least. While messages are settled in order, the oldest segment holds few for a
    /// moment, but not the one behind it.
    pub(super) segments: usize,
    /// Less than one part in so many of their bytes is kept messages.
    pub(super) part: u64,
    /// About how many bytes are written in one go, before what they held is freed.
    pub(super) most: u64,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            segments: 2,
            part: 4,
            most: 64 << 20,
        }
    }
}

/// What is to be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gain {
    /// Messages before this number.
    end: u64,
    /// Whether there is more to gain behind it.
    more: bool,
}

impl Rule {
    /// What of the oldest segments is to be freed, of which `segments` has ends and bytes. Before the end of each are
    /// so many bytes of messages that are `kept`.
    fn gain(self, segments: &[(u64, u64)], kept: &[u64]) -> Option<Gain> {
        let (mut found, mut bytes, mut kept_before) = (None, 0, 0);
        for (n, ((end, len), kept)) in (1..).zip(segments.iter().zip(kept)) {
            bytes += len;
            let pays = match found {
                None => n >= self.segments && kept * self.part < bytes,
                // What follows has to pay by itself.
                Some(_) => (kept - kept_before) * self.part < *len,
            };
            if pays {
                found = Some(*end);
            } else if found.is_some() {
                break;
            }
            kept_before = *kept;
        }
        let found = found?;
        let enough = kept.iter().position(|kept| *kept >= self.most);
        let end = enough.map_or(found, |at| segments[at].0.min(found));
        Some(Gain { end, more: end < found })
    }
}

/// A message on its way to a copy.
struct Straggler {
    seq: u64,
    topic: Arc<str>,
    len: u32,
    copy: Entry,
}

impl Shell {
    /// Writes again what is kept of the messages in the oldest segments, where that is little. What they held can be freed
    /// then.
    pub(super) async fn rewrite(self: &Arc<Self>) -> Result<()> {
        let Some(Gain { end, more }) = self.gain() else {
            return Ok(());
        };
        let topics: Vec<Arc<str>> = self.core.lock().state.topics.keys().map(Arc::clone).collect();
        for topic in topics {
            if !self.settings.retention_of(&topic).keeps_settled() {
                self.sweep_before(&topic, end).await;
            }
            let mut from = 0;
            loop {
                let seqs = {
                    let core = self.core.lock();
                    core.state.uncopied(&topic, from, end, core.copied_at_once())
                };
                match self.copy(&seqs).await? {
                    Some(0) => break,
                    Some(done) => from = seqs[done - 1] + 1,
                    None => return Ok(()),
                }
            }
        }
        loop {
            let seqs = {
                let core = self.core.lock();
                core.state.copies.oldest(end, core.copied_at_once())
            };
            match self.copy(&seqs).await? {
                Some(0) => break,
                Some(_) => {}
                None => return Ok(()),
            }
        }
        let mut core = self.core.lock();
        core.state.copies.raise_home(end);
        if more {
            core.settled(self.env.now());
        }
        Ok(())
    }

    fn gain(&self) -> Option<Gain> {
        let (now, rule) = (self.env.now(), self.settings.rewrite);
        let mut core = self.core.lock();
        if let Some(at) = core.rewrite_after.filter(|at| now < *at) {
            core.tidy_at.get_or_insert(at);
            return None;
        }
        let happened = core.settled_end(self.log.durable());
        let segments = self.log.full_segments().into_iter();
        let segments: Vec<_> = segments.take_while(|(end, _)| *end <= happened).collect();
        let gain = rule.gain(&segments, &core.state.bytes_before(&segments));
        let looked_at = core.state.topics.len() * segments.len();
        let pause = PAUSE * u32::try_from(looked_at).unwrap_or(u32::MAX);
        core.rewrite_after = gain.is_none().then_some(now + pause);
        gain
    }

    /// Writes some messages again; their places are new when it returns. Says how many of them it has seen to, unless
    /// something is in the way.
    async fn copy(self: &Arc<Self>, seqs: &[u64]) -> Result<Option<usize>> {
        if seqs.is_empty() {
            return Ok(Some(0));
        }
        let places: Vec<(u64, u64)> = {
            let core = self.core.lock();
            seqs.iter().map(|seq| (core.state.copies.place(*seq), *seq)).collect()
        };
        let read = self.read_some(&places).await?;
        let mut stragglers = Vec::with_capacity(read.len());
        for ((_, seq), entry) in places.iter().zip(&read) {
            let Some(entry) = entry else {
                // Damaged. It keeps its segment, for whoever may still make something of it.
                let mut core = self.core.lock();
                if core.state.is_kept(*seq) {
                    core.rewrite_after = Some(self.env.now() + DAMAGED_AGAIN);
                    return Ok(None);
                }
                continue;
            };
            stragglers.push(self.straggler(*seq, entry).await?);
        }
        let Some(append) = self.append_copies(&stragglers).await? else {
            // One of them goes elsewhere in this moment.
            self.core.lock().settled(self.env.now());
            return Ok(None);
        };
        let began = self.env.now();
        append.done().await?;
        let rest = (self.env.now() - began) * REST;
        self.stand_back(rest.min(LONGEST_REST)).await;
        Ok(Some(read.len()))
    }

    async fn straggler(&self, seq: u64, entry: &Bytes) -> Result<Straggler> {
        let topic = Record::topic_of(entry).and_then(|name| std::str::from_utf8(name).ok());
        let topic = topic.ok_or_else(|| Error::Corrupt {
            what: format!("message {seq} names no topic"),
        })?;
        let copy = encode_copy(seq, entry);
        let copy = match copy.len() >= LARGE {
            true => self.log.stage(copy).await?,
            false => copy.into(),
        };
        Ok(Straggler {
            seq,
            topic: topic.into(),
            len: entry.len() as u32,
            copy,
        })
    }

    /// The messages at these places, until they are many bytes: nothing for one that is damaged.
    async fn read_some(&self, places: &[(u64, u64)]) -> Result<Vec<Option<Bytes>>> {
        let (mut read, mut bytes) = (Vec::new(), 0);
        while let Some(&(first, _)) = places.get(read.len())
            && bytes < BYTES_AT_ONCE
        {
            // No more than its frame: what lies between stragglers is of no use.
            let items = self.log.read(first..u64::MAX, 1).await?;
            let end = items.last().map_or(first + 1, Item::end);
            let records = items.into_iter().filter_map(|item| match item {
                Item::Record { seq, bytes } => Some((seq, bytes)),
                Item::Gap(_) => None,
            });
            let records: BTreeMap<u64, Bytes> = records.collect();
            while let Some(&(at, seq)) = places.get(read.len()).filter(|(at, _)| (first..end).contains(at))
                && bytes < BYTES_AT_ONCE
            {
                let message = records.get(&at).and_then(|entry| Record::message_in(at, entry));
                // A copy of its own, so that it does not keep what it was read with.
                let entry = message.filter(|(known, _)| *known == seq);
                let entry = entry.map(|(_, entry)| Bytes::copy_from_slice(&entry));
                bytes += entry.as_ref().map_or(0, Bytes::len);
                read.push(entry);
            }
        }
        Ok(read)
    }

    async fn append_copies(self: &Arc<Self>, stragglers: &[Straggler]) -> Result<Option<InFlight>> {
        loop {
            match self.try_append_copies(stragglers) {
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                appended => return Ok(appended?),
            }
        }
    }

    /// Appends copies of those messages that are still kept, with what is open of them, under one lock and in one frame.
    /// Nothing is appended while one of them is on its way elsewhere.
    fn try_append_copies(self: &Arc<Self>, stragglers: &[Straggler]) -> Result<Option<InFlight>, LogError> {
        let mut core = self.core.lock();
        if core.closed {
            return Err(LogError::Closed);
        }
        if stragglers.iter().any(|straggler| core.moving.contains(&straggler.seq)) {
            return Ok(None);
        }
        let next = self.log.range().end;
        core.forget_failed(next, &self.env);
        let under_way = core.under_way();
        let (mut entries, mut copied, mut open) = (Vec::new(), Vec::new(), BTreeMap::<&str, Vec<_>>::new());
        for straggler in stragglers {
            let Some(wanted) = core.state.open_of(&straggler.topic, straggler.seq, &under_way) else {
                continue;
            };
            entries.push(straggler.copy.clone());
            copied.push(Copied {
                topic: Arc::clone(&straggler.topic),
                seq: straggler.seq,
                len: straggler.len,
            });
            open.entry(&straggler.topic).or_default().push((straggler.seq, wanted));
        }
        let told = open.into_iter().map(|(topic, messages)| Record::Copied {
            topic: topic.to_owned(),
            messages,
        });
        if !entries.is_empty() {
            entries.extend(told.map(|told| told.encode().into()));
        }
        // True only if all that is pending comes to be, like a standing.
        let append = self.log.append_common_at(next, &entries)?.ok_or(LogError::Full)?;
        Ok(Some(self.in_flight(&mut core, append, Effect::Copied(copied))))
    }
}

/// What the log knows already, though it has not happened yet.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// Messages that become dead letters.
    pub(super) burials: BTreeSet<(SubId, u64)>,
    /// Subscriptions, with their topics and the first number that they get.
    pub(super) subscriptions: Vec<(SubId, Arc<str>, u64)>,
}

impl Core {
    fn copied_at_once(&self) -> usize {
        (TOLD_AT_ONCE / self.state.subscription_count().max(1)).max(1)
    }
}

impl State {
    /// Up to `max` messages of a topic with numbers between `from` and `end` that have no copies.
    fn uncopied(&self, topic: &str, from: u64, end: u64, max: usize) -> Vec<u64> {
        let mut next = from.max(self.copies.home());
        let mut uncopied = Vec::new();
        while uncopied.len() < max
            && let Some(seq) = self.next_of(topic, next).filter(|seq| *seq < end)
        {
            uncopied.extend(self.copies.find(seq).is_none().then_some(seq));
            next = seq + 1;
        }
        uncopied
    }

    /// Bytes of the messages kept whose places are before the end of each segment: about, since all of a topic are taken to
    /// be of one length.
    fn bytes_before(&self, segments: &[(u64, u64)]) -> Vec<u64> {
        let home = self.copies.home();
        let mut bytes = self.copies.before(segments.iter().map(|(end, _)| *end));
        for topic in self.topics.values() {
            let messages = &topic.messages;
            let Some(first) = messages.next_seq(home) else {
                continue;
            };
            let each = messages.bytes.div_ceil(messages.len().max(1) as u64);
            let from = segments.partition_point(|(end, _)| *end <= first);
            for ((end, _), bytes) in segments.iter().zip(&mut bytes).skip(from) {
                *bytes += messages.count_in(home..*end) as u64 * each;
            }
        }
        bytes
    }

    /// Which subscriptions have not settled a message, and how often it was delivered to them; nothing if it is not kept.
    pub(super) fn open_of(&self, topic: &str, seq: u64, under_way: &UnderWay) -> Option<Vec<(SubId, u32)>> {
        let of = self.topics.get(topic)?;
        let stored = of.messages.find(seq)?;
        let open = of.subscriptions.values().filter_map(|id| {
            let attempts = self.subscriptions.get(id)?.attempts(&stored)?;
            (!under_way.burials.contains(&(*id, seq))).then_some((*id, attempts))
        });
        let new = under_way.subscriptions.iter();
        let new = new.filter(|(_, name, from)| **name == *topic && *from <= seq);
        Some(open.chain(new.map(|(id, ..)| (*id, 0))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;

    /// Segments of 100 bytes; of each, how many are kept.
    fn gain(kept: &[u64]) -> Option<(u64, bool)> {
        let rule = Rule {
            most: 300,
            ..Rule::default()
        };
        let segments: Vec<_> = (1..=kept.len() as u64).map(|n| (n * 10, 100)).collect();
        let before: Vec<u64> = (1..=kept.len()).map(|n| kept[..n].iter().sum()).collect();
        rule.gain(&segments, &before).map(|gain| (gain.end, gain.more))
    }

    #[test]
    fn the_oldest_segments_are_rewritten_when_less_than_a_quarter_is_kept() {
        assert_eq!(gain(&[]), None);
        assert_eq!(gain(&[1]), None, "one alone may be on its way to empty");
        assert_eq!(gain(&[1, 0]), Some((20, false)));
        assert_eq!(gain(&[10, 39]), Some((20, false)));
        assert_eq!(gain(&[10, 40]), None);
        assert_eq!(gain(&[10, 100, 100]), None, "settled in order");
        assert_eq!(gain(&[60, 0, 0]), Some((30, false)), "together");
        assert_eq!(
            gain(&[1, 0, 0, 24, 25, 0]),
            Some((40, false)),
            "the rest does not pay by itself"
        );
        assert_eq!(gain(&[1, 0, 0, 100, 100]), Some((30, false)));
        let mut much = [0; 14];
        much[..4].copy_from_slice(&[100, 100, 100, 1]);
        assert_eq!(gain(&much), Some((30, true)), "a part of it first");
    }

    #[test]
    fn what_does_not_pay_is_four_times_what_is_kept_at_most() {
        let mut rng = Rng::seeded(1);
        for _ in 0..1_000 {
            let kept: Vec<u64> = (0..2 + rng.below(20)).map(|_| rng.below(101) * rng.below(2)).collect();
            if gain(&kept).is_none() {
                assert!(kept.iter().sum::<u64>() * 4 >= 100 * kept.len() as u64, "{kept:?}");
            }
        }
    }
}

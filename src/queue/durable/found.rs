//! What the log tells on opening: by its notes where there are any, and by its entries elsewhere.

use super::cache::Cache;
use super::heart::ages::Ages;
use super::heart::dedup::Gather;
use super::heart::standing::Stored;
use super::heart::state::State;
use super::limits::Settings;
use super::notes::{Note, Reading};
use super::outgoing::stored;
use super::record::Record;
use super::shell::Core;
use crate::codec::Malformed;
use crate::env::{Env, WallTime};
use crate::hash::KeyedHash;
use crate::log::{Item, Log, Recalled};
use crate::queue::{Error, Lost, Result};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// How much is read at a time where entries are read.
const READ_AHEAD: usize = 1 << 20;
/// How many messages go into the state at a time.
const RUN: usize = 1 << 10;

pub(super) struct Found {
    pub(super) state: State,
    cache: Cache,
    ids: Gather,
    pub(super) ages: BTreeMap<Arc<str>, Ages>,
    lost: Vec<Lost>,
}

/// Messages of one topic, one behind the other.
#[derive(Default)]
struct Run<'a> {
    topic: &'a str,
    messages: Vec<Stored>,
    sent: Vec<WallTime>,
}

impl Run<'_> {
    fn push(&mut self, message: Stored, sent: WallTime) {
        self.messages.push(message);
        self.sent.push(sent);
    }
}

impl Found {
    pub(super) fn new(state: State, settings: &Settings, wall: WallTime) -> Found {
        Found {
            state,
            cache: Cache::new(settings.cache_bytes),
            ids: Gather::new(wall, settings.dedup_window, settings.dedup_ids),
            ages: BTreeMap::new(),
            lost: Vec::new(),
        }
    }

    /// All that it has taken but the entries themselves.
    #[cfg(test)]
    pub(super) fn facts(&self) -> impl std::fmt::Debug {
        (&self.state, &self.ids, &self.ages, &self.lost)
    }

    /// Takes everything that is in the log, where this was recalled of it.
    pub(super) async fn take(&mut self, log: &Log, recalled: &[Recalled], keys: &KeyedHash) -> Result<()> {
        for part in recalled {
            let seqs = part.seqs.clone();
            let read_from = match &part.noted {
                Some((first, notes)) => self.notes(log, *first, notes, seqs.clone(), keys).await?,
                None => seqs.start,
            };
            self.read(log, read_from..seqs.end, keys).await?;
        }
        Ok(())
    }

    /// Takes what is noted of entries, where the first note is of number `first`. Returns the number from which on nothing
    /// is noted.
    async fn notes(&mut self, log: &Log, first: u64, notes: &[u8], seqs: Range<u64>, keys: &KeyedHash) -> Result<u64> {
        let mut notes = Reading::new(notes);
        let mut run = Run::default();
        for seq in first..seqs.end {
            if let Some(plain) = notes.next_plain() {
                if seq >= seqs.start {
                    run.push(plain.stored(seq), plain.sent);
                }
                if run.messages.len() >= RUN {
                    self.run(&mut run);
                }
                continue;
            }
            let Ok(note) = notes.next() else {
                self.run(&mut run);
                return Ok(seq.max(seqs.start));
            };
            match note {
                // Those behind it may not say their topic.
                Note::Message(noted) | Note::Copy(_, noted) if seq < seqs.start => run.topic = noted.topic,
                _ if seq < seqs.start => {}
                Note::Message(noted) => {
                    if noted.topic != run.topic {
                        self.run(&mut run);
                        run.topic = noted.topic;
                    }
                    if let Some(id) = noted.dedup_id() {
                        self.ids.message(noted.topic, id, seq, noted.sent);
                    }
                    run.push(noted.stored(seq, keys), noted.sent);
                }
                Note::Copy(of, noted) if of < seq => {
                    self.run(&mut run);
                    run.topic = noted.topic;
                    self.copied(noted.topic, noted.stored(of, keys), noted.sent, seq);
                }
                Note::Record(record) => {
                    self.run(&mut run);
                    self.record(seq, &record, keys)?;
                }
                Note::Read | Note::Copy(..) => {
                    self.run(&mut run);
                    self.read(log, seq..seq + 1, keys).await?;
                }
            }
        }
        self.run(&mut run);
        Ok(seqs.end)
    }

    /// Takes the messages of a run, and leaves it empty.
    fn run(&mut self, run: &mut Run<'_>) {
        if run.messages.is_empty() {
            return;
        }
        self.state.replay_messages(run.topic, &run.messages);
        let ages = self.ages_of(run.topic);
        let sent = run.messages.iter().zip(&run.sent);
        sent.for_each(|(message, sent)| ages.sent(message.seq, *sent));
        run.messages.clear();
        run.sent.clear();
    }

    fn ages_of(&mut self, topic: &str) -> &mut Ages {
        if !self.ages.contains_key(topic) {
            self.ages.insert(topic.into(), Ages::default());
        }
        self.ages.get_mut(topic).expect("it was just made sure of")
    }

    /// Reads entries.
    async fn read(&mut self, log: &Log, seqs: Range<u64>, keys: &KeyedHash) -> Result<()> {
        let mut next = seqs.start;
        while next < seqs.end {
            let items = log.read(next..seqs.end, READ_AHEAD).await?;
            let Some(end) = items.last().map(Item::end) else { break };
            next = end;
            for item in items {
                self.item(item, keys)?;
            }
        }
        Ok(())
    }

    /// Takes an entry that was read.
    pub(super) fn item(&mut self, item: Item, keys: &KeyedHash) -> Result<()> {
        let (seq, bytes) = match item {
            Item::Record { seq, bytes } => (seq, bytes),
            Item::Gap(gap) => {
                self.lost.push(gap.into());
                return Ok(());
            }
        };
        let record = Record::decode(&bytes).map_err(|malformed| malformed_at(seq, malformed))?;
        match &record {
            Record::Message { topic, sent, message } => {
                if let Some(id) = &message.dedup_id {
                    self.ids.message(topic, id, seq, *sent);
                }
                let stored = stored(seq, bytes.len() as u32, *sent, message, keys);
                drop(self.state.message(topic, stored));
                self.ages_of(topic).sent(seq, *sent);
                self.cache.put(seq, bytes);
            }
            other => self.record(seq, other, keys)?,
        }
        Ok(())
    }

    /// Takes a record that is no message.
    fn record(&mut self, seq: u64, record: &Record, keys: &KeyedHash) -> Result<()> {
        let checked = record.check(seq).and_then(|()| self.check(record));
        checked.map_err(|malformed| malformed_at(seq, malformed))?;
        match record {
            Record::Ids { secret, ids } => self.ids.record(*secret, ids, seq),
            Record::Copy { seq: of, entry } => self.copy(seq, *of, entry, keys)?,
            other => self.state.replay(seq, other),
        }
        Ok(())
    }

    /// Refuses what contradicts what was said before.
    fn check(&self, record: &Record) -> Result<(), Malformed> {
        let (Record::Subscribed { id, topic, name, .. } | Record::Standing { id, topic, name, .. }) = record else {
            return Ok(());
        };
        match self.state.names(*id) {
            Some(known) if (&*known.0, &*known.1) != (topic, name) => Err(Malformed("two subscriptions of one number")),
            _ => Ok(()),
        }
    }

    /// Takes the copy of message `seq`, at number `at` of the log.
    fn copy(&mut self, at: u64, seq: u64, entry: &Bytes, keys: &KeyedHash) -> Result<()> {
        let decoded = Record::decode(entry).map_err(|malformed| malformed_at(at, malformed))?;
        if let Record::Message { topic, sent, message } = decoded {
            let stored = stored(seq, entry.len() as u32, sent, &message, keys);
            self.copied(&topic, stored, sent, at);
            self.cache.put(seq, entry.clone());
        }
        Ok(())
    }

    /// A message has a copy at number `at` of the log. Of its id, a record of ids tells.
    fn copied(&mut self, topic: &str, stored: Stored, sent: WallTime, at: u64) {
        self.state.replay_copy(topic, stored, at);
        self.ages_of(topic).sent_before(stored.seq, sent);
    }

    /// Whether damage was met.
    pub(super) fn is_damaged(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Everything was taken. Returns what is missing of it.
    pub(super) fn complete(&mut self) -> impl Iterator<Item = Lost> + use<> {
        let missing = self.state.replayed().into_iter();
        missing.map(|seq| Lost {
            seqs: seq..seq + 1,
            why: "its copy is damaged or missing".into(),
        })
    }

    pub(super) fn finish(mut self, env: &Env, settings: &Settings, secret: (u64, u64)) -> (Core, Vec<Lost>) {
        let missing = self.complete();
        self.lost.extend(missing);
        let dedup = self.ids.finish(env.now(), secret);
        let mut core = Core::new(self.state, self.cache, dedup, settings.tidy_after);
        core.ages = self.ages;
        (core, self.lost)
    }
}

/// Checksums are sound, so it was written so: by a newer version, or by mistake.
fn malformed_at(seq: u64, malformed: Malformed) -> Error {
    Error::Corrupt {
        what: format!("entry {seq}: {malformed}"),
    }
}

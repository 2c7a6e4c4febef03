//! The heart of the durable queue: what topics hold and where subscriptions stand. Plain data; the time is an argument,
//! by both clocks: leases and retries go by ticks, which pass evenly, and what was asked for by a message (when it is
//! due, when it is over) by the wall clock, which goes on while nobody runs and which may jump.

use super::super::record::{Record, SubId};
use super::super::runs::Run;
use super::copies::Copies;
use super::kept::{Kept, LEVELS};
use super::promised::Promised;
use super::standing::{ATTEMPT_BITS, Lease, Lost, Standing, Stored, Taken};
use crate::env::{Tick, WallTime};
use crate::queue::{Subscription, TopicStats};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How soon to look again at the wall clock while something waits for it, since it may have jumped.
const WALL_CHECK: Duration = Duration::from_secs(1);

/// How many messages tell what those behind them are like.
const BEHIND: usize = 4;

/// How many of the messages that damage took are known by number.
const MOST_LOST: usize = 1_000;

/// Everything that a queue knows besides the messages' bytes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<Arc<str>, Topic>,
    pub(crate) subscriptions: BTreeMap<SubId, Standing>,
    last_id: SubId,
    /// By chance, so that a token from an earlier life fits nothing.
    salt: u64,
    /// When the next lease or wait of each subscription ends.
    ends: Ends,
    /// When the next delayed message of each subscription is due.
    dues: Dues,
    /// The wall clock as last heard of.
    pub(crate) wall: WallTime,
    dying: Vec<Dying>,
    /// Messages that damage took.
    pub(crate) lost: u64,
    /// The numbers of the latest of them.
    pub(crate) lost_seqs: VecDeque<u64>,
    /// Where messages lie that were written again.
    pub(crate) copies: Copies,
    /// Messages whose copies were found on opening, by topic, and which are still to be put among the others.
    pub(crate) returned: BTreeMap<Arc<str>, Vec<Stored>>,
    /// On opening, what the log says of messages whose copies are to be in it.
    pub(crate) promised: Promised,
}

type Ends = BTreeSet<(Tick, SubId)>;
type Dues = BTreeSet<(WallTime, SubId)>;

/// The messages of one topic that some subscription may still want.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    pub(crate) messages: Kept,
    pub(crate) subscriptions: BTreeMap<Arc<str>, SubId>,
    /// How many messages there were when it was last looked for settled ones among them, and how many were not settled,
    /// counted for each subscription.
    pub(crate) swept: (usize, usize),
}

/// A message that has used up its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dying {
    pub(crate) id: SubId,
    pub(crate) seq: u64,
    pub(crate) attempts: u32,
}

impl State {
    pub(crate) fn new(salt: u64) -> State {
        State {
            salt,
            ..State::default()
        }
    }

    /// A message is durable. Returns the subscriptions that may want it now.
    pub(crate) fn message(&mut self, topic: &str, stored: Stored) -> impl Iterator<Item = SubId> {
        let of = match self.topics.get_mut(topic) {
            Some(of) => of,
            None => self.topics.entry(topic.into()).or_default(),
        };
        of.messages.push(&stored);
        if stored.due > 0 {
            let ids: Vec<SubId> = of.subscriptions.values().copied().collect();
            for id in ids {
                self.with(id, |standing, messages| standing.await_due(&stored, messages));
            }
        }
        let subscriptions = &self.subscriptions;
        let ids = self
            .topics
            .get(topic)
            .into_iter()
            .flat_map(|of| of.subscriptions.values().copied());
        ids.filter(move |id| {
            stored.due == 0 || subscriptions.get(id).is_some_and(|standing| standing.is_ahead(&stored))
        })
    }

    /// The same of several of one topic, the first ones first, that are `plain` if none is delayed or has a key, an end or
    /// a priority of its own. Adds to `news` how many each subscription may want now.
    pub(crate) fn messages(
        &mut self,
        topic: &Arc<str>,
        plain: bool,
        messages: impl Iterator<Item = Stored>,
        news: &mut BTreeMap<SubId, usize>,
    ) {
        if !plain {
            for stored in messages {
                self.message(topic, stored)
                    .for_each(|id| *news.entry(id).or_default() += 1);
            }
            return;
        }
        let of = match self.topics.get_mut(topic) {
            Some(of) => of,
            None => self.topics.entry(Arc::clone(topic)).or_default(),
        };
        let before = of.messages.len();
        messages.for_each(|stored| of.messages.push(&stored));
        let many = of.messages.len() - before;
        for id in of.subscriptions.values() {
            *news.entry(*id).or_default() += many;
        }
    }

    /// Whether anybody subscribes to a topic.
    pub(crate) fn has_subscriptions(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|of| !of.subscriptions.is_empty())
    }

    /// Messages of one topic are in the log, says the log on opening, the first ones first.
    pub(crate) fn replay_messages(&mut self, topic: &str, messages: &[Stored]) {
        let is_plain = messages.iter().all(|stored| stored.due == 0);
        if !is_plain {
            return messages.iter().for_each(|stored| drop(self.message(topic, *stored)));
        }
        let of = match self.topics.get_mut(topic) {
            Some(of) => of,
            None => self.topics.entry(topic.into()).or_default(),
        };
        messages.iter().for_each(|stored| of.messages.push(stored));
    }

    /// A subscription is durable; it gets messages from number `from` on.
    pub(crate) fn subscribed(&mut self, id: SubId, topic: &str, name: &str, from: u64) {
        let (topic_name, name): (Arc<str>, Arc<str>) = (topic.into(), name.into());
        let topic = self.topics.entry(Arc::clone(&topic_name)).or_default();
        if topic.subscriptions.contains_key(&name) {
            return;
        }
        topic.subscriptions.insert(Arc::clone(&name), id);
        self.subscriptions
            .insert(id, Standing::new(id, topic_name, name, from, self.salt));
        self.last_id = self.last_id.max(id);
    }

    /// The number for a new subscription.
    pub(crate) fn new_id(&mut self) -> SubId {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn find(&self, topic: &str, name: &str) -> Option<SubId> {
        self.topics.get(topic)?.subscriptions.get(name).copied()
    }

    /// Whether a consumer that asked now might get something.
    pub(crate) fn has_more(&self, id: SubId) -> bool {
        let standing = self.subscriptions.get(&id);
        let has_more = |standing: &Standing| {
            let topic = self.topics.get(&standing.topic);
            topic.is_some_and(|topic| standing.has_more(&topic.messages))
        };
        standing.is_some_and(has_more)
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    pub(crate) fn configure(&mut self, id: SubId, wanted: &Subscription) {
        self.with(id, |standing, messages| standing.configure(wanted, messages));
    }

    /// Leases up to `max` messages to a consumer, or says that there may be more.
    pub(crate) fn take(&mut self, now: Tick, wall: WallTime, id: SubId, max: usize) -> Taken {
        self.wall = wall;
        let taken = self.with(id, |standing, messages| {
            standing.expire(now);
            standing.mature(wall);
            standing.take(now, wall, messages, max)
        });
        taken.unwrap_or_default()
    }

    /// Does something to a delivery, after ending the leases that are over.
    pub(crate) fn settle<T>(
        &mut self,
        now: Tick,
        id: SubId,
        change: impl FnOnce(&mut Standing) -> Result<T, Lost>,
    ) -> Result<T, Lost> {
        let standing = self.subscriptions.get_mut(&id).ok_or(Lost)?;
        let before = (standing.next_end(), standing.next_due());
        standing.expire(now);
        let changed = change(standing);
        // Most settlements need no look at the messages.
        if standing.is_untended()
            && let Some(topic) = self.topics.get(&standing.topic)
        {
            standing.tend(&topic.messages);
        }
        let tracked = (&mut self.ends, &mut self.dues, &mut self.dying);
        track(id, standing, before, tracked);
        changed
    }

    /// The subscription that a delivery of this generation is of, if these are its names, and when the next of its leases
    /// ends.
    pub(crate) fn of_generation(
        &self,
        generation: u64,
        topic: &Arc<str>,
        name: &Arc<str>,
    ) -> Option<(SubId, Option<Tick>)> {
        let id = (generation.wrapping_sub(self.salt) >> ATTEMPT_BITS) as SubId;
        let standing = self.subscriptions.get(&id)?;
        (standing.topic == *topic && standing.name == *name).then(|| (id, standing.next_end()))
    }

    /// Has those of some leases that still hold last for a whole lease from `now`, and says which hold.
    pub(crate) fn renew(&mut self, now: Tick, id: SubId, leases: &[Lease]) -> Vec<bool> {
        let renewed = self.with(id, |standing, _| {
            let renew = |lease: &Lease| standing.renew(lease.seq, lease.generation, now).is_ok();
            leases.iter().map(renew).collect()
        });
        renewed.unwrap_or_else(|| vec![false; leases.len()])
    }

    /// Takes back leases that never reached anybody.
    pub(crate) fn unlease(&mut self, id: SubId, leases: &[Lease]) {
        self.with(id, |standing, _| {
            leases
                .iter()
                .for_each(|lease| standing.unlease(lease.seq, lease.generation));
        });
    }

    /// Ends every lease and wait that is over, and delays up to a bound, and names the subscriptions that have messages
    /// for it, with how many. Leaves [`next_timer`](State::next_timer) at `now` when it has more to do.
    pub(crate) fn expire(&mut self, now: Tick, wall: WallTime) -> Vec<(SubId, usize)> {
        self.wall = wall;
        let mut freed = Vec::new();
        while let Some(&(at, id)) = self.ends.first()
            && at <= now
        {
            let some = self.with(id, |standing, _| standing.expire(now));
            freed.extend(some.map(|some| (id, some)));
        }
        let due: Vec<SubId> = self.dues.range(..=(wall, SubId::MAX)).map(|(_, id)| *id).collect();
        for id in due {
            let some = self.with(id, |standing, _| standing.mature(wall));
            freed.extend(some.map(|some| (id, some)));
        }
        freed
    }

    /// When [`expire`](State::expire) has something to do next. While something waits for the wall clock it is at most
    /// [`WALL_CHECK`] away: this clock may jump ahead meanwhile, and then the wait is over earlier. `time` is asked by both
    /// clocks, and only then.
    pub(crate) fn next_timer(&self, time: impl FnOnce() -> (Tick, WallTime)) -> Option<Tick> {
        let end = self.ends.first().map(|(at, _)| *at);
        let due = self.dues.first().map(|(due, _)| {
            let (now, wall) = time();
            now + (*due - wall).min(WALL_CHECK)
        });
        [end, due].into_iter().flatten().min()
    }

    /// Messages that have used up their attempts; from now on they are the caller's to bury.
    pub(crate) fn dying(&mut self) -> Vec<Dying> {
        std::mem::take(&mut self.dying)
    }

    pub(crate) fn has_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// A message's copy is among the dead letters.
    pub(crate) fn buried(&mut self, id: SubId, seq: u64) {
        self.with(id, |standing, _| standing.buried(seq));
    }

    pub(crate) fn unbury(&mut self, now: Tick, id: SubId, seq: u64) {
        self.with(id, |standing, _| standing.unbury(seq, now));
    }

    /// Works on one subscription, and keeps known when it has something to do and which of its messages are dying.
    pub(crate) fn with<T>(&mut self, id: SubId, work: impl FnOnce(&mut Standing, &Kept) -> T) -> Option<T> {
        let standing = self.subscriptions.get_mut(&id)?;
        let topic = self.topics.get(&standing.topic)?;
        let before = (standing.next_end(), standing.next_due());
        let result = work(standing, &topic.messages);
        standing.tend(&topic.messages);
        let tracked = (&mut self.ends, &mut self.dues, &mut self.dying);
        track(id, standing, before, tracked);
        Some(result)
    }

    /// Topic and name of a subscription.
    pub(crate) fn names(&self, id: SubId) -> Option<(Arc<str>, Arc<str>)> {
        let standing = self.subscriptions.get(&id)?;
        Some((Arc::clone(&standing.topic), Arc::clone(&standing.name)))
    }

    /// A message of the subscription's topic is damaged: nobody will get it.
    pub(crate) fn lose(&mut self, id: SubId, seq: u64) {
        let name = self.subscriptions.get(&id).map(|standing| Arc::clone(&standing.topic));
        if name.is_some_and(|name| self.remove(&name, seq)) {
            self.lost += 1;
            self.lost_seqs.push_back(seq);
            if self.lost_seqs.len() > MOST_LOST {
                self.lost_seqs.pop_front();
            }
        }
    }

    /// The place in the log of the oldest message kept, or `end` if there is none.
    pub(crate) fn oldest(&self, end: u64) -> u64 {
        let home = self.copies.home();
        let first = |topic: &Topic| topic.messages.next_seq(home);
        let first = self.topics.values().filter_map(first);
        first.chain(self.copies.first()).min().unwrap_or(end)
    }

    /// The oldest message kept in one topic.
    pub(crate) fn oldest_of(&self, topic: &str) -> Option<u64> {
        self.next_of(topic, 0)
    }

    /// The oldest message that a subscription has not settled.
    pub(crate) fn oldest_unsettled(&self, id: SubId) -> Option<u64> {
        let standing = self.subscriptions.get(&id)?;
        standing.oldest(&self.topics.get(&standing.topic)?.messages)
    }

    /// How many messages of a subscription have been delivered and are not settled.
    pub(crate) fn tried(&self, id: SubId) -> usize {
        self.subscriptions.get(&id).map_or(0, Standing::tried)
    }

    /// How many messages that a subscription has not settled are not due yet. Takes time in proportion to the messages of
    /// the priorities that have such.
    pub(crate) fn delayed(&self, id: SubId, wall: WallTime) -> usize {
        let standing = self.subscriptions.get(&id);
        let topic = standing.and_then(|standing| self.topics.get(&standing.topic));
        let Some((standing, topic)) = standing.zip(topic) else {
            return 0;
        };
        let levels = (0..LEVELS).map(|level| topic.messages.level(level));
        let special = levels.filter(|level| !level.is_plain());
        let stored = special.flat_map(|level| (0..level.len()).filter_map(|index| level.get(index)));
        let delayed = |stored: &Stored| stored.due > wall.as_millis() && standing.wants(stored);
        stored.filter(delayed).count()
    }

    /// Whether most of the few messages right behind number `seq` could be delivered to a subscription now, and have not been.
    pub(crate) fn goes_on(&self, id: SubId, seq: u64) -> bool {
        let standing = self.subscriptions.get(&id);
        let topic = standing.and_then(|standing| self.topics.get(&standing.topic));
        let Some((standing, topic)) = standing.zip(topic) else {
            return false;
        };
        let next = |seq: &u64| topic.messages.next_seq(seq + 1);
        let behind = std::iter::successors(Some(seq), next).skip(1).take(BEHIND);
        let behind = behind.filter_map(|seq| topic.messages.find(seq));
        let is_next = |stored: &Stored| stored.due <= self.wall.as_millis() && standing.is_undealt(stored);
        2 * behind.filter(is_next).count() > BEHIND
    }

    /// The subscriptions that have not settled a message, with how often they got it; nothing if the topic does not keep it.
    pub(crate) fn open_to(&self, topic: &str, seq: u64) -> Option<Vec<(String, u32)>> {
        let topic = self.topics.get(topic)?;
        let stored = topic.messages.find(seq)?;
        let open = |(name, id): (&Arc<str>, &SubId)| {
            let attempts = self.subscriptions.get(id)?.attempts(&stored)?;
            Some((name.to_string(), attempts))
        };
        let open: Vec<_> = topic.subscriptions.iter().filter_map(open).collect();
        (topic.subscriptions.is_empty() || !open.is_empty()).then_some(open)
    }

    /// The first message kept in one topic whose number is `from` or higher.
    pub(crate) fn next_of(&self, topic: &str, from: u64) -> Option<u64> {
        self.topics.get(topic)?.messages.next_seq(from)
    }

    /// The first messages kept in one topic of numbers in this range, until they are so many bytes.
    pub(crate) fn some_of(&self, topic: &str, seqs: Range<u64>, most: u64) -> Vec<u64> {
        let (mut some, mut bytes, mut next) = (Vec::new(), 0, seqs.start);
        while bytes < most
            && let Some(seq) = self.next_of(topic, next).filter(|seq| *seq < seqs.end)
            && let Some(stored) = self.topics.get(topic).and_then(|of| of.messages.find(seq))
        {
            bytes += u64::from(stored.len);
            some.push(seq);
            next = seq + 1;
        }
        some
    }

    /// Where subscriptions stand, as records that make older ones of them needless: those behind `after`, which is a
    /// subscription and the number up to which it is told, with up to `max` open messages in all. Returns what to go on
    /// behind, unless it was everything. Burials of which the log knows already, though they have not happened yet, are
    /// `under_way`: their records come before these.
    pub(crate) fn standings(
        &self,
        after: (SubId, u64),
        max: usize,
        under_way: &BTreeSet<(SubId, u64)>,
    ) -> (Vec<Record>, Option<(SubId, u64)>) {
        let (mut records, mut left) = (Vec::new(), max);
        for (id, standing) in self.subscriptions.range(after.0..) {
            let Some(topic) = self.topics.get(&standing.topic) else {
                continue;
            };
            let start = if *id == after.0 { after.1 } else { 0 };
            // Also what it has not come to, where that is not in the log under its own number: should damage take the copy, it is
            // known what is missing.
            let told = standing.cursor().max(self.copies.home());
            if start > 0 && start >= told {
                continue;
            }
            if left == 0 {
                return (records, Some((*id, start)));
            }
            let (end, mut open) = standing.snapshot(start, told, left, &topic.messages);
            // Names take as much as some messages do.
            let names = (standing.topic.len() + standing.name.len()) / 8 + 1;
            left = left.saturating_sub(open.len() + names);
            open.retain(|(seq, _)| !under_way.contains(&(*id, *seq)));
            records.push(Record::Standing {
                id: *id,
                topic: standing.topic.to_string(),
                name: standing.name.to_string(),
                part: start..end,
                open: Run::of(open),
            });
            if end < told {
                return (records, Some((*id, end)));
            }
        }
        (records, None)
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let topics: usize = self.topics.values().map(|topic| topic.messages.memory()).sum();
        topics + self.subscriptions.values().map(Standing::memory).sum::<usize>()
    }

    /// The log knows of a subscription of this number.
    pub(crate) fn see_id(&mut self, id: SubId) {
        self.last_id = self.last_id.max(id);
    }

    pub(crate) fn stats(&self) -> BTreeMap<String, TopicStats> {
        let stats = |(name, topic): (&Arc<str>, &Topic)| {
            let of = |(name, id): (&Arc<str>, &SubId)| {
                let standing = self.subscriptions.get(id)?;
                Some((name.to_string(), standing.stats(&topic.messages)))
            };
            let stats = TopicStats {
                messages: topic.messages.len(),
                bytes: topic.messages.bytes,
                subscriptions: topic.subscriptions.iter().filter_map(of).collect(),
            };
            (name.to_string(), stats)
        };
        self.topics.iter().map(stats).collect()
    }
}

/// Keeps known when a subscription has something to do, which was `before`, and which of its messages are dying.
fn track(
    id: SubId,
    standing: &mut Standing,
    before: (Option<Tick>, Option<WallTime>),
    (ends, dues, dying): (&mut Ends, &mut Dues, &mut Vec<Dying>),
) {
    move_timer(ends, id, before.0, standing.next_end());
    move_timer(dues, id, before.1, standing.next_due());
    if standing.has_dying() {
        let died = standing.dying().into_iter();
        dying.extend(died.map(|(seq, attempts)| Dying { id, seq, attempts }));
    }
}

fn move_timer<T: Ord>(timers: &mut BTreeSet<(T, SubId)>, id: SubId, before: Option<T>, after: Option<T>) {
    if before != after {
        before.map(|at| timers.remove(&(at, id)));
        after.map(|at| timers.insert((at, id)));
    }
}

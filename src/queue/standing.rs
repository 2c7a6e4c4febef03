//! Where one subscription stands: which messages it has been given, which it has settled, and what comes next.

use super::agenda::Agenda;
use super::kept::{Kept, LEVELS};
use super::keys::Keys;
use super::lane::{Lane, Next, Phase, Slot, Turns};
use super::record::SubId;
use super::{Subscription, SubscriptionStats};
use crate::env::{Tick, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) use super::kept::Stored;

/// How long a message waits when it could not be made a dead letter.
const BURY_AGAIN: Duration = Duration::from_secs(1);
/// The most messages that are made ready at once for being due, so that nobody waits long for the lock.
const DUE_AT_ONCE: usize = 1_024;
/// The most messages that stand behind others of their keys; then nothing new is delivered.
const MAX_BLOCKED: usize = 1 << 20;

/// One subscription. It has a lane for each priority, and takes from them by turns; an ordered one takes whatever has
/// the lowest number, since the messages of a key may differ in priority.
///
/// Memory: 24 bytes for a message that is delivered and not settled, and 16 for the end of its lease or of its wait;
/// the same for one that is not due yet.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: SubId,
    pub(super) topic: Arc<str>,
    pub(super) name: Arc<str>,
    lease: Duration,
    max_attempts: u32,
    max_in_flight: usize,
    ordered: bool,
    /// Makes the generations of this life's deliveries unlike those of other lives and subscriptions.
    salt: u64,
    lanes: [Lane; LEVELS],
    turns: Turns,
    /// Empty unless ordered.
    keys: Keys,
    /// Ends of leases and of waits, in ticks.
    ends: Agenda<(u64, u64)>,
    /// When what is delayed is due, by the wall clock.
    dues: Agenda<(u64, u64)>,
    /// How many messages are in each phase.
    counts: [usize; 7],
    /// Messages delivered at least once and not settled: at most `max_in_flight`, unless that was lowered.
    in_flight: usize,
    /// Messages that have used up their attempts since somebody last asked.
    dying: Vec<u64>,
    /// Settled messages that may have held their keys.
    released: Vec<u64>,
    /// Everything before this is to be settled.
    through: u64,
    /// Messages that nobody got before their time was over.
    expired: u64,
}

/// A delivery as the heart decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) seq: u64,
    pub(super) attempt: u32,
    pub(super) generation: u64,
}

/// The delivery is no longer the holder's to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Standing {
    /// A subscription that gets messages from number `from` on.
    pub(super) fn new(id: SubId, topic: Arc<str>, name: Arc<str>, from: u64, salt: u64) -> Standing {
        let defaults = Subscription::new("", "");
        Standing {
            id,
            topic,
            name,
            lease: defaults.lease,
            max_attempts: defaults.max_attempts,
            max_in_flight: defaults.max_in_flight,
            ordered: false,
            salt: salt.wrapping_add(u64::from(id) << 32),
            lanes: std::array::from_fn(|_| Lane::new(from)),
            turns: Turns::default(),
            keys: Keys::default(),
            ends: Agenda::new(),
            dues: Agenda::new(),
            counts: [0; 7],
            in_flight: 0,
            dying: Vec::new(),
            released: Vec::new(),
            through: 0,
            expired: 0,
        }
    }

    /// Follows what its latest subscriber wants.
    pub(super) fn configure(&mut self, wanted: &Subscription, messages: &Kept) {
        (self.lease, self.max_attempts) = (wanted.lease, wanted.max_attempts);
        self.max_in_flight = wanted.max_in_flight;
        for seq in self.open_where(|slot| slot.phase == Phase::Ready && slot.attempts >= wanted.max_attempts) {
            self.make_ready(seq);
        }
        if self.ordered != wanted.ordered {
            self.ordered = wanted.ordered;
            match self.ordered {
                true => self.begin_order(messages),
                false => self.end_order(),
            }
        }
    }

    /// Leases up to `max` messages. Within a priority they are in the order of their numbers.
    pub(super) fn take(&mut self, now: Tick, wall: WallTime, messages: &Kept, max: usize) -> Vec<Lease> {
        let wall = wall.as_millis();
        let until = (now + self.lease).as_nanos();
        let mut leases = Vec::new();
        while leases.len() < max
            && let Some((level, next)) = self.choose(wall, messages)
        {
            leases.push(self.lease(level, next, until, messages));
        }
        leases
    }

    /// Whether a consumer that asked now might get something.
    pub(super) fn has_more(&self, messages: &Kept) -> bool {
        (0..LEVELS).any(|level| self.next(level, messages).is_some())
    }

    /// The next message to deliver. What cannot be delivered on the way there is passed over.
    fn choose(&mut self, wall: u64, messages: &Kept) -> Option<(usize, Next)> {
        if self.ordered {
            loop {
                let nexts = (0..LEVELS).filter_map(|level| Some((level, self.next(level, messages)?)));
                let (level, next) = nexts.min_by_key(|(_, next)| next.seq())?;
                if self.is_time_for(level, next, wall, messages) {
                    return Some((level, next));
                }
            }
        }
        let nexts: [Option<Next>; LEVELS] = std::array::from_fn(|level| {
            loop {
                let next = self.next(level, messages)?;
                if self.is_time_for(level, next, wall, messages) {
                    return Some(next);
                }
            }
        });
        let level = self.turns.next(nexts.map(|next| next.is_some()))?;
        nexts[level].map(|next| (level, next))
    }

    fn next(&self, level: usize, messages: &Kept) -> Option<Next> {
        let room = self.in_flight < self.max_in_flight;
        let next = self.lanes[level].next(room, messages.level(level))?;
        let is_new = matches!(next, Next::New(..));
        (!is_new || self.count(Phase::Blocked) < MAX_BLOCKED).then_some(next)
    }

    /// Whether a message can be delivered now. If not, it is put where it no longer comes next.
    fn is_time_for(&mut self, level: usize, next: Next, wall: u64, messages: &Kept) -> bool {
        let of_level = messages.level(level);
        if of_level.is_plain() {
            return true;
        }
        let (stored, is_new) = match next {
            Next::New(_, index) => (of_level.get(index), true),
            Next::Again(seq) | Next::Fresh(seq) => (of_level.find(seq), false),
        };
        let Some(stored) = stored else { return true };
        let seq = stored.seq;
        if stored.has_expired(wall) {
            self.expired += 1;
            match next {
                Next::New(seq, index) => self.lanes[level].pass(seq, index, of_level),
                Next::Again(_) | Next::Fresh(_) => self.settle(seq, messages),
            }
            return false;
        }
        if is_new && self.ordered && stored.key != 0 && self.keys.is_held(stored.key) {
            self.open(level, next, Slot::new(seq, Phase::Blocked, 0), messages);
            self.line_up(stored.key, seq);
            return false;
        }
        if stored.due > wall && !matches!(next, Next::Again(_)) {
            match is_new {
                true => self.open_holding(level, next, Slot::new(seq, Phase::Delayed, stored.due), messages),
                false => self.shift(level, seq, Phase::Delayed, stored.due),
            }
            return false;
        }
        true
    }

    fn lease(&mut self, level: usize, next: Next, until: u64, messages: &Kept) -> Lease {
        let seq = next.seq();
        let attempt = match next {
            Next::New(..) => {
                let leased = Slot {
                    attempts: 1,
                    ..Slot::new(seq, Phase::Leased, until)
                };
                self.open_holding(level, next, leased, messages);
                1
            }
            Next::Again(_) | Next::Fresh(_) => self
                .change(level, seq, |slot| {
                    (slot.phase, slot.at) = (Phase::Leased, until);
                    slot.attempts = slot.attempts.saturating_add(1);
                    slot.attempts
                })
                .expect("what is ready is open"),
        };
        Lease {
            seq,
            attempt,
            generation: self.generation(attempt),
        }
    }

    /// What tells a delivery from all others of its message: within this life the attempt does.
    fn generation(&self, attempt: u32) -> u64 {
        self.salt.wrapping_add(u64::from(attempt))
    }

    /// A message has come that is not due yet. Puts it where it waits for that, if nothing that came before it is ahead;
    /// otherwise it is found there.
    pub(super) fn await_due(&mut self, stored: &Stored, messages: &Kept) {
        let level = stored.priority as usize;
        let is_last = |of: usize| self.lanes[of].ahead(messages.level(of)) == usize::from(of == level);
        if (0..LEVELS).all(is_last)
            && self.count(Phase::Blocked) < MAX_BLOCKED
            && let Some(next) = self.lanes[level].at_cursor(messages.level(level))
        {
            self.is_time_for(level, next, 0, messages);
        }
    }

    /// Whether the cursor has not passed this message yet.
    pub(super) fn is_ahead(&self, stored: &Stored) -> bool {
        self.lanes[stored.priority as usize].cursor <= stored.seq
    }

    /// Whether a message of the topic is not settled.
    pub(super) fn wants(&self, stored: &Stored) -> bool {
        self.is_ahead(stored) || self.find(stored.seq).is_some()
    }

    /// Whether a message of the topic is not settled, and nobody has it.
    pub(super) fn is_undealt(&self, stored: &Stored) -> bool {
        let is_held = |slot: Slot| matches!(slot.phase, Phase::Leased | Phase::Burying);
        match self.find(stored.seq) {
            Some((_, slot)) => !is_held(slot),
            None => self.is_ahead(stored),
        }
    }

    /// The oldest message that is not settled.
    pub(super) fn oldest(&self, messages: &Kept) -> Option<u64> {
        let lanes = self.lanes.iter().enumerate();
        let first = |(level, lane): (usize, &Lane)| {
            let ahead = || lane.numbers_ahead(messages.level(level)).next();
            lane.slots().next().map(|slot| slot.seq).or_else(ahead)
        };
        lanes.filter_map(first).min()
    }

    /// Ends what is over by now; returns how many messages may be delivered for it.
    pub(super) fn expire(&mut self, now: Tick) -> usize {
        let mut freed = 0;
        while let Some((until, seq)) = self.ends.first()
            && until <= now.as_nanos()
        {
            self.make_ready(seq);
            freed += 1;
        }
        freed
    }

    /// Makes ready what is due, at most [`DUE_AT_ONCE`] messages; returns how many.
    pub(super) fn mature(&mut self, wall: WallTime) -> usize {
        let mut matured = 0;
        while matured < DUE_AT_ONCE
            && let Some((due, seq)) = self.dues.first()
            && due <= wall.as_millis()
        {
            self.make_ready(seq);
            matured += 1;
        }
        matured
    }

    /// The next time at which [`expire`](Standing::expire) has something to do.
    pub(super) fn next_end(&self) -> Option<Tick> {
        self.ends.first().map(|(until, _)| Tick::from_nanos(until))
    }

    /// The next time at which [`mature`](Standing::mature) has something to do.
    pub(super) fn next_due(&self) -> Option<WallTime> {
        self.dues.first().map(|(due, _)| WallTime::from_millis(due))
    }

    /// Settles a delivery for good.
    pub(super) fn ack(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.close(seq);
        Ok(())
    }

    /// Settles a delivery for good, and everything with a lower number.
    pub(super) fn ack_through(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.through = seq + 1;
        Ok(())
    }

    /// Has a message delivered again at `until`.
    pub(super) fn retry(&mut self, seq: u64, generation: u64, until: Tick) -> Result<(), Lost> {
        let (level, attempts) = self.held(seq, generation)?;
        match attempts >= self.max_attempts {
            true => self.make_ready(seq),
            false => self.shift(level, seq, Phase::Waiting, until.as_nanos()),
        }
        Ok(())
    }

    /// Has a message delivered again at once.
    pub(super) fn release(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.make_ready(seq);
        Ok(())
    }

    /// Takes back a lease that never reached anybody: its attempt does not count.
    pub(super) fn unlease(&mut self, seq: u64, generation: u64) {
        if let Ok((level, _)) = self.held(seq, generation) {
            self.change(level, seq, |slot| {
                slot.attempts -= 1;
                (slot.phase, slot.at) = (Phase::Ready, 0);
            });
        }
    }

    /// Lets a lease last until `until`.
    pub(super) fn extend(&mut self, seq: u64, generation: u64, until: Tick) -> Result<(), Lost> {
        let (level, _) = self.held(seq, generation)?;
        self.shift(level, seq, Phase::Leased, until.as_nanos());
        Ok(())
    }

    /// Begins to make a delivered message a dead letter, and says how often it was delivered.
    pub(super) fn bury(&mut self, seq: u64, generation: u64) -> Result<u32, Lost> {
        let (level, attempts) = self.held(seq, generation)?;
        self.shift(level, seq, Phase::Burying, 0);
        Ok(attempts)
    }

    /// Gives up making a message a dead letter for now. It waits, and then is delivered or buried as its attempts say.
    pub(super) fn unbury(&mut self, seq: u64, now: Tick) {
        if let Some((level, slot)) = self.find(seq).filter(|(_, slot)| slot.phase == Phase::Burying) {
            self.shift(level, slot.seq, Phase::Waiting, (now + BURY_AGAIN).as_nanos());
        }
    }

    /// Messages that have used up their attempts, with their number; they count as being buried from now on.
    pub(super) fn dying(&mut self) -> Vec<(u64, u32)> {
        let dying = std::mem::take(&mut self.dying).into_iter();
        dying
            .filter_map(|seq| Some((seq, self.find(seq)?.1.attempts)))
            .collect()
    }

    /// The message's copy is among the dead letters.
    pub(super) fn buried(&mut self, seq: u64) {
        self.close(seq);
    }

    /// The message is settled, or no longer there.
    pub(super) fn settle(&mut self, seq: u64, messages: &Kept) {
        if let Some((_, slot)) = self.find(seq).filter(|(_, slot)| slot.phase == Phase::Blocked) {
            self.leave_line(slot, messages);
        }
        self.close(seq);
        self.tend(messages);
    }

    /// Settles a message whose time is over, unless somebody has it or may have it soon. Says whether it is settled.
    pub(super) fn settle_expired(&mut self, stored: &Stored, messages: &Kept) -> bool {
        match self.find(stored.seq) {
            None if !self.is_ahead(stored) => return true,
            // Whoever has it may still be in time, and a wait for a retry ends by itself.
            Some((_, slot)) if matches!(slot.phase, Phase::Leased | Phase::Waiting | Phase::Burying) => return false,
            Some(_) => self.settle(stored.seq, messages),
            None => {}
        }
        self.expired += 1;
        true
    }

    /// Finishes what a settlement began, now that the messages are at hand. The next one of a key becomes ready here.
    pub(super) fn tend(&mut self, messages: &Kept) {
        if self.through > 0 {
            let through = std::mem::take(&mut self.through);
            self.settle_before(through, messages);
        }
        while let Some(seq) = self.released.pop() {
            let key = messages.find(seq).map_or(0, |stored| stored.key);
            if key != 0 && self.keys.release(key) {
                self.call_next(key);
            }
        }
    }

    fn settle_before(&mut self, end: u64, messages: &Kept) {
        // In order, so that whoever is called from a line is settled next.
        for seq in self.open_where(|slot| slot.seq < end) {
            self.settle(seq, messages);
        }
        for lane in &mut self.lanes {
            lane.cursor = lane.cursor.max(end);
        }
    }

    /// Every message of this level before this is settled.
    pub(super) fn floor(&self, level: usize) -> u64 {
        self.lanes[level].floor()
    }

    /// What [`Record::Standing`](super::record::Record::Standing) says: in a lane that is behind, what is ahead is open.
    pub(super) fn snapshot(&self, messages: &Kept) -> (u64, Vec<(u64, u32)>) {
        let cursor = self.cursor();
        let mut open = Vec::with_capacity(self.lanes.iter().map(Lane::live).sum());
        for (level, lane) in self.lanes.iter().enumerate() {
            open.extend(lane.slots().map(|slot| (slot.seq, slot.attempts)));
            let ahead = lane.numbers_ahead(messages.level(level));
            open.extend(ahead.take_while(|seq| *seq < cursor).map(|seq| (seq, 0)));
        }
        open.sort_unstable();
        (cursor, open)
    }

    fn cursor(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.cursor).max().unwrap_or(0)
    }

    pub(super) fn stats(&self, messages: &Kept) -> SubscriptionStats {
        let lanes = self.lanes.iter().enumerate();
        let ahead: usize = lanes.map(|(level, lane)| lane.ahead(messages.level(level))).sum();
        SubscriptionStats {
            backlog: ahead + self.lanes.iter().map(Lane::live).sum::<usize>(),
            ready: ahead + self.count(Phase::Ready),
            in_flight: self.count(Phase::Leased),
            waiting: self.count(Phase::Waiting) + self.count(Phase::Burying),
            delayed: self.count(Phase::Delayed),
            blocked: self.count(Phase::Blocked),
            lag: self.oldest(messages).map_or(0, |oldest| messages.count_from(oldest)),
            expired: self.expired,
            ..SubscriptionStats::default()
        }
    }

    fn count(&self, phase: Phase) -> usize {
        self.counts[phase as usize]
    }
}

/// Order by key.
impl Standing {
    /// Puts an open message in the line of its key, at the end.
    fn line_up(&mut self, key: u64, seq: u64) {
        let before = self.keys.line_up(key, seq);
        if let Some((level, before)) = before.and_then(|before| self.find(before)) {
            self.change(level, before.seq, |slot| slot.at = seq);
        }
    }

    /// Nobody holds the key: the first in its line does now, and is ready.
    fn call_next(&mut self, key: u64) {
        let Some((first, last)) = self.keys.line(key) else {
            return;
        };
        let second = self.find(first).map_or(0, |(_, slot)| slot.at);
        self.keys.set_line(key, second, if second == 0 { 0 } else { last });
        self.keys.hold(key);
        self.make_ready(first);
    }

    /// Takes a message out of the line of its key.
    fn leave_line(&mut self, gone: Slot, messages: &Kept) {
        let key = messages.find(gone.seq).map_or(0, |stored| stored.key);
        let Some((first, last)) = self.keys.line(key) else {
            return;
        };
        let (mut before, mut at) = (0, first);
        while at != gone.seq {
            let Some((_, slot)) = self.find(at) else { return };
            (before, at) = (at, slot.at);
        }
        match self.find(before) {
            Some((level, _)) => {
                self.change(level, before, |slot| slot.at = gone.at);
                self.keys
                    .set_line(key, first, if last == gone.seq { before } else { last });
            }
            None => self
                .keys
                .set_line(key, gone.at, if last == gone.seq { 0 } else { last }),
        }
    }

    /// From now on messages of one key go one after the other. What has been delivered already cannot be called back.
    fn begin_order(&mut self, messages: &Kept) {
        // All lanes at one place: what is passed over in one may be of the same key as what is open in another.
        self.pass_all(self.cursor(), messages);
        for seq in self.open_where(|_| true) {
            let Some((level, slot)) = self.find(seq) else { continue };
            match messages.find(seq).map_or(0, |stored| stored.key) {
                0 => {}
                key if !self.keys.is_held(key) || matches!(slot.phase, Phase::Leased | Phase::Burying) => {
                    self.keys.hold(key);
                }
                key => {
                    self.shift(level, seq, Phase::Blocked, 0);
                    self.line_up(key, seq);
                }
            }
        }
    }

    fn end_order(&mut self) {
        self.keys.clear();
        for seq in self.open_where(|slot| slot.phase == Phase::Blocked) {
            self.make_ready(seq);
        }
    }
}

/// Replay.
impl Standing {
    /// A message was delivered, says the log.
    pub(super) fn replay_delivered(&mut self, seq: u64, attempt: u32, messages: &Kept) {
        self.pass_one(seq, messages);
        if let Some((level, _)) = self.find(seq) {
            self.change(level, seq, |slot| {
                slot.attempts = slot.attempts.max(attempt);
                (slot.phase, slot.at) = (Phase::Ready, 0);
            });
        }
    }

    /// A message was acknowledged, says the log.
    pub(super) fn replay_acked(&mut self, seq: u64, messages: &Kept) {
        self.pass_one(seq, messages);
        self.settle(seq, messages);
    }

    /// A message and everything before it was acknowledged, says the log.
    pub(super) fn replay_acked_through(&mut self, seq: u64, messages: &Kept) {
        self.settle_before(seq + 1, messages);
    }

    /// The subscription stood so, says the log: what is settled here or there is settled.
    pub(super) fn replay_standing(&mut self, cursor: u64, open: &[(u64, u32)], messages: &Kept) {
        self.pass_all(cursor, messages);
        let theirs: BTreeMap<u64, u32> = open.iter().copied().collect();
        for seq in self.open_where(|slot| slot.seq < cursor) {
            match theirs.get(&seq) {
                None => self.settle(seq, messages),
                Some(0) => {}
                Some(attempts) => self.replay_delivered(seq, *attempts, messages),
            }
        }
    }

    /// Moves the cursor of a message's lane past it.
    fn pass_one(&mut self, seq: u64, messages: &Kept) {
        if let Some(stored) = messages.find(seq) {
            self.pass(stored.priority as usize, seq + 1, messages);
        }
    }

    fn pass_all(&mut self, end: u64, messages: &Kept) {
        (0..LEVELS).for_each(|level| self.pass(level, end, messages));
    }

    /// Moves a lane's cursor; whatever it passes is open. What was to be delivered at a time counts as delayed, until
    /// somebody looks at the clock.
    fn pass(&mut self, level: usize, end: u64, messages: &Kept) {
        let of_level = messages.level(level);
        while let Some(next @ Next::New(seq, index)) = self.lanes[level].at_cursor(of_level)
            && seq < end
        {
            let slot = match of_level.get(index).map_or(0, |stored| stored.due) {
                0 => Slot::new(seq, Phase::Ready, 0),
                due => Slot::new(seq, Phase::Delayed, due),
            };
            self.open(level, next, slot, messages);
        }
        let lane = &mut self.lanes[level];
        lane.cursor = lane.cursor.max(end);
    }
}

/// Slots and what is known of them.
impl Standing {
    /// The level and the attempts of a message that is leased under `generation`.
    fn held(&self, seq: u64, generation: u64) -> Result<(usize, u32), Lost> {
        match self.find(seq) {
            Some((level, slot)) if slot.phase == Phase::Leased && self.generation(slot.attempts) == generation => {
                Ok((level, slot.attempts))
            }
            _ => Err(Lost),
        }
    }

    fn find(&self, seq: u64) -> Option<(usize, Slot)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(level, lane)| Some((level, *lane.get(seq)?))).next()
    }

    /// The open messages of which something is true, in order.
    fn open_where(&self, is: impl Fn(&Slot) -> bool) -> Vec<u64> {
        let slots = self.lanes.iter().flat_map(Lane::slots);
        let mut seqs: Vec<u64> = slots.filter(|slot| is(slot)).map(|slot| slot.seq).collect();
        seqs.sort_unstable();
        seqs
    }

    /// Has a message delivered when its turn comes, or buried if its attempts are used up.
    fn make_ready(&mut self, seq: u64) {
        let Some((level, slot)) = self.find(seq) else { return };
        if slot.attempts >= self.max_attempts {
            self.shift(level, seq, Phase::Burying, 0);
            self.dying.push(seq);
        } else {
            self.shift(level, seq, Phase::Ready, 0);
        }
    }

    /// Opens the message at a cursor, and has it hold its key.
    fn open_holding(&mut self, level: usize, next: Next, slot: Slot, messages: &Kept) {
        self.open(level, next, slot, messages);
        if self.ordered
            && let Next::New(_, index) = next
            && let Some(key) = messages.level(level).get(index).map(|stored| stored.key)
            && key != 0
        {
            self.keys.hold(key);
        }
    }

    /// Opens the message at a cursor.
    fn open(&mut self, level: usize, next: Next, slot: Slot, messages: &Kept) {
        let Next::New(seq, index) = next else { return };
        self.lanes[level].pass(seq, index, messages.level(level));
        self.lanes[level].open(slot);
        self.enter(level, slot);
    }

    fn shift(&mut self, level: usize, seq: u64, phase: Phase, at: u64) {
        self.change(level, seq, |slot| (slot.phase, slot.at) = (phase, at));
    }

    /// Changes a slot and whatever keeps track of it.
    fn change<T>(&mut self, level: usize, seq: u64, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let slot = self.lanes[level].get_mut(seq)?;
        let before = *slot;
        let result = change(slot);
        let after = *slot;
        self.enter(level, after);
        self.leave(level, before);
        Some(result)
    }

    /// Settles a message, which has left its line before if it was in one.
    fn close(&mut self, seq: u64) {
        let Some((level, before)) = self.find(seq) else { return };
        self.lanes[level].close(seq);
        self.leave(level, before);
        if self.ordered && before.phase != Phase::Blocked {
            self.released.push(seq);
        }
    }

    fn enter(&mut self, level: usize, slot: Slot) {
        self.counts[slot.phase as usize] += 1;
        self.in_flight += usize::from(slot.attempts > 0);
        match slot.phase {
            Phase::Ready => self.lanes[level].add_ready(slot),
            Phase::Leased | Phase::Waiting => self.ends.add((slot.at, slot.seq)),
            Phase::Delayed => self.dues.add((slot.at, slot.seq)),
            Phase::Burying | Phase::Blocked | Phase::Settled => {}
        }
    }

    /// A slot is no longer as it was before.
    fn leave(&mut self, level: usize, before: Slot) {
        self.counts[before.phase as usize] -= 1;
        self.in_flight -= usize::from(before.attempts > 0);
        let lanes = &mut self.lanes;
        let get = |lanes: &[Lane; LEVELS], seq| lanes.iter().find_map(|lane| lane.get(seq).copied());
        match before.phase {
            Phase::Ready => lanes[level].cancel_ready(before),
            Phase::Leased | Phase::Waiting => self.ends.cancel(|(at, seq)| {
                let is_timed = |slot: Slot| matches!(slot.phase, Phase::Leased | Phase::Waiting);
                get(lanes, seq).is_some_and(|slot| is_timed(slot) && slot.at == at)
            }),
            Phase::Delayed => self
                .dues
                .cancel(|(at, seq)| get(lanes, seq).is_some_and(|slot| slot.phase == Phase::Delayed && slot.at == at)),
            Phase::Burying | Phase::Blocked | Phase::Settled => {}
        }
    }
}

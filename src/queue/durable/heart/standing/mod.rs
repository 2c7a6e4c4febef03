//! Where one subscription stands: which messages it has been given, which it has settled, and what comes next.

mod order;
mod replay;
mod slots;

use super::super::record::SubId;
use super::agenda::Agenda;
use super::kept::{Kept, LEVELS};
use super::keys::Keys;
use super::lane::{Lane, Next, Phase, Slot, Turns};
use crate::env::{Tick, WallTime};
use crate::queue::{Subscription, SubscriptionStats};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use super::kept::Stored;

/// A generation is a life's salt, and above these bits the subscription's number, and below them the attempt's.
pub(crate) const ATTEMPT_BITS: u32 = u32::BITS;
/// How long a message waits when it could not be made a dead letter.
const BURY_AGAIN: Duration = Duration::from_secs(1);
/// The most messages that are made ready at once for being due, so that nobody waits long for the lock.
const DUE_AT_ONCE: usize = 1_024;
/// The most messages that are passed over in one go, for the same reason: they are not due yet, or over, or behind others of
/// their keys.
const PASSED_AT_ONCE: usize = 1_024;
/// The most messages that stand behind others of their keys; then nothing new is delivered.
const MAX_BLOCKED: usize = 1 << 20;

/// One subscription. It has a lane for each priority, and takes from them by turns; an ordered one takes whatever has
/// the lowest number, since the messages of a key may differ in priority.
///
/// Memory: 24 bytes for a message that is delivered and not settled, and 16 for the end of its lease or of its wait;
/// the same for one that is not due yet.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) topic: Arc<str>,
    pub(crate) name: Arc<str>,
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
pub(crate) struct Lease {
    pub(crate) seq: u64,
    pub(crate) attempt: u32,
    pub(crate) generation: u64,
}

/// Deliveries that a consumer gets.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) leases: Vec<Lease>,
    /// Whether to ask again at once, without waiting for anything.
    pub(crate) more: bool,
}

/// What comes next.
enum Choice {
    Deliver(usize, Next),
    Nothing,
    /// So much was passed over that others are to have the lock first.
    Enough,
}

/// Counts one more message that was passed over.
fn may_go_on(passed: &mut usize) -> bool {
    *passed += 1;
    *passed < PASSED_AT_ONCE
}

/// The delivery is no longer the holder's to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl Standing {
    /// A subscription that gets messages from number `from` on.
    pub(crate) fn new(id: SubId, topic: Arc<str>, name: Arc<str>, from: u64, salt: u64) -> Standing {
        let defaults = Subscription::new("", "");
        Standing {
            topic,
            name,
            lease: defaults.lease,
            max_attempts: defaults.max_attempts,
            max_in_flight: defaults.max_in_flight,
            ordered: false,
            salt: salt.wrapping_add(u64::from(id) << ATTEMPT_BITS),
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
    pub(crate) fn configure(&mut self, wanted: &Subscription, messages: &Kept) {
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

    /// Leases up to `max` messages. Within a priority they are in the order of their numbers. After passing over
    /// [`PASSED_AT_ONCE`] messages it stops, and says that there may be more.
    pub(crate) fn take(&mut self, now: Tick, wall: WallTime, messages: &Kept, max: usize) -> Taken {
        let wall = wall.as_millis();
        let until = (now + self.lease).as_nanos();
        let mut taken = Taken::default();
        let (mut passed, mut empty) = (0, [false; LEVELS]);
        while taken.leases.len() < max {
            match self.choose(wall, messages, &mut passed, &mut empty) {
                Choice::Deliver(level, next) => taken.leases.push(self.lease(level, next, until, messages)),
                Choice::Nothing => break,
                Choice::Enough => {
                    taken.more = true;
                    break;
                }
            }
        }
        taken
    }

    /// Whether a consumer that asked now might get something.
    pub(crate) fn has_more(&self, messages: &Kept) -> bool {
        (0..LEVELS).any(|level| self.next(level, messages).is_some())
    }

    /// The next message to deliver. What cannot be delivered on the way there is passed over. Levels found to be `empty`
    /// are so until more messages come.
    fn choose(&mut self, wall: u64, messages: &Kept, passed: &mut usize, empty: &mut [bool; LEVELS]) -> Choice {
        if self.ordered {
            loop {
                let nexts = (0..LEVELS).filter_map(|level| Some((level, self.next(level, messages)?)));
                let Some((level, next)) = nexts.min_by_key(|(_, next)| next.seq()) else {
                    return Choice::Nothing;
                };
                if self.is_time_for(level, next, wall, messages) {
                    return Choice::Deliver(level, next);
                }
                if !may_go_on(passed) {
                    return Choice::Enough;
                }
            }
        }
        let mut nexts = [None; LEVELS];
        let levels = nexts.iter_mut().zip(empty).enumerate();
        for (level, (first, empty)) in levels.filter(|(_, (_, empty))| !**empty) {
            while let Some(next) = self.next(level, messages) {
                if self.is_time_for(level, next, wall, messages) {
                    *first = Some(next);
                    break;
                }
                if !may_go_on(passed) {
                    return Choice::Enough;
                }
            }
            // Without room it may only look so.
            *empty = first.is_none() && self.in_flight < self.max_in_flight;
        }
        let level = self.turns.next(nexts.map(|next| next.is_some()));
        let choice = level.and_then(|level| Some(Choice::Deliver(level, nexts[level]?)));
        choice.unwrap_or(Choice::Nothing)
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
    pub(crate) fn await_due(&mut self, stored: &Stored, messages: &Kept) {
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
    pub(crate) fn is_ahead(&self, stored: &Stored) -> bool {
        self.lanes[stored.priority as usize].cursor <= stored.seq
    }

    /// Whether a message of the topic is not settled.
    pub(crate) fn wants(&self, stored: &Stored) -> bool {
        self.is_ahead(stored) || self.find(stored.seq).is_some()
    }

    /// How often a message of the topic was delivered, if it is not settled.
    pub(crate) fn attempts(&self, stored: &Stored) -> Option<u32> {
        match self.find(stored.seq) {
            Some((_, slot)) => Some(slot.attempts),
            None => self.is_ahead(stored).then_some(0),
        }
    }

    /// How often a message was delivered that is open.
    pub(crate) fn tries(&self, seq: u64) -> Option<u32> {
        self.find(seq).map(|(_, slot)| slot.attempts)
    }

    /// Messages that are not settled.
    pub(crate) fn backlog(&self, messages: &Kept) -> usize {
        let lanes = self.lanes.iter().enumerate();
        lanes
            .map(|(level, lane)| lane.ahead(messages.level(level)) + lane.live())
            .sum()
    }

    /// Whether a message of the topic is not settled, and nobody has it.
    pub(crate) fn is_undealt(&self, stored: &Stored) -> bool {
        let is_held = |slot: Slot| matches!(slot.phase, Phase::Leased | Phase::Burying);
        match self.find(stored.seq) {
            Some((_, slot)) => !is_held(slot),
            None => self.is_ahead(stored),
        }
    }

    /// How many messages have been delivered and are not settled.
    pub(crate) fn tried(&self) -> usize {
        self.in_flight
    }

    /// The oldest message that is not settled.
    pub(crate) fn oldest(&self, messages: &Kept) -> Option<u64> {
        let lanes = self.lanes.iter().enumerate();
        let first = |(level, lane): (usize, &Lane)| {
            let ahead = || lane.numbers_ahead(0, messages.level(level)).next();
            lane.slots().next().map(|slot| slot.seq).or_else(ahead)
        };
        lanes.filter_map(first).min()
    }

    /// Ends what is over by now; returns how many messages may be delivered for it.
    pub(crate) fn expire(&mut self, now: Tick) -> usize {
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
    pub(crate) fn mature(&mut self, wall: WallTime) -> usize {
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
    pub(crate) fn next_end(&self) -> Option<Tick> {
        self.ends.first().map(|(until, _)| Tick::from_nanos(until))
    }

    /// The next time at which [`mature`](Standing::mature) has something to do.
    pub(crate) fn next_due(&self) -> Option<WallTime> {
        self.dues.first().map(|(due, _)| WallTime::from_millis(due))
    }

    /// Settles a delivery for good.
    pub(crate) fn ack(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        let (level, slot) = self.held_slot(seq, generation)?;
        self.close_slot(level, slot);
        Ok(())
    }

    /// Settles a delivery for good, and everything with a lower number.
    pub(crate) fn ack_through(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.through = seq + 1;
        Ok(())
    }

    /// Has a message delivered again at `until`.
    pub(crate) fn retry(&mut self, seq: u64, generation: u64, until: Tick) -> Result<(), Lost> {
        let (level, attempts) = self.held(seq, generation)?;
        match attempts >= self.max_attempts {
            true => self.make_ready(seq),
            false => self.shift(level, seq, Phase::Waiting, until.as_nanos()),
        }
        Ok(())
    }

    /// Has a message delivered again at once.
    pub(crate) fn release(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.make_ready(seq);
        Ok(())
    }

    /// Takes back a lease that never reached anybody: its attempt does not count.
    pub(crate) fn unlease(&mut self, seq: u64, generation: u64) {
        if let Ok((level, _)) = self.held(seq, generation) {
            self.change(level, seq, |slot| {
                slot.attempts -= 1;
                (slot.phase, slot.at) = (Phase::Ready, 0);
            });
        }
    }

    /// Lets a lease last until `until`.
    pub(crate) fn extend(&mut self, seq: u64, generation: u64, until: Tick) -> Result<(), Lost> {
        let (level, _) = self.held(seq, generation)?;
        self.shift(level, seq, Phase::Leased, until.as_nanos());
        Ok(())
    }

    /// Has a delivery's lease begin anew.
    pub(crate) fn renew(&mut self, seq: u64, generation: u64, now: Tick) -> Result<(), Lost> {
        self.extend(seq, generation, now + self.lease)
    }

    /// Begins to make a delivered message a dead letter, and says how often it was delivered.
    pub(crate) fn bury(&mut self, seq: u64, generation: u64) -> Result<u32, Lost> {
        let (level, attempts) = self.held(seq, generation)?;
        self.shift(level, seq, Phase::Burying, 0);
        Ok(attempts)
    }

    /// Gives up making a message a dead letter for now. It waits, and then is delivered or buried as its attempts say.
    pub(crate) fn unbury(&mut self, seq: u64, now: Tick) {
        if let Some((level, slot)) = self.find(seq).filter(|(_, slot)| slot.phase == Phase::Burying) {
            self.shift(level, slot.seq, Phase::Waiting, (now + BURY_AGAIN).as_nanos());
        }
    }

    pub(crate) fn has_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// Messages that have used up their attempts, with their number; they count as being buried from now on.
    pub(crate) fn dying(&mut self) -> Vec<(u64, u32)> {
        let dying = std::mem::take(&mut self.dying).into_iter();
        dying
            .filter_map(|seq| Some((seq, self.find(seq)?.1.attempts)))
            .collect()
    }

    /// The message's copy is among the dead letters.
    pub(crate) fn buried(&mut self, seq: u64) {
        self.close(seq);
    }

    /// The message is settled, or no longer there.
    pub(crate) fn settle(&mut self, seq: u64, messages: &Kept) {
        if let Some((_, slot)) = self.find(seq).filter(|(_, slot)| slot.phase == Phase::Blocked) {
            self.leave_line(slot, messages);
        }
        self.close(seq);
        self.tend(messages);
    }

    /// Whether a message can be taken away when its time is over: whoever has it may still be in time, and a wait for a
    /// retry ends by itself.
    pub(crate) fn can_expire(&self, seq: u64) -> bool {
        let is_in_use = |slot: Slot| matches!(slot.phase, Phase::Leased | Phase::Waiting | Phase::Burying);
        !self.find(seq).is_some_and(|(_, slot)| is_in_use(slot))
    }

    /// Settles a message whose time is over and which the topic is about to forget.
    pub(crate) fn settle_expired(&mut self, stored: &Stored, messages: &Kept) {
        self.expired += u64::from(self.wants(stored));
        self.settle(stored.seq, messages);
    }

    /// Whether a settlement has begun what [`tend`](Standing::tend) finishes.
    pub(crate) fn is_untended(&self) -> bool {
        self.through > 0 || !self.released.is_empty()
    }

    /// Finishes what a settlement began, now that the messages are at hand. The next one of a key becomes ready here.
    pub(crate) fn tend(&mut self, messages: &Kept) {
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
    pub(crate) fn floor(&self, level: usize) -> u64 {
        self.lanes[level].floor()
    }

    /// A part of what [`Record::Standing`](super::record::Record::Standing) says: the first `max` messages from number
    /// `from` on that are open, with their attempts, and the number before which that is all, which is `end` or lower. In a
    /// lane that is behind, what is ahead is open.
    pub(crate) fn snapshot(&self, from: u64, end: u64, max: usize, messages: &Kept) -> (u64, Vec<(u64, u32)>) {
        let mut open = Vec::new();
        for (level, lane) in self.lanes.iter().enumerate() {
            let slots = lane.slots_from(from).map(|slot| (slot.seq, slot.attempts));
            open.extend(slots.take(max + 1));
            let ahead = lane.numbers_ahead(from, messages.level(level));
            let ahead = ahead.take_while(|seq| *seq < end).map(|seq| (seq, 0));
            open.extend(ahead.take(max + 1));
        }
        open.sort_unstable();
        match open.get(max) {
            Some((beyond, _)) => {
                let end = *beyond;
                open.truncate(max);
                (end, open)
            }
            None => (end, open),
        }
    }

    /// Everything before this is settled or open, but for lanes that are behind.
    pub(crate) fn cursor(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.cursor).max().unwrap_or(0)
    }

    pub(crate) fn stats(&self, messages: &Kept) -> SubscriptionStats {
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

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let lanes: usize = self.lanes.iter().map(Lane::memory).sum();
        lanes + self.ends.memory() + self.dues.memory() + self.keys.memory()
    }

    fn count(&self, phase: Phase) -> usize {
        self.counts[phase as usize]
    }
}

//! Where one subscription stands: which messages it has been given, which it has settled, and what comes next.

use super::record::SubId;
use super::{Priority, Subscription, SubscriptionStats};
use crate::env::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long a message waits when it could not be made a dead letter.
const BURY_AGAIN: Duration = Duration::from_secs(1);

/// A message that a topic keeps. 16 bytes of memory each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) seq: u64,
    /// Bytes of its entry.
    pub(super) len: u32,
    pub(super) priority: Priority,
    /// When it may be delivered, in milliseconds since 1970; 0 is at once.
    pub(super) due: u64,
    /// When it is no longer worth delivering, in milliseconds since 1970; 0 is never.
    pub(super) expires: u64,
    /// A keyed hash of its key; 0 is none.
    pub(super) key: u64,
}

/// One subscription. Every message before the cursor is either settled or in `open`; the cursor moves over messages in
/// their order.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: SubId,
    pub(super) topic: Arc<str>,
    pub(super) name: Arc<str>,
    lease: Duration,
    max_attempts: u32,
    max_in_flight: usize,
    cursor: u64,
    /// At most `max_in_flight`, unless that was lowered.
    open: BTreeMap<u64, Open>,
    /// Those of `open` that may be delivered again.
    ready: BTreeSet<u64>,
    /// Ends of leases and of waits, in order.
    timers: BTreeSet<(Tick, u64)>,
    /// Those of `open` that have used up their attempts since somebody last asked.
    dying: Vec<u64>,
    leased: usize,
}

/// A message before the cursor that is not settled for good. About 100 bytes of memory each.
#[derive(Clone, Copy, Debug)]
struct Open {
    attempts: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    Leased {
        generation: u64,
        until: Tick,
    },
    Waiting {
        until: Tick,
    },
    /// On its way to the dead letters.
    Burying,
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
    pub(super) fn new(id: SubId, topic: Arc<str>, name: Arc<str>, from: u64) -> Standing {
        let defaults = Subscription::new("", "");
        Standing {
            id,
            topic,
            name,
            lease: defaults.lease,
            max_attempts: defaults.max_attempts,
            max_in_flight: defaults.max_in_flight,
            cursor: from,
            open: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            dying: Vec::new(),
            leased: 0,
        }
    }

    /// Follows what its latest subscriber wants.
    pub(super) fn configure(&mut self, wanted: &Subscription) {
        (self.lease, self.max_attempts) = (wanted.lease, wanted.max_attempts);
        self.max_in_flight = wanted.max_in_flight;
        let ready = std::mem::take(&mut self.ready);
        ready.into_iter().for_each(|seq| self.make_ready(seq));
    }

    /// Leases up to `max` messages: those to be delivered again first, then the next ones of the topic.
    pub(super) fn take(
        &mut self,
        now: Tick,
        messages: &VecDeque<Stored>,
        max: usize,
        generation: &mut u64,
    ) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < max {
            let Some(seq) = self.ready.pop_first().or_else(|| self.advance(messages)) else {
                break;
            };
            *generation = generation.wrapping_add(1);
            leases.push(self.lease(now, seq, *generation));
        }
        leases
    }

    pub(super) fn has_more(&self, messages: &VecDeque<Stored>) -> bool {
        let next = || messages.back().is_some_and(|stored| stored.seq >= self.cursor);
        !self.ready.is_empty() || (self.open.len() < self.max_in_flight && next())
    }

    /// Moves the cursor over the next message, if one more may be in flight.
    fn advance(&mut self, messages: &VecDeque<Stored>) -> Option<u64> {
        if self.open.len() >= self.max_in_flight {
            return None;
        }
        let next = messages.partition_point(|stored| stored.seq < self.cursor);
        let seq = messages.get(next)?.seq;
        self.cursor = seq + 1;
        self.open.insert(seq, Open::new(0));
        Some(seq)
    }

    fn lease(&mut self, now: Tick, seq: u64, generation: u64) -> Lease {
        let until = now + self.lease;
        let open = self.open.get_mut(&seq).expect("what is ready is open");
        open.attempts = open.attempts.saturating_add(1);
        open.phase = Phase::Leased { generation, until };
        self.timers.insert((until, seq));
        self.leased += 1;
        Lease {
            seq,
            attempt: open.attempts,
            generation,
        }
    }

    /// Ends what is over by `now`; returns how many messages may be delivered again for it.
    pub(super) fn expire(&mut self, now: Tick) -> usize {
        let mut freed = 0;
        while let Some(&(until, seq)) = self.timers.first()
            && until <= now
        {
            self.leave_phase(seq);
            self.make_ready(seq);
            freed += 1;
        }
        freed
    }

    /// The next time at which [`expire`](Standing::expire) has something to do.
    pub(super) fn next_timer(&self) -> Option<Tick> {
        self.timers.first().map(|(until, _)| *until)
    }

    /// Settles a delivery for good.
    pub(super) fn ack(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.forget(seq);
        Ok(())
    }

    /// Has a message delivered again at `until`.
    pub(super) fn retry(&mut self, seq: u64, generation: u64, until: Tick) -> Result<(), Lost> {
        let attempts = self.held(seq, generation)?;
        self.leave_phase(seq);
        if attempts >= self.max_attempts {
            self.make_ready(seq);
        } else {
            self.set(seq, Phase::Waiting { until });
            self.timers.insert((until, seq));
        }
        Ok(())
    }

    /// Has a message delivered again at once.
    pub(super) fn release(&mut self, seq: u64, generation: u64) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.leave_phase(seq);
        self.make_ready(seq);
        Ok(())
    }

    /// Takes back a lease that never reached anybody: its attempt does not count.
    pub(super) fn unlease(&mut self, seq: u64, generation: u64) {
        if self.held(seq, generation).is_ok() {
            self.leave_phase(seq);
            if let Some(open) = self.open.get_mut(&seq) {
                open.attempts -= 1;
                open.phase = Phase::Ready;
                self.ready.insert(seq);
            }
        }
    }

    /// Lets a lease last until `until`.
    pub(super) fn extend(&mut self, seq: u64, generation: u64, until: Tick) -> Result<(), Lost> {
        self.held(seq, generation)?;
        self.leave_phase(seq);
        self.set(seq, Phase::Leased { generation, until });
        self.timers.insert((until, seq));
        self.leased += 1;
        Ok(())
    }

    /// Begins to make a delivered message a dead letter, and says how often it was delivered.
    pub(super) fn bury(&mut self, seq: u64, generation: u64) -> Result<u32, Lost> {
        let attempts = self.held(seq, generation)?;
        self.leave_phase(seq);
        self.set(seq, Phase::Burying);
        Ok(attempts)
    }

    /// Gives up making a message a dead letter for now. It waits, and then is delivered or buried as its attempts say.
    pub(super) fn unbury(&mut self, seq: u64, now: Tick) {
        if self.open.get(&seq).is_some_and(|open| open.phase == Phase::Burying) {
            let until = now + BURY_AGAIN;
            self.set(seq, Phase::Waiting { until });
            self.timers.insert((until, seq));
        }
    }

    /// Messages that have used up their attempts, with their number; they count as being buried from now on.
    pub(super) fn dying(&mut self) -> Vec<(u64, u32)> {
        let dying = std::mem::take(&mut self.dying);
        dying
            .into_iter()
            .filter_map(|seq| Some((seq, self.open.get(&seq)?.attempts)))
            .collect()
    }

    /// The message is settled, or no longer there.
    pub(super) fn forget(&mut self, seq: u64) {
        self.leave_phase(seq);
        self.open.remove(&seq);
    }

    /// Whether a message is still to be settled.
    pub(super) fn is_unsettled(&self, seq: u64) -> bool {
        seq >= self.cursor || self.open.contains_key(&seq)
    }

    /// Whether somebody holds a message.
    pub(super) fn is_leased(&self, seq: u64) -> bool {
        let open = self.open.get(&seq);
        open.is_some_and(|open| matches!(open.phase, Phase::Leased { .. } | Phase::Burying))
    }

    /// Every message before this is settled.
    pub(super) fn floor(&self) -> u64 {
        self.open.first_key_value().map_or(self.cursor, |(seq, _)| *seq)
    }

    /// What [`Record::Standing`](super::record::Record::Standing) says.
    pub(super) fn snapshot(&self) -> (u64, Vec<(u64, u32)>) {
        let open = self.open.iter().map(|(seq, open)| (*seq, open.attempts)).collect();
        (self.cursor, open)
    }

    pub(super) fn stats(&self, messages: &VecDeque<Stored>) -> SubscriptionStats {
        let undelivered = messages.len() - messages.partition_point(|stored| stored.seq < self.cursor);
        SubscriptionStats {
            backlog: undelivered + self.open.len(),
            ready: undelivered + self.ready.len(),
            in_flight: self.leased,
            waiting: self.open.len() - self.ready.len() - self.leased,
            ..SubscriptionStats::default()
        }
    }

    /// A message was delivered, says the log.
    pub(super) fn replay_delivered(&mut self, seq: u64, attempt: u32, messages: &VecDeque<Stored>) {
        self.pass(seq, messages);
        if let Some(open) = self.open.get_mut(&seq) {
            open.attempts = open.attempts.max(attempt);
        }
    }

    /// A message was acknowledged, says the log.
    pub(super) fn replay_acked(&mut self, seq: u64, messages: &VecDeque<Stored>) {
        self.pass(seq, messages);
        self.forget(seq);
    }

    /// The subscription stood so, says the log: what is settled here or there is settled.
    pub(super) fn replay_standing(&mut self, cursor: u64, open: &[(u64, u32)], messages: &VecDeque<Stored>) {
        if let Some(last) = cursor.checked_sub(1) {
            self.pass(last, messages);
        }
        let theirs: BTreeMap<u64, u32> = open.iter().copied().collect();
        let settled: Vec<u64> = self.open.range(..cursor).map(|(seq, _)| *seq).collect();
        for seq in settled {
            match theirs.get(&seq) {
                Some(attempts) => self.replay_delivered(seq, *attempts, messages),
                None => self.forget(seq),
            }
        }
    }

    /// Moves the cursor past `seq`; whatever it passes is open, and ready.
    fn pass(&mut self, seq: u64, messages: &VecDeque<Stored>) {
        let first = messages.partition_point(|stored| stored.seq < self.cursor);
        let passed = messages.range(first..).take_while(|stored| stored.seq <= seq);
        for stored in passed {
            self.open.insert(stored.seq, Open::new(0));
            self.ready.insert(stored.seq);
        }
        self.cursor = self.cursor.max(seq + 1);
    }

    /// The attempts of a message that is leased under `generation`.
    fn held(&self, seq: u64, generation: u64) -> Result<u32, Lost> {
        match self.open.get(&seq) {
            Some(&Open {
                attempts,
                phase: Phase::Leased { generation: held, .. },
            }) if held == generation => Ok(attempts),
            _ => Err(Lost),
        }
    }

    /// Takes a message out of whatever keeps track of its phase.
    fn leave_phase(&mut self, seq: u64) {
        match self.open.get(&seq).map(|open| open.phase) {
            Some(Phase::Leased { until, .. }) => {
                self.leased -= 1;
                self.timers.remove(&(until, seq));
            }
            Some(Phase::Waiting { until }) => drop(self.timers.remove(&(until, seq))),
            Some(Phase::Ready) => drop(self.ready.remove(&seq)),
            Some(Phase::Burying) | None => {}
        }
    }

    fn make_ready(&mut self, seq: u64) {
        let used_up = self
            .open
            .get(&seq)
            .is_some_and(|open| open.attempts >= self.max_attempts);
        if used_up {
            self.set(seq, Phase::Burying);
            self.dying.push(seq);
        } else {
            self.set(seq, Phase::Ready);
            self.ready.insert(seq);
        }
    }

    fn set(&mut self, seq: u64, phase: Phase) {
        if let Some(open) = self.open.get_mut(&seq) {
            open.phase = phase;
        }
    }
}

impl Open {
    fn new(attempts: u32) -> Open {
        Open {
            attempts,
            phase: Phase::Ready,
        }
    }
}

//! The leases that this process holds: the pure heart of fencing.
//!
//! A server gives a message out again when its own limit has passed, and takes an acknowledgement from whoever sends one. So
//! the lease is kept here: it ends earlier than the server's limit, by [`slack`], and what comes later is refused before
//! it is sent.

use crate::env::Tick;
use crate::queue::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How much longer than the lease the server waits: what a message takes to get here, and a settlement to get there, has to
/// fit into it.
pub(super) fn slack(lease: Duration) -> Duration {
    (lease / 4).clamp(Duration::from_millis(500), Duration::from_secs(5))
}

/// A message that somebody here may settle.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) topic: Arc<str>,
    pub(super) subscription: Arc<str>,
    pub(super) seq: u64,
    pub(super) attempt: u32,
    pub(super) max_attempts: u32,
    pub(super) lease: Duration,
    /// Where the server takes its settlement.
    pub(super) reply: Arc<str>,
    pub(super) message: Message,
}

impl Held {
    /// Whether no attempt is left after this one.
    pub(super) fn is_last(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

/// What has to be told to the server now.
#[derive(Debug)]
pub(super) enum Due {
    /// The lease goes on, and the server's limit would not.
    Renew(Arc<str>),
    /// The lease has ended.
    Ended(Box<Held>),
}

#[derive(Debug)]
struct Lease {
    held: Held,
    ends: Tick,
    /// When the server was last told, or told us.
    renewed: Tick,
}

impl Lease {
    /// When something has to be done about it: its end, or the next renewal where the server would end it before.
    fn timer(&self) -> Tick {
        match self.ends <= self.renewed + self.held.lease {
            true => self.ends,
            false => self.renewed + self.held.lease / 2,
        }
    }
}

/// The leases by generation, which no other delivery of this process ever has.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<u64, Lease>,
    timers: BTreeSet<(Tick, u64)>,
    last: u64,
}

/// A table whose generations come after `last`.
impl From<u64> for Leases {
    fn from(last: u64) -> Leases {
        Leases {
            last,
            ..Leases::default()
        }
    }
}

impl Leases {
    /// Begins a lease.
    pub(super) fn grant(&mut self, now: Tick, held: Held) -> u64 {
        self.last += 1;
        let lease = Lease {
            ends: now + held.lease,
            renewed: now,
            held,
        };
        self.timers.insert((lease.timer(), self.last));
        self.held.insert(self.last, lease);
        self.last
    }

    /// Ends a lease that is on, by settling it: what was held, and until when the server takes what it is told.
    pub(super) fn take(&mut self, now: Tick, generation: u64) -> Option<(Held, Tick)> {
        if self.held.get(&generation)?.ends <= now {
            return None;
        }
        let lease = self.held.remove(&generation)?;
        self.timers.remove(&(lease.timer(), generation));
        // Half of the slack is for the way back.
        let until = lease.renewed + lease.held.lease + slack(lease.held.lease) / 2;
        Some((lease.held, until))
    }

    /// The message of a lease that is on.
    pub(super) fn get(&self, now: Tick, generation: u64) -> Option<&Held> {
        let lease = self.held.get(&generation).filter(|lease| now < lease.ends)?;
        Some(&lease.held)
    }

    /// Has a lease that is on last until `ends`, now that the server was told. False when it has ended.
    pub(super) fn extend(&mut self, now: Tick, generation: u64, ends: Tick) -> bool {
        let Some(lease) = self.held.get_mut(&generation).filter(|lease| now < lease.ends) else {
            return false;
        };
        self.timers.remove(&(lease.timer(), generation));
        lease.ends = ends;
        lease.renewed = now;
        self.timers.insert((lease.timer(), generation));
        true
    }

    /// What is due, and when it was: each is told once.
    pub(super) fn due(&mut self, now: Tick) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some((at, generation)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, generation));
            let lease = self.held.get_mut(&generation);
            let lease = lease.expect("broken invariant: a timer is of a lease");
            if lease.ends <= now {
                due.extend(
                    self.held
                        .remove(&generation)
                        .map(|lease| Due::Ended(Box::new(lease.held))),
                );
                continue;
            }
            lease.renewed = now;
            due.push(Due::Renew(Arc::clone(&lease.held.reply)));
            self.timers.insert((lease.timer(), generation));
        }
        due
    }

    /// When [`due`](Leases::due) has something next.
    pub(super) fn next(&self) -> Option<Tick> {
        self.timers.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(lease: u64) -> Held {
        Held {
            topic: "t".into(),
            subscription: "s".into(),
            seq: 1,
            attempt: 1,
            max_attempts: 2,
            lease: Duration::from_nanos(lease),
            reply: "r".into(),
            message: Message::new(""),
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Grant(u64),
        Take(usize),
        Extend(usize, u64),
        Pass(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (2..50u64).prop_map(Op::Grant),
            (0..9usize).prop_map(Op::Take),
            (0..9usize, 0..200u64).prop_map(|(which, by)| Op::Extend(which, by)),
            (0..40u64).prop_map(Op::Pass),
        ]
    }

    /// The dumbest table: a list of (generation, lease, ends, renewed), all of it looked at each time.
    #[derive(Default)]
    struct Model(Vec<(u64, u64, u64, u64)>);

    proptest! {
        #[test]
        fn it_does_as_a_list_does(ops in prop::collection::vec(op(), 1..80)) {
            let (mut leases, mut model, mut now, mut given) = (Leases::default(), Model::default(), 0u64, Vec::new());
            for op in ops {
                let at = Tick::from_nanos(now);
                match op {
                    Op::Grant(lease) => {
                        let generation = leases.grant(at, held(lease));
                        prop_assert!(!given.contains(&generation), "no generation comes twice");
                        given.push(generation);
                        model.0.push((generation, lease, now + lease, now));
                    }
                    Op::Take(which) => {
                        let Some(generation) = given.get(which).copied() else { continue };
                        let on = model.0.iter().position(|known| known.0 == generation && now < known.2);
                        prop_assert_eq!(leases.get(at, generation).is_some(), on.is_some());
                        prop_assert_eq!(leases.take(at, generation).is_some(), on.is_some());
                        on.map(|index| model.0.remove(index));
                    }
                    Op::Extend(which, by) => {
                        let Some(generation) = given.get(which).copied() else { continue };
                        let on = model.0.iter_mut().find(|known| known.0 == generation && now < known.2);
                        let done = leases.extend(at, generation, Tick::from_nanos(now + by));
                        prop_assert_eq!(done, on.is_some());
                        if let Some(known) = on {
                            (known.2, known.3) = (now + by, now);
                        }
                    }
                    Op::Pass(by) => {
                        // As the keeper does: it wakes at each timer, so no renewal is late.
                        let until = now + by;
                        while let Some(next) = leases.next().map(Tick::as_nanos).filter(|next| *next <= until) {
                            now = now.max(next);
                            let due = leases.due(Tick::from_nanos(now));
                            prop_assert!(!due.is_empty());
                            let ended = due.iter().filter(|due| matches!(due, Due::Ended(_))).count();
                            let before = model.0.len();
                            model.0.retain(|known| now < known.2);
                            prop_assert_eq!(ended, before - model.0.len());
                            let mut renewed = 0;
                            for known in &mut model.0 {
                                if known.2 > known.3 + known.1 && known.3 + known.1 / 2 <= now {
                                    known.3 = now;
                                    renewed += 1;
                                }
                            }
                            prop_assert_eq!(due.len() - ended, renewed);
                        }
                        now = until;
                        for (_, lease, ends, renewed) in &model.0 {
                            prop_assert!(now < *ends, "what has ended is gone");
                            prop_assert!(now <= renewed + lease, "the server waits as long as the lease");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_late_settlement_gets_nothing() {
        let mut leases = Leases::default();
        let generation = leases.grant(Tick::ZERO, held(10));
        assert!(leases.take(Tick::from_nanos(10), generation).is_none());
        assert!(matches!(leases.due(Tick::from_nanos(10))[..], [Due::Ended(_)]));
        assert_eq!(leases.next(), None);
        let generation = leases.grant(Tick::from_nanos(20), held(10));
        assert!(leases.take(Tick::from_nanos(29), generation).is_some());
        assert!(leases.take(Tick::from_nanos(29), generation).is_none(), "once");
        assert!(leases.due(Tick::from_nanos(99)).is_empty());
    }
}

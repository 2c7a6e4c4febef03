use super::load::{Era, Totals};
use super::outlier::{OutlierEjection, Record};
use super::range::{Candidate, Panic, Plan, plan};
use super::slow_start::{SlowStart, weigh};
use super::sweep::Sample;
use super::{EndpointId, EndpointState, EndpointStatus, Load, Member, Subset};
use crate::env::{Rng, Tick};
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

/// Who belongs to a pool and which of them may be picked. Pure: time and chance are arguments.
///
/// `N` is what the pool hands out with an endpoint. At most [`most`](OutlierEjection::most) endpoints are ejected
/// after each [`settle`](Roster::settle).
pub(super) struct Roster<N> {
    seats: Vec<Seat<N>>,
    slots: Slots,
    rules: Rules,
    rng: Rng,
    /// When the samples of the interval were last looked at.
    swept: Tick,
    pub(super) ejections: u64,
}

/// What the user chose.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) outliers: Option<OutlierEjection>,
    pub(super) panic: Panic,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) subset: Option<Subset>,
    /// Whether zones are told apart.
    pub(super) zoned: bool,
}

/// An endpoint's place in the pool.
pub(super) struct Seat<N> {
    pub(super) member: Member,
    pub(super) load: Arc<Load>,
    pub(super) node: N,
    draining: bool,
    /// What active checks say; who is not checked is well.
    healthy: bool,
    /// False for what the subset leaves to other clients.
    used: bool,
    /// When it came into the range, if others were there before it.
    entered: Option<Tick>,
    record: Record,
    /// The counts as of the last sweep.
    counted: Totals,
}

/// The [slots](Load::slot) that nobody has.
#[derive(Default)]
struct Slots {
    next: u32,
    free: BinaryHeap<Reverse<u32>>,
}

impl Slots {
    fn take(&mut self) -> u32 {
        self.free.pop().map_or_else(
            || {
                self.next += 1;
                self.next - 1
            },
            |Reverse(slot)| slot,
        )
    }

    fn give_back(&mut self, load: &Load) {
        self.free.extend(load.leave().map(Reverse));
    }
}

impl<N> Roster<N> {
    pub(super) fn new(rules: Rules, rng: Rng, now: Tick) -> Roster<N> {
        Roster {
            seats: Vec::new(),
            slots: Slots::default(),
            rules,
            rng,
            swept: now,
            ejections: 0,
        }
    }

    /// Makes `set` the membership, in its order; the last of several with one id counts. What belongs to an id that
    /// stays is kept; `node` is made anew.
    pub(super) fn update<F: FnOnce(&Arc<Load>) -> N>(&mut self, set: impl IntoIterator<Item = (Member, F)>, now: Tick) {
        let entered = self.entry(now);
        let old = self.seats.drain(..).map(|seat| (seat.member.id().clone(), seat));
        let mut old: BTreeMap<EndpointId, Seat<N>> = old.collect();
        let mut places: BTreeMap<EndpointId, usize> = BTreeMap::new();
        for (member, node) in set {
            match places.entry(member.id().clone()) {
                Entry::Occupied(place) => self.seats[*place.get()].renew(member, node),
                Entry::Vacant(place) => {
                    place.insert(self.seats.len());
                    self.seats.push(match old.remove(member.id()) {
                        Some(mut seat) => {
                            seat.renew(member, node);
                            seat
                        }
                        None => Seat::new(member, self.slots.take(), node, entered),
                    });
                }
            }
        }
        old.values().for_each(|seat| self.slots.give_back(&seat.load));
        self.divide();
    }

    /// Adds an endpoint, or replaces the one of that id and keeps what belongs to the id.
    pub(super) fn add(&mut self, member: Member, node: impl FnOnce(&Arc<Load>) -> N, now: Tick) {
        let entered = self.entry(now);
        match self.find(member.id()) {
            Some(seat) => seat.renew(member, node),
            None => self.seats.push(Seat::new(member, self.slots.take(), node, entered)),
        }
        self.divide();
    }

    /// False when there is no such endpoint; so for the next four.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.seats.len();
        for seat in self.seats.extract_if(.., |seat| **seat.member.id() == *id) {
            self.slots.give_back(&seat.load);
        }
        self.divide();
        self.seats.len() < before
    }

    pub(super) fn drain(&mut self, id: &str) -> bool {
        let seat = self.find(id);
        let found = seat.map(|seat| seat.draining = true).is_some();
        self.divide();
        found
    }

    pub(super) fn enable(&mut self, id: &str, now: Tick) -> bool {
        let Some(seat) = self.find(id) else { return false };
        if seat.draining {
            seat.entered = Some(now);
        }
        seat.draining = false;
        seat.restore(now);
        seat.load.renew();
        self.divide();
        true
    }

    /// Notes what an active check says; true if that is news.
    pub(super) fn set_health(&mut self, id: &str, healthy: bool, now: Tick) -> Option<bool> {
        let seat = self.find(id)?;
        let news = seat.healthy != healthy;
        if news && healthy {
            seat.entered = Some(now);
            seat.load.renew();
        }
        seat.healthy = healthy;
        Some(news)
    }

    /// Ejects the endpoint that `load` belongs to, for a failure of a request of `era`. False when it does not come
    /// to that: it has left, is drained or ejected already, or too many are out.
    pub(super) fn eject(&mut self, load: &Arc<Load>, era: Era, now: Tick) -> bool {
        // Of two leases that both end the row, the second comes here in the era after.
        let seat = self.seats.iter().position(|seat| Arc::ptr_eq(&seat.load, load));
        seat.is_some_and(|i| load.is_current(era) && self.put_out(i, now))
    }

    fn put_out(&mut self, i: usize, now: Tick) -> bool {
        if !self.may_go(i) {
            return false;
        }
        let (Some(rules), seat) = (&self.rules.outliers, &mut self.seats[i]) else {
            return false;
        };
        seat.record.eject(rules, now, &mut self.rng);
        seat.load.renew();
        self.ejections += 1;
        true
    }

    /// Puts the endpoint of `load` out for `pause`, as it asked. False when it does not come to that.
    pub(super) fn pause(&mut self, load: &Arc<Load>, pause: Duration, now: Tick) -> bool {
        let seat = self.seats.iter().position(|seat| Arc::ptr_eq(&seat.load, load));
        let Some(i) = seat.filter(|&i| self.may_go(i)) else {
            return false;
        };
        let (Some(rules), seat) = (&self.rules.outliers, &mut self.seats[i]) else {
            return false;
        };
        seat.record.pause(rules, pause, now);
        true
    }

    /// Whether one that is in may be put out without too many being so.
    fn may_go(&self, i: usize) -> bool {
        let (usable, out) = count(&self.seats);
        let Some(rules) = &self.rules.outliers else {
            return false;
        };
        self.seats[i].state() == EndpointState::Active && out < rules.most(usable)
    }

    /// Ejects those that did worse than the others since the last sweep. True if there were any.
    pub(super) fn sweep(&mut self, now: Tick) -> bool {
        let Some(rules) = self.rules.outliers.clone() else {
            return false;
        };
        let stretch = now - self.swept;
        self.swept = now;
        let samples: Vec<Sample> = self.seats.iter_mut().map(Seat::sample).collect();
        if stretch >= rules.interval.saturating_mul(2) {
            return false;
        }
        let found = [
            rules
                .success_rate
                .as_ref()
                .map(|rule| (rule.outliers(&samples), rule.enforcement_percent)),
            rules
                .failure_percentage
                .as_ref()
                .map(|rule| (rule.outliers(&samples), rule.enforcement_percent)),
            rules
                .latency
                .as_ref()
                .map(|rule| (rule.outliers(&samples), rule.enforcement_percent)),
        ];
        let mut changed = false;
        for (outliers, percent) in found.into_iter().flatten() {
            for i in outliers {
                let enforced = self.rng.below(100) < u64::from(percent);
                changed |= enforced && self.put_out(i, now);
            }
        }
        changed
    }

    /// Lets back those whose time is over, and those that are too many now that others have left: of these the ones
    /// that were nearest to their return. True if any came back.
    pub(super) fn settle(&mut self, now: Tick) -> bool {
        let (usable, _) = count(&self.seats);
        let mut places = self.rules.outliers.as_ref().map_or(0, |rules| rules.most(usable));
        let mut ejected: Vec<_> = self
            .seats
            .iter_mut()
            .filter(|seat| seat.record.until.is_some())
            .collect();
        ejected.sort_by_key(|seat| seat.record.until);
        let mut changed = false;
        for seat in ejected.into_iter().rev() {
            let counts = seat.state() == EndpointState::Ejected;
            if seat.record.until <= Some(now) || (counts && places == 0) {
                seat.restore(now);
                changed = true;
            } else if counts {
                places -= 1;
            }
        }
        changed
    }

    /// Who may be picked, as positions of [`seats`](Self::seats).
    pub(super) fn plan(&self) -> Plan {
        let candidates: Vec<Candidate<'_>> = self
            .seats
            .iter()
            .map(|seat| Candidate {
                state: seat.state(),
                priority: seat.member.priority,
                zone: seat.member.zone.as_ref(),
            })
            .collect();
        plan(&candidates, self.rules.panic, self.rules.zoned)
    }

    pub(super) fn seats(&self) -> &[Seat<N>] {
        &self.seats
    }

    /// The members of `positions`, with the weights that they have at `now`.
    pub(super) fn members(&self, positions: &[usize], now: Tick) -> Vec<Member> {
        let share = |i: usize| Some(self.step(&self.seats[i], now)?.0);
        let anybody = positions.iter().any(|&i| share(i).is_some());
        let member = |&i: &usize| {
            let mut member = self.seats[i].member.clone();
            if anybody {
                member.weight = weigh(member.weight, share(i));
            }
            member
        };
        positions.iter().map(member).collect()
    }

    /// When the first of those ejected returns.
    pub(super) fn next_return(&self) -> Option<Tick> {
        let ejected = self.seats.iter().filter(|seat| seat.state() == EndpointState::Ejected);
        ejected.filter_map(|seat| seat.record.until).min()
    }

    /// When something changes by itself: one returns, or a share grows.
    pub(super) fn next_change(&self, now: Tick) -> Tick {
        let active = self.seats.iter().filter(|seat| seat.state() == EndpointState::Active);
        let grows = active.filter_map(|seat| Some(self.step(seat, now)?.1));
        grows.chain(self.next_return()).min().unwrap_or(Tick::MAX)
    }

    /// The share of one that is let in slowly, and when it grows.
    fn step(&self, seat: &Seat<N>, now: Tick) -> Option<(u32, Tick)> {
        self.rules.slow_start?.share(seat.entered?, now)
    }

    pub(super) fn status(&self, now: Tick) -> Vec<EndpointStatus> {
        self.seats.iter().map(|seat| seat.status(now)).collect()
    }

    pub(super) fn load(&self, id: &str) -> Option<&Arc<Load>> {
        let seat = self.seats.iter().find(|seat| **seat.member.id() == *id);
        seat.map(|seat| &seat.load)
    }

    fn find(&mut self, id: &str) -> Option<&mut Seat<N>> {
        self.seats.iter_mut().find(|seat| **seat.member.id() == *id)
    }

    /// When one that joins now entered: none for the first ones, who have nobody to take the load until they are warm.
    fn entry(&self, now: Tick) -> Option<Tick> {
        (!self.seats.is_empty()).then_some(now)
    }

    /// Marks the ones that this client uses.
    fn divide(&mut self) {
        let Some(subset) = self.rules.subset else { return };
        let takers = (0..self.seats.len()).filter(|&i| !self.seats[i].is_drained());
        let takers: Vec<usize> = takers.collect();
        let ids: Vec<&EndpointId> = takers.iter().map(|&i| self.seats[i].member.id()).collect();
        let used = subset.choose(&ids);
        self.seats.iter_mut().for_each(|seat| seat.used = false);
        for i in used {
            self.seats[takers[i]].used = true;
        }
    }
}

impl<N> Seat<N> {
    fn new(member: Member, slot: u32, node: impl FnOnce(&Arc<Load>) -> N, entered: Option<Tick>) -> Seat<N> {
        let load = Arc::new(Load::new(member.id().clone()).with_slot(slot));
        Seat {
            node: node(&load),
            member,
            load,
            draining: false,
            healthy: true,
            used: true,
            entered,
            record: Record::default(),
            counted: Totals::default(),
        }
    }

    fn renew(&mut self, member: Member, node: impl FnOnce(&Arc<Load>) -> N) {
        self.node = node(&self.load);
        self.member = member;
    }

    fn restore(&mut self, now: Tick) {
        if self.record.until.is_some() {
            self.record.restore(now);
            self.entered = Some(now);
        }
    }

    /// Whether it would take requests if it were well.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.state(), EndpointState::Ejected | EndpointState::Unhealthy)
    }

    /// Whether it is this client's at all.
    pub(super) fn is_used(&self) -> bool {
        self.state() != EndpointState::Unused
    }

    fn is_drained(&self) -> bool {
        self.draining || self.member.weight == 0
    }

    fn state(&self) -> EndpointState {
        if self.is_drained() {
            EndpointState::Draining
        } else if !self.used {
            EndpointState::Unused
        } else if !self.healthy {
            EndpointState::Unhealthy
        } else if self.record.until.is_some() {
            EndpointState::Ejected
        } else {
            EndpointState::Active
        }
    }

    /// What was counted since the last time; nothing of one that is not in the range.
    fn sample(&mut self) -> Sample {
        let totals = self.load.totals();
        let before = std::mem::replace(&mut self.counted, totals);
        if self.state() != EndpointState::Active {
            return Sample::default();
        }
        Sample {
            succeeded: totals.succeeded.saturating_sub(before.succeeded),
            failed: totals.failed.saturating_sub(before.failed),
            latency: totals.latency.wrapping_sub(before.latency),
            timed: totals.timed.saturating_sub(before.timed),
        }
    }

    fn status(&self, now: Tick) -> EndpointStatus {
        let state = self.state();
        let returns_in = |until: Tick| -> Duration { until - now };
        let totals = self.load.totals();
        EndpointStatus {
            id: self.member.id().clone(),
            weight: self.member.weight,
            zone: self.member.zone.as_deref().map(str::to_owned),
            priority: self.member.priority,
            state,
            returns_in: self
                .record
                .until
                .map(returns_in)
                .filter(|_| state == EndpointState::Ejected),
            in_flight: self.load.in_flight(),
            succeeded: totals.succeeded,
            failed: totals.failed,
            cancelled: totals.cancelled,
            ejections: self.record.ejections,
            check: None,
        }
    }
}

/// How many take requests or would if they did better, and how many of those are ejected.
fn count<N>(seats: &[Seat<N>]) -> (usize, usize) {
    let of = |state| seats.iter().filter(|seat| seat.state() == state).count();
    let out = of(EndpointState::Ejected);
    (of(EndpointState::Active) + out, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Endpoint, Failure, Outcome};

    const NOW: Tick = Tick::from_nanos(1_000_000_000_000);

    fn member(id: &str) -> Member {
        Member::from(&Endpoint::new(id))
    }

    fn roster(ids: &[&str], percent: u32) -> Roster<()> {
        let rules = Rules {
            outliers: Some(
                OutlierEjection::default()
                    .max_ejection_percent(percent)
                    .max_ejection_jitter(Duration::ZERO),
            ),
            ..Rules::default()
        };
        let mut roster = Roster::new(rules, Rng::seeded(1), NOW);
        roster.update(ids.iter().map(|id| (member(id), |_: &Arc<Load>| ())), NOW);
        roster
    }

    fn eject(roster: &mut Roster<()>, id: &str, now: Tick) -> bool {
        let load = Arc::clone(&roster.find(id).unwrap().load);
        let era = begin(&load);
        load.end(era, Outcome::Failure(Failure::Other), u32::MAX);
        roster.eject(&load, era, now)
    }

    fn begin(load: &Load) -> Era {
        load.begin().expect("there is room")
    }

    fn range(roster: &Roster<()>) -> Vec<&str> {
        let levels = roster.plan().levels;
        let members = levels.into_iter().flat_map(|level| level.members);
        members.map(|i| &**roster.seats()[i].member.id()).collect()
    }

    #[test]
    fn the_maximum_keeps_the_rest_in() {
        let mut roster = roster(&["a", "b", "c", "d"], 50);
        assert!(eject(&mut roster, "a", NOW));
        assert!(eject(&mut roster, "c", NOW));
        assert!(!eject(&mut roster, "b", NOW));
        assert_eq!(range(&roster), ["b", "d"]);
        assert_eq!(roster.ejections, 2);
    }

    #[test]
    fn those_nearest_to_their_return_come_back_when_others_leave() {
        let mut roster = roster(&["a", "b", "c", "d"], 50);
        eject(&mut roster, "b", NOW);
        eject(&mut roster, "a", NOW + Duration::from_secs(1));
        roster.remove("d");
        roster.settle(NOW + Duration::from_secs(2));
        assert_eq!(range(&roster), ["c"], "two of three is half, rounded up");
        roster.drain("c");
        roster.settle(NOW + Duration::from_secs(2));
        assert_eq!(range(&roster), ["b"]);
    }

    #[test]
    fn the_time_of_return_is_that_of_the_first() {
        let mut roster = roster(&["a", "b"], 100);
        eject(&mut roster, "b", NOW);
        eject(&mut roster, "a", NOW + Duration::from_secs(1));
        assert_eq!(roster.next_return(), Some(NOW + Duration::from_secs(30)));
        roster.settle(NOW + Duration::from_secs(30));
        assert_eq!(range(&roster), ["b"]);
        assert_eq!(roster.next_return(), Some(NOW + Duration::from_secs(31)));
    }

    #[test]
    fn a_lease_of_an_earlier_era_or_of_one_that_left_ejects_nobody() {
        let mut roster = roster(&["a", "b", "c", "d"], 100);
        let load = Arc::clone(&roster.find("a").unwrap().load);
        let era = begin(&load);
        assert!(roster.eject(&load, era, NOW));
        roster.enable("a", NOW);
        assert!(!roster.eject(&load, era, NOW));
        roster.remove("a");
        assert!(!roster.eject(&load, begin(&load), NOW));
        roster.add(member("a"), |_| (), NOW);
        assert!(
            !roster.eject(&load, begin(&load), NOW),
            "a new endpoint of the old name is another"
        );
        roster.drain("b");
        assert!(!eject(&mut roster, "b", NOW));
    }

    #[test]
    fn slots_are_kept_by_id_and_used_again() {
        let mut roster = roster(&["a", "b", "c"], 10);
        let slots = |roster: &Roster<()>| -> Vec<_> { roster.seats.iter().map(|seat| seat.load.slot()).collect() };
        assert_eq!(slots(&roster), [Some(0), Some(1), Some(2)]);
        let gone = Arc::clone(&roster.find("b").unwrap().load);
        roster.remove("b");
        assert_eq!(gone.slot(), None);
        roster.update(["c", "d", "e", "a"].map(|id| (member(id), |_: &Arc<Load>| ())), NOW);
        assert_eq!(slots(&roster), [Some(2), Some(1), Some(3), Some(0)]);
    }

    #[test]
    fn an_update_keeps_what_belongs_to_an_id() {
        let mut roster = roster(&["a", "b", "c"], 50);
        eject(&mut roster, "a", NOW);
        roster.drain("b");
        let load = Arc::clone(&roster.find("a").unwrap().load);
        begin(&load);
        let set = ["d", "b", "a", "d"].map(|id| (member(id), |_: &Arc<Load>| ()));
        roster.update(set, NOW);
        let status = roster.status(NOW);
        let states: Vec<_> = status.iter().map(|s| (&*s.id, s.state, s.in_flight)).collect();
        use EndpointState::{Active, Draining, Ejected};
        assert_eq!(states, [("d", Active, 0), ("b", Draining, 0), ("a", Ejected, 1)]);
    }
}

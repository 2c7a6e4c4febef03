use super::load::Era;
use super::outlier::{OutlierEjection, Record};
use super::{EndpointId, EndpointState, EndpointStatus, Load, Member, Outcome};
use crate::env::Tick;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

/// Who belongs to a pool and which of them may be picked. Pure: time is an argument.
///
/// `N` is what the pool hands out with an endpoint. At most [`most`](OutlierEjection::most) endpoints are ejected
/// after each [`settle`](Roster::settle).
pub(super) struct Roster<N> {
    seats: Vec<Seat<N>>,
    outliers: Option<OutlierEjection>,
    pub(super) ejections: u64,
}

/// An endpoint's place in the pool.
pub(super) struct Seat<N> {
    pub(super) member: Member,
    pub(super) load: Arc<Load>,
    pub(super) node: N,
    draining: bool,
    record: Record,
}

impl<N> Roster<N> {
    pub(super) fn new(outliers: Option<OutlierEjection>) -> Roster<N> {
        Roster {
            seats: Vec::new(),
            outliers,
            ejections: 0,
        }
    }

    /// Makes `set` the membership, in its order; the last of several with one id counts. What belongs to an id that
    /// stays is kept; `node` is made anew.
    pub(super) fn update<F: FnOnce(&Arc<Load>) -> N>(&mut self, set: impl IntoIterator<Item = (Member, F)>) {
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
                        None => Seat::new(member, node),
                    });
                }
            }
        }
    }

    /// Adds an endpoint, or replaces the one of that id and keeps what belongs to the id.
    pub(super) fn add(&mut self, member: Member, node: impl FnOnce(&Arc<Load>) -> N) {
        match self.find(member.id()) {
            Some(seat) => seat.renew(member, node),
            None => self.seats.push(Seat::new(member, node)),
        }
    }

    /// False when there is no such endpoint; so for the next two.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.seats.len();
        self.seats.retain(|seat| **seat.member.id() != *id);
        self.seats.len() < before
    }

    pub(super) fn drain(&mut self, id: &str) -> bool {
        let seat = self.find(id);
        seat.map(|seat| seat.draining = true).is_some()
    }

    pub(super) fn enable(&mut self, id: &str, now: Tick) -> bool {
        let Some(seat) = self.find(id) else { return false };
        seat.draining = false;
        seat.record.restore(now);
        seat.load.renew();
        true
    }

    /// Ejects the endpoint that `load` belongs to, for a failure of a request of `era`. False when it does not come
    /// to that: it has left, is drained or ejected already, or too many are out.
    pub(super) fn eject(&mut self, load: &Arc<Load>, era: Era, now: Tick) -> bool {
        let Some(rules) = &self.outliers else { return false };
        let (usable, out) = count(&self.seats);
        let mut seats = self.seats.iter_mut();
        let Some(seat) = seats.find(|seat| Arc::ptr_eq(&seat.load, load)) else {
            return false;
        };
        // Of two leases that both end the row, the second comes here in the era after.
        if seat.state() != EndpointState::Active || !load.is_current(era) || out >= rules.most(usable) {
            return false;
        }
        seat.record.eject(rules, now);
        seat.load.renew();
        self.ejections += 1;
        true
    }

    /// Lets back those whose time is over, and those that are too many now that others have left: of these the ones
    /// that were nearest to their return. True if any came back.
    pub(super) fn settle(&mut self, now: Tick) -> bool {
        let (usable, _) = count(&self.seats);
        let mut places = self.outliers.as_ref().map_or(0, |rules| rules.most(usable));
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
                seat.record.restore(now);
                changed = true;
            } else if counts {
                places -= 1;
            }
        }
        changed
    }

    /// Those that may be picked.
    pub(super) fn range(&self) -> impl Iterator<Item = &Seat<N>> {
        self.seats.iter().filter(|seat| seat.state() == EndpointState::Active)
    }

    /// When the first of those ejected returns.
    pub(super) fn next_return(&self) -> Option<Tick> {
        let ejected = self.seats.iter().filter(|seat| seat.state() == EndpointState::Ejected);
        ejected.filter_map(|seat| seat.record.until).min()
    }

    pub(super) fn status(&self, now: Tick) -> Vec<EndpointStatus> {
        self.seats.iter().map(|seat| seat.status(now)).collect()
    }

    fn find(&mut self, id: &str) -> Option<&mut Seat<N>> {
        self.seats.iter_mut().find(|seat| **seat.member.id() == *id)
    }
}

impl<N> Seat<N> {
    fn new(member: Member, node: impl FnOnce(&Arc<Load>) -> N) -> Seat<N> {
        let load = Arc::new(Load::new(member.id().clone()));
        Seat {
            node: node(&load),
            member,
            load,
            draining: false,
            record: Record::default(),
        }
    }

    fn renew(&mut self, member: Member, node: impl FnOnce(&Arc<Load>) -> N) {
        self.node = node(&self.load);
        self.member = member;
    }

    fn state(&self) -> EndpointState {
        if self.draining || self.member.weight == 0 {
            EndpointState::Draining
        } else if self.record.until.is_some() {
            EndpointState::Ejected
        } else {
            EndpointState::Active
        }
    }

    fn status(&self, now: Tick) -> EndpointStatus {
        let state = self.state();
        let returns_in = |until: Tick| -> Duration { until - now };
        EndpointStatus {
            id: self.member.id().clone(),
            weight: self.member.weight,
            zone: self.member.zone.as_deref().map(str::to_owned),
            state,
            returns_in: self
                .record
                .until
                .map(returns_in)
                .filter(|_| state == EndpointState::Ejected),
            in_flight: self.load.in_flight(),
            succeeded: self.load.count(Outcome::Success),
            failed: self.load.count(Outcome::Failure),
            cancelled: self.load.count(Outcome::Cancelled),
            ejections: self.record.ejections,
        }
    }
}

/// How many are not drained, and how many of those are ejected.
fn count<N>(seats: &[Seat<N>]) -> (usize, usize) {
    let of = |state| seats.iter().filter(|seat| seat.state() == state).count();
    let out = of(EndpointState::Ejected);
    (of(EndpointState::Active) + out, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Endpoint;

    const NOW: Tick = Tick::from_nanos(1_000_000_000_000);

    fn member(id: &str) -> Member {
        Member::from(&Endpoint::new(id))
    }

    fn roster(ids: &[&str], percent: u32) -> Roster<()> {
        let mut roster = Roster::new(Some(OutlierEjection::default().max_ejection_percent(percent)));
        roster.update(ids.iter().map(|id| (member(id), |_: &Arc<Load>| ())));
        roster
    }

    fn eject(roster: &mut Roster<()>, id: &str, now: Tick) -> bool {
        let load = Arc::clone(&roster.find(id).unwrap().load);
        let era = load.begin();
        load.end(era, Outcome::Failure, u32::MAX);
        roster.eject(&load, era, now)
    }

    fn range(roster: &Roster<()>) -> Vec<&str> {
        roster.range().map(|seat| &**seat.member.id()).collect()
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
        let era = load.begin();
        assert!(roster.eject(&load, era, NOW));
        roster.enable("a", NOW);
        assert!(!roster.eject(&load, era, NOW));
        roster.remove("a");
        assert!(!roster.eject(&load, load.begin(), NOW));
        roster.add(member("a"), |_| ());
        assert!(
            !roster.eject(&load, load.begin(), NOW),
            "a new endpoint of the old name is another"
        );
        roster.drain("b");
        assert!(!eject(&mut roster, "b", NOW));
    }

    #[test]
    fn an_update_keeps_what_belongs_to_an_id() {
        let mut roster = roster(&["a", "b", "c"], 50);
        eject(&mut roster, "a", NOW);
        roster.drain("b");
        let load = Arc::clone(&roster.find("a").unwrap().load);
        let _era = load.begin();
        let set = ["d", "b", "a", "d"].map(|id| (member(id), |_: &Arc<Load>| ()));
        roster.update(set);
        let status = roster.status(NOW);
        let states: Vec<_> = status.iter().map(|s| (&*s.id, s.state, s.in_flight)).collect();
        use EndpointState::{Active, Draining, Ejected};
        assert_eq!(states, [("d", Active, 0), ("b", Draining, 0), ("a", Ejected, 1)]);
    }
}

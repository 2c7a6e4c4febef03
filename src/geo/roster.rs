use super::atlas::{Atlas, Spot, Unlocated};
use super::latency::LatencyTable;
use super::spread::{Share, Site, loads, spread};
use super::{AllDown, Centre, CentreStatus, Error, Fallback, Locator, Overrides};
use crate::balance::{EndpointId, EndpointState, PoolStatus};
use crate::env::Tick;
use crate::hash::KeyedHash;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The time over which measured demand is averaged.
const AVERAGED_OVER: Duration = Duration::from_secs(10);

/// The data centres and what is known of each. Pure: time and counts are arguments.
pub(super) struct Roster {
    seats: Vec<Seat>,
    pub(super) overrides: Overrides,
    pub(super) latencies: LatencyTable,
    pub(super) locator: Option<Arc<dyn Locator>>,
    fallback: Fallback,
    all_down: AllDown,
    reach: f64,
    /// When the demand was last measured.
    measured: Option<Tick>,
}

/// A centre without its target.
#[derive(Clone)]
struct Seat {
    centre: Centre,
    healthy: bool,
    dial: f64,
    /// The part of its endpoints' weight that its pool can use.
    usable: f64,
    /// Requests a second, as the caller says.
    told: Option<f64>,
    measured: Option<f64>,
    /// What its clients had asked for when it was last measured.
    count: u64,
}

impl Roster {
    pub(super) fn new(fallback: Fallback, all_down: AllDown, reach: f64, latencies: LatencyTable) -> Roster {
        Roster {
            seats: Vec::new(),
            overrides: Overrides::default(),
            latencies,
            locator: None,
            fallback,
            all_down,
            reach,
            measured: None,
        }
    }

    /// Makes `set` the centres, in its order; what belongs to an id that stays is kept. The ids differ.
    pub(super) fn update(&mut self, set: impl IntoIterator<Item = Centre>) {
        let old = self.seats.drain(..).map(|seat| (seat.centre.id().clone(), seat));
        let mut old: BTreeMap<EndpointId, Seat> = old.collect();
        let seat = |centre: Centre| match old.remove(centre.id()) {
            Some(seat) => Seat { centre, ..seat },
            None => Seat::new(centre),
        };
        self.seats = set.into_iter().map(seat).collect();
        let ids = self.seats.iter().map(|seat| seat.centre.id().clone());
        self.latencies.arrange(ids.collect());
    }

    pub(super) fn position(&self, id: &str) -> Option<usize> {
        self.seats.iter().position(|seat| **seat.centre.id() == *id)
    }

    /// False when there is no such centre; so for the next three.
    pub(super) fn set_health(&mut self, id: &str, healthy: bool) -> bool {
        self.with(id, |seat| seat.healthy = healthy)
    }

    pub(super) fn report_pool(&mut self, id: &str, pool: &PoolStatus) -> bool {
        // What is outside of this client's subset is at the service of others.
        let counts = |state, usable| match usable {
            true => state == EndpointState::Active,
            false => state != EndpointState::Unused,
        };
        let weight = |usable| {
            let endpoints = pool.endpoints.iter().filter(|endpoint| counts(endpoint.state, usable));
            endpoints.map(|endpoint| f64::from(endpoint.weight)).sum::<f64>()
        };
        let (usable, all) = (weight(true), weight(false));
        self.with(id, |seat| {
            seat.healthy = usable > 0.0;
            seat.usable = if all > 0.0 { usable / all } else { 1.0 };
        })
    }

    pub(super) fn shift(&mut self, id: &str, share: f64) -> bool {
        self.with(id, |seat| seat.dial = share)
    }

    pub(super) fn set_demand(&mut self, id: &str, demand: Option<f64>) -> bool {
        self.with(id, |seat| seat.told = demand)
    }

    fn with(&mut self, id: &str, change: impl FnOnce(&mut Seat)) -> bool {
        let seat = self.seats.iter_mut().find(|seat| **seat.centre.id() == *id);
        seat.map(change).is_some()
    }

    /// Takes note of how many requests the clients of each centre have made by `now`.
    pub(super) fn measure(&mut self, now: Tick, counts: impl Iterator<Item = u64>) {
        let past = self.measured.map(|then| now - then);
        if past.is_some_and(|past| past.is_zero()) {
            return;
        }
        self.measured = Some(now);
        for (seat, count) in self.seats.iter_mut().zip(counts) {
            let more = count.wrapping_sub(seat.count);
            seat.count = count;
            let Some(past) = past.map(|past| past.as_secs_f64()) else {
                continue;
            };
            let rate = more as f64 / past;
            let gain = 1.0 - (-past / AVERAGED_OVER.as_secs_f64()).exp();
            seat.measured = Some(match seat.measured {
                Some(old) => old + (rate - old) * gain,
                None => rate,
            });
        }
    }

    /// Whether every client is at home, so that there is nothing to work out.
    pub(super) fn is_settled(&self) -> bool {
        let at_home = |seat: &Seat| seat.healthy && seat.dial() >= 1.0 && seat.demand() <= seat.capacity();
        self.seats.iter().all(at_home)
    }

    /// Where the clients of each centre go.
    pub(super) fn shares(&self) -> Vec<Share> {
        spread(&self.sites(), &self.demand(), self.reach)
    }

    /// Why no centre takes a request, when none does.
    pub(super) fn refusal(&self) -> Option<Error> {
        if self.sites().iter().any(Site::is_open) {
            None
        } else if self.seats.iter().any(|seat| seat.dial() > 0.0) {
            Some(Error::AllDown)
        } else {
            Some(Error::NoCentres)
        }
    }

    /// What routes read; `None` when no centre takes a request.
    pub(super) fn atlas(&self) -> Option<Atlas> {
        let sites = self.sites();
        if !sites.iter().any(Site::is_open) {
            return None;
        }
        let spot = |(seat, site): (&Seat, Site)| Spot {
            site,
            id: seat.centre.id().clone(),
            seed: KeyedHash::default().hash(seat.centre.id().as_bytes()),
            twins: Box::default(),
        };
        let spots = self.seats.iter().zip(sites).map(spot).collect();
        let rules = self.overrides.rules(|id| self.position(id).map(|place| place as u32));
        let mut atlas = Atlas::new(spots, self.shares().into(), rules, self.latencies.groups());
        atlas.locator.clone_from(&self.locator);
        atlas.unlocated = match &self.fallback {
            Fallback::Position(position) => Unlocated::At((*position).into()),
            Fallback::Centre(id) => self.position(id).map_or(Unlocated::Divided, Unlocated::Belong),
            Fallback::Divided => Unlocated::Divided,
        };
        Some(atlas)
    }

    /// The centres and, for each, what is routed to it.
    pub(super) fn status(&self, routed: impl Iterator<Item = u64>) -> Vec<CentreStatus> {
        let demand = self.demand();
        let planned = match self.refusal() {
            Some(_) => vec![0.0; demand.len()],
            None => loads(&self.shares(), &demand),
        };
        let seats = self.seats.iter().zip(demand).zip(planned).zip(routed);
        let status = seats.map(|(((seat, demand), planned), routed)| CentreStatus {
            id: seat.centre.id().clone(),
            position: seat.centre.position,
            weight: seat.centre.weight,
            capacity: seat.centre.capacity.map(|_| seat.capacity()),
            bias: seat.centre.bias,
            healthy: seat.healthy,
            share: seat.dial,
            demand,
            planned,
            routed,
        });
        status.collect()
    }

    pub(super) fn is_all_down(&self) -> bool {
        !self.seats.iter().any(|seat| seat.healthy && seat.dial() > 0.0)
    }

    pub(super) fn idle_overrides(&self) -> usize {
        self.overrides
            .centres()
            .filter(|id| self.position(id).is_none())
            .count()
    }

    fn demand(&self) -> Vec<f64> {
        self.seats.iter().map(Seat::demand).collect()
    }

    fn sites(&self) -> Vec<Site> {
        let all_up = self.all_down == AllDown::RouteAll && self.is_all_down();
        self.seats.iter().map(|seat| seat.site(all_up)).collect()
    }
}

impl Seat {
    fn new(centre: Centre) -> Seat {
        Seat {
            centre,
            healthy: true,
            dial: 1.0,
            usable: 1.0,
            told: None,
            measured: None,
            count: 0,
        }
    }

    fn dial(&self) -> f64 {
        if self.centre.weight == 0 { 0.0 } else { self.dial }
    }

    fn demand(&self) -> f64 {
        self.told.or(self.measured).unwrap_or(0.0)
    }

    fn capacity(&self) -> f64 {
        self.centre
            .capacity
            .map_or(f64::INFINITY, |all| f64::from(all) * self.usable)
    }

    fn site(&self, all_up: bool) -> Site {
        let bias = f64::from(self.centre.bias.clamp(-99, 99)) / 100.0;
        Site {
            point: self.centre.position.into(),
            scale: if bias > 0.0 { 1.0 - bias } else { 1.0 / (1.0 + bias) },
            weight: f64::from(self.centre.weight) * self.usable.max(f64::MIN_POSITIVE),
            capacity: self.capacity(),
            up: self.healthy || all_up,
            dial: self.dial(),
        }
    }
}

/// By how much of the clients of a centre a spread has to change before it is worth moving anyone: a twentieth.
const WORTH_IT: f64 = 0.05;

/// Whether clients would notice that `new` takes the place of `old`.
pub(super) fn is_worth_it(old: &[Share], new: &[Share]) -> bool {
    let differs = |(old, new): (&Share, &Share)| {
        let part = |share: &Share, centre: u32| {
            let found = share.others.iter().find(|(other, _)| *other == centre);
            found.map_or(0.0, |(_, part)| part * (1.0 - share.keep))
        };
        let centres = old.others.iter().chain(&new.others).map(|(centre, _)| *centre);
        let most = centres.map(|centre| (part(old, centre) - part(new, centre)).abs());
        most.fold((old.keep - new.keep).abs(), f64::max) > WORTH_IT
    };
    old.len() != new.len() || old.iter().zip(new).any(differs)
}

//! Which centre a client goes to. Pure: an atlas is drawn when something changes, and only read by routes.

use super::client::{Who, mix};
use super::latency::Groups;
use super::overrides::Rules;
use super::position::Point;
use super::spread::{Share, Site};
use super::{Client, Location, Locator, MOST_ROUTES, Reason};
use crate::balance::EndpointId;
use crate::env::Tick;
use core::net::IpAddr;
use std::sync::Arc;

/// Centres nearer to each other than this are one place, whose clients their weights divide: kilometres.
const SAME_PLACE: f64 = 1.0;

/// What tells the draws of one client for one centre apart.
const STAYS: u64 = 0x5851_f42d_4c95_7f2d;

/// Where clients go of which nobody knows where they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unlocated {
    /// They are taken to be here.
    At(Point),
    /// They belong to this centre.
    Belong(usize),
    /// The weights divide them.
    Divided,
}

/// A centre on the atlas.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) site: Site,
    pub(super) id: EndpointId,
    /// What its name stands for in the draws of clients.
    pub(super) seed: u64,
    /// The centres in the same place, itself included; none when it is alone there.
    pub(super) twins: Box<[u32]>,
}

/// The centres and all that decides among them, at one moment.
pub(super) struct Atlas {
    pub(super) spots: Box<[Spot]>,
    /// Where the spots are and what distances to them are multiplied by, close together: every route looks at all.
    beacons: Box<[(Point, f64)]>,
    is_biased: bool,
    pub(super) shares: Box<[Share]>,
    pub(super) rules: Rules,
    pub(super) groups: Groups,
    pub(super) unlocated: Unlocated,
    pub(super) locator: Option<Arc<dyn Locator>>,
}

/// Where a client goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    /// The centre whose client it is.
    pub(super) home: usize,
    /// The centre that gets it.
    pub(super) centre: usize,
    pub(super) reason: Reason,
    /// How many leading bits of the address it holds for.
    pub(super) scope: Option<u8>,
    /// Where the client is, if that was asked.
    location: Option<Location>,
}

/// A few centres, in their order.
pub(super) type Few = ([usize; MOST_ROUTES], usize);

impl Atlas {
    /// An atlas of these centres, of which at least one is open, and of what decides among them.
    pub(super) fn new(mut spots: Box<[Spot]>, shares: Box<[Share]>, rules: Rules, groups: Groups) -> Atlas {
        find_twins(&mut spots);
        let beacon = |spot: &Spot| (spot.site.point, spot.site.scale);
        Atlas {
            beacons: spots.iter().map(beacon).collect(),
            is_biased: spots.iter().any(|spot| spot.site.scale != spots[0].site.scale),
            spots,
            shares,
            rules,
            groups,
            unlocated: Unlocated::Divided,
            locator: None,
        }
    }

    /// Where `client` goes. There is at least one open centre. `chance` stands in for what tells it from others.
    #[inline]
    pub(super) fn decide(&self, client: &Client<'_>, now: impl FnOnce() -> Tick, chance: u64) -> Decision {
        let ip = client.ip.map(|ip| ip.to_canonical());
        let mut who = Who::new(client.key, ip, chance);
        let mut trip = Trip {
            client,
            ip,
            scope: 0,
            location: None,
        };
        let (home, why) = self.home(&mut trip, &mut who, now);
        let (centre, reason) = self.settle(&trip, &mut who, home, why);
        Decision {
            home,
            centre,
            reason,
            scope: ip.map(|ip| trip.scope.max(who.scope(ip))),
            location: trip.location,
        }
    }

    /// Up to `most` centres for `client`: the one it goes to, and the nearest others that are open and not avoided.
    pub(super) fn nearest(&self, decision: &Decision, client: &Client<'_>, most: usize) -> Few {
        let most = most.clamp(1, MOST_ROUTES);
        let locate = || self.locate(client, client.ip.map(|ip| ip.to_canonical()));
        let from = match decision.location.unwrap_or_else(locate).position {
            Some(position) => Point::from(position),
            None => self.spots[decision.centre].site.point,
        };
        let mut distances = [0.0; MOST_ROUTES];
        let mut found = [decision.centre; MOST_ROUTES];
        let (mut len, mut limit) = (1, f64::INFINITY);
        for (i, spot) in self.spots.iter().enumerate() {
            // By the straight line, which is quick, most are too far to be among them.
            let (point, scale) = self.beacons[i];
            let is_far = from.square_chord(point) * scale * scale > limit;
            if is_far || i == decision.centre || !self.may_take(i, client) {
                continue;
            }
            let distance = spot.site.distance(from);
            let at = 1 + distances[1..len].partition_point(|nearer| *nearer <= distance);
            if at < most {
                len = (len + 1).min(most);
                distances.copy_within(at..len - 1, at + 1);
                found.copy_within(at..len - 1, at + 1);
                (distances[at], found[at]) = (distance, i);
                if len == most {
                    limit = Point::square_chord_of(distances[len - 1]);
                }
            }
        }
        (found, len)
    }

    /// Whose client it is, whether that centre can take it or not.
    #[inline]
    fn home(&self, trip: &mut Trip<'_>, who: &mut Who<'_>, now: impl FnOnce() -> Tick) -> (usize, Reason) {
        if let Some(ip) = trip.ip {
            let (centre, bits) = self.rules.subnets.find(ip);
            trip.scope = bits;
            if let Some(centre) = centre {
                return (centre as usize, Reason::Subnet);
            }
        }
        let location = self.locate(trip.client, trip.ip);
        trip.scope = trip.scope.max(location.prefix.unwrap_or(u8::MAX).min(trip.bits()));
        trip.location = Some(location);
        if let Some(centre) = self.rules.country(&location) {
            return (centre as usize, Reason::Country);
        }
        if let Some(centre) = self.rules.continent(&location) {
            return (centre as usize, Reason::Continent);
        }
        let nearest = location.position.map(|position| {
            let nearest = self.nearest_to(position.into(), |_| true);
            nearest.expect("there is an open centre, so there is one")
        });
        if !self.groups.is_empty() {
            let (row, bits) = self.groups.find(trip.client.group, trip.ip);
            trip.scope = trip.scope.max(bits);
            if let Some(row) = row
                && let Some(fastest) = self.groups.fastest(row, self.spots.len(), nearest, now())
                && Some(fastest) != nearest
            {
                return (fastest, Reason::Latency);
            }
        }
        match (nearest, self.unlocated) {
            (Some(nearest), _) => (self.one_of_the_place(nearest, who), Reason::Nearest),
            (None, Unlocated::Belong(centre)) => (centre, Reason::Fallback),
            (None, Unlocated::At(point)) => {
                let nearest = self.nearest_to(point, |_| true);
                let nearest = nearest.expect("there is an open centre, so there is one");
                (self.one_of_the_place(nearest, who), Reason::Fallback)
            }
            (None, Unlocated::Divided) => {
                let all = self.spots.iter().enumerate().map(|(i, spot)| (i, spot.site.weight));
                let one = self.rendezvous(all, who);
                (one.expect("an open centre has a weight"), Reason::Fallback)
            }
        }
    }

    /// Which centre gets a client of `home`.
    #[inline]
    fn settle(&self, trip: &Trip<'_>, who: &mut Who<'_>, home: usize, why: Reason) -> (usize, Reason) {
        let (share, spot) = (&self.shares[home], &self.spots[home]);
        let avoided = avoids(trip.client, &spot.id);
        let mut reason = Reason::Avoided;
        if !avoided || !spot.site.is_open() {
            if share.keep >= 1.0 {
                return (home, why);
            }
            let draw = who.draw(mix(spot.seed ^ STAYS));
            if draw < share.keep {
                return (home, why);
            }
            let shifted = spot.site.up && draw >= spot.site.dial;
            reason = if shifted { Reason::Shifted } else { Reason::Spilled };
        }
        let others = || share.others.iter().map(|(other, part)| (*other as usize, *part));
        let taken = others().filter(|(other, _)| !avoids(trip.client, &self.spots[*other].id));
        if let Some(other) = self.rendezvous(taken, who) {
            return (other, reason);
        }
        let from = match trip.location.and_then(|location| location.position) {
            Some(position) => position.into(),
            None => spot.site.point,
        };
        if let Some(other) = self.nearest_to(from, |other| self.may_take(other, trip.client)) {
            return (other, reason);
        }
        // All that could take it are to be avoided: as if none were.
        if share.keep > 0.0 {
            return (home, why);
        }
        let other = self.rendezvous(others(), who);
        (other.unwrap_or(home), reason)
    }

    /// What the client says of where it is, and what the locator adds.
    #[inline]
    fn locate(&self, client: &Client<'_>, ip: Option<IpAddr>) -> Location {
        let said = client.location();
        match (&self.locator, ip) {
            (Some(locator), Some(ip)) if !client.is_located() => {
                let found = locator.locate(ip);
                Location {
                    position: said.position.or(found.position),
                    country: said.country.or(found.country),
                    continent: said.continent.or(found.continent),
                    prefix: found.prefix,
                }
            }
            _ => said,
        }
    }

    fn may_take(&self, centre: usize, client: &Client<'_>) -> bool {
        let spot = &self.spots[centre];
        spot.site.is_open() && !avoids(client, &spot.id)
    }

    /// The nearest centre, as distances count; of equal ones the first.
    #[inline]
    fn nearest_to(&self, from: Point, takes: impl Fn(usize) -> bool) -> Option<usize> {
        // By the straight line, which is quick, and tells where the nearest is if the biases do not differ.
        let mut best = (f64::INFINITY, None);
        for (i, (point, scale)) in self.beacons.iter().enumerate() {
            let chord = from.square_chord(*point) * scale * scale;
            if chord < best.0 && takes(i) {
                best = (chord, Some(i));
            }
        }
        let first = best.1?;
        if !self.is_biased {
            return Some(first);
        }
        // By the arc, those that its length does not rule out.
        let mut best = (self.spots[first].site.distance(from), first);
        let mut most = Point::square_chord_of(best.0);
        for (i, (point, scale)) in self.beacons.iter().enumerate() {
            if from.square_chord(*point) * scale * scale <= most && i != first && takes(i) {
                let distance = self.spots[i].site.distance(from);
                if (distance, i) < best {
                    best = (distance, i);
                    most = Point::square_chord_of(distance);
                }
            }
        }
        Some(best.1)
    }

    #[inline]
    fn one_of_the_place(&self, nearest: usize, who: &mut Who<'_>) -> usize {
        let twins = &self.spots[nearest].twins;
        if twins.is_empty() {
            return nearest;
        }
        let twins = twins
            .iter()
            .map(|twin| (*twin as usize, self.spots[*twin as usize].site.weight));
        self.rendezvous(twins, who).unwrap_or(nearest)
    }

    /// One of the centres, each for its part of the clients. When parts change, no more clients move than must (weighted
    /// rendezvous hashing: Schindelhauer and Schomaker, 2005).
    #[inline]
    fn rendezvous(&self, centres: impl Iterator<Item = (usize, f64)>, who: &mut Who<'_>) -> Option<usize> {
        let mut best = (f64::INFINITY, None);
        for (centre, part) in centres.filter(|(_, part)| *part > 0.0) {
            let draw = who.draw(self.spots[centre].seed);
            // -ln(x) is at least 1 - x, which is quicker.
            if (1.0 - draw) / part < best.0 {
                let wait = -draw.ln() / part;
                if wait < best.0 {
                    best = (wait, Some(centre));
                }
            }
        }
        best.1
    }
}

/// Fills in who shares a place with whom.
fn find_twins(spots: &mut [Spot]) {
    let same = |a: &Spot, b: &Spot| {
        a.site.scale == b.site.scale && a.site.point.kilometres_to(b.site.point) < SAME_PLACE && b.site.weight > 0.0
    };
    for i in 0..spots.len() {
        let twins = (0..spots.len()).filter(|other| same(&spots[i], &spots[*other]));
        let twins: Vec<u32> = twins.map(|twin| twin as u32).collect();
        if twins.iter().any(|twin| *twin as usize != i) {
            spots[i].twins = twins.into();
        }
    }
}

/// A client under way.
struct Trip<'a> {
    client: &'a Client<'a>,
    ip: Option<IpAddr>,
    scope: u8,
    location: Option<Location>,
}

impl Trip<'_> {
    fn bits(&self) -> u8 {
        if self.ip.is_some_and(|ip| ip.is_ipv6()) {
            128
        } else {
            32
        }
    }
}

#[inline]
fn avoids(client: &Client<'_>, id: &EndpointId) -> bool {
    !client.avoid.is_empty() && client.avoid.contains(id)
}

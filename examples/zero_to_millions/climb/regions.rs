//! Where the regions and their users are, how far that is in time, and which region takes whom.

use super::Result;
use super::plan::{Plan, Rung};
use super::service::Failed;
use crate::hardware::{Distance, Hardware};
use outgrow::env::Env;
use outgrow::geo::{Centre, Client, GeoRouter, Position};
use outgrow::hash::KeyedHash;
use outgrow::replica::{CLIENT, Link, Passage};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many regions the last rung has.
pub(super) const REGIONS: u32 = PLACES.len() as u32;

/// The regions, by degrees north and east. The first holds the primaries, and the second is so near that every write can
/// wait until a majority of the nodes, and so a second region, has it: the loss of any one region loses none.
const PLACES: [(&str, [f64; 2]); 3] = [
    ("Dublin", [53.35, -6.26]),
    ("Frankfurt", [50.11, 8.68]),
    ("Virginia", [39.04, -77.49]),
];

/// Where users are, as many in each place, and a third of them nearest to each region.
const CITIES: [[f64; 2]; 12] = [
    [53.35, -6.26],  // Dublin
    [51.51, -0.13],  // London
    [55.86, -4.25],  // Glasgow
    [38.72, -9.14],  // Lisbon
    [48.86, 2.35],   // Paris
    [52.52, 13.40],  // Berlin
    [45.46, 9.19],   // Milan
    [52.23, 21.01],  // Warsaw
    [40.71, -74.01], // New York
    [41.88, -87.63], // Chicago
    [33.75, -84.39], // Atlanta
    [32.78, -96.80], // Dallas
];

/// The regions of a rung and their users; on all rungs but the last one region, with every user next door.
pub(super) struct Geography {
    names: Vec<&'static str>,
    /// Round trips from each region to each.
    between: Vec<Vec<Duration>>,
    /// Where a visit may come from.
    cities: Vec<City>,
    router: Option<GeoRouter<usize>>,
    /// The region of the primaries.
    home: AtomicUsize,
}

struct City {
    position: Position,
    /// Round trips to each region.
    to: Vec<Duration>,
}

/// The way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The region that takes it.
    pub(super) region: usize,
    /// The time that the distance costs, there and back.
    pub(super) travel: Duration,
}

impl Geography {
    pub(super) fn new(plan: &Plan, hardware: &Hardware, env: &Env) -> Result<Geography> {
        let mut geography = Geography {
            names: vec![""],
            between: vec![vec![Duration::ZERO]],
            cities: Vec::new(),
            router: None,
            home: AtomicUsize::new(0),
        };
        if plan.rung < Rung::DataCentres {
            return Ok(geography);
        }
        let at = |[north, east]: [f64; 2]| Position::new(north, east);
        let places = PLACES.map(|(_, place)| place);
        let places = places.into_iter().map(at).collect::<Result<Vec<_>, _>>()?;
        let trips = |from: Position| {
            places
                .iter()
                .map(|to| round_trip(hardware.distance, from, *to))
                .collect()
        };
        for city in CITIES {
            let position = at(city)?;
            let to = trips(position);
            geography.cities.push(City { position, to });
        }
        geography.names = PLACES.map(|(name, _)| name).to_vec();
        geography.between = places.iter().map(|place| trips(*place)).collect();
        let centre = |(region, position): (usize, &Position)| {
            let centre = Centre::new(PLACES[region].0, *position);
            centre.capacity(plan.region_takes / plan.part).target(region)
        };
        let centres = places.iter().enumerate().map(centre);
        geography.router = Some(GeoRouter::builder().centres(centres).env(env.clone()).build()?);
        Ok(geography)
    }

    /// The way that a request of this visit takes.
    pub(super) fn route(&self, visit: u32) -> Result<Way, Failed> {
        let Some(router) = &self.router else {
            return Ok(Way {
                region: 0,
                travel: Duration::ZERO,
            });
        };
        let (key, city) = (visit.to_le_bytes(), self.city(visit));
        let client = Client::new().key(&key).position(city.position);
        let route = router.route(&client).map_err(|_| Failed)?;
        let region = route.target;
        Ok(Way {
            region,
            travel: city.to[region],
        })
    }

    /// The region that is nearest to a visit's user.
    pub(super) fn nearest(&self, visit: u32) -> usize {
        if self.cities.is_empty() {
            return 0;
        }
        nearest(&self.city(visit).to)
    }

    fn city(&self, visit: u32) -> &City {
        // Not the hash that balancers place visits by.
        let hash = KeyedHash::new(1, 0).hash(&visit.to_le_bytes());
        &self.cities[(hash % self.cities.len() as u64) as usize]
    }

    /// The names of the regions; one without a name where there is but one.
    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// From one region to another and back.
    pub(super) fn round_trip(&self, from: usize, to: usize) -> Duration {
        self.between[from][to]
    }

    /// The region of the primaries, where writes are decided on.
    pub(super) fn home(&self) -> usize {
        self.home.load(Ordering::Relaxed)
    }

    /// Moves it to the region that is nearest to the present one, and says which.
    pub(super) fn move_home(&self) -> usize {
        let old = self.home();
        let mut trips = self.between[old].clone();
        trips[old] = Duration::MAX;
        self.home.store(nearest(&trips), Ordering::Relaxed);
        self.home()
    }

    /// Tells the router how a region is.
    pub(super) fn set_health(&self, region: usize, healthy: bool) {
        if let Some(router) = &self.router {
            router.set_health(self.names[region], healthy);
        }
    }
}

fn nearest(trips: &[Duration]) -> usize {
    let nearest = trips.iter().enumerate().min_by_key(|(_, trip)| **trip);
    nearest.map_or(0, |(region, _)| region)
}

/// The one rule for the time that a distance costs, there and back.
fn round_trip(distance: Distance, from: Position, to: Position) -> Duration {
    let kilometres = from.kilometres_to(to) * distance.path_factor;
    distance.round_trip_per_100_km.mul_f64(kilometres / 100.0)
}

/// What the distances of `plan` mean, and what its regions share; nothing where there is but one.
pub(super) fn told(plan: &Plan, hardware: &Hardware) -> Result<Option<String>> {
    let geography = Geography::new(plan, hardware, &Env::default())?;
    let [home, second, third] = geography.names[..] else {
        return Ok(None);
    };
    let ms = |trip: Duration| trip.as_secs_f64() * 1e3;
    let mean =
        |trip: fn(&City) -> Duration| ms(geography.cities.iter().map(trip).sum()) / geography.cities.len() as f64;
    Ok(Some(format!(
        "Users are in {} cities, a round trip of {:.0} ms from the nearest region on average; from {home} alone it would \
         be {:.0} ms, and the rungs below have every user next door. Each region answers reads by itself and has caches, a \
         queue and workers of its own. Writes go to the primaries in {home} ({second} is {:.0} ms away, {third} {:.0} ms) \
         and wait for a majority of all nodes.",
        geography.cities.len(),
        mean(|city| city.to[nearest(&city.to)]),
        mean(|city| city.to[0]),
        ms(geography.round_trip(0, 1)),
        ms(geography.round_trip(0, 2)),
    )))
}

/// The way between the nodes of one shard, as long as the regions are apart.
pub(super) struct Ways {
    pub(super) geography: Arc<Geography>,
    /// The nodes by name, and their regions.
    pub(super) nodes: Vec<(String, usize)>,
}

impl Ways {
    fn region(&self, name: &str) -> usize {
        // The store's own end, from where commits and the orders of a failover come, is where the primary is to be.
        let node = self.nodes.iter().find(|(node, _)| name != CLIENT && node == name);
        node.map_or_else(|| self.geography.home(), |(_, region)| *region)
    }
}

impl Link for Ways {
    fn pass(&self, from: &str, to: &str) -> Passage {
        let round_trip = self.geography.round_trip(self.region(from), self.region(to));
        match round_trip.is_zero() {
            true => Passage::AtOnce,
            false => Passage::After(round_trip / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::climb::tests::data_centres;

    fn geography() -> Geography {
        let (plan, hardware) = data_centres();
        Geography::new(&plan, &hardware, &Env::default()).expect("the places are on the Earth")
    }

    #[test]
    fn distances_are_those_of_the_great_circle_at_the_speed_of_light_in_fibre() {
        let geography = geography();
        let ms = |from, to| geography.round_trip(from, to).as_secs_f64() * 1e3;
        // 1,084, 5,453 and 6,545 km, half as long again, at 1 ms for each 100 km.
        for (found, want) in [(ms(0, 1), 16.3), (ms(0, 2), 81.8), (ms(1, 2), 98.2), (ms(2, 2), 0.0)] {
            assert!((found - want).abs() < 0.5, "{found} ms, not {want}");
        }
        assert_eq!(ms(0, 2), ms(2, 0));
    }

    #[test]
    fn users_go_to_the_nearest_region_and_elsewhere_while_it_is_down() {
        let geography = geography();
        let mut users = [0; PLACES.len()];
        for visit in 0..12_000 {
            let way = geography.route(visit).expect("a region is up");
            assert_eq!(way.region, geography.nearest(visit));
            assert!(way.travel < Duration::from_millis(30));
            users[way.region] += 1;
        }
        assert!(users.iter().all(|users| (3_700..4_300).contains(users)), "{users:?}");
        geography.set_health(0, false);
        for visit in 0..1_000 {
            let way = geography.route(visit).expect("two regions are up");
            assert_ne!(way.region, 0);
            assert!(geography.nearest(visit) == 0 || way.region == geography.nearest(visit));
        }
        assert_eq!((geography.home(), geography.move_home()), (0, 1));
    }

    #[test]
    fn messages_between_nodes_take_half_a_round_trip() {
        let ways = Ways {
            geography: Arc::new(geography()),
            nodes: vec![("a".into(), 0), ("b".into(), 0), ("c".into(), 2)],
        };
        let far = ways.geography.round_trip(0, 2) / 2;
        assert_eq!(ways.pass("a", "b"), Passage::AtOnce);
        assert_eq!(ways.pass("c", "b"), Passage::After(far));
        assert_eq!(
            (ways.pass(CLIENT, "a"), ways.pass(CLIENT, "c")),
            (Passage::AtOnce, Passage::After(far))
        );
    }
}

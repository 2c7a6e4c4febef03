//! Where the load of a centre goes that cannot take it. Pure: from the centres and their demand to shares.
//!
//! What a centre loses is poured over the others that are up. Each draws it in proportion to the room that it has left,
//! times how near it is: a centre that is [`reach`](spread) kilometres farther away than the nearest draws `1/e` as much.
//! None draws more than four fifths of its room, so that a neighbour is not filled to the brim while others are half
//! empty; then, if something is left, up to its capacity. What finds no room at all stays where it is if it can, or is
//! divided by capacity.

use super::position::Point;

/// A centre, as far as the spread is concerned.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) point: Point,
    /// What distances to it are multiplied by.
    pub(super) scale: f64,
    pub(super) weight: f64,
    /// Requests a second; infinite without a limit.
    pub(super) capacity: f64,
    /// Whether it may get requests, as far as its health goes.
    pub(super) up: bool,
    /// The share of its clients that it is to keep, and of its room that it gives to others: 0 when it is drained.
    pub(super) dial: f64,
}

impl Site {
    /// Whether it may get requests.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.up && self.dial > 0.0
    }

    /// A distance to it, as it counts.
    #[inline]
    pub(super) fn distance(&self, from: Point) -> f64 {
        from.kilometres_to(self.point) * self.scale
    }
}

/// Where the clients of one centre go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Share {
    /// The part that stays.
    pub(super) keep: f64,
    /// How the rest is divided: centres and their parts of it, which sum to 1, the largest first.
    pub(super) others: Box<[(u32, f64)]>,
}

/// Of a centre's room, what others may fill while there is more elsewhere.
const FILL: f64 = 0.8;

/// The farthest that nearness is told apart, in multiples of the reach: beyond it `exp` would give 0.
const FARTHEST: f64 = 500.0;

/// The share of each site's clients that stays, and where the rest goes. `demand` is what each site's own clients ask
/// for, in requests a second.
///
/// The sum of what sites get is the sum of what is asked for. No site gets more than its capacity while another that is
/// open has room. An open site whose dial is 1 and whose demand is within its capacity keeps all its clients. Sites take
/// turns in their order.
pub(super) fn spread(sites: &[Site], demand: &[f64], reach: f64) -> Vec<Share> {
    let demand = presumed(sites, demand);
    let mut shares: Vec<Share> = sites.iter().zip(&demand).map(kept).collect();
    let room = |((site, demand), share): ((&Site, &f64), &Share)| match site.is_open() {
        true => (site.capacity - demand * share.keep).max(0.0) * site.dial,
        false => 0.0,
    };
    let mut room: Vec<f64> = sites.iter().zip(&demand).zip(&shares).map(room).collect();
    for from in 0..sites.len() {
        if shares[from].keep < 1.0 {
            shares[from] = share(sites, &mut room, from, demand[from], shares[from].keep, reach);
        }
    }
    shares
}

/// What each site gets.
pub(super) fn loads(shares: &[Share], demand: &[f64]) -> Vec<f64> {
    let mut loads = vec![0.0; shares.len()];
    for (from, share) in shares.iter().enumerate() {
        loads[from] += demand[from] * share.keep;
        for (to, part) in &share.others {
            loads[*to as usize] += demand[from] * (1.0 - share.keep) * part;
        }
    }
    loads
}

/// The demand, or where nothing was asked for yet a guess, so that the first loss is spread too: half of each capacity.
fn presumed(sites: &[Site], demand: &[f64]) -> Vec<f64> {
    if demand.iter().any(|demand| *demand > 0.0) {
        return demand.to_vec();
    }
    let unit = per_weight(sites.iter().map(|site| (site.weight, site.capacity)));
    let guess = |site: &Site| match site.capacity.is_finite() {
        true => site.capacity / 2.0,
        false => site.weight * unit / 2.0,
    };
    sites.iter().map(guess).collect()
}

/// The mean of finite amounts for a weight of 1, or 1 when there are none: how much a site without a limit stands for
/// beside those with one.
fn per_weight(amounts: impl Iterator<Item = (f64, f64)>) -> f64 {
    let finite = amounts.filter(|(weight, amount)| *weight > 0.0 && amount.is_finite() && *amount > 0.0);
    let (weights, sum) = finite.fold((0.0, 0.0), |(weights, sum), (weight, amount)| {
        (weights + weight, sum + amount)
    });
    if sum > 0.0 { sum / weights } else { 1.0 }
}

/// What a site keeps before anything is poured.
fn kept((site, demand): (&Site, &f64)) -> Share {
    let fits = if *demand > site.capacity {
        site.capacity / demand
    } else {
        1.0
    };
    Share {
        keep: if site.up { site.dial.min(fits) } else { 0.0 },
        others: Box::default(),
    }
}

/// The share of the site `from`, which keeps at least `keep` of its `demand`; takes what is poured from the `room`.
fn share(sites: &[Site], room: &mut [f64], from: usize, demand: f64, keep: f64, reach: f64) -> Share {
    // Without any demand there may still be a first client.
    let demand = demand.max(1e-6);
    let site = &sites[from];
    let away = demand * (1.0 - keep);
    let mut others = vessels(sites, room, from, reach);
    let mut left = away;
    for fill in [FILL, 1.0] {
        others.iter_mut().for_each(|other| other.limit = other.room * fill);
        left = pour(left, &mut others);
    }
    // Rather than overfill another, it keeps what is beyond its capacity, and what its dial has room for.
    let overload = if site.up {
        demand * (site.dial - keep).max(0.0)
    } else {
        0.0
    };
    let stays = left.min(overload + room[from]);
    room[from] -= (stays - overload).max(0.0);
    left -= stays;
    let open = |other: &Vessel| sites[other.site].is_open() && other.site != from;
    let sum: f64 = others
        .iter()
        .filter(|other| open(other))
        .map(|other| ample(sites, other.site))
        .sum();
    let stays = if sum > 0.0 || !site.is_open() {
        stays
    } else {
        stays + left
    };
    for other in &mut others {
        room[other.site] = (room[other.site] - other.got).max(0.0);
        other.got += if sum > 0.0 {
            left * ample(sites, other.site) / sum
        } else {
            0.0
        };
    }
    divided(keep + stays / demand, &others)
}

/// What an open site of finite capacity is taken to bear when all are full.
fn ample(sites: &[Site], site: usize) -> f64 {
    (sites[site].capacity * sites[site].dial).clamp(1e-9, f64::MAX)
}

fn divided(keep: f64, others: &[Vessel]) -> Share {
    let sum: f64 = others.iter().map(|other| other.got).sum();
    let parts = others.iter().map(|other| (other.site as u32, other.got / sum));
    let mut parts: Vec<(u32, f64)> = parts.filter(|(_, part)| *part > 1e-9).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Share {
        keep: if parts.is_empty() { 1.0 } else { keep.min(1.0) },
        others: parts.into(),
    }
}

/// A site that takes of what is poured.
struct Vessel {
    site: usize,
    /// How much it draws relative to the others.
    pull: f64,
    room: f64,
    /// How much it may have got.
    limit: f64,
    got: f64,
}

/// The open sites other than `from`.
fn vessels(sites: &[Site], room: &[f64], from: usize, reach: f64) -> Vec<Vessel> {
    let others = || (0..sites.len()).filter(|to| *to != from && sites[*to].is_open());
    let distance = |to: usize| sites[to].distance(sites[from].point);
    let with_room = others().filter(|to| room[*to] > 0.0);
    let nearest = with_room.map(distance).fold(f64::INFINITY, f64::min);
    let unit = per_weight(others().map(|to| (sites[to].weight, room[to])));
    let vessel = |to: usize| {
        let farther = ((distance(to) - nearest) / reach).clamp(0.0, FARTHEST);
        let size = if room[to].is_finite() {
            room[to]
        } else {
            sites[to].weight * unit
        };
        Vessel {
            site: to,
            pull: size * (-farther).exp(),
            room: room[to],
            limit: 0.0,
            got: 0.0,
        }
    };
    others().map(vessel).collect()
}

/// Pours `amount` into the vessels in proportion to their pull, none beyond its limit; says what is left.
fn pour(mut amount: f64, vessels: &mut [Vessel]) -> f64 {
    let mut open: Vec<&mut Vessel> = vessels.iter_mut().filter(|v| v.pull > 0.0 && v.got < v.limit).collect();
    while amount > 0.0 && !open.is_empty() {
        let each = amount / open.iter().map(|vessel| vessel.pull).sum::<f64>();
        let before = open.len();
        let mut over = 0.0;
        open.retain_mut(|vessel| {
            let takes = vessel.limit - vessel.got;
            let full = vessel.pull * each >= takes;
            if full {
                vessel.got = vessel.limit;
                over += takes;
            }
            !full
        });
        if open.len() == before {
            open.iter_mut().for_each(|vessel| vessel.got += vessel.pull * each);
            return 0.0;
        }
        amount = (amount - over).max(0.0);
    }
    amount
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::Position;
    use proptest::prelude::*;

    fn site(longitude: f64, capacity: f64) -> Site {
        Site {
            point: Position::new(0.0, longitude).unwrap().into(),
            scale: 1.0,
            weight: 1.0,
            capacity,
            up: true,
            dial: 1.0,
        }
    }

    fn down(mut site: Site) -> Site {
        site.up = false;
        site
    }

    fn dialled(mut site: Site, dial: f64) -> Site {
        site.dial = dial;
        site
    }

    fn near(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    fn load(sites: &[Site], demand: &[f64], reach: f64) -> Vec<f64> {
        loads(&spread(sites, demand, reach), demand)
    }

    #[test]
    fn without_a_reach_a_loss_is_divided_by_the_room_that_is_left() {
        let sites = [down(site(0.0, 100.0)), site(10.0, 200.0), site(90.0, 150.0)];
        let found = load(&sites, &[60.0, 100.0, 100.0], f64::INFINITY);
        assert!(near(&found, &[0.0, 140.0, 120.0]), "{found:?}");
    }

    #[test]
    fn nearer_ones_take_more_until_four_fifths_of_their_room_are_full() {
        // 10 and 15 degrees away: 556 km farther, so 1/e of the pull with a reach of that much.
        let sites = [down(site(0.0, 100.0)), site(10.0, 200.0), site(15.0, 200.0)];
        let reach = sites[2].distance(sites[0].point) - sites[1].distance(sites[0].point);
        let nearer = 1.0 / (1.0 + (-1.0_f64).exp());
        let found = load(&sites, &[50.0, 100.0, 100.0], reach);
        assert!(
            near(&found, &[0.0, 100.0 + 50.0 * nearer, 150.0 - 50.0 * nearer]),
            "{found:?}"
        );
        let found = load(&sites, &[120.0, 100.0, 100.0], reach);
        assert!(near(&found, &[0.0, 180.0, 140.0]), "{found:?}");
        let found = load(&sites, &[170.0, 100.0, 100.0], reach);
        // 160 fill both to four fifths; the rest by pull again.
        assert!(
            near(&found, &[0.0, 180.0 + 10.0 * nearer, 190.0 - 10.0 * nearer]),
            "{found:?}"
        );
    }

    #[test]
    fn what_finds_no_room_is_divided_by_capacity_if_it_must_go_and_else_stays() {
        let sites = [down(site(0.0, 100.0)), site(10.0, 100.0), site(20.0, 300.0)];
        let found = load(&sites, &[140.0, 100.0, 300.0], 500.0);
        assert!(near(&found, &[0.0, 135.0, 405.0]), "{found:?}");
        let sites = [site(0.0, 100.0), site(10.0, 100.0), site(20.0, 300.0)];
        let found = load(&sites, &[140.0, 100.0, 290.0], 500.0);
        assert!(near(&found, &[130.0, 100.0, 300.0]), "{found:?}");
    }

    #[test]
    fn one_without_a_limit_counts_by_weight_and_takes_what_the_others_cannot() {
        let mut free = site(10.0, f64::INFINITY);
        free.weight = 3.0;
        let sites = [down(site(0.0, 9.0)), free, site(10.0, 150.0)];
        let found = load(&sites, &[40.0, 7.0, 50.0], 500.0);
        assert!(
            near(&found, &[0.0, 37.0, 60.0]),
            "room for 100 stands for weight 1, and 300 for 3: {found:?}"
        );
        let found = load(&sites, &[1_000.0, 7.0, 50.0], 500.0);
        assert!(near(&found, &[0.0, 927.0, 130.0]), "{found:?}");
    }

    #[test]
    fn a_dial_lets_go_of_a_share_and_takes_a_share() {
        let sites = [dialled(site(0.0, 100.0), 0.25), site(10.0, 100.0), site(20.0, 100.0)];
        let shares = spread(&sites, &[40.0, 50.0, 50.0], f64::INFINITY);
        assert_eq!(
            (shares[0].keep, &shares[1]),
            (
                0.25,
                &Share {
                    keep: 1.0,
                    others: Box::default()
                }
            )
        );
        assert_eq!(*shares[0].others, [(1, 0.5), (2, 0.5)]);
        // Of another's loss it draws by a quarter of its room: 22.5 beside the 20 that its own clients leave there.
        let sites = [
            dialled(site(0.0, 100.0), 0.25),
            site(10.0, 100.0),
            down(site(20.0, 100.0)),
        ];
        let found = load(&sites, &[40.0, 50.0, 8.5], f64::INFINITY);
        assert!(near(&found, &[14.5, 84.0, 0.0]), "{found:?}");
    }

    #[test]
    fn the_first_loss_is_spread_before_anything_was_asked_for() {
        let sites = [down(site(0.0, 100.0)), site(10.0, 100.0), site(12.0, 100.0)];
        let shares = spread(&sites, &[0.0; 3], 500.0);
        assert_eq!(shares[0].others.len(), 2);
        let free = [
            down(site(0.0, f64::INFINITY)),
            site(10.0, f64::INFINITY),
            site(10.0, f64::INFINITY),
        ];
        assert_eq!(*spread(&free, &[0.0; 3], 500.0)[0].others, [(1, 0.5), (2, 0.5)]);
    }

    #[test]
    fn the_last_one_keeps_all() {
        for dial in [0.5, 1.0] {
            let sites = [dialled(site(0.0, 10.0), dial), down(site(10.0, 100.0))];
            let shares = spread(&sites, &[100.0, 50.0], 500.0);
            assert_eq!(shares[0].keep, 1.0);
            assert_eq!(*shares[1].others, [(0, 1.0)]);
        }
    }

    fn sites() -> impl Strategy<Value = Vec<(Site, f64)>> {
        let capacity = prop_oneof![4 => 1.0..1_000.0_f64, 1 => Just(f64::INFINITY)];
        let dial = prop_oneof![4 => Just(1.0), 1 => Just(0.0), 1 => 0.01..1.0_f64];
        let demand = prop_oneof![1 => Just(0.0), 6 => 0.0..600.0_f64];
        let site = (
            -90.0..90.0_f64,
            -180.0..180.0_f64,
            capacity,
            dial,
            prop::bool::weighted(0.7),
            1..9_u8,
            demand,
        );
        let site = site.prop_map(|(lat, lon, capacity, dial, up, weight, demand)| {
            let point = Position::new(lat, lon).unwrap().into();
            (
                Site {
                    point,
                    scale: 1.0,
                    weight: weight.into(),
                    capacity,
                    up,
                    dial,
                },
                demand,
            )
        });
        prop::collection::vec(site, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn nothing_is_lost_and_nobody_overflows_while_there_is_room(
            sites in sites(),
            reach in prop_oneof![Just(1.0), 10.0..5_000.0_f64, Just(f64::INFINITY)],
        ) {
            let (sites, mut demand): (Vec<_>, Vec<_>) = sites.into_iter().unzip();
            prop_assume!(sites.iter().any(Site::is_open));
            demand[0] += 1.0;
            let shares = spread(&sites, &demand, reach);
            let loads = loads(&shares, &demand);
            let total: f64 = demand.iter().sum();
            prop_assert!((loads.iter().sum::<f64>() - total).abs() < 1e-6 * total, "{:?}", loads);
            let slack = 1e-5 * total + 1e-3;
            // A dial gives away only a share of the room, so what is left of it is nobody's.
            let room = |(site, load): (&Site, &f64)| match site.is_open() {
                true => (site.capacity - load).max(0.0) * if site.dial < 1.0 { 0.0 } else { 1.0 },
                false => 0.0,
            };
            let most = sites.iter().zip(&loads).map(room).fold(0.0, f64::max);
            for (i, site) in sites.iter().enumerate() {
                prop_assert!(site.is_open() || loads[i] == 0.0, "{} is closed and gets {}", i, loads[i]);
                prop_assert!(
                    loads[i] <= site.capacity + slack || most <= slack,
                    "{} gets {} of {} while {} are free: {:?}", i, loads[i], site.capacity, most, shares
                );
                if site.is_open() && site.dial == 1.0 && demand[i] <= site.capacity {
                    prop_assert_eq!(shares[i].keep, 1.0, "{} is well", i);
                }
                prop_assert!((0.0..=1.0).contains(&shares[i].keep));
                let parts: f64 = shares[i].others.iter().map(|(_, part)| part).sum();
                prop_assert!(shares[i].others.is_empty() || (parts - 1.0).abs() < 1e-6);
                prop_assert!(shares[i].keep == 1.0 || !shares[i].others.is_empty());
            }
        }

        #[test]
        fn a_greater_capacity_never_takes_less(capacity in 100.0..1_000.0_f64, more in 0.0..1_000.0_f64, lost in 1.0..400.0_f64) {
            let gets = |capacity| {
                let sites = [down(site(0.0, 1.0)), site(10.0, capacity), site(15.0, 500.0), site(60.0, 500.0)];
                load(&sites, &[lost, 50.0, 100.0, 100.0], 500.0)[1]
            };
            prop_assert!(gets(capacity + more) >= gets(capacity) - 1e-9);
        }
    }
}

use super::bound::{Bound, Weights, first_fit};
use super::ring_layout::{Even, Ketama, MOST_POINTS, Nginx, RingLayout};
use crate::balance::{Balancer, Completion, Load, Member, Request};
use crate::env::{Rng, Tick};
use std::fmt;
use std::sync::Arc;

/// A consistent-hash ring: requests with the same [key](Request::key) go to the same endpoint, and when one leaves, only its
/// own keys move (Karger and others, 1997).
///
/// Each endpoint has points on a circle of hashes, and a key belongs to the next point. A request without a key goes to a
/// random point. One that avoids the endpoint of its key goes to the next on the ring, so that retries of one key meet
/// again, and where the key would be if the endpoint had left. The ring depends on the ids and weights only, not on their
/// order, so processes agree without talking.
///
/// The heaviest endpoint has [160 points](Ring::with_points) by default and the others as many in proportion, one at
/// least. So shares deviate from the weights by some 8 %, and by more for light endpoints: by one part in the root of their
/// points. [`Maglev`](super::Maglev) shares evenly instead, and moves a few more keys. When the only heaviest endpoint leaves
/// or a weight passes it, all others have more points than before or fewer, and other keys move too.
///
/// A pick takes the same time for any number of endpoints. 20 to 24 bytes a point; built in time in proportion to the points,
/// some milliseconds for 1,000 endpoints, whenever the endpoints that may be picked change.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Request, Ring};
/// let pool = Pool::builder(Ring::default()).endpoints(["a", "b", "c"].map(Endpoint::new)).build();
/// let home = |key| pool.pick(&Request::new().key(key)).map(|lease| lease.id().clone());
/// let before = home(b"user-7")?;
/// pool.add(Endpoint::new("d"));
/// let after = home(b"user-7")?;
/// assert!(after == before || &*after == "d"); // a key moves to the new endpoint or not at all
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Ring {
    layout: Box<dyn RingLayout>,
    bound: Option<Bound>,
}

impl Ring {
    /// With so many points for the heaviest endpoint, from 1 to 65,536. 160 by default. Four times as many halve the deviation
    /// of the shares. The `i`th point of an endpoint is the SipHash-1-3 of its id under the key (1, i), and a key's place its
    /// SipHash-1-3 under the key (0, 0).
    #[must_use]
    pub fn with_points(points: u32) -> Ring {
        Ring::laid_out_by(Even {
            points: points.clamp(1, MOST_POINTS),
        })
    }

    /// libmemcached's weighted ketama, for keys that its clients place as well. `md5` is MD5, which this library does not
    /// bring along.
    ///
    /// The ids have to be the servers as libmemcached labels them: `host` for port 11211 and `host:port` for others. How many
    /// points each has depends on all weights, on average 160; one that is much lighter than the others may have none.
    #[must_use]
    pub fn ketama(md5: impl Fn(&[u8]) -> [u8; 16] + Send + Sync + 'static) -> Ring {
        Ring::laid_out_by(Ketama(md5))
    }

    /// The ring of nginx's `hash .. consistent`, of Cache::Memcached::Fast and of pingora, for keys that they place as well.
    /// `crc32` is CRC-32 as in zlib, which this library does not bring along.
    ///
    /// The ids have to be the servers as configured there. Each has 160 points per unit of weight, up to 65,536, so the
    /// layout changes while a pool scales weights up for a [slow start](crate::balance::PoolBuilder::slow_start).
    #[must_use]
    pub fn nginx(crc32: impl Fn(&[u8]) -> u32 + Send + Sync + 'static) -> Ring {
        Ring::laid_out_by(Nginx(crc32))
    }

    /// With points and keys where `layout` puts them. If it puts no point, all picks are refused.
    #[must_use]
    pub fn laid_out_by(layout: impl RingLayout) -> Ring {
        Ring {
            layout: Box::new(layout),
            bound: None,
        }
    }

    /// Passes an endpoint over, for the next on the ring, that would have more in flight with this request than `factor` times
    /// the average, rounded up, so that one hot key cannot overload it (Mirrokni, Thorup and Zadimoghaddam, 2018). 1.25 is usual;
    /// below 1 counts as 1, which balances best and moves most. By default there is no bound.
    ///
    /// The average is of all that the pool has in flight, by the weights of the endpoints that may be picked: where zones or
    /// priorities part them, or some are draining, the bound is wider. Counting takes two atomic additions a request to a cache
    /// line that all threads share. When all that are within the bound were [tried](Request::avoid), one beyond it is taken.
    ///
    /// ```
    /// use outgrow::balance::{Endpoint, Pool, Request, Ring};
    /// let pool = Pool::builder(Ring::default().bounded_load(1.25)).endpoints(["a", "b", "c"].map(Endpoint::new)).build();
    /// let leases: Vec<_> = (0..12).filter_map(|_| pool.pick(&Request::new().key("hot")).ok()).collect();
    /// let most = pool.status().endpoints.iter().map(|endpoint| endpoint.in_flight).max();
    /// assert_eq!(most, Some(5)); // of twelve, four are the average
    /// # drop(leases);
    /// ```
    #[must_use]
    pub fn bounded_load(mut self, factor: f64) -> Ring {
        self.bound = Some(Bound::new(factor));
        self
    }
}

/// 160 points for the heaviest endpoint.
impl Default for Ring {
    fn default() -> Ring {
        Ring::with_points(160)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Balancer for Ring {
    type Table = RingTable;

    fn table(&self, members: &[Member]) -> RingTable {
        // Ranks in order of the ids decide between points at one place, whatever the order of the members.
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        order.sort_unstable_by_key(|&i| members[i as usize].id());
        let mut ranks = vec![0; members.len()];
        (0..).zip(&order).for_each(|(rank, &i)| ranks[i as usize] = rank);

        let mut points = Vec::new();
        self.layout.points(members, &mut |i, place| {
            points.push(Point { place, owner: ranks[i] });
        });
        RingTable::new(&points, &order, Weights::new(members))
    }

    #[inline]
    fn pick(
        &self,
        ring: &RingTable,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        _: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let at = match request.key {
            Some(key) => ring.point_of(self.layout.key(key)),
            None => rng.index(ring.points.len()),
        };
        let first = ring.points.get(at)?.owner as usize;
        let room = self.bound.as_ref().map(|bound| bound.room(&ring.weights));
        Some(first_fit(first, || ring.walk(at), loads, request, room))
    }

    #[inline]
    fn begin(&self, _: &Load) {
        Bound::begin(self.bound.as_ref());
    }

    #[inline]
    fn finish(&self, _: &Load, _: &Completion) {
        Bound::end(self.bound.as_ref());
    }
}

/// The points of a [`Ring`] in order.
pub struct RingTable {
    points: Box<[Point]>,
    /// For each value of the high bits of a place the first point of that value or above; one more at the end.
    starts: Box<[u32]>,
    /// Bits of a place that are not among the high ones.
    low: u32,
    weights: Weights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u64,
    owner: u32,
}

impl RingTable {
    /// Of points whose owners are ranks, and the position of each rank.
    fn new(points: &[Point], positions: &[u32], weights: Weights) -> RingTable {
        // As many values as points or up to twice as many, so that one has few points, if they are spread evenly.
        let low = 64 - points.len().next_power_of_two().ilog2().max(1);
        let mut starts = vec![0_u32; (1 << (64 - low)) + 1];
        for point in points {
            starts[(point.place >> low) as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        // Each point among those of its value, then these in order.
        let mut next = starts.clone();
        let mut sorted = vec![Point { place: 0, owner: 0 }; points.len()];
        for point in points {
            let next = &mut next[(point.place >> low) as usize];
            sorted[*next as usize] = *point;
            *next += 1;
        }
        for value in starts.windows(2) {
            sorted[value[0] as usize..value[1] as usize].sort_unstable();
        }
        for point in &mut sorted {
            point.owner = positions[point.owner as usize];
        }
        RingTable {
            points: sorted.into(),
            starts: starts.into(),
            low,
            weights,
        }
    }

    /// All points in order: their places, and the position of the endpoint of each.
    pub fn points(&self) -> impl Iterator<Item = (u64, usize)> {
        self.points.iter().map(|point| (point.place, point.owner as usize))
    }

    /// The first point at `place` or after it.
    #[inline]
    fn point_of(&self, place: u64) -> usize {
        let value = (place >> self.low) as usize;
        let (start, end) = (self.starts[value] as usize, self.starts[value + 1] as usize);
        let at = start + self.points[start..end].partition_point(|point| point.place < place);
        if at < self.points.len() { at } else { 0 }
    }

    /// The endpoints of the points from `at` on and round.
    fn walk(&self, at: usize) -> impl Iterator<Item = usize> {
        let (before, after) = self.points.split_at(at);
        after.iter().chain(before).map(|point| point.owner as usize)
    }
}

impl fmt::Debug for RingTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingTable")
            .field("points", &self.points.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::loads;
    use super::*;
    use crate::balance::{Endpoint, EndpointId};
    use crate::env::Rng;
    use crate::hash::KeyedHash;
    use proptest::prelude::*;

    fn named(ids: impl IntoIterator<Item = (usize, u32)>) -> Vec<Member> {
        let member = |(id, weight)| Member::from(&Endpoint::new(format!("10.0.0.{id}:80")).weight(weight));
        ids.into_iter().map(member).collect()
    }

    fn alike(n: usize) -> Vec<Member> {
        named((0..n).map(|id| (id, 1)))
    }

    /// The share of the circle that belongs to each.
    fn shares(table: &RingTable, members: usize) -> Vec<f64> {
        let mut shares = vec![0.0; members];
        let mut last = table.points().last().expect("there are points").0;
        for (place, owner) in table.points() {
            shares[owner] += place.wrapping_sub(last) as f64 / 2_f64.powi(64);
            last = place;
        }
        shares
    }

    /// The owner of a place, the dumb way.
    fn owner(table: &RingTable, place: u64) -> usize {
        let mut points = table.points();
        let found = points.find(|(at, _)| *at >= place);
        found.or_else(|| table.points().next()).expect("there are points").1
    }

    #[test]
    fn shares_follow_the_weights() {
        for n in [1, 10, 100] {
            let shares = shares(&Ring::default().table(&alike(n)), n);
            // The largest of a hundred deviations of 8 % is below 32 %.
            assert!(
                shares.iter().all(|share| (share * n as f64 - 1.0).abs() < 0.32),
                "{shares:?}"
            );
        }
        let weights = [1, 2, 4, 8, 16];
        let shares = shares(
            &Ring::with_points(MOST_POINTS).table(&named((0..).zip(weights))),
            weights.len(),
        );
        for (share, weight) in shares.into_iter().zip(weights) {
            assert!(
                (share * 31.0 / f64::from(weight) - 1.0).abs() < 0.06,
                "{share} for {weight}"
            );
        }
    }

    #[test]
    fn weights_make_points_up_to_a_number() {
        let points = |weights: &[u32]| {
            let mut points = vec![0; weights.len()];
            let table = Ring::default().table(&named((0..).zip(weights.iter().copied())));
            table.points().for_each(|(_, owner)| points[owner] += 1);
            points
        };
        assert_eq!(points(&[7, 7]), [160, 160]);
        assert_eq!(points(&[u32::MAX, 1 << 31, 1]), [160, 80, 1]);
        // As a pool tells a weight of one that is let in slowly.
        assert_eq!(points(&[100, 100, 10]), [160, 160, 16]);
    }

    #[test]
    fn the_order_of_the_endpoints_does_not_matter() {
        let members = named([(3, 1), (1, 5), (4, 2), (2, 7)]);
        let ids = |members: &[Member]| -> Vec<(u64, EndpointId)> {
            let table = Ring::default().table(members);
            table
                .points()
                .map(|(place, i)| (place, members[i].id().clone()))
                .collect()
        };
        let mut turned = members.clone();
        turned.rotate_left(1);
        assert_eq!(ids(&members), ids(&turned));
    }

    /// A few places, so that many points share one.
    struct Crowded;

    impl RingLayout for Crowded {
        fn points(&self, members: &[Member], put: &mut dyn FnMut(usize, u64)) {
            for (i, member) in members.iter().enumerate() {
                let hash = KeyedHash::default().hash(member.id().as_bytes());
                (0..4).for_each(|point| put(i, ((hash >> (8 * point)) % 8) << 61));
            }
        }

        fn key(&self, key: &[u8]) -> u64 {
            KeyedHash::default().hash(key)
        }
    }

    #[test]
    fn at_one_place_the_lesser_id_counts_whatever_the_order() {
        let members = alike(20);
        let winners = |members: &[Member]| -> Vec<EndpointId> {
            let table = Ring::laid_out_by(Crowded).table(members);
            let owner = |place| members[table.points[table.point_of(place)].owner as usize].id().clone();
            (0..8).map(|place| owner(place << 61)).collect()
        };
        let straight = winners(&members);
        let mut turned = members.clone();
        turned.reverse();
        assert_eq!(straight, winners(&turned));
        turned.rotate_left(7);
        assert_eq!(straight, winners(&turned));
    }

    #[test]
    fn a_ring_without_points_refuses() {
        struct Nowhere;
        impl RingLayout for Nowhere {
            fn points(&self, _: &[Member], _: &mut dyn FnMut(usize, u64)) {}
            fn key(&self, _: &[u8]) -> u64 {
                u64::MAX
            }
        }
        let (policy, members) = (Ring::laid_out_by(Nowhere), alike(2));
        let (table, loads) = (policy.table(&members), loads(&members));
        for request in [Request::new(), Request::new().key("a")] {
            let pick = policy.pick(&table, &loads, &request, Tick::ZERO, &mut Rng::seeded(1));
            assert_eq!(pick, None);
        }
        assert_eq!(Ring::default().table(&[]).points().count(), 0);
    }

    #[test]
    fn retries_go_where_the_key_would_be_without_what_was_tried() {
        let (policy, members) = (Ring::default(), alike(5));
        let (table, loads, mut rng) = (policy.table(&members), loads(&members), Rng::seeded(1));
        for key in 0..200_u32 {
            let key = key.to_le_bytes();
            let mut tried: Vec<EndpointId> = Vec::new();
            for _ in 0..members.len() {
                let request = Request::new().key(&key).avoid(&tried);
                let picked = policy.pick(&table, &loads, &request, Tick::ZERO, &mut rng).unwrap();
                let left: Vec<Member> = members.iter().filter(|m| !tried.contains(m.id())).cloned().collect();
                let home = owner(&policy.table(&left), policy.layout.key(&key));
                assert_eq!(members[picked].id(), left[home].id());
                tried.push(members[picked].id().clone());
            }
            let request = Request::new().key(&key).avoid(&tried);
            let picked = policy.pick(&table, &loads, &request, Tick::ZERO, &mut rng);
            assert_eq!(picked, Some(owner(&table, policy.layout.key(&key))));
        }
    }

    #[test]
    fn without_a_key_shares_are_even() {
        let (policy, members) = (Ring::default(), alike(4));
        let (table, loads, mut rng) = (policy.table(&members), loads(&members), Rng::seeded(3));
        let mut counts = [0_u32; 4];
        for _ in 0..40_000 {
            counts[policy
                .pick(&table, &loads, &Request::new(), Tick::ZERO, &mut rng)
                .unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_400..10_600).contains(count)), "{counts:?}");
    }

    proptest! {
        /// At every point and just after every point, which is all of the circle.
        #[test]
        fn only_the_keys_of_the_one_that_leaves_move(
            weights in prop::collection::vec(1_u32..9, 2..12),
            gone in any::<prop::sample::Index>(),
        ) {
            // Two of the heaviest, so that one of them remains.
            let weights: Vec<u32> = weights.into_iter().chain([9, 9]).collect();
            let all = named((0..).zip(weights));
            let gone = gone.index(all.len());
            let mut left = all.clone();
            left.remove(gone);
            let policy = Ring::with_points(40);
            let (before, after) = (policy.table(&all), policy.table(&left));
            for (point, _) in before.points().chain(after.points()) {
                for place in [point, point.wrapping_add(1)] {
                    let (was, is) = (owner(&before, place), owner(&after, place));
                    prop_assert!(was == gone || all[was].id() == left[is].id(), "{place} moved");
                }
            }
        }

        #[test]
        fn finds_the_next_point(places in prop::collection::vec(any::<u64>(), 1..50), keys in prop::collection::vec(any::<u64>(), 20)) {
            let points: Vec<Point> = places.iter().map(|&place| Point { place, owner: 0 }).collect();
            let table = RingTable::new(&points, &[0], Weights::new(&[]));
            let mut sorted = places.clone();
            sorted.sort_unstable();
            prop_assert!(table.points().map(|point| point.0).eq(sorted.iter().copied()));
            let near = places.iter().flat_map(|place| [place.wrapping_sub(1), *place, place.wrapping_add(1)]);
            for key in keys.into_iter().chain(near).chain([0, u64::MAX]) {
                let want = sorted.iter().position(|&place| place >= key).unwrap_or(0);
                prop_assert_eq!(sorted[table.point_of(key)], sorted[want]);
            }
        }
    }
}

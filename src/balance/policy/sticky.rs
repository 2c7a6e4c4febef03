use super::places::{Places, name};
use crate::balance::{Balancer, Completion, Load, Member, Request, ServerLoad, Timing};
use crate::env::{Rng, Tick};
use crate::hash::KeyedHash;
use crate::sync::{CachePadded, Mutex, OnceLock};
use ::lru::LruCache;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Keeps requests of one [key](Request::key) at the endpoint that the first of them got, whatever the policy within would say
/// later: for sessions, warm caches, and connections that are dear to open.
///
/// A key moves only when its endpoint leaves, is drained or ejected, or when a request avoids it; the policy within then
/// chooses anew, and the key stays with that one even if the other comes back. Endpoints that join get new keys only. A request
/// without a key goes where the policy within sends it. Hashing policies do without a memory, and so agree between processes;
/// this one remembers, and so moves no key without need.
///
/// It remembers the [`capacity`](Sticky::capacity) keys that were used last, as 64-bit hashes under a secret of its own; one that
/// it has forgotten is placed as if it were new. Where a pool has zones or priorities, a key has a home in each of the two parts that
/// it was in last. A pick takes the lock of one shard of 16, for some tens of nanoseconds. A key takes about 140 bytes, a
/// quarter of it from the start; only a key that is new allocates, and none once the memory is full.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Request, RoundRobin, Sticky};
/// let pool = Pool::builder(Sticky::new(RoundRobin::default()))
///     .endpoints(["a", "b", "c"].map(Endpoint::new))
///     .build();
/// let home = || pool.pick(&Request::new().key("user-7")).map(|lease| lease.id().clone());
/// let first = home()?;
/// pool.add(Endpoint::new("d"));
/// assert_eq!(home()?, first);
/// pool.drain(&first);
/// let second = home()?;
/// assert_ne!(second, first);
/// pool.enable(&first);
/// assert_eq!(home()?, second);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Sticky<B> {
    inner: B,
    idle: Option<Duration>,
    shards: Box<[Shard]>,
    /// Hashes keys under a secret, so that nobody can choose keys that fall together.
    secret: OnceLock<KeyedHash>,
}

type Shard = CachePadded<Mutex<LruCache<u64, Home, BuildHasherDefault<Itself>>>>;

/// Keys that are remembered by default.
const CAPACITY: usize = 65_536;
/// The most shards, and the fewest keys that are worth one.
const SHARDS: usize = 16;
const WORTH: usize = 256;

impl<B: Balancer> Sticky<B> {
    /// Places keys by `inner`, and remembers 65,536 of them.
    #[must_use]
    pub fn new(inner: B) -> Sticky<B> {
        Sticky {
            inner,
            idle: None,
            shards: shards(CAPACITY),
            secret: OnceLock::new(),
        }
    }

    /// Remembers so many keys, at least one: 65,536 by default. They are divided among the shards, each of which forgets the
    /// one that was not used for the longest.
    #[must_use]
    pub fn capacity(mut self, keys: usize) -> Sticky<B> {
        self.shards = shards(keys);
        self
    }

    /// Forgets a key that was not used for longer than `idle`; by default none until the memory is full. It needs the coarse
    /// clock at each pick.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Sticky<B> {
        self.idle = Some(idle);
        self
    }

    fn hash(&self, key: &[u8], rng: &mut Rng) -> u64 {
        let secret = self
            .secret
            .get_or_init(|| KeyedHash::new(rng.next_u64(), rng.next_u64()));
        secret.hash(key)
    }
}

fn shards(keys: usize) -> Box<[Shard]> {
    let keys = keys.max(1);
    let shards = (keys / WORTH).clamp(1, SHARDS);
    let each = NonZeroUsize::new(keys.div_ceil(shards)).expect("there is at least one key");
    let shard = |_| CachePadded::new(Mutex::new(LruCache::with_hasher(each, BuildHasherDefault::default())));
    (0..shards).map(shard).collect()
}

/// The endpoints of a key.
#[derive(Clone, Copy, Debug)]
struct Home {
    /// The one of the last request, and that of another part of the pool; 0 is nobody.
    names: [u64; 2],
    used: Tick,
}

impl Home {
    /// Where it is among the endpoints of this part, which it then was used in last.
    fn find(&mut self, places: &Places) -> Option<usize> {
        let [last, other] = self.names;
        places.of(last).or_else(|| {
            let found = places.of(other)?;
            self.names = [other, last];
            Some(found)
        })
    }

    /// Moves to `name` from one of this part, if it was at one.
    fn move_to(&mut self, name: u64, from: bool) {
        let [last, other] = self.names;
        self.names = [name, if from { other } else { last }];
    }
}

impl<B: Balancer> Balancer for Sticky<B> {
    type Table = StickyTable<B::Table>;

    fn table(&self, members: &[Member]) -> Self::Table {
        StickyTable {
            places: Places::new(members),
            inner: self.inner.table(members),
        }
    }

    fn pick(
        &self,
        table: &Self::Table,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let Some(key) = request.key else {
            return self.inner.pick(&table.inner, loads, request, now, rng);
        };
        let hash = self.hash(key, rng);
        // Bits that the map of the shard does not begin with. The lock is held until the key has a home, so that requests of
        // one key that come at once agree.
        let mut shard = self.shards[(hash >> 40) as usize % self.shards.len()].lock();
        let is_idle = |home: &Home| self.idle.is_some_and(|idle| now - home.used > idle);
        let Some(home) = shard.get_mut(&hash).filter(|home| !is_idle(home)) else {
            let i = self.inner.pick(&table.inner, loads, request, now, rng)?;
            let names = [name(loads.get(i)?.id()), 0];
            shard.put(hash, Home { names, used: now });
            return Some(i);
        };
        home.used = now;
        let at = home.find(&table.places);
        if let Some(at) = at.filter(|&at| !request.avoids(&loads[at])) {
            return Some(at);
        }
        let i = self.inner.pick(&table.inner, loads, request, now, rng)?;
        let load = loads.get(i)?;
        if let Some(at) = at.filter(|_| request.avoids(load)) {
            return Some(at); // All were tried.
        }
        home.move_to(name(load.id()), at.is_some());
        Some(i)
    }

    #[inline]
    fn begin(&self, load: &Load) {
        self.inner.begin(load);
    }

    #[inline]
    fn finish(&self, load: &Load, done: &Completion) {
        self.inner.finish(load, done);
    }

    fn report(&self, load: &Load, said: &ServerLoad, now: Tick) {
        self.inner.report(load, said, now);
    }

    fn timing(&self) -> Timing {
        match self.inner.timing() {
            Timing::Never if self.idle.is_some() => Timing::Sampled,
            timing => timing,
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for Sticky<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky")
            .field("inner", &self.inner)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// The table of the policy within, and where the endpoints are.
#[derive(Debug)]
pub struct StickyTable<I> {
    places: Places,
    inner: I,
}

/// What is a hash already is its own.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are 64-bit numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::super::RoundRobin;
    use super::super::testing::{loads, members};
    use super::*;
    use crate::balance::EndpointId;
    use crate::env::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A policy over endpoints by number, some of which may be out.
    struct Bench {
        policy: Sticky<RoundRobin>,
        all: Vec<Member>,
        loads: Vec<Arc<Load>>,
        out: Vec<usize>,
        rng: Rng,
        now: Tick,
    }

    impl Bench {
        fn new(policy: Sticky<RoundRobin>, endpoints: usize) -> Bench {
            let all = members(&vec![1; endpoints]);
            Bench {
                policy,
                loads: loads(&all),
                all,
                out: Vec::new(),
                rng: Rng::seeded(1),
                now: Tick::ZERO,
            }
        }

        fn id(&self, endpoint: usize) -> EndpointId {
            self.all[endpoint].id().clone()
        }

        /// Picks among those of `part` that are not out.
        fn pick_in(&mut self, part: std::ops::Range<usize>, key: u8, avoid: &[EndpointId]) -> usize {
            let left: Vec<usize> = part.filter(|i| !self.out.contains(i)).collect();
            let members: Vec<Member> = left.iter().map(|&i| self.all[i].clone()).collect();
            let loads: Vec<Arc<Load>> = left.iter().map(|&i| Arc::clone(&self.loads[i])).collect();
            let table = self.policy.table(&members);
            let key = [key];
            let request = Request::new().key(&key).avoid(avoid);
            left[self
                .policy
                .pick(&table, &loads, &request, self.now, &mut self.rng)
                .unwrap()]
        }

        fn pick(&mut self, key: u8, avoid: &[EndpointId]) -> usize {
            self.pick_in(0..self.all.len(), key, avoid)
        }
    }

    #[test]
    fn keys_spread_and_stay() {
        let mut bench = Bench::new(Sticky::new(RoundRobin::default()), 4);
        let homes: Vec<usize> = (0..40).map(|key| bench.pick(key, &[])).collect();
        for endpoint in 0..4 {
            assert_eq!(homes.iter().filter(|home| **home == endpoint).count(), 10);
        }
        let again: Vec<usize> = (0..40).map(|key| bench.pick(key, &[])).collect();
        assert_eq!(homes, again);
    }

    #[test]
    fn one_that_was_moved_does_not_go_back() {
        let mut bench = Bench::new(Sticky::new(RoundRobin::default()), 3);
        let first = bench.pick(1, &[]);
        bench.out = vec![first];
        let second = bench.pick(1, &[]);
        assert_ne!(second, first);
        bench.out.clear();
        assert_eq!(bench.pick(1, &[]), second);

        let third = bench.pick(1, &[bench.id(second)]);
        assert_ne!(third, second);
        assert_eq!(bench.pick(1, &[]), third, "a request that avoided it moved it");
        let all: Vec<_> = (0..3).map(|i| bench.id(i)).collect();
        assert_eq!(bench.pick(1, &all), third, "where all were tried it stays");
    }

    #[test]
    fn a_key_has_a_home_in_each_of_two_parts() {
        let mut bench = Bench::new(Sticky::new(RoundRobin::default()), 6);
        let homes = [bench.pick_in(0..3, 1, &[]), bench.pick_in(3..6, 1, &[])];
        for _ in 0..5 {
            assert_eq!([bench.pick_in(0..3, 1, &[]), bench.pick_in(3..6, 1, &[])], homes);
        }
        bench.out = vec![homes[0]];
        let moved = bench.pick_in(0..3, 1, &[]);
        assert_eq!(bench.pick_in(3..6, 1, &[]), homes[1]);
        bench.out.clear();
        assert_eq!(
            [bench.pick_in(0..3, 1, &[]), bench.pick_in(3..6, 1, &[])],
            [moved, homes[1]]
        );
    }

    #[test]
    fn an_idle_key_is_placed_anew() {
        let idle = Duration::from_secs(10);
        let mut bench = Bench::new(Sticky::new(RoundRobin::default()).idle(idle), 3);
        assert_eq!(bench.policy.timing(), Timing::Sampled);
        let first = bench.pick(1, &[]);
        for _ in 0..5 {
            bench.now = bench.now + idle;
            assert_eq!(bench.pick(1, &[]), first);
        }
        bench.now = bench.now + idle + Duration::from_nanos(1);
        assert_ne!(bench.pick(1, &[]), first, "round robin went on");
        assert_eq!(Sticky::new(RoundRobin::default()).timing(), Timing::Never);
    }

    #[test]
    fn capacities_are_kept() {
        for capacity in [0, 1, 255, 256, 1_000, 100_000] {
            let shards = shards(capacity);
            let room: usize = shards.iter().map(|shard| shard.lock().cap().get()).sum();
            assert!(
                room >= capacity && room <= capacity.max(1) + SHARDS,
                "{room} for {capacity}"
            );
        }
    }

    proptest! {
        /// Against a list of who was where, in order of use.
        #[test]
        fn does_what_the_model_does(
            capacity in 1_usize..12,
            steps in prop::collection::vec((0_u8..16, 0_usize..5, 0_u8..8), 1..200),
        ) {
            let mut bench = Bench::new(Sticky::new(RoundRobin::default()).capacity(capacity), 5);
            let (mut homes, mut order) = (BTreeMap::<u8, usize>::new(), Vec::<u8>::new());
            for (key, endpoint, what) in steps {
                let avoid = match what {
                    0 if bench.out.len() < 3 && !bench.out.contains(&endpoint) => {
                        bench.out.push(endpoint);
                        continue;
                    }
                    1 => {
                        bench.out.retain(|out| *out != endpoint);
                        continue;
                    }
                    2 => vec![bench.id(endpoint)],
                    _ => Vec::new(),
                };
                let picked = bench.pick(key, &avoid);
                prop_assert!(!bench.out.contains(&picked));
                prop_assert!(avoid.is_empty() || picked != endpoint);
                if let Some(&home) = homes.get(&key) {
                    let stays = !bench.out.contains(&home) && (avoid.is_empty() || home != endpoint);
                    prop_assert!(!stays || picked == home, "{key} was at {home}");
                }
                order.retain(|other| *other != key);
                order.push(key);
                homes.insert(key, picked);
                if order.len() > capacity {
                    homes.remove(&order.remove(0));
                }
            }
        }
    }
}

use super::{next_untried, smooth};
use crate::balance::{Balancer, Load, Member, Request};
use crate::env::{Rng, Tick};
use crate::sync::{AtomicU64, CachePadded, Ordering, STRIPES, stripe};
use std::sync::Arc;

/// Round robin: one endpoint after the other, from a random one on. Ignores weights.
///
/// Every thread goes round by itself, from a place of its own, so that threads share nothing: within one membership each run
/// of as many picks of one thread as there are endpoints takes each of them once. (There are 16 places; more threads than that
/// share them.) 2 KiB.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Request, RoundRobin};
/// let pool = Pool::builder(RoundRobin::default()).endpoints(["a", "b", "c"].map(Endpoint::new)).build();
/// let mut ids: Vec<_> = (0..3).filter_map(|_| Some(pool.pick(&Request::new()).ok()?.id().to_string())).collect();
/// ids.sort();
/// assert_eq!(ids, ["a", "b", "c"]);
/// ```
#[derive(Debug, Default)]
pub struct RoundRobin {
    turns: Turns,
}

impl RoundRobin {
    /// Where all threads go round together: each run of as many picks as there are endpoints takes each of them once, whoever
    /// picks. They share one counter, which is what a pick costs when many threads pick at once.
    #[must_use]
    pub fn exact() -> RoundRobin {
        RoundRobin { turns: Turns::shared() }
    }
}

impl Balancer for RoundRobin {
    type Table = ();

    fn table(&self, _: &[Member]) {}

    #[inline(always)]
    fn pick(&self, (): &(), loads: &[Arc<Load>], request: &Request<'_>, _: Tick, rng: &mut Rng) -> Option<usize> {
        let i = self.turns.next(rng, loads.len());
        if request.avoid.is_empty() {
            return Some(i);
        }
        next_untried(loads, request, i).or(Some(i))
    }
}

/// Smooth weighted round robin: nginx's sequence, from a random place of its cycle on.
///
/// A cycle has each endpoint exactly as often as its weight says and as far apart as possible: weights 5, 1, 1 give
/// a a b a c a a. With equal weights it is plain [`RoundRobin`].
///
/// Every thread goes through the cycle by itself, as in [`RoundRobin`]. It is worked out when the membership changes and takes 4
/// bytes per turn. It has as many turns as the weights add up to once their common divisor is taken out, at most 65,536 turns,
/// and fewer beyond 128 endpoints (8,388,608 divided by their number, but not fewer than their number). Weights that
/// need more are brought down in proportion, to the nearest that fit.
#[derive(Debug, Default)]
pub struct SmoothWeighted {
    turns: Turns,
}

impl SmoothWeighted {
    /// Where all threads go through the cycle together, so that the shares are exact over each cycle of their picks in all; see
    /// [`RoundRobin::exact`].
    ///
    /// ```
    /// use outgrow::balance::{Endpoint, Pool, Request, SmoothWeighted};
    /// let pool = Pool::builder(SmoothWeighted::exact())
    ///     .endpoints([Endpoint::new("a").weight(5), Endpoint::new("b")])
    ///     .build();
    /// let picks = (0..60).filter(|_| pool.pick(&Request::new()).is_ok_and(|lease| &**lease.id() == "a"));
    /// assert_eq!(picks.count(), 50);
    /// ```
    #[must_use]
    pub fn exact() -> SmoothWeighted {
        SmoothWeighted { turns: Turns::shared() }
    }
}

impl Balancer for SmoothWeighted {
    /// The cycle: a position for each turn.
    type Table = Box<[u32]>;

    fn table(&self, members: &[Member]) -> Box<[u32]> {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        smooth::cycle(&weights)
    }

    #[inline(always)]
    fn pick(
        &self,
        cycle: &Box<[u32]>,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        _: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let turn = self.turns.next(rng, cycle.len());
        if request.avoid.is_empty() {
            return Some(cycle[turn] as usize);
        }
        let mut turns = cycle[turn..].iter().chain(&cycle[..turn]).map(|&i| i as usize);
        turns
            .find(|&i| !request.avoids(&loads[i]))
            .or(Some(cycle[turn] as usize))
    }
}

/// The turns of all threads.
#[derive(Debug)]
enum Turns {
    /// One for each stripe of threads.
    Striped(Box<[CachePadded<Turn>; STRIPES]>),
    Shared(CachePadded<Turn>),
}

impl Turns {
    fn shared() -> Turns {
        Turns::Shared(CachePadded::default())
    }

    #[inline]
    fn next(&self, rng: &mut Rng, len: usize) -> usize {
        let turn = match self {
            Turns::Striped(turns) => &turns[stripe()],
            Turns::Shared(turn) => turn,
        };
        turn.next(rng, len)
    }
}

impl Default for Turns {
    fn default() -> Turns {
        Turns::Striped(Box::new(std::array::from_fn(|_| CachePadded::default())))
    }
}

/// Whose turn it is. Starts at a random place, or else every restart and every client would begin with the first
/// endpoint; carries on over changes of the membership, for the same reason.
#[derive(Debug)]
struct Turn(AtomicU64);

impl Turn {
    #[inline]
    fn next(&self, rng: &mut Rng, len: usize) -> usize {
        let mut turn = self.0.fetch_add(1, Ordering::Relaxed);
        if turn >= UNSET {
            turn = self.start(rng);
        }
        (turn % len as u64) as usize
    }

    #[cold]
    fn start(&self, rng: &mut Rng) -> u64 {
        // Leaves more turns before `UNSET` than any process takes.
        let start = rng.next_u64() >> 2;
        let set = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |turn| {
            (turn >= UNSET).then_some(start + 1)
        });
        match set {
            Ok(_) => start,
            Err(_) => self.0.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Counts from here on are those of a turn that has no start yet.
const UNSET: u64 = 1 << 63;

impl Default for Turn {
    fn default() -> Turn {
        Turn(AtomicU64::new(UNSET))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{loads, members};
    use super::*;

    /// What `policy` picks for `requests` one after the other.
    fn picks<B: Balancer>(policy: &B, weights: &[u32], seed: u64, requests: &[Request<'_>]) -> Vec<usize> {
        let members = members(weights);
        let (table, loads) = (policy.table(&members), loads(&members));
        let mut rng = Rng::seeded(seed);
        let picks = requests
            .iter()
            .map(|request| policy.pick(&table, &loads, request, Tick::ZERO, &mut rng));
        picks.collect::<Option<_>>().unwrap()
    }

    #[test]
    fn every_round_takes_each_once() {
        for seed in 0..20 {
            let picks = picks(&RoundRobin::default(), &[1, 9, 1, 1, 1], seed, &[Request::new(); 23]);
            assert!(picks.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 5), "{picks:?}");
        }
    }

    #[test]
    fn starts_anywhere() {
        let mut starts: Vec<_> = (0..50)
            .map(|seed| picks(&RoundRobin::default(), &[1; 5], seed, &[Request::new()])[0])
            .collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn carries_on_over_a_change_of_the_membership() {
        let policy = RoundRobin::default();
        let before = picks(&policy, &[1; 4], 1, &[Request::new(); 2]);
        let after = picks(&policy, &[1; 4], 2, &[Request::new(); 2]);
        assert_eq!(after[0], (before[1] + 1) % 4);
    }

    /// What four threads get, each for 1,000 picks among five.
    fn counts_of_threads(policy: &RoundRobin) -> ([usize; 5], Vec<Vec<usize>>) {
        #![allow(clippy::disallowed_methods, reason = "real threads are the subject")]
        let all: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|seed| scope.spawn(move || picks(policy, &[1; 5], seed, &[Request::new(); 1000])))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut counts = [0; 5];
        all.iter().flatten().for_each(|&i| counts[i] += 1);
        (counts, all)
    }

    #[test]
    fn threads_share_exact_rounds() {
        assert_eq!(counts_of_threads(&RoundRobin::exact()).0, [800; 5]);
    }

    #[test]
    fn threads_go_round_by_themselves() {
        let (counts, all) = counts_of_threads(&RoundRobin::default());
        assert_eq!(counts, [800; 5]);
        // Unless they fell on one stripe, as other threads of the test program may make them.
        let in_order = |picks: &&Vec<usize>| picks.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 5);
        assert!(all.iter().filter(in_order).count() >= 2);
    }

    #[test]
    fn weighted_is_a_rotation_of_the_smooth_cycle() {
        for seed in 0..20 {
            let picks = picks(&SmoothWeighted::default(), &[5, 1, 1], seed, &[Request::new(); 21]);
            let cycle = [0, 0, 1, 0, 2, 0, 0];
            let rotated = |by: usize| (0..21).map(|i| cycle[(i + by) % 7]).eq(picks.iter().copied());
            assert!((0..7).any(rotated), "{picks:?}");
        }
    }

    #[test]
    fn the_next_untried_takes_the_turn() {
        let tried = ["e0".into(), "e1".into()];
        let avoid = Request::new().avoid(&tried);
        assert_eq!(picks(&RoundRobin::default(), &[1; 3], 1, &[avoid; 6]), [2; 6]);
        assert_eq!(picks(&SmoothWeighted::default(), &[9, 5, 1], 1, &[avoid; 6]), [2; 6]);
        let two = picks(
            &SmoothWeighted::default(),
            &[5, 1, 1],
            1,
            &[Request::new().avoid(&tried[..1]); 14],
        );
        assert!(two.iter().all(|&i| i != 0));
    }

    #[test]
    fn a_tried_one_is_better_than_none() {
        let tried: Vec<_> = ["e0", "e1", "e2"].map(Into::into).to_vec();
        let round = [Request::new().avoid(&tried); 3];
        let mut picks = picks(&RoundRobin::default(), &[1; 3], 1, &round);
        picks.sort_unstable();
        assert_eq!(picks, [0, 1, 2]);
    }
}

use super::bound::{Bound, Weights, first_fit};
use crate::balance::{Balancer, Completion, Load, Member, Request};
use crate::env::{Rng, Tick};
use crate::hash::KeyedHash;
use std::fmt;
use std::sync::Arc;

/// Maglev hashing: requests with the same [key](Request::key) go to the same endpoint, and few move when the endpoints
/// change (Eisenbud and others, NSDI 2016).
///
/// A table of a prime number of slots is dealt out to the endpoints, each taking its turn at the slots of its own
/// preference, so that shares differ by little and follow the weights; a pick is one look into it. When one of ten endpoints
/// leaves, at most 5 % more keys move than have to; with many endpoints it is more, and a larger table helps. The table
/// depends on the ids and weights only, not on their order, so processes agree without talking. A request without a key
/// goes to a random slot.
///
/// A request that avoids the endpoint of its key goes to that of another slot, always the same, so that retries of one key
/// meet again.
///
/// Four bytes a slot. The table is built anew, in time in proportion to its size and some milliseconds at most for the default
/// one, whenever the endpoints that may be picked change.
///
/// ```
/// use outgrow::balance::{Endpoint, Maglev, Pool, Request};
/// let pool = Pool::builder(Maglev::default())
///     .endpoints(["a", "b", "c"].map(Endpoint::new))
///     .build();
/// let home = || pool.pick(&Request::new().key(b"user-7")).map(|lease| lease.id().clone());
/// assert_eq!(home()?, home()?);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Maglev {
    slots: u32,
    /// SipHash-1-3 with none, which is no call then.
    hash: Option<PointHash>,
    bound: Option<Bound>,
}

/// A hash of some bytes under a seed, for [`Maglev::hash`].
type PointHash = Box<dyn Fn(&[u8], u64) -> u64 + Send + Sync>;

/// A table cannot have that many slots; see [`Maglev::with_slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a Maglev table has a prime number of slots, from {} to {}, and {slots} is none; try {nearest}",
    Maglev::LEAST,
    Maglev::MOST
)]
#[non_exhaustive]
pub struct BadTableSize {
    /// What was asked for.
    pub slots: u32,
    /// The nearest number that would do.
    pub nearest: u32,
}

/// Slots of a table by default.
const SLOTS: u32 = 65_537;
/// Slots that are looked at for an endpoint that a request does not avoid, before the next one is taken.
const ATTEMPTS: u64 = 8;

impl Maglev {
    /// The fewest slots that a table may have.
    pub const LEAST: u32 = 3;
    /// The most slots that a table may have.
    pub const MOST: u32 = 5_000_011;

    /// With so many slots, a prime from [`LEAST`](Maglev::LEAST) to [`MOST`](Maglev::MOST). Default: 65,537. A hundred
    /// times the number of endpoints keeps their shares within a few percent. With fewer slots than endpoints some get no
    /// request with a key.
    ///
    /// # Errors
    /// [`BadTableSize`] for any other number; it names the nearest that would do.
    ///
    /// ```
    /// use outgrow::balance::Maglev;
    /// assert!(Maglev::with_slots(655_373).is_ok());
    /// assert_eq!(Maglev::with_slots(8).unwrap_err().nearest, 7);
    /// ```
    pub fn with_slots(slots: u32) -> Result<Maglev, BadTableSize> {
        let slots_within = slots.clamp(Maglev::LEAST, Maglev::MOST);
        let nearest = (0..).find_map(|off| {
            let below = Some(slots_within.saturating_sub(off)).filter(|n| *n >= Maglev::LEAST);
            let above = Some(slots_within + off).filter(|n| *n <= Maglev::MOST);
            [below, above].into_iter().flatten().find(|n| is_prime(*n))
        });
        let nearest = nearest.expect("there are primes in between");
        if nearest != slots {
            return Err(BadTableSize { slots, nearest });
        }
        Ok(Maglev {
            slots,
            ..Maglev::default()
        })
    }

    /// Hashes ids and keys with `hash`, which gets the bytes and a seed, instead of SipHash-1-3: for a table that others
    /// build too. An id's turn begins at its hash under seed 0, and its steps follow from that under seed 1, as in Envoy;
    /// a key's slot is its hash under seed 0.
    #[must_use]
    pub fn hash(mut self, hash: impl Fn(&[u8], u64) -> u64 + Send + Sync + 'static) -> Maglev {
        self.hash = Some(Box::new(hash));
        self
    }

    /// Passes an endpoint over, for that of another slot, that would have more in flight with this request than `factor` times the
    /// average, rounded up; see [`Ring::bounded_load`](super::Ring::bounded_load). By default there is no bound.
    #[must_use]
    pub fn bounded_load(mut self, factor: f64) -> Maglev {
        self.bound = Some(Bound::new(factor));
        self
    }

    #[inline]
    fn hash_of(&self, bytes: &[u8], seed: u64) -> u64 {
        match &self.hash {
            Some(hash) => hash(bytes, seed),
            None => KeyedHash::new(0, seed).hash(bytes),
        }
    }

    fn turns(&self, member: &Member) -> Turns {
        let slots = u64::from(self.slots);
        let id = member.id().as_bytes();
        Turns {
            next: (self.hash_of(id, 0) % slots) as u32,
            step: (self.hash_of(id, 1) % (slots - 1)) as u32 + 1,
            slots: self.slots,
        }
    }
}

impl Default for Maglev {
    fn default() -> Maglev {
        Maglev {
            slots: SLOTS,
            hash: None,
            bound: None,
        }
    }
}

impl fmt::Debug for Maglev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maglev")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl Balancer for Maglev {
    type Table = MaglevTable;

    fn table(&self, members: &[Member]) -> MaglevTable {
        let slots = self.deal(members);
        MaglevTable {
            per_slot: u64::MAX / (slots.len() as u64).max(1),
            slots,
            weights: Weights::new(members),
        }
    }

    #[inline(always)]
    fn pick(
        &self,
        table: &MaglevTable,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        _: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let hash = request.key.map_or_else(|| rng.next_u64(), |key| self.hash_of(key, 0));
        let at = |hash| table.at(hash);
        let first = at(hash);
        // As in Envoy, so that whoever shares its table shares its second choices; then one after the other.
        let others = || {
            let slots = (0..ATTEMPTS).map(|attempt| at(hash ^ attempt.wrapping_neg()));
            slots.chain(first..loads.len()).chain(0..first)
        };
        let room = self.bound.as_ref().map(|bound| bound.room(&table.weights));
        Some(first_fit(first, others, loads, request, room))
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

/// The slots of a [`Maglev`] table.
#[derive(Debug)]
pub struct MaglevTable {
    slots: Box<[u32]>,
    /// 2^64 by the number of slots.
    per_slot: u64,
    weights: Weights,
}

impl MaglevTable {
    /// The position of the endpoint of each slot.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = usize> {
        self.slots.iter().map(|&i| i as usize)
    }

    /// The position of the endpoint of the slot that is the rest of `hash` by their number, worked out without a division:
    /// the quotient that the reciprocal gives is right or one too low, where the number is no power of two.
    #[inline]
    fn at(&self, hash: u64) -> usize {
        let slots = self.slots.len() as u64;
        let quotient = ((u128::from(hash) * u128::from(self.per_slot)) >> 64) as u64;
        let rest = hash - quotient * slots;
        self.slots[if rest < slots { rest } else { rest - slots } as usize] as usize
    }
}

impl Maglev {
    /// Deals the slots out.
    fn deal(&self, members: &[Member]) -> Box<[u32]> {
        // Where there is nobody to deal to, nobody picks.
        let Some(heaviest) = members.iter().map(|member| u64::from(member.weight)).max() else {
            return Box::default();
        };
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_unstable_by(|a, b| members[*a].id().cmp(members[*b].id()));
        let mut turns: Vec<(usize, Turns, u64)> = order.into_iter().map(|i| (i, self.turns(&members[i]), 0)).collect();
        let mut table = vec![NOBODY; self.slots as usize];
        let mut left = table.len();
        for round in 1.. {
            for (i, turns, due) in &mut turns {
                if left == 0 {
                    return table.into_boxed_slice();
                }
                // The heaviest takes a slot in every round, and each of the others when its weight has added up to that.
                if round * u64::from(members[*i].weight) < *due {
                    continue;
                }
                *due += heaviest;
                let slot = turns.find(|slot| table[*slot as usize] == NOBODY);
                table[slot.expect("a turn passes every slot") as usize] = *i as u32;
                left -= 1;
            }
        }
        unreachable!("every round deals out a slot")
    }
}

const NOBODY: u32 = u32::MAX;

/// The slots in the order in which an endpoint wants them: each comes once in as many as there are.
struct Turns {
    next: u32,
    step: u32,
    slots: u32,
}

impl Iterator for Turns {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let slot = self.next;
        self.next = ((u64::from(slot) + u64::from(self.step)) % u64::from(self.slots)) as u32;
        Some(slot)
    }
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::super::testing::loads;
    use super::*;
    use crate::balance::{Endpoint, EndpointId};

    fn named(ids: impl IntoIterator<Item = (usize, u32)>) -> Vec<Member> {
        let member = |(id, weight)| Member::from(&Endpoint::new(format!("10.0.0.{id}:80")).weight(weight));
        ids.into_iter().map(member).collect()
    }

    fn alike(n: usize) -> Vec<Member> {
        named((0..n).map(|id| (id, 1)))
    }

    fn shares(table: &[u32], members: usize) -> Vec<usize> {
        let mut shares = vec![0; members];
        table.iter().for_each(|&i| shares[i as usize] += 1);
        shares
    }

    #[test]
    fn shares_differ_by_little_and_follow_the_weights() {
        for n in [1, 2, 10, 100, 1_000] {
            let shares = shares(&Maglev::default().deal(&alike(n)), n);
            let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
            assert!(most - least <= 1, "{least} to {most} slots of {n}");
        }
        let weights = [1, 2, 3, 4, 30];
        let shares = shares(&Maglev::default().deal(&named((0..).zip(weights))), weights.len());
        for (share, weight) in shares.into_iter().zip(weights) {
            let expected = f64::from(SLOTS) * f64::from(weight) / 40.0;
            assert!(
                (share as f64 - expected).abs() <= 2.0 + expected / 100.0,
                "{share} of {expected}"
            );
        }
    }

    #[test]
    fn nobody_has_no_slots() {
        assert_eq!(Maglev::default().table(&[]).slots().len(), 0);
    }

    #[test]
    fn the_order_of_the_endpoints_does_not_matter() {
        let members = named([(3, 1), (1, 5), (4, 2), (2, 7)]);
        let mut turned = members.clone();
        turned.rotate_left(1);
        let ids = |table: &[u32], members: &[Member]| -> Vec<EndpointId> {
            table.iter().map(|&i| members[i as usize].id().clone()).collect()
        };
        let policy = Maglev::with_slots(1_009).unwrap();
        assert_eq!(
            ids(&policy.deal(&members), &members),
            ids(&policy.deal(&turned), &turned)
        );
    }

    #[test]
    fn few_keys_move_when_one_leaves() {
        // As a multiple of those that have to.
        for (n, most) in [(10, 1.05), (100, 1.6)] {
            let (policy, all) = (Maglev::default(), alike(n));
            let before = policy.deal(&all);
            let mut moved = 0;
            for gone in [0, n / 2, n - 1] {
                let left: Vec<Member> = all
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != gone)
                    .map(|(_, m)| m.clone())
                    .collect();
                let after = policy.deal(&left);
                let same = |(was, is): (&u32, &u32)| all[*was as usize].id() == left[*is as usize].id();
                moved += before.iter().zip(&after).filter(|pair| !same(*pair)).count();
            }
            let least = 3.0 * f64::from(SLOTS) / n as f64;
            assert!(
                (moved as f64) < most * least,
                "{moved} slots of {n} moved, and {least:.0} had to"
            );
        }
    }

    #[test]
    fn a_key_stays_and_what_was_tried_is_avoided() {
        let (policy, members) = (Maglev::with_slots(251).unwrap(), alike(5));
        let (table, loads, mut rng) = (policy.table(&members), loads(&members), Rng::seeded(1));
        for key in 0..200_u32 {
            let key = key.to_le_bytes();
            let mut tried: Vec<EndpointId> = Vec::new();
            for _ in 0..members.len() {
                let request = Request::new().key(&key).avoid(&tried);
                let picked = policy.pick(&table, &loads, &request, Tick::ZERO, &mut rng).unwrap();
                assert_eq!(
                    policy.pick(&table, &loads, &request, Tick::ZERO, &mut rng),
                    Some(picked)
                );
                assert!(!request.avoids(&loads[picked]));
                tried.push(loads[picked].id().clone());
            }
            let request = Request::new().key(&key).avoid(&tried);
            assert!(policy.pick(&table, &loads, &request, Tick::ZERO, &mut rng).is_some());
        }
    }

    #[test]
    fn without_a_key_shares_are_even() {
        let (policy, members) = (Maglev::default(), alike(4));
        let (table, loads, mut rng) = (policy.table(&members), loads(&members), Rng::seeded(3));
        let mut counts = [0_u32; 4];
        for _ in 0..40_000 {
            counts[policy
                .pick(&table, &loads, &Request::new(), Tick::ZERO, &mut rng)
                .unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_400..10_600).contains(count)), "{counts:?}");
    }

    #[test]
    fn other_sizes_are_refused_with_one_that_would_do() {
        for (slots, nearest) in [(0, 3), (4, 3), (8, 7), (65_536, 65_537), (u32::MAX, Maglev::MOST)] {
            let refused = Maglev::with_slots(slots).unwrap_err();
            assert_eq!((refused.slots, refused.nearest), (slots, nearest));
            assert!(Maglev::with_slots(nearest).is_ok());
        }
    }
}

use crate::balance::Load;
use crate::env::Rng;
use crate::sync::{AtomicU32, Ordering::Relaxed};
use std::fmt;
use std::sync::Arc;

/// The most endpoints whose costs are kept side by side.
pub(super) const MOST: usize = BLOCK * BLOCKS;
/// Costs that are looked at together.
const BLOCK: usize = 1 << BITS;
const BITS: u32 = 4;
const BLOCKS: usize = 8;

/// The costs of the endpoints with the lowest [slots](Load::slot), slot by slot, so that a look at all of them is a look at
/// a few cache lines. They are bits of an `f32`, which for numbers that are not negative are in the same order, with the
/// lowest [`BITS`] left empty.
pub(super) struct DenseCosts(Box<[[AtomicU32; BLOCK]; BLOCKS]>);

impl Default for DenseCosts {
    fn default() -> DenseCosts {
        DenseCosts(Box::new([const { [const { AtomicU32::new(0) }; BLOCK] }; BLOCKS]))
    }
}

impl DenseCosts {
    #[inline]
    pub(super) fn put(&self, load: &Load, cost: f32) {
        if let Some(place) = load.slot().and_then(|slot| self.0.as_flattened().get(slot)) {
            place.store(cost.to_bits() & !LOWEST, Relaxed);
        }
    }
}

impl fmt::Debug for DenseCosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let costs = self.0.as_flattened().iter();
        f.debug_list()
            .entries(costs.map(|cost| f32::from_bits(cost.load(Relaxed))))
            .finish()
    }
}

const LOWEST: u32 = (1 << BITS) - 1;

/// Which slots belong to the endpoints of a table.
#[derive(Debug)]
pub(super) struct Dense {
    /// The position of each slot's endpoint.
    positions: [u32; MOST],
    /// What makes a cost tell whose it is: the place in its block, for a slot without an endpoint under a cost above any.
    names: [[u32; BLOCK]; BLOCKS],
    /// Blocks that have an endpoint, or are followed by one that has.
    blocks: usize,
}

const NOBODY: u32 = u32::MAX;

impl Dense {
    /// None when a slot is too high, or when less than half of the slots, up to a block, have an endpoint.
    pub(super) fn of(loads: &[Arc<Load>]) -> Option<Box<Dense>> {
        let mut dense = Box::new(Dense {
            positions: [NOBODY; MOST],
            names: [std::array::from_fn(|i| NOBODY & !LOWEST | i as u32); BLOCKS],
            blocks: 0,
        });
        for (i, load) in loads.iter().enumerate() {
            let slot = load.slot().filter(|slot| *slot < MOST)?;
            dense.positions[slot] = i as u32;
            dense.names[slot / BLOCK][slot % BLOCK] &= LOWEST;
            dense.blocks = dense.blocks.max(slot / BLOCK + 1);
        }
        (dense.blocks * BLOCK <= 2 * loads.len() + BLOCK).then_some(dense)
    }

    /// The position of the cheapest, but beginning with a random block of slots and looking no further than to one that has
    /// somebody who costs no more than `enough`; all who do so are equals there. Chance decides between equals.
    #[inline]
    pub(super) fn cheapest(&self, costs: &DenseCosts, rng: &mut Rng, enough: f32) -> usize {
        let enough = enough.to_bits() | LOWEST;
        let draw = rng.index(self.blocks << BITS);
        let (mut block, turn) = (draw >> BITS, draw as u32 & LOWEST);
        let (mut best, mut least) = (block, NOBODY);
        for _ in 0..self.blocks {
            let cost = cheapest_of(&costs.0[block], &self.names[block], turn, 0);
            if cost <= enough {
                (best, least) = (block, cheapest_of(&costs.0[block], &self.names[block], turn, enough));
                break;
            }
            (best, least) = if cost < least { (block, cost) } else { (best, least) };
            block = if block + 1 < self.blocks { block + 1 } else { 0 };
        }
        self.positions[(best << BITS) | ((least ^ turn) & LOWEST) as usize] as usize
    }
}

/// The least cost, but no less than `enough`, with the place that it has, from which `turn` is to be taken again. In four
/// parts, which the processor works at side by side, and without a branch, since nothing foretells which it is.
#[inline(always)]
fn cheapest_of(costs: &[AtomicU32; BLOCK], names: &[u32; BLOCK], turn: u32, enough: u32) -> u32 {
    let mut least = [NOBODY; 4];
    for i in 0..BLOCK {
        let cost = (costs[i].load(Relaxed).max(enough & !LOWEST) | names[i]) ^ turn;
        least[i % 4] = least[i % 4].min(cost);
    }
    least[0].min(least[1]).min(least[2].min(least[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slot: u32) -> Arc<Load> {
        Arc::new(Load::new(slot.to_string().into()).with_slot(slot))
    }

    #[test]
    fn finds_the_cheapest_wherever_the_slots_are() {
        let mut rng = Rng::seeded(1);
        for round in 0..2_000 {
            let (costs, n) = (DenseCosts::default(), 1 + rng.index(MOST));
            let mut slots: Vec<u32> = (0..MOST as u32).collect();
            rng.shuffle(&mut slots);
            slots.truncate(n);
            // Every second time with as few gaps as there can be.
            if round % 2 == 0 {
                slots.iter_mut().zip(0..).for_each(|(slot, i)| *slot = i);
                rng.shuffle(&mut slots);
            }
            let loads: Vec<_> = slots.iter().map(|slot| at(*slot)).collect();
            let Some(dense) = Dense::of(&loads) else {
                assert!(n < MOST / 2, "{n} endpoints are not too few");
                continue;
            };
            let each: Vec<f32> = loads.iter().map(|_| (1 + rng.index(500)) as f32).collect();
            loads.iter().zip(&each).for_each(|(load, cost)| costs.put(load, *cost));
            let least = each.iter().copied().fold(f32::INFINITY, f32::min);
            assert_eq!(each[dense.cheapest(&costs, &mut rng, 0.0)], least);
            let enough = least * 3.0;
            assert!(each[dense.cheapest(&costs, &mut rng, enough)] <= enough);
        }
    }

    #[test]
    fn who_costs_no_more_than_enough_is_as_good_as_the_cheapest() {
        let loads: Vec<_> = (0..16).map(at).collect();
        let (dense, costs) = (Dense::of(&loads).unwrap(), DenseCosts::default());
        (0..16).for_each(|i| costs.put(&loads[i], 1.0 + i as f32));
        let mut rng = Rng::seeded(1);
        let mut found = [0; 16];
        for _ in 0..16_000 {
            found[dense.cheapest(&costs, &mut rng, 8.5)] += 1;
        }
        // Eight of them, a deviation of 42: six of them.
        assert!(found[..8].iter().all(|n| (1_748..2_252).contains(n)), "{found:?}");
        assert_eq!(found[8..], [0; 8]);
    }

    #[test]
    fn equals_are_found_evenly() {
        let loads: Vec<_> = (0..48).map(at).collect();
        let (dense, costs) = (Dense::of(&loads).unwrap(), DenseCosts::default());
        loads.iter().for_each(|load| costs.put(load, 7.0));
        let mut rng = Rng::seeded(1);
        let mut found = [0; 48];
        for _ in 0..48_000 {
            found[dense.cheapest(&costs, &mut rng, 0.0)] += 1;
        }
        // A deviation is 31: six of them.
        assert!(found.iter().all(|n| (810..1_190).contains(n)), "{found:?}");
    }

    #[test]
    fn slots_that_are_too_high_or_too_far_apart_are_left() {
        let of = |slots: &[u32]| Dense::of(&slots.iter().map(|slot| at(*slot)).collect::<Vec<_>>()).is_some();
        assert!(of(&[0, 15, 7]) && !of(&[0, 15, 127]));
        let low: Vec<u32> = (0..80).collect();
        assert!(of(&low) && of(&[&low[..], &[127]].concat()) && !of(&[&low[..], &[128]].concat()));
        let gone = at(3);
        gone.leave();
        assert!(Dense::of(&[at(0), gone]).is_none());
    }
}

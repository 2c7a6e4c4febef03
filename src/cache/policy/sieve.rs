use super::list::List;
use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};

/// SIEVE: one queue and a hand (Zhang, Yang, Yue, Vigfusson and Rashmi, NSDI 2024).
///
/// The hand moves from old to young. It spares who was asked for since it last came by, clears the mark, and takes the
/// first who was not; the spared stay where they are, so newcomers are sifted fast. It suits skewed keys whose
/// favourites last, such as a web cache, and suits scans and loops badly.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Sieve {}

impl EvictionPolicy for Sieve {
    fn hit_cost(&self) -> HitCost {
        HitCost::Mark { max: 1 }
    }

    fn orders(&self, shards: usize, _capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        let order = || {
            Box::new(SieveOrder {
                queue: List::new(),
                hand: None,
            }) as Box<dyn EvictionOrder>
        };
        std::iter::repeat_with(order).take(shards).collect()
    }
}

#[derive(Debug)]
struct SieveOrder {
    queue: List,
    /// Whom it looks at next; the oldest when there is none.
    hand: Option<u32>,
}

impl EvictionOrder for SieveOrder {
    fn admit(&mut self, slot: u32, _hash: u64) {
        self.queue.push(slot);
    }

    fn touch(&mut self, _slot: u32, _hash: u64) {}

    fn victim(&mut self, entries: &dyn Entries) -> u32 {
        for last in (0..MOST_LOOKS).rev() {
            let slot = self.hand.or(self.queue.oldest()).expect("there is at least one entry");
            self.hand = self.queue.younger(slot);
            if entries.mark(slot) == 0 || last == 0 {
                self.queue.remove(slot);
                return slot;
            }
            entries.set_mark(slot, 0);
        }
        unreachable!("the last look takes who it sees")
    }

    fn forget(&mut self, slot: u32) {
        if self.hand == Some(slot) {
            self.hand = self.queue.younger(slot);
        }
        self.queue.remove(slot);
    }

    fn resize(&mut self, _capacity: usize) {}

    /// The youngest first: what was asked for is known by marks alone, which only a choice of victim sees.
    fn hottest(&self) -> Vec<u32> {
        self.queue.youngest_first()
    }
}

/// Entries that one choice of a victim looks at, at most; the last of them leaves whatever its mark.
const MOST_LOOKS: u32 = 1_024;

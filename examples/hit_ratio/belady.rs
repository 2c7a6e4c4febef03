//! The most hits that any cache of a size can have, which takes knowing the future.

use std::collections::BinaryHeap;

/// How many of the requests hit if a full cache always gives up the key that is asked for again last (Belady, 1966).
///
/// Keys are below `distinct`. Takes O(n log n) for n requests.
pub(crate) fn hits(keys: &[u32], distinct: usize, capacity: usize) -> u64 {
    let next = next_uses(keys, distinct);
    // By key, when it is asked for next, while the cache has it.
    let mut resident = vec![ABSENT; distinct];
    let mut entries = 0;
    let mut hits = 0;
    let mut latest = BinaryHeap::new();
    for (key, next) in keys.iter().zip(next) {
        let at = *key as usize;
        if resident[at] != ABSENT {
            hits += 1;
        } else if entries < capacity {
            entries += 1;
        } else {
            loop {
                let (when, victim): (u32, u32) = latest.pop().expect("a full cache has someone to give up");
                // What was asked for since has a later place in the heap.
                if resident[victim as usize] == when {
                    resident[victim as usize] = ABSENT;
                    break;
                }
            }
        }
        resident[at] = next;
        latest.push((next, *key));
    }
    hits
}

/// For each request, the number of the next one for the same key.
fn next_uses(keys: &[u32], distinct: usize) -> Vec<u32> {
    let mut next = vec![NEVER; keys.len()];
    let mut seen = vec![NEVER; distinct];
    for (number, key) in keys.iter().enumerate().rev() {
        next[number] = std::mem::replace(&mut seen[*key as usize], number as u32);
    }
    next
}

/// Not in the cache.
const ABSENT: u32 = u32::MAX;
/// Not asked for again.
const NEVER: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The best of all choices of whom to give up, each tried.
    fn best(
        keys: &[u32],
        at: usize,
        cached: &BTreeSet<u32>,
        capacity: usize,
        known: &mut BTreeMap<(usize, BTreeSet<u32>), u64>,
    ) -> u64 {
        let Some(key) = keys.get(at) else {
            return 0;
        };
        if cached.contains(key) {
            return 1 + best(keys, at + 1, cached, capacity, known);
        }
        if let Some(hits) = known.get(&(at, cached.clone())) {
            return *hits;
        }
        let with = |victim: Option<u32>| {
            let mut after = cached.clone();
            after.insert(*key);
            victim.map(|victim| after.remove(&victim));
            after
        };
        let choices: Vec<_> = match cached.len() < capacity {
            true => vec![with(None)],
            false => cached.iter().map(|victim| with(Some(*victim))).collect(),
        };
        let hits = choices
            .iter()
            .map(|after| best(keys, at + 1, after, capacity, known))
            .max()
            .expect("there is a choice");
        known.insert((at, cached.clone()), hits);
        hits
    }

    proptest! {
        #[test]
        fn nothing_hits_more_often(keys in prop::collection::vec(0..8_u32, 0..30), capacity in 1..5_usize) {
            prop_assert_eq!(hits(&keys, 8, capacity), best(&keys, 0, &BTreeSet::new(), capacity, &mut BTreeMap::new()));
        }
    }

    #[test]
    fn a_loop_keeps_what_fits() {
        let keys: Vec<u32> = (0..100).cycle().take(1_000).collect();
        assert_eq!(hits(&keys, 100, 100), 900);
        // One place changes hands all the time, and the others hit once a round.
        assert!((9 * 49..=9 * 50).contains(&hits(&keys, 100, 50)));
    }
}

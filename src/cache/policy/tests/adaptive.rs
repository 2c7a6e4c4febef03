//! Requests that show what the default policy is for, one of its rules at a time, beside a policy that lacks it.

use super::*;
use crate::env::Rng;

const CAPACITY: usize = 1_000;

fn ratio(policy: &dyn EvictionPolicy, keys: &[u64]) -> f64 {
    Toy::new(policy, CAPACITY).ratio(keys.iter().copied())
}

fn adaptive(keys: &[u64]) -> f64 {
    ratio(&Adaptive::default(), keys)
}

/// Keys by Zipf's law with the given exponent: key 0 is asked for the most.
fn zipf(rng: &mut Rng, keys: usize, exponent: f64, count: usize) -> Vec<u64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let draw = || sums.partition_point(|below| *below < rng.unit() * sum) as u64;
    std::iter::repeat_with(draw).take(count).collect()
}

/// The rank of a key may change, but its law stays.
fn renamed(keys: Vec<u64>, by: u64) -> Vec<u64> {
    keys.into_iter().map(|key| key + by).collect()
}

#[test]
fn a_scan_passes_without_harm() {
    // 800 keys are in use; then come three times as many as fit, once each, among the same use.
    let mut rng = Rng::seeded(1);
    let mut used = |count| -> Vec<u64> { std::iter::repeat_with(|| rng.below(800)).take(count).collect() };
    let before = used(20_000);
    let during: Vec<u64> = used(3_000)
        .into_iter()
        .zip(10_000..)
        .flat_map(|(key, scan)| [key, scan])
        .collect();
    let hits = |policy: &dyn EvictionPolicy| {
        let mut toy = Toy::new(policy, CAPACITY);
        toy.ratio(before.iter().copied());
        during.iter().filter(|key| toy.ask(**key) && **key < 800).count()
    };
    let ours = hits(&Adaptive::default());
    assert!(ours > 2_970, "{ours} of 3,000 hits remain");
    assert!(hits(&Lru::default()) < 2_400, "and a scan it was");
}

#[test]
fn of_a_loop_that_does_not_fit_a_part_stays() {
    for length in [1_010_u64, 1_100, 1_500, 1_900, 3_000] {
        let keys: Vec<u64> = (0..length).cycle().take(40 * length as usize).collect();
        let best = CAPACITY as f64 / length as f64;
        let ours = adaptive(&keys);
        assert!(
            ours > 0.93 * best,
            "{ours:.3} of {best:.3} with a loop over {length} keys"
        );
        assert!(ratio(&Lru::default(), &keys) < 0.01, "where recency is all wrong");
    }
}

#[test]
fn a_loop_is_given_up_when_it_is_over() {
    let mut toy = Toy::new(&Adaptive::default(), CAPACITY);
    toy.ratio((0..1_500).cycle().take(60_000));
    let mut rng = Rng::seeded(2);
    let other: Vec<u64> = std::iter::repeat_with(|| 5_000 + rng.below(900)).take(20_000).collect();
    toy.ratio(other[..10_000].iter().copied());
    let after = toy.ratio(other[10_000..].iter().copied());
    assert!(after > 0.9, "{after:.3} once the new keys have settled in");
}

#[test]
fn keys_asked_for_twice_in_short_order_hit() {
    // The second request comes ninety newcomers after the first: nine tenths of a small queue of a tenth.
    let keys: Vec<u64> = (90..60_000_u64).flat_map(|key| [key, key - 90]).collect();
    let best = ratio(&Lru::default(), &keys);
    let ours = adaptive(&keys);
    assert!(best > 0.49 && ours > 0.97 * best, "{ours:.3} of {best:.3}");
}

#[test]
fn favourites_stay() {
    let mut rng = Rng::seeded(3);
    let keys = zipf(&mut rng, 20_000, 0.9, 300_000);
    let (ours, frequent, recent) = (
        adaptive(&keys),
        ratio(&WTinyLfu::default(), &keys),
        ratio(&Lru::default(), &keys),
    );
    assert!(ours > frequent - 0.01, "{ours:.3} beside W-TinyLFU's {frequent:.3}");
    assert!(ours > recent + 0.05, "{ours:.3} beside LRU's {recent:.3}");
}

#[test]
fn favourites_that_change_are_followed() {
    let mut rng = Rng::seeded(4);
    let mut day = |day: u64| renamed(zipf(&mut rng, 20_000, 0.9, 60_000), day * 100_000);
    let keys: Vec<u64> = (0..6).flat_map(&mut day).collect();
    let (ours, recent) = (adaptive(&keys), ratio(&Lru::default(), &keys));
    assert!(ours > recent + 0.03, "{ours:.3} beside LRU's {recent:.3}");
}

#[test]
fn the_first_keys_are_not_thrown_out_for_the_next() {
    // A cache that is asked for as much as it holds, and a little more once.
    let mut toy = Toy::new(&Adaptive::default(), CAPACITY);
    toy.ratio(0..1_000);
    toy.ratio(5_000..5_100);
    let kept = (0..1_000).filter(|key| toy.at.contains_key(key)).count();
    assert!(kept >= 900, "{kept} of the first 1,000");
    let mut other = Toy::new(&S3Fifo::default(), CAPACITY);
    other.ratio(0..1_000);
    other.ratio(5_000..5_100);
    assert_eq!(other.at.len(), 1_000);
}

#[test]
fn shards_learn_together() {
    // One shard sees a loop and thrives by a tiny small queue; another, which saw nothing, takes that over.
    let policy = Adaptive::default();
    let mut orders = policy.orders(2, 2 * CAPACITY);
    let mut idle = Toy::around(orders.pop().unwrap(), policy.hit_cost(), CAPACITY);
    let mut busy = Toy::around(orders.pop().unwrap(), policy.hit_cost(), CAPACITY);
    let loop_hits = |toy: &mut Toy| toy.ratio((0..3_000).cycle().take(6_000));
    busy.ratio((0..3_000).cycle().take(120_000));
    let taught = loop_hits(&mut idle);
    let alone = loop_hits(&mut Toy::new(&policy, CAPACITY));
    assert!(taught > alone, "{taught:.4} beside {alone:.4}");
}

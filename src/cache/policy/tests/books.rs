//! Every policy keeps its books: it names who is there, all of them, and nobody twice.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Ask(u64),
    Update(u64),
    Remove(u64),
    Evict,
    Resize(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..200_u64;
    prop_oneof![
        12 => key.clone().prop_map(Op::Ask),
        3 => key.clone().prop_map(Op::Update),
        2 => key.prop_map(Op::Remove),
        1 => Just(Op::Evict),
        1 => (1..100_usize).prop_map(Op::Resize),
    ]
}

fn check(toy: &Toy) {
    let mut named = toy.order.hottest();
    named.sort_unstable();
    let mut there: Vec<u32> = toy.at.values().copied().collect();
    there.sort_unstable();
    assert_eq!(named, there);
}

proptest! {
    #[test]
    fn who_is_there_is_named_once(ops in prop::collection::vec(op(), 0..2_000)) {
        for (_, policy) in all() {
            let mut toy = Toy::new(&*policy, 50);
            for (count, op) in ops.iter().enumerate() {
                match *op {
                    Op::Ask(key) => drop(toy.ask(key)),
                    Op::Update(key) => toy.update(key),
                    Op::Remove(key) => toy.remove(key),
                    Op::Evict if toy.at.is_empty() => {}
                    Op::Evict => drop(toy.evict()),
                    Op::Resize(capacity) => {
                        toy.capacity = capacity;
                        toy.order.resize(capacity);
                        while toy.at.len() > capacity {
                            toy.evict();
                        }
                    }
                }
                if count % 50 == 0 {
                    check(&toy);
                }
            }
            check(&toy);
            for _ in 0..toy.at.len() {
                toy.evict();
            }
            prop_assert!(toy.order.hottest().is_empty());
        }
    }
}

#[test]
fn each_shard_has_an_order_and_the_same_requests_the_same_victims() {
    let keys: Vec<u64> = (0..20_000_u64).map(|i| i * i % 1_009).collect();
    for (name, policy) in all() {
        assert_eq!(policy.orders(8, 8_192).len(), 8, "{name}");
        let victims = || {
            let mut toy = Toy::new(&*policy, 100);
            let ask = |key: &u64| {
                if toy.at.contains_key(key) {
                    toy.ask(*key);
                    None
                } else {
                    toy.insert(*key)
                }
            };
            keys.iter().map(ask).collect::<Vec<_>>()
        };
        assert_eq!(victims(), victims(), "{name}");
    }
}

#[test]
fn a_cache_of_one_entry_works() {
    for (name, policy) in all() {
        let mut toy = Toy::new(&*policy, 1);
        for key in 0..1_000 {
            assert!(!toy.ask(key), "{name}");
            assert!(toy.ask(key), "{name}");
            toy.update(key);
            assert_eq!(toy.at.len(), 1, "{name}");
        }
    }
}

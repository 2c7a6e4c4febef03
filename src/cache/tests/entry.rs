//! Changes in view of what is there, against a map and under threads.

use super::HandClock;
use crate::cache::{Cache, InsertOptions, Op};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Duration;

/// What is done with a key: `(what, argument)`.
fn steps() -> impl Strategy<Value = Vec<(u8, u8, u64)>> {
    prop::collection::vec((0_u8..12, 0_u8..9, 0_u64..200), 1..300)
}

proptest! {
    /// Until it fills, it is a map with deadlines.
    #[test]
    fn it_is_a_map(steps in steps()) {
        let clock = HandClock::new(Duration::from_millis(4));
        let cache: Cache<u8, u64> = Cache::builder().capacity(20).jitter(0.0).env(clock.env()).build().unwrap();
        let mut model: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
        let mut now = 0;
        for (key, what, n) in steps {
            let old = model.get(&key).filter(|(_, end)| *end > now).map(|(value, _)| *value);
            let mut put = |value| {
                model.insert(key, (value, u64::MAX));
                value
            };
            match what {
                0 => prop_assert_eq!(cache.compute(key, |seen| { assert_eq!(seen.copied(), old); Op::Keep }), old),
                1 => {
                    prop_assert_eq!(cache.compute(key, |seen| Op::Put(seen.map_or(n, |seen| seen + n))), Some(put(old.unwrap_or(0) + n)));
                }
                2 => {
                    let options = InsertOptions::new().ttl(Duration::from_millis(n));
                    let kept = (n > 0).then_some(n);
                    prop_assert_eq!(cache.compute(key, |_| Op::PutWith(n, options.clone())), kept);
                    model.insert(key, (n, now + n));
                }
                3 => {
                    prop_assert_eq!(cache.compute(key, |_| Op::Remove), None);
                    model.remove(&key);
                }
                4 => {
                    prop_assert_eq!(cache.replace(key, n), old);
                    put(n);
                }
                5 => {
                    prop_assert_eq!(cache.get_or_insert_with(&key, || n), old.unwrap_or(n));
                    if old.is_none() { put(n); }
                }
                6 => {
                    let expected = put(old.map_or(n, |old| old * 2));
                    prop_assert_eq!(cache.entry(key).and_modify(|old| old * 2).or_insert(n), expected);
                }
                7 => {
                    let doubled = old.map(|old| put(old * 2));
                    prop_assert_eq!(cache.entry(key).and_modify(|old| old * 2).or_none(), doubled);
                }
                _ => {
                    clock.advance(Duration::from_millis(n));
                    now += n;
                }
            }
            for key in 0..12 {
                let expected = model.get(&key).filter(|(_, end)| *end > now).map(|(value, _)| *value);
                prop_assert_eq!(cache.with(&key, |value| *value), expected);
            }
        }
    }
}

#[test]
fn a_change_makes_the_load_of_its_key_stale() {
    let changes: [fn(&Cache<u64, u64>); 4] = [
        |cache| assert_eq!(cache.compute(7, |_| Op::Put(1)), Some(1)),
        |cache| assert_eq!(cache.compute(7, |_| Op::Remove), None),
        |cache| assert_eq!(cache.replace(7, 1), None),
        |cache| assert_eq!(cache.get_or_insert_with(&7, || 1), 1),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let cache: Cache<u64, u64> = Cache::builder().build().unwrap();
        let (send, receive) = futures::channel::oneshot::channel::<u64>();
        let mut load = Box::pin(cache.get_or_load(&7, |_| receive));
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        assert!(load.as_mut().poll(&mut cx).is_pending());
        change(&cache);
        send.send(99).unwrap();
        let Poll::Ready(Ok(loaded)) = load.as_mut().poll(&mut cx) else {
            panic!("it has landed")
        };
        assert_eq!((loaded, cache.get(&7)), (99, (n != 1).then_some(1)), "change {n}");
    }
    let cache: Cache<u64, u64> = Cache::builder().build().unwrap();
    let mut load = Box::pin(cache.get_or_load(&7, |_| async {
        futures::pending!();
        Ok::<_, ()>(99)
    }));
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    assert!(load.as_mut().poll(&mut cx).is_pending());
    assert_eq!(cache.compute(7, |_| Op::Keep), None);
    assert!(load.as_mut().poll(&mut cx).is_ready());
    assert_eq!(cache.get(&7), Some(99), "a look leaves the load as it is");
}

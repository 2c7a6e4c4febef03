//! What comes back of a cache that was saved.

use super::HandClock;
use crate::cache::policy::Lru;
use crate::cache::{BytesCodec, Cache, Encode, InsertOptions, Op, SnapshotCodec, SnapshotError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn saved<K: Encode + Hash + Eq, V: Encode>(cache: &Cache<K, V>) -> Vec<u8> {
    let mut out = Vec::new();
    cache.save(&mut out, &BytesCodec).unwrap();
    out
}

/// What an entry is given.
#[derive(Clone, Debug)]
struct Given {
    ttl: Option<u64>,
    idle: Option<u64>,
    weight: u64,
    tags: Vec<u8>,
}

fn given() -> impl Strategy<Value = Given> {
    let ms = || prop::option::of(1_u64..2_000);
    (ms(), ms(), 0_u64..50, prop::collection::vec(0_u8..4, 0..3)).prop_map(|(ttl, idle, weight, tags)| Given {
        ttl,
        idle,
        weight,
        tags,
    })
}

impl Given {
    fn options(&self) -> InsertOptions {
        let mut options = InsertOptions::new().weight(self.weight);
        options.ttl = self.ttl.map(Duration::from_millis);
        options.idle = self.idle.map(Duration::from_millis);
        self.tags
            .iter()
            .fold(options, |options, tag| options.tag(tag.to_string()))
    }

    /// When it ends, in milliseconds after it was put in, if nobody asks for it.
    fn end(&self) -> Option<u64> {
        match (self.ttl, self.idle) {
            (Some(ttl), Some(idle)) => Some(ttl.min(idle)),
            (ttl, idle) => ttl.or(idle),
        }
    }
}

proptest! {
    /// Every entry comes back with its time left, to the few milliseconds that rounding takes, its weight and its tags;
    /// nothing lives longer than it would have, whichever way the wall clock jumped.
    #[test]
    fn entries_come_back_as_they_were(
        entries in prop::collection::vec((0_u8..40, given(), 0_u64..200), 0..40),
        lain in 0_u64..1_500,
        jump in -100_000_i64..100_000,
        jumps in any::<bool>(),
        ended in 0_u8..4,
    ) {
        let clock = HandClock::new(Duration::ZERO);
        clock.advance(Duration::from_secs(1_000));
        let build = |clock: &HandClock| -> Cache<u8, String> {
            let builder = Cache::builder().capacity(1_000).weight_capacity(1 << 20).policy(Lru::default()).jitter(0.0);
            builder.weigher(|_, _| 7).env(clock.env()).build().unwrap()
        };
        let old = build(&clock);
        let (mut model, mut now) = (BTreeMap::new(), 0);
        for (key, given, wait) in entries {
            old.insert_with(key, key.to_string(), given.options());
            model.insert(key, (now, given));
            clock.advance(Duration::from_millis(wait));
            now += wait;
        }
        old.invalidate_tag(&ended.to_string());
        model.retain(|_, (_, given)| !given.tags.contains(&ended));
        let file = saved(&old);
        // Another process, with a clock of its own.
        let later = HandClock::new(Duration::ZERO);
        let lain_by_the_clock = if jumps { jump } else { lain as i64 };
        later.advance(Duration::from_millis((1_000_000 + now).checked_add_signed(lain_by_the_clock).unwrap()));
        let new = build(&later);
        let restored = new.restore(&file[..], &BytesCodec).unwrap();
        prop_assert_eq!(restored as usize, new.len());
        // What it has lain as far as the wall clock knows.
        let lain = lain_by_the_clock.max(0) as u64;
        let mut weight = 0;
        for (key, (at, given)) in &model {
            let left = given.end().map(|end| (at + end).saturating_sub(now + lain));
            let there = new.contains(key);
            match left {
                Some(0) => prop_assert!(!there, "{key} has ended: {given:?}"),
                Some(left) if left > 4 => prop_assert!(there, "{key} has {left} ms left: {given:?}"),
                None => prop_assert!(there),
                Some(_) => {}
            }
            if there {
                weight += if given.weight == 0 { 7 } else { given.weight };
            }
        }
        prop_assert_eq!(new.weight(), weight);
        // Tags still hold.
        let other = (ended + 1) % 4;
        new.invalidate_tag(&other.to_string());
        model.retain(|_, (_, given)| !given.tags.contains(&other));
        // Time passes: idle time starts anew for what is asked for, and nothing outlives its time to live.
        for step in 0..25_u64 {
            for key in 0..40 {
                let Some((at, given)) = model.get(&key) else {
                    prop_assert!(!new.contains(&key));
                    continue;
                };
                let left = given.end().map(|end| (at + end).saturating_sub(now + lain + 100 * step));
                let found = new.contains(&key);
                prop_assert!(found || left.is_some_and(|left| left <= 4), "{key}: {left:?} of {given:?}");
                prop_assert!(!found || left != Some(0), "{key}: {given:?}");
            }
            later.advance(100 * MS);
        }
    }
}

#[test]
fn idle_time_goes_on() {
    let clock = HandClock::new(Duration::ZERO);
    let build = || -> Cache<u8, u8> {
        let builder = Cache::builder().jitter(0.0).env(clock.env());
        builder.idle(Duration::from_secs(9)).build().unwrap()
    };
    let old = build();
    old.insert(1, 1);
    old.insert_with(
        2,
        2,
        InsertOptions::new()
            .idle(Duration::from_secs(100))
            .ttl(Duration::from_secs(150)),
    );
    clock.advance(Duration::from_secs(5));
    let file = saved(&old);
    let new = build();
    assert_eq!(new.restore(&file[..], &BytesCodec).unwrap(), 2);
    clock.advance(Duration::from_secs(3));
    assert_eq!((new.get(&1), new.get(&2)), (Some(1), Some(2)));
    clock.advance(Duration::from_secs(8));
    assert_eq!(
        (new.get(&1), new.get(&2)),
        (Some(1), Some(2)),
        "asking starts the idle time anew"
    );
    clock.advance(Duration::from_secs(90));
    assert_eq!((new.get(&1), new.get(&2)), (None, Some(2)));
    clock.advance(Duration::from_secs(44));
    assert_eq!(
        new.get(&2),
        None,
        "150 s after it was put in, however often it is asked for"
    );
}

#[test]
fn the_hottest_are_kept_and_stay_the_hottest() {
    let old: Cache<u64, String> = Cache::builder().capacity(1_000).policy(Lru::default()).build().unwrap();
    for key in 0..1_000 {
        old.insert(key, key.to_string());
    }
    for key in (0..1_000).step_by(7) {
        old.get(&key);
    }
    let file = saved(&old);
    for capacity in [1, 30, 500, 1_000, 1_900] {
        let new: Cache<u64, String> = Cache::builder()
            .capacity(capacity)
            .policy(Lru::default())
            .build()
            .unwrap();
        assert_eq!(
            new.restore(&file[..], &BytesCodec).unwrap() as usize,
            capacity.min(1_000)
        );
        assert!(new.iter().eq(old.iter().take(capacity)));
        assert_eq!(new.stats().evictions, 0);
    }
    // By weight: what does not fit is passed over.
    let weighted: Cache<u64, String> = Cache::builder()
        .weight_capacity(100)
        .weigher(|_, text: &String| text.len() as u64)
        .policy(Lru::default())
        .build()
        .unwrap();
    let restored = weighted.restore(&file[..], &BytesCodec).unwrap();
    assert_eq!((restored as usize, weighted.weight()), (weighted.len(), 100));
}

#[test]
fn what_is_newer_stays() {
    let old: Cache<u8, u8> = Cache::builder().build().unwrap();
    old.insert(1, 1);
    old.insert(2, 2);
    let file = saved(&old);
    let new: Cache<u8, u8> = Cache::builder().build().unwrap();
    new.insert(1, 9);
    assert_eq!(new.restore(&file[..], &BytesCodec).unwrap(), 1);
    assert_eq!((new.get(&1), new.get(&2)), (Some(9), Some(2)));
    // A cache that has times of its own gives them to what had none.
    let clock = HandClock::new(Duration::ZERO);
    let timed: Cache<u8, u8> = Cache::builder()
        .ttl(Duration::from_secs(5))
        .env(clock.env())
        .build()
        .unwrap();
    assert_eq!(timed.restore(&file[..], &BytesCodec).unwrap(), 2);
    clock.advance(Duration::from_millis(4_999));
    assert!(timed.contains(&1));
    clock.advance(MS);
    assert!(!timed.contains(&1));
}

#[test]
fn what_is_not_whole_leaves_the_cache_as_it_was() {
    let old: Cache<u8, String> = Cache::builder().build().unwrap();
    for key in 0..20 {
        let options = InsertOptions::new().tag("t").ttl(Duration::from_secs(60));
        old.insert_with(key, "text".repeat(key.into()), options);
    }
    let file = saved(&old);
    let new: Cache<u8, String> = Cache::builder().build().unwrap();
    new.insert(99, "mine".into());
    let refuse = |bytes: &[u8]| {
        let error = new.restore(bytes, &BytesCodec).unwrap_err();
        assert_eq!((new.len(), new.get(&99).as_deref()), (1, Some("mine")));
        error
    };
    for len in 0..file.len() {
        assert!(matches!(refuse(&file[..len]), SnapshotError::Truncated), "{len}");
    }
    for at in 0..file.len() {
        let mut bytes = file.clone();
        bytes[at] ^= 1 << (at % 8);
        refuse(&bytes);
    }
    let other: Cache<u8, u64> = Cache::builder().build().unwrap();
    let refused = other.restore(&file[..], &BytesCodec);
    assert!(matches!(refused, Err(SnapshotError::Schema { .. })) && other.is_empty());
    assert_eq!(new.restore(&file[..], &BytesCodec).unwrap(), 20);
    assert_eq!(new.len(), 21);
}

/// A codec that cannot do with some keys.
struct Picky;

impl SnapshotCodec<u8, u8> for Picky {
    fn schema(&self) -> String {
        "picky".into()
    }

    fn encode(
        &self,
        key: &u8,
        value: &u8,
        key_out: &mut Vec<u8>,
        value_out: &mut Vec<u8>,
    ) -> Result<(), SnapshotError> {
        if *key == 13 {
            return Err(SnapshotError::Codec("unlucky".into()));
        }
        BytesCodec.encode(key, value, key_out, value_out)
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<(u8, u8), SnapshotError> {
        if key == [7] {
            return Err(SnapshotError::Codec("too lucky".into()));
        }
        BytesCodec.decode(key, value)
    }
}

#[test]
fn a_codec_may_refuse() {
    let cache: Cache<u8, u8> = Cache::builder().build().unwrap();
    for key in 0..8 {
        cache.insert(key, key);
    }
    let mut file = Vec::new();
    assert_eq!(cache.save(&mut file, &Picky).unwrap(), 8);
    let new: Cache<u8, u8> = Cache::builder().build().unwrap();
    assert!(matches!(new.restore(&file[..], &Picky), Err(SnapshotError::Codec(_))));
    assert!(new.is_empty());
    cache.compute(13, |_| Op::Put(13));
    let mut file = Vec::new();
    assert!(matches!(cache.save(&mut file, &Picky), Err(SnapshotError::Codec(_))));
    assert!(new.restore(&file[..], &Picky).is_err());
}

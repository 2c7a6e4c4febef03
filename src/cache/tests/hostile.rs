//! User code that does what it should not: hashes that are alike, and panics wherever it is called.
#![allow(clippy::disallowed_methods, reason = "real threads are the subject")]

use super::HandClock;
use super::assert_settled;
use super::bounds::{Alive, settle};
use crate::cache::inner::Inner;
use crate::cache::policy::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use crate::cache::{Cache, DefaultHash, InsertOptions, Inserted};
use crate::env::Rng;
use crate::sync::{AtomicUsize, Ordering, pins};
use futures::executor::block_on;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

#[test]
fn what_is_removed_is_dropped_by_the_call_that_removes_it() {
    let alive = Arc::new(AtomicUsize::new(0));
    let cache: Cache<u64, Alive> = Cache::builder().capacity(10).build().unwrap();
    let dropped_at_once = |remove: &dyn Fn()| {
        cache.insert(1, Alive::new(&alive));
        remove();
        assert!(!cache.contains(&1));
        alive.load(Ordering::Relaxed) == 0
    };
    // The readers of other tests may hold it back at one time, but not at all times.
    let often = |remove: &dyn Fn()| assert!((0..10_000).any(|_| dropped_at_once(remove)));
    often(&|| assert!(cache.invalidate(&1)));
    often(&|| cache.clear());
    often(&|| cache.retain(|_, _| false));
}

#[test]
fn clearing_gives_the_memory_back() {
    let cache: Cache<u64, u64> = Cache::builder().capacity(1_000).build().unwrap();
    let given_back = (0..10_000).any(|key| {
        cache.insert(key, 1);
        let memory = cache.inner.shards[0].memory();
        cache.clear();
        memory.upgrade().is_none()
    });
    assert!(given_back);
}

/// Gives every key the same hash.
#[derive(Clone, Default)]
struct Same;

impl BuildHasher for Same {
    type Hasher = Same;

    fn build_hasher(&self) -> Same {
        Same
    }
}

impl Hasher for Same {
    fn finish(&self) -> u64 {
        7
    }

    fn write(&mut self, _: &[u8]) {}
}

#[test]
fn keys_of_one_hash_take_turns() {
    for capacity in [100, 100_000] {
        let builder = Cache::<u64, u64>::builder().capacity(capacity);
        let cache = builder.hasher(Same).build().unwrap();
        for key in 0..1_000 {
            assert_eq!(cache.insert(key, key + 1), Inserted::Added);
            assert_eq!(cache.get(&key), Some(key + 1));
        }
        let found = (0..1_000).filter(|key| cache.contains(key)).count();
        assert_eq!((found, cache.stats().evictions), (cache.len(), 1_000 - found as u64));
        assert!(found >= 30, "{found}");
        cache.clear();
        assert!(cache.is_empty());
    }
}

thread_local! {
    /// How many more calls of user code it takes until one panics; none does at zero.
    static FUSE: Cell<u32> = const { Cell::new(0) };
}

/// Panics when the fuse has burnt down, without a word of it.
fn spark() {
    let left = FUSE.get();
    FUSE.set(left.saturating_sub(1));
    if left == 1 {
        resume_unwind(Box::new("planted"));
    }
}

#[derive(Debug)]
struct Key(u64);

impl Clone for Key {
    fn clone(&self) -> Key {
        spark();
        Key(self.0)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        spark();
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        spark();
        self.0 == other.0
    }
}

impl Eq for Key {}

struct Value {
    weight: u64,
    /// Whether it never panics when dropped: where a function's own value does so as it returns another, the compiler
    /// leaks that one (rust-lang/rust issue 47949).
    quiet: bool,
    alive: Alive,
}

impl Clone for Value {
    fn clone(&self) -> Value {
        spark();
        Value {
            weight: self.weight,
            quiet: self.quiet,
            alive: self.alive.clone(),
        }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if !self.quiet && !std::thread::panicking() {
            spark();
        }
    }
}

/// The last comes first, if it does not panic. Puts up with entries that it was not told of, and with none.
#[derive(Debug)]
struct Brittle;

#[derive(Default)]
struct Pile(Vec<u32>);

impl EvictionPolicy for Brittle {
    fn hit_cost(&self) -> HitCost {
        HitCost::Lock
    }

    fn orders(&self, shards: usize, _: usize) -> Vec<Box<dyn EvictionOrder>> {
        (0..shards).map(|_| Box::<Pile>::default() as _).collect()
    }
}

impl EvictionOrder for Pile {
    fn admit(&mut self, number: u32, _: u64) {
        spark();
        self.0.push(number);
    }

    fn touch(&mut self, _: u32, _: u64) {
        spark();
    }

    fn victim(&mut self, _: &dyn Entries) -> u32 {
        spark();
        self.0.pop().unwrap_or_else(|| resume_unwind(Box::new("nobody left")))
    }

    fn forget(&mut self, number: u32) {
        spark();
        self.0.retain(|other| *other != number);
    }

    fn resize(&mut self, _: usize) {}

    fn hottest(&self) -> Vec<u32> {
        self.0.clone()
    }
}

/// Wherever user code panics, no lock stays taken, what is counted is what is there, and each value drops once.
#[test]
fn panics_leave_the_books_in_order() {
    const COUNT: usize = 40;
    const WEIGHT: u64 = 100;
    let (alive, clock) = (Arc::new(AtomicUsize::new(0)), HandClock::new(Duration::ZERO));
    let builder = Cache::<Key, Value>::builder().capacity(COUNT).weight_capacity(WEIGHT);
    let cache = builder
        .policy(Brittle)
        .env(clock.env())
        .weigher(|_, value| {
            spark();
            value.weight
        })
        .expire_after(|_, _| {
            spark();
            None
        })
        .on_removal(|_, _, _| spark())
        .build()
        .unwrap();
    let mut rng = Rng::seeded(7);
    let mut planted = 0;
    for _ in 0..30_000 {
        let (key, weight) = (Key(rng.below(60)), rng.below(12));
        let ttl = Duration::from_millis(rng.below(40));
        let (what, fuse) = (rng.below(20), rng.below(40) as u32);
        let new = Value {
            weight,
            quiet: what == 14,
            alive: Alive::new(&alive),
        };
        clock.advance(Duration::from_millis(rng.below(3)));
        FUSE.set(fuse);
        let ran = catch_unwind(AssertUnwindSafe(|| match what {
            0..6 => drop(cache.insert(key, new)),
            6..9 => drop(cache.insert_with(key, new, InsertOptions::new().ttl(ttl))),
            9 => drop(cache.insert_with(key, new, InsertOptions::new().tag("tag"))),
            10 => cache.invalidate_tag("tag"),
            11 => drop(cache.remove(&key)),
            12 => cache.retain(|_, value| {
                spark();
                value.weight > 2
            }),
            13 => cache.tidy(),
            14 => drop(block_on(cache.get_or_load(&key, |_| async { Ok::<_, ()>(new) }))),
            15 => drop(block_on(cache.get_or_load(&key, |_| async {
                spark();
                Err::<Value, _>(())
            }))),
            16 => cache.clear(),
            _ => drop(cache.get(&key)),
        }));
        FUSE.set(0);
        planted += usize::from(ran.is_err());
        let (count, weight) = (Cell::new(0), Cell::new(0));
        cache.retain(|_, value| {
            count.set(count.get() + 1);
            weight.set(weight.get() + value.weight);
            true
        });
        assert_eq!((cache.len(), cache.weight()), (count.get(), weight.get()));
        assert!(count.get() <= COUNT && weight.get() <= WEIGHT);
    }
    assert!(planted > 1_000, "{planted}");
    assert_settled(&cache);
    settle(&cache, &alive);
    cache.clear();
    assert_eq!((cache.len(), cache.weight()), (0, 0));
    settle(&cache, &alive);
}

#[test]
fn a_tag_that_ends_before_a_clear_is_swept() {
    let cache: Cache<u64, u64> = Cache::builder().capacity(1_000).build().unwrap();
    for key in 0..500 {
        cache.insert_with(key, key, InsertOptions::new().tag("tag"));
    }
    cache.invalidate_tag("tag");
    // It looks at the first few slots; at the others nobody has looked when they go away.
    cache.remove(&0);
    cache.clear();
    cache.tidy();
    assert!(cache.is_empty());
}

/// Looks at the whole cache when it is dropped, which takes every lock in turn.
struct Nosy(Weak<Inner<u64, Nosy, DefaultHash>>);

impl Drop for Nosy {
    fn drop(&mut self) {
        let counted = self.0.upgrade().map(|cache| cache.stats().entries);
        assert!(counted.is_none_or(|entries| entries <= 8_192));
    }
}

#[test]
fn the_short_way_in_drops_nothing_under_its_lock() {
    let cache: Cache<u64, Nosy> = Cache::builder().capacity(8_192).build().unwrap();
    assert_eq!(cache.inner.shards.len(), 2);
    let insert = |key| cache.insert(key, Nosy(Arc::downgrade(&cache.inner)));
    let of_shard = |number| {
        (0_u64..).filter({
            let cache = &cache;
            move |key| cache.inner.shard_number(cache.hash(key)) == number
        })
    };
    let (mut few, mut many) = (of_shard(0), of_shard(1));
    let first = few.next().unwrap();
    insert(first);
    {
        let _holds_it_back = cache.pin();
        cache.invalidate(&first);
    }
    while cache.len() < 8_192 {
        insert(many.next().unwrap());
    }
    drop(cache.inner.shards[0].lock());
    for _ in 0..100 {
        pins::advance();
        std::thread::yield_now();
    }
    // It takes the slot of the first, and then has to look for room elsewhere.
    assert_eq!(insert(few.next().unwrap()), Inserted::Added);
}

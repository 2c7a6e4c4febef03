//! A reader never misses an entry that is there all the time, whatever the writer does to others, and what it finds was
//! in place before it was named.

use crate::index::{Bucket, Index};
use crate::model;
use crate::sync::AtomicU32;
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

/// An index of two buckets, and what its slots hold.
struct World {
    buckets: [Bucket; 2],
    moves: AtomicU32,
    /// Another count of moves, for a reader that looks at the wrong one.
    no_moves: AtomicU32,
    slots: Box<[UnsafeCell<()>]>,
}

/// As many as fill a bucket.
const PLACES: u32 = 20;
/// A tag whose entries have a second bucket, and one whose entries have none.
const MOVABLE: u64 = 1;
const FIXED: u64 = 2;

/// A hash of this bucket and tag.
fn hash(bucket: u64, tag: u64) -> u64 {
    bucket << 63 | tag << 20
}

impl World {
    fn new() -> World {
        World {
            buckets: [Bucket::new(), Bucket::new()],
            moves: AtomicU32::new(0),
            no_moves: AtomicU32::new(0),
            slots: (0..3 * PLACES).map(|_| UnsafeCell::new(())).collect(),
        }
    }

    fn index(&self) -> Index<'_> {
        Index::new(&self.buckets, &self.moves)
    }

    /// Fills a slot, then names it.
    fn put(&self, hash: u64, slot: u32) {
        self.slots[slot as usize].with_mut(|_| ());
        let vacancy = self.index().vacancy(hash).expect("there is room");
        self.index().insert(vacancy, slot);
    }

    /// Which of two slots a look under `hash` finds.
    fn find(&self, hash: u64, slots: [u32; 2], moves: &AtomicU32) -> Option<u32> {
        let is_it = |slot: u32| {
            self.slots[slot as usize].with(|_| ());
            slots.contains(&slot).then_some(slot)
        };
        Some(Index::new(&self.buckets, moves).find(hash, is_it)?.0)
    }
}

/// Runs a writer against a reader that looks under `hash` for an entry which is always there, in one of these slots.
fn always_found(hash: u64, slots: [u32; 2], minds_moves: bool, set_up: fn(&World), write: fn(&World)) {
    model(3, move || {
        let world = World::new();
        set_up(&world);
        let world = Arc::new(world);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let moves = if minds_moves { &world.moves } else { &world.no_moves };
                let found = world.find(hash, slots, moves);
                assert!(found.is_some(), "missed what is there");
            })
        };
        write(&world);
        reader.join().unwrap();
        assert!(world.find(hash, slots, &world.moves).is_some());
    });
}

/// The entry that is looked for.
const IT: u32 = 3 * PLACES - 1;

/// It is in its first bucket with others that cannot move.
fn at_home(world: &World) {
    world.put(hash(0, MOVABLE), IT);
    (1..PLACES).for_each(|slot| world.put(hash(0, FIXED), slot));
}

#[test]
fn an_entry_that_moves_away_is_found() {
    always_found(hash(0, MOVABLE), [IT, IT], true, at_home, |world| {
        world.put(hash(0, FIXED), 0);
    });
}

/// It is in its second bucket, which is full, and its first has room.
fn abroad(world: &World) {
    (0..PLACES).for_each(|slot| world.put(hash(0, FIXED), slot));
    world.put(hash(0, MOVABLE), IT);
    (PLACES + 1..2 * PLACES).for_each(|slot| world.put(hash(1, FIXED), slot));
    let index = world.index();
    index.remove(hash(0, FIXED), index.locate(hash(0, FIXED), 0));
}

fn moves_home(world: &World) {
    world.put(hash(1, FIXED), PLACES);
}

#[test]
fn an_entry_that_moves_home_is_found() {
    always_found(hash(0, MOVABLE), [IT, IT], true, abroad, moves_home);
}

#[test]
#[should_panic(expected = "missed what is there")]
fn a_reader_that_does_not_mind_moves_is_caught() {
    always_found(hash(0, MOVABLE), [IT, IT], false, abroad, moves_home);
}

#[test]
fn an_entry_is_found_while_others_come_and_go() {
    let set_up = |world: &World| {
        (0..PLACES).for_each(|slot| world.put(hash(0, FIXED), slot));
        world.put(hash(0, MOVABLE), IT);
        world.put(hash(0, MOVABLE), PLACES);
    };
    always_found(hash(0, MOVABLE), [IT, IT], true, set_up, |world| {
        let index = world.index();
        index.remove(hash(0, MOVABLE), index.locate(hash(0, MOVABLE), PLACES));
        world.put(hash(0, MOVABLE), PLACES + 1);
    });
}

#[test]
fn an_entry_that_is_written_anew_is_found() {
    let set_up = |world: &World| world.put(hash(0, MOVABLE), IT);
    always_found(hash(0, MOVABLE), [IT, IT - 1], true, set_up, |world| {
        world.slots[IT as usize - 1].with_mut(|_| ());
        let index = world.index();
        index.replace(index.locate(hash(0, MOVABLE), IT), IT - 1);
    });
}

/// What is named before it is in place is read too early.
#[test]
#[should_panic(expected = "Causality violation")]
fn naming_a_slot_too_early_is_caught() {
    let set_up = |world: &World| world.put(hash(0, MOVABLE), IT);
    always_found(hash(0, MOVABLE), [IT, IT - 1], true, set_up, |world| {
        let index = world.index();
        index.replace(index.locate(hash(0, MOVABLE), IT), IT - 1);
        world.slots[IT as usize - 1].with_mut(|_| ());
    });
}

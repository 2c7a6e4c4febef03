//! What a pinned reader has found is not freed, whatever writers do.

use crate::model;
use crate::seat::{Epoch, Seat, is_free};
use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;
use std::sync::Arc;

/// What is wrong with a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It frees when the epoch is one past the stamp.
    OneEpoch,
    /// It reads the epoch for its stamp without a fence.
    NoFence,
    /// It looks which seats there are before its fence.
    SeatsTooEarly,
}

/// A slot that a name leads to.
struct Slot {
    /// The checker sees to it that no access to this is at the same time as the freeing one.
    content: UnsafeCell<()>,
    /// What is read after the freeing, with all synchronised, is seen here.
    freed: std::sync::atomic::AtomicBool,
}

/// A name, and the two slots that it leads to one after the other.
struct World {
    epoch: Epoch,
    seats: Box<[Seat]>,
    /// How many seats were handed out.
    used: AtomicUsize,
    name: AtomicUsize,
    slots: [Slot; 2],
}

impl World {
    fn new(seats: u32, used: usize) -> Arc<World> {
        let slot = || Slot {
            content: UnsafeCell::new(()),
            freed: std::sync::atomic::AtomicBool::new(false),
        };
        Arc::new(World {
            epoch: Epoch::over(AtomicU64::new(Epoch::FIRST)),
            seats: (0..seats).map(Seat::new).collect(),
            used: AtomicUsize::new(used),
            name: AtomicUsize::new(0),
            slots: [slot(), slot()],
        })
    }

    /// Reads what the name leads to; the caller is seated.
    fn read(&self) -> usize {
        let slot = self.name.load(Ordering::Acquire);
        self.look(slot);
        slot
    }

    fn look(&self, slot: usize) {
        let slot = &self.slots[slot];
        slot.content.with(|_| ());
        assert!(!slot.freed.load(Ordering::Relaxed), "read after it was freed");
    }

    /// Lets the name lead to the second slot, and says which stamp the first has.
    fn replace(&self, fault: Fault) -> u64 {
        self.name.store(1, Ordering::Release);
        match fault {
            Fault::NoFence => self.epoch.now(),
            _ => self.epoch.stamp(),
        }
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.seats[..self.used.load(Ordering::Acquire)].iter()
    }

    fn advance(&self, fault: Fault) -> u64 {
        match fault {
            Fault::SeatsTooEarly => {
                let seats = self.seats();
                self.epoch.advance(|| seats)
            }
            _ => self.epoch.advance(|| self.seats()),
        }
    }

    /// Frees the first slot if that is allowed at `now`; says whether.
    fn free(&self, stamp: u64, now: u64, fault: Fault) -> bool {
        let free = match fault {
            Fault::OneEpoch => now > stamp,
            _ => is_free(stamp, now),
        };
        if free {
            self.slots[0].content.with_mut(|_| ());
            self.slots[0].freed.store(true, Ordering::Relaxed);
        }
        free
    }
}

/// A reader pins and reads while a writer replaces, advances and frees.
fn one_reader(fault: Fault) {
    model(5, move || {
        let world = World::new(1, 1);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.seats[0].enter(&world.epoch);
                world.read();
                world.seats[0].leave();
            })
        };
        let stamp = world.replace(fault);
        let freed = (0..3).any(|_| {
            let now = world.advance(fault);
            world.free(stamp, now, fault)
        });
        reader.join().unwrap();
        // Nobody is seated any more, so two more moves are enough.
        if !freed {
            world.advance(fault);
            let now = world.advance(fault);
            assert!(world.free(stamp, now, fault), "what nobody reads is freed");
        }
    });
}

#[test]
fn what_a_reader_has_is_not_freed() {
    one_reader(Fault::None);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn freeing_after_one_epoch_is_caught() {
    one_reader(Fault::OneEpoch);
}

/// Two writers move the epoch at once, while a reader pins with whatever epoch it may still see.
fn two_writers(fault: Fault) {
    model(5, move || {
        let world = World::new(1, 1);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.seats[0].enter(&world.epoch);
                world.read();
                world.seats[0].leave();
            })
        };
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.advance(fault);
                world.advance(fault);
            })
        };
        let stamp = world.replace(fault);
        let _freed = world.free(stamp, world.epoch.now(), fault) || world.free(stamp, world.advance(fault), fault);
        reader.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn two_writers_advance_at_once() {
    two_writers(Fault::None);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_stamp_without_a_fence_is_caught() {
    two_writers(Fault::NoFence);
}

/// What one holder of a lock takes out is stamped by the next.
#[test]
fn the_next_holder_of_a_lock_may_stamp() {
    model(3, || {
        let world = World::new(1, 1);
        let taken_out = Arc::new(Mutex::new(false));
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.seats[0].enter(&world.epoch);
                world.read();
                world.seats[0].leave();
            })
        };
        let first = {
            let (world, taken_out) = (Arc::clone(&world), Arc::clone(&taken_out));
            thread::spawn(move || {
                let mut taken_out = taken_out.lock().unwrap();
                world.name.store(1, Ordering::Release);
                *taken_out = true;
            })
        };
        if *taken_out.lock().unwrap() {
            let stamp = world.epoch.stamp();
            let _freed = (0..2).any(|_| world.free(stamp, world.advance(Fault::None), Fault::None));
        }
        reader.join().unwrap();
        first.join().unwrap();
    });
}

/// A reader that pins twice in a row, so that no writer need ever see its seat empty, and nests a pin in the first.
#[test]
fn pins_follow_each_other_and_nest() {
    model(5, || {
        let world = World::new(1, 1);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let seat = &world.seats[0];
                seat.enter(&world.epoch);
                let first = world.read();
                seat.enter(&world.epoch);
                seat.leave();
                // The inner pin's end has not let go of what the outer one holds.
                assert!(seat.is_taken());
                world.look(first);
                seat.leave();
                seat.enter(&world.epoch);
                world.read();
                seat.leave();
                assert!(!seat.is_taken());
            })
        };
        let stamp = world.replace(Fault::None);
        let _freed = (0..3).any(|_| {
            let now = world.advance(Fault::None);
            world.free(stamp, now, Fault::None)
        });
        reader.join().unwrap();
    });
}

/// A thread takes its first seat while two others are about to advance.
fn a_seat_comes_late(fault: Fault) {
    model(3, move || {
        let world = World::new(1, 0);
        let spawn = |run: fn(&World, Fault)| {
            let world = Arc::clone(&world);
            thread::spawn(move || run(&world, fault))
        };
        let reader = spawn(|world, _| {
            world.used.store(1, Ordering::Release);
            world.seats[0].enter(&world.epoch);
            world.read();
            world.seats[0].leave();
        });
        let writer = spawn(|world, fault| {
            let stamp = world.replace(fault);
            world.free(stamp, world.epoch.now(), fault);
        });
        let other = spawn(|world, fault| {
            world.advance(fault);
        });
        world.advance(fault);
        for thread in [reader, writer, other] {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_new_seat_is_seen() {
    a_seat_comes_late(Fault::None);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn looking_for_seats_too_early_is_caught() {
    a_seat_comes_late(Fault::SeatsTooEarly);
}

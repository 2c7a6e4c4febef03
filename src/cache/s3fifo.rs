use crate::sync::{AtomicU32, Ordering};
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use std::collections::VecDeque;

/// Share of the places that newcomers get, in percent.
const SMALL_PERCENT: usize = 10;
/// A newcomer stays on if it was asked for more than this often.
const PROMOTE_ABOVE: u32 = 1;
/// Where a mark stops counting; from there on a hit writes nothing.
const MARK_MAX: u32 = 3;
/// No slot.
const NONE: u32 = u32::MAX;

/// Who leaves a full cache, by S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023): three queues and no reordering.
///
/// Newcomers wait in a small queue. Those asked for again move on to the main queue, the others leave and are
/// remembered as ghosts for as long as the main queue is; a ghost that comes back goes to the main queue at once. The
/// main queue is a clock: who was asked for goes round again with one mark less.
///
/// It names entries by the slot they live in. A hit is a [`Mark`] kept beside the entry, so that it needs no lock on
/// the queues. An operation takes constant time, a choice of victim amortized: each round costs a mark that a hit paid.
#[derive(Debug)]
pub(super) struct S3Fifo {
    links: Vec<Link>,
    small: Line,
    main: Line,
    ghosts: Ghosts,
    small_places: usize,
}

impl S3Fifo {
    /// An order for at most `capacity` entries.
    pub(super) fn new(capacity: usize) -> S3Fifo {
        let small_places = (capacity * SMALL_PERCENT / 100).max(1);
        S3Fifo {
            links: Vec::new(),
            small: Line::EMPTY,
            main: Line::EMPTY,
            ghosts: Ghosts::new(capacity - small_places),
            small_places,
        }
    }

    /// Takes in the entry at `slot`, whose mark is clear.
    pub(super) fn admit(&mut self, slot: u32, hash: u64) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link::LOOSE);
        }
        let queue = if self.ghosts.take(hash) {
            Queue::Main
        } else {
            Queue::Small
        };
        self.push(queue, slot);
    }

    /// Chooses who leaves, and forgets it. There is at least one entry.
    pub(super) fn victim<'a>(&mut self, entry: impl Fn(u32) -> (&'a Mark, u64)) -> u32 {
        loop {
            if self.small.len >= self.small_places {
                let slot = self.pop(Queue::Small);
                let (mark, hash) = entry(slot);
                if mark.take() > PROMOTE_ABOVE {
                    self.push(Queue::Main, slot);
                } else {
                    self.ghosts.add(hash);
                    return slot;
                }
            } else {
                let slot = self.pop(Queue::Main);
                if entry(slot).0.lower() {
                    self.push(Queue::Main, slot);
                } else {
                    return slot;
                }
            }
        }
    }

    /// Forgets the entry at `slot`, which left for another reason.
    pub(super) fn forget(&mut self, slot: u32) {
        self.unlink(slot);
    }

    fn line(&mut self, queue: Queue) -> &mut Line {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    /// Puts `slot` at the young end.
    fn push(&mut self, queue: Queue, slot: u32) {
        let line = self.line(queue);
        let older = std::mem::replace(&mut line.youngest, slot);
        line.len += 1;
        if older == NONE {
            line.oldest = slot;
        } else {
            self.links[older as usize].younger = slot;
        }
        self.links[slot as usize] = Link {
            older,
            younger: NONE,
            queue,
        };
    }

    /// Takes the slot at the old end.
    fn pop(&mut self, queue: Queue) -> u32 {
        let slot = self.line(queue).oldest;
        self.unlink(slot);
        slot
    }

    fn unlink(&mut self, slot: u32) {
        let Link { older, younger, queue } = std::mem::replace(&mut self.links[slot as usize], Link::LOOSE);
        match older {
            NONE => self.line(queue).oldest = younger,
            older => self.links[older as usize].younger = younger,
        }
        match younger {
            NONE => self.line(queue).youngest = older,
            younger => self.links[younger as usize].older = older,
        }
        self.line(queue).len -= 1;
    }
}

/// How often an entry was asked for lately, up to three: kept beside the entry, written under a read lock.
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicU32);

impl Mark {
    /// Counts a hit. Two at once may count as one, which keeps the count from passing its maximum.
    #[inline]
    pub(super) fn count(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        if seen < MARK_MAX {
            self.0.store(seen + 1, Ordering::Relaxed);
        }
    }

    /// Clears the mark and says what it was.
    fn take(&self) -> u32 {
        let seen = self.0.load(Ordering::Relaxed);
        self.0.store(0, Ordering::Relaxed);
        seen
    }

    /// Takes one off; false when there was none.
    fn lower(&self) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        self.0.store(seen.saturating_sub(1), Ordering::Relaxed);
        seen > 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
}

/// The neighbours of a slot in its queue.
#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    younger: u32,
    queue: Queue,
}

impl Link {
    const LOOSE: Link = Link {
        older: NONE,
        younger: NONE,
        queue: Queue::Small,
    };
}

/// The two ends of a queue.
#[derive(Debug)]
struct Line {
    oldest: u32,
    youngest: u32,
    len: usize,
}

impl Line {
    const EMPTY: Line = Line {
        oldest: NONE,
        youngest: NONE,
        len: 0,
    };
}

/// The hashes of the last entries that left without being asked for again. One that came back keeps its place in the
/// row until that is reached.
#[derive(Debug)]
struct Ghosts {
    row: VecDeque<u64>,
    /// The number of the first in the row; numbers go on as the row moves, and wrap.
    first: u32,
    /// For each remembered hash, its number.
    numbers: HashTable<u32>,
    places: usize,
}

impl Ghosts {
    fn new(places: usize) -> Ghosts {
        Ghosts {
            row: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
            places,
        }
    }

    fn add(&mut self, hash: u64) {
        if self.places == 0 {
            return;
        }
        if self.row.len() == self.places {
            self.drop_first();
        }
        self.take(hash);
        self.row.push_back(hash);
        let Ghosts {
            row, first, numbers, ..
        } = self;
        let number = first.wrapping_add(row.len() as u32 - 1);
        numbers.insert_unique(hash, number, |number| row[number.wrapping_sub(*first) as usize]);
    }

    /// Forgets `hash`, and says whether it was remembered.
    fn take(&mut self, hash: u64) -> bool {
        let Ghosts {
            row, first, numbers, ..
        } = self;
        let is_it = |number: &u32| row[number.wrapping_sub(*first) as usize] == hash;
        numbers.find_entry(hash, is_it).map(OccupiedEntry::remove).is_ok()
    }

    fn drop_first(&mut self) {
        if let Some(&hash) = self.row.front() {
            let first = self.first;
            if let Ok(found) = self.numbers.find_entry(hash, |number| *number == first) {
                found.remove();
            }
            self.row.pop_front();
            self.first = first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same rules with nothing clever: queues are vectors, oldest first.
    struct Naive {
        small: Vec<(u64, u32)>,
        main: Vec<(u64, u32)>,
        ghosts: Vec<Option<u64>>,
        capacity: usize,
    }

    impl Naive {
        fn new(capacity: usize) -> Naive {
            Naive {
                small: vec![],
                main: vec![],
                ghosts: vec![],
                capacity,
            }
        }

        fn small_places(&self) -> usize {
            (self.capacity / 10).max(1)
        }

        /// Returns who left.
        fn ask(&mut self, key: u64) -> Option<u64> {
            let mut everyone = self.small.iter_mut().chain(&mut self.main);
            if let Some((_, mark)) = everyone.find(|(k, _)| *k == key) {
                *mark = (*mark + 1).min(3);
                return None;
            }
            let full = self.small.len() + self.main.len() == self.capacity;
            let gone = full.then(|| self.evict());
            match self.ghosts.iter().position(|ghost| *ghost == Some(key)) {
                Some(place) => {
                    self.ghosts[place] = None;
                    self.main.push((key, 0));
                }
                None => self.small.push((key, 0)),
            }
            gone
        }

        fn evict(&mut self) -> u64 {
            loop {
                if self.small.len() >= self.small_places() {
                    let (key, mark) = self.small.remove(0);
                    if mark > 1 {
                        self.main.push((key, 0));
                        continue;
                    }
                    if self.capacity > self.small_places() {
                        if self.ghosts.len() == self.capacity - self.small_places() {
                            self.ghosts.remove(0);
                        }
                        self.ghosts.push(Some(key));
                    }
                    return key;
                }
                let (key, mark) = self.main.remove(0);
                if mark == 0 {
                    return key;
                }
                self.main.push((key, mark - 1));
            }
        }

        fn remove(&mut self, key: u64) -> bool {
            let before = self.small.len() + self.main.len();
            self.small.retain(|(k, _)| *k != key);
            self.main.retain(|(k, _)| *k != key);
            before != self.small.len() + self.main.len()
        }
    }

    /// The order under test with the entries that a shard would keep: slot, mark and key, which is its own hash.
    struct Ours {
        order: S3Fifo,
        slots: Vec<Option<(u64, Mark)>>,
    }

    impl Ours {
        fn slot_of(&self, key: u64) -> Option<usize> {
            self.slots
                .iter()
                .position(|slot| slot.as_ref().is_some_and(|(k, _)| *k == key))
        }

        fn ask(&mut self, key: u64) -> Option<u64> {
            if let Some(slot) = self.slot_of(key) {
                self.slots[slot].as_ref().unwrap().1.count();
                return None;
            }
            let mut gone = None;
            if self.slots.iter().all(Option::is_some) {
                let slots = &self.slots;
                let victim = self.order.victim(|slot| {
                    let (key, mark) = slots[slot as usize].as_ref().unwrap();
                    (mark, *key)
                });
                gone = self.slots[victim as usize].take().map(|(key, _)| key);
            }
            let free = self.slots.iter().position(Option::is_none).unwrap();
            self.slots[free] = Some((key, Mark::default()));
            self.order.admit(free as u32, key);
            gone
        }

        fn remove(&mut self, key: u64) -> bool {
            let Some(slot) = self.slot_of(key) else { return false };
            self.order.forget(slot as u32);
            self.slots[slot] = None;
            true
        }
    }

    proptest! {
        #[test]
        fn chooses_as_the_naive_one_does(
            capacity in 1_usize..40,
            ops in prop::collection::vec((0_u64..60, 0_u8..12), 1..600),
        ) {
            let mut naive = Naive::new(capacity);
            let mut ours = Ours {
                order: S3Fifo::new(capacity),
                slots: (0..capacity).map(|_| None).collect(),
            };
            for (key, what) in ops {
                if what == 0 {
                    prop_assert_eq!(ours.remove(key), naive.remove(key));
                } else {
                    prop_assert_eq!(ours.ask(key), naive.ask(key));
                }
                prop_assert_eq!(ours.order.small.len, naive.small.len());
                prop_assert_eq!(ours.order.main.len, naive.main.len());
            }
        }
    }

    #[test]
    fn ghosts_survive_the_wrap_of_their_numbers() {
        let mut ghosts = Ghosts::new(3);
        ghosts.first = u32::MAX - 1;
        for hash in 0..10 {
            ghosts.add(hash);
        }
        assert!(!ghosts.take(6));
        assert!(ghosts.take(7) && ghosts.take(8) && ghosts.take(9));
        assert!(!ghosts.take(9));
    }

    #[test]
    fn a_scan_does_not_drive_out_what_is_in_use() {
        let mut ours = Ours {
            order: S3Fifo::new(20),
            slots: (0..20).map(|_| None).collect(),
        };
        for _ in 0..3 {
            (0..10).for_each(|key| {
                let _found = ours.ask(key);
            });
        }
        (1_000..2_000).for_each(|key| {
            let _found = ours.ask(key);
        });
        assert!((0..10).all(|key| ours.slot_of(key).is_some()));
    }
}

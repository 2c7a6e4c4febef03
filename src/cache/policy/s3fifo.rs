use super::{Entries, EvictionOrder, EvictionPolicy, HitCost};
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use std::collections::VecDeque;

/// Share of the places that newcomers get, in percent.
const SMALL_PERCENT: usize = 10;
/// A newcomer stays on if it was asked for more than this often.
const PROMOTE_ABOVE: u8 = 1;
/// Where a mark stops counting; from there on a hit writes nothing.
const MARK_MAX: u8 = 3;
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
struct Order {
    links: Vec<Link>,
    small: Line,
    main: Line,
    ghosts: Ghosts,
    small_places: usize,
}

impl Order {
    /// An order for at most `capacity` entries.
    fn new(capacity: usize) -> Order {
        let small_places = (capacity * SMALL_PERCENT / 100).max(1);
        Order {
            links: Vec::new(),
            small: Line::EMPTY,
            main: Line::EMPTY,
            ghosts: Ghosts::new(capacity - small_places),
            small_places,
        }
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

impl EvictionOrder for Order {
    fn admit(&mut self, slot: u32, hash: u64) {
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
    fn replace(&mut self, old: u32, new: u32) {
        let at = new as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link::LOOSE);
        }
        let queue = self.links[old as usize].queue;
        self.unlink(old);
        self.push(queue, new);
    }
    fn touch(&mut self, _: u32, _: u64) {}
    fn victim(&mut self, entries: &dyn Entries) -> u32 {
        loop {
            if self.small.len >= self.small_places || self.main.len == 0 {
                let slot = self.pop(Queue::Small);
                let mark = entries.mark(slot);
                if mark > PROMOTE_ABOVE {
                    entries.set_mark(slot, 0);
                    self.push(Queue::Main, slot);
                } else {
                    self.ghosts.add(entries.hash(slot));
                    return slot;
                }
            } else {
                let slot = self.pop(Queue::Main);
                let mark = entries.mark(slot);
                if mark > 0 {
                    entries.set_mark(slot, mark - 1);
                    self.push(Queue::Main, slot);
                } else {
                    return slot;
                }
            }
        }
    }
    fn forget(&mut self, slot: u32) {
        self.unlink(slot);
    }
    fn resize(&mut self, _: usize) {}
    fn hottest(&self) -> Vec<u32> {
        Vec::new()
    }
}

/// S3-FIFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Fifo;
impl EvictionPolicy for S3Fifo {
    fn hit_cost(&self) -> HitCost {
        HitCost::Mark { max: MARK_MAX }
    }
    fn orders(&self, shards: usize, capacity: usize) -> Vec<Box<dyn EvictionOrder>> {
        (0..shards)
            .map(|_| Box::new(Order::new(capacity / shards)) as _)
            .collect()
    }
}

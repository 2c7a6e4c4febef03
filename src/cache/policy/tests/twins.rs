//! Each policy beside a naive twin: plain lists that are searched from one end to the other.

use super::super::adaptive::{AdaptiveOrder, MOST_LOOKS};
use super::super::clock::{Clock, TURNOVER};
use super::super::sketch::Sketch;
use super::super::tuner::{Regret, SOON, Tally, Tuner};
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a twin does; marks it sees as the policy does.
trait Twin {
    fn admit(&mut self, key: u64);
    fn touch(&mut self, key: u64);
    fn victim(&mut self, mark: &dyn Fn(u64) -> u8, set_mark: &dyn Fn(u64, u8)) -> u64;
}

/// Asks both for `keys`, and checks that they give up the same ones.
fn same_victims(mut toy: Toy, mut twin: impl Twin, keys: &[u64]) {
    let mut marks: BTreeMap<u64, Cell<u8>> = BTreeMap::new();
    for key in keys {
        if let Some(mark) = marks.get(key) {
            assert!(toy.ask(*key), "the twin has {key}");
            if let HitCost::Mark { max } = toy.cost {
                mark.set((mark.get() + 1).min(max));
            }
            twin.touch(*key);
            continue;
        }
        let gone = (marks.len() == toy.capacity)
            .then(|| twin.victim(&|key| marks[&key].get(), &|key, mark| marks[&key].set(mark)));
        if let Some(gone) = gone {
            marks.remove(&gone);
        }
        twin.admit(*key);
        marks.insert(*key, Cell::new(0));
        assert_eq!(toy.insert(*key), gone, "who leaves for {key}");
    }
}

/// Keys asked for: any, near one another, and round in a circle.
fn keys() -> impl Strategy<Value = Vec<u64>> {
    let any = prop::collection::vec(0..60_u64, 1..80);
    let near = (0..60_u64, prop::collection::vec(0..8_u64, 1..80))
        .prop_map(|(from, by)| by.into_iter().map(|by| from + by).collect::<Vec<_>>());
    let round = (2..40_u64, 1..150_usize).prop_map(|(of, len)| (0..of).cycle().take(len).collect::<Vec<_>>());
    prop::collection::vec(prop_oneof![any, near, round], 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn lru(keys in keys(), capacity in 1..30_usize) {
        same_victims(Toy::new(&Lru::default(), capacity), NaiveLru::default(), &keys);
    }

    #[test]
    fn sieve(keys in keys(), capacity in 1..30_usize) {
        same_victims(Toy::new(&Sieve::default(), capacity), NaiveSieve::default(), &keys);
    }

    #[test]
    fn s3fifo(keys in keys(), capacity in 1..=14_usize) {
        same_victims(Toy::new(&S3Fifo::default(), capacity), NaiveS3Fifo::default(), &keys);
    }

    #[test]
    fn wtinylfu(keys in keys(), capacity in 1..30_usize) {
        same_victims(Toy::new(&WTinyLfu::default(), capacity), NaiveWTinyLfu::default(), &keys);
    }

    #[test]
    fn adaptive(keys in keys(), capacity in 1..=14_usize) {
        let order = Box::new(AdaptiveOrder::new(Arc::new(Tuner::default())));
        let toy = Toy::around(order, Adaptive::default().hit_cost(), capacity);
        same_victims(toy, NaiveAdaptive::default(), &keys);
    }
}

/// Oldest first.
#[derive(Default)]
struct NaiveLru(Vec<u64>);

impl Twin for NaiveLru {
    fn admit(&mut self, key: u64) {
        self.0.push(key);
    }

    fn touch(&mut self, key: u64) {
        self.0.retain(|other| *other != key);
        self.0.push(key);
    }

    fn victim(&mut self, _mark: &dyn Fn(u64) -> u8, _set_mark: &dyn Fn(u64, u8)) -> u64 {
        self.0.remove(0)
    }
}

/// Oldest first, and where the hand points.
#[derive(Default)]
struct NaiveSieve(Vec<u64>, usize);

impl Twin for NaiveSieve {
    fn admit(&mut self, key: u64) {
        self.0.push(key);
    }

    fn touch(&mut self, _key: u64) {}

    fn victim(&mut self, mark: &dyn Fn(u64) -> u8, set_mark: &dyn Fn(u64, u8)) -> u64 {
        loop {
            self.1 = if self.1 < self.0.len() { self.1 } else { 0 };
            let key = self.0[self.1];
            if mark(key) == 0 {
                let gone = self.0.remove(self.1);
                // The hand stays beyond the end only until somebody comes in there.
                self.1 = if self.1 < self.0.len() { self.1 } else { 0 };
                return gone;
            }
            set_mark(key, 0);
            self.1 += 1;
        }
    }
}

/// Ghosts as a list: the last sixteen, for a turnover. Their clocks have ten bits, so that after a thousand ticks without
/// sixteen others one looks young again.
#[derive(Default)]
struct NaiveGhosts(VecDeque<(u64, bool, u32, u32)>);

impl NaiveGhosts {
    fn add(&mut self, key: u64, main: bool, stay: u32, now: u32) {
        self.0.push_back((key, main, stay, now));
        if self.0.len() > 16 {
            self.0.pop_front();
        }
    }

    /// Whether it was in the main queue, how long it is gone, and how long it stayed.
    fn take(&mut self, key: u64, now: u32) -> Option<(bool, u32, u32)> {
        let at = self.0.iter().position(|ghost| ghost.0 == key)?;
        let (_, main, stay, then) = self.0.remove(at).unwrap();
        let gone = (now - then) % (1 << 10);
        (gone < TURNOVER).then_some((main, gone, stay))
    }
}

#[derive(Default)]
struct NaiveS3Fifo {
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: NaiveGhosts,
    clock: Clock,
}

impl Twin for NaiveS3Fifo {
    fn admit(&mut self, key: u64) {
        self.clock.advance(self.small.len() + self.main.len());
        match self.ghosts.take(key, self.clock.now()) {
            Some(_) => self.main.push_back(key),
            None => self.small.push_back(key),
        }
    }

    fn touch(&mut self, _key: u64) {}

    fn victim(&mut self, mark: &dyn Fn(u64) -> u8, set_mark: &dyn Fn(u64, u8)) -> u64 {
        let places = ((self.small.len() + self.main.len()) / 10).max(1);
        loop {
            if self.small.len() >= places {
                let key = self.small.pop_front().unwrap();
                if mark(key) < 2 {
                    self.ghosts.add(key, false, 0, self.clock.now());
                    return key;
                }
                set_mark(key, 0);
                self.main.push_back(key);
            } else {
                let key = self.main.pop_front().unwrap();
                if mark(key) == 0 {
                    return key;
                }
                set_mark(key, mark(key) - 1);
                self.main.push_back(key);
            }
        }
    }
}

/// Each part oldest first.
#[derive(Default)]
struct NaiveWTinyLfu {
    window: Vec<u64>,
    probation: Vec<u64>,
    protected: Vec<u64>,
    sketch: Sketch,
}

impl NaiveWTinyLfu {
    fn members(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    fn window_places(&self) -> usize {
        ((self.window.len() + self.members()) / 10).max(1)
    }

    fn weakest(&mut self) -> Option<u64> {
        let part = if self.probation.is_empty() {
            &mut self.protected
        } else {
            &mut self.probation
        };
        (!part.is_empty()).then(|| part.remove(0))
    }
}

impl Twin for NaiveWTinyLfu {
    fn admit(&mut self, key: u64) {
        let entries = self.window.len() + self.members();
        self.sketch.count(hash(key), entries + 1);
        self.window.push(key);
        while self.members() < entries + 1 - self.window_places() {
            self.probation.push(self.window.remove(0));
        }
    }

    fn touch(&mut self, key: u64) {
        self.sketch.count(hash(key), 0);
        let part = if self.window.contains(&key) {
            &mut self.window
        } else {
            &mut self.protected
        };
        let members = part.len();
        part.retain(|other| *other != key);
        if part.len() < members {
            part.push(key);
            return;
        }
        self.probation.retain(|other| *other != key);
        self.protected.push(key);
        if self.protected.len() > self.members() * 80 / 100 {
            self.probation.push(self.protected.remove(0));
        }
    }

    fn victim(&mut self, _mark: &dyn Fn(u64) -> u8, _set_mark: &dyn Fn(u64, u8)) -> u64 {
        if self.window.len() < self.window_places()
            && let Some(key) = self.weakest()
        {
            return key;
        }
        let candidate = self.window.remove(0);
        let Some(member) = self.weakest() else {
            return candidate;
        };
        if self.sketch.estimate(hash(candidate)) > self.sketch.estimate(hash(member)) {
            self.probation.push(candidate);
            return member;
        }
        self.probation.insert(0, member);
        candidate
    }
}

/// A key, its flag, and since when.
type Resident = (u64, bool, u32);

#[derive(Default)]
struct NaiveAdaptive {
    small: VecDeque<Resident>,
    main: VecDeque<Resident>,
    ghosts: NaiveGhosts,
    clock: Clock,
    tuner: Tuner,
    tally: Tally,
    reported: usize,
    filled: bool,
}

impl NaiveAdaptive {
    fn entries(&self) -> usize {
        self.small.len() + self.main.len()
    }

    fn regret(&mut self, main: bool) -> &mut Regret {
        if main {
            &mut self.tally.main
        } else {
            &mut self.tally.small
        }
    }

    fn goes_to_main(&self, ghost: Option<(bool, u32, u32)>) -> bool {
        let Some((false, gone, stay)) = ghost else {
            return false;
        };
        let unseen = self.main.front().map_or(u32::MAX, |oldest| self.clock.now() - oldest.2);
        self.tuner.report(&Tally::default()).open && gone + stay <= unseen
    }

    fn leave(&mut self, main: bool, (key, _, since): Resident) -> u64 {
        self.regret(main).evicted += 1;
        let now = self.clock.now();
        self.ghosts.add(key, main, (now - since).min(63), now);
        key
    }
}

impl Twin for NaiveAdaptive {
    fn admit(&mut self, key: u64) {
        self.clock.advance(self.entries());
        let now = self.clock.now();
        self.tally.admitted += 1;
        let ghost = self.ghosts.take(key, now);
        if let Some((main, gone, _)) = ghost {
            self.tally.main_returned += u32::from(main);
            self.regret(main).soon += u32::from(gone < SOON);
        }
        let advice = self.tuner.report(&Tally::default());
        let has_room = self.main.len() < advice.main_places(self.entries() + 1);
        if !self.filled || has_room {
            self.main.push_back((key, false, now));
        } else if self.goes_to_main(ghost) {
            self.main.push_back((key, true, now));
        } else {
            self.small.push_back((key, ghost.is_some(), now));
        }
    }

    fn touch(&mut self, _key: u64) {}

    fn victim(&mut self, mark: &dyn Fn(u64) -> u8, set_mark: &dyn Fn(u64, u8)) -> u64 {
        self.filled = true;
        if (self.tally.small.evicted + self.tally.main.evicted) as usize * 64 >= self.entries() {
            self.tally.entries = self.entries() as isize - self.reported as isize;
            self.reported = self.entries();
            self.tuner.report(&std::mem::take(&mut self.tally));
        }
        let now = self.clock.now();
        let places = self.tuner.report(&Tally::default()).small_places(self.entries());
        for _ in 0..MOST_LOOKS {
            if self.small.len() >= places || self.main.is_empty() {
                let first = self.small.pop_front().unwrap();
                if mark(first.0) == 0 {
                    return self.leave(false, first);
                }
                set_mark(first.0, 0);
                match first.1 {
                    true => self.main.push_back((first.0, false, now)),
                    false => self.small.push_back((first.0, true, now)),
                }
            } else {
                let first = self.main.pop_front().unwrap();
                let count = mark(first.0);
                if first.1 {
                    self.tally.tried += 1;
                    self.tally.passed += u32::from(count > 0);
                }
                if count == 0 {
                    return self.leave(true, first);
                }
                set_mark(first.0, count - 1);
                self.main.push_back((first.0, false, now));
            }
        }
        unreachable!("fourteen entries have 42 marks at most")
    }
}

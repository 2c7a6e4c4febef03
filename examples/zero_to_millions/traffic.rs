//! Open-loop traffic: a fixed number of users online, each replaying visits of the log one after another.

use crate::visits::{Step, Visits};
use outgrow::env::{Rng, Tick};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// One request that arrives, whatever has become of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When it is due; a request's latency counts from here.
    pub(crate) at: Tick,
    /// Which visit it belongs to, unique within the run: the identity that a sticky session is keyed by.
    pub(crate) visit: u32,
    /// What is asked for.
    pub(crate) step: Step,
}

/// An endless, time-ordered stream of arrivals that starts in the steady state.
///
/// At the start every user is in the middle of a visit: the visit is drawn by its time online, the position in it
/// uniformly. When a visit's time online ends, the next begins at once, drawn uniformly from the log, so the number
/// of users online never changes.
///
/// Each user is one event of 16 bytes in a wheel of two levels, which moves events in long runs only: the time ahead is
/// cut into 256 parts that cover the longest pause, the part that the time has reached into 256 slices, and only the
/// slice that it has reached is sorted.
#[derive(Debug)]
pub(crate) struct Traffic {
    visits: Arc<Visits>,
    rng: Rng,
    tail: u64,
    next_visit: u32,
    /// Events by part, those of part `n` at `n` modulo their number.
    parts: Vec<Vec<Event>>,
    /// The events of the current part, by slice.
    slices: Vec<Vec<Event>>,
    /// The events of the current slice, the last first.
    due: Vec<Event>,
    /// Events that have come into the current slice since it was sorted; in their order, and few.
    late: BinaryHeap<Reverse<Event>>,
    /// A slice lasts 2^shift nanoseconds.
    shift: u32,
    /// The current slice, counted from time zero.
    slice: u64,
}

/// A request that is due. No two have the same visit, so the order is the same however they are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    /// In nanoseconds.
    at: u64,
    visit: u32,
    /// Which request of all visits it is.
    step: u32,
}

impl Traffic {
    /// Traffic of `users` users online, beginning at `start`.
    pub(crate) fn new(visits: Arc<Visits>, users: NonZeroU32, start: Tick, rng: Rng) -> Traffic {
        // Two parts to spare: the current one is partly over, and so is the one that the longest pause ends in.
        let slice = nanos(visits.longest_pause()) / ((PARTS - 2) * SLICES) + 1;
        let shift = u64::BITS - slice.leading_zeros();
        let mut traffic = Traffic {
            tail: nanos(visits.median_gap()),
            visits,
            rng,
            next_visit: 0,
            parts: vec![Vec::new(); PARTS as usize],
            slices: vec![Vec::new(); SLICES as usize],
            due: Vec::new(),
            late: BinaryHeap::new(),
            shift,
            slice: start.as_nanos() >> shift,
        };
        for _ in 0..users.get() {
            let event = traffic.online(start.as_nanos());
            traffic.schedule(event);
        }
        traffic
    }

    /// The first event of a user who is somewhere in a visit at `start`.
    fn online(&mut self, start: u64) -> Event {
        let (last, wait) = self.visits.at(self.rng.below(self.visits.total_online_ms()));
        let at = start + u64::from(wait) * NANOS_PER_MILLI - self.rng.below(NANOS_PER_MILLI);
        if self.visits.all_steps()[last].last {
            return self.fresh(at);
        }
        Event {
            at,
            visit: self.new_visit(),
            step: last as u32 + 1,
        }
    }

    /// The first event of a visit that begins at `at`.
    fn fresh(&mut self, at: u64) -> Event {
        let template = self.rng.index(self.visits.len());
        Event {
            at,
            visit: self.new_visit(),
            step: self.visits.start(template) as u32,
        }
    }

    fn new_visit(&mut self) -> u32 {
        let visit = self.next_visit;
        self.next_visit = visit.wrapping_add(1);
        visit
    }

    #[inline]
    fn schedule(&mut self, event: Event) {
        let slice = event.at >> self.shift;
        if slice == self.slice {
            self.late.push(Reverse(event));
        } else if slice / SLICES == self.slice / SLICES {
            self.slices[(slice % SLICES) as usize].push(event);
        } else {
            self.parts[(slice / SLICES % PARTS) as usize].push(event);
        }
    }

    /// Moves on to the next slice, and with the last slice of a part to the next part.
    fn turn(&mut self) {
        self.slice += 1;
        if self.slice.is_multiple_of(SLICES) {
            let part = &mut self.parts[(self.slice / SLICES % PARTS) as usize];
            for event in part.drain(..) {
                self.slices[((event.at >> self.shift) % SLICES) as usize].push(event);
            }
        }
        // The emptied vector takes the place of the full one, so that both keep their memory.
        std::mem::swap(&mut self.due, &mut self.slices[(self.slice % SLICES) as usize]);
        self.due.sort_unstable_by_key(|&event| Reverse(event));
    }

    fn pop(&mut self) -> Event {
        loop {
            let late = self.late.peek().map(|&Reverse(event)| event);
            match (self.due.last().copied(), late) {
                (Some(due), late) if late.is_none_or(|late| due < late) => {
                    self.due.pop();
                    return due;
                }
                (_, Some(late)) => {
                    self.late.pop();
                    return late;
                }
                _ => self.turn(),
            }
        }
    }
}

impl Iterator for Traffic {
    type Item = Arrival;

    /// The next arrival; there always is one.
    fn next(&mut self) -> Option<Arrival> {
        let event = self.pop();
        let step = self.visits.all_steps()[event.step as usize];
        let next = if step.last {
            self.fresh(event.at + self.tail)
        } else {
            let pause = self.visits.all_steps()[event.step as usize + 1].offset_ms - step.offset_ms;
            Event {
                at: event.at + u64::from(pause) * NANOS_PER_MILLI,
                step: event.step + 1,
                ..event
            }
        };
        self.schedule(next);
        Some(Arrival {
            at: Tick::from_nanos(event.at),
            visit: event.visit,
            step,
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

const NANOS_PER_MILLI: u64 = 1_000_000;
const PARTS: u64 = 256;
const SLICES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::{Request, Sink};
    use crate::collect::Collector;
    use outgrow::env::Rng;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use proptest::test_runner::Config;
    use std::collections::BTreeSet;

    fn visits(requests: &[(u8, i64)]) -> Arc<Visits> {
        let mut collector = Collector::default();
        for &(host, second) in requests {
            collector.take(Request {
                second,
                host: &[host],
                target: &second.to_le_bytes(),
                writes: false,
                status: 200,
                bytes: 1,
            });
        }
        Arc::new(collector.visits(Duration::from_secs(300)).expect("requests were given"))
    }

    /// The same traffic by the dumbest correct means: all users in one sorted set.
    fn model(visits: &Arc<Visits>, users: NonZeroU32, start: Tick, rng: Rng, count: usize) -> Vec<Arrival> {
        let mut draws = Traffic::new(Arc::clone(visits), NonZeroU32::MIN, Tick::ZERO, Rng::seeded(0));
        (draws.rng, draws.next_visit) = (rng, 0);
        let mut due: BTreeSet<Event> = (0..users.get()).map(|_| draws.online(start.as_nanos())).collect();
        let mut arrivals = Vec::new();
        while let Some(event) = due.pop_first().filter(|_| arrivals.len() < count) {
            let step = visits.all_steps()[event.step as usize];
            arrivals.push(Arrival {
                at: Tick::from_nanos(event.at),
                visit: event.visit,
                step,
            });
            due.insert(match visits.all_steps().get(event.step as usize + 1) {
                Some(next) if !step.last => Event {
                    at: event.at + u64::from(next.offset_ms - step.offset_ms) * NANOS_PER_MILLI,
                    visit: event.visit,
                    step: event.step + 1,
                },
                _ => draws.fresh(event.at + nanos(visits.median_gap())),
            });
        }
        arrivals
    }

    proptest! {
        #![proptest_config(Config::with_cases(64))]
        #[test]
        fn the_wheel_agrees_with_a_sorted_set(
            requests in proptest::collection::vec((0_u8..5, 0_i64..3000), 1..60),
            users in 1_u32..40, start in 0_u64..1 << 50, seed in any::<u64>(),
        ) {
            let visits = visits(&requests);
            let start = Tick::from_nanos(start);
            let users = NonZeroU32::new(users).expect("at least 1");
            let rng = Rng::seeded(seed);
            let wheel = Traffic::new(Arc::clone(&visits), users, start, rng.clone());
            let want = model(&visits, users, start, rng, 500);
            prop_assert_eq!(wheel.take(500).collect::<Vec<_>>(), want);
        }
    }

    /// Most visits are short and quick, most of the time online is in a long and slow one: two requests a second apart
    /// from each of 200 hosts, and 101 requests 200 s apart from one.
    fn lopsided() -> Arc<Visits> {
        let long = (0..101).map(|i| (0, i * 200));
        let short = (1..201).flat_map(|host| [(host, 0), (host, 1)]);
        visits(&long.chain(short).collect::<Vec<_>>())
    }

    #[test]
    fn it_starts_in_the_steady_state() {
        let visits = lopsided();
        let users = 400_000;
        let window_s = 5;
        let want = visits.rate_per_user() * f64::from(users) * window_s as f64;
        let traffic = Traffic::new(
            visits,
            NonZeroU32::new(users).expect("not 0"),
            Tick::ZERO,
            Rng::seeded(1),
        );
        let mut per_window = [0_u32; 20];
        for arrival in traffic {
            let window = arrival.at.as_nanos() / (window_s * 1_000_000_000);
            match per_window.get_mut(window as usize) {
                Some(count) => *count += 1,
                None => break,
            }
        }
        // About 49,000 a window, with a deviation of 220 for independent arrivals and twice that for these, which come
        // in pairs. Users who were not in the middle of one would make twice as many within seconds.
        for count in per_window {
            assert!(
                (f64::from(count) / want - 1.0).abs() < 0.03,
                "{per_window:?} against {want}"
            );
        }
    }

    #[test]
    fn each_visit_is_replayed_with_its_pauses_and_followed_by_another() {
        let visits = lopsided();
        let one = NonZeroU32::new(1).expect("not 0");
        let arrivals: Vec<_> = Traffic::new(visits, one, Tick::ZERO, Rng::seeded(7))
            .take(2_000)
            .collect();
        let mut seen = BTreeSet::new();
        for pair in arrivals.windows(2) {
            let pause = match (pair[0].step.last, pair[1].step.offset_ms) {
                // The median gap, then the first request of another visit.
                (true, 0) => 1,
                (false, 1_000) => 1,
                (false, _) => 200,
                (true, offset) => panic!("a visit begins {offset} ms late"),
            };
            assert_eq!(pair[1].at - pair[0].at, Duration::from_secs(pause));
            assert_eq!(pair[0].step.last, pair[0].visit != pair[1].visit);
            seen.insert(pair[0].visit);
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }
}

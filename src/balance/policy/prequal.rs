use super::Scale;
use super::average::{Fade, Faded};
use super::pairs::Pairs;
use super::places::{Places, name};
use super::reports::{Limits, Range, Reports};
use crate::balance::{Balancer, Completion, Load, Member, Outcome, Request, ServerLoad, Timing};
use crate::env::{Rng, Tick};
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Prequal: the endpoint that looks best by what endpoints said of their own load within the last second (Wydrowski and
/// others, NSDI 2024).
///
/// What this process has in flight tells little where many processes send to the same endpoints; what an endpoint says tells
/// of all of them. Reports come from [probes](crate::balance::Probes) of random endpoints, which cost a small request each and
/// are the way to use this policy, or [with answers](crate::balance::Lease::report_load), which costs nothing but tells only of
/// those that were asked anyway.
///
/// The 16 latest reports are a pool to choose from. An endpoint is hot if it has more requests than 84 % of the last reports
/// said, in proportion to its weight. Of those that are not, the one with the lowest latency is taken; where all are hot, the
/// one with the fewest requests. The request counts at once as one more in the report, each report serves a few picks only, and
/// the worst and the oldest are thrown away by turns. With fewer than two of use, the choice is that of
/// [`PowerOfTwo`](super::PowerOfTwo).
///
/// **An endpoint of whose last requests a quarter failed is not taken** for what it says, since what fails at once is idle and
/// fast: in a row that is five, and it ends as time passes. It gets what is left where a drawn pair has nothing better.
///
/// A pick costs a lock and a look at each report, some hundred nanoseconds.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Prequal, Request, ServerLoad};
/// use std::time::Duration;
/// let pool = Pool::builder(Prequal::default()).endpoints(["a", "b", "c"].map(Endpoint::new)).build();
/// let says = |id, millis| pool.report_load(id, ServerLoad::new(3.0).latency(Duration::from_millis(millis)));
/// says("a", 40);
/// says("b", 10);
/// says("c", 30);
/// assert_eq!(&**pool.pick(&Request::new())?.id(), "b");
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Prequal {
    limits: Limits,
    reports: Mutex<Reports>,
    /// Tables that were built.
    tables: AtomicU64,
    /// Of failures.
    fade: Fade,
}

/// The weight of the latest request in an endpoint's share of failures.
const LATEST: f32 = 1.0 / 16.0;
/// The share of failures from which on an endpoint is not believed, and the one that counts as none.
const FAILING: f32 = 0.25;
const NONE: f32 = 0.001;
/// The time in which failures fade to 1/e.
const FADE: Duration = Duration::from_secs(5);

impl Prequal {
    /// The share of the last reports that has to be below what an endpoint has in flight for it to be hot. 0.84 by default.
    /// With 0 all but the least loaded are, so that only what is in flight counts; with 1 nobody is, and only latency counts.
    #[must_use]
    pub fn hot_quantile(mut self, quantile: f64) -> Prequal {
        self.limits.hot = quantile.clamp(0.0, 1.0) as f32;
        self
    }

    /// The age at which a report is of no more use. 1 s by default.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Prequal {
        self.limits.age = age;
        self
    }

    #[inline]
    fn fails(&self, load: &Load, now: Tick) -> bool {
        let share = Faded(load.cell().load(Ordering::Relaxed));
        !share.is_unset() && share.value() * share.left(now, self.fade) >= FAILING
    }
}

impl Default for Prequal {
    fn default() -> Prequal {
        Prequal {
            limits: Limits {
                hot: 0.84,
                age: Duration::from_secs(1),
            },
            reports: Mutex::default(),
            tables: AtomicU64::new(0),
            fade: Fade::new(FADE),
        }
    }
}

impl fmt::Debug for Prequal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prequal")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Where the endpoints are, and how they are drawn where no report helps.
#[derive(Debug)]
pub struct PrequalTable {
    number: u64,
    places: Places,
    pairs: Pairs,
}

impl Balancer for Prequal {
    type Table = PrequalTable;

    fn table(&self, members: &[Member]) -> PrequalTable {
        PrequalTable {
            number: self.tables.fetch_add(1, Ordering::Relaxed) + 1,
            places: Places::new(members),
            pairs: Pairs::new(members),
        }
    }

    fn pick(
        &self,
        table: &PrequalTable,
        loads: &[Arc<Load>],
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let range = Range {
            table: table.number,
            places: &table.places,
            weights: table.pairs.weights(),
            endpoints: loads.len(),
        };
        let may_take = |i: usize| !request.avoids(&loads[i]);
        let fails = |i: usize| self.fails(&loads[i], now);
        let chosen = self
            .reports
            .lock()
            .choose(range, self.limits, now, rng, may_take, fails);
        if chosen.is_some() {
            return chosen;
        }
        table.pairs.pick(loads, request, rng, |b, a, weights| {
            let scale = Scale { loads, weights };
            match (fails(b), fails(a)) {
                (false, true) => true,
                (true, false) => false,
                _ => scale.weigh(b).is_below(scale.weigh(a)),
            }
        })
    }

    #[inline]
    fn finish(&self, load: &Load, done: &Completion) {
        let cell = load.cell();
        match (done.outcome, done.at) {
            (Outcome::Success, _) => {
                let before = cell.load(Ordering::Relaxed);
                if before != 0 {
                    // In vain when somebody else was faster, whose request is as good a sample.
                    let after = Faded(before).times(1.0 - LATEST, NONE);
                    _ = cell.compare_exchange(before, after.0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
            (Outcome::Failure(_), Some(at)) => {
                cell.update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                    let before = Faded(before);
                    let share = before.value() * before.left(at, self.fade);
                    Faded::new(share + (1.0 - share) * LATEST, at).0
                });
            }
            _ => {}
        }
    }

    fn report(&self, load: &Load, said: &ServerLoad, now: Tick) {
        let name = name(load.id());
        let mut reports = self.reports.lock();
        reports.add(name, said.in_flight(), said.expected_latency(), now);
    }

    fn timing(&self) -> Timing {
        Timing::Sampled
    }
}

#[cfg(test)]
mod tests {
    use super::super::PowerOfTwo;
    use super::super::testing::{loaded, loads, members};
    use super::*;
    use crate::balance::Failure;
    use crate::balance::load::Era;
    use std::collections::{BTreeMap, VecDeque};

    const FAILURE: Outcome = Outcome::Failure(Failure::Other);

    fn at(millis: u64) -> Tick {
        Tick::ZERO + Duration::from_millis(millis)
    }

    fn end(policy: &Prequal, load: &Load, outcome: Outcome, millis: u64) {
        // As the pool does: the time is told for failures, and for the successes that were timed.
        let told = (outcome != Outcome::Success).then(|| at(millis));
        policy.finish(load, &Completion::new(outcome, None, told));
    }

    #[test]
    fn five_failures_in_a_row_are_too_many_and_time_or_successes_make_up_for_them() {
        let (policy, load) = (Prequal::default(), loads(&members(&[1])).remove(0));
        for _ in 0..4 {
            end(&policy, &load, FAILURE, 0);
            assert!(!policy.fails(&load, at(0)));
        }
        end(&policy, &load, FAILURE, 0);
        assert!(policy.fails(&load, at(0)));
        assert!(!policy.fails(&load, at(1_000)), "a little time");
        end(&policy, &load, Outcome::Cancelled, 0);
        assert!(policy.fails(&load, at(0)), "a dropped request says nothing");
        end(&policy, &load, Outcome::Success, 0);
        end(&policy, &load, Outcome::Success, 0);
        assert!(!policy.fails(&load, at(0)), "a few successes");
        for _ in 0..100 {
            end(&policy, &load, Outcome::Success, 0);
        }
        assert_eq!(load.cell().load(Ordering::Relaxed), 0, "nothing is left of it");
        for _ in 0..1_000 {
            end(&policy, &load, FAILURE, 0);
        }
        assert!(policy.fails(&load, at(5_000)) && !policy.fails(&load, at(10_000)));
    }

    #[test]
    fn the_odd_failure_makes_no_difference() {
        let (policy, load) = (Prequal::default(), loads(&members(&[1])).remove(0));
        let mut rng = Rng::seeded(1);
        for request in 0..20_000 {
            let outcome = if rng.chance(0.02) { FAILURE } else { Outcome::Success };
            end(&policy, &load, outcome, request);
            assert!(!policy.fails(&load, at(request)));
        }
    }

    #[test]
    fn what_fails_is_not_believed() {
        let (policy, members) = (Prequal::default(), members(&[1; 3]));
        let (table, loads) = (policy.table(&members), loaded(&[0, 3, 5]));
        for (load, in_flight) in loads.iter().zip([0.0, 3.0, 5.0]) {
            policy.report(load, &ServerLoad::new(in_flight), at(0));
        }
        let pick = |millis, tried: &[_]| {
            let request = Request::new().avoid(tried);
            policy.pick(&table, &loads, &request, at(millis), &mut Rng::seeded(millis))
        };
        assert_eq!(pick(0, &[]), Some(0));
        (0..5).for_each(|_| end(&policy, &loads[0], FAILURE, 0));
        assert_eq!(pick(0, &[]), Some(1));
        assert_eq!(
            pick(0, &["e1".into()]),
            Some(2),
            "one report is no choice, and of a pair it loses"
        );
        for millis in 1_001..1_100 {
            assert_ne!(pick(millis, &["e1".into()]), None, "all reports are too old");
        }
    }

    /// Servers that work on one request after the other, for an exponential time with a mean of 10 ms, and 10 clients that
    /// do not know of each other, at four fifths of what the servers can do. Gives the 99th percentile in milliseconds.
    fn tail<B: Balancer>(policy: fn() -> B, probes: usize) -> f64 {
        const SERVERS: usize = 50;
        const CLIENTS: usize = 10;
        const REQUESTS: u64 = 60_000;
        struct Client<B: Balancer> {
            policy: B,
            table: B::Table,
            loads: Vec<Arc<Load>>,
        }
        let members = members(&[1; SERVERS]);
        let clients: Vec<Client<B>> = (0..CLIENTS)
            .map(|_| {
                let policy = policy();
                let table = policy.table(&members);
                Client {
                    policy,
                    table,
                    loads: loads(&members),
                }
            })
            .collect();
        let mut rng = Rng::seeded(1);
        let nanos = |seconds: f64| (seconds * 1e9) as u64;
        let (mut now, mut times) = (0, Vec::new());
        // When the requests that are at each server will be done, and whose they are.
        let mut servers: Vec<VecDeque<u64>> = vec![VecDeque::new(); SERVERS];
        let mut ends: BTreeMap<(u64, u64), (usize, usize, Era)> = BTreeMap::new();
        for request in 0..REQUESTS {
            now += nanos(rng.exponential(0.01 / (0.8 * SERVERS as f64)));
            while let Some(next) = ends.first_entry().filter(|next| next.key().0 <= now) {
                let (client, server, era) = next.remove();
                servers[server].pop_front();
                let load = &clients[client].loads[server];
                load.end(era, Outcome::Success, 5);
                clients[client]
                    .policy
                    .finish(load, &Completion::new(Outcome::Success, None, None));
            }
            let which = rng.index(CLIENTS);
            let client = &clients[which];
            let at = Tick::from_nanos(now);
            for _ in 0..probes {
                let server = rng.index(SERVERS);
                let there = servers[server].len() as f32;
                let said = ServerLoad::new(there).latency(Duration::from_secs_f32(0.01 * (there + 1.0)));
                client.policy.report(&client.loads[server], &said, at);
            }
            let server = client
                .policy
                .pick(&client.table, &client.loads, &Request::new(), at, &mut rng)
                .unwrap();
            let done = now.max(servers[server].back().copied().unwrap_or(0)) + nanos(rng.exponential(0.01));
            servers[server].push_back(done);
            ends.insert((done, request), (which, server, client.loads[server].begin().unwrap()));
            if request > REQUESTS / 10 {
                times.push(done - now);
            }
        }
        times.sort_unstable();
        times[times.len() * 99 / 100] as f64 / 1e6
    }

    #[test]
    fn clients_that_hear_of_each_others_load_have_a_shorter_tail() {
        let (blind, seeing) = (tail(PowerOfTwo::default, 0), tail(Prequal::default, 3));
        assert!(seeing < 0.65 * blind, "{seeing} ms is not much less than {blind} ms");
    }
}

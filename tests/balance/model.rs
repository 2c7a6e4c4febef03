use crate::clock::ManualClock;
use outgrow::balance::{
    Adaptive, Balancer, Endpoint, EndpointId, EndpointState, Failure, Lease, LeastRequest, Maglev, OutlierEjection,
    PeakEwma, PickError, Pool, PowerOfTwo, Prequal, Request, Ring, RoundRobin, SmoothWeighted, Sticky, WeightedRandom,
};
use proptest::prelude::*;
use std::time::Duration;

/// What can be done to a pool. Endpoints are numbers.
#[derive(Clone, Debug)]
enum Op {
    Update(Vec<(u8, u32)>),
    Add(u8, u32),
    Remove(u8),
    Drain(u8),
    Enable(u8),
    Pick { avoid: Vec<u8> },
    Finish { lease: usize, outcome: u8 },
    Advance(u64),
}

/// The dumbest pool: a list, looked at from end to end every time.
#[derive(Default)]
struct Model {
    now: u64,
    joined: u64,
    endpoints: Vec<Seat>,
}

#[derive(Clone, Default)]
struct Seat {
    id: u8,
    /// Tells it from one of the same id that left before.
    joined: u64,
    weight: u32,
    drained: bool,
    until: Option<u64>,
    times: u64,
    returned: u64,
    row: u32,
    era: u64,
    ejections: u64,
    in_flight: u32,
    ended: [u64; 3],
}

const FAILURES: u32 = 2;
const BASE: u64 = 30;
const LONGEST: u64 = 70;
const INTERVAL: u64 = 10;

impl Seat {
    fn state(&self) -> EndpointState {
        match (self.drained || self.weight == 0, self.until) {
            (true, _) => EndpointState::Draining,
            (false, Some(_)) => EndpointState::Ejected,
            (false, None) => EndpointState::Active,
        }
    }
}

impl Model {
    fn put(&mut self, id: u8, weight: u32) {
        match self.find(id) {
            Some(seat) => seat.weight = weight,
            None => {
                self.joined += 1;
                self.endpoints.push(Seat {
                    id,
                    weight,
                    joined: self.joined,
                    ..Seat::default()
                });
            }
        }
    }

    fn find(&mut self, id: u8) -> Option<&mut Seat> {
        self.endpoints.iter_mut().find(|seat| seat.id == id)
    }

    fn update(&mut self, set: &[(u8, u32)]) {
        self.endpoints.retain(|seat| set.iter().any(|(id, _)| *id == seat.id));
        for &(id, weight) in set {
            self.put(id, weight);
        }
        self.endpoints
            .sort_by_key(|seat| set.iter().position(|(id, _)| *id == seat.id));
    }

    fn in_state(&self, state: EndpointState) -> usize {
        self.endpoints.iter().filter(|seat| seat.state() == state).count()
    }

    fn most(&self, percent: usize) -> usize {
        let usable = self.in_state(EndpointState::Active) + self.in_state(EndpointState::Ejected);
        let most = (usable * percent).div_ceil(100);
        if percent < 100 {
            most.min(usable.saturating_sub(1))
        } else {
            most
        }
    }

    fn finish(&mut self, id: u8, joined: u64, era: u64, outcome: u8, percent: usize) {
        let (now, most, out) = (self.now, self.most(percent), self.in_state(EndpointState::Ejected));
        let Some(seat) = self.find(id).filter(|seat| seat.joined == joined) else {
            return;
        };
        seat.in_flight -= 1;
        seat.ended[outcome as usize] += 1;
        if seat.era != era {
            return;
        }
        match outcome {
            0 => seat.row = 0,
            1 => seat.row += 1,
            _ => {}
        }
        if seat.row < FAILURES {
            return;
        }
        seat.row = 0;
        if seat.state() == EndpointState::Active && out < most {
            seat.era += 1;
            seat.ejections += 1;
            seat.times = seat.times.saturating_sub((now - seat.returned) / INTERVAL) + 1;
            seat.until = Some(now + (BASE * seat.times).min(LONGEST));
        }
    }

    /// Lets back one after the other until all is as it should be.
    fn settle(&mut self, percent: usize) {
        loop {
            let (now, most, out) = (self.now, self.most(percent), self.in_state(EndpointState::Ejected));
            let due = self
                .endpoints
                .iter_mut()
                .find(|seat| seat.until.is_some_and(|until| until <= now));
            let back = match due {
                Some(seat) => Some(seat),
                None if out > most => {
                    let ejected = self
                        .endpoints
                        .iter_mut()
                        .filter(|seat| seat.state() == EndpointState::Ejected);
                    ejected.min_by_key(|seat| seat.until)
                }
                None => None,
            };
            let Some(seat) = back else { return };
            seat.until = None;
            seat.returned = now;
        }
    }
}

struct Held<B: Balancer> {
    lease: Lease<B>,
    id: u8,
    joined: u64,
    era: u64,
}

/// Does the same to a pool and to the model, and compares all that can be seen after every step.
fn check<B: Balancer>(policy: B, ops: &[Op], percent: usize) -> Result<(), TestCaseError> {
    let clock = ManualClock::default();
    let rules = OutlierEjection::default()
        .consecutive_failures(FAILURES)
        .interval(Duration::from_secs(INTERVAL))
        .base_ejection_time(Duration::from_secs(BASE))
        .max_ejection_time(Duration::from_secs(LONGEST))
        .max_ejection_jitter(Duration::ZERO)
        .max_ejection_percent(percent as u32);
    let pool = Pool::builder(policy).outliers(rules).env(clock.env(1)).build();
    let endpoint = |id: u8, weight| Endpoint::new(id.to_string()).weight(weight);
    let mut model = Model::default();
    let mut held: Vec<Held<B>> = Vec::new();

    for op in ops {
        match op {
            Op::Update(set) => {
                pool.update(set.iter().map(|&(id, weight)| endpoint(id, weight)));
                model.update(set);
            }
            &Op::Add(id, weight) => {
                pool.add(endpoint(id, weight));
                model.put(id, weight);
            }
            Op::Remove(id) => {
                let there = model.find(*id).is_some();
                prop_assert_eq!(pool.remove(&id.to_string()), there);
                model.endpoints.retain(|seat| seat.id != *id);
            }
            Op::Drain(id) => {
                let there = model.find(*id).map(|seat| seat.drained = true).is_some();
                prop_assert_eq!(pool.drain(&id.to_string()), there);
            }
            Op::Enable(id) => {
                let now = model.now;
                let there = model.find(*id).map(|seat| {
                    seat.drained = false;
                    seat.era += 1;
                    seat.row = 0;
                    if seat.until.take().is_some() {
                        seat.returned = now;
                    }
                });
                prop_assert_eq!(pool.enable(&id.to_string()), there.is_some());
            }
            Op::Pick { avoid } => pick(&pool, &mut model, &mut held, avoid)?,
            Op::Finish { lease, outcome } => {
                if held.is_empty() {
                    continue;
                }
                let done = held.swap_remove(lease % held.len());
                match outcome {
                    0 => done.lease.succeed(),
                    1 => done.lease.fail(Failure::Other),
                    _ => drop(done.lease),
                }
                model.finish(done.id, done.joined, done.era, *outcome, percent);
            }
            Op::Advance(secs) => {
                clock.advance(Duration::from_secs(*secs));
                model.now += secs;
            }
        }
        model.settle(percent);
        compare(&pool, &model)?;
    }

    drop(held);
    prop_assert!(pool.status().endpoints.iter().all(|e| e.in_flight == 0));
    Ok(())
}

fn pick<B: Balancer>(
    pool: &Pool<B>,
    model: &mut Model,
    held: &mut Vec<Held<B>>,
    avoid: &[u8],
) -> Result<(), TestCaseError> {
    let tried: Vec<EndpointId> = avoid.iter().map(|id| id.to_string().into()).collect();
    let active: Vec<u8> = model
        .endpoints
        .iter()
        .filter(|s| s.state() == EndpointState::Active)
        .map(|s| s.id)
        .collect();
    match pool.pick(&Request::new().avoid(&tried)) {
        Ok(lease) => {
            let id: u8 = lease.id().parse().unwrap();
            prop_assert!(active.contains(&id), "{} is not in {:?}", id, active);
            let untried = active.iter().any(|id| !avoid.contains(id));
            prop_assert!(!untried || !avoid.contains(&id), "{} was tried, of {:?}", id, active);
            let seat = model.find(id).unwrap();
            seat.in_flight += 1;
            let (joined, era) = (seat.joined, seat.era);
            held.push(Held { lease, id, joined, era });
        }
        Err(error) => {
            prop_assert!(active.is_empty());
            let ejected = model
                .endpoints
                .iter()
                .filter(|seat| seat.state() == EndpointState::Ejected);
            let want = match ejected.filter_map(|seat| seat.until).min() {
                Some(until) => PickError::AllEjected {
                    returns_in: Some(Duration::from_secs(until - model.now)),
                },
                None => PickError::NoEndpoints,
            };
            prop_assert_eq!(error, want);
        }
    }
    Ok(())
}

fn compare<B: Balancer>(pool: &Pool<B>, model: &Model) -> Result<(), TestCaseError> {
    let status = pool.status().endpoints;
    prop_assert_eq!(status.len(), model.endpoints.len());
    for (is, want) in status.iter().zip(&model.endpoints) {
        prop_assert_eq!(&*is.id, want.id.to_string());
        prop_assert_eq!((is.weight, is.state), (want.weight, want.state()), "{:?}", is);
        prop_assert_eq!(
            (is.in_flight, is.ejections),
            (want.in_flight, want.ejections),
            "{:?}",
            is
        );
        prop_assert_eq!([is.succeeded, is.failed, is.cancelled], want.ended, "{:?}", is);
        let returns = want.until.filter(|_| want.state() == EndpointState::Ejected);
        let returns_in = returns.map(|until| Duration::from_secs(until - model.now));
        prop_assert_eq!(is.returns_in, returns_in, "{:?}", is);
    }
    Ok(())
}

fn op() -> impl Strategy<Value = Op> {
    let id = || 0..6_u8;
    let weight = || prop_oneof![1 => Just(0_u32), 8 => 1..4_u32];
    prop_oneof![
        1 => prop::collection::vec((id(), weight()), 0..8).prop_map(Op::Update),
        2 => (id(), weight()).prop_map(|(id, weight)| Op::Add(id, weight)),
        1 => id().prop_map(Op::Remove),
        1 => id().prop_map(Op::Drain),
        1 => id().prop_map(Op::Enable),
        12 => prop::collection::vec(id(), 0..4).prop_map(|avoid| Op::Pick { avoid }),
        12 => (any::<usize>(), prop_oneof![2 => Just(0_u8), 6 => Just(1), 1 => Just(2)])
            .prop_map(|(lease, outcome)| Op::Finish { lease, outcome }),
        2 => (0..40_u64).prop_map(Op::Advance),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Begin with a few endpoints, or most of the picks find none.
    let start = Just(Op::Update((0..5).map(|id| (id, 1)).collect()));
    (start, prop::collection::vec(op(), 0..150)).prop_map(|(start, mut ops)| {
        ops.insert(0, start);
        ops
    })
}

fn percent() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(10), Just(50), Just(100)]
}

proptest! {
    #[test]
    fn does_what_the_model_does(ops in ops(), percent in percent()) {
        check(Adaptive::default(), &ops, percent)?;
        check(RoundRobin::default(), &ops, percent)?;
        check(RoundRobin::exact(), &ops, percent)?;
        check(SmoothWeighted::default(), &ops, percent)?;
        check(LeastRequest::default(), &ops, percent)?;
        check(PowerOfTwo::default(), &ops, percent)?;
        check(PeakEwma::default(), &ops, percent)?;
        check(Prequal::default(), &ops, percent)?;
        check(Sticky::new(RoundRobin::default()), &ops, percent)?;
        check(WeightedRandom::default(), &ops, percent)?;
        check(Maglev::with_slots(251).unwrap(), &ops, percent)?;
        check(Ring::with_points(20), &ops, percent)?;
        check(Ring::with_points(20).bounded_load(1.25), &ops, percent)?;
    }
}

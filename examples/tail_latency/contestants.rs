//! The policies that are compared.

use crate::scenario::Scenario;
use crate::world::{Outcome, run};
use outgrow::balance::{
    Adaptive, LeastRequest, PeakEwma, PowerOfTwo, Prequal, RoundRobin, SmoothWeighted, WeightedRandom,
};

/// A policy's name, and how it is run.
pub(crate) type Contestant = (&'static str, Run);

/// Runs a scenario with the seed, and with or without ejection of outliers.
pub(crate) type Run = fn(&Scenario, u64, bool) -> Outcome;

pub(crate) const CONTESTANTS: &[Contestant] = &[
    ("random", |scenario, seed, ejection| {
        run(scenario, seed, ejection, WeightedRandom::default)
    }),
    ("round-robin", |scenario, seed, ejection| {
        run(scenario, seed, ejection, RoundRobin::default)
    }),
    ("smooth", |scenario, seed, ejection| {
        run(scenario, seed, ejection, SmoothWeighted::default)
    }),
    ("least-request", |scenario, seed, ejection| {
        run(scenario, seed, ejection, LeastRequest::default)
    }),
    ("power-of-two", |scenario, seed, ejection| {
        run(scenario, seed, ejection, PowerOfTwo::default)
    }),
    ("peak-ewma", |scenario, seed, ejection| {
        run(scenario, seed, ejection, PeakEwma::default)
    }),
    ("prequal", |scenario, seed, ejection| {
        run(scenario, seed, ejection, Prequal::default)
    }),
    ("adaptive", |scenario, seed, ejection| {
        run(scenario, seed, ejection, Adaptive::default)
    }),
];

/// The contestant of that name.
pub(crate) fn find(name: &str) -> Option<Contestant> {
    CONTESTANTS.iter().find(|contestant| contestant.0 == name).copied()
}

//! The router of data centres from outside: its promises, against naive models, under threads, with real places.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

mod behaviour;
#[path = "../balance/clock.rs"]
#[allow(dead_code, reason = "nobody here counts who looks at it")]
mod clock;
mod database;
mod latency;
mod model;
mod places;
mod regions;
mod spill;
#[path = "../support/mod.rs"]
mod support;
mod threads;

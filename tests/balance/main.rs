//! The pool from outside: its promises, against a naive model, under threads, and in a simulated world.
#![allow(clippy::unwrap_used, reason = "what fails to unwrap fails the test")]

mod around;
mod behaviour;
mod clock;
mod fair;
mod model;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod threads;
mod vectors;

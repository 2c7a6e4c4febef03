//! The pool from outside: its promises, against a naive model, under threads, and in a simulated world.

mod behaviour;
mod clock;
mod model;
mod simulated;
mod threads;

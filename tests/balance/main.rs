//! The pool from outside: its promises, against a naive model, and under threads.

mod behaviour;
mod clock;
mod model;
mod threads;

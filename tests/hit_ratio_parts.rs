//! Runs the unit tests inside the modules that the hit ratio example and bench share.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]
#![allow(clippy::disallowed_methods, reason = "it reads and writes real files")]
#![allow(dead_code, reason = "`main.rs`, which uses it all, is not here")]

#[path = "../examples/hit_ratio/belady.rs"]
mod belady;
#[path = "../examples/hit_ratio/cli.rs"]
mod cli;
#[path = "../examples/hit_ratio/picture.rs"]
mod picture;
#[path = "../examples/hit_ratio/policies.rs"]
mod policies;
#[path = "../examples/hit_ratio/trace.rs"]
mod trace;

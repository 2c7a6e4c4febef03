//! The pure parts of `queuectl`, with their tests.
#![allow(dead_code, reason = "what the program needs and the tests do not")]
#![allow(
    clippy::disallowed_methods,
    reason = "one of them looks at who has a real folder open"
)]

#[path = "../examples/queuectl/cli.rs"]
mod cli;
#[path = "../examples/queuectl/holder.rs"]
mod holder;
#[path = "../examples/queuectl/text.rs"]
mod text;

//! outgrow
#![warn(missing_docs)]

pub mod balance;
pub mod cache;
mod codec;
pub mod env;
pub mod hash;
mod log;
mod mutant;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
mod sync;

//! outgrow
#![warn(missing_docs)]

mod codec;
pub mod env;
pub mod hash;
mod mutant;
pub mod store;
mod sync;

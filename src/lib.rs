//! outgrow
#![warn(missing_docs)]

pub mod env;
pub mod hash;
mod sync;

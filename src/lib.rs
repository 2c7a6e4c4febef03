//! outgrow
#![warn(missing_docs)]

pub mod env;
pub mod hash;
#[cfg(feature = "sim")]
pub mod sim;
mod sync;

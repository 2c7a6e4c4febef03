//! outgrow
#![warn(missing_docs)]

mod codec;
pub mod env;
pub mod hash;
pub mod store;
mod sync;

//! The parts of the fault run: drivers of what is compared, children that run them, and the faults.

pub(crate) mod child;
pub(crate) mod columns;
pub(crate) mod drivers;
mod files;
mod ledger;
mod mounts;
mod payload;
#[cfg(peers)]
mod peers;
mod process;

//! Tests of the room as a whole, and those too long to stand beside their subject.

mod conformance;
mod decorators;
mod lies;
mod local;
mod memory;
mod script;

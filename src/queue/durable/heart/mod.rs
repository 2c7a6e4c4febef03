//! What a durable queue knows and decides, without a disk, a lock or a clock of its own: plain data, to which the time is
//! an argument.
//!
//! The [`state`] has the topics, each with the messages that it has [`kept`], and where each subscription is [`standing`]:
//! a [`lane`] for each priority, an [`agenda`] of leases and waits that end, the [`keys`] that somebody holds. Beside it are
//! the ids of messages by which repetitions are told ([`dedup`]), when messages were sent ([`ages`]), where they lie that were
//! written again ([`copies`]), and which of these a damaged log should hold ([`promised`]). [`replayed`] is how opening
//! tells all that.

mod agenda;
pub(super) mod ages;
mod copies;
pub(super) mod dedup;
#[cfg(test)]
mod heart_tests;
pub(super) mod kept;
mod keys;
mod lane;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod naive;
mod part;
mod promised;
mod replayed;
pub(super) mod standing;
pub(super) mod state;

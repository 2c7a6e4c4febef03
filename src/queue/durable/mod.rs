//! [`DurableQueue`]: a queue in a directory of this machine.
//!
//! What it knows and decides is plain data, the [`heart`]: which messages a topic has, where each subscription stands, what
//! may be delivered next. Around it is one lock, the [`shell`]'s. Everything that must survive is a [`record`] in the log, and
//! becomes true in the heart only when it is durable: [`send`] and [`outgoing`] append messages, [`happen`] lets happen what
//! the log has committed, [`found`] does the same with what opening finds, by short [`notes`] where it can.
//!
//! Consumers [`consume`], [`fetch`] what is not in the [`cache`], and settle ([`settling`]); acknowledgements that come
//! together [`gather`] into one entry, and what the log need not hear at once is kept as [`untold`]. The [`pump`] is the
//! task that does what is due: it ends leases, tells the log, makes dead letters, keeps to [`limits`] ([`retain`]),
//! frees space, and writes again what stands in the way of that ([`rewrite`]). [`inspect`] looks at a queue that somebody
//! else may have open.

mod acks;
mod cache;
mod consume;
mod fate;
mod fetch;
#[cfg(all(test, feature = "sim"))]
mod fetch_tests;
mod found;
#[cfg(all(test, feature = "sim"))]
mod found_tests;
mod gather;
#[cfg(all(test, feature = "sim"))]
mod gather_tests;
mod given;
mod happen;
mod heading;
mod heart;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod hooks;
mod inspect;
#[cfg(all(test, feature = "sim"))]
mod inspect_tests;
mod inspected;
#[cfg(all(test, outgrow_shuttle))]
mod interleaved;
#[cfg(all(test, feature = "sim"))]
mod level_tests;
#[cfg(all(test, feature = "sim"))]
mod limit_tests;
mod limits;
mod notes;
mod outgoing;
mod pump;
mod queue;
mod record;
mod redrive;
mod retain;
mod retained;
mod rewrite;
#[cfg(all(test, feature = "sim"))]
mod rewrite_tests;
mod runs;
mod send;
mod settling;
mod shell;
mod subscribe;
#[cfg(all(test, feature = "sim"))]
mod testing;
#[cfg(all(test, feature = "sim", feature = "suite"))]
mod tests;
mod untold;

pub use inspect::{Inspection, Inspector, Messages};
pub use inspected::{DamagedBytes, InspectProgress, MessageView, SegmentView, SubscriptionView, TopicView};
pub use limits::{OnFull, Retention};
pub use queue::{DurableQueue, DurableQueueBuilder};

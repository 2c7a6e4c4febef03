use std::time::Duration;

/// The way that messages take between the nodes of a [`ReplicatedStore`](super::ReplicatedStore).
///
/// The nodes are in one process, so by default every message arrives, at once. A simulation that stands for several
/// machines gives the way a length, or cuts it:
///
/// ```
/// use outgrow::replica::{Link, Passage};
/// use std::time::Duration;
///
/// /// Node "c" is in another data centre, and a digger has found the cable.
/// struct Cut;
///
/// impl Link for Cut {
///     fn pass(&self, from: &str, to: &str) -> Passage {
///         if from == "c" || to == "c" { Passage::Lost } else { Passage::After(Duration::from_micros(200)) }
///     }
/// }
/// assert_eq!(Cut.pass("a", "c"), Passage::Lost);
/// ```
pub trait Link: Send + Sync {
    /// What becomes of one message from `from` to `to`, answers included. They are names of nodes, or [`CLIENT`] for
    /// the store's own end: commits, and the orders of a failover. Reads are no messages.
    fn pass(&self, from: &str, to: &str) -> Passage;
}

/// The name of the store's own end in [`Link::pass`]. No node may have it.
pub const CLIENT: &str = "client";

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Passage {
    /// It arrives now.
    AtOnce,
    /// It arrives after this time.
    After(Duration),
    /// It never arrives.
    Lost,
}

use super::{Error, Result};
use std::fmt;

/// Something that not every store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Feature {
    /// A batch of several keys commits as one.
    AtomicBatches,
    /// [`Expect`](super::Expect) in a batch.
    Expectations,
    /// Values that expire.
    Ttl,
    /// [`Batch::add`](super::Batch::add).
    Counters,
    /// [`Batch::import`](super::Batch::import): entries keep the version that another store gave them.
    Import,
    /// [`Batch::cursor`](super::Batch::cursor).
    Cursors,
    /// [`Store::scan`](super::Store::scan).
    Scans,
    /// Receipts carry a token, so that sessions can ask for what they wrote.
    Tokens,
    /// What was acknowledged survives the loss of power.
    Durable,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::AtomicBatches => "atomic batches of several keys",
            Feature::Expectations => "expectations in a batch",
            Feature::Ttl => "values that expire",
            Feature::Counters => "counters",
            Feature::Import => "imported entries",
            Feature::Cursors => "cursors",
            Feature::Scans => "scans",
            Feature::Tokens => "session tokens",
            Feature::Durable => "durability",
        })
    }
}

/// What a store can do. A block that needs more refuses when it is built.
///
/// ```
/// use outgrow::store::{Capability, Feature};
/// let simple = Capability::none().with(Feature::Ttl);
/// assert!(simple.has(Feature::Ttl));
/// assert!(simple.require(Feature::Scans).is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Capability(u32);

const EVERY: [Feature; 9] = [
    Feature::AtomicBatches,
    Feature::Expectations,
    Feature::Ttl,
    Feature::Counters,
    Feature::Import,
    Feature::Cursors,
    Feature::Scans,
    Feature::Tokens,
    Feature::Durable,
];

impl Capability {
    /// Plain reads, and writes of one key.
    pub const fn none() -> Capability {
        Capability(0)
    }

    /// Everything there is in this release.
    pub fn all() -> Capability {
        EVERY.into_iter().fold(Capability::none(), Capability::with)
    }

    /// This and `feature`.
    pub const fn with(self, feature: Feature) -> Capability {
        Capability(self.0 | 1 << feature as u8)
    }

    /// This but not `feature`.
    pub const fn without(self, feature: Feature) -> Capability {
        Capability(self.0 & !(1 << feature as u8))
    }

    /// What both can do.
    pub const fn and(self, other: Capability) -> Capability {
        Capability(self.0 & other.0)
    }

    /// Whether it can.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u8 != 0
    }

    /// Passes if it can.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if not.
    pub const fn require(self, feature: Feature) -> Result<()> {
        if self.has(feature) {
            Ok(())
        } else {
            Err(Error::Unsupported(feature))
        }
    }

    /// What of `needs` it lacks.
    pub const fn missing(self, needs: Capability) -> Capability {
        Capability(needs.0 & !self.0)
    }

    /// The features it has.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        EVERY.into_iter().filter(move |feature| self.has(*feature))
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

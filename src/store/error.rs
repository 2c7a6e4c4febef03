use super::{Feature, LogId, Position, Version};
use crate::codec::Malformed;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What a [`Store`](super::Store) operation returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of any [`Store`](super::Store) failed, with what the caller needs to act.
///
/// [`retry`](Error::retry) says whether trying again can help, and [`effect`](Error::effect) whether a failed write
/// may have happened all the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A precondition did not hold; read the key again and decide anew.
    #[error("the key is at {current:?}, which is not what the batch expects")]
    Conflict {
        /// The key whose expectation failed.
        key: Bytes,
        /// The version it has, if it exists.
        current: Option<Version>,
    },
    /// No node that may serve this read has caught up with what it needs.
    #[error("no node that may serve this has reached {need}: the best is at {best}")]
    Behind {
        /// The position that the read needs.
        need: Position,
        /// The best position among the nodes that were asked.
        best: Position,
        /// When the best may get there, where that is known.
        eta: Option<Duration>,
    },
    /// The key's slot lives on another shard.
    #[error("slot {slot} has moved to shard {to} in version {version} of the map")]
    Moved {
        /// The slot.
        slot: u32,
        /// The shard that has it now.
        to: String,
        /// The version of the shard map that says so.
        version: u64,
    },
    /// This node is no longer the primary: a newer epoch has begun.
    #[error("epoch {mine} is over: the current one is {current}")]
    Fenced {
        /// The epoch of the one that tried.
        mine: u64,
        /// The epoch that refused it.
        current: u64,
    },
    /// The token names a write that did not survive a failover.
    #[error("the token names {need} of log {log}, but after a failover only what is up to {survived} survived")]
    TokenLost {
        /// The log.
        log: LogId,
        /// What the token asks for.
        need: Position,
        /// The last position of the lost epoch that survived.
        survived: Position,
    },
    /// The time limit passed.
    #[error("the time limit passed (effect {effect})")]
    Timeout {
        /// Whether a write may have happened.
        effect: Effect,
    },
    /// Nobody is there to do it.
    #[error("unavailable: {what} (effect {effect})")]
    Unavailable {
        /// What is missing.
        what: String,
        /// Whether a write may have happened.
        effect: Effect,
    },
    /// A bound was reached; nothing was written.
    #[error("full: {what}")]
    Full {
        /// The bound, and how to raise it.
        what: String,
    },
    /// This implementation cannot do that; see its [`Capability`](super::Capability).
    #[error("this store does not support {0}")]
    Unsupported(Feature),
    /// The request itself makes no sense to any store.
    #[error("invalid request: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// The feed no longer goes back that far: start from a [`snapshot`](super::Feed::snapshot).
    #[error("the feed starts after {oldest}")]
    PositionGone {
        /// The oldest position from which one can still watch.
        oldest: Position,
    },
    /// Stored bytes fail their checksum or make no sense.
    #[error("corrupt data: {what}")]
    Corrupt {
        /// What is broken, and where.
        what: String,
    },
    /// An earlier sync failed, so nothing more is accepted until the store is opened again.
    #[error("an earlier sync failed: open the store again")]
    Poisoned,
    /// The operating system refused.
    #[error("{message} (effect {effect})")]
    Io {
        /// Its kind of error.
        kind: io::ErrorKind,
        /// Its words.
        message: String,
        /// Whether a write may have happened.
        effect: Effect,
    },
    /// Retries are used up; nested retries should not start again.
    #[error("gave up after {attempts} attempts: {last}")]
    Retried {
        /// How often it was tried.
        attempts: u32,
        /// How the last attempt failed, or an earlier one that may have had an effect.
        last: Box<Error>,
    },
    /// An error of an implementation outside this crate.
    #[error(transparent)]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail the same way.
    Never,
    /// It may succeed, now or a little later.
    May,
    /// It might, but it was retried already, below.
    Exhausted,
}

/// What a failed write left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it was not written and will not be.
    None,
    /// Unknown: it is neither done nor undone. Read before trying again, or make the write conditional.
    Unknown,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::None => "none",
            Effect::Unknown => "unknown",
        })
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Error {
        Error::corrupt(malformed.to_string())
    }
}

impl Error {
    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Error::Behind { .. }
            | Error::Moved { .. }
            | Error::Fenced { .. }
            | Error::Timeout { .. }
            | Error::Unavailable { .. }
            | Error::Full { .. }
            | Error::Io { .. } => Retry::May,
            Error::Conflict { .. }
            | Error::TokenLost { .. }
            | Error::Unsupported(_)
            | Error::Invalid { .. }
            | Error::PositionGone { .. }
            | Error::Corrupt { .. }
            | Error::Poisoned
            | Error::Other(_) => Retry::Never,
            Error::Retried { .. } => Retry::Exhausted,
        }
    }

    /// What a write that failed with this left behind.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Error::Timeout { effect } | Error::Unavailable { effect, .. } | Error::Io { effect, .. } => *effect,
            Error::Retried { last, .. } => last.effect(),
            Error::Other(_) => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// An operating-system error.
    #[must_use]
    pub fn io(error: &io::Error, effect: Effect) -> Error {
        Error::Io {
            kind: error.kind(),
            message: error.to_string(),
            effect,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into() }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Error {
        Error::Corrupt { what: what.into() }
    }

    pub(crate) fn unavailable(what: impl Into<String>, effect: Effect) -> Error {
        Error::Unavailable {
            what: what.into(),
            effect,
        }
    }
}

use super::Feature;
use crate::log::LogError;
use std::io;

pub use crate::store::{Effect, Retry};

/// What a [`Queue`](super::Queue) operation returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of a [`Queue`](super::Queue) failed, with what the caller needs to act.
///
/// [`retry`](Error::retry) says whether trying again can help, and [`effect`](Error::effect) whether it may have happened
/// all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody has made this subscription; see [`Queue::subscribe`](super::Queue::subscribe).
    #[error("topic {topic:?} has no subscription {name:?}")]
    NoSubscription {
        /// The topic.
        topic: String,
        /// The subscription.
        name: String,
    },
    /// The delivery's lease has ended: the message is, or will be, delivered again, and this one settles nothing.
    #[error("the lease on message {seq} has ended")]
    LeaseLost {
        /// The message.
        seq: u64,
    },
    /// A message, or a batch, is larger than the queue takes.
    #[error("{len} bytes are more than the {max} that fit")]
    TooLarge {
        /// What it needs.
        len: usize,
        /// What there is.
        max: usize,
    },
    /// The request itself makes no sense.
    #[error("invalid request: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// A bound was reached; nothing was sent. (An acknowledgement that fails with this holds in this process, and the
    /// message may be delivered again after a restart.)
    #[error("full: {what}")]
    Full {
        /// The bound, and how to raise it.
        what: String,
    },
    /// The directory is in use by another queue.
    #[error("the queue's directory is in use")]
    Locked,
    /// An earlier write or sync failed, so nothing more is accepted until the queue is opened again.
    #[error("an earlier write or sync failed: open the queue again")]
    Poisoned,
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
    /// This implementation cannot do that; see its [`Capability`](super::Capability).
    #[error("this queue does not support {0}")]
    Unsupported(Feature),
    /// Stored bytes make no sense to this release.
    #[error("corrupt data: {what}")]
    Corrupt {
        /// What is broken, and where.
        what: String,
    },
    /// The operating system refused.
    #[error("{message} (effect {effect})")]
    Io {
        /// Its kind of error.
        kind: io::ErrorKind,
        /// Its words.
        message: String,
        /// Whether it may have happened.
        effect: Effect,
    },
}

impl Error {
    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Error::Full { .. } | Error::Locked | Error::Io { .. } => Retry::May,
            Error::NoSubscription { .. }
            | Error::LeaseLost { .. }
            | Error::TooLarge { .. }
            | Error::Invalid { .. }
            | Error::Poisoned
            | Error::Closed
            | Error::Unsupported(_)
            | Error::Corrupt { .. } => Retry::Never,
        }
    }

    /// What a send or a settlement that failed with this left behind.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Error::Io { effect, .. } => *effect,
            _ => Effect::None,
        }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into() }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Error {
        match error {
            LogError::Full => Error::Full {
                what: "the disk has no room".into(),
            },
            LogError::Busy { limit, .. } => Error::Full {
                what: format!("more than {limit} bytes wait for the disk"),
            },
            LogError::Poisoned => Error::Poisoned,
            LogError::TooLarge { len, max } => Error::TooLarge { len, max },
            LogError::Locked => Error::Locked,
            LogError::Closed => Error::Closed,
            LogError::Version { .. } | LogError::Damaged { .. } => Error::Corrupt {
                what: error.to_string(),
            },
            LogError::Gone { oldest } => Error::Corrupt {
                what: format!("the log begins at {oldest}, after what was asked for"),
            },
            LogError::Io { kind, message } => Error::Io {
                kind,
                message,
                effect: Effect::None,
            },
            LogError::Unknown { kind, message } => Error::Io {
                kind,
                message,
                effect: Effect::Unknown,
            },
        }
    }
}

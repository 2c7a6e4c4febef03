use crate::store::Retry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why a cache could not be built, or not be given another size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is outside its bounds.
    #[error("the option `{option}`: {why}")]
    Option {
        /// The builder's method.
        option: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The weight limit of a cache was to be moved that was built without one, and so does not know what its entries weigh.
    #[error("the cache was built without a weight limit")]
    Unweighted,
    /// An option loads in the background, and the cache's [`Env`](crate::env::Env) has no runtime of the user's where
    /// loaders could be polled: give it one by [`spawner`](crate::env::EnvBuilder::spawner), or build it with the feature
    /// `tokio` inside that runtime.
    #[error("the option `{option}` needs a runtime to load in the background: give the `Env` a `spawner`")]
    NeedsSpawner {
        /// The builder's method.
        option: &'static str,
    },
}

/// Why [`Cache::get_or_load`](super::Cache::get_or_load) and its kin have no value.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader failed; everyone who waited for it has the same error.
    Failed(Arc<E>),
    /// Too many calls wait for loads already. Nothing was loaded; trying again a little later may succeed.
    Crowded {
        /// How many may wait: [`max_waiting`](super::CacheBuilder::max_waiting).
        limit: usize,
    },
    /// The load took longer than [`load_timeout`](super::CacheBuilder::load_timeout) allows; everyone who waited for it
    /// has this error.
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
}

impl<E> LoadError<E> {
    /// Whether trying again can help: it may, since no error is remembered, and who asks again loads again. Whether a
    /// loader's own error will last, the error itself has to say.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::May
    }
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> LoadError<E> {
        match self {
            LoadError::Failed(error) => LoadError::Failed(Arc::clone(error)),
            LoadError::Crowded { limit } => LoadError::Crowded { limit: *limit },
            LoadError::TimedOut { after } => LoadError::TimedOut { after: *after },
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            LoadError::Crowded { limit } => f.debug_struct("Crowded").field("limit", limit).finish(),
            LoadError::TimedOut { after } => f.debug_struct("TimedOut").field("after", after).finish(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(error) => error.fmt(f),
            LoadError::Crowded { limit } => write!(f, "{limit} calls wait for loads already"),
            LoadError::TimedOut { after } => write!(f, "the load took longer than {after:?}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Failed(error) => Some(&**error),
            LoadError::Crowded { .. } | LoadError::TimedOut { .. } => None,
        }
    }
}

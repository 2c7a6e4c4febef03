use std::fmt;
use std::sync::Arc;

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
}

/// Why [`Cache::get_or_load`](super::Cache::get_or_load) has no value.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader failed; everyone who waited for it has the same error.
    Failed(Arc<E>),
    /// Too many calls wait for loads already. Nothing was loaded; trying again a little later may succeed.
    Crowded {
        /// How many may wait: [`max_waiting`](super::CacheBuilder::max_waiting).
        limit: usize,
    },
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> LoadError<E> {
        match self {
            LoadError::Failed(error) => LoadError::Failed(Arc::clone(error)),
            LoadError::Crowded { limit } => LoadError::Crowded { limit: *limit },
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            LoadError::Crowded { limit } => f.debug_struct("Crowded").field("limit", limit).finish(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(error) => error.fmt(f),
            LoadError::Crowded { limit } => write!(f, "{limit} calls wait for loads already"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Failed(error) => Some(&**error),
            LoadError::Crowded { .. } => None,
        }
    }
}

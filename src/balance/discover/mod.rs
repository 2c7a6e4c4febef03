//! Where a pool's endpoints come from: a stream of sets, which [`Pool::follow`](super::Pool::follow) applies.
//!
//! | source | says | feature |
//! |---|---|---|
//! | `futures::stream::once` or `iter` | what never changes | |
//! | [`FileSource`] | what a text file says, read again at an interval | |
//! | `DnsSource` | the A, AAAA or SRV records of a name, asked for again when they expire | `dns` |
//! | [`PollSource`] | what a future of your own finds: a registry, an orchestrator | |
//! | any other `Stream` | what you push into a channel, a watch of your own | |
//!
//! Each item is a whole set, not a difference, so a lost or late item does no lasting harm. An item may be an error
//! instead: the pool keeps the last good set and says so in its [`status`](super::Pool::status). The sources here go on
//! after an error, and speak only when there is news: another set, or one after an error.
//!
//! Sources name endpoints and addresses. What a caller needs in order to reach them (a channel, a client) comes from
//! [`targets`](DiscoverExt::targets), which makes it once per endpoint and keeps it for as long as the endpoint stays.
//!
//! ```
//! use futures::StreamExt;
//! use outgrow::balance::discover::{DiscoverExt, DiscoveryError, DiscoveryState};
//! use outgrow::balance::{Endpoint, Pool, PowerOfTwo, Request};
//!
//! let pool = Pool::builder(PowerOfTwo::default()).build();
//! let sets = futures::stream::iter([
//!     Ok(vec![Endpoint::new("10.0.0.1:80"), Endpoint::new("10.0.0.2:80")]),
//!     Err(DiscoveryError::other("the registry does not answer")),
//! ]);
//! let clients = sets.targets(|endpoint| Ok::<_, DiscoveryError>(format!("http://{}/", endpoint.id())));
//!
//! // The follower is a future: spawn it on your runtime. This one ends when the stream does.
//! futures::executor::block_on(pool.follow(clients).source("registry"));
//!
//! assert!(pool.pick(&Request::new())?.target.starts_with("http://10.0.0."));
//! let discovery = pool.status().discovery.expect("it has followed");
//! assert_eq!((discovery.sets, discovery.failures), (1, 1));
//! assert_eq!(discovery.state, DiscoveryState::Ended);
//! assert_eq!(discovery.last_error.as_deref(), Some("the registry does not answer"));
//! # Ok::<(), outgrow::balance::PickError>(())
//! ```

#[cfg(feature = "dns")]
mod dns;
mod file;
mod follow;
mod lines;
mod poll;
mod schedule;
#[cfg(feature = "dns")]
mod srv;
mod status;
mod targets;

#[cfg(feature = "dns")]
pub use dns::{DnsSource, Families};
pub use file::FileSource;
pub use follow::{Follow, OnEmpty};
pub use poll::{Found, PollSource};
pub use schedule::Refresh;
pub(super) use status::Journal;
pub use status::{DiscoveryState, DiscoveryStatus};
pub use targets::DiscoverExt;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a source has no set to give. The pool keeps the last good one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A line of the file says nothing that makes sense.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The file names no endpoint, and does not say that this is meant.
    #[error("{}: names no endpoint; a file that means so has the line `none`", path.display())]
    NoLine {
        /// The file.
        path: PathBuf,
    },
    /// The name cannot be resolved.
    #[error("{name}: {reason}")]
    Lookup {
        /// The name.
        name: String,
        /// What the resolver said.
        reason: String,
    },
    /// The source took longer than its time limit.
    #[error("no answer within {limit:?}")]
    Timeout {
        /// The time limit.
        limit: Duration,
    },
    /// The source needs a tokio runtime, and was polled outside one.
    #[error("needs a tokio runtime, and is polled outside one")]
    NeedsTokio,
    /// Whatever else a source ran into.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl DiscoveryError {
    /// Whatever a source of one's own ran into.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> DiscoveryError {
        DiscoveryError::Other(error.into())
    }
}

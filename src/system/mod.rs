//! Named blocks as one system: one status for all of them, and one way to stop.
//!
//! ```
//! use outgrow::cache::Cache;
//! use outgrow::store::LocalStore;
//! use outgrow::system::{Health, System};
//! use std::time::Duration;
//! # futures::executor::block_on(async {
//!
//! let users = LocalStore::in_memory();
//! let pages: Cache<String, String> = Cache::builder().capacity(1_000).build()?;
//! let system = System::builder().block("users", users.clone()).block("pages", pages.clone()).build()?;
//!
//! assert_eq!(system.status().health, Health::Ready);
//! println!("{}", system.status());
//! let report = system.shut_down(Duration::from_secs(5)).await;
//! assert!(report.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! It holds handles; the service goes on using its own. Add what others depend on first: a shutdown goes from the last
//! block to the first.

mod block;
mod blocks;
mod keepers;
mod status;

pub use block::Block;
pub use status::{BlockStatus, Health, NamedStatus, SystemStatus};

use crate::env::Env;
use futures::lock::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Blocks under names, in the order in which they were added. Cheap to clone.
#[derive(Clone)]
pub struct System {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    blocks: Vec<(String, Box<dyn Block>)>,
    /// How the shutdown went, once it is over.
    over: Mutex<Option<ShutdownReport>>,
}

/// Builds a [`System`].
#[must_use]
pub struct SystemBuilder {
    env: Env,
    blocks: Vec<(String, Box<dyn Block>)>,
}

/// Why a [`System`] cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two blocks have the same name.
    #[error("two blocks are called {name:?}: give each a name of its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
}

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Every block, in the order in which they were stopped.
    pub blocks: Vec<BlockOutcome>,
}

/// How one block stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BlockOutcome {
    /// Its name.
    pub name: String,
    /// Whether what it had begun was finished in time.
    pub drained: bool,
    /// Whether it closed in time.
    pub closed: bool,
}

impl System {
    /// A system without blocks yet.
    pub fn builder() -> SystemBuilder {
        SystemBuilder {
            env: Env::default(),
            blocks: Vec::new(),
        }
    }

    /// How every block is at this moment. Takes no lock for longer than a block's own status does.
    #[must_use]
    pub fn status(&self) -> SystemStatus {
        let named = |(name, block): &(String, Box<dyn Block>)| NamedStatus {
            name: name.clone(),
            kind: block.kind().to_owned(),
            status: block.status(),
        };
        SystemStatus::new(self.inner.blocks.iter().map(named).collect())
    }

    /// Stops every block, from the last added to the first: drains it, so that what it has begun is finished, then
    /// closes it. Each of the two steps takes at most `limit` for each block; a block that is not drained in time is
    /// closed all the same. Later calls return the first one's report.
    ///
    /// # Cancel safety
    /// Dropped halfway, some blocks are stopped and some are not; the next call goes through all of them again.
    pub async fn shut_down(&self, limit: Duration) -> ShutdownReport {
        let Inner { env, blocks, over } = &*self.inner;
        let mut over = over.lock().await;
        if let Some(report) = &*over {
            return report.clone();
        }
        let mut outcomes = Vec::with_capacity(blocks.len());
        for (name, block) in blocks.iter().rev() {
            let drained = env.timeout(limit, block.drain(env)).await.is_ok();
            let closed = env.timeout(limit, block.close()).await.is_ok();
            outcomes.push(BlockOutcome {
                name: name.clone(),
                drained,
                closed,
            });
        }
        let report = ShutdownReport { blocks: outcomes };
        *over = Some(report.clone());
        report
    }
}

impl SystemBuilder {
    /// The world it lives in, whose clock limits the shutdown. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Adds a block; those that it depends on come before it.
    pub fn block(mut self, name: impl Into<String>, block: impl Block + 'static) -> Self {
        self.blocks.push((name.into(), Box::new(block)));
        self
    }

    /// Puts the blocks together.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] when two have the same name.
    pub fn build(self) -> Result<System, Error> {
        let names = || self.blocks.iter().map(|(name, _)| name);
        if let Some((_, name)) = names()
            .enumerate()
            .find(|(i, name)| names().take(*i).any(|other| other == *name))
        {
            return Err(Error::DuplicateName { name: name.clone() });
        }
        Ok(System {
            inner: Arc::new(Inner {
                env: self.env,
                blocks: self.blocks,
                over: Mutex::new(None),
            }),
        })
    }
}

impl ShutdownReport {
    /// Whether every block was drained and closed in time.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.blocks.iter().all(|block| block.drained && block.closed)
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.inner.blocks.iter().map(|(name, _)| name))
            .finish()
    }
}

impl fmt::Debug for SystemBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.blocks.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;
    use futures::future::{BoxFuture, pending, ready};

    /// Writes down what is done to it.
    struct Noted {
        name: &'static str,
        health: Health,
        hangs: bool,
        notes: Arc<crate::sync::Mutex<Vec<String>>>,
    }

    impl Noted {
        fn note(&self, what: &str) -> BoxFuture<'_, ()> {
            self.notes.lock().push(format!("{} {what}", self.name));
            if self.hangs {
                pending().boxed()
            } else {
                ready(()).boxed()
            }
        }
    }

    impl Block for Noted {
        fn kind(&self) -> &'static str {
            "noted"
        }

        fn status(&self) -> BlockStatus {
            BlockStatus::new(self.health).figure("notes", self.notes.lock().len() as f64)
        }

        fn drain<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, ()> {
            self.note("drains")
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            self.note("closes")
        }
    }

    fn system(blocks: [(&'static str, Health, bool); 2]) -> (System, Arc<crate::sync::Mutex<Vec<String>>>) {
        let notes = Arc::default();
        let builder = blocks.into_iter().fold(
            System::builder().env(Env::system()),
            |builder, (name, health, hangs)| {
                builder.block(
                    name,
                    Noted {
                        name,
                        health,
                        hangs,
                        notes: Arc::clone(&notes),
                    },
                )
            },
        );
        (builder.build().unwrap(), notes)
    }

    #[test]
    fn a_shutdown_goes_from_the_last_block_to_the_first_and_happens_once() {
        let (system, notes) = system([("store", Health::Ready, false), ("cache", Health::Ready, false)]);
        let report = block_on(system.shut_down(Duration::from_secs(5)));
        assert!(report.is_clean());
        let expected = ["cache drains", "cache closes", "store drains", "store closes"];
        assert_eq!(*notes.lock(), expected);
        assert_eq!(block_on(system.shut_down(Duration::ZERO)), report);
        assert_eq!(notes.lock().len(), expected.len());
    }

    #[test]
    fn a_block_that_hangs_holds_up_the_others_for_its_limit_only() {
        let (system, notes) = system([("store", Health::Ready, false), ("cache", Health::Ready, true)]);
        let report = block_on(system.shut_down(Duration::from_millis(20)));
        assert!(!report.is_clean());
        let outcomes: Vec<_> = report
            .blocks
            .iter()
            .map(|block| (&*block.name, block.drained, block.closed))
            .collect();
        assert_eq!(outcomes, [("cache", false, false), ("store", true, true)]);
        assert_eq!(notes.lock().len(), 4);
    }

    #[test]
    fn the_system_is_as_well_as_its_worst_block() {
        let (system, _) = system([("store", Health::Degraded, false), ("cache", Health::Ready, false)]);
        let status = system.status();
        assert_eq!(status.health, Health::Degraded);
        assert_eq!(status.get("cache").unwrap().status.health, Health::Ready);
        assert!(status.get("queue").is_none());
        let text = status.to_string();
        assert!(text.contains("store") && text.contains("degraded"), "{text}");
    }

    #[test]
    fn two_blocks_of_one_name_are_refused() {
        let store = crate::store::LocalStore::in_memory();
        let refused = System::builder()
            .block("a", store.clone())
            .block("b", store.clone())
            .block("a", store)
            .build();
        assert_eq!(refused.unwrap_err(), Error::DuplicateName { name: "a".to_owned() });
    }
}

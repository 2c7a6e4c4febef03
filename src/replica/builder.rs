use super::link::{CLIENT, Link};
use super::preference::MAX_NODES;
use super::shared::Options;
use super::{Ack, ReplicatedStore, start};
use crate::env::Env;
use crate::store::{Error, Result};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One node of a [`ReplicatedStore`]: a name, and what it lives on.
///
/// ```
/// use outgrow::replica::Node;
/// let node = Node::new("a").tag("zone", "north");
/// assert_eq!(node.name(), "a");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Node {
    pub(super) name: String,
    pub(super) env: Option<Env>,
    pub(super) tags: Vec<(String, String)>,
}

impl Node {
    /// A node called `name`, which is also the name of its directory: letters, digits, `-`, `_` and `.`, 1 to 64 of them,
    /// not beginning with a dot.
    pub fn new(name: impl Into<String>) -> Node {
        Node {
            name: name.into(),
            env: None,
            tags: Vec::new(),
        }
    }

    /// The world whose disk and tasks it uses: in a simulation, its machine. By default the store's.
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// A tag by which a [`ReadPreference`](super::ReadPreference) may choose it.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Builds a [`ReplicatedStore`]; made by [`ReplicatedStore::builder`].
#[must_use]
pub struct ReplicatedStoreBuilder {
    pub(super) env: Env,
    pub(super) nodes: Vec<Node>,
    pub(super) link: Option<Arc<dyn Link>>,
    pub(super) options: Options,
}

impl ReplicatedStoreBuilder {
    pub(super) fn new() -> ReplicatedStoreBuilder {
        let options = Options {
            dir: Default::default(),
            ack: Ack::Majority,
            max_pending: 10_000,
            max_exposed: 100_000,
            write_timeout: Duration::from_secs(5),
            read_wait: Duration::from_millis(100),
            failover_timeout: Duration::from_secs(5),
            checkpoint_bytes: 64 << 20,
            window_bytes: 8 << 20,
            feed: 10_000,
        };
        ReplicatedStoreBuilder {
            env: Env::default(),
            nodes: Vec::new(),
            link: None,
            options,
        }
    }

    /// The world that the store's own end lives in, and every node that has none of its own. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Adds a node; 1 to 64 of them. Without any, the store has one, called "local". The set is written down when the
    /// store is made, and cannot be changed yet.
    pub fn node(mut self, node: Node) -> Self {
        self.nodes.push(node);
        self
    }

    /// When a write counts as acknowledged, where [`acking`](ReplicatedStore::acking) does not say otherwise. Default:
    /// [`Ack::Majority`].
    pub fn ack(mut self, ack: Ack) -> Self {
        self.options.ack = ack;
        self
    }

    /// How messages travel between the nodes. Default: they arrive at once.
    pub fn link(mut self, link: impl Link + 'static) -> Self {
        self.link = Some(Arc::new(link));
        self
    }

    /// How many writes may wait for their acknowledgement; one more is refused as [`Error::Full`]. Default: 10,000. Each
    /// costs its batch and about 500 bytes.
    pub fn max_pending(mut self, writes: usize) -> Self {
        self.options.max_pending = writes;
        self
    }

    /// How many writes that only the primary has acknowledged may wait for a majority to have them; one more with
    /// [`Ack::Primary`] is refused as [`Error::Full`]. Default: 100,000. It bounds what a failover can lose.
    pub fn max_exposed(mut self, writes: usize) -> Self {
        self.options.max_exposed = writes;
        self
    }

    /// How long a write waits for its acknowledgement before it fails as [`Error::Timeout`] with an unknown effect.
    /// Default: 5 s.
    pub fn write_timeout(mut self, limit: Duration) -> Self {
        self.options.write_timeout = limit;
        self
    }

    /// How long a session's read waits for a node that has caught up with the session, before it goes to the primary.
    /// Default: 100 ms. With zero it goes there at once.
    pub fn read_wait(mut self, limit: Duration) -> Self {
        self.options.read_wait = limit;
        self
    }

    /// How long opening and [`failover`](ReplicatedStore::failover) try to find and convince a majority. Default: 5 s.
    pub fn failover_timeout(mut self, limit: Duration) -> Self {
        self.options.failover_timeout = limit;
        self
    }

    /// After how many bytes of records a node writes its whole state down and frees its log from before the last time.
    /// Default: 64 MiB; at least 64 KiB. A node's disk holds about two of these, two states, and while it writes one
    /// more; opening reads one state and at most two of these.
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.options.checkpoint_bytes = bytes.max(64 << 10);
        self
    }

    /// How many of the newest records a follower of the feed can catch up on. Default: 10,000.
    pub fn feed(mut self, records: usize) -> Self {
        self.options.feed = records;
        self
    }

    /// Opens the store; each node lives in the directory of its name in `dir` on its own disk, which is made if it does
    /// not exist. A node that cannot be opened is left out, and can be [started](ReplicatedStore::restart) later.
    ///
    /// # Errors
    /// [`Error::Invalid`] for nodes that make no store, or not the one that is in `dir`; [`Error::Corrupt`] when the only
    /// node lacks records that it once had; [`Error::Unavailable`] when no majority of the nodes is there with its data;
    /// and what a disk answers.
    ///
    /// # Cancel safety
    /// Dropping the future gives up opening; the directories are free again shortly after.
    pub async fn open(mut self, dir: impl AsRef<Path>) -> Result<ReplicatedStore> {
        self.options.dir = dir.as_ref().to_owned();
        if self.nodes.is_empty() {
            self.nodes.push(Node::new("local"));
        }
        check(&self.nodes)?;
        start::open(self).await
    }
}

fn check(nodes: &[Node]) -> Result<()> {
    let invalid = |what| Err(Error::Invalid { what });
    if nodes.len() > MAX_NODES {
        return invalid(format!("{} nodes; {MAX_NODES} are the most", nodes.len()));
    }
    let mut names = BTreeSet::new();
    for node in nodes {
        let name = &node.name;
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(sound) || name == CLIENT {
            return invalid(format!("{name:?} is no name for a node"));
        }
        if !names.insert(name) {
            return invalid(format!("two nodes are called {name:?}"));
        }
    }
    Ok(())
}

impl fmt::Debug for ReplicatedStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedStoreBuilder")
            .field("nodes", &self.nodes)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

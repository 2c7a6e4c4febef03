use super::Ack;
use super::builder::ReplicatedStoreBuilder;
use super::history::Fate;
use super::preference::ReadPreference;
use super::session::Session;
use super::shared::Shared;
use super::status::{Divergent, FailoverReport, FailoverTo, ReplicaStatus};
use super::view::ReplicaView;
use crate::env::Env;
use crate::store::{
    Batch, Capability, Effect, Engine, Entry, Error, Feed, Follower, LogId, Position, Receipt, Record, Result, Scan,
    Store,
};
use crate::sync::pin;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt};
use std::fmt;
use std::future::{Future, ready};
use std::sync::{Arc, Weak};

/// A [`Store`] with a [`Feed`] whose data is on several nodes, each with a disk, a log and an engine of its own. Cheap to
/// clone.
///
/// Writes go to the primary, which orders them and sends them to the others; a write returns when it is on the disks that
/// its [`Ack`] asks for. Reads through the store itself are answered by the primary, from memory, and see every
/// acknowledged write; [`session`](ReplicatedStore::session) and [`reading`](ReplicatedStore::reading) give the others
/// work too. With one node it is the durable local store.
///
/// Each page of a scan is consistent in itself; what commits between pages may be seen. Data is in memory on each node (a
/// value is shared between the nodes of one process), and on each node's disk once or twice, plus the log.
///
/// ```
/// use outgrow::replica::{FailoverTo, Node, ReplicatedStore};
/// use outgrow::store::{Store, StoreExt};
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-replica-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// let db = ReplicatedStore::builder()
///     .node(Node::new("a"))
///     .node(Node::new("b"))
///     .node(Node::new("c"))
///     .open(&dir)
///     .await?;
/// db.put("user/7", "Ada").await?; // on two disks when this returns
///
/// let session = db.session(); // reads may go to any node, but never back in time
/// session.put("user/8", "Grace").await?;
/// assert_eq!(&session.read(b"user/8").await?.unwrap().value[..], b"Grace");
///
/// let report = db.failover(FailoverTo::MostCaughtUp).await?;
/// assert!(report.lost.is_empty() && report.to != "a");
/// assert_eq!(&db.read(b"user/7").await?.unwrap().value[..], b"Ada");
/// db.close().await;
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[derive(Clone)]
pub struct ReplicatedStore {
    shared: Arc<Shared>,
}

impl ReplicatedStore {
    /// Builds a store.
    pub fn builder() -> ReplicatedStoreBuilder {
        ReplicatedStoreBuilder::new()
    }

    pub(super) fn of(shared: Arc<Shared>) -> ReplicatedStore {
        ReplicatedStore { shared }
    }

    /// The same data with reads answered as `preference` says.
    #[must_use]
    pub fn reading(&self, preference: ReadPreference) -> ReplicaView {
        self.view().reading(preference)
    }

    /// The same data with writes acknowledged as `ack` says.
    #[must_use]
    pub fn acking(&self, ack: Ack) -> ReplicaView {
        self.view().acking(ack)
    }

    /// A session whose reads go to any node that has got to what the session has seen; see [`Session`].
    #[must_use]
    pub fn session(&self) -> Session {
        self.reading(ReadPreference::nearest()).session()
    }

    /// A session that goes on where another one was when it printed its [`token`](Session::token).
    ///
    /// # Errors
    /// [`Error::Invalid`] for text that is no token, [`Error::TokenLost`] when what it saw did not survive a failover.
    pub fn session_from(&self, token: &str) -> Result<Session> {
        self.reading(ReadPreference::nearest()).session_from(token)
    }

    fn view(&self) -> ReplicaView {
        let ack = self.shared.options.ack;
        ReplicaView::new(Arc::clone(&self.shared), ReadPreference::primary(), ack)
    }

    /// Makes another node the primary: fences the old one, promotes the most caught-up of a majority, and reports what was
    /// lost. What a majority had acknowledged never is. While both are up, the old primary hands everything over first, so
    /// nothing is lost at all.
    ///
    /// Writes that arrive meanwhile wait; those under way at the old primary may fail with an unknown effect. Reads at the
    /// primary fail until it is over. It takes a few messages and three syncs, more when something has to be handed over.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`] when a majority of the nodes is not there with its data, and when the
    /// one asked for is down; the primary is then as before, or if nodes went away halfway, there is none until the next
    /// failover. [`Error::Invalid`] for a node that does not exist.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop it.
    pub async fn failover(&self, to: FailoverTo) -> Result<FailoverReport> {
        let shared = Arc::clone(&self.shared);
        let task = self.shared.env.spawn(async move { shared.fail_over(to).await });
        task.await.unwrap_or_else(|gone| {
            Err(Error::Unavailable {
                what: gone.to_string(),
                effect: Effect::Unknown,
            })
        })
    }

    /// Starts a node again in `env`, after its machine died, its disk failed it, or it could not be opened. If it runs, it
    /// is stopped first. It follows the primary, gives up what the primary has not, and catches up by itself.
    ///
    /// A node that comes back without something it had acknowledged (a wiped or damaged disk) is a
    /// [`Learner`](super::Role::Learner) until it has everything again.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a node that does not exist, or a directory that is another store's; and what its disk answers.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the node stopped, or started.
    pub async fn restart(&self, name: &str, env: Env) -> Result<()> {
        self.shared.restart(name, env).await
    }

    /// Who does what, and how far everybody is.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        self.shared.status()
    }

    /// Takes the records that nodes gave up when they came back to a newer primary: the newest 10,000 since the last call.
    /// What [`Ack::Primary`] had acknowledged and a failover lost is among them; so may be writes whose effect was unknown.
    #[must_use = "they are not given a second time"]
    pub fn divergent(&self) -> Vec<Divergent> {
        self.shared.take_divergent()
    }

    /// Waits for writes under way, then stops every node and frees the directories. Everything fails afterwards, on every
    /// clone. Without it, dropping the last clone lets the nodes finish what they were given and stop by themselves.
    ///
    /// Views and sessions count as clones. While one is left of a store that was not closed, the nodes that it still runs
    /// keep their directories: a store that is opened there meanwhile does without them if a majority is free. The old one
    /// can then acknowledge nothing that needs a majority, but its primary still answers reads, and takes writes with
    /// [`Ack::Primary`], which its node gives up once it follows the new primary. So close a store before it is opened
    /// again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave some nodes running until the last clone is dropped.
    pub async fn close(&self) {
        let shared = &self.shared;
        let _control = shared.control.lock().await;
        shared.set_topology(|topology| {
            topology.closed = true;
            topology.primary = None;
        });
        let deadline = shared.env.now() + shared.options.write_timeout;
        // Whoever waits longer than that has been told so already.
        let _waited = shared.until(deadline, shared.in_flight.idle()).await;
        join_all((0..shared.slots.len()).map(|node| shared.stop(node))).await;
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ReplicatedStore {
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Entry>>> + Send {
        ready(self.shared.at_primary(|live| live.get(key)))
    }

    fn get_many(&self, keys: &[Bytes]) -> impl Future<Output = Result<Vec<Option<Entry>>>> + Send {
        ready(
            self.shared
                .at_primary(|live| keys.iter().map(|key| live.get(key)).collect()),
        )
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.view().into_scan(scan)
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Receipt>> + Send {
        self.shared.commit(batch, self.shared.options.ack)
    }

    fn capability(&self) -> Capability {
        Capability::all()
    }
}

/// The feed shows what the primary shows: with [`Ack::Majority`], committed records only. After a failover that lost what
/// had been visible, it starts anew where the logs part, and what the lost writes had touched is written once more, so that
/// attached followers hear of it.
///
/// What was written before the store was opened is there as far as the log and [`feed`](ReplicatedStoreBuilder::feed) go
/// back.
impl Feed for ReplicatedStore {
    fn log(&self) -> LogId {
        self.shared.log
    }

    fn position(&self) -> Position {
        self.shared.gate.feed.position()
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        let history = Arc::clone(&self.shared.topology.load(&pin()).history);
        match history.fate(from, u64::MAX) {
            Fate::Survived | Fate::Ahead => self.shared.gate.feed.watch(from),
            Fate::Lost(oldest) => stream::iter([Err(Error::PositionGone { oldest })]).boxed(),
        }
    }

    async fn snapshot(&self) -> Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)> {
        self.shared.at_primary(|live| {
            let snapshot = live.engine.snapshot()?;
            let now = live.env.wall();
            let entries = snapshot.entries.filter(move |(_, entry)| entry.is_live(now));
            Ok((snapshot.at, stream::iter(entries.map(Ok)).boxed()))
        })
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        self.shared.gate.feed.attach(follower);
        Ok(())
    }
}

impl fmt::Debug for ReplicatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedStore")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

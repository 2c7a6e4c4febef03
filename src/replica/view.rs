use super::Ack;
use super::node::Live;
use super::preference::ReadPreference;
use super::session::Session;
use super::shared::{Choice, Shared};
use crate::store::{
    Batch, Capability, Effect, Engine, Entry, Error, Position, Receipt, Result, Scan, Store, Token, scan_pages,
};
use crate::sync::Ordering;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// A [`ReplicatedStore`](super::ReplicatedStore) seen with another read preference or acknowledgement: a [`Store`] over
/// the same data. Cheap to clone.
///
/// Reads from a node other than the primary may be old, and two reads may go to two nodes, so that time seems to run
/// backwards; a [`session`](ReplicaView::session) prevents both.
#[derive(Clone)]
pub struct ReplicaView {
    pub(super) shared: Arc<Shared>,
    preference: Arc<ReadPreference>,
    ack: Ack,
}

impl ReplicaView {
    pub(super) fn new(shared: Arc<Shared>, preference: ReadPreference, ack: Ack) -> ReplicaView {
        ReplicaView {
            shared,
            preference: Arc::new(preference),
            ack,
        }
    }

    /// The same with reads answered as `preference` says.
    #[must_use]
    pub fn reading(mut self, preference: ReadPreference) -> ReplicaView {
        self.preference = Arc::new(preference);
        self
    }

    /// The same with writes acknowledged as `ack` says.
    #[must_use]
    pub fn acking(mut self, ack: Ack) -> ReplicaView {
        self.ack = ack;
        self
    }

    /// A session with this preference and acknowledgement.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(self.clone(), Token::new())
    }

    /// A session that goes on where another one was when it printed its [`token`](Session::token).
    ///
    /// # Errors
    /// [`Error::Invalid`] for text that is no token, [`Error::TokenLost`] when what it saw did not survive a failover.
    pub fn session_from(&self, token: &str) -> Result<Session> {
        let token: Token = token.parse()?;
        if let Some(need) = token.position(self.shared.log) {
            self.shared.check_survived(need)?;
        }
        Ok(Session::new(self.clone(), token))
    }

    /// The node for a read that needs to see `need`; waits a little for one that has got there.
    pub(super) async fn route(&self, need: Position) -> Result<Arc<Live>> {
        let choose = |patient| self.shared.choose(&self.preference, need, patient);
        match choose(true) {
            Choice::Node(live) => return Ok(live),
            Choice::Nobody => return Err(self.nobody()),
            Choice::Behind => {}
        }
        let found = self.shared.moved.wait(|| match choose(true) {
            Choice::Node(live) => Some(Ok(live)),
            Choice::Nobody => Some(Err(self.nobody())),
            Choice::Behind => None,
        });
        let limit = self.shared.options.read_wait;
        if let Ok(found) = self.shared.env.timeout(limit, found).await {
            return found;
        }
        match choose(false) {
            Choice::Node(live) => Ok(live),
            Choice::Nobody => Err(self.nobody()),
            Choice::Behind => Err(Error::Behind {
                need,
                best: self.shared.best(),
                eta: None,
            }),
        }
    }

    fn nobody(&self) -> Error {
        Error::Unavailable {
            what: format!("no node is up that may answer ({:?})", self.preference),
            effect: Effect::None,
        }
    }

    pub(super) async fn write(&self, batch: Batch) -> Result<Receipt> {
        self.shared.commit(batch, self.ack).await
    }

    /// A scan that needs no more of this view than it takes along; `saw` hears what each page may show, and may refuse it.
    pub(super) fn scan_from<'a>(
        self,
        need: Result<Position>,
        scan: Scan,
        saw: impl Fn(Position) -> Result<()> + Send + 'a,
    ) -> BoxStream<'a, Result<(Bytes, Entry)>> {
        let pages = async move {
            let reading = Reading::new(self.route(need?).await?);
            Ok::<_, Error>(scan_pages(scan, move |scan| {
                let page = reading.live.engine.scan(scan)?;
                saw(reading.live.engine.applied())?;
                Ok((page, reading.live.env.wall()))
            }))
        };
        stream::once(pages).try_flatten().boxed()
    }

    pub(super) fn into_scan<'a>(self, scan: Scan) -> BoxStream<'a, Result<(Bytes, Entry)>> {
        self.scan_from(Ok(Position::START), scan, |_| Ok(()))
    }
}

/// A read that takes several steps, counted at its node.
struct Reading {
    live: Arc<Live>,
}

impl Reading {
    fn new(live: Arc<Live>) -> Reading {
        live.in_flight.fetch_add(1, Ordering::Relaxed);
        Reading { live }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.live.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ReplicaView {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.route(Position::START).await?.get(key)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let live = self.route(Position::START).await?;
        keys.iter().map(|key| live.get(key)).collect()
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.clone().into_scan(scan)
    }

    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Receipt>> + Send {
        self.write(batch)
    }

    fn capability(&self) -> Capability {
        Capability::all()
    }
}

impl fmt::Debug for ReplicaView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaView")
            .field("preference", &self.preference)
            .field("ack", &self.ack)
            .finish_non_exhaustive()
    }
}

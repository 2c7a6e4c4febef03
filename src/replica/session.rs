use super::node::Live;
use super::view::ReplicaView;
use crate::store::{Batch, Capability, Engine, Entry, Position, Receipt, Result, Scan, Store, Token};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::fmt;
use std::sync::Arc;

/// A [`Store`] that never goes back in time: what it has written or read, its later reads see too, whichever node answers
/// them.
///
/// A read goes to a node that has got to what the session has seen. When none has that the preference allows first, it
/// waits up to [`read_wait`](super::ReplicatedStoreBuilder::read_wait), then goes to the primary if the preference allows
/// that at all, and else fails as [`Error::Behind`](crate::store::Error::Behind). When a failover has lost what the session
/// saw, which takes an [`Ack::Primary`](super::Ack::Primary) write, its reads and writes fail as
/// [`Error::TokenLost`](crate::store::Error::TokenLost): begin a new session.
///
/// What it has seen is its [`token`](Session::token), in which it may go on elsewhere. Writes of the session are told
/// apart from those of others only by their receipts: one that fails with an unknown effect is not waited for.
///
/// ```
/// # use outgrow::replica::ReplicatedStore;
/// use outgrow::store::StoreExt;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-session-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let db = ReplicatedStore::builder().open(&dir).await?;
/// let session = db.session();
/// session.put("cart/7", "book").await?;
/// let cookie = session.token().to_string();
///
/// let later = db.session_from(&cookie)?;
/// assert!(later.read(b"cart/7").await?.is_some());
/// # db.close().await;
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
pub struct Session {
    view: ReplicaView,
    token: Mutex<Token>,
}

impl Session {
    pub(super) fn new(view: ReplicaView, token: Token) -> Session {
        Session {
            view,
            token: Mutex::new(token),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token.lock().clone()
    }

    /// What a read has to see, if it still exists.
    fn need(&self) -> Result<Position> {
        let need = self.token.lock().position(self.view.shared.log).unwrap_or_default();
        self.view.shared.check_survived(need)?;
        Ok(need)
    }

    /// A node for a read.
    async fn route(&self) -> Result<Arc<Live>> {
        self.view.route(self.need()?).await
    }

    /// It saw the state at `at`; its later reads see that too.
    ///
    /// Fails when a failover that has ended since has lost what the session saw before, of which only the node may have
    /// known. The token then stays as it was: a newer position in it would make the loss forgotten.
    fn saw(&self, at: Position) -> Result<()> {
        let shared = &self.view.shared;
        let mut token = self.token.lock();
        let seen = token.position(shared.log).unwrap_or_default();
        shared.check_survived(seen)?;
        if seen < at {
            // A token that is full of other logs has no room for this one; the session is then as good as none.
            let _full = token.merge(&Token::of(shared.log, at));
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for Session {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let live = self.route().await?;
        let entry = live.get(key)?;
        self.saw(live.engine.applied())?;
        Ok(entry)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let live = self.route().await?;
        let entries = keys.iter().map(|key| live.get(key)).collect::<Result<_>>()?;
        self.saw(live.engine.applied())?;
        Ok(entries)
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.view.clone().scan_from(self.need(), scan, |at| self.saw(at))
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.need()?;
        let receipt = self.view.write(batch).await?;
        // What was lost meanwhile is for the next call to tell: this write is done.
        let at = receipt.at.position(self.view.shared.log).unwrap_or_default();
        let _lost = self.saw(at);
        Ok(receipt)
    }

    fn capability(&self) -> Capability {
        Capability::all()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("token", &self.token().to_string())
            .field("view", &self.view)
            .finish()
    }
}

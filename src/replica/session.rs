use super::view::ReplicaView;
use crate::store::{Batch, Capability, Engine, Entry, Position, Receipt, Result, Scan, Store, Token};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::fmt;

/// A [`Store`] that never goes back in time: what it has written or read, its later reads see too, whichever node answers
/// them.
///
/// A read goes to a node that has got to what the session has seen. When none has that the preference allows first, it
/// waits up to [`read_wait`](super::ReplicatedStoreBuilder::read_wait), then goes to the primary if the preference allows
/// that at all, and else fails as [`Error::Behind`](crate::store::Error::Behind). When a failover has lost what the session
/// saw, which takes an [`Ack::Primary`](super::Ack::Primary) write, its reads fail as
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

    /// Its later reads see this too.
    fn saw(&self, at: Position) {
        let mut token = self.token.lock();
        let log = self.view.shared.log;
        if token.position(log) >= Some(at) {
            return;
        }
        // A token that is full of other logs has room for this one only if it knew it; then reads are as good as those
        // without a session, and the next write says so.
        let _full = token.merge(&Token::of(log, at));
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for Session {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let live = self.view.route(self.need()?).await?;
        let entry = live.get(key)?;
        self.saw(live.engine.applied());
        Ok(entry)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let live = self.view.route(self.need()?).await?;
        let entries = keys.iter().map(|key| live.get(key)).collect();
        self.saw(live.engine.applied());
        entries
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        let view = self.view.clone();
        view.scan_from(self.need(), scan, |at| self.saw(at))
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let receipt = self.view.write(batch).await?;
        self.token.lock().merge(&receipt.at)?;
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

use super::CachedStore;
use crate::store::{Batch, Capability, Entry, Feed, Position, Receipt, Result, Scan, Store, Token};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A [`CachedStore`] as a session sees it, made by [`CachedStore::session`]: reads that the cache has not followed far
/// enough for go to the store below.
///
/// It sees what its token names only as surely as the store below does when asked directly: put the cache over a
/// store, or a view of one, that reads its own writes.
///
/// ```
/// use outgrow::cache::CachedStore;
/// use outgrow::store::{LocalStore, StoreExt, Token};
/// # futures::executor::block_on(async {
/// let users = CachedStore::builder(LocalStore::in_memory()).build().await?;
/// let session = users.session(Token::new())?;
/// session.put("7", "Ada").await?;
/// let cookie = session.token().to_string();
///
/// let resumed = users.session(cookie.parse()?)?;
/// assert_eq!(&resumed.read(b"7").await?.unwrap().value[..], b"Ada");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct CachedSession<S> {
    store: CachedStore<S>,
    token: Mutex<Token>,
}

impl<S: Store + Feed + 'static> CachedSession<S> {
    pub(super) fn new(store: CachedStore<S>, mut token: Token) -> Result<CachedSession<S>> {
        // With a place for this log from the start, what the session writes later always fits.
        token.merge(&Token::of(store.store().log(), Position::START))?;
        let token = Mutex::new(token);
        Ok(CachedSession { store, token })
    }

    /// What the session has been given and has written.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token.lock().clone()
    }

    /// Whether the cache may answer.
    fn may_use_cache(&self) -> bool {
        self.store.has_seen(&self.token.lock())
    }

    fn bypass(&self, keys: usize) -> &S {
        self.store.shared.keeper.counters.bypassed.add(keys as u64);
        self.store.store()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + Feed + 'static> Store for CachedSession<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        if self.may_use_cache() {
            self.store.get(key).await
        } else {
            self.bypass(1).get(key).await
        }
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        if self.may_use_cache() {
            self.store.get_many(keys).await
        } else {
            self.bypass(keys.len()).get_many(keys).await
        }
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.store.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let receipt = self.store.commit(batch).await?;
        let log = self.store.store().log();
        if let Some(position) = receipt.at.position(log) {
            let merged = self.token.lock().merge(&Token::of(log, position));
            merged.expect("a position of a log that the token names fits it");
        }
        Ok(receipt)
    }

    fn capability(&self) -> Capability {
        self.store.capability()
    }
}

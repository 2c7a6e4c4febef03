use super::{Batch, Capability, Entry, Error, Receipt, Result, Scan, Store, cursor_key, cursor_name, is_reserved};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use std::ops::Bound;

/// A part of a store that looks like a store of its own: every key, and every cursor's name, gets a prefix, and loses
/// it again on the way out. Made by [`StoreExt::prefixed`](super::StoreExt::prefixed).
///
/// It belongs outside of everything else, next to the part of the application that has this part of the keys: what is
/// below (caches, retries, time limits) is then shared by all the parts. It keeps nobody out: whoever has the store
/// below reads and writes every part. Choose prefixes of which none begins another, such as `"user/"`. A key is copied
/// once per call, to put the prefix before it; keys that are read share the memory of the store below.
///
/// It has no [`Feed`](super::Feed): a position says how far all keys have come.
///
/// ```
/// use outgrow::store::{LocalStore, StoreExt};
/// # futures::executor::block_on(async {
/// let store = LocalStore::in_memory();
/// let users = store.clone().prefixed("user/");
/// users.put("7", "Ada").await?;
/// assert_eq!(&users.read(b"7").await?.unwrap().value[..], b"Ada");
/// assert!(store.read(b"user/7").await?.is_some());
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Prefixed<S> {
    inner: S,
    prefix: Bytes,
}

impl<S> Prefixed<S> {
    /// The part of `inner` whose keys begin with `prefix`.
    pub fn new(inner: S, prefix: impl Into<Bytes>) -> Prefixed<S> {
        Prefixed {
            inner,
            prefix: prefix.into(),
        }
    }

    fn outer(&self, key: &[u8]) -> Bytes {
        match cursor_name(key) {
            Some(name) => cursor_key(&self.join(name)),
            None => self.join(key),
        }
    }

    fn join(&self, key: &[u8]) -> Bytes {
        [&self.prefix, key].concat().into()
    }

    fn outer_scan(&self, scan: Scan) -> Scan {
        let bound = |bound: Bound<Bytes>| bound.map(|key| self.join(&key));
        let whole = Scan::prefix(self.prefix.clone());
        Scan {
            from: match scan.from {
                Bound::Unbounded => whole.from,
                from => bound(from),
            },
            to: match scan.to {
                Bound::Unbounded => whole.to,
                to => bound(to),
            },
            ..scan
        }
    }

    /// The error in the caller's words.
    fn inner_error(&self, error: Error) -> Error {
        match error {
            Error::Conflict { key, current } => Error::Conflict {
                key: strip(&self.prefix, &key),
                current,
            },
            Error::Retried { attempts, last } => Error::Retried {
                attempts,
                last: Box::new(self.inner_error(*last)),
            },
            other => other,
        }
    }
}

fn strip(prefix: &Bytes, key: &Bytes) -> Bytes {
    if key.starts_with(prefix) {
        key.slice(prefix.len()..)
    } else {
        key.clone()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Prefixed<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.inner.get(&self.outer(key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.outer(key)).collect();
        self.inner.get_many(&keys).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        let entries = self.inner.scan(self.outer_scan(scan));
        entries
            .map_ok(|(key, entry)| (strip(&self.prefix, &key), entry))
            .boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        // With the prefix before it, the store below would not know a reserved key.
        if let Some(key) = batch.keys().find(|key| is_reserved(key)) {
            return Err(Error::invalid(format!("the key {key:?} is reserved")));
        }
        let batch = batch.map_keys(|key| self.join(key));
        let receipt = self.inner.commit(batch).await;
        receipt.map_err(|error| self.inner_error(error))
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

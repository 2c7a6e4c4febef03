use super::{Batch, Capability, Entry, Receipt, Result, Scan, Store};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::fmt;
use std::sync::Arc;

/// Any [`Store`] behind one type: made by [`StoreExt::boxed`](super::StoreExt::boxed), cloned for the price of an
/// `Arc`. Each call boxes its future, for about 20 ns.
#[derive(Clone)]
pub struct BoxStore(Arc<dyn ErasedStore>);

impl BoxStore {
    /// Puts `store` behind the common type.
    pub fn new(store: impl Store + 'static) -> BoxStore {
        BoxStore(Arc::new(store))
    }
}

impl fmt::Debug for BoxStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxStore")
            .field("capability", &self.capability())
            .finish_non_exhaustive()
    }
}

/// [`Store`] in a form that makes an object, under names of its own so that no call is ambiguous.
trait ErasedStore: Send + Sync {
    fn erased_get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Entry>>>;
    fn erased_get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Entry>>>>;
    fn erased_scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>>;
    fn erased_commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt>>;
    fn erased_capability(&self) -> Capability;
}

impl<S: Store> ErasedStore for S {
    fn erased_get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Entry>>> {
        self.get(key).boxed()
    }

    fn erased_get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Entry>>>> {
        self.get_many(keys).boxed()
    }

    fn erased_scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.scan(scan)
    }

    fn erased_commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt>> {
        self.commit(batch).boxed()
    }

    fn erased_capability(&self) -> Capability {
        self.capability()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for BoxStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.0.erased_get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        self.0.erased_get_many(keys).await
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.0.erased_scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.0.erased_commit(batch).await
    }

    fn capability(&self) -> Capability {
        self.0.erased_capability()
    }
}

use super::Partitioner;
use super::store::Shared;
use crate::store::{Entry, Result, Scan, Store};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::collections::VecDeque;
use std::sync::Arc;

/// A walk over all shards in key order.
struct Walk<'a, S: Store + 'static, P: Partitioner> {
    shared: &'a Shared<S, P>,
    /// What is left of it, after the last key that was returned.
    rest: Scan,
    /// The version of the map that the pages below were fetched under.
    version: u64,
    sources: Vec<Source<S>>,
}

/// One shard's part.
struct Source<S> {
    shard: Arc<S>,
    /// Its number in the map.
    number: usize,
    page: VecDeque<(Bytes, Entry)>,
    /// What has not been fetched yet; `None` at the end.
    rest: Option<Scan>,
}

/// Walks a range of all shards. A key is taken from the shard that owns it, so what is left at a former one is never
/// seen, and a key that moves meanwhile comes once.
pub(super) fn walk<S: Store + 'static, P: Partitioner>(
    shared: &Shared<S, P>,
    scan: Scan,
) -> BoxStream<'_, Result<(Bytes, Entry)>> {
    let walk = Walk {
        shared,
        rest: scan,
        version: 0,
        sources: Vec::new(),
    };
    let entries = stream::try_unfold(walk, |mut walk| async move {
        Ok(walk.next().await?.map(|entry| (entry, walk)))
    });
    entries.boxed()
}

impl<S: Store + 'static, P: Partitioner> Walk<'_, S, P> {
    async fn next(&mut self) -> Result<Option<(Bytes, Entry)>> {
        if self.rest.limit == 0 {
            return Ok(None);
        }
        loop {
            if self.version != self.shared.router.version() {
                self.start();
            }
            let hungry = self
                .sources
                .iter_mut()
                .filter(|source| source.page.is_empty() && source.rest.is_some());
            try_join_all(hungry.map(|source| source.fetch(self.shared))).await?;
            if self.version != self.shared.router.version() {
                // What was fetched may be of a shard that no longer had it: begin again after the last key returned.
                continue;
            }
            if self
                .sources
                .iter()
                .any(|source| source.page.is_empty() && source.rest.is_some())
            {
                continue;
            }
            return Ok(self.take());
        }
    }

    fn start(&mut self) {
        (self.version, self.sources) = self.shared.router.with_map(|map| {
            let sources = map.shards.iter().enumerate().map(|(number, (_, shard))| Source {
                shard: Arc::clone(shard),
                number,
                page: VecDeque::new(),
                rest: Some(self.rest.clone()),
            });
            (map.version, sources.collect())
        });
    }

    /// The next key of all shards, each of which has one or is at its end.
    fn take(&mut self) -> Option<(Bytes, Entry)> {
        let descending = self.rest.descending;
        let heads = self.sources.iter_mut().filter(|source| !source.page.is_empty());
        let first = heads.min_by(|a, b| {
            let order = a.page[0].0.cmp(&b.page[0].0);
            if descending { order.reverse() } else { order }
        })?;
        let (key, entry) = first.page.pop_front()?;
        self.rest = self.rest.clone().after(key.clone(), 1);
        Some((key, entry))
    }
}

impl<S: Store + 'static> Source<S> {
    /// Fetches the next page, of which it keeps what the shard owns.
    async fn fetch<P: Partitioner>(&mut self, shared: &Shared<S, P>) -> Result<()> {
        let Some(rest) = self.rest.take() else { return Ok(()) };
        let page = rest.page.min(rest.limit);
        let entries: Vec<_> = self.shard.scan(rest.clone().limit(page)).try_collect().await?;
        if let Some((last, _)) = entries.last()
            && entries.len() == page
        {
            self.rest = Some(rest.after(last.clone(), 0));
        }
        let number = self.number;
        let owned = |key: &Bytes| shared.router.with_map(|map| map.partitioner.route(key) == number);
        self.page = entries.into_iter().filter(|(key, _)| owned(key)).collect();
        Ok(())
    }
}

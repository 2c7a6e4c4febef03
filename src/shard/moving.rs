use super::Partitioner;
use super::map::{MapFile, State};
use super::store::{ShardedStore, Shared};
use crate::store::{Batch, Entry, Error, Feature, Result, Scan, Store, Version};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::TryStreamExt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

/// Keys that are copied or deleted in one commit.
const BATCH: usize = 256;
/// Written and deleted at once, to learn or to raise a store's version.
const MARKER: &[u8] = b"\0version";

/// What adding a shard took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveReport {
    /// Keys that moved.
    pub keys: u64,
    /// Their bytes, with their values'.
    pub bytes: u64,
    /// How long writes to those keys had to wait.
    pub held_up: Duration,
}

impl<S: Store + 'static, P: Partitioner> ShardedStore<S, P> {
    /// Adds an empty shard of weight 1, and moves its share of the keys to it.
    ///
    /// Reads go on at the old shards until the copy is complete. Writes to the keys that move wait, up to the builder's
    /// `write_wait`; other writes go on. The keys are copied with their versions and expiries, the map on disk is
    /// switched, and what is left at the old shards is deleted.
    ///
    /// After a crash at any point, opening the store again finishes the move if the shard is given to the builder, and
    /// undoes it if not. To try again after an error, call this again with the same name and store.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when a shard cannot scan or import, [`Error::Invalid`] when the name is taken, another
    /// move is unfinished or the new shard is not empty, and what disk and shards answer. Should the map on disk be in
    /// doubt, every later write answers [`Error::Poisoned`] until the store is opened again.
    ///
    /// # Cancel safety
    /// Dropped halfway, nothing has moved, and the next call begins again; or, if the switch was done, what is left at
    /// the old shards is deleted by the next call or opening.
    pub async fn add_shard(&self, name: impl Into<String>, store: S) -> Result<MoveReport> {
        self.move_in(name.into(), 1, Arc::new(store)).await
    }

    /// As [`add_shard`](ShardedStore::add_shard), for a share in proportion to `weight`.
    ///
    /// # Errors
    /// As for [`add_shard`](ShardedStore::add_shard).
    pub async fn add_weighted(&self, name: impl Into<String>, weight: u32, store: S) -> Result<MoveReport> {
        self.move_in(name.into(), weight, Arc::new(store)).await
    }

    pub(super) async fn move_in(&self, name: String, weight: u32, target: Arc<S>) -> Result<MoveReport> {
        let shared = &*self.shared;
        let mut file = shared.file.lock().await;
        let _announced = Announced::new(shared, &name);
        if file.names.contains(&name) {
            return Err(Error::invalid(format!("there is a shard {name:?} already")));
        }
        let sources: Vec<Arc<S>> = shared.router.shards().into_iter().map(|(_, _, shard)| shard).collect();
        for shard in sources.iter().chain([&target]) {
            shard.capability().require(Feature::Scans)?;
            shard.capability().require(Feature::Import)?;
        }
        shared.clear_leftovers(&mut file).await?;
        match &file.state {
            State::Moving { name: begun, .. } if *begun != name => {
                return Err(Error::invalid(format!(
                    "the move to {begun:?} is unfinished: add that shard first"
                )));
            }
            // What an earlier attempt copied may be out of date.
            State::Moving { .. } => delete_all(&*target, |_| true).await?,
            _ if !is_empty(&*target).await? => {
                return Err(Error::invalid(format!("the new shard {name:?} is not empty")));
            }
            _ => {
                let moving = State::Moving {
                    name: name.clone(),
                    weight,
                };
                let next = MapFile {
                    state: moving,
                    ..file.clone()
                };
                next.write(&shared.env, &shared.dir).await?;
                *file = next;
            }
        }
        let next = file.next(&name, weight);
        let begun = shared.env.now();
        let closed = shared.gate.close(next.clone()).await;
        let (keys, bytes) = copy(&sources, &*target, &next).await?;
        let mut names = file.names.clone();
        names.push(name.clone());
        let switched = MapFile {
            version: file.version + 1,
            names,
            partitioner: next.clone(),
            state: State::Clearing,
        };
        if let Err(error) = switched.write(&shared.env, &shared.dir).await {
            // The next opening may follow either map, so no write may go by only one of them.
            shared.gate.poison();
            return Err(error);
        }
        *file = switched;
        let change = shared.router.change(|map| {
            map.partitioner = next;
            map.shards.push((name, target));
            Ok(())
        });
        change.map_err(|error| Error::invalid(error.to_string()))?;
        drop(closed);
        let held_up = shared.env.now() - begun;
        shared.clear_leftovers(&mut file).await?;
        Ok(MoveReport { keys, bytes, held_up })
    }

    /// Finishes or undoes what an earlier process left unfinished.
    pub(super) async fn settle(&self) -> Result<()> {
        let shared = &*self.shared;
        let mut file = shared.file.lock().await;
        shared.clear_leftovers(&mut file).await?;
        if file.state != State::Settled {
            let settled = MapFile {
                state: State::Settled,
                ..file.clone()
            };
            settled.write(&shared.env, &shared.dir).await?;
            *file = settled;
        }
        Ok(())
    }
}

/// Tells the status which shard is being added, until it is dropped.
struct Announced<'a>(&'a Mutex<Option<String>>);

impl<'a> Announced<'a> {
    fn new<S: Store + 'static, P: Partitioner>(shared: &'a Shared<S, P>, name: &str) -> Announced<'a> {
        *shared.adding.lock() = Some(name.to_owned());
        Announced(&shared.adding)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl<S: Store + 'static, P: Partitioner> Shared<S, P> {
    /// Deletes the keys that moved away from their old shards, if there may be some.
    async fn clear_leftovers(&self, file: &mut MapFile<P>) -> Result<()> {
        if file.state != State::Clearing {
            return Ok(());
        }
        let shards = self.router.shards();
        for (number, (_, _, shard)) in shards.iter().enumerate() {
            delete_all(&**shard, |key| file.partitioner.route(key) != number).await?;
        }
        let settled = MapFile {
            state: State::Settled,
            ..file.clone()
        };
        settled.write(&self.env, &self.dir).await?;
        *file = settled;
        Ok(())
    }
}

/// Copies the keys that `next` gives to its last shard from `sources` to `target`. Returns how many, and their bytes.
async fn copy<S: Store, P: Partitioner>(sources: &[Arc<S>], target: &S, next: &P) -> Result<(u64, u64)> {
    let newest = next.shards() - 1;
    let (mut keys, mut bytes) = (0, 0);
    for source in sources {
        let entries = source.scan(Scan::all().page(BATCH));
        let mut entries = entries.try_filter(|(key, _)| ready(next.route(key) == newest));
        let mut batch = Batch::new();
        while let Some((key, entry)) = entries.try_next().await? {
            keys += 1;
            bytes += (key.len() + entry.value.len()) as u64;
            batch = batch.import(key, entry);
            if batch.ops().len() == BATCH {
                target.commit(std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.is_empty() {
            target.commit(batch).await?;
        }
        // A key may have had a newer version before it was deleted: the target goes on from the newest of all.
        let at_source = source.commit(Batch::new().delete(MARKER)).await?.version;
        target.commit(raise(at_source)).await?;
    }
    Ok((keys, bytes))
}

/// A batch after which a store issues versions above `version` only.
fn raise(version: Version) -> Batch {
    let marker = Entry {
        value: Bytes::new(),
        version,
        expires: None,
    };
    Batch::new().import(MARKER, marker).delete(MARKER)
}

/// Deletes every key that `gone` says.
async fn delete_all<S: Store>(store: &S, gone: impl Fn(&[u8]) -> bool + Send) -> Result<()> {
    let mut entries = store.scan(Scan::all().page(BATCH));
    let mut batch = Batch::new();
    while let Some((key, _)) = entries.try_next().await? {
        if gone(&key) {
            batch = batch.delete(key);
        }
        if batch.ops().len() == BATCH {
            store.commit(std::mem::take(&mut batch)).await?;
        }
    }
    if !batch.is_empty() {
        store.commit(batch).await?;
    }
    Ok(())
}

async fn is_empty<S: Store>(store: &S) -> Result<bool> {
    let mut first = store.scan(Scan::all().limit(1));
    Ok(first.try_next().await?.is_none())
}

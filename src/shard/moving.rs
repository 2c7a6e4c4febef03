use super::Partitioner;
use super::gate::Closed;
use super::map::{MapFile, State};
use super::store::{ShardedStore, Shared};
use crate::env::{Env, files};
use crate::store::{Batch, Capability, Effect, Entry, Error, Feature, Result, Scan, Store, Version};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::lock::OwnedMutexGuard;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

/// Keys that are copied or deleted in one commit.
const BATCH: usize = 256;

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
    /// Whether the copies at the old shards could not be deleted yet. They are never seen; the next move, or the next
    /// opening, deletes them.
    pub leftovers: bool,
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
    /// [`Error::Unsupported`] when a shard cannot scan, or the new one not import or not do what all others can,
    /// [`Error::Invalid`] when the name is taken, another
    /// move is unfinished, or the new shard is not empty or would get no slot, [`Error::Unavailable`] when writes that
    /// began before do not end within `write_wait`, and what disk and shards answer. Should the map on disk be in
    /// doubt, every later write answers [`Error::Poisoned`] until the store is opened again.
    ///
    /// # Cancel safety
    /// Dropped halfway, nothing has moved, and the next call begins again; a switch that was begun is finished in the
    /// background, and then what is left at the old shards is deleted by the next call or opening.
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
        let shared = &self.shared;
        let mut file = Arc::clone(&shared.file).lock_owned().await;
        if shared.gate.is_poisoned() {
            return Err(Error::Poisoned);
        }
        let _announced = Announced::new(shared, &name);
        if file.names.contains(&name) {
            return Err(Error::invalid(format!("there is a shard {name:?} already")));
        }
        let sources: Vec<Arc<S>> = shared.router.shards().into_iter().map(|(_, _, shard)| shard).collect();
        shared.check(&sources, &*target)?;
        file = shared.clear_leftovers(file).await?;
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
                file = shared.save_state(file, moving).await?;
            }
        }
        let next = file.next(&name, weight);
        if next.share(next.shards() - 1) == 0.0 {
            return Err(Error::invalid(format!("there is no slot left for the shard {name:?}")));
        }
        let begun = shared.env.now();
        let closing = shared.env.timeout(shared.write_wait, shared.gate.close(next.clone()));
        let closed = closing
            .await
            .map_err(|_| Error::unavailable("writes that began before the move do not end", Effect::None))?;
        raise(&shared.env, &sources, &*target).await?;
        let (keys, bytes) = copy(&sources, &*target, &file.partitioner, &next).await?;
        let mut names = file.names.clone();
        names.push(name.clone());
        let switched = MapFile {
            version: file.version + 1,
            names,
            partitioner: next,
            state: State::Clearing,
        };
        let switch = Switch { closed, name, target };
        file = shared.save(file, switched, Some(switch)).await?;
        let held_up = shared.env.now() - begun;
        let leftovers = shared.clear_leftovers(file).await.is_err();
        Ok(MoveReport {
            keys,
            bytes,
            held_up,
            leftovers,
        })
    }

    /// Finishes or undoes what an earlier process left unfinished.
    pub(super) async fn settle(&self) -> Result<()> {
        let shared = &self.shared;
        let file = Arc::clone(&shared.file).lock_owned().await;
        let file = shared.clear_leftovers(file).await?;
        if file.state != State::Settled {
            shared.save_state(file, State::Settled).await?;
        }
        Ok(())
    }
}

/// The map on disk, for whoever changes it.
type Held<P> = OwnedMutexGuard<MapFile<P>>;

/// What has to happen together with the writing of a new map.
struct Switch<S, P> {
    closed: Closed<P>,
    name: String,
    target: Arc<S>,
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
    /// Whether keys can move to `target`, which must be able to do what all shards can: that may not change in use.
    fn check(&self, sources: &[Arc<S>], target: &S) -> Result<()> {
        for source in sources {
            source.capability().require(Feature::Scans)?;
        }
        let scan_and_import = Capability::none().with(Feature::Scans).with(Feature::Import);
        for needs in [scan_and_import, self.common.without(Feature::AtomicBatches)] {
            if let Some(feature) = target.capability().missing(needs).iter().next() {
                return Err(Error::Unsupported(feature));
            }
        }
        Ok(())
    }

    /// Puts `next` on disk, and makes it the map in use if there is a `switch`. Once begun it goes on in the background
    /// even if the caller is dropped, so that memory never falls behind the disk and no two writes meet.
    async fn save(
        self: &Arc<Self>,
        mut file: Held<P>,
        next: MapFile<P>,
        mut switch: Option<Switch<S, P>>,
    ) -> Result<Held<P>> {
        let shared = Arc::clone(self);
        let save = files::blocking(&self.env, async move {
            if let Some(switch) = &mut switch {
                // If this ends without an answer, the next opening may follow either map: no write may go by only one.
                switch.closed.in_doubt = true;
            }
            next.write(&**shared.env.disk(), &shared.dir).await?;
            *file = next;
            if let Some(Switch {
                mut closed,
                name,
                target,
            }) = switch
            {
                let install = shared.router.change(|map| {
                    map.partitioner = file.partitioner.clone();
                    map.shards.push((name, target));
                    Ok(())
                });
                closed.in_doubt = install.is_err();
            }
            Ok(file)
        });
        save.await.map_err(|error| Error::io(&error, Effect::Unknown))
    }

    async fn save_state(self: &Arc<Self>, file: Held<P>, state: State) -> Result<Held<P>> {
        let next = MapFile { state, ..file.clone() };
        self.save(file, next, None).await
    }

    /// Deletes the keys that moved away from their old shards, if there may be some.
    async fn clear_leftovers(self: &Arc<Self>, file: Held<P>) -> Result<Held<P>> {
        if file.state != State::Clearing {
            return Ok(file);
        }
        let shards = self.router.shards();
        for (number, (_, _, shard)) in shards.iter().enumerate() {
            delete_all(&**shard, |key| file.partitioner.route(key) != number).await?;
        }
        self.save_state(file, State::Settled).await
    }
}

/// Sees to it that no key is given a version again on `target` that it had at a source, were it since deleted.
async fn raise<S: Store>(env: &Env, sources: &[Arc<S>], target: &S) -> Result<()> {
    let mut rng = env.rng("marker of a move");
    // Written and deleted at once. No user has a key of 128 random bits.
    let marker = Bytes::from(format!("outgrow/move/{:016x}{:016x}", rng.next_u64(), rng.next_u64()));
    let mut version = Version::default();
    for source in sources {
        // It comes after every write that was sent before, also by callers that did not wait for the answer.
        let receipt = source.commit(Batch::new().delete(marker.clone())).await?;
        version = version.max(receipt.version);
    }
    let entry = Entry {
        value: Bytes::new(),
        version,
        expires: None,
    };
    let raised = target
        .commit(Batch::new().import(marker.clone(), entry).delete(marker))
        .await?;
    if raised.version < version {
        let what = format!(
            "the new shard gives the version {} after an import of {version}",
            raised.version
        );
        return Err(Error::invalid(what));
    }
    Ok(())
}

/// Copies the keys that `next` gives to its last shard from `sources`, which have them by `now`, to `target`. Returns
/// how many, and their bytes.
async fn copy<S: Store, P: Partitioner>(sources: &[Arc<S>], target: &S, now: &P, next: &P) -> Result<(u64, u64)> {
    let newest = next.shards() - 1;
    let most = batch_of(target);
    let (mut keys, mut bytes) = (0, 0);
    for (number, source) in sources.iter().enumerate() {
        let entries = source.scan(Scan::all().page(BATCH));
        // What a shard holds and does not own is not to come to light.
        let moves = |key: &[u8]| now.route(key) == number && next.route(key) == newest;
        let mut entries = entries.try_filter(|(key, _)| ready(moves(key)));
        let mut batch = Batch::new();
        while let Some((key, entry)) = entries.try_next().await? {
            keys += 1;
            bytes += (key.len() + entry.value.len()) as u64;
            batch = batch.import(key, entry);
            if batch.ops().len() == most {
                target.commit(std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.is_empty() {
            target.commit(batch).await?;
        }
    }
    Ok((keys, bytes))
}

/// How many keys `store` writes as one.
fn batch_of(store: &impl Store) -> usize {
    if store.capability().has(Feature::AtomicBatches) {
        BATCH
    } else {
        1
    }
}

/// Deletes every key that `gone` says.
async fn delete_all<S: Store>(store: &S, gone: impl Fn(&[u8]) -> bool + Send) -> Result<()> {
    let mut entries = store.scan(Scan::all().page(BATCH));
    let most = batch_of(store);
    let mut batch = Batch::new();
    while let Some((key, _)) = entries.try_next().await? {
        if gone(&key) {
            batch = batch.delete(key);
        }
        if batch.ops().len() == most {
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

use super::gate::Gate;
use super::map::{MapFile, State};
use super::router::{self, Map};
use super::{Partitioner, ShardRouter, SlotTable, scan};
use crate::env::{DirLock, Env, files};
use crate::store::{Batch, Capability, Effect, Entry, Error, Feature, Receipt, Result, Scan, Store};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::BoxStream;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A [`Store`] over stores: each key lives on the shard that the map says. Cheap to clone.
///
/// - A batch commits on one shard: its keys have to share it, for instance by a `{tag}`.
/// - [`get_many`](Store::get_many) asks the shards at the same time; a scan merges them in key order. Neither is a
///   snapshot across shards.
/// - Receipts carry the token of the shard that committed.
/// - The map is kept in a directory, under a checksum, and survives restarts. It says which shards there must be.
///
/// ```
/// use outgrow::shard::{ShardedStore, SlotTable};
/// use outgrow::store::{LocalStore, StoreExt};
/// # futures::executor::block_on(async {
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-shards-{}", std::process::id()));
/// let users = ShardedStore::builder(SlotTable::new(16_384))
///     .shard("a", LocalStore::in_memory())
///     .shard("b", LocalStore::in_memory())
///     .open(&dir)
///     .await?;
/// users.put("user-7", "Ada").await?;
/// let report = users.add_shard("c", LocalStore::in_memory()).await?;
/// assert!(report.keys <= 1);
/// assert_eq!(&users.read(b"user-7").await?.unwrap().value[..], b"Ada");
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// ```
pub struct ShardedStore<S: Store + 'static, P: Partitioner = SlotTable> {
    pub(super) shared: Arc<Shared<S, P>>,
}

pub(super) struct Shared<S: Store + 'static, P: Partitioner> {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) router: ShardRouter<S, P>,
    pub(super) gate: Arc<Gate<P>>,
    /// What all shards can do, each for itself, but for cursors: a follower's writes are on many.
    pub(super) common: Capability,
    pub(super) write_wait: Duration,
    /// What the disk holds; locked for as long as a shard is being added or the disk is being written.
    pub(super) file: Arc<futures::lock::Mutex<MapFile<P>>>,
    /// Held as long as the file may be written.
    _lock: DirLock,
    /// The name of that shard.
    pub(super) adding: Mutex<Option<String>>,
}

/// Builds a [`ShardedStore`].
#[must_use]
pub struct ShardedStoreBuilder<S, P> {
    env: Env,
    partitioner: P,
    shards: Vec<(String, u32, S)>,
    write_wait: Duration,
}

/// A sharded store at one moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardedStoreStatus {
    /// The version of the map.
    pub version: u64,
    /// The shards, in the order in which they were added.
    pub shards: Vec<ShardStatus>,
    /// The shard that is being added.
    pub moving: Option<String>,
}

/// One shard at one moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardStatus {
    /// Its name.
    pub name: String,
    /// Its share of the keys, by hash.
    pub share: f64,
}

impl<S: Store + 'static> ShardedStore<S> {
    /// A store whose keys are spread by `partitioner`, which has no shards yet. What an existing directory says goes
    /// before it.
    pub fn builder<P: Partitioner>(partitioner: P) -> ShardedStoreBuilder<S, P> {
        let (env, write_wait) = (Env::default(), Duration::from_secs(30));
        ShardedStoreBuilder {
            env,
            partitioner,
            shards: Vec::new(),
            write_wait,
        }
    }
}

impl<S: Store + 'static, P: Partitioner> ShardedStore<S, P> {
    /// The router below, to see which shard a key is on.
    #[must_use]
    pub fn router(&self) -> &ShardRouter<S, P> {
        &self.shared.router
    }

    /// How it is at this moment.
    #[must_use]
    pub fn status(&self) -> ShardedStoreStatus {
        let shards = self
            .shared
            .router
            .shards()
            .into_iter()
            .map(|(name, share, _)| ShardStatus { name, share });
        let moving = self.shared.adding.lock().clone();
        ShardedStoreStatus {
            version: self.shared.router.version(),
            shards: shards.collect(),
            moving,
        }
    }

    /// The one shard of all keys of `batch`.
    fn shard_of(&self, batch: &Batch) -> Result<Arc<S>> {
        self.shared.router.with_map(|map| {
            let mut shards = batch.keys().map(|key| map.partitioner.route(key));
            let first = shards.next().unwrap_or(0);
            match shards.all(|shard| shard == first) {
                true => Ok(Arc::clone(&map.shards[first].1)),
                false => Err(Error::Unsupported(Feature::AtomicBatches)),
            }
        })
    }
}

impl<S: Store + 'static, P: Partitioner> ShardedStoreBuilder<S, P> {
    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Adds a shard of weight 1.
    pub fn shard(self, name: impl Into<String>, store: S) -> Self {
        self.weighted(name, 1, store)
    }

    /// Adds a shard that takes a share of the keys in proportion to its weight.
    pub fn weighted(mut self, name: impl Into<String>, weight: u32, store: S) -> Self {
        self.shards.push((name.into(), weight, store));
        self
    }

    /// How long a write waits while its key moves to another shard, before it fails with
    /// [`Error::Unavailable`] and no effect; and how long a move waits for the writes that began before it. Of more than
    /// 10,000 waiting writes the others fail with [`Error::Full`]. Default: 30 seconds.
    pub fn write_wait(mut self, limit: Duration) -> Self {
        self.write_wait = limit;
        self
    }

    /// Opens the map in `dir`, or makes it; only one store at a time can have it open. A move that was under way when the process ended is finished if its shard
    /// is among those given, and undone if it is not.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the shards are not those of the map, [`Error::Corrupt`] when the map is damaged, and
    /// what the disk and the shards answer.
    ///
    /// # Cancel safety
    /// Dropped halfway, a move that it was finishing goes on at the next opening.
    pub async fn open(self, dir: impl AsRef<Path>) -> Result<ShardedStore<S, P>> {
        let ShardedStoreBuilder {
            env,
            partitioner,
            shards,
            write_wait,
        } = self;
        let dir = dir.as_ref().to_owned();
        let shards: Vec<_> = shards
            .into_iter()
            .map(|(name, weight, store)| (name, (weight, Arc::new(store))))
            .collect();
        router::check(&shards).map_err(|error| Error::invalid(error.to_string()))?;
        let (lock, file) = MapFile::open(&env, &dir).await?;
        let file = match file {
            Some(file) => file,
            None => create(&env, &dir, partitioner, &shards).await?,
        };
        let find = |name: &String| {
            let found = shards
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, (_, store))| Arc::clone(store));
            found.ok_or_else(|| Error::invalid(format!("the map has a shard {name:?}: give it to the builder")))
        };
        let named = file
            .names
            .iter()
            .map(|name| Ok((name.clone(), find(name)?)))
            .collect::<Result<Vec<_>>>()?;
        let unfinished = match &file.state {
            State::Moving { name, weight } => shards
                .iter()
                .any(|(known, _)| known == name)
                .then(|| (name.clone(), *weight)),
            _ => None,
        };
        let strange = shards.iter().map(|(name, _)| name).find(|name| {
            !file.names.contains(name) && unfinished.as_ref().is_none_or(|(unfinished, _)| unfinished != *name)
        });
        if let Some(name) = strange {
            return Err(Error::invalid(format!(
                "the map has no shard {name:?}: open without it, then add it"
            )));
        }
        let capabilities = named.iter().map(|(_, shard)| shard.capability());
        let common = capabilities
            .fold(Capability::all(), Capability::and)
            .without(Feature::Cursors);
        let map = Map {
            version: file.version,
            partitioner: file.partitioner.clone(),
            shards: named,
        };
        let router = ShardRouter::from_map(map);
        let file = Arc::new(futures::lock::Mutex::new(file));
        let (gate, adding) = (Arc::new(Gate::new()), Mutex::new(None));
        let store = ShardedStore {
            shared: Arc::new(Shared {
                env,
                dir,
                router,
                gate,
                common,
                write_wait,
                file,
                adding,
                _lock: lock,
            }),
        };
        match unfinished {
            Some((name, weight)) => {
                let shard = find(&name)?;
                store.move_in(name, weight, shard).await?;
            }
            None => store.settle().await?,
        }
        Ok(store)
    }
}

/// Makes the map of a new directory.
async fn create<S, P: Partitioner>(
    env: &Env,
    dir: &Path,
    mut partitioner: P,
    shards: &[(String, (u32, Arc<S>))],
) -> Result<MapFile<P>> {
    if partitioner.shards() > 0 {
        return Err(Error::invalid(
            "a partitioner that has shards already: give the builder an empty one",
        ));
    }
    shards
        .iter()
        .for_each(|(name, (weight, _))| partitioner.add(name, *weight));
    let names = shards.iter().map(|(name, _)| name.clone()).collect();
    let file = MapFile {
        version: 1,
        names,
        partitioner,
        state: State::Settled,
    };
    let (disk, place, made) = (Arc::clone(env.disk()), dir.to_owned(), file.clone());
    let write = files::blocking(env, async move { made.write(&*disk, &place).await });
    write.await.map_err(|error| Error::io(&error, Effect::Unknown))?;
    Ok(file)
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store + 'static, P: Partitioner> Store for ShardedStore<S, P> {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let router = &self.shared.router;
        loop {
            let version = router.version();
            let entry = router.route(key).get(key).await?;
            // Had the key moved meanwhile, its old shard might have answered too late.
            if router.version() == version {
                return Ok(entry);
            }
        }
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let router = &self.shared.router;
        loop {
            let (version, parts) = router.with_map(|map| {
                let mut parts: Vec<(Arc<S>, Vec<usize>, Vec<Bytes>)> = map
                    .shards
                    .iter()
                    .map(|(_, shard)| (Arc::clone(shard), Vec::new(), Vec::new()))
                    .collect();
                for (i, key) in keys.iter().enumerate() {
                    let (_, places, part) = &mut parts[map.partitioner.route(key)];
                    places.push(i);
                    part.push(key.clone());
                }
                parts.retain(|(_, places, _)| !places.is_empty());
                (map.version, parts)
            });
            let found = try_join_all(parts.iter().map(|(shard, _, part)| shard.get_many(part))).await?;
            if router.version() != version {
                continue;
            }
            let mut entries = vec![None; keys.len()];
            for ((_, places, _), found) in parts.iter().zip(found) {
                places
                    .iter()
                    .zip(found)
                    .for_each(|(place, entry)| entries[*place] = entry);
            }
            return Ok(entries);
        }
    }

    /// Merges the shards in key order. A page of a shard is consistent in itself; pages of several shards are not.
    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        scan::walk(&self.shared, scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let Shared {
            env, gate, write_wait, ..
        } = &*self.shared;
        let missing = self
            .shared
            .common
            .missing(batch.needs().without(Feature::AtomicBatches));
        if let Some(feature) = missing.iter().next() {
            // One shard may be able to; which one a key is on must not decide.
            return Err(Error::Unsupported(feature));
        }
        let moves = |next: &P| batch.keys().any(|key| next.route(key) == next.shards() - 1);
        let _pass = gate.enter(env, *write_wait, moves).await?;
        // Routed after it was let in: from here on its keys stay where they are until the pass is given back.
        self.shard_of(&batch)?.commit(batch).await
    }

    fn capability(&self) -> Capability {
        match self.shared.router.with_map(|map| map.shards.len()) {
            1 => self.shared.common,
            _ => self.shared.common.without(Feature::AtomicBatches),
        }
    }
}

impl<S: Store + 'static, P: Partitioner> Clone for ShardedStore<S, P> {
    fn clone(&self) -> Self {
        ShardedStore {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Store + 'static, P: Partitioner> fmt::Debug for ShardedStore<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedStore")
            .field("router", &self.shared.router)
            .finish_non_exhaustive()
    }
}

impl<S, P> fmt::Debug for ShardedStoreBuilder<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.shards.iter().map(|(name, ..)| name).collect();
        f.debug_struct("ShardedStoreBuilder")
            .field("shards", &names)
            .finish_non_exhaustive()
    }
}

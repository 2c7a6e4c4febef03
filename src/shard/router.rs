use super::Partitioner;
use crate::sync::{Mutex, Published, pin};
use std::fmt;
use std::sync::Arc;

/// Routes keys to shards of any kind: connections, pools, queues. Cheap to clone.
///
/// A lookup reads an immutable snapshot and never waits, whoever changes the shards meanwhile.
pub struct ShardRouter<S: Send + Sync + 'static, P: Partitioner> {
    shared: Arc<Shared<S, P>>,
}

struct Shared<S: Send + Sync + 'static, P: Partitioner> {
    map: Published<Map<S, P>>,
    /// Held by whoever changes the map.
    change: Mutex<()>,
}

/// Which keys go where, at one moment.
pub(super) struct Map<S, P> {
    pub(super) version: u64,
    pub(super) partitioner: P,
    pub(super) shards: Vec<(String, Arc<S>)>,
}

/// Builds a [`ShardRouter`].
#[must_use]
pub struct ShardRouterBuilder<S, P> {
    partitioner: P,
    shards: Vec<(String, Arc<S>)>,
}

/// Why a set of shards is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There has to be at least one shard.
    #[error("a router needs at least one shard")]
    NoShards,
    /// Two shards have the same name.
    #[error("two shards are called {name:?}: give each a name of its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// No shard has that name.
    #[error("there is no shard called {name:?}")]
    NoSuchShard {
        /// The name.
        name: String,
    },
    /// The partitioner has shards already; a builder starts with an empty one.
    #[error("the partitioner has {shards} shards already: give the builder an empty one")]
    NotEmpty {
        /// How many it has.
        shards: usize,
    },
}

impl<S, P> Map<S, P> {
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.shards.iter().position(|(known, _)| known == name)
    }
}

impl<S, P: Clone> Clone for Map<S, P> {
    fn clone(&self) -> Map<S, P> {
        Map {
            version: self.version,
            partitioner: self.partitioner.clone(),
            shards: self.shards.clone(),
        }
    }
}

impl<S: Send + Sync + 'static, P: Partitioner> ShardRouter<S, P> {
    /// A router whose keys are spread by `partitioner`, which has no shards yet.
    pub fn builder(partitioner: P) -> ShardRouterBuilder<S, P> {
        ShardRouterBuilder {
            partitioner,
            shards: Vec::new(),
        }
    }

    pub(super) fn from_map(map: Map<S, P>) -> ShardRouter<S, P> {
        ShardRouter {
            shared: Arc::new(Shared {
                map: Published::new(map),
                change: Mutex::new(()),
            }),
        }
    }

    /// The shard of `key`.
    #[inline]
    #[must_use]
    pub fn route(&self, key: &[u8]) -> Arc<S> {
        self.with_map(|map| Arc::clone(&map.shards[map.partitioner.route(key)].1))
    }

    /// The name of the shard of `key`.
    #[must_use]
    pub fn route_name(&self, key: &[u8]) -> String {
        self.with_map(|map| map.shards[map.partitioner.route(key)].0.clone())
    }

    /// Every shard, with its name and its share of the keys, in the order in which they were added.
    #[must_use]
    pub fn shards(&self) -> Vec<(String, f64, Arc<S>)> {
        self.with_map(|map| {
            let shards = map.shards.iter().enumerate();
            shards
                .map(|(i, (name, shard))| (name.clone(), map.partitioner.share(i), Arc::clone(shard)))
                .collect()
        })
    }

    /// The version of the map: one more with each change.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.with_map(|map| map.version)
    }

    /// Adds a shard. Keys go to it at once; whoever keeps data under them has to move it first.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] when there is one of that name.
    pub fn add(&self, name: impl Into<String>, weight: u32, shard: S) -> Result<(), Error> {
        let name = name.into();
        self.change(|map| {
            if map.position(&name).is_some() {
                return Err(Error::DuplicateName { name });
            }
            map.partitioner.add(&name, weight);
            map.shards.push((name, Arc::new(shard)));
            Ok(())
        })
    }

    /// Removes a shard and gives it back. Its keys, and only they, go to the others.
    ///
    /// # Errors
    /// [`Error::NoSuchShard`], and [`Error::NoShards`] for the last one.
    pub fn remove(&self, name: &str) -> Result<Arc<S>, Error> {
        self.change(|map| {
            let at = map
                .position(name)
                .ok_or_else(|| Error::NoSuchShard { name: name.to_owned() })?;
            if map.shards.len() == 1 {
                return Err(Error::NoShards);
            }
            map.partitioner.remove(at);
            Ok(map.shards.remove(at).1)
        })
    }

    #[inline]
    pub(super) fn with_map<R>(&self, read: impl FnOnce(&Map<S, P>) -> R) -> R {
        read(self.shared.map.load(&pin()))
    }

    /// Replaces the map by what `change` makes of it, under the next version, unless it fails.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Map<S, P>) -> Result<R, Error>) -> Result<R, Error> {
        let _one_at_a_time = self.shared.change.lock();
        let mut map = self.with_map(Map::clone);
        map.version += 1;
        let result = change(&mut map)?;
        self.shared.map.store(map);
        Ok(result)
    }
}

impl<S: Send + Sync + 'static, P: Partitioner> ShardRouterBuilder<S, P> {
    /// Adds a shard of weight 1.
    pub fn shard(self, name: impl Into<String>, shard: S) -> Self {
        self.weighted(name, 1, shard)
    }

    /// Adds a shard that takes a share of the keys in proportion to its weight.
    pub fn weighted(mut self, name: impl Into<String>, weight: u32, shard: S) -> Self {
        let name = name.into();
        self.partitioner.add(&name, weight);
        self.shards.push((name, Arc::new(shard)));
        self
    }

    /// Makes the router.
    ///
    /// # Errors
    /// [`Error::NoShards`], [`Error::DuplicateName`] and [`Error::NotEmpty`].
    pub fn build(self) -> Result<ShardRouter<S, P>, Error> {
        check(&self.shards)?;
        let extra = self.partitioner.shards() - self.shards.len();
        if extra > 0 {
            return Err(Error::NotEmpty { shards: extra });
        }
        Ok(ShardRouter::from_map(Map {
            version: 1,
            partitioner: self.partitioner,
            shards: self.shards,
        }))
    }
}

/// Whether shards of these names can be told apart, and there is one.
pub(super) fn check<T>(shards: &[(String, T)]) -> Result<(), Error> {
    if shards.is_empty() {
        return Err(Error::NoShards);
    }
    let mut names: Vec<&String> = shards.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::DuplicateName { name: pair[0].clone() }),
        None => Ok(()),
    }
}

impl<S: Send + Sync + 'static, P: Partitioner> Clone for ShardRouter<S, P> {
    fn clone(&self) -> Self {
        ShardRouter {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Send + Sync + 'static, P: Partitioner> fmt::Debug for ShardRouter<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_map(|map| {
            let names: Vec<&String> = map.shards.iter().map(|(name, _)| name).collect();
            f.debug_struct("ShardRouter")
                .field("version", &map.version)
                .field("shards", &names)
                .finish()
        })
    }
}

impl<S, P> fmt::Debug for ShardRouterBuilder<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.shards.iter().map(|(name, _)| name).collect();
        f.debug_struct("ShardRouterBuilder").field("shards", &names).finish()
    }
}

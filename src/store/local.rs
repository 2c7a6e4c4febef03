use super::{
    Batch, Capability, Engine, Entry, Feature, Feed, FeedBuffer, Follower, LogId, MemoryEngine, Position, Receipt,
    Record, Result, Scan, Store, Token, is_reserved, resolve,
};
use crate::env::{Env, WallTime};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::fmt;
use std::future::{Future, ready};
use std::sync::{Arc, Weak};

/// How many expired entries one commit frees at most.
const PURGE_PER_COMMIT: usize = 8;

/// A [`Store`] with a [`Feed`] over one local [`Engine`], in the caller's own thread: nothing waits. Cheap to clone.
///
/// It is as durable as its engine, so in memory it lasts as long as the process. Each page of a scan is consistent in
/// itself; what commits between pages may be seen. Expired entries are hidden at once and freed a few per commit.
pub struct LocalStore<E> {
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    env: Env,
    log: LogId,
    engine: E,
    /// Held while a batch is resolved, applied and announced: one order for versions, engine and feed.
    accept: Mutex<()>,
    feed: FeedBuffer,
}

/// Builds a [`LocalStore`].
#[derive(Clone, Debug)]
#[must_use]
pub struct LocalStoreBuilder<E> {
    engine: E,
    env: Env,
    feed: usize,
}

impl<E> Clone for LocalStore<E> {
    fn clone(&self) -> LocalStore<E> {
        LocalStore {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl LocalStore<MemoryEngine> {
    /// A store in memory.
    #[must_use]
    pub fn in_memory() -> LocalStore<MemoryEngine> {
        LocalStore::builder(MemoryEngine::new()).build()
    }
}

impl<E: Engine> LocalStore<E> {
    /// Builds a store over `engine`.
    pub fn builder(engine: E) -> LocalStoreBuilder<E> {
        LocalStoreBuilder {
            engine,
            env: Env::default(),
            feed: 10_000,
        }
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.shared.engine
    }

    fn live(&self, entry: Option<Entry>) -> Option<Entry> {
        // Most entries live for ever, and those need no clock.
        entry.filter(|entry| entry.expires.is_none() || entry.is_live(self.shared.env.wall()))
    }

    fn accept(&self, batch: &Batch) -> Result<Receipt> {
        let Shared {
            env,
            log,
            engine,
            accept,
            feed,
        } = &*self.shared;
        let now = env.wall();
        let _one_at_a_time = accept.lock();
        let version = engine.version().next();
        let record = resolve(batch, version, now, |key| engine.get(key))?;
        let applied = engine.applied();
        let at = Position::new(applied.epoch.max(1), applied.seq + 1);
        engine.apply(at, &record)?;
        let version = record.version();
        // The write has happened: whatever fails from here on may neither hide it from the feed nor fail the commit.
        feed.push(at, record);
        // What cannot be freed now is freed by a later commit; a medium that is broken fails the next apply too.
        let _freed = engine.purge(now, PURGE_PER_COMMIT);
        Ok(Receipt::new(version, Token::of(*log, at)))
    }
}

impl<E: Engine> LocalStoreBuilder<E> {
    /// The world it lives in. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// How many recent records followers can catch up on; one that falls further behind has to take a snapshot.
    /// Default: 10,000.
    pub fn feed(mut self, records: usize) -> Self {
        self.feed = records;
        self
    }

    /// Makes the store.
    #[must_use]
    pub fn build(self) -> LocalStore<E>
    where
        E: Engine,
    {
        let log = LogId::random(&mut self.env.rng("log id"));
        let feed = FeedBuffer::new(self.engine.applied(), self.feed);
        let shared = Shared {
            env: self.env,
            log,
            engine: self.engine,
            accept: Mutex::new(()),
            feed,
        };
        LocalStore {
            shared: Arc::new(shared),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<E: Engine> Store for LocalStore<E> {
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Entry>>> + Send {
        ready(self.shared.engine.get(key).map(|entry| self.live(entry)))
    }

    fn get_many(&self, keys: &[Bytes]) -> impl Future<Output = Result<Vec<Option<Entry>>>> + Send {
        let get = |key: &Bytes| Ok(self.live(self.shared.engine.get(key)?));
        ready(keys.iter().map(get).collect())
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        scan_engine(&self.shared.engine, &self.shared.env, scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.accept(&batch)
    }

    fn capability(&self) -> Capability {
        Capability::all().without(Feature::Durable)
    }
}

impl<E: Engine> Feed for LocalStore<E> {
    fn log(&self) -> LogId {
        self.shared.log
    }

    fn position(&self) -> Position {
        self.shared.feed.position()
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        self.shared.feed.watch(from)
    }

    async fn snapshot(&self) -> Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)> {
        let snapshot = {
            // Between a commit's apply and its announcement the engine is ahead of the feed, and a snapshot taken
            // there would name a position that nobody can watch from yet.
            let _no_commit_under_way = self.shared.accept.lock();
            self.shared.engine.snapshot()?
        };
        let now = self.shared.env.wall();
        let live = snapshot.entries.filter(move |(_, entry)| entry.is_live(now));
        Ok((snapshot.at, stream::iter(live.map(Ok)).boxed()))
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        self.shared.feed.attach(follower);
        Ok(())
    }
}

impl<E: Engine> fmt::Debug for LocalStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore")
            .field("applied", &self.shared.engine.applied())
            .finish_non_exhaustive()
    }
}

/// Walks an engine page by page, leaving out what has expired and what the crate keeps for itself.
pub(crate) fn scan_engine<'a>(
    engine: &'a impl Engine,
    env: &'a Env,
    scan: Scan,
) -> BoxStream<'a, Result<(Bytes, Entry)>> {
    scan_pages(scan, move |scan| Ok((engine.scan(scan)?, env.wall())))
}

/// Walks pages that `fetch` gives, with the time by which expiry is judged, leaving out what has expired and what the
/// crate keeps for itself.
pub(crate) fn scan_pages<'a>(
    scan: Scan,
    mut fetch: impl FnMut(&Scan) -> Result<(Vec<(Bytes, Entry)>, WallTime)> + Send + 'a,
) -> BoxStream<'a, Result<(Bytes, Entry)>> {
    let limit = scan.limit;
    // What is hidden does not count, so a page may bring less than the limit and the next one is asked for.
    let page = scan.page.min(limit);
    let mut next = Some(scan.page(page).limit(usize::MAX));
    let pages = std::iter::from_fn(move || {
        let scan = next.take()?;
        let (page, now) = match fetch(&scan) {
            Ok(page) => page,
            Err(error) => return Some(vec![Err(error)]),
        };
        next = match page.last() {
            Some((last, _)) if page.len() >= scan.page => Some(scan.after(last.clone(), 0)),
            _ => None,
        };
        let visible = page
            .into_iter()
            .filter(|(key, entry)| entry.is_live(now) && !is_reserved(key));
        Some(visible.map(Ok).collect())
    });
    stream::iter(pages.flatten()).take(limit).boxed()
}

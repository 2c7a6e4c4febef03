//! The promise of `CachedStore`, on recorded histories of simulated worlds: a read that begins after a commit returned
//! sees that commit, a session sees what its token names, and when everything is quiet the cache holds no old value.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use outgrow::cache::{CachedStore, CachedStoreStats};
use outgrow::env::{Env, Rng, Tick};
use outgrow::sim::{Trace, World};
use outgrow::store::{
    Batch, Capability, Effect, Entry, Error, Feature, Feed, Follower, LocalStore, LogId, MemoryEngine, Position,
    Receipt, Record, Result, Scan, Store, StoreExt, Token, Version,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const KEYS: u64 = 4;

/// A store that takes its time, as one across a network does: it waits before and after the inner call.
#[derive(Clone)]
struct Slow {
    inner: LocalStore<MemoryEngine>,
    env: Env,
    rng: Arc<Mutex<Rng>>,
    /// Whether it calls followers before a commit returns.
    announces: bool,
    /// How likely the feed breaks at each record.
    breaks: f64,
    /// A copy that lags, from which it reads now and then.
    copy: Option<Arc<Mutex<BTreeMap<Bytes, Entry>>>>,
}

impl Slow {
    async fn pause(&self) {
        let micros = {
            let mut rng = self.rng.lock().unwrap();
            if rng.chance(0.3) { 0 } else { rng.below(3_000) }
        };
        self.env.sleep(Duration::from_micros(micros)).await;
    }

    fn chance(&self, p: f64) -> bool {
        self.rng.lock().unwrap().chance(p)
    }

    /// What one read finds, fresh or from the copy.
    async fn find(&self, key: &[u8]) -> Result<Option<Entry>> {
        match &self.copy {
            Some(copy) if self.chance(0.5) => Ok(copy.lock().unwrap().get(key).cloned()),
            _ => self.inner.get(key).await,
        }
    }

    /// Keeps the copy up to date, late.
    async fn lag_behind(self, copy: Arc<Mutex<BTreeMap<Bytes, Entry>>>) {
        let mut watch = self.inner.watch(Position::START);
        while let Some(Ok((_, record))) = watch.next().await {
            self.env.sleep(5 * MS).await;
            for change in record.changes {
                let mut copy = copy.lock().unwrap();
                match change.to {
                    outgrow::store::Changed::Set(entry) => drop(copy.insert(change.key, entry)),
                    outgrow::store::Changed::Removed(_) => drop(copy.remove(&change.key)),
                }
            }
        }
    }
}

impl Store for Slow {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.pause().await;
        let found = self.find(key).await;
        self.pause().await;
        found
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let mut all = Vec::new();
        for key in keys {
            all.push(self.get(key).await?);
        }
        Ok(all)
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.inner.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.pause().await;
        let receipt = self.inner.commit(batch).await?;
        self.pause().await;
        if self.chance(0.05) {
            let effect = Effect::Unknown;
            return Err(Error::Timeout { effect });
        }
        Ok(receipt)
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Feed for Slow {
    fn log(&self) -> LogId {
        self.inner.log()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        let late = move |item: Result<_>| async move {
            self.pause().await;
            if self.chance(self.breaks) {
                let oldest = self.position();
                return Err(Error::PositionGone { oldest });
            }
            item
        };
        self.inner.watch(from).then(late).boxed()
    }

    async fn snapshot(&self) -> Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)> {
        self.inner.snapshot().await
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        if self.announces {
            self.inner.attach(follower)
        } else {
            Err(Error::Unsupported(Feature::Tokens))
        }
    }
}

/// What happened, in the order in which it did: each begin and end takes a number.
#[derive(Default)]
struct History {
    numbers: u64,
    reads: Vec<Read>,
    writes: Vec<Write>,
}

struct Read {
    key: u64,
    begin: u64,
    end: u64,
    found: Option<Version>,
}

/// A write that returned.
struct Write {
    key: u64,
    begin: u64,
    end: u64,
    version: Version,
    removes: bool,
    /// Whether every reader of the cache must see it from then on.
    promised: bool,
}

type Shared = Arc<Mutex<History>>;

fn number(history: &Shared) -> u64 {
    let mut history = history.lock().unwrap();
    history.numbers += 1;
    history.numbers
}

impl History {
    /// Checks every read against the newest promised write that had returned before it began.
    fn check(&self) -> Result<(), String> {
        for read in &self.reads {
            let of_key = || self.writes.iter().filter(|write| write.key == read.key);
            let ended = of_key().filter(|write| write.promised && write.end < read.begin);
            let Some(newest) = ended.max_by_key(|write| write.version) else {
                continue;
            };
            let sees = match read.found {
                Some(found) => found >= newest.version,
                // The key was gone: by that write, or by a newer one that had begun before the read ended.
                None => of_key().any(|w| w.removes && w.version >= newest.version && w.begin < read.end),
            };
            if !sees {
                let Read { key, begin, end, found } = read;
                let Write {
                    version, end: returned, ..
                } = newest;
                return Err(format!(
                    "the read {begin}..{end} of key {key} found {found:?}, but {version} had returned at {returned}"
                ));
            }
        }
        Ok(())
    }
}

fn key(n: u64) -> Bytes {
    format!("key/{n}").into()
}

/// What a world is like; follows from its seed.
#[derive(Clone, Copy, Debug)]
struct Kind {
    announces: bool,
    breaks: bool,
    lags: bool,
    keys: u64,
}

struct Outcome {
    kind: Kind,
    checked: Result<(), String>,
    stats: CachedStoreStats,
    reads: usize,
    trace: Trace,
}

/// Reads at random, one key or several, and notes what it found.
async fn read(cached: CachedStore<Slow>, env: Env, mut rng: Rng, history: Shared, keys: u64, until: Tick) {
    while env.now() < until {
        let chosen: Vec<u64> = if rng.chance(0.3) {
            (0..keys).collect()
        } else {
            vec![rng.below(keys)]
        };
        let begin = number(&history);
        let found = if let [one] = chosen[..] {
            vec![cached.get(&key(one)).await.unwrap()]
        } else {
            let names: Vec<Bytes> = chosen.iter().map(|n| key(*n)).collect();
            cached.get_many(&names).await.unwrap()
        };
        let end = number(&history);
        let versions = found.into_iter().map(|entry| entry.map(|entry| entry.version));
        let reads = chosen
            .into_iter()
            .zip(versions)
            .map(|(key, found)| Read { key, begin, end, found });
        history.lock().unwrap().reads.extend(reads);
        env.sleep(Duration::from_micros(rng.below(1_500))).await;
    }
}

/// Writes through `store` at random, and notes what returned. Now and then it loses patience and drops the commit.
async fn write(store: impl Store, env: Env, mut rng: Rng, history: Shared, kind: Kind, promised: bool, until: Tick) {
    while env.now() < until {
        let n = rng.below(kind.keys);
        let removes = rng.chance(0.25);
        let batch = match removes {
            true => Batch::new().delete(key(n)),
            false => Batch::new().put(key(n), "value"),
        };
        let begin = number(&history);
        let patience = if rng.chance(0.2) { 2 * MS } else { 1_000 * MS };
        if let Ok(Ok(receipt)) = env.timeout(patience, store.commit(batch)).await {
            let write = Write {
                key: n,
                begin,
                end: number(&history),
                version: receipt.version,
                removes,
                promised,
            };
            history.lock().unwrap().writes.push(write);
        } else {
            // It may have happened or not: as a removal that ends with the world it explains a key that is gone.
            let mut history = history.lock().unwrap();
            let version = Version(u64::MAX);
            let (key, end, promised) = (n, u64::MAX, false);
            history.writes.push(Write {
                key,
                begin,
                end,
                version,
                removes,
                promised,
            });
        }
        env.sleep(Duration::from_micros(rng.below(6_000))).await;
    }
}

/// Writes past the cache, then reads through it with the receipt's token, as a user does who is sent from one machine
/// to another.
async fn roam(cached: CachedStore<Slow>, env: Env, mut rng: Rng, keys: u64, until: Tick) -> Result<(), String> {
    while env.now() < until {
        let n = rng.below(keys);
        if let Ok(receipt) = cached.store().put(key(n), "roaming").await {
            let token: Token = receipt.at.to_string().parse().unwrap();
            let found = cached.session(token).unwrap().get(&key(n)).await.unwrap();
            // It may have been removed since, but it may not be older.
            if found.is_some_and(|entry| entry.version < receipt.version) {
                return Err(format!(
                    "a session with a token for {} read an older value",
                    receipt.version
                ));
            }
        }
        env.sleep(Duration::from_micros(rng.below(9_000))).await;
    }
    Ok(())
}

fn run(seed: u64) -> Outcome {
    let world = World::new(seed);
    let env = world.env();
    let mut rng = world.rng("kind");
    let lags = rng.chance(0.25);
    let kind = Kind {
        announces: rng.chance(0.5),
        // What a broken feed did not tell cannot be held against a copy that lags.
        breaks: !lags && rng.chance(0.3),
        lags,
        keys: if lags { 1 } else { KEYS },
    };
    let store = Slow {
        inner: LocalStore::builder(MemoryEngine::new()).env(env.clone()).build(),
        env: env.clone(),
        rng: Arc::new(Mutex::new(world.rng("slow"))),
        announces: kind.announces,
        breaks: if kind.breaks { 0.05 } else { 0.0 },
        copy: kind.lags.then(Arc::default),
    };
    if let Some(copy) = &store.copy {
        env.spawn(store.clone().lag_behind(Arc::clone(copy))).detach();
    }
    let history = Shared::default();
    let until = env.now() + 60 * MS;
    let (checked, stats) = world.run(async {
        let cached = CachedStore::builder(store.clone())
            .env(env.clone())
            .build()
            .await
            .unwrap();
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let reader = read(
                cached.clone(),
                env.clone(),
                world.rng("read"),
                Arc::clone(&history),
                kind.keys,
                until,
            );
            tasks.push(env.spawn(reader));
        }
        for _ in 0..2 {
            let (rng, history) = (world.rng("write"), Arc::clone(&history));
            tasks.push(env.spawn(write(cached.clone(), env.clone(), rng, history, kind, true, until)));
        }
        // Someone writes past the cache: promised only where the store announces that.
        let (rng, elsewhere) = (world.rng("elsewhere"), Arc::clone(&history));
        let writer = write(store.clone(), env.clone(), rng, elsewhere, kind, kind.announces, until);
        tasks.push(env.spawn(writer));
        let roamer = env.spawn(roam(cached.clone(), env.clone(), world.rng("roam"), kind.keys, until));
        for task in tasks {
            task.await.unwrap();
        }
        let roamed = roamer.await.unwrap();
        // Faults stop, and everything is followed and copied; then nothing old may be left.
        env.sleep(1_000 * MS).await;
        let stats = cached.stats();
        let healed = async {
            for n in 0..kind.keys {
                let (ours, truth) = (
                    cached.get(&key(n)).await.unwrap(),
                    store.inner.get(&key(n)).await.unwrap(),
                );
                if ours != truth {
                    return Err(format!("at rest key {n} reads {ours:?} instead of {truth:?}"));
                }
            }
            Ok(())
        };
        let healed = healed.await;
        cached.close().await;
        assert!(!cached.stats().following);
        // A store that itself reads old values promises nothing in between.
        let checked = if kind.lags {
            healed
        } else {
            healed.and(roamed).and(history.lock().unwrap().check())
        };
        (checked, stats)
    });
    let reads = history.lock().unwrap().reads.len();
    Outcome {
        kind,
        checked,
        stats,
        reads,
        trace: world.trace(),
    }
}

#[test]
fn a_commit_that_returned_is_seen() {
    let (mut hits, mut refused, mut bypassed, mut breaks, mut reads) = (0, 0, 0, 0, 0);
    for seed in support::seeds(support::SEEDS) {
        let outcome = run(seed);
        if let Err(why) = outcome.checked {
            let again = support::replay("sim_cache", "a_commit_that_returned_is_seen", seed);
            panic!("seed {seed}, {:?}: {why}\n{again}", outcome.kind);
        }
        let stats = outcome.stats;
        assert_eq!((stats.lag(), stats.following), (0, true), "seed {seed}");
        hits += stats.cache.hits;
        refused += stats.refused_fills;
        bypassed += stats.bypassed;
        breaks += stats.breaks;
        reads += outcome.reads as u64;
    }
    for (what, count) in [
        ("reads", reads),
        ("hits", hits),
        ("refused fills", refused),
        ("bypassed", bypassed),
        ("feed breaks", breaks),
    ] {
        support::report("cached store", what, count);
    }
    // The worlds are worth something only if the cache was in play.
    assert!(
        hits > reads / 10 && refused > 0 && bypassed > 0,
        "{hits} hits, {refused} refused, {bypassed} bypassed"
    );
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..5 {
        let (one, two) = (run(seed), run(seed));
        assert_eq!(one.trace, two.trace);
        assert_eq!(one.stats, two.stats);
    }
    assert_ne!(run(0).trace, run(1).trace);
}

//! Feeds: watchers, snapshots, and followers that hear before the commit returns.

use super::{Make, Subject, commit, put, read, scan};
use crate::store::{
    Batch, BoxStore, Changed, Entry, Error, Feature, Feed, Follower, LogId, Position, Record, Result, Scan, Store,
    StoreExt, is_reserved,
};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Takes the stores that `make` makes, one for each case, through the contract of [`Feed`].
///
/// # Panics
/// When the feed breaks the contract.
pub async fn feed<S: Store + Feed + 'static>(make: impl AsyncFn() -> Subject<S>) {
    all(&|| async { make().await.map(Watched::new) }.boxed_local()).await;
}

async fn all(make: &Make<'_, Watched>) {
    watchers_see_commits_in_order(&make().await.store).await;
    watchers_wait_for_what_comes(&make().await.store).await;
    a_snapshot_and_what_follows_is_the_state(&make().await).await;
    followers_hear_before_the_commit_returns(&make().await.store).await;
    whoever_falls_behind_is_told(&make().await).await;
}

/// A store with a feed, both as objects: see [`Make`](super::Make).
struct Watched {
    store: BoxStore,
    feed: Box<dyn ErasedFeed>,
}

type Snapshot<'a> = Result<(Position, BoxStream<'a, Result<(Bytes, Entry)>>)>;

/// [`Feed`] in a form that makes an object.
trait ErasedFeed {
    fn log(&self) -> LogId;
    fn position(&self) -> Position;
    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>>;
    fn snapshot(&self) -> BoxFuture<'_, Snapshot<'_>>;
    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()>;
}

impl<F: Feed> ErasedFeed for F {
    fn log(&self) -> LogId {
        Feed::log(self)
    }

    fn position(&self) -> Position {
        Feed::position(self)
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        Feed::watch(self, from)
    }

    fn snapshot(&self) -> BoxFuture<'_, Snapshot<'_>> {
        Feed::snapshot(self).boxed()
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        Feed::attach(self, follower)
    }
}

impl Watched {
    fn new(store: impl Store + Feed + 'static) -> Watched {
        let store = Arc::new(store);
        Watched {
            store: BoxStore::new(Arc::clone(&store)),
            feed: Box::new(store),
        }
    }
}

async fn watchers_see_commits_in_order(Watched { store, feed }: &Watched) {
    let start = feed.position();
    let mut receipts = Vec::new();
    for key in ["a", "b", "a"] {
        receipts.push(put(store, key, "1").await);
    }
    receipts.push(store.delete("b").await.expect("a delete works"));

    let seen = take(feed.watch(start), receipts.len()).await;

    let keys: Vec<_> = seen.iter().map(|(_, record)| only_key(record)).collect();
    assert_eq!(keys, ["a", "b", "a", "b"]);
    assert!(
        seen.is_sorted_by(|(a, _), (b, _)| a < b),
        "positions do not rise: {seen:?}"
    );
    assert!(seen[0].0 > start);
    assert_eq!(seen[3].0, feed.position());
    for ((at, record), receipt) in seen.iter().zip(&receipts) {
        assert_eq!(record.version(), receipt.version);
        if store.capability().has(Feature::Tokens) {
            assert_eq!(
                receipt.at.position(feed.log()),
                Some(*at),
                "the receipt names another place"
            );
        }
    }
    // Whoever has seen the first goes on with the second; whoever has seen all waits.
    assert_eq!(take(feed.watch(seen[0].0), 3).await, seen[1..]);
    assert!(feed.watch(seen[3].0).next().now_or_never().is_none());
    if store.capability().has(Feature::AtomicBatches) {
        let receipt = commit(store, Batch::new().put("c", "1").put("d", "1")).await;
        let batch = take(feed.watch(seen[3].0), 1).await;
        assert_eq!(batch[0].1.changes.len(), 2, "a batch is one record");
        assert_eq!(batch[0].1.version(), receipt.version);
    }
}

async fn watchers_wait_for_what_comes(Watched { store, feed }: &Watched) {
    let mut watch = feed.watch(feed.position());
    assert!(watch.next().now_or_never().is_none());
    for _ in 0..3 {
        let (seen, receipt) = join(watch.try_next(), put(store, "a", "1")).await;
        let (_, record) = seen.expect("a watch works").expect("a watch has no end");
        assert_eq!(record.version(), receipt.version);
    }
}

async fn a_snapshot_and_what_follows_is_the_state(subject: &Subject<Watched>) {
    let Watched { store, feed } = &subject.store;
    let can = |feature| store.capability().has(feature);
    let mut contents = BTreeMap::new();
    for key in ["a", "b", "c", "d"] {
        put(store, key, "old").await;
    }
    if can(Feature::Ttl) {
        let second = Duration::from_secs(1);
        store
            .put_for("dead", "1", second)
            .await
            .expect("a put for a time works");
        subject.advance(second + second / 10).await;
    }

    let (at, entries) = feed.snapshot().await.expect("a snapshot works");
    assert_eq!(at, feed.position());
    put(store, "a", "new").await;
    store.delete("b").await.expect("a delete works");
    put(store, "e", "new").await;
    let entries: Vec<(Bytes, Entry)> = entries.try_collect().await.expect("a snapshot can be read");
    let visible: Vec<_> = entries
        .iter()
        .map(|(key, _)| key)
        .filter(|key| !is_reserved(key))
        .collect();
    assert_eq!(
        visible,
        ["a", "b", "c", "d"],
        "a snapshot is of one moment, and of what is live"
    );
    assert!(entries.iter().all(|(_, entry)| entry.value == "old"), "{entries:?}");
    contents.extend(entries);
    if can(Feature::Counters) {
        store.add("n", 2).await.expect("an add works");
    }
    let mut watch = pin!(feed.watch(at));
    let mut reached = at;
    while reached < feed.position() {
        let (at, record) = watch
            .try_next()
            .await
            .expect("a watch works")
            .expect("a watch has no end");
        reached = at;
        for change in record.changes {
            match change.to {
                Changed::Set(entry) => drop(contents.insert(change.key, entry)),
                Changed::Removed(_) => drop(contents.remove(&change.key)),
            }
        }
    }

    for (key, entry) in contents.iter().filter(|(key, _)| !is_reserved(key)) {
        assert_eq!(read(store, key).await.as_ref(), Some(entry), "at {key:?}");
    }
    if can(Feature::Scans) {
        let visible = contents.into_iter().filter(|(key, _)| !is_reserved(key));
        assert_eq!(scan(store, Scan::all()).await, visible.collect::<Vec<_>>());
    }
}

/// A follower that remembers.
#[derive(Default)]
struct Heard(Mutex<Vec<(Position, Record)>>);

impl Follower for Heard {
    fn committed(&self, at: Position, record: &Record) {
        self.0.lock().push((at, record.clone()));
    }
}

async fn followers_hear_before_the_commit_returns(Watched { store, feed }: &Watched) {
    let heard = Arc::new(Heard::default());
    let follower: Weak<dyn Follower> = Arc::downgrade(&heard) as Weak<dyn Follower>;
    match feed.attach(follower) {
        Ok(()) => {}
        Err(Error::Unsupported(_)) => return,
        Err(error) => panic!("a follower was refused: {error}"),
    }
    let start = feed.position();
    for commits in 1..=3 {
        let receipt = put(store, "a", "1").await;
        let heard = heard.0.lock();
        assert_eq!(heard.len(), commits);
        assert_eq!(heard[commits - 1].1.version(), receipt.version);
    }
    let seen = take(feed.watch(start), 3).await;
    assert_eq!(*heard.0.lock(), seen, "followers and watchers see the same");
    drop(heard);
    put(store, "a", "1").await;
}

async fn whoever_falls_behind_is_told(subject: &Subject<Watched>) {
    let Watched { store, feed } = &subject.store;
    let ahead = Position::new(u64::MAX, u64::MAX);
    let answer = feed.watch(ahead).next().now_or_never();
    assert!(
        matches!(answer, Some(Some(Err(Error::PositionGone { .. })))),
        "a position that nobody has reached answered {answer:?}"
    );
    let Some(keeps) = subject.keeps else { return };
    let start = feed.position();
    let mut slow = feed.watch(start);
    for _ in 0..=keeps {
        put(store, "a", "1").await;
    }
    let Some(Err(Error::PositionGone { oldest })) = slow.next().await else {
        panic!("a watcher {} records behind was not told", keeps + 1)
    };
    assert!(slow.next().await.is_none(), "a watch goes on after an error");
    assert!(oldest > start);
    let kept = take(feed.watch(oldest), keeps).await;
    assert_eq!(kept[keeps - 1].0, feed.position());
}

async fn take(watch: BoxStream<'_, Result<(Position, Record)>>, n: usize) -> Vec<(Position, Record)> {
    let seen = watch.take(n).try_collect().await;
    seen.expect("a watch works")
}

fn only_key(record: &Record) -> &Bytes {
    let [change] = &record.changes[..] else {
        panic!("a record of one put has the changes {:?}", record.changes)
    };
    &change.key
}

//! The local store over engines that fail or stall, and how it pages.

use crate::env::WallTime;
use crate::store::{
    Batch, Engine, Entry, Error, Feed, LocalStore, MemoryEngine, Position, Record, Result, Scan, Snapshot, Store,
    StoreExt, Version,
};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::FutureExt;
use futures::executor::block_on;
use futures::stream::{StreamExt, TryStreamExt};
use std::sync::mpsc;
use std::time::Duration;

/// An engine in memory that does something of the test's between a record's apply and what comes next.
struct Hooked<F> {
    inner: MemoryEngine,
    on_purge: F,
    pages: Mutex<Vec<usize>>,
}

impl<F: Fn() -> Result<usize> + Send + Sync> Hooked<F> {
    fn new(on_purge: F) -> Hooked<F> {
        Hooked {
            inner: MemoryEngine::new(),
            on_purge,
            pages: Mutex::default(),
        }
    }
}

impl<F: Fn() -> Result<usize> + Send + Sync> Engine for Hooked<F> {
    fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.inner.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Entry)>> {
        self.pages.lock().push(scan.page);
        self.inner.scan(scan)
    }

    fn snapshot(&self) -> Result<Snapshot> {
        self.inner.snapshot()
    }

    fn apply(&self, at: Position, record: &Record) -> Result<()> {
        self.inner.apply(at, record)
    }

    fn install(&self, snapshot: Snapshot) -> Result<()> {
        self.inner.install(snapshot)
    }

    fn applied(&self) -> Position {
        self.inner.applied()
    }

    fn version(&self) -> Version {
        self.inner.version()
    }

    fn purge(&self, _: WallTime, _: usize) -> Result<usize> {
        (self.on_purge)()
    }
}

#[test]
fn a_purge_that_fails_neither_fails_the_commit_nor_hides_it() {
    let engine = Hooked::new(|| Err(Error::corrupt("the list of expiries")));
    let store = LocalStore::builder(engine).build();
    block_on(async {
        let written = [store.put("a", "1").await.unwrap(), store.put("a", "2").await.unwrap()];
        let seen: Vec<_> = store.watch(Position::START).take(2).try_collect().await.unwrap();
        let seen = seen.iter().map(|(_, record)| record.version());
        assert!(seen.eq(written.map(|receipt| receipt.version)));
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
fn a_snapshot_amid_a_commit_can_be_watched_from() {
    // The commit stands still between apply and announcement until the other thread has had its chance.
    let (amid, wait_amid) = mpsc::sync_channel(1);
    let (watched, wait_watched) = mpsc::sync_channel(1);
    let [wait_amid, wait_watched] = [wait_amid, wait_watched].map(Mutex::new);
    let engine = Hooked::new(move || {
        let _nobody_may_listen = amid.send(());
        let _timeout = wait_watched.lock().recv_timeout(Duration::from_millis(50));
        Ok(0)
    });
    let store = LocalStore::builder(engine).build();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            wait_amid.lock().recv().unwrap();
            let (at, _) = block_on(store.snapshot()).unwrap();
            let next = store.watch(at).next().now_or_never();
            watched.send(()).unwrap();
            (at, next)
        });
        block_on(store.put("a", "1")).unwrap();
        let (at, next) = follower.join().unwrap();
        assert_eq!(at, Position::new(1, 1));
        assert!(next.is_none(), "{next:?}");
    });
}

#[test]
fn a_scan_fetches_no_more_than_its_limit_at_a_time() {
    let store = LocalStore::builder(Hooked::new(|| Ok(0))).build();
    let fetched = |scan: Scan| {
        let found: Vec<_> = block_on(store.scan(scan).try_collect()).unwrap();
        (found.len(), std::mem::take(&mut *store.engine().pages.lock()))
    };
    for i in 0..10 {
        block_on(store.put(format!("{i}"), "1")).unwrap();
    }
    assert_eq!(fetched(Scan::all().limit(3)), (3, vec![3]));
    assert_eq!(fetched(Scan::all().page(4)), (10, vec![4, 4, 4]));
    // What is hidden does not count towards the limit: two cursors come first.
    let cursors = Batch::new().cursor("v", Position::START).cursor("w", Position::START);
    block_on(store.commit(cursors)).unwrap();
    assert_eq!(fetched(Scan::all().limit(3)), (3, vec![3, 3]));
}

#[test]
fn versions_rise_over_all_keys() {
    let store = LocalStore::in_memory();
    let mut versions = Vec::new();
    for key in ["a", "b", "a", "c"] {
        versions.push(block_on(store.put(key, "1")).unwrap().version);
        versions.push(block_on(store.delete(key)).unwrap().version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

use super::*;
use crate::sim::World;
use crate::store::{Expect, Follower, LocalStore, LogId, MemoryEngine, Position, Record, StoreExt};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use futures::FutureExt;
use futures::future::{join_all, poll_fn};
use std::future::Future;
use std::pin::pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A store whose reads take a millisecond, are counted, and fail when told to.
#[derive(Clone)]
struct Below {
    inner: LocalStore<MemoryEngine>,
    env: Env,
    reads: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

impl Below {
    fn new(world: &World) -> Below {
        let env = world.machine("below").env();
        Below {
            inner: LocalStore::builder(MemoryEngine::new()).env(env.clone()).build(),
            env,
            reads: Arc::default(),
            fails: Arc::default(),
        }
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

impl Store for Below {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.env.sleep(MS).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Poisoned);
        }
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        if self.fails.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        join_all(keys.iter().map(|key| self.get(key)))
            .await
            .into_iter()
            .collect()
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        self.inner.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.env.sleep(MS).await;
        let receipt = self.inner.commit(batch).await;
        self.env.sleep(MS).await;
        receipt
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Feed for Below {
    fn log(&self) -> LogId {
        self.inner.log()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        self.inner.watch(from)
    }

    fn snapshot(&self) -> impl Future<Output = Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)>> + Send {
        self.inner.snapshot()
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        self.inner.attach(follower)
    }
}

/// Runs `test` in a world, with a cached store and the one below it.
fn with<T: Future<Output = ()>>(test: impl FnOnce(World, Below, CachedStore<Below>) -> T) {
    let world = World::new(1);
    let below = Below::new(&world);
    world.run(async {
        let builder = CachedStore::builder(below.clone()).jitter(0.0).env(world.env());
        test(world.clone(), below, builder.build().await.unwrap()).await;
    });
}

async fn value(store: &impl Store, key: &str) -> Option<Bytes> {
    store.get(key.as_bytes()).await.unwrap().map(|entry| entry.value)
}

#[test]
fn readers_of_one_key_share_one_read() {
    with(|_, below, cached| async move {
        cached.put("a", "1").await.unwrap();
        let all = join_all((0..100).map(|_| value(&cached, "a"))).await;
        assert!(all.iter().all(|found| found.as_deref() == Some(b"1")));
        assert_eq!(
            (below.reads(), value(&cached, "a").await.is_some(), below.reads()),
            (1, true, 1)
        );
    });
}

#[test]
fn absence_is_remembered_for_a_short_time_and_until_a_write() {
    with(|world, below, cached| async move {
        for _ in 0..3 {
            assert_eq!(value(&cached, "a").await, None);
        }
        assert_eq!(below.reads(), 1);
        world.env().sleep(Duration::from_secs(5)).await;
        assert_eq!((value(&cached, "a").await, below.reads()), (None, 2));
        below.inner.put("a", "1").await.unwrap();
        assert_eq!(
            (value(&cached, "a").await.as_deref(), below.reads()),
            (Some(&b"1"[..]), 3)
        );
    });
}

#[test]
fn zero_does_not_remember_absence() {
    let world = World::new(1);
    let below = Below::new(&world);
    world.run(async {
        let builder = CachedStore::builder(below.clone())
            .negative_ttl(Duration::ZERO)
            .env(world.env());
        let cached = builder.build().await.unwrap();
        assert_eq!((value(&cached, "a").await, value(&cached, "a").await), (None, None));
        assert_eq!((below.reads(), cached.stats().cache.entries), (2, 0));
    });
}

#[test]
fn an_entry_is_not_served_past_its_own_expiry() {
    with(|world, below, cached| async move {
        cached.put_for("a", "1", Duration::from_secs(2)).await.unwrap();
        assert!(value(&cached, "a").await.is_some());
        world.env().sleep(Duration::from_millis(1_990)).await;
        assert!(value(&cached, "a").await.is_some());
        assert_eq!(below.reads(), 1);
        world.env().sleep(10 * MS).await;
        assert_eq!(value(&cached, "a").await, None);

        // Nor when the wall clock jumps, which the cache's own time to live does not notice.
        cached.put_for("b", "1", Duration::from_secs(60)).await.unwrap();
        assert!(value(&cached, "b").await.is_some());
        world.machine("main").skew_wall(61_000);
        world.machine("below").skew_wall(61_000);
        assert_eq!(value(&cached, "b").await, None);
    });
}

#[test]
fn many_keys_are_read_in_order_and_only_those_that_miss() {
    with(|_, below, cached| async move {
        for key in ["a", "b", "c"] {
            cached.put(key, key).await.unwrap();
        }
        assert!(value(&cached, "b").await.is_some());
        let keys: Vec<Bytes> = ["c", "b", "missing", "a", "c"].map(Bytes::from).into();
        for _ in 0..2 {
            let found = cached.get_many(&keys).await.unwrap();
            let values: Vec<_> = found.into_iter().map(|entry| entry.map(|entry| entry.value)).collect();
            let expected = [Some("c"), Some("b"), None, Some("a"), Some("c")];
            assert_eq!(values, expected.map(|value| value.map(Bytes::from)));
        }
        assert_eq!(below.reads(), 5);

        // A store that answers something else is not believed.
        cached.clear();
        below.fails.store(true, Ordering::Relaxed);
        assert!(matches!(cached.get_many(&keys).await, Err(Error::Corrupt { .. })));
    });
}

#[test]
fn failures_pass_and_are_not_remembered() {
    with(|_, below, cached| async move {
        cached.put("a", "1").await.unwrap();
        below.fails.store(true, Ordering::Relaxed);
        let failed = join_all((0..3).map(|_| cached.get(b"a"))).await;
        assert!(failed.iter().all(|found| matches!(found, Err(Error::Poisoned))));
        assert_eq!(below.reads(), 1);
        below.fails.store(false, Ordering::Relaxed);
        assert!(value(&cached, "a").await.is_some());

        // A commit that is refused dropped nothing.
        let refused = cached.put_if("a", "2", Expect::Absent).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })));
        assert_eq!(
            (value(&cached, "a").await.as_deref(), below.reads()),
            (Some(&b"1"[..]), 2)
        );
    });
}

#[test]
fn the_crates_own_keys_are_never_remembered() {
    with(|_, _, cached| async move {
        for seq in 1..4 {
            let at = Position::new(1, seq);
            cached.commit(Batch::new().cursor("view", at)).await.unwrap();
            assert_eq!(cached.cursor("view").await.unwrap(), Some(at));
        }
        assert_eq!(cached.stats().cache.entries, 0);
    });
}

#[test]
fn too_many_readers_are_refused() {
    let world = World::new(1);
    let below = Below::new(&world);
    world.run(async {
        let builder = CachedStore::builder(below).max_waiting(2).env(world.env());
        let cached = builder.build().await.unwrap();
        let all = join_all(["a", "b", "c"].map(|key| cached.get(key.as_bytes()))).await;
        assert!(all[0].is_ok() && all[1].is_ok());
        assert!(matches!(&all[2], Err(error @ Error::Full { .. }) if error.retry() == crate::store::Retry::May));
    });
}

#[test]
fn what_nobody_follows_is_not_read() {
    let world = World::new(1);
    let below = Below::new(&world);
    world.run(async {
        let machine = world.machine("dies");
        let cached = CachedStore::builder(below.clone())
            .env(machine.env())
            .build()
            .await
            .unwrap();
        cached.put("a", "1").await.unwrap();
        assert!(value(&cached, "a").await.is_some());
        machine.kill();
        assert!(!cached.stats().following);
        assert!(value(&cached, "a").await.is_some() && value(&cached, "a").await.is_some());
        let stats = cached.stats();
        assert_eq!((below.reads(), stats.bypassed, stats.cache.entries), (3, 2, 0));

        // An executor that is gone from the start: the same, and nobody waits for it.
        let cached = CachedStore::builder(below.clone())
            .env(cached.shared.env.clone())
            .build()
            .await
            .unwrap();
        assert!(value(&cached, "a").await.is_some() && !cached.stats().following);
    });
}

#[test]
fn closing_and_dropping_stop_the_follower() {
    with(|world, below, cached| async move {
        let handles = |below: &Below| Arc::strong_count(&below.reads);
        value(&cached, "a").await;
        let other = cached.clone();
        cached.close().await;
        cached.close().await;
        assert_eq!((other.stats().following, other.stats().cache.entries), (false, 0));
        assert_eq!(value(&other, "a").await, None);
        drop((cached, other));
        assert_eq!(handles(&below), 1);

        let dropped = CachedStore::builder(below.clone())
            .env(world.env())
            .build()
            .await
            .unwrap();
        drop(dropped);
        world.env().sleep(MS).await;
        assert_eq!(handles(&below), 1);
    });
}

/// Polls `future` at most `polls` times, each when it is woken, then drops it.
async fn cut<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[test]
fn dropped_at_every_poll_it_stays_true() {
    for polls in 0..6 {
        with(|world, below, cached| async move {
            let keys = [Bytes::from("a"), Bytes::from("b")];
            cached.put("a", "1").await.unwrap();
            let old = value(&cached, "a").await;
            // A commit cut off in the middle: what was written, if it was, is seen at once.
            let done = cut(polls, cached.put("a", "2")).await;
            assert_eq!(done.is_some(), polls >= 3);
            assert_eq!(value(&cached, "a").await, value(&below.inner, "a").await);
            assert_eq!(value(&cached, "a").await == old, polls < 2);
            // Reads cut off leave no load behind, and a read that goes on is not hurt.
            cached.clear();
            let other = value(&cached, "a").shared();
            let (_, found) = futures::join!(cut(polls, cached.get(b"a")), other);
            assert_eq!(found, value(&below.inner, "a").await);
            cached.clear();
            cut(polls, cached.get(b"a")).await;
            cut(polls, cached.get_many(&keys)).await;
            assert_eq!(cached.shared.keeper.cache().inner.flights.counts(), (0, 0));
            assert_eq!(value(&cached, "a").await, value(&below.inner, "a").await);
            // A builder and a close cut off stop all the same.
            cut(polls, CachedStore::builder(below.clone()).env(world.env()).build()).await;
            cut(polls.min(1), cached.close()).await;
            world.env().sleep(MS).await;
            assert_eq!(cached.stats().following, polls == 0);
        });
    }
}

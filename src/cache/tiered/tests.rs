use super::*;
use crate::cache::bus::{InvalidationBus, LocalBus, Message, Notice, Origin};
use crate::env::Env;
use crate::sim::{World, drop_at_every_poll};
use crate::store::tests::conforms;
use crate::store::{Expect, LocalStore, MemoryEngine, Position, StoreExt};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, join};
use std::future::Future;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A store whose reads and commits take two milliseconds, one before and one after, and whose reads are counted.
#[derive(Clone)]
struct Below {
    inner: LocalStore<MemoryEngine>,
    env: Env,
    reads: Arc<AtomicUsize>,
}

impl Below {
    fn new(world: &World) -> Below {
        let env = world.machine("below").env();
        Below {
            inner: LocalStore::builder(MemoryEngine::new()).env(env.clone()).build(),
            env,
            reads: Arc::default(),
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
        let found = self.inner.get(key).await;
        self.env.sleep(MS).await;
        found
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let all = join_all(keys.iter().map(|key| self.get(key))).await;
        all.into_iter().collect()
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

/// A bus that can be told to lose what it is given, to refuse it, and to hand out what it was not given.
#[derive(Clone, Default)]
struct Frail {
    inner: LocalBus,
    loses: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    garbage: Arc<AtomicBool>,
    published: Arc<Mutex<Vec<Message>>>,
}

impl InvalidationBus for Frail {
    async fn publish(&self, message: Message) -> Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the bus", Effect::None));
        }
        self.published.lock().push(message.clone());
        if self.loses.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.inner.publish(message).await
    }

    fn subscribe(&self) -> BoxStream<'static, Result<Message>> {
        let frail = self.clone();
        let given = self.inner.subscribe().flat_map(move |message| {
            let ends = frail.ends.swap(false, Ordering::Relaxed);
            let ends = ends.then(|| Err(Error::unavailable("the bus", Effect::None)));
            let garbage = frail.garbage.swap(false, Ordering::Relaxed);
            let garbage = garbage.then(|| Err(Error::corrupt("garbage")));
            stream::iter(ends.into_iter().chain(garbage).chain([message]))
        });
        given.boxed()
    }
}

/// Two processes, each on a machine of its own, over one store and one bus.
struct Two {
    world: World,
    below: Below,
    bus: Frail,
    here: Tiered<Below>,
    there: Tiered<Below>,
}

async fn tiered(world: &World, machine: &str, below: &Below, bus: &Frail) -> Tiered<Below> {
    let builder = Tiered::builder(below.clone()).bus(bus.clone()).jitter(0.0);
    builder.env(world.machine(machine).env()).build().await.unwrap()
}

fn with<T: Future<Output = ()>>(test: impl FnOnce(Two) -> T) {
    let world = World::new(1);
    let (below, bus) = (Below::new(&world), Frail::default());
    world.run(async {
        let here = tiered(&world, "here", &below, &bus).await;
        let there = tiered(&world, "there", &below, &bus).await;
        // They know each other when each has heard a heartbeat of the other.
        world.env().sleep(SECOND).await;
        assert_eq!((here.stats().peers, there.stats().peers), (1, 1));
        assert!(here.stats().hearing && there.stats().hearing);
        // The one that came later missed what the other had said before.
        assert_eq!((here.stats().emptied, there.stats().emptied), (0, 1));
        let world = world.clone();
        test(Two {
            world,
            below,
            bus,
            here,
            there,
        })
        .await;
    });
}

async fn value(store: &impl Store, key: &str) -> Option<Bytes> {
    store.get(key.as_bytes()).await.unwrap().map(|entry| entry.value)
}

#[test]
fn it_is_a_store_as_any() {
    let over = |env: &Env| {
        let store = LocalStore::builder(MemoryEngine::new()).env(env.clone()).build();
        let builder = Tiered::builder(store).env(env.clone());
        async move { builder.build().await.unwrap().boxed() }.boxed()
    };
    conforms(&over);
    let slow = |env: &Env| {
        let store = LocalStore::builder(MemoryEngine::new()).env(env.clone()).build();
        let (inner, env) = (store, env.clone());
        let reads = Arc::default();
        let below = Below { inner, env, reads };
        async move {
            Tiered::builder(below.clone())
                .env(below.env.clone())
                .build()
                .await
                .unwrap()
                .boxed()
        }
        .boxed()
    };
    conforms(&slow);
}

#[test]
fn a_write_is_seen_here_at_once_and_there_when_the_bus_has_told() {
    with(|two| async move {
        let (here, there, below) = (two.here, two.there, two.below);
        here.put("a", "1").await.unwrap();
        assert_eq!(value(&there, "a").await.as_deref(), Some(&b"1"[..]));
        assert_eq!(value(&here, "a").await.as_deref(), Some(&b"1"[..]));
        let reads = below.reads();
        assert!(value(&here, "a").await.is_some() && value(&there, "a").await.is_some());
        assert_eq!(below.reads(), reads, "both remember it");
        here.put("a", "2").await.unwrap();
        assert_eq!(value(&here, "a").await.as_deref(), Some(&b"2"[..]));
        below.env.sleep(MS).await;
        assert_eq!(value(&there, "a").await.as_deref(), Some(&b"2"[..]));
        let stats = there.stats();
        assert_eq!((stats.invalidations_heard, stats.emptied, stats.bypassed), (2, 1, 0));
        assert_eq!(here.stats().invalidations_sent, 2);

        // What was written past both can be told by hand.
        below.inner.put("a", "3").await.unwrap();
        there.invalidate(&["a".into()]).await.unwrap();
        below.env.sleep(MS).await;
        assert_eq!(value(&here, "a").await.as_deref(), Some(&b"3"[..]));
        below.inner.put("a", "4").await.unwrap();
        here.invalidate_all().await.unwrap();
        below.env.sleep(MS).await;
        assert_eq!(value(&here, "a").await.as_deref(), Some(&b"4"[..]));
        assert_eq!(value(&there, "a").await.as_deref(), Some(&b"4"[..]));
    });
}

#[test]
fn memory_never_outlives_the_entry_below() {
    with(|two| async move {
        let (world, here, below) = (two.world, two.here, two.below);
        // Ten minutes below, five more in memory would make fifteen.
        here.put_for("a", "1", 600 * SECOND).await.unwrap();
        world.env().sleep(590 * SECOND).await;
        assert!(value(&here, "a").await.is_some());
        world.env().sleep(9 * SECOND).await;
        let reads = below.reads();
        assert!(value(&here, "a").await.is_some());
        assert_eq!(below.reads(), reads);
        world.env().sleep(SECOND).await;
        assert_eq!(value(&here, "a").await, None);
    });
}

#[test]
fn absence_is_remembered_shortly_and_until_a_write_anywhere() {
    with(|two| async move {
        let (world, here, there, below) = (two.world, two.here, two.there, two.below);
        for _ in 0..3 {
            assert_eq!(value(&here, "a").await, None);
        }
        assert_eq!(below.reads(), 1);
        world.env().sleep(5 * SECOND).await;
        assert_eq!((value(&here, "a").await, below.reads()), (None, 2));
        there.put("a", "1").await.unwrap();
        world.env().sleep(MS).await;
        assert!(value(&here, "a").await.is_some());
    });
}

#[test]
fn readers_of_one_key_share_one_read() {
    with(|two| async move {
        let (here, below) = (two.here, two.below);
        let all = join_all((0..100).map(|_| value(&here, "a"))).await;
        assert_eq!((all.len(), below.reads()), (100, 1));
        let keys = ["a", "b", "b", "c"].map(Bytes::from);
        assert_eq!(here.get_many(&keys).await.unwrap(), vec![None; 4]);
        assert_eq!(below.reads(), 4);
    });
}

#[test]
fn a_read_that_a_message_overtook_is_not_kept() {
    with(|two| async move {
        let (here, there, below, world) = (two.here, two.there, two.below, two.world);
        there.put("a", "old").await.unwrap();
        let write = async {
            // The read has seen the old value when the new one is written, and returns when all have been told.
            world.env().sleep(MS + MS / 2).await;
            below.inner.put("a", "new").await.unwrap();
            there.invalidate(&["a".into()]).await.unwrap();
        };
        let (read, ()) = join!(value(&here, "a"), write);
        assert_eq!(read.as_deref(), Some(&b"old"[..]), "it began before the write");
        assert_eq!(value(&here, "a").await.as_deref(), Some(&b"new"[..]));
        assert_eq!(here.stats().refused_fills, 1);
    });
}

#[test]
fn a_silent_bus_empties_the_cache_and_is_gone_round_until_it_is_heard() {
    with(|two| async move {
        let (world, here, there, below, bus) = (two.world, two.here, two.there, two.below, two.bus);
        here.put("a", "1").await.unwrap();
        assert!(value(&here, "a").await.is_some());
        bus.loses.store(true, Ordering::Relaxed);
        below.inner.put("a", "2").await.unwrap();
        // Within a heartbeat it may still answer from memory; then it may not, and it knows.
        world.env().sleep(SECOND).await;
        assert_eq!(value(&here, "a").await.as_deref(), Some(&b"2"[..]));
        let stats = here.stats();
        assert_eq!(
            (stats.hearing, stats.missed_heartbeats, stats.cache.entries),
            (false, 1, 0)
        );
        assert_eq!(stats.bypassed, 1);
        world.env().sleep(60 * SECOND).await;
        assert_eq!(here.stats().missed_heartbeats, 1);
        let reads = below.reads();
        assert!(value(&there, "a").await.is_some() && value(&there, "a").await.is_some());
        assert_eq!(below.reads(), reads + 2, "nothing is kept meanwhile");

        bus.loses.store(false, Ordering::Relaxed);
        world.env().sleep(SECOND).await;
        assert!(here.stats().hearing && there.stats().hearing);
        let reads = below.reads();
        assert!(value(&there, "a").await.is_some() && value(&there, "a").await.is_some());
        assert_eq!(below.reads(), reads + 1);
    });
}

#[test]
fn a_subscription_that_ends_is_made_anew_and_nothing_kept_over_it() {
    with(|two| async move {
        let (world, here, below, bus) = (two.world, two.here, two.below, two.bus);
        assert_eq!(value(&here, "a").await, None);
        bus.ends.store(true, Ordering::Relaxed);
        world.env().sleep(SECOND / 2).await;
        // One of the two took the end; it has both its ears again.
        world.env().sleep(SECOND).await;
        assert!(here.stats().hearing);
        let before = below.reads();
        assert_eq!((value(&here, "a").await, value(&here, "a").await), (None, None));
        assert!(below.reads() <= before + 1);

        bus.garbage.store(true, Ordering::Relaxed);
        world.env().sleep(SECOND).await;
        assert!(here.stats().hearing);
    });
    // Which of two takes it is chance, so the counts are read off one alone.
    let world = World::new(1);
    let (below, bus) = (Below::new(&world), Frail::default());
    world.run(async {
        let alone = tiered(&world, "here", &below, &bus).await;
        bus.garbage.store(true, Ordering::Relaxed);
        world.env().sleep(SECOND).await;
        assert_eq!(
            (alone.stats().garbage, alone.stats().hearing, alone.stats().emptied),
            (1, true, 0)
        );
        bus.ends.store(true, Ordering::Relaxed);
        world.env().sleep(SECOND).await;
        let stats = alone.stats();
        assert_eq!((stats.hearing, stats.missed_heartbeats, stats.emptied), (true, 1, 1));
    });
}

#[test]
fn a_message_that_is_lost_shows_as_a_gap() {
    with(|two| async move {
        let (world, here, there, bus) = (two.world, two.here, two.there, two.bus);
        here.put("a", "1").await.unwrap();
        assert!(value(&there, "a").await.is_some());
        for lost in [&bus.loses, &bus.refuses] {
            let emptied = there.stats().emptied;
            lost.store(true, Ordering::Relaxed);
            here.put("a", "2").await.unwrap();
            lost.store(false, Ordering::Relaxed);
            world.env().sleep(SECOND / 2).await;
            assert_eq!(there.stats().emptied, emptied + 1);
            assert_eq!(value(&there, "a").await.as_deref(), Some(&b"2"[..]));
        }
        assert_eq!(here.stats().unsent, 1, "one was refused, the other just lost");
        assert_eq!(there.stats().missed_heartbeats, 0);
    });
}

#[test]
fn a_process_that_dies_before_it_told_is_missed() {
    with(|two| async move {
        let (world, here, there, below) = (two.world, two.here, two.there, two.below);
        assert_eq!(value(&there, "a").await, None);
        // Its commit has happened, and it dies before its message is out.
        below.inner.put("a", "1").await.unwrap();
        world.machine("here").kill();
        world.env().sleep(SECOND).await;
        assert!(value(&there, "a").await.is_some());
        let stats = there.stats();
        assert_eq!((stats.peers, stats.emptied, stats.hearing), (0, 2, true));
        assert!(!here.stats().hearing);
    });
}

#[test]
fn who_says_goodbye_is_not_missed_and_commits_no_more() {
    with(|two| async move {
        let (world, here, there, below, bus) = (two.world, two.here, two.there, two.below, two.bus);
        assert_eq!(value(&there, "b").await, None);
        let handle = here.clone();
        let ((), last) = join!(here.close(), handle.put("b", "1"));
        // The commit came first or was refused; if it came, all were told before the goodbye.
        let refused = matches!(
            &last,
            Err(Error::Unavailable {
                effect: Effect::None,
                ..
            })
        );
        assert!(last.is_ok() || refused, "{last:?}");
        assert!(matches!(handle.put("b", "2").await, Err(error) if error.effect() == Effect::None));
        assert!(handle.invalidate_all().await.is_err() && handle.invalidate(&["b".into()]).await.is_err());
        world.env().sleep(5 * SECOND).await;
        assert_eq!((there.stats().emptied, there.stats().peers), (1, 0));
        assert_eq!(value(&there, "b").await, value(&below.inner, "b").await);
        assert_eq!(value(&handle, "b").await, value(&below.inner, "b").await);
        let said = bus
            .published
            .lock()
            .iter()
            .filter(|message| message.notice == Notice::Goodbye)
            .count();
        assert_eq!((said, handle.stats().cache.entries), (1, 0));
        here.close().await;

        // The last handle that is dropped says it too, and leaves nothing behind.
        let holders = Arc::strong_count(&below.reads);
        drop(there);
        world.env().sleep(SECOND).await;
        let said = bus
            .published
            .lock()
            .iter()
            .filter(|message| message.notice == Notice::Goodbye)
            .count();
        assert_eq!((said, Arc::strong_count(&below.reads)), (2, holders - 1));
    });
}

#[test]
fn the_crates_own_keys_and_tags_need_no_memory() {
    with(|two| async move {
        let (world, here, there, bus) = (two.world, two.here, two.there, two.bus);
        for seq in 1..4 {
            let at = Position::new(1, seq);
            here.commit(Batch::new().cursor("view", at)).await.unwrap();
            assert_eq!(there.cursor("view").await.unwrap(), Some(at));
        }
        assert_eq!(there.stats().cache.entries, 0);
        assert_eq!(value(&there, "a").await, None);
        // Others may speak of tags, which entries of a store do not carry.
        let message = Message::new(Origin(7), 1, Notice::Tag("org:7".into()));
        bus.publish(message).await.unwrap();
        world.env().sleep(MS).await;
        assert_eq!((there.stats().cache.entries, there.stats().emptied), (0, 2));
    });
}

#[test]
fn a_refused_commit_drops_nothing_and_tells_nobody() {
    with(|two| async move {
        let (here, there, below) = (two.here, two.there, two.below);
        here.put("a", "1").await.unwrap();
        assert!(value(&here, "a").await.is_some());
        let (reads, heard) = (below.reads(), there.stats().invalidations_heard);
        assert!(here.put_if("a", "2", Expect::Absent).await.is_err());
        assert!(value(&here, "a").await.is_some());
        below.env.sleep(MS).await;
        assert_eq!((below.reads(), there.stats().invalidations_heard), (reads, heard));
    });
}

#[test]
fn a_bus_that_nobody_hears_holds_up_no_build_for_long() {
    let world = World::new(1);
    let (below, bus) = (Below::new(&world), Frail::default());
    world.run(async {
        bus.loses.store(true, Ordering::Relaxed);
        let before = world.now();
        let deaf = tiered(&world, "here", &below, &bus).await;
        assert_eq!(world.now() - before, SECOND);
        assert!(!deaf.stats().hearing && value(&deaf, "a").await.is_none());
        // Nor does an executor that is gone.
        let machine = world.machine("gone");
        let env = machine.env();
        machine.kill();
        let before = world.now();
        let gone = Tiered::builder(below.clone())
            .bus(bus.clone())
            .env(env)
            .build()
            .await
            .unwrap();
        assert_eq!(world.now(), before);
        assert!(gone.put("a", "1").await.is_err() && value(&gone, "a").await.is_none());
    });
    let zero = Tiered::builder(below).heartbeat(Duration::ZERO).env(world.env());
    assert!(world.run(zero.build()).is_err());
}

#[test]
fn a_commit_dropped_at_any_poll_is_told_if_it_happened() {
    let polls = drop_at_every_poll(3, |world, cut| async move {
        let (below, bus) = (Below::new(&world), Frail::default());
        let here = tiered(&world, "here", &below, &bus).await;
        let there = tiered(&world, "there", &below, &bus).await;
        here.put("a", "1").await.unwrap();
        world.env().sleep(10 * MS).await;
        assert!(value(&there, "a").await.is_some() && value(&here, "a").await.is_some());
        let done = cut.run(here.put("a", "2")).await;
        let truth = value(&below.inner, "a").await;
        assert!(done.is_none() || truth.as_deref() == Some(b"2"));
        assert_eq!(value(&here, "a").await, truth);
        world.env().sleep(10 * MS).await;
        assert_eq!(value(&there, "a").await, truth);
        here.close().await;
    });
    assert!(polls >= 3, "{polls}");
}

#[test]
fn a_read_dropped_at_any_poll_leaves_nothing_behind() {
    let keys = ["a", "b"].map(Bytes::from);
    for many in [false, true] {
        let polls = drop_at_every_poll(3, |world, cut| {
            let keys = keys.clone();
            async move {
                let (below, bus) = (Below::new(&world), Frail::default());
                let here = tiered(&world, "here", &below, &bus).await;
                here.put("a", "1").await.unwrap();
                let other = value(&here, "a");
                let read = async {
                    match many {
                        true => drop(here.get_many(&keys).await.unwrap()),
                        false => drop(here.get(b"a").await.unwrap()),
                    }
                };
                let (_, found) = join!(cut.run(read), other);
                assert_eq!(found.as_deref(), Some(&b"1"[..]));
                assert_eq!(value(&here, "a").await, found);
                // A closing that is dropped closes when the handle is.
                let _closed = here.close().now_or_never();
                assert_eq!(value(&here, "a").await, found);
            }
        });
        assert!(polls >= 2, "{polls}");
    }
}

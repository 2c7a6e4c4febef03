use super::*;
use crate::env::Env;
use crate::sim::{DiskOp, FaultKind, Inject, World, drop_at_every_poll};
use crate::store::tests::conforms;
use crate::store::{Batch, Entry, Error as StoreError, Feature, LocalStore, MemoryEngine, Scan, Store, StoreExt};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

type Local = LocalStore<MemoryEngine>;

fn local(env: &Env) -> Local {
    LocalStore::builder(MemoryEngine::new()).env(env.clone()).build()
}

async fn open(env: &Env, shards: &[(&str, &Local)]) -> Result<ShardedStore<Local>> {
    let builder = ShardedStore::builder(SlotTable::new(256)).env(env.clone());
    let add =
        |builder: ShardedStoreBuilder<_, _>, (name, store): &(&str, &Local)| builder.shard(*name, Local::clone(store));
    shards.iter().fold(builder, add).open("map").await
}

async fn contents(store: &impl Store, scan: Scan) -> Vec<(Bytes, Entry)> {
    store.scan(scan).try_collect().await.unwrap()
}

fn key(n: u8) -> Bytes {
    format!("key/{n:03}").into()
}

#[derive(Clone, Debug)]
enum Do {
    Put(u8, u8),
    Delete(u8),
    Count(u8),
    Scan { from: u8, descending: bool, limit: usize },
    AddShard,
    Reopen,
}

fn what() -> impl Strategy<Value = Do> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(k, v)| Do::Put(k, v)),
        2 => any::<u8>().prop_map(Do::Delete),
        1 => any::<u8>().prop_map(Do::Count),
        1 => (any::<u8>(), any::<bool>(), 0..40_usize).prop_map(|(from, descending, limit)| Do::Scan { from, descending, limit }),
        1 => Just(Do::AddShard),
        1 => Just(Do::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever shards come in between, it answers like one map.
    #[test]
    fn it_is_one_store(todo in prop::collection::vec(what(), 1..120), seed: u64) {
        let world = World::new(seed);
        let env = world.env();
        world.run(async {
            let mut shards = vec![local(&env), local(&env)];
            let names = ["a", "b", "c", "d", "e"];
            let named = |shards: &[Local]| names.into_iter().zip(shards.to_vec()).collect::<Vec<_>>();
            let reopen = async |shards: &[Local]| {
                let named = named(shards);
                let named: Vec<_> = named.iter().map(|(name, store)| (*name, store)).collect();
                open(&env, &named).await.unwrap()
            };
            let mut store = reopen(&shards).await;
            let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            for what in todo {
                match what {
                    Do::Put(k, v) => {
                        let value = Bytes::from(v.to_string());
                        store.put(key(k), value.clone()).await.unwrap();
                        model.insert(key(k), value);
                    }
                    Do::Delete(k) => {
                        store.delete(key(k)).await.unwrap();
                        model.remove(&key(k));
                    }
                    Do::Count(k) => {
                        let total = |text: &Bytes| std::str::from_utf8(text).unwrap().parse::<i64>().unwrap() + 7;
                        store.add(key(k), 7).await.unwrap();
                        let total = model.get(&key(k)).map_or(7, total);
                        model.insert(key(k), total.to_string().into());
                    }
                    Do::Scan { from, descending, limit } => {
                        let scan = Scan::range(key(from)..).page(3).limit(limit);
                        let scan = if descending { scan.reverse() } else { scan };
                        let found: Vec<_> = contents(&store, scan).await.into_iter().map(|(k, e)| (k, e.value)).collect();
                        let mut expected: Vec<_> = model.range(key(from)..).map(|(k, v)| (k.clone(), v.clone())).collect();
                        if descending { expected.reverse(); }
                        expected.truncate(limit);
                        assert_eq!(found, expected);
                    }
                    Do::AddShard if shards.len() < names.len() => {
                        let shard = local(&env);
                        shards.push(shard.clone());
                        store.add_shard(names[shards.len() - 1], shard).await.unwrap();
                    }
                    Do::AddShard => {}
                    Do::Reopen => {
                        drop(store);
                        store = reopen(&shards).await;
                    }
                }
            }
            let keys: Vec<Bytes> = (0..=u8::MAX).map(key).collect();
            let found = store.get_many(&keys).await.unwrap();
            for (key, entry) in keys.iter().zip(found) {
                assert_eq!(entry.as_ref().map(|entry| &entry.value), model.get(key));
                assert_eq!(store.get(key).await.unwrap(), entry);
            }
            let held: usize = shards.iter().map(|shard| shard.engine().len()).sum();
            assert_eq!(held, model.len(), "each key is held once");
        });
    }
}

/// A shard is added under traffic, and the machine dies at each disk operation in turn (or the operation fails).
#[test]
fn a_move_survives_a_crash_at_every_disk_operation() {
    let mut crashed = 0;
    for op in [
        DiskOp::Write,
        DiskOp::Sync,
        DiskOp::Rename,
        DiskOp::SyncDir,
        DiskOp::Create,
    ] {
        for nth in 0.. {
            for kill in [true, false] {
                crashed += u32::from(move_with_fault(op, nth, kill));
            }
            if nth >= 6 {
                break;
            }
        }
    }
    assert!(crashed >= 10, "{crashed}");
}

/// Returns whether the fault hit.
fn move_with_fault(op: DiskOp, nth: u64, kill: bool) -> bool {
    let world = World::new(nth);
    let (main, disk) = (world.env(), world.machine("disk"));
    let shards = [local(&main), local(&main), local(&main)];
    let [a, b, c] = &shards;
    let (start, mut model) = world.run(async {
        let store = open(&disk.env(), &[("a", a), ("b", b)]).await.unwrap();
        let mut model = BTreeMap::new();
        for k in 0..200 {
            let receipt = store.put(key(k), "1").await.unwrap();
            model.insert(key(k), receipt.version);
        }
        for k in 0..20 {
            store.delete(key(k)).await.unwrap();
            model.remove(&key(k));
        }
        (store, model)
    });
    disk.inject(op, nth, if kill { Inject::Crash } else { Inject::Fail });
    let before = world.faults().total();
    let moved = world.run(start.add_shard("c", c.clone()));
    let hit = world.faults().total() > before;
    assert_eq!(moved.is_ok_and(|report| !report.leftovers), !hit);
    if !hit {
        // The move does not do so many of these operations.
        return false;
    }
    // What is acknowledged now has to be there after the next opening, whichever map that finds.
    world.run(async {
        for k in 100..120 {
            if let Ok(receipt) = start.put(key(k), "2").await {
                assert!(receipt.version > model[&key(k)], "versions only rise");
                model.insert(key(k), receipt.version);
            }
        }
    });
    if kill {
        disk.crash();
    } else {
        disk.kill();
    }
    drop(start);
    let found = world.run(async {
        let store = match open(&disk.env(), &[("a", a), ("b", b), ("c", c)]).await {
            Ok(store) => store,
            // The map never got to the new shard.
            Err(StoreError::Invalid { .. }) => open(&disk.env(), &[("a", a), ("b", b)])
                .await
                .unwrap_or_else(|error| panic!("{error} at {op:?} {nth} {kill}")),
            Err(error) => panic!("{error} at {op:?} {nth} {kill}"),
        };
        contents(&store, Scan::all()).await
    });
    let found: BTreeMap<_, _> = found.into_iter().map(|(key, entry)| (key, entry.version)).collect();
    assert_eq!(found, model, "{op:?} {nth} {kill}");
    true
}

#[test]
fn writers_and_readers_go_on_while_a_shard_is_added() {
    for seed in 0..20 {
        let world = World::new(seed);
        let env = world.env();
        world.run(async {
            let shards = [local(&env), local(&env), local(&env)];
            let store = open(&env, &[("a", &shards[0]), ("b", &shards[1])]).await.unwrap();
            let traffic = (0..8_u8).map(|writer| {
                let (store, env) = (store.clone(), env.clone());
                env.clone().spawn(async move {
                    for round in 0..50_u32 {
                        let key = key(writer * 20 + (round % 20) as u8);
                        let value = Bytes::from(round.to_string());
                        store.put(key.clone(), value.clone()).await.unwrap();
                        env.sleep(Duration::from_micros(u64::from(round) * 7 % 90)).await;
                        let read = store.get(&key).await.unwrap().expect("it was written");
                        assert_eq!(read.value, value);
                    }
                })
            });
            let traffic: Vec<_> = traffic.collect();
            env.sleep(Duration::from_micros(500)).await;
            store.add_shard("c", shards[2].clone()).await.unwrap();
            for task in join_all(traffic).await {
                task.unwrap();
            }
            assert_eq!(contents(&store, Scan::all()).await.len(), 160);
            assert!(shards[2].engine().len() > 20);
        });
    }
}

#[test]
fn what_it_cannot_do_it_refuses() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let (a, b) = (local(&env), local(&env));
        let store = open(&env, &[("a", &a), ("b", &b)]).await.unwrap();
        assert!(!store.capability().has(Feature::AtomicBatches));
        let wide = (0..50).fold(Batch::new(), |batch, k| batch.put(key(k), "1"));
        assert!(matches!(
            store.commit(wide).await,
            Err(StoreError::Unsupported(Feature::AtomicBatches))
        ));
        store
            .commit(Batch::new().put("cart/{7}", "1").put("order/{7}", "2"))
            .await
            .unwrap();
        let cursor = Batch::new()
            .put("a", "1")
            .cursor("view", crate::store::Position::new(1, 1));
        assert!(matches!(
            store.commit(cursor).await,
            Err(StoreError::Unsupported(Feature::Cursors))
        ));
        a.put("{7}/stray", "1").await.unwrap();
        let full = local(&env);
        full.put("x", "1").await.unwrap();
        assert!(matches!(
            store.add_shard("c", full).await,
            Err(StoreError::Invalid { .. })
        ));
        assert!(matches!(
            store.add_shard("a", local(&env)).await,
            Err(StoreError::Invalid { .. })
        ));
        drop(store);
        assert!(matches!(
            open(&env, &[("a", &a)]).await,
            Err(StoreError::Invalid { .. })
        ));
        assert!(matches!(
            open(&env, &[("a", &a), ("b", &b), ("z", &b)]).await,
            Err(StoreError::Invalid { .. })
        ));
    });
}

#[test]
fn a_damaged_map_is_refused() {
    let world = World::new(1);
    let machine = world.machine("main");
    let (a, b) = (local(&machine.env()), local(&machine.env()));
    world.run(async { open(&machine.env(), &[("a", &a), ("b", &b)]).await.map(drop).unwrap() });
    assert!(machine.flip_bit("map/shards", 200));
    assert_eq!(world.faults().get(FaultKind::BitFlip), 1);
    let refused = world.run(async { open(&machine.env(), &[("a", &a), ("b", &b)]).await.err() });
    assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn it_keeps_the_contract_of_a_store() {
    use futures::FutureExt;
    for shards in [1, 3] {
        conforms(&move |env| {
            let mut builder = ShardedStore::builder(SlotTable::new(64)).env(env.clone());
            for n in 0..shards {
                builder = builder.shard(n.to_string(), local(env));
            }
            // One map for each case of the suite: each has a directory of its own.
            let dir = format!("map-{:x}", env.rng("directory").next_u64());
            async move { builder.open(dir).await.unwrap().boxed() }.boxed()
        });
    }
}

#[test]
fn one_at_a_time_has_the_map_open() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let a = local(&env);
        let first = open(&env, &[("a", &a)]).await.unwrap();
        let second = open(&env, &[("a", &a)]).await;
        assert!(matches!(second, Err(StoreError::Unavailable { .. })), "{second:?}");
        drop(first);
        open(&env, &[("a", &a)]).await.unwrap();
    });
}

#[test]
fn what_a_shard_does_not_own_does_not_come_to_light_by_a_move() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let shards = [local(&env), local(&env), local(&env)];
        let [a, b, c] = &shards;
        let store = open(&env, &[("a", a), ("b", b)]).await.unwrap();
        // Left there by a write that arrived when the key had long moved away.
        for k in 0..=u8::MAX {
            a.put(key(k), "stray").await.unwrap();
            b.put(key(k), "stray").await.unwrap();
        }
        for k in 0..=u8::MAX {
            let other = if store.router().route_name(&key(k)) == "a" {
                b
            } else {
                a
            };
            store.put(key(k), "real").await.unwrap();
            other.put(key(k), "stray").await.unwrap();
        }
        store.put("\0version", "a key like any other").await.unwrap();
        let report = store.add_shard("c", c.clone()).await.unwrap();
        assert!(report.keys > 60 && !report.leftovers, "{report:?}");
        let found = contents(&store, Scan::all()).await;
        assert_eq!(found.len(), 257);
        assert!(found[1..].iter().all(|(_, entry)| entry.value == "real"));
        let held: usize = shards.iter().map(|shard| shard.engine().len()).sum();
        assert_eq!(held, 257, "each key is held once");
    });
}

#[test]
fn a_key_never_gets_a_version_again_that_it_had_before_the_move() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let shards = [local(&env), local(&env)];
        let store = open(&env, &[("a", &shards[0])]).await.unwrap();
        let mut last = Vec::new();
        for k in 0..100 {
            store.put(key(k), "1").await.unwrap();
            store.delete(key(k)).await.unwrap();
            last.push(store.put(key(k), "2").await.unwrap().version);
            store.delete(key(k)).await.unwrap();
        }
        store.add_shard("b", shards[1].clone()).await.unwrap();
        for (k, before) in (0..100).zip(last) {
            let after = store.put(key(k), "3").await.unwrap().version;
            assert!(after > before, "{after} after {before}");
        }
    });
}

/// A move is dropped at each of its polls; what is acknowledged after that is there after the next opening.
#[test]
fn a_move_can_be_dropped_at_every_poll() {
    let polls = drop_at_every_poll(3, |world, cut| async move {
        let (main, disk) = (world.env(), world.machine("disk"));
        let shards = [local(&main), local(&main), local(&main)];
        let [a, b, c] = &shards;
        let store = open(&disk.env(), &[("a", a), ("b", b)]).await.unwrap();
        for k in 0..=u8::MAX {
            store.put(key(k), "old").await.unwrap();
        }
        let _moved = cut.run(store.add_shard("c", c.clone())).await;
        // At once, while a switch that was begun may still be under way.
        for k in 0..=u8::MAX {
            store.put(key(k), "new").await.unwrap();
        }
        main.sleep(Duration::from_secs(1)).await;
        let moved = store.status().version == 2;
        drop(store);
        disk.crash();
        let all = [("a", a), ("b", b), ("c", c)];
        let given = match open(&disk.env(), &all).await {
            Ok(store) => store,
            Err(StoreError::Invalid { .. }) => {
                assert!(!moved, "the map lost its third shard");
                let store = open(&disk.env(), &all[..2]).await.unwrap();
                store.add_shard("c", c.clone()).await.unwrap();
                store
            }
            Err(error) => panic!("{error}"),
        };
        let found = contents(&given, Scan::all()).await;
        assert_eq!(found.len(), 256);
        assert!(
            found.iter().all(|(_, entry)| entry.value == "new"),
            "an acknowledged write is lost"
        );
        let held: usize = shards.iter().map(|shard| shard.engine().len()).sum();
        assert_eq!(held, 256, "each key is held once");
    });
    assert!(polls >= 4, "{polls}");
}
